# amaranth: UnusedElaboratable=no

import random
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Fixed
from streamtrain.simulate.bench import run_streams
from streamtrain.stream import Cursor, WindowShape, WindowStore, connect

Q4_4 = Fixed(8, 4)


def same(rows, cols, kernel, taps, lanes=1, blocks=1, slots=1, **others):
    """Windows around each pixel of a map."""
    return WindowShape(
        rows, cols, (rows, cols), kernel, kernel // 2, taps, lanes, blocks, slots, **others
    )


def padded(rows, cols, kernel, taps, pad, lanes=1, blocks=1, slots=1, **others):
    """All windows of a map with any padding."""
    places = (rows + 2 * pad - kernel + 1, cols + 2 * pad - kernel + 1)
    return WindowShape(rows, cols, places, kernel, pad, taps, lanes, blocks, slots, **others)


SHAPES = {
    "3x3": same(5, 4, 3, 9, lanes=2, blocks=2, slots=2),
    "3x3 by row": same(5, 4, 3, 3, lanes=2, blocks=2, slots=2),
    "3x3 by tap": same(5, 4, 3, 1, lanes=2, blocks=2, slots=2),
    "5x5": same(4, 6, 5, 25, slots=2),
    "5x5 by row": same(4, 6, 5, 5, blocks=3, slots=2),
    "5x5 by tap": same(3, 3, 5, 1, lanes=3),
    "1x1": same(3, 4, 1, 1, lanes=2, blocks=3, slots=3),
    "larger than its map": same(2, 1, 5, 25, slots=2),
    "one pixel": same(1, 1, 1, 1, lanes=3, blocks=2, slots=2),
    "one pixel padded": same(1, 1, 3, 9, slots=2),
    "valid": padded(5, 6, 3, 9, pad=0, lanes=2, slots=2),
    "valid 5x5 by row": padded(5, 7, 5, 5, pad=0, slots=2),
    "grown": padded(3, 4, 3, 9, pad=2, blocks=2, slots=2),
    "grown by row": padded(3, 4, 3, 3, pad=2, slots=2),
    "grown 5x5": padded(2, 2, 5, 25, pad=4),
    "beyond its end": replace(padded(4, 5, 3, 9, pad=0, slots=2), places=(4, 5)),
    "beyond its end by row": replace(padded(4, 5, 5, 5, pad=1, slots=2), places=(5, 5)),
    "wholly beyond its end": replace(same(2, 2, 1, 1, slots=2), places=(3, 4)),
    "squares beyond their end": replace(same(2, 4, 3, 3, slots=2, square=2), places=(3, 5)),
    "squares wholly beyond": replace(same(4, 2, 3, 9, slots=2, square=2), places=(7, 5)),
    "last row and column unused": replace(same(5, 5, 3, 3, slots=2), places=(4, 4)),
    "squares": same(4, 6, 3, 9, lanes=2, blocks=2, slots=2, square=2),
    "squares by row": same(6, 4, 3, 3, slots=3, square=2),
    "squares by tap": same(2, 4, 3, 1, blocks=2, slots=2, square=2),
    "squares 5x5": same(4, 4, 5, 25, slots=2, square=2),
    "squares grown": padded(4, 2, 3, 9, pad=2, slots=2, square=2),
    "squares of 1x1": same(2, 2, 1, 1, lanes=2, blocks=2, slots=2, square=2),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def maps(shape, count):
    """Random maps of extreme and other codes: (count, channels, rows, cols)."""
    rng = np.random.default_rng(count)
    size = (count, shape.blocks * shape.lanes, shape.rows, shape.cols)
    return rng.choice([-128, 127, *range(-128, 128)], size)


def arrival(shape, x):
    """Payloads in which maps arrive."""
    payloads = []
    square = range(shape.square)
    for one in x:
        rows, cols = range(0, shape.rows, shape.square), range(0, shape.cols, shape.square)
        for row, col, block, down, right in product(
            rows, cols, range(shape.blocks), square, square
        ):
            channels = slice(block * shape.lanes, (block + 1) * shape.lanes)
            payloads.append(one[channels, row + down, col + right].tolist())
    return payloads


def window(shape, one, row, col):
    """Taps of a window: (channels, kernel**2)."""
    pad, kernel = shape.pad, shape.kernel
    wide = np.pad(one, ((0, 0), (pad, row + kernel), (pad, col + kernel)))
    return wide[:, row : row + kernel, col : col + kernel].reshape(len(one), -1)


class Reader(wiring.Component):
    """A store, and a cursor that walks over its windows as they are complete."""

    def __init__(self, shape):
        self.shape = shape
        self.store, self.cursor = WindowStore(Q4_4, shape), Cursor(shape)
        members = self.store.signature.members
        super().__init__({
            "i": In(stream.Signature(data.ArrayLayout(Q4_4, shape.lanes))),
            **{name: members[name] for name in ("release", "en", "block", "tap", "taps")},
            "complete": Out(1),
            "step": In(1),
            "slot_step": In(1),
            "last": Out(1),
            "arrived": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.store, m.submodules.cursor = store, cursor = self.store, self.cursor
        connect(m, wiring.flipped(self.i), store.i)
        row, col = cursor.need_row, cursor.need_col
        m.d.comb += [
            *(getattr(store, n).eq(getattr(self, n)) for n in ("release", "en", "block", "tap")),
            *(getattr(cursor, n).eq(getattr(self, n)) for n in ("step", "slot_step")),
            store.at.eq(cursor.at),
            self.taps.eq(store.taps),
            self.complete.eq(store.complete),
            self.last.eq(cursor.last),
            self.arrived.eq((store.row > row) | ((store.row == row) & (store.col > col))),
        ]
        return m


async def read_maps(ctx, reader, count, seen, *, pause=0.0):
    """Read all windows of ``count`` maps, in groups of taps, as early as they are there."""
    shape = reader.shape
    rng = random.Random(count)
    parts = list(product(range(shape.blocks), range(shape.kernel**2 // shape.taps)))
    ahead = 0  # maps that are complete, and not yet read
    coming = [False] * (WindowStore.LATENCY - 1)  # whether taps come in 1, 2, ... cycles
    windows = [(place, part) for place in product(*map(range, shape.places)) for part in parts]
    for number in range(count):
        left = list(windows)
        while left or any(coming):
            last_part = bool(left) and left[0][1] == parts[-1]
            last_place = len(left) <= len(parts)
            ready = left and (ahead or ctx.get(reader.arrived)) and rng.random() >= pause
            if ready:
                ctx.set(reader.block, left[0][1][0])
                ctx.set(reader.tap, left[0][1][1])
                assert ctx.get(reader.last) == last_place
                left.pop(0)
            else:  # noise, as nobody reads
                ctx.set(reader.block, rng.randrange(shape.blocks))
                ctx.set(reader.tap, rng.randrange(shape.kernel**2 // shape.taps))
            done = ready and not left
            ctx.set(reader.en, bool(ready))
            ctx.set(reader.step, bool(ready and last_part))
            ctx.set(reader.slot_step, bool(done))
            ctx.set(reader.release, bool(done))
            coming.append(bool(ready))
            _, _, complete = await ctx.tick().sample(reader.complete)
            ahead += complete - bool(done)
            if coming.pop(0):
                seen.append([list(lane) for lane in ctx.get(reader.taps)])
        ctx.set(reader.release, 0)
        ctx.set(reader.step, 0)
        ctx.set(reader.slot_step, 0)
        assert len(seen) == (number + 1) * len(windows)


def expected_windows(shape, x):
    groups = shape.kernel**2 // shape.taps
    return [
        taps[block * shape.lanes : (block + 1) * shape.lanes, tap * shape.taps :][:, : shape.taps]
        for one in x
        for place in product(*map(range, shape.places))
        for taps in [window(shape, one, *place)]
        for block, tap in product(range(shape.blocks), range(groups))
    ]


@each_shape
@pytest.mark.parametrize("stall, pause", [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6)])
def test_windows_are_right_as_soon_as_they_are_complete(shape, stall, pause):
    x = maps(shape, 3)
    reader, seen = Reader(shape), []
    drive = partial(read_maps, reader=reader, count=len(x), seen=seen, pause=pause)
    run_streams(reader, {"i": arrival(shape, x)}, {}, drive=drive, stall=stall)
    np.testing.assert_array_equal(seen, expected_windows(shape, x))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_accepts_a_word_per_cycle_until_its_slots_are_used(slots):
    shape = same(3, 2, 3, 9, blocks=2, slots=slots)
    store = WindowStore(Q4_4, shape)
    one = 3 * 2 * 2

    async def release(ctx):
        for _ in range(5 * one):
            await ctx.tick()
        ctx.set(store.release, 1)
        await ctx.tick()
        ctx.set(store.release, 0)

    payloads = arrival(shape, maps(shape, slots + 1))
    run = run_streams(store, {"i": payloads}, {}, drive=release)
    full = slots * one
    assert run.times["i"][:full] == list(range(full))
    assert run.times["i"][full:] == list(range(5 * one + 1, 6 * one + 1))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_slots_are_counted_as_maps_come_and_go(slots):
    shape = same(1, 1, 1, 1, slots=slots)  # each payload is a map
    store = WindowStore(Q4_4, shape)

    async def release(ctx):
        rng, used, left = random.Random(slots), 0, 100
        while left:
            now = used > 0 and rng.random() < 0.5
            ctx.set(store.release, now)
            assert ctx.get(store.i.ready) == (used < slots)
            _, _, taken = await ctx.tick().sample(store.i.valid & store.i.ready)
            used += taken - now
            left -= taken
        ctx.set(store.release, 0)

    run_streams(store, {"i": [[1]] * 100}, {}, drive=release, stall=0.4)


def test_a_map_follows_another_at_once():
    shape = same(2, 2, 1, 1, slots=3)
    payloads = arrival(shape, maps(shape, 3))
    run_streams(WindowStore(Q4_4, shape), {"i": payloads}, {}, max_cycles=len(payloads))


def test_taps_stay_until_the_next_arrive():
    shape = same(2, 2, 3, 9)
    x = maps(shape, 1)
    reader, seen = Reader(shape), []

    async def hold(ctx):
        complete = False
        while not complete:
            _, _, complete = await ctx.tick().sample(reader.complete)
        for place in ((0, 0), (0, 1)):
            ctx.set(reader.en, 1)
            ctx.set(reader.step, 1)
            for cycle in range(9):
                await ctx.tick()
                ctx.set(reader.en, 0)
                ctx.set(reader.step, 0)
                taps = [list(lane) for lane in ctx.get(reader.taps)]
                if cycle < WindowStore.LATENCY - 1:
                    assert seen == [] or taps == seen[-1]
                else:
                    assert taps == window(shape, x[0], *place).tolist()
            seen.append(taps)

    run_streams(reader, {"i": arrival(shape, x)}, {}, drive=hold)


@each_shape
def test_cursor_walks_over_windows_and_slots(shape):
    cursor = Cursor(shape)
    reach = shape.kernel - 1 - shape.pad
    squares = shape.square

    def axis(place, size, banks, stride):
        """Memory, address, taps inside of the map, and the square that completes the window."""
        taps = range(place - shape.pad, place - shape.pad + shape.kernel)
        inside = sum((0 <= pixel < size) << tap for tap, pixel in enumerate(taps))
        return (
            place % banks,
            place // banks * stride,
            inside,
            min(place + reach, size - 1) // squares,
        )

    async def walk(ctx):
        for number in range(2 * shape.slots + 1):
            for row, col in product(*map(range, shape.places)):
                down = axis(row, shape.rows, shape.bank_rows, shape.row_stride)
                right = axis(col, shape.cols, shape.bank_cols, shape.col_stride)
                address = number % shape.slots * shape.slot_stride + down[1] + right[1]
                if not (down[2] and right[2]):
                    address = ctx.get(cursor.at.address)  # nothing is inside: any will do
                at = {
                    "address": address,
                    "bank_row": down[0],
                    "bank_col": right[0],
                    "row_inside": down[2],
                    "col_inside": right[2],
                }
                last = (row + 1, col + 1) == tuple(shape.places)
                for step in (0, 1):  # nothing moves without a step
                    assert ctx.get(cursor.at) == at
                    assert ctx.get(cursor.last) == last
                    assert (ctx.get(cursor.need_row), ctx.get(cursor.need_col)) == (
                        down[3],
                        right[3],
                    )
                    ctx.set(cursor.step, step)
                    ctx.set(cursor.slot_step, step and last)
                    await ctx.tick()

    run_streams(cursor, {}, {}, drive=walk)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"taps": 2}, r"^Taps must be 1, 3 \(a kernel row\) or 9 \(all\), not 2$"),
        ({"pad": 3}, r"^Padding must be 0 to 2, not 3$"),
        ({"pad": -1}, r"^Padding must be 0 to 2, not -1$"),
        ({"square": 2}, r"^Squares of 2x2 do not fill a 5x4 map$"),
    ],
)
def test_rejects_shapes_that_cannot_be_read(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SHAPES["3x3"], **changes)
