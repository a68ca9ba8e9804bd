# amaranth: UnusedElaboratable=no
"""The whole core in front of a simulated memory: training steps equal the golden model's, bit for bit."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden.kernel import GoldenKernel
from streamtrain.host.trainer import Trainer
from streamtrain.numeric import Fixed, FixedArithmetic, arithmetic
from streamtrain.simulate.kernel import SimulatedKernelTrainer
from streamtrain.simulate.memory import MemoryTiming
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import Compiler
from streamtrain.unified.kernel import KernelPlan
from streamtrain.unified.plan import lower

pytestmark = pytest.mark.xdist_group("memory simulations")

FIXED = FixedArithmetic(Fixed(16, 10), Fixed(32, 20))
LANES, IMAGES, BEAT = 4, 2, 64


def network():
    return st.Network(
        (2, 8, 8),
        [
            st.Conv2d(10, 3), st.ReLU(), st.MaxPool2d(2), st.Conv2d(6, 5), st.ReLU(),
            st.Conv2d(4, 1), st.MaxPool2d(2), st.Flatten(), st.Linear(9), st.ReLU(), st.Linear(4),
        ],
    )  # fmt: skip


def trainers(numbers, depths=None):
    """Golden model and core with its memory, of the same plan."""
    plan = KernelPlan(lower(network(), LANES), numbers, IMAGES, depths)
    return Trainer(plan, GoldenKernel(plan)), SimulatedKernelTrainer(plan, progress=False)


def assert_same(golden, simulated):
    wanted, found = golden.state_dict(), simulated.state_dict()
    assert list(wanted) == list(found)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


SMALL = Depths(x=32, e=16, sums=24, weights=300, gradients=25, tiles=2)
"""Buffers that hold some rows of a map, some of its channels, and the weights of a tile of them."""


@pytest.mark.parametrize(
    ("numbers", "depths"),
    [(FIXED, None), (FIXED, SMALL), (arithmetic("bf16"), None), (arithmetic("fp32"), SMALL)],
    ids=["fixed", "fixed, small buffers", "bf16", "fp32, small buffers"],
)
def test_steps_equal_the_golden_models(numbers, depths):
    golden, simulated = trainers(numbers, depths)
    rng = np.random.default_rng(0)
    for step in range(4):
        simulated.device.memory.timing = MemoryTiming(
            read_latency=int(rng.integers(1, 60)), stall=float(rng.choice([0.0, 0.3]))
        )
        images = IMAGES if step < 3 else 1  # the last mini-batch is smaller
        x, y = rng.normal(size=(images, 2, 8, 8)), rng.integers(0, 4, images)
        wanted, found = (t.step(x, y, lr=0.25 / (1 + step)) for t in (golden, simulated))
        assert wanted.loss == found.loss
        np.testing.assert_array_equal(wanted.predicted, found.predicted)
        assert_same(golden, simulated)
    x = rng.normal(size=(2 * IMAGES + 1, 2, 8, 8))
    y = golden.predict(x)
    assert simulated.evaluate(x, y) == golden.evaluate(x, y)
    assert_same(golden, simulated)
    simulated.close()


@pytest.mark.parametrize(
    ("small", "culprit"),
    [
        ({"weights": 299}, "FP of conv2 needs 300 rows of weights at once; the buffer has 299"),
        ({"x": 31}, "FP of conv1 needs 32 vectors of inputs"),
        ({"sums": 15}, "and 16 sums at once; the buffers have 32 and 15"),
        ({"gradients": 24}, "WU of conv2 needs 25 blocks of gradients at once"),
        ({"e": 7}, "8 errors at once"),
    ],
)
def test_buffers_that_are_too_small_are_named(small, culprit):
    compiler = Compiler(
        lower(network(), LANES), FIXED, IMAGES, SMALL._replace(**small), data_bits=BEAT
    )
    with pytest.raises(ValueError, match=culprit):
        compiler.step()
