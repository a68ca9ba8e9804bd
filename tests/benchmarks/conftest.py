import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from streamtrain.data import Dataset

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import nets


@pytest.fixture
def tiny(monkeypatch):
    """The only net of the benchmarks: one that trains in no time, on random images."""
    net = nets.Net(
        "T", "test", (1, 6, 6), "2P-FC4-FC3", 2**-5, "mnist", ((2, 1, 3), (2, 2, 1), (1, 2, 1)),
        most_cycles=900, least_saving=0.1, golden_speed=(3000, 1000),
    )  # fmt: skip
    monkeypatch.setattr(nets, "NETS", {"T": net})
    for script in ("accuracy", "continual", "formats", "speed", "resources"):
        module = import_module(script)
        monkeypatch.setattr(module, "NETS", {"T": net})
        if hasattr(module, "images"):
            monkeypatch.setattr(module, "images", lambda net, folder=None: random_images(net))
    return net


def random_images(net):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (50, *net.input_shape), np.uint8)
    y = rng.integers(0, net.network().classes, 50)
    return Dataset("random images", x[:40], y[:40], x[40:], y[40:])


@pytest.fixture
def clocked():
    """A class of devices: the golden model as if it ran on a clock, after a compiler.

    A sample takes 600 cycles, and an update 300 more.
    """
    from streamtrain.golden import Golden

    class Clocked(Golden):
        messages = ("generating Verilog", "verilating", "compiling 3 files")

        def __init__(self, plan, *, report):
            super().__init__(plan)
            for message in self.messages:
                report(message)

        def run(self, x, commands):
            cycles = np.cumsum(600 + 300 * commands.update)
            return replace(super().run(x, commands), cycles=cycles)

        def close(self):
            pass

    return Clocked
