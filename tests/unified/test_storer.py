"""The storer: maps, their routes and new weights go where they belong, in order."""

import random
from functools import partial

import numpy as np
from amaranth.sim import Simulator

from streamtrain.golden.unified import pooled
from streamtrain.numeric import Fixed, FixedArithmetic
from streamtrain.unified.buffers import READ_LATENCY, Depths
from streamtrain.unified.storer import Storer

LANES, BEAT = 4, 64
NUMBERS = FixedArithmetic(Fixed(16, 8), Fixed(32, 16))
DEPTHS = Depths(x=8, e=8, sums=128, weights=8, gradients=8, tiles=8)


class Bench:
    """A storer in front of a memory; sums and gradients are there."""

    def __init__(self, seed=0):
        self.random = random.Random(seed)
        self.dut = Storer(NUMBERS, LANES, DEPTHS, 3, data_bits=BEAT, address_bits=32)
        self.memories = {"sums": {}, "routes": {}, "gradients": {}, "bias_gradients": {}}
        self.requests, self.beats, self.written, self.over = [], [], {}, False

    def run(self, commands, masters, beats, rate):
        self.rate = rate
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        dut = self.dut
        simulator.add_testbench(partial(self.push, target=dut.command, payloads=commands))
        simulator.add_testbench(partial(self.push, target=dut.masters, payloads=masters))
        simulator.add_testbench(partial(self.take, stream=dut.request, taken=self.requests))
        simulator.add_testbench(partial(self.take, stream=dut.o, taken=self.beats))
        simulator.add_testbench(partial(self.wait, beats=beats))
        for name in self.memories:
            simulator.add_testbench(partial(self.answer, name=name))
        simulator.run()
        beats = iter(self.beats)
        for request in self.requests:
            for number in range(request.beats):
                self.written[request.address + number * BEAT // 8] = next(beats)
        assert next(beats, None) is None
        return self

    async def wait(self, ctx, beats):
        ctx.set(self.dut.rate, self.rate)
        for name in ("sums", "routes", "gradients"):
            ctx.set(getattr(self.dut, f"{name}_full"), 3)
        cycles = 0
        while len(self.beats) < beats and cycles < 4000:
            await ctx.tick()
            cycles += 1
        for _ in range(100):
            await ctx.tick()
        self.over = True

    async def push(self, ctx, target, payloads):
        for payload in payloads:
            while self.random.random() < 0.3:
                await ctx.tick()
            ctx.set(target.payload, payload)
            ctx.set(target.valid, 1)
            ready = False
            while not ready and not self.over:
                *_, ready = await ctx.tick().sample(target.ready)
            ctx.set(target.valid, 0)

    async def take(self, ctx, stream, taken):
        while not self.over:
            ctx.set(stream.ready, self.random.random() < 0.6)
            _, _, valid, ready, payload = await ctx.tick().sample(
                stream.valid, stream.ready, stream.payload
            )
            if valid and ready:
                taken.append(payload)

    async def answer(self, ctx, name):
        port, line = getattr(self.dut, f"{name}_read"), [0] * (READ_LATENCY - 1)
        while not self.over:
            _, _, half, address = await ctx.tick().sample(port.half, port.address)
            line.append(self.memories[name].get((half, address), 0))
            ctx.set(port.data, line.pop(0))

    def bytes(self, address, count):
        size = BEAT // 8
        beats = [self.written[address + n] for n in range(0, count, size)]
        return b"".join(beat.to_bytes(size, "little") for beat in beats)[:count]


def words(codes, bits):
    """Codes as words of a buffer, the last axis in one."""
    mask = (1 << bits) - 1
    return [
        sum((int(code) & mask) << bits * n for n, code in enumerate(vector))
        for vector in codes.reshape(-1, codes.shape[-1])
    ]


def test_maps_routes_masks_and_weights_share_a_memory():
    rng = np.random.default_rng(0)
    sums = [rng.integers(-(2**23), 2**23, (3, 1, 6, 6, LANES)) for _ in range(2)]
    dw, w = rng.integers(-(2**20), 2**20, (2, 2, LANES * LANES))
    bench = Bench()
    for half, own in enumerate(sums):
        bench.memories["sums"] |= {(half, n): word for n, word in enumerate(words(own, 32))}
    bench.memories["gradients"] = {(0, n): word for n, word in enumerate(words(dw, 32))}
    rate = int(NUMBERS.rate.encode(-0.25))
    weights = {"biases": 0, "first": 0, "count": 2, "done": 1}
    plain = {
        "images": 3, "rows": 6, "cols": 6, "pool": 0, "backward": 0, "relu": 0, "routed": 0, "scored": 0, "o": 0, "o_row": 6,
        "o_image": 36, "done": 1,
    }  # fmt: skip
    nothing = {"routes_address": 0, "routes_beats": 0, "routes_stride": 0}
    commands = [
        {  # images apart from one another, and an odd number of routes in each
            "update": 0, "map": plain | {"rows": 3, "cols": 3, "pool": 1, "relu": 1, "routed": 1},
            "weights": weights, "address": 0, "beats": 9, "chunks": 3, "stride": 4096,
            "routes_address": 1024, "routes_beats": 3, "routes_stride": 256,
        },
        nothing | {
            "update": 1, "map": plain, "weights": weights, "address": 2048, "beats": 16, "chunks": 1,
            "stride": 0,
        },
        nothing | {
            "update": 0, "map": plain, "weights": weights, "address": 16384, "beats": 36 * 3,
            "chunks": 1, "stride": 0,
        },
        {  # no pool: a mask of a bit for each value
            "update": 0, "map": plain | {"relu": 1, "routed": 1}, "weights": weights, "address": 20480, "beats": 36,
            "chunks": 3, "stride": 4096, "routes_address": 32768, "routes_beats": 6, "routes_stride": 64,
        },
    ]  # fmt: skip
    masters = words(w.reshape(-1, 2), 32)
    bench.run(commands, masters, 27 + 9 + 16 + 108 + 108 + 18, rate)

    want, routes = pooled(NUMBERS.narrow_codes(sums[0]), 2, True)
    nibbles = (routes << np.arange(4).reshape(-1, 1, 1, 1, 1, 1)).sum(axis=0)
    for image in range(3):
        got = np.frombuffer(bench.bytes(4096 * image, 9 * 2 * LANES), "<i2")
        np.testing.assert_array_equal(got, want[image].ravel())
        got = np.frombuffer(bench.bytes(1024 + 256 * image, 3 * BEAT // 8), np.uint8)
        got = np.stack([got & 15, got >> 4], axis=-1).reshape(3, -1)[
            :, : 3 * LANES
        ]  # a beat for each row
        np.testing.assert_array_equal(got.ravel(), nibbles[image].ravel())
    got = np.frombuffer(bench.bytes(2048, 4 * 2 * LANES**2), "<i4")
    np.testing.assert_array_equal(got, NUMBERS.add(w, NUMBERS.scale(dw, rate)).ravel())
    got = np.frombuffer(bench.bytes(16384, 108 * 2 * LANES), "<i2")
    np.testing.assert_array_equal(got, NUMBERS.narrow_codes(sums[1]).ravel())
    want, (mask,) = pooled(NUMBERS.narrow_codes(sums[0]), 1, True)
    for image in range(3):
        got = np.frombuffer(bench.bytes(20480 + 4096 * image, 36 * 2 * LANES), "<i2")
        np.testing.assert_array_equal(got, want[image].ravel())
        got = np.frombuffer(bench.bytes(32768 + 64 * image, 6 * BEAT // 8), np.uint8)
        got = np.unpackbits(got, bitorder="little").reshape(6, -1)[:, : 6 * LANES]
        np.testing.assert_array_equal(got.ravel(), mask[image].ravel())
