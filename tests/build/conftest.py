from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from streamtrain.build.synth import Resources
from streamtrain.data import Dataset
from streamtrain.description import default_network
from streamtrain.design import Design
from streamtrain.golden import Golden
from streamtrain.host.trainer import Trainer
from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.pipeline.plan import Plan, lower
from streamtrain.simulate import Verification

CYCLES = 500
CELLS = {"DSP48E1": 12, "RAMB36E1": 1, "RAMB18E1": 1, "LUT6": 900, "FDRE": 800}


class ClockedGolden(Golden):
    """The golden model as if it ran on a clock."""

    _clock = 0

    def run(self, x, commands):
        results = super().run(x, commands)
        cycles = self._clock + CYCLES * (1 + np.arange(len(x)))
        self._clock = int(cycles[-1])
        return replace(results, cycles=cycles)


@dataclass
class FakeDesign:
    """A design whose simulation is the golden model."""

    network: Network
    plan: Plan = field(init=False)
    board: str = "pynq_z2"
    clock_mhz: float = 100.0
    bit_exact: bool = True

    def __post_init__(self):
        self.plan = lower(self.network, lambda name, channels, kernel: (channels[1], 1, 1))
        self.multipliers = self.plan.multipliers
        self.dsp = self.multipliers + 1
        self.bound_cycles = self.plan.bound_cycles

    def golden(self, exact=True):
        return Trainer(self.plan, Golden(self.plan, exact=exact))

    def simulate(self, progress):
        return Trainer(self.plan, ClockedGolden(self.plan))

    def verify(self, steps, *, x, y, device, progress):
        difference = None if self.bit_exact else "conv1 WU, weights[0, 1] is 3, not 4"
        return Verification(steps, difference, CYCLES)

    def estimate(self):
        return SimpleNamespace(cycles=480)

    def to_json(self):
        return self.network.to_json()


@pytest.fixture
def network():
    return Network((1, 4, 4), [Conv2d(2, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(3)])


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x = rng.random((40, 1, 4, 4))
    y = rng.integers(0, 3, 40)
    return Dataset("images", x[:30], y[:30], x[30:], y[30:])


@pytest.fixture
def design(network):
    return FakeDesign(network)


@pytest.fixture
def default_design():
    return FakeDesign(default_network())


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Generation, simulated buses and synthesis that take no time."""
    log = tmp_path / "yosys.log"
    log.write_text("End of script.")
    monkeypatch.setattr(
        "streamtrain.build.streaming.generate_ip",
        lambda fmt, name: f"module {name}; // {fmt.plan.multipliers}\nendmodule\n",
    )
    monkeypatch.setattr(
        "streamtrain.build.streaming.StreamingBuild._verify_buses", lambda *arguments: None
    )
    monkeypatch.setattr(
        "streamtrain.build.parts.synthesise",
        lambda verilog, top, family, progress: (Resources.from_cells(CELLS), log),
    )


@pytest.fixture
def planned(monkeypatch, quick):
    """What the command line calls ``plan`` with; it gets designs that simulate in no time."""
    calls = []

    def plan(network, **arguments):
        calls.append((network, arguments))
        return FakeDesign(network)

    monkeypatch.setattr("streamtrain.build.command.plan", plan)
    return calls


@pytest.fixture
def simulated(monkeypatch, quick):
    """Designs whose simulation is the golden model."""
    monkeypatch.setattr(
        Design,
        "simulate",
        lambda design, progress: Trainer(design.plan, ClockedGolden(design.plan)),
    )
    monkeypatch.setattr(
        Design, "verify", lambda design, steps, **options: Verification(steps, None, CYCLES)
    )
