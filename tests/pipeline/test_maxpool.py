# amaranth: UnusedElaboratable=no

import numpy as np
import pytest

from streamtrain.numeric import Fixed
from streamtrain.pipeline.maxpool import MaxPool, MaxUnpool
from streamtrain.simulate.bench import run_streams

Q4_4 = Fixed(8, 4)
SIZES = [(2, 2, 1, 1), (4, 6, 1, 3), (6, 2, 2, 2), (2, 8, 3, 1)]  # rows, cols, lanes, blocks
each_size = pytest.mark.parametrize("size", SIZES)


def maps(size, count, codes=(-128, -1, 0, 1, 127)):
    """Maps with many equal values: (count, rows, cols, blocks, lanes), as they arrive."""
    rows, cols, lanes, blocks = size
    rng = np.random.default_rng(rows)
    return rng.choice(codes, (count, rows, cols, blocks, lanes))


def squares(x):
    """The four places of each square on the last axis, in the order of arrival otherwise."""
    count, rows, cols, blocks, lanes = x.shape
    parts = x.reshape(count, rows // 2, 2, cols // 2, 2, blocks, lanes)
    return parts.transpose(0, 1, 3, 5, 6, 2, 4).reshape(-1, lanes, 4)


def pool(size, x, train, **options):
    rows, cols, lanes, blocks = size
    payloads = [
        {"data": lane, "train": int(t)}
        for one, t in zip(x, train, strict=True)
        for lane in one.reshape(-1, lanes)
    ]
    outputs = rows * cols // 4 * blocks
    counts = {"o": len(x) * outputs, "route": sum(train) * outputs}
    dut = MaxPool(Q4_4, lanes=lanes, rows=rows, cols=cols, blocks=blocks)
    run = run_streams(dut, {"i": payloads}, counts, **options)
    assert [o["train"] for o in run.received["o"]] == np.repeat(train, outputs).tolist()
    return run


@pytest.mark.parametrize("stall", [0.0, 0.5, {"route": 0.8}])
@each_size
def test_largest_and_first_place_of_it(size, stall):
    x = maps(size, 4)
    train = np.array([1, 0, 1, 1])
    run = pool(size, x, train, stall=stall)
    np.testing.assert_array_equal([o["data"] for o in run.received["o"]], squares(x).max(axis=-1))
    routes = squares(x[train == 1]).argmax(axis=-1)
    np.testing.assert_array_equal(run.received["route"], routes)


def test_of_equal_values_the_first_counts():
    size = (2, 2, 1, 1)
    run = pool(size, maps(size, 3, codes=[-128]), [1, 1, 1])
    assert run.received["route"] == [[0]] * 3


@each_size
def test_takes_a_payload_per_cycle(size):
    x = maps(size, 3)
    rows, cols, _, blocks = size
    run = pool(size, x, [1, 1, 1], max_cycles=3 * rows * cols * blocks)
    assert run.times["o"] == run.times["route"]


@pytest.mark.parametrize("stall", [0.0, 0.5, {"route": 0.8}, {"i": 0.8}])
@pytest.mark.parametrize("lanes", [1, 3])
def test_errors_go_back_to_their_place(lanes, stall):
    rng = np.random.default_rng(lanes)
    dy = rng.choice([-128, -1, 0, 1, 127], (30, lanes))
    route = rng.integers(0, 4, dy.shape)
    counts = {"o": 4 * len(dy)}
    run = run_streams(MaxUnpool(Q4_4, lanes), {"i": dy, "route": route}, counts, stall=stall)
    expected = np.where(route[:, None] == np.arange(4)[:, None], dy[:, None], 0)
    np.testing.assert_array_equal(run.received["o"], expected.reshape(-1, lanes))


def test_gives_a_payload_per_cycle_back():
    dy = [[1]] * 10
    run_streams(MaxUnpool(Q4_4, 1), {"i": dy, "route": dy}, {"o": 40}, max_cycles=40)


@pytest.mark.parametrize("rows, cols", [(3, 4), (4, 3), (0, 2)])
def test_rejects_maps_that_squares_do_not_fill(rows, cols):
    with pytest.raises(
        ValueError, match=rf"^MaxPool needs even rows and columns, not {rows}x{cols}$"
    ):
        MaxPool(Q4_4, lanes=1, rows=rows, cols=cols, blocks=1)
