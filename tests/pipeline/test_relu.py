# amaranth: UnusedElaboratable=no

import numpy as np
import pytest

from streamtrain.numeric import Fixed
from streamtrain.pipeline.relu import ReLU, ReLUGrad
from streamtrain.simulate.bench import run_streams

Q4_4 = Fixed(8, 4)


def codes(count, lanes):
    """Random codes, half of them zero, next to it or at the ends of the range."""
    rng = np.random.default_rng(lanes)
    special = rng.choice([-128, -1, 0, 1, 127], (count, lanes))
    return np.where(
        rng.random((count, lanes)) < 0.5, special, rng.integers(-128, 128, special.shape)
    )


def rectify(x, train, **options):
    payloads = [{"data": row, "train": int(t)} for row, t in zip(x, train, strict=True)]
    dut = ReLU(Q4_4, x.shape[1])
    return run_streams(dut, {"i": payloads}, {"o": len(x), "mask": int(train.sum())}, **options)


@pytest.mark.parametrize("stall", [0.0, 0.5, {"mask": 0.8}])
@pytest.mark.parametrize("lanes", [1, 3])
def test_negative_values_become_zero_and_masks_say_so(lanes, stall):
    x = codes(60, lanes)
    train = np.random.default_rng(1).random(len(x)) < 0.5
    run = rectify(x, train, stall=stall)
    np.testing.assert_array_equal([o["data"] for o in run.received["o"]], np.maximum(x, 0))
    assert [o["train"] for o in run.received["o"]] == train.tolist()
    np.testing.assert_array_equal(run.received["mask"], x[train] > 0)


def test_takes_a_payload_per_cycle():
    x = codes(40, 2)
    rectify(x, np.ones(len(x), bool), max_cycles=40)


@pytest.mark.parametrize("stall", [0.0, 0.5, {"mask": 0.8}, {"i": 0.8}])
@pytest.mark.parametrize("lanes", [1, 3])
def test_errors_pass_where_the_mask_lets_them(lanes, stall):
    dy = codes(60, lanes)
    mask = np.random.default_rng(2).integers(0, 2, dy.shape)
    run = run_streams(ReLUGrad(Q4_4, lanes), {"i": dy, "mask": mask}, {"o": len(dy)}, stall=stall)
    np.testing.assert_array_equal(run.received["o"], np.where(mask, dy, 0))


def test_errors_pass_at_one_payload_per_cycle():
    dy = codes(40, 2)
    run_streams(
        ReLUGrad(Q4_4, 2), {"i": dy, "mask": (dy > 0).astype(int)}, {"o": 40}, max_cycles=40
    )
