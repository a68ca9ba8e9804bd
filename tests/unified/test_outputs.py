"""What sums become on their way to memory: against the golden model's pools and routes."""

import random
from functools import partial

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.golden.unified import pooled, unpooled
from streamtrain.numeric import Fixed, FixedArithmetic, FloatArithmetic, arithmetic
from streamtrain.unified.buffers import PLACES, READ_LATENCY, Depths
from streamtrain.unified.outputs import MapOutputs

LANES = 3
DEPTHS = Depths(x=8, e=8, sums=64, weights=8, gradients=8, tiles=8)
FIXED = FixedArithmetic(Fixed(8, 4), Fixed(20, 8))


class Bench:
    """Outputs of sums that are there, taken by someone who pauses now and then."""

    def __init__(self, numbers, *, pause=0.3, seed=0):
        self.dut = MapOutputs(numbers, LANES, DEPTHS)
        self.random, self.pause = random.Random(seed), pause
        self.memories = {"sums": {}, "routes": {}}
        self.vectors, self.routes, self.over, self.cycles = [], [], False, 0

    def run(self, *commands):
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(partial(self.send, commands=commands))
        for name in self.memories:
            simulator.add_testbench(partial(self.answer, name=name))
        simulator.add_testbench(partial(self.take, stream=self.dut.o, taken=self.vectors))
        simulator.add_testbench(partial(self.take, stream=self.dut.routes, taken=self.routes))
        simulator.run()
        return self

    async def send(self, ctx, commands):
        dut = self.dut
        ctx.set(dut.sums_full, 3)
        ctx.set(dut.routes_full, 3)
        for command in commands:
            base = {
                "pool": 0,
                "backward": 0,
                "relu": 0,
                "routed": 0,
                "scored": 0,
                "o": 0,
                "done": 1,
            }
            ctx.set(dut.command.payload, base | command)
            ctx.set(dut.command.valid, 1)
            ready = False
            while not ready:
                *_, ready = await ctx.tick().sample(dut.command.ready)
            ctx.set(dut.command.valid, 0)
        wanted = sum(c["images"] * c["rows"] * c["cols"] for c in commands)
        while len(self.vectors) < wanted and self.cycles < 5000:
            await ctx.tick()
        for _ in range(200):
            await ctx.tick()
        self.over = True

    async def answer(self, ctx, name):
        """A buffer: words come some cycles after their address."""
        port, line = getattr(self.dut, f"{name}_read"), [0] * (READ_LATENCY - 1)
        while not self.over:
            _, _, half, address = await ctx.tick().sample(port.half, port.address)
            line.append(self.memories[name].get((half, address), 0))
            ctx.set(port.data, line.pop(0))

    async def take(self, ctx, stream, taken):
        while not self.over:
            ctx.set(stream.ready, self.random.random() >= self.pause)
            _, _, valid, ready, word = await ctx.tick().sample(
                stream.valid, stream.ready, stream.payload
            )
            self.cycles += 1
            if valid and ready:
                taken.append(word if isinstance(word, int) else word.vector)


def pack(codes, width):
    return sum((int(code) & (1 << width) - 1) << width * i for i, code in enumerate(codes))


class Maps:
    """Random sums of some images, and the operands that they are rounded to."""

    def __init__(self, numbers, shape, seed=0):
        rng = np.random.default_rng(seed)
        self.numbers, self.floating = numbers, isinstance(numbers, FloatArithmetic)
        shape = (*shape, LANES)  # images, rows, columns
        if self.floating:
            real = np.where(rng.random(shape) < 0.2, 0.0, rng.normal(size=shape))
            self.codes = numbers.accumulator.encode(real).astype(np.int64)
            narrow = numbers.narrow_codes(self.codes)
            self.operands = numbers.operand.to_float32(narrow)[:, None]
        else:
            self.codes = rng.integers(-(2**15), 2**15, shape)
            self.operands = numbers.narrow_codes(self.codes)[:, None]

    def words(self):
        return [pack(v, self.numbers.accumulator.width) for v in self.codes.reshape(-1, LANES)]

    def packed(self, operands):
        codes = self.numbers.operand.from_float32(operands) if self.floating else operands
        return [pack(v, self.numbers.operand.width) for v in codes.reshape(-1, LANES)]


def route_words(routes):
    """Routes (places, images, tiles, rows, columns, lanes) as words."""
    routes = np.moveaxis(routes, 0, -1).reshape(-1, LANES, len(routes))
    bits = [[sum(int(b) << i for i, b in enumerate(lane)) for lane in vector] for vector in routes]
    return [pack(vector, PLACES) for vector in bits]


FORMATS = pytest.mark.parametrize(
    "numbers", [FIXED, arithmetic("fp32"), arithmetic("bf16")], ids=lambda n: n.name
)


@FORMATS
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("pool", [1, 2])
def test_forward(numbers, pool, relu):
    images, rows, cols = 2, 4, 6
    maps = Maps(numbers, (images, rows, cols))
    bench = Bench(numbers)
    bench.memories["sums"] = {(0, 5 + n): word for n, word in enumerate(maps.words())}
    bench.run({
        "images": images, "rows": rows // pool, "cols": cols // pool, "pool": pool == 2,
        "relu": relu, "routed": relu or pool == 2, "o": 5, "o_row": cols, "o_image": rows * cols,
    })  # fmt: skip
    want, routes = pooled(maps.operands, pool, relu)
    assert bench.vectors == maps.packed(want)
    assert bench.routes == (route_words(routes) if relu or pool == 2 else [])


@FORMATS
@pytest.mark.parametrize("pool", [1, 2])
def test_backward(numbers, pool):
    images, rows, cols = 2, 3, 2
    maps = Maps(numbers, (images, rows, cols))
    rng = np.random.default_rng(1)
    came = rng.integers(-1, pool * pool, (images, 1, rows, cols, LANES))
    routes = np.stack([came == n for n in range(pool * pool)])
    bench = Bench(numbers)
    bench.memories["sums"] = {(0, n): word for n, word in enumerate(maps.words())}
    bench.memories["routes"] = {(0, n): word for n, word in enumerate(route_words(routes))}
    bench.run({
        "images": images, "rows": rows * pool, "cols": cols * pool, "pool": pool == 2,
        "backward": 1, "routed": 1, "o_row": cols, "o_image": rows * cols,
    })  # fmt: skip
    assert bench.vectors == maps.packed(unpooled(maps.operands, routes))
    assert bench.routes == []


def test_halves_take_turns_and_each_sum_takes_a_cycle():
    maps = [Maps(FIXED, (1, 4, 4), seed) for seed in range(3)]
    bench = Bench(FIXED, pause=0)
    for number, own in enumerate(maps[:2]):
        bench.memories["sums"] |= {(number, n): word for n, word in enumerate(own.words())}
    command = {"images": 1, "rows": 4, "cols": 4, "o_row": 4, "o_image": 16}
    bench.run(command, command, command)
    want = [word for own in (maps[0], maps[1], maps[0]) for word in own.packed(own.operands)]
    assert bench.vectors == want
