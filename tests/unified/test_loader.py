# amaranth: UnusedElaboratable=no

"""The loader: what is in memory arrives in the buffers, in order, when there is room and not before."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.numeric import Fixed, FixedArithmetic, arithmetic
from streamtrain.unified.buffers import Depths
from streamtrain.unified.loader import Loader, Target
from streamtrain.unified.pack import Pack
from streamtrain.unified.regroup import Regroup

FIXED = FixedArithmetic(Fixed(16, 8), Fixed(32, 16))
BEAT = 64
DEPTHS = Depths(x=40, e=40, sums=40, weights=32, gradients=8, tiles=8)


@pytest.mark.parametrize("size", range(4))
def test_regroup(size):
    """Chunks of words of each size, cut out of beats or put together from them."""
    sizes, beat, rng = (16, 32, 64, 128), 64, np.random.default_rng(size)
    dut = Regroup(beat, sizes)
    bits = sizes[size]
    chunks = [rng.integers(1, 20) for _ in range(20)]
    words, beats = [], []
    for count in chunks:
        own = [int.from_bytes(rng.bytes(bits // 8), "little") for _ in range(count)]
        words.append(own)
        joined = sum(word << bits * i for i, word in enumerate(own))
        for i in range(-(-count * bits // beat)):
            beats.append(joined >> beat * i & (1 << beat) - 1)
    got, cycles = [], 0

    async def send(ctx):
        ctx.set(dut.size, size)
        for beat in beats:
            ctx.set(dut.i.payload, beat)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def receive(ctx):
        nonlocal cycles
        for own in words:
            for number in range(len(own)):
                ctx.set(dut.last, number == len(own) - 1)
                ctx.set(dut.o.ready, 1)
                *_, payload = await ctx.tick().sample(dut.o.payload).until(dut.o.valid)
                got.append(payload & (1 << bits) - 1)
                ctx.set(dut.o.ready, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run()
    assert got == [word for own in words for word in own]


def test_regroup_refuses_words_that_do_not_fit():
    with pytest.raises(ValueError, match="48 bits neither divide beats of 64"):
        Regroup(64, [32, 48])


class Bench:
    """A loader with a memory that answers late, and someone who empties what is full."""

    def __init__(self, numbers, loads, *, seed=0, groups=1):
        self.random, self.loads = random.Random(seed), loads
        self.dut = Loader(numbers, 4, DEPTHS, groups, data_bits=BEAT, address_bits=32)
        self.memory = np.random.default_rng(seed).bytes(1 << 14)
        self.requests, self.written, self.masters = [], {}, []
        self.filled = {name: [] for name in ("x", "e", "weights", "routes")}
        self.done, self.over = 0, False

    def run(self):
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        for process in (self.send, self.ask, self.answer, self.collect, self.empty, self.take):
            simulator.add_testbench(process)
        simulator.run()
        return self

    async def send(self, ctx):
        dut = self.dut
        for load in self.loads:
            base = {
                "stride": 0,
                "chunks": 1,
                "rows": load.get("chunks", 1),
                "to": 0,
                "last": 1,
                "after": 0,
            }
            await self.push(ctx, dut.command, base | load)
        await ctx.tick().repeat(1500)
        self.over = True

    async def push(self, ctx, target, payload):
        ctx.set(target.payload, payload)
        ctx.set(target.valid, 1)
        ready = False
        while not ready and not self.over:
            *_, ready = await ctx.tick().sample(target.ready)
        ctx.set(target.valid, 0)

    async def ask(self, ctx):
        request = self.dut.request
        while not self.over:
            ctx.set(request.ready, self.random.random() < 0.7)
            _, _, valid, ready, payload = await ctx.tick().sample(
                request.valid, request.ready, request.payload
            )
            if valid and ready:
                self.requests.append((payload.address, payload.beats, self.done))

    async def answer(self, ctx):
        i, asked, size = self.dut.i, 0, BEAT // 8
        while not self.over:
            for _ in range(self.random.randrange(1, 20)):
                await ctx.tick()
            while asked < len(self.requests):
                address, beats, _ = self.requests[asked]
                asked += 1
                for beat in range(beats):
                    at = address + beat * size
                    word = int.from_bytes(self.memory[at : at + size], "little")
                    await self.push(ctx, i, {"data": word, "last": beat == beats - 1})

    async def collect(self, ctx):
        ports = {name: getattr(self.dut, f"{name}_write") for name in self.dut.ports}
        flat = [
            getattr(p, f) for p in ports.values() for f in ("enable", "half", "address", "data")
        ]
        while not self.over:
            _, _, *values = await ctx.tick().sample(*flat)
            for number, name in enumerate(ports):
                enable, half, address, word = values[4 * number : 4 * number + 4]
                if enable:
                    self.written[name, half, address] = word

    async def empty(self, ctx):
        full = dict.fromkeys(self.filled, 0)
        pulses = [getattr(self.dut, f"{name}_filled") for name in self.filled]
        while not self.over:
            _, _, *values = await ctx.tick().sample(*pulses)
            for pulse, (name, halves) in zip(values, self.filled.items(), strict=True):
                assert not pulse & full[name], f"{name} is filled while it is full"
                full[name] |= pulse
                if pulse:
                    halves.append(pulse)
                elif full[name] and self.random.random() < 0.02:
                    full[name] = 0
                ctx.set(getattr(self.dut, f"{name}_full"), full[name])
            if self.random.random() < 0.05:
                self.done += 1
                ctx.set(self.dut.done, self.done)

    async def take(self, ctx):
        masters = self.dut.masters
        while not self.over:
            ctx.set(masters.ready, self.random.random() < 0.5)
            _, _, valid, ready, word = await ctx.tick().sample(
                masters.valid, masters.ready, masters.payload
            )
            if valid and ready:
                self.masters.append(word)

    def words(self, address, bits, count):
        whole = int.from_bytes(self.memory[address:][: -(-bits * count // 8)], "little")
        return [whole >> bits * n & ((1 << bits) - 1) for n in range(count)]

    def found(self, name, half, count, to=0):
        return [self.written[name, half, to + n] for n in range(count)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "numbers", [arithmetic("fp32"), arithmetic("bf16"), FIXED], ids=lambda n: n.name
)
def test_vectors_arrive_in_order_in_halves_that_are_free(numbers, seed):
    bits = 4 * numbers.operand.width
    beats = -(-10 * bits // BEAT)
    loads = [
        {"target": Target.X, "address": 8 * 64 * n, "beats": beats, "words": 10} for n in range(5)
    ]
    bench = Bench(numbers, loads, seed=seed).run()
    assert bench.filled["x"] == [1, 2, 1, 2, 1]
    for half, load in enumerate(loads[-2:], 1):
        assert bench.found("x", half % 2, 10) == bench.words(load["address"], bits, 10)


def test_chunks_lie_one_behind_the_other():
    """Three images' vectors of routes, each with half a beat to spare."""
    load = {
        "target": Target.ROUTES, "address": 256, "beats": 2, "words": 5, "chunks": 3, "stride": 512,
        "to": 7,
    }  # fmt: skip
    bench = Bench(FIXED, [load]).run()
    want = [word for n in range(3) for word in bench.words(256 + 512 * n, 16, 5)]
    assert bench.found("routes", 0, 15, to=7) == want
    assert [request[:2] for request in bench.requests] == [(256, 2), (768, 2), (1280, 2)]


