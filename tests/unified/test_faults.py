# amaranth: UnusedElaboratable=no
"""What may go wrong in the midst of a step: it is said where, and training goes on from the step before."""

from contextlib import closing

import numpy as np
import pytest

import streamtrain as st
from streamtrain.bus.axi import DECERR, OKAY, SLVERR
from streamtrain.host.kernel_device import MemoryKernel
from streamtrain.simulate.memory import MemoryTiming

pytestmark = pytest.mark.xdist_group("memory simulations")


def network():
    return st.Network(
        (2, 6, 6),
        [
            st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(), st.Conv2d(5, 3), st.BatchNorm2d(), st.ReLU(),
            st.Flatten(), st.Linear(4),
        ],
    )  # fmt: skip


DESIGN = st.plan(network(), core="unified", numbers="fp32", lanes=4, max_batch=3)


@pytest.fixture(scope="module")
def simulated():
    with closing(DESIGN.simulate(progress=False)) as trainer:
        yield trainer


@pytest.fixture
def pair(simulated):
    """Golden model and simulation in the same state, a few steps from the start."""
    golden = DESIGN.golden()
    simulated.load_state_dict(golden.state_dict())
    for trainer in (golden, simulated):
        trainer.step(*data(0))
    return golden, simulated


def data(seed):
    rng = np.random.default_rng(seed)
    return rng.random((3, 2, 6, 6)), rng.integers(0, 4, 3)


def assert_same(golden, simulated):
    wanted, found = golden.state_dict(), simulated.state_dict()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def assert_goes_on(golden, simulated):
    """Weights are those of the step before, and the next steps are right."""
    assert_same(golden, simulated)
    for seed in range(1, 3):
        assert golden.step(*data(seed)).loss == simulated.step(*data(seed)).loss
        assert_same(golden, simulated)
    x, y = data(9)
    assert golden.evaluate(x, y) == simulated.evaluate(x, y)


def places(simulated):
    """Something in memory that each kind of access fails at: its address, and what is said of it."""
    device = simulated.device
    compiler, old = DESIGN.plan.compiler, device._set
    weights, _, channels = compiler.sets[old]
    new_weights, new_biases, new_channels = compiler.sets[1 - old]
    return {
        "samples": (compiler.inputs["conv1"].address + 8, "a read of .* in FP of conv1"),
        "weights": (weights["conv2"].address, "a read of .* in FP of conv2"),
        "shift": (channels["norm1"].address + 16 * 12, "a read of .* in FP of conv2"),
        "outputs": (compiler.outputs["conv1"].address, "a write of .* in FP of conv1"),
        "routes": (compiler.routes["norm1"].address, "a write of .* in FP of norm1"),
        "statistics": (new_channels["norm1"].address, "a write of .* in FP of norm1"),
        "targets": (compiler.targets.address, "a read of .* in FP of linear1"),
        "errors": (compiler.errors["norm1"].address, "a write of .* in BP of linear1"),
        "new weights": (new_weights["linear1"].address, "a write of .* in WU of linear1"),
        "last biases": (new_biases["conv1"].address, "a write of .* in WU of conv1"),
        "program": (device._programs["step", 3, old][1] + 4096, "a read of .*while it was fetched"),
    }


@pytest.mark.parametrize("response", [SLVERR, DECERR], ids=["SLVERR", "DECERR"])
@pytest.mark.parametrize(
    "what",
    [
        "samples", "weights", "shift", "outputs", "routes", "statistics", "targets", "errors",
        "new weights", "last biases", "program",
    ],
)  # fmt: skip
def test_an_error_of_the_memory_ends_a_step_and_nothing_else(pair, what, response):
    golden, simulated = pair
    memory = simulated.device.memory
    simulated.step(*data(5))  # so that both sets of weights have had their turn, and programs are there
    golden.step(*data(5))
    address, said = places(simulated)[what]
    memory.timing = MemoryTiming(stall=0.2)
    memory.fail(address, response)
    kind = "SLVERR" if response == SLVERR else "DECERR"
    with pytest.raises(st.BusError, match=rf"stopped by {kind} at {said}") as error:
        simulated.step(*data(6))
    assert "Weights are those after the last whole step" in str(error.value)
    memory.fail(address, OKAY)
    assert_goes_on(golden, simulated)


def test_errors_anywhere(pair):
    """Wherever memory fails, in a step or in an evaluation."""
    golden, simulated = pair
    memory, rng = simulated.device.memory, np.random.default_rng(0)
    failed = 0
    for seed in range(60):
        address = int(rng.integers(0, simulated.device._end)) // 64 * 64
        memory.timing = MemoryTiming(
            read_latency=int(rng.integers(1, 40)), stall=float(rng.choice([0, 0.4]))
        )
        memory.fail(address, SLVERR)
        try:
            simulated.step(*data(seed))
        except st.BusError as error:
            failed += 1
            assert "SLVERR" in str(error)
        else:
            golden.step(*data(seed))
        memory.fail(address, OKAY)
        assert_same(golden, simulated)
    assert failed > 10
    assert_goes_on(golden, simulated)


def test_a_program_that_was_overwritten_does_not_run(pair):
    golden, simulated = pair
    golden.step(*data(5))
    simulated.step(*data(5))
    device = simulated.device
    _, address = device._programs["step", 3, device._set]
    kept = device.bus.load(address, 64)
    device.bus.store(address, kept ^ (np.arange(64) == 9).astype(np.uint8))
    with pytest.raises(st.BusError, match=rf"no program of its own at {address:#x}: memory was"):
        simulated.step(*data(6))
    device.bus.store(address, kept)
    assert_goes_on(golden, simulated)


def test_a_step_that_the_host_leaves_does_not_count(pair):
    golden, simulated = pair
    bus = simulated.device.bus
    wait, bus.wait = bus.wait, lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulated.step(*data(6))
    finally:
        bus.wait = wait
    assert_same(golden, simulated)
    assert simulated.device.read("STATUS") & 1
    assert_goes_on(golden, simulated)


def test_saving_goes_on_after_an_error(pair, tmp_path):
    golden, simulated = pair
    address = DESIGN.plan.compiler.inputs["conv1"].address
    simulated.device.memory.fail(address)
    with pytest.raises(st.BusError):
        simulated.fit(*data(3), batch_size=3, progress=False)
    simulated.device.memory.fail(address, OKAY)
    simulated.save(tmp_path / "state")
    golden.load(tmp_path / "state")
    assert_goes_on(golden, simulated)


def test_hardware_of_another_design_is_refused(simulated):
    bus = simulated.device.bus
    other = st.plan(network(), core="unified", numbers="bf16", lanes=4, max_batch=3)
    with pytest.raises(st.BusError, match=r"core at the bus was made from another design: .* CORE reads"):
        MemoryKernel(other.plan, bus)
    found = bus.read
    bus.read = lambda address: 0
    try:
        with pytest.raises(st.BusError, match=r"no unified core at the bus: .* 0x00000000"):
            MemoryKernel(DESIGN.plan, bus)
    finally:
        bus.read = found


def test_two_sets_of_weights_cost_their_memory():
    once = st.plan(network(), core="unified", numbers="fp32", lanes=4, max_batch=3, weight_sets=1)
    assert DESIGN.memory_bytes["weights"] == 2 * once.memory_bytes["weights"]
    assert DESIGN.memory_bytes["programs"] == 2 * once.memory_bytes["programs"]
    assert once.plan.configuration == DESIGN.plan.configuration
