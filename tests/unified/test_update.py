# amaranth: UnusedElaboratable=no
"""The update of weights: against the arithmetic's own functions."""

import random
from functools import partial

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.numeric import Fixed, FixedArithmetic, FloatArithmetic, arithmetic
from streamtrain.unified.buffers import READ_LATENCY, Depths
from streamtrain.unified.update import WeightUpdate

LANES, BEAT = 4, 64
DEPTHS = Depths(x=8, e=8, sums=8, weights=8, gradients=8, tiles=8)
FIXED = FixedArithmetic(Fixed(16, 8), Fixed(32, 16))


class Bench:
    def __init__(self, numbers, *, pause=0.3, seed=0):
        self.numbers, self.random, self.pause = numbers, random.Random(seed), pause
        self.dut = WeightUpdate(numbers, LANES, DEPTHS, data_bits=BEAT)
        self.memories = {"gradients": {}, "bias_gradients": {}}
        self.found, self.over, self.cycles = [], False, 0

    def run(self, commands, masters, count=None):
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(partial(self.send, commands=commands))
        simulator.add_testbench(partial(self.give, masters=masters))
        simulator.add_testbench(partial(self.take, count=count or len(masters)))
        for name in self.memories:
            simulator.add_testbench(partial(self.answer, name=name))
        simulator.run()
        return self

    async def send(self, ctx, commands):
        ctx.set(self.dut.gradients_full, 3)
        await self.push(ctx, self.dut.command, commands, 0)

    async def give(self, ctx, masters):
        await self.push(ctx, self.dut.masters, masters, self.pause)

    async def push(self, ctx, target, payloads, pause):
        for payload in payloads:
            while self.random.random() < pause:
                await ctx.tick()
            ctx.set(target.payload, payload)
            ctx.set(target.valid, 1)
            ready = False
            while not ready:
                *_, ready = await ctx.tick().sample(target.ready)
            ctx.set(target.valid, 0)

    async def answer(self, ctx, name):
        port, line = getattr(self.dut, f"{name}_read"), [0] * (READ_LATENCY - 1)
        while not self.over:
            _, _, half, address = await ctx.tick().sample(port.half, port.address)
            line.append(self.memories[name].get((half, address), 0))
            ctx.set(port.data, line.pop(0))

    async def take(self, ctx, count):
        o = self.dut.o
        while len(self.found) < count:
            ctx.set(o.ready, self.random.random() >= self.pause)
            _, _, valid, ready, beat = await ctx.tick().sample(o.valid, o.ready, o.payload)
            self.cycles += 1
            if valid and ready:
                self.found.append(beat)
        self.over = True


def case(numbers, blocks, seed=0):
    """Random gradients and weights of blocks, a rate, and what they become."""
    rng, wide = np.random.default_rng(seed), numbers.accumulator
    shape = blocks, LANES * LANES
    if isinstance(numbers, FloatArithmetic):
        dw, w = (wide.encode(rng.normal(size=shape)) for _ in range(2))
    else:
        dw, w = (rng.integers(-(2**31), 2**31, shape) for _ in range(2))
    rate = numbers.rate.encode(-0.37)
    new = numbers.add(w, numbers.scale(dw, rate))
    return words(dw, LANES**2), words(w, 2), int(rate), words(new, 2)


def words(codes, count):
    """Codes of 32 bits, some of them in a word."""
    raw = np.ascontiguousarray(codes).astype(np.int64) & 0xFFFF_FFFF
    return [sum(int(c) << 32 * i for i, c in enumerate(part)) for part in raw.reshape(-1, count)]


@pytest.mark.parametrize("numbers", [arithmetic("fp32"), FIXED], ids=lambda n: n.name)
def test_weights_and_biases(numbers):
    bench = Bench(numbers)
    dw, w, rate, new = case(numbers, 3)
    db, b, _, new_b = case(numbers, 1, seed=1)
    bench.memories["gradients"] = {(0, 2 + n): word for n, word in enumerate(dw)}
    vectors = [db[0] >> 128 * n & (1 << 128) - 1 for n in range(4)]
    bench.memories["bias_gradients"] = {(0, n): word for n, word in enumerate(vectors)}
    again, w2, _, new2 = case(numbers, 2, seed=2)
    bench.memories["gradients"] |= {(1, n): word for n, word in enumerate(again)}
    bench.run(
        [
            {"biases": 0, "first": 2, "count": 3, "rate": rate & (1 << 32) - 1, "done": 0},
            {"biases": 1, "first": 0, "count": 4, "rate": rate & (1 << 32) - 1, "done": 1},
            {"biases": 0, "first": 0, "count": 2, "rate": rate & (1 << 32) - 1, "done": 1},
        ],
        w + b + w2,
    )  # fmt: skip
    assert bench.found == new + new_b + new2


def test_gradients_go_out_as_they_are():
    """Of blocks the diagonals. No old weights come in for them, neither before nor behind those for others."""
    numbers = arithmetic("fp32")
    bench = Bench(numbers)
    dw, w, rate, new = case(numbers, 3)
    bench.memories["gradients"] = dict(zip([(0, n) for n in range(3)], dw, strict=True))
    bench.memories["bias_gradients"] = {(0, 0): 0x2222_2222_2222_2222_1111_1111_1111_1111}
    bench.run(
        [
            {"biases": 0, "first": 0, "count": 1, "rate": rate, "done": 0},
            {"biases": 0, "plain": 1, "first": 0, "count": 3, "rate": rate, "done": 0},
            {"biases": 1, "plain": 1, "first": 0, "count": 1, "rate": rate, "done": 0},
            {"biases": 0, "first": 2, "count": 1, "rate": rate, "done": 1},
        ],
        w[:8] + w[16:],
        count=24,
    )  # fmt: skip
    diagonals = [
        sum((word >> 32 * 5 * (n + m) & 0xFFFF_FFFF) << 32 * m for m in range(2))
        for word in dw
        for n in (0, 2)
    ]
    biases = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222]
    assert bench.found == new[:8] + diagonals + biases + new[16:]


def test_a_beat_takes_a_cycle():
    bench = Bench(FIXED, pause=0)
    dw, w, rate, new = case(FIXED, 5)
    bench.memories["gradients"] = dict(zip([(0, n) for n in range(5)], dw, strict=True))
    bench.run([{"biases": 0, "first": 0, "count": 5, "rate": rate & (1 << 25) - 1, "done": 1}], w)
    assert bench.found == new
    assert bench.cycles <= len(w) + 5 * 3 + 12


def test_beats_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="256 bits do not"):
        WeightUpdate(FIXED, LANES, DEPTHS, data_bits=256)