def test_masks_become_routes_of_the_first_place():
    """Two images of three rows of masks, each with most of a beat to spare, behind routes."""
    masks = {
        "target": Target.MASKS, "address": 128, "beats": 3, "words": 6, "rows": 6, "chunks": 2, "stride": 512,
    }  # fmt: skip
    routes = {"target": Target.ROUTES, "address": 512, "beats": 2, "words": 5}
    bench = Bench(FIXED, [routes, masks]).run()
    assert bench.filled["routes"] == [1, 2]
    assert bench.found("routes", 0, 5) == bench.words(512, 16, 5)
    starts = [128 + 512 * image + 8 * row for image in range(2) for row in range(3)]
    vectors = [word for start in starts for word in bench.words(start, 4, 6)]
    want = [sum((vector >> lane & 1) << 4 * lane for lane in range(4)) for vector in vectors]
    assert bench.found("routes", 1, 36) == want


def test_groups_of_lanes_get_the_same_vector():
    load = {"target": Target.GROUPS, "address": 64, "beats": 5, "words": 10}
    bench = Bench(FIXED, [load], groups=2).run()
    assert bench.found("x", 0, 10) == [word * (1 + (1 << 32)) for word in bench.words(64, 32, 10)]


def test_weights_are_narrowed_and_biases_are_not():
    loads = [
        {"target": Target.BIASES, "address": 1024, "beats": 4, "words": 2, "last": 0},
        {"target": Target.WEIGHTS, "address": 0, "beats": 16, "words": 8},
    ]
    numbers = arithmetic("bf16")
    bench = Bench(numbers, loads).run()
    codes = np.frombuffer(bench.memory[:128], np.uint32)
    want = numbers.narrow_codes(codes).astype("<u2").tobytes()
    assert bench.found("weights", 0, 8) == [
        int.from_bytes(want[8 * n : 8 * n + 8], "little") for n in range(8)
    ]
    assert bench.found("biases", 0, 2) == bench.words(1024, 128, 2)
    assert bench.filled["weights"] == [1]


