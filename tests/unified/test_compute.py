"""The compute engine against the golden model's passes: whole layers as one tile, in all phases."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.golden import passes
from streamtrain.golden.passes import PARTIALS
from streamtrain.numeric import FloatArithmetic, arithmetic
from streamtrain.unified.buffers import Depths
from streamtrain.unified.command import command_layout
from streamtrain.unified.compute import ComputeEngine
from streamtrain.unified.plan import KernelLayer
from streamtrain.unified.sequencer import Fold

IMAGES = 2


def layer(n, m, size, kernel, *, stride=1, pad=0, lanes=4, back=True, flattened=None):
    rows, columns = size
    return KernelLayer(
        name="layer", n=n, m=m, flattened=flattened or (n, 1, 1), rows=rows, columns=columns,
        kernel=kernel, stride=stride, pad=pad, out_rows=(rows + 2 * pad - kernel) // stride + 1,
        out_columns=(columns + 2 * pad - kernel) // stride + 1, pool=1, relu=False, bias=True,
        back=back, trainable=True, lanes=lanes,
    )  # fmt: skip


LAYERS = {
    "same": layer(4, 4, (5, 6), 3, pad=1),
    "tiles": layer(7, 9, (4, 5), 3, pad=1),
    "5x5": layer(4, 3, (6, 5), 5, pad=2),
    "1x1": layer(9, 5, (3, 3), 1),
    "stride 2": layer(4, 5, (7, 6), 3, stride=2, pad=1),
    "odd lanes": layer(4, 7, (4, 4), 3, pad=1, lanes=3),
    "grey": layer(1, 5, (6, 5), 3, pad=1, back=False),
    "two taps": layer(2, 4, (6, 5), 3, pad=1, back=False),
    "linear": layer(12, 6, (1, 1), 1, flattened=(3, 2, 2)),
}


def vectors(maps):
    """Maps (images, tiles, rows, columns, lanes) as vectors, tile after tile."""
    return maps.transpose(1, 0, 2, 3, 4).reshape(-1, maps.shape[-1])


def packed(codes, width):
    """Codes of a vector as one integer, the first one lowest."""
    return sum(int(code) << width * i for i, code in enumerate(codes))


def unpacked(word, width, count):
    return [word >> width * i & (1 << width) - 1 for i in range(count)]


class Case:
    """A layer with random numbers, its golden results, and the commands that compute it."""

    def __init__(self, own, numbers, seed=1):
        self.own, self.lanes = own, own.lanes
        self.numbers, self.floating = numbers, isinstance(numbers, FloatArithmetic)
        rng = np.random.default_rng(seed)
        self.tiles = own.tiles if own.group == own.lanes else (own.tiles[0], 1)
        shape = (IMAGES, self.tiles[1], own.rows, own.columns, own.group)

        def draw(shape):
            if self.floating:
                codes = numbers.operand.encode(rng.normal(size=shape))
                return numbers.operand.to_float32(codes)
            return rng.integers(-40, 41, shape)

        self.x, outs = draw(shape), (IMAGES, own.tiles[0], own.out_rows, own.out_columns, own.lanes)
        self.errors = draw(outs)
        self.weights = own.pack(draw((own.m, own.n, own.kernel, own.kernel)))
        shift = 0 if self.floating else numbers.accumulator.frac - numbers.operand.frac
        one = self.x.dtype.type(1 << shift)
        self.bias = draw((own.tiles[0], own.lanes)) * one
        limits = passes.FLOAT if self.floating else passes.fixed(numbers.accumulator)
        step = own.stride, own.pad, limits
        self.z, self.dx = np.zeros(outs, self.x.dtype), np.zeros_like(self.x)
        self.dw, self.db = np.zeros_like(self.weights), np.zeros_like(self.bias)
        passes.forward(self.x, self.weights, self.bias, *own.passes, *step, self.z)
        passes.gradients(self.x, self.errors, *own.passes, *step, one, self.dw, self.db)
        if own.back:
            passes.back_propagate(self.errors, self.weights, own.kernel, *step, self.dx)
        x, e = vectors(self.x), vectors(self.errors)
        self.depths = Depths(
            x=max(len(x), len(e)), e=len(e), sums=max(len(x), len(e)),
            weights=own.tiles[0] * len(own.passes.tile) * own.lanes,
            gradients=own.tiles[0] * len(own.passes.tile), tiles=own.tiles[0],
        )  # fmt: skip
        self.fold = None
        if own.group < own.lanes:
            self.fold = Fold(own.group, own.kernel, own.columns)

    def codes(self, fmt, numbers):
        """Unsigned codes of numbers as the golden model has them."""
        if self.floating:
            return fmt.from_float32(numbers).astype(np.int64)
        return numbers & (1 << fmt.width) - 1

    def _window(self, first_tap):
        """Fields of a loop over the outputs' pixels, all in one tile."""
        own = self.own
        size, step = own.rows * own.columns, own.stride
        end = (own.out_columns - 1) * step
        row = step * own.columns - end
        taps = own.kernel if not self.fold else 1
        tap_row = own.columns - own.kernel + 1
        return {
            "folded": bool(self.fold), "tiles": self.tiles[1],
            "taps_row": taps, "taps_col": len(own.passes.tile) if self.fold else taps,
            "images": IMAGES, "rows": own.out_rows, "cols": own.out_columns,
            "map_rows": own.rows, "map_cols": own.columns, "step": step,
            "x": 0, "x_row": row, "x_image": size - (own.out_rows - 1) * step * own.columns - end,
            "tap": -own.pad * own.columns - own.pad, "tap_row": tap_row,
            "tap_tile": IMAGES * size - (own.kernel - 1) * (own.columns + 1),
            "row": -own.pad, "col": -own.pad,
            "block_col": first_tap, "block_row": first_tap, "block_tile": first_tap,
            "o_col": 1, "o_row": 1, "o_image": 1,
        }  # fmt: skip

    def forward(self):
        count, pixels = len(self.own.passes.tile), self.z[0, 0, ..., 0].size * IMAGES
        for out in range(self.tiles[0]):
            last = out == self.tiles[0] - 1
            yield self._window(self.lanes) | {
                "block": out * count * self.lanes, "o": out * pixels, "bias": out,
                "first": 1, "biased": 1, "done_x": last, "done_weights": last, "done": last,
            }  # fmt: skip

    def gradients(self):
        count, pixels = len(self.own.passes.tile), self.z[0, 0, ..., 0].size * IMAGES
        for out in range(self.tiles[0]):
            last = out == self.tiles[0] - 1
            yield self._window(1) | {
                "update": 1, "block": out * count, "o": out * pixels, "bias": out,
                "first": 1, "biased": 1, "done_x": last, "done_e": last, "done": last,
            }  # fmt: skip

    def backward(self):
        """Where the stride is more than one, the input's pixels that the same taps reach go together."""
        own, step = self.own, self.own.stride
        outs, size = own.out_rows * own.out_columns, own.rows * own.columns
        taps, lanes = own.kernel**2, self.lanes
        count = len(own.passes.tile)
        parts = [
            (tile, r, c) for tile in range(self.tiles[1]) for r in range(step) for c in range(step)
        ]
        for tile, r, c in parts:
            rows, cols = -(-(own.rows - r) // step), -(-(own.columns - c) // step)
            kr = [k for k in reversed(range(own.kernel)) if (r + own.pad - k) % step == 0]
            kc = [k for k in reversed(range(own.kernel)) if (c + own.pad - k) % step == 0]
            row, col = (r + own.pad - kr[0]) // step, (c + own.pad - kc[0]) // step
            last = (tile, r, c) == parts[-1]
            yield {
                "tiles": self.tiles[0], "taps_row": len(kr), "taps_col": len(kc),
                "images": IMAGES, "rows": rows, "cols": cols, "map_rows": own.out_rows,
                "map_cols": own.out_columns, "step": 1, "x": 0,
                "x_row": own.out_columns - cols + 1,
                "x_image": outs - (rows - 1) * own.out_columns - cols + 1,
                "tap": row * own.out_columns + col, "tap_row": own.out_columns - len(kc) + 1,
                "tap_tile": IMAGES * outs - (len(kr) - 1) * own.out_columns - len(kc) + 1,
                "row": row, "col": col,
                "block": (tile * taps + kr[0] * own.kernel + kc[0]) * lanes,
                "block_col": -step * lanes,
                "block_row": (-step * own.kernel + step * (len(kc) - 1)) * lanes,
                "block_tile": (count + step * own.kernel * (len(kr) - 1) + step * (len(kc) - 1)) * lanes,
                "o": tile * IMAGES * size + r * own.columns + c, "o_col": step,
                "o_row": step * own.columns - step * (cols - 1),
                "o_image": size - step * own.columns * (rows - 1) - step * (cols - 1),
                "transposed": 1, "first": 1,
                "done_x": last, "done_weights": last, "done": last,
            }  # fmt: skip


class Bench:
    """The engine with someone who fills its buffers, sends commands, and empties what is full."""

    def __init__(self, case):
        self.case = case
        self.dut = ComputeEngine(case.numbers, case.lanes, case.depths, case.fold)
        self.halves = dict.fromkeys(("x", "e", "weights", "sums", "gradients"), 0)

    async def fill(self, ctx, name, words):
        half, dut = self.halves[name], self.dut
        while ctx.get(getattr(dut, f"{name}_full")) >> half & 1:
            await ctx.tick()
        await self.write(ctx, name, half, words)
        ctx.set(getattr(dut, f"{name}_filled"), 1 << half)
        await ctx.tick()
        ctx.set(getattr(dut, f"{name}_filled"), 0)
        self.halves[name] ^= 1

    async def write(self, ctx, name, half, words):
        port = getattr(self.dut, f"{name}_write")
        ctx.set(port.half, half)
        ctx.set(port.enable, 1)
        for address, word in enumerate(words):
            ctx.set(port.address, address)
            ctx.set(port.data, word)
            await ctx.tick()
        ctx.set(port.enable, 0)

    async def send(self, ctx, commands):
        command = self.dut.command
        for fields in commands:
            payload = dict.fromkeys((name for name, _ in command_layout()), 0) | fields
            ctx.set(command.payload, {name: int(value) for name, value in payload.items()})
            ctx.set(command.valid, 1)
            await ctx.tick().until(command.ready)
            ctx.set(command.valid, 0)

    async def full(self, ctx, name):
        """Wait until results are there. Returns the cycles that it took."""
        cycles = 0
        while not ctx.get(getattr(self.dut, f"{name}_full")) >> self.halves[name] & 1:
            await ctx.tick()
            cycles += 1
            assert cycles < 20_000, f"{name} never come"
        return cycles

    async def read(self, ctx, name, half, addresses, lanes):
        port, width = getattr(self.dut, f"{name}_read"), self.case.numbers.accumulator.width
        ctx.set(port.half, half)
        words = []
        for address in addresses:
            ctx.set(port.address, address)
            await ctx.tick().repeat(2)
            words.append(unpacked(ctx.get(port.data), width, lanes))
        return np.array(words)

    async def emptied(self, ctx, name):
        ctx.set(getattr(self.dut, f"{name}_emptied"), 1 << self.halves[name])
        await ctx.tick()
        ctx.set(getattr(self.dut, f"{name}_emptied"), 0)
        self.halves[name] ^= 1


def run(case, *phases):
    """Play phases one after the other; returns the cycles of each."""
    bench, cycles = Bench(case), []
    lanes = case.lanes
    width, wide = case.numbers.operand.width, case.numbers.accumulator.width

    def operands(maps):
        groups = lanes // maps.shape[-1]
        codes = case.codes(case.numbers.operand, vectors(maps))
        return [packed(np.tile(vector, groups), width) for vector in codes]

    def check(got, want):
        want = case.codes(case.numbers.accumulator, want)
        np.testing.assert_array_equal(got, want.reshape(got.shape))

    weights = case.codes(case.numbers.operand, case.weights).reshape(-1, lanes)
    rows = [packed(row, width) for row in weights]
    biases = [packed(v, wide) for v in case.codes(case.numbers.accumulator, case.bias)]

    async def fill_weights(ctx):
        await bench.write(ctx, "biases", bench.halves["weights"], biases)
        await bench.fill(ctx, "weights", rows)

    async def check_sums(ctx, want):
        want = vectors(want)
        check(await bench.read(ctx, "sums", bench.halves["sums"], range(len(want)), lanes), want)
        await bench.emptied(ctx, "sums")

    async def play(ctx):
        for phase in phases:
            await bench.fill(ctx, "x", operands(case.errors if phase == "BP" else case.x))
            if phase == "WU":
                await bench.fill(ctx, "e", operands(case.errors))
                await bench.send(ctx, case.gradients())
                cycles.append(await bench.full(ctx, "gradients"))
                half = bench.halves["gradients"]
                blocks = case.dw.reshape(-1, lanes * lanes)
                check(
                    await bench.read(ctx, "gradients", half, range(len(blocks)), lanes**2), blocks
                )
                vector = range(len(case.db))
                check(await bench.read(ctx, "bias_gradients", half, vector, lanes), case.db)
                await bench.emptied(ctx, "gradients")
                continue
            await fill_weights(ctx)
            await bench.send(ctx, case.forward() if phase == "FP" else case.backward())
            cycles.append(await bench.full(ctx, "sums"))
            await check_sums(ctx, case.z if phase == "FP" else case.dx)

    simulator = Simulator(bench.dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()
    return cycles


@pytest.mark.parametrize("name", LAYERS)
def test_all_phases_in_any_order(name):
    own = LAYERS[name]
    case = Case(own, arithmetic("fixed<10,5>"))
    run(case, "FP", *["BP"] * own.back, "WU", "FP", "WU", *["BP"] * own.back)


@pytest.mark.parametrize("numbers", ["fp32", "bf16", "fp16"])
def test_floating_point(numbers):
    run(Case(layer(2, 3, (4, 4), 3, pad=1, lanes=2), arithmetic(numbers)), "FP", "BP", "WU")


@pytest.mark.parametrize("numbers", ["fp32", "bf16"])
def test_sums_of_a_batch_norm_take_about_a_cycle_for_each_pixel(numbers):
    """In tiles of a row, which begin with any of the partial sums; then of all pixels at once."""
    own = layer(3, 3, (5, 9), 1)
    case, pixels, lanes = Case(own, arithmetic(numbers)), own.rows * own.columns, own.lanes
    case.depths = case.depths._replace(gradients=PARTIALS, tiles=PARTIALS)
    sums, products = np.zeros((2, 1, PARTIALS, lanes), np.float32)
    passes.channel_sums(case.x, case.errors, passes.FLOAT, sums, products)
    wide = case.numbers.accumulator

    def command(image, rows):
        before, count = rows.start * own.columns % PARTIALS, len(rows) * own.columns
        first = image * pixels + rows.start * own.columns
        rounds = -(-(before + count) // PARTIALS)
        return rounds, {
            "update": 1, "paired": 1, "biased": 1, "tiles": 1, "taps_row": 1, "taps_col": PARTIALS, "images": 1,
            "rows": 1, "cols": rounds, "map_rows": 1, "map_cols": count, "step": PARTIALS, "x": first,
            "tap": -before, "col": -before, "block_col": 1, "o": first, "o_col": PARTIALS,
            "first": (image, rows.start) == (0, 0),
        }  # fmt: skip

    async def play(ctx):
        for size in (1, own.rows):
            parts = [range(row, row + size) for row in range(0, own.rows, size)]
            found = [command(image, rows) for image in range(IMAGES) for rows in parts]
            commands = [fields for _, fields in found]
            commands[-1] |= {"done_x": 1, "done_e": 1, "done": 1}
            for name, maps in (("x", case.x), ("e", case.errors)):
                codes = case.codes(case.numbers.operand, vectors(maps))
                await bench.fill(ctx, name, [packed(v, case.numbers.operand.width) for v in codes])
            await bench.send(ctx, commands)
            cycles = await bench.full(ctx, "gradients")
            assert cycles <= sum(count for count, _ in found) * bench.dut.spacing + 40
            half = bench.halves["gradients"]
            got = await bench.read(ctx, "gradients", half, range(PARTIALS), lanes**2)
            diagonals = got.reshape(-1, lanes, lanes)[:, range(lanes), range(lanes)]
            np.testing.assert_array_equal(diagonals, case.codes(wide, products[0]))
            got = await bench.read(ctx, "bias_gradients", half, range(PARTIALS), lanes)
            np.testing.assert_array_equal(got, case.codes(wide, sums[0]))
            await bench.emptied(ctx, "gradients")

    bench = Bench(case)
    simulator = Simulator(bench.dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()
