# amaranth: UnusedElaboratable=no
"""The whole core in front of a simulated memory: training steps equal the golden model's, bit for bit."""

from contextlib import closing

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
from streamtrain.unified.program import Kind

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


def strided(columns, padding):
    """Strides on odd maps. With ``"valid"``, conv2's kernels leave a rest of its inputs' rows and columns."""
    return st.Network(
        (2, 23, columns),
        [
            st.Conv2d(5, 3, stride=2), st.ReLU(), st.Conv2d(6, 5, padding, stride=2), st.ReLU(),
            st.Flatten(), st.Linear(3),
        ],
    )  # fmt: skip


def train_both(net, numbers, depths=None, lanes=LANES):
    """A few steps on golden model and core, whose memory is now fast, now slow. Both must give the same."""
    plan = KernelPlan(lower(net, lanes), numbers, IMAGES, depths)
    golden = Trainer(plan, GoldenKernel(plan))
    rng = np.random.default_rng(0)
    with closing(SimulatedKernelTrainer(plan, progress=False)) as simulated:
        for images in (IMAGES, IMAGES, 1, IMAGES):  # programs for fewer are others
            simulated.device.memory.timing = MemoryTiming(
                read_latency=int(rng.integers(1, 60)), stall=float(rng.choice([0.0, 0.3]))
            )
            x = rng.normal(size=(images, *net.input_shape))
            y = rng.integers(0, net.classes, images)
            wanted, found = (trainer.step(x, y, lr=0.125) for trainer in (golden, simulated))
            assert wanted.loss == found.loss
            np.testing.assert_array_equal(wanted.predicted, found.predicted)
            assert_same(golden, simulated)
        x = rng.normal(size=(2 * IMAGES + 1, *net.input_shape))
        y = golden.predict(x)
        assert simulated.evaluate(x, y) == golden.evaluate(x, y)
        assert_same(golden, simulated)


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
    train_both(network(), numbers, depths)


@pytest.mark.parametrize(
    ("numbers", "columns", "padding", "depths"),
    [
        (arithmetic("fp32"), 15, "valid", None),
        (arithmetic("fp32"), 15, "valid", Depths(x=96, e=8, sums=8, weights=200, gradients=25, tiles=2)),
        (FIXED, 1, "same", Depths(x=12, e=4, sums=6, weights=200, gradients=25, tiles=2)),
    ],
    ids=["whole layers", "rows", "a column"],
)  # fmt: skip
def test_steps_with_strides(numbers, columns, padding, depths):
    """BP of tiles of a row or a column, in which some taps reach no pixel, and of rows that no kernel read."""
    train_both(strided(columns, padding), numbers, depths)


def test_steps_with_many_classes_and_linear_layers_that_do_not_fit():
    """Softmax over three vectors of scores; weights of linear layers come in parts, for images side by side."""
    net = st.Network(
        (2, 6, 6),
        [
            st.Conv2d(7, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(22), st.ReLU(), st.Linear(10),
        ],
    )  # fmt: skip
    depths = Depths(x=40, e=12, sums=36, weights=36, gradients=18, tiles=4)
    plan = lower(net, LANES)
    wide = Compiler(plan, FIXED, IMAGES, depths, data_bits=BEAT).step()
    linear = [f for k, f in wide.records if k is Kind.COMPUTE and f["images"] > 1 and not f.get("update")]
    assert any(not f["first"] for f in linear), "no sums that are added to in a second part"
    train_both(net, FIXED, depths)


def normalized():
    """Batch norms of several tiles of channels: with pool and ReLU, with a stride and a 5x5 kernel, bare."""
    return st.Network(
        (2, 23, 16),
        [
            st.Conv2d(6, 3, stride=2, bias=False), st.BatchNorm2d(), st.ReLU(), st.MaxPool2d(2),
            st.Conv2d(5, 5, stride=2), st.BatchNorm2d(eps=1e-3, momentum=0.3), st.ReLU(),
            st.Conv2d(3, 1), st.BatchNorm2d(), st.Flatten(), st.Linear(3),
        ],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "depths"),
    [
        (arithmetic("fp32"), None),
        (arithmetic("bf16"), Depths(x=51, e=16, sums=16, weights=200, gradients=25, tiles=8)),
    ],
    ids=["fp32", "bf16, small buffers"],
)
def test_steps_with_batch_norms(numbers, depths):
    train_both(normalized(), numbers, depths)


@pytest.mark.parametrize(
    ("lanes", "numbers", "norm"),
    [(6, arithmetic("bf16"), [st.BatchNorm2d()]), (10, FIXED, [])],
    ids=["6, bf16, batch norm", "10, fixed"],
)
def test_steps_whose_vectors_are_no_whole_beats(lanes, numbers, norm):
    """Three channels in groups that divide the lanes; words in memory are padded, and masks and routes are."""
    net = st.Network(
        (3, 5, 7),
        [
            st.Conv2d(7, 3), *norm, st.ReLU(), st.Conv2d(11, 3), st.ReLU(), st.MaxPool2d(),
            st.Flatten(), st.Linear(9), st.ReLU(), st.Linear(4),
        ],
    )  # fmt: skip
    assert lower(net, lanes).layers[0].group == {6: 3, 10: 5}[lanes]
    train_both(net, numbers, lanes=lanes)


def test_steps_with_sums_of_images_that_are_stored_one_by_one():
    """Of several tiles of channels at once, those of an image do not lie beside the next one's."""
    net = st.Network(
        (2, 2, 2), [st.Conv2d(12, 3), st.BatchNorm2d(), st.ReLU(), st.Flatten(), st.Linear(3)]
    )
    numbers, depths = arithmetic("bf16"), Depths(x=64, e=48, sums=64, weights=24, gradients=24, tiles=8)
    program = KernelPlan(lower(net, LANES), numbers, IMAGES, depths).compiler.single("FP", "conv1")
    fresh = [f["sums"]["fresh"] for k, f in program.records if k is Kind.STORE]
    assert sum(fresh) < len(fresh), "all images are stored at once"
    train_both(net, numbers, depths)


@pytest.mark.parametrize(
    ("small", "culprit"),
    [
        ({"weights": 99}, "FP of conv2 needs 100 rows of weights at once; the buffer has 99"),
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


@pytest.mark.parametrize(
    ("small", "culprit"),
    [
        (
            {"tiles": 7},
            "WU of norm3 needs 8 vectors of biases' gradients at once; the buffer has 7",
        ),
        ({"gradients": 7}, "WU of norm3 needs 8 blocks of gradients"),
    ],
)
def test_buffers_that_are_too_small_for_batch_norms_are_named(small, culprit):
    depths = Depths(x=400, e=400, sums=400, weights=400, gradients=100, tiles=8)._replace(**small)
    compiler = Compiler(
        lower(normalized(), LANES), arithmetic("fp32"), IMAGES, depths, data_bits=BEAT
    )
    with pytest.raises(ValueError, match=culprit):
        compiler.step()