def test_masters_are_handed_on():
    load = {"target": Target.MASTERS, "address": 640, "beats": 20, "words": 20}
    bench = Bench(arithmetic("fp32"), [load]).run()
    assert bench.masters == bench.words(640, BEAT, 20)


def test_a_load_waits_for_what_it_reads_to_be_written():
    loads = [
        {"target": Target.E, "address": 0, "beats": 2, "words": 2, "after": after}
        for after in (0, 5, 5, 20)
    ]
    bench = Bench(FIXED, loads).run()
    assert len(bench.requests) == 4
    assert all(
        done >= load["after"] for (*_, done), load in zip(bench.requests, loads, strict=True)
    )


@pytest.mark.parametrize("word", [16, 32, 64, 192])
def test_pack(word):
    """Packets of words, cut into beats or put together, the last beat filled up with zeros."""
    dut, rng = Pack(word, BEAT), np.random.default_rng(word)
    packets = [
        [int.from_bytes(rng.bytes(word // 8), "little") for _ in range(count)]
        for count in rng.integers(1, 12, 20)
    ]
    want, got = [], []
    for packet in packets:
        joined = sum(code << word * n for n, code in enumerate(packet))
        beats = -(-len(packet) * word // BEAT)
        want += [joined >> BEAT * n & (1 << BEAT) - 1 for n in range(beats)]
    pauses = random.Random(word)

    async def send(ctx):
        for packet in packets:
            for number, code in enumerate(packet):
                ctx.set(dut.i.payload, {"word": code, "last": number == len(packet) - 1})
                ctx.set(dut.i.valid, 1)
                ready = False
                while not ready:
                    *_, ready = await ctx.tick().sample(dut.i.ready)
                ctx.set(dut.i.valid, 0)

    async def take(ctx):
        while len(got) < len(want):
            ctx.set(dut.o.ready, pauses.random() < 0.6)
            _, _, valid, ready, beat = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload
            )
            if valid and ready:
                got.append(beat)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(take)
    simulator.run()
    assert got == want


def test_pack_refuses_words_that_do_not_fit():
    with pytest.raises(ValueError, match="48 bits neither divide beats of 64"):
        Pack(48, 64)
