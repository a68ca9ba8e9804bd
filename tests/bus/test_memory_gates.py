# amaranth: UnusedElaboratable=no
"""Masters of memory in Amaranth's simulator; tests/bus/test_memory_copy.py has them compiled."""

import random
from collections import deque

import pytest

from streamtrain.bus.axi import DECERR, OKAY, SLVERR
from streamtrain.bus.bursts import BurstSplitter, Fault
from streamtrain.bus.memory import MemoryReader, MemoryWriter
from streamtrain.simulate.bench import run_stream, run_streams


def split(address, beats, beat_bytes, burst_beats):
    """Bursts of a request, one beat after the other."""
    bursts = []
    for place in range(address // beat_bytes, address // beat_bytes + beats):
        if not bursts or place % burst_beats == 0:
            bursts.append({"address": place * beat_bytes, "len": -1, "last": 0})
        bursts[-1]["len"] += 1
    bursts[-1]["last"] = 1
    return bursts


def requests(rng, count, beat_bytes, longest=300, pages=4):
    return [
        {
            "address": rng.randrange(pages * 4096 // beat_bytes) * beat_bytes,
            "beats": rng.choice([1, 1, 2, rng.randint(1, 20), rng.randint(1, longest)]),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("data_bits, burst_beats", [(32, 256), (32, 2), (64, 16), (512, 64)])
def test_bursts_are_those_of_a_slow_splitter(data_bits, burst_beats, stall):
    asked = requests(random.Random(data_bits), 30, data_bits // 8)
    expected = [
        burst
        for one in asked
        for burst in split(one["address"], one["beats"], data_bits // 8, burst_beats)
    ]
    splitter = BurstSplitter(data_bits, 32, burst_beats)
    found = run_stream(splitter, asked, len(expected), stall=stall)
    assert found == expected
    for burst in found:  # what AXI itself asks
        first, end = burst["address"], burst["address"] + (burst["len"] + 1) * data_bits // 8
        assert first // 4096 == (end - 1) // 4096
        assert burst["len"] < 256


@pytest.mark.parametrize("beats", [1, 2, 100])
def test_a_burst_every_cycle(beats):
    asked = [{"address": 0x1000 * n, "beats": beats} for n in range(20)]
    bursts = -(-beats // 16) * 20
    run = run_streams(BurstSplitter(64, 32, 16), {"i": asked}, {"o": bursts})
    assert run.times["o"] == [run.times["i"][0] + 2 + n for n in range(bursts)]


LAST_64 = 1 << 64


@pytest.mark.parametrize(
    "address_bits, request_, kind",
    [
        (32, {"address": 0x1004, "beats": 1}, Fault.UNALIGNED),
        (32, {"address": 0x1001, "beats": 0}, Fault.UNALIGNED),
        (32, {"address": 0x1000, "beats": 0}, Fault.EMPTY),
        (32, {"address": 0xFFFFFFF8, "beats": 2}, Fault.BEYOND),
        (32, {"address": 0, "beats": (1 << 29) + 1}, Fault.BEYOND),
        (40, {"address": (1 << 40) - 4096, "beats": 513}, Fault.BEYOND),
        (64, {"address": LAST_64 - 8, "beats": (1 << 32) - 1}, Fault.BEYOND),
    ],
)
def test_requests_that_cannot_be_done_are_refused(address_bits, request_, kind):
    """Before any of their bursts, and with all that comes after them."""
    good = {"address": 0x2000, "beats": 3}
    run = run_streams(
        BurstSplitter(64, address_bits, 16), {"i": [good, request_]}, {"o": 1}, settle=100
    )
    assert run.received["o"] == split(**good, beat_bytes=8, burst_beats=16)
    assert run.final == {
        "busy": 0,
        "fault": {"kind": kind.value, "address": request_["address"]},
    }


@pytest.mark.parametrize(
    "address_bits, request_",
    [
        (32, {"address": 0xFFFFFF80, "beats": 16}),
        (40, {"address": (1 << 40) - 8, "beats": 1}),
        (64, {"address": LAST_64 - 4096, "beats": 512}),
    ],
)
def test_the_last_address_can_be_used(address_bits, request_):
    expected = split(**request_, beat_bytes=8, burst_beats=16)
    found = run_stream(BurstSplitter(64, address_bits, 16), [request_], len(expected))
    assert found == expected


# -- Reader and writer -----------------------------------------------------------------------------


class Memory:
    """Words of a memory behind one master, in a testbench. Responses by burst address."""

    def __init__(self, words=(), latency=1, stall=0.0, seed=0, responses=None):
        self.words = list(words)
        self.latency, self.stall, self.rng = latency, stall, random.Random(seed)
        self.responses = responses or {}
        self.cycle = 0

    def pause(self):
        return self.rng.random() < self.stall

    def reading(self, axi, beats):
        """Testbench that gives so many beats."""

        async def bench(ctx):
            bursts, offered, left = deque(), None, beats
            size = axi.signature.data_bits // 8
            while left:
                if offered is None and bursts and bursts[0][0] <= self.cycle and not self.pause():
                    _, address, first, count = bursts[0]
                    offered = (self.words[address // size], count == 1)
                    ctx.set(axi.rdata, offered[0])
                    ctx.set(axi.rlast, offered[1])
                    ctx.set(axi.rresp, self.responses.get(first, OKAY))
                ctx.set(axi.rvalid, offered is not None)
                ctx.set(axi.arready, not self.pause())
                _, _, valid, ready, address, length, taken = await ctx.tick().sample(
                    axi.arvalid, axi.arready, axi.araddr, axi.arlen, axi.rready
                )
                assert taken, "RREADY must always be high"
                if offered is not None:
                    cycle, address_now, first, count = bursts[0]
                    left -= 1
                    if count == 1:
                        bursts.popleft()
                    else:
                        bursts[0] = (cycle, address_now + size, first, count - 1)
                    offered = None
                if valid and ready:
                    bursts.append((self.cycle + self.latency, address, address, length + 1))
                self.cycle += 1
            ctx.set(axi.rvalid, 0)

        return bench

    def writing(self, axi, done, count):
        """Testbench that takes beats until ``done`` is ``count``, and says when that is."""

        async def bench(ctx):
            bursts, answers, size = deque(), deque(), axi.signature.data_bits // 8
            while True:
                given = bool(answers) and answers[0][0] <= self.cycle and not self.pause()
                ctx.set(axi.bvalid, given)
                if given:
                    ctx.set(axi.bresp, answers[0][1])
                ctx.set(axi.awready, not self.pause())
                ctx.set(axi.wready, bool(bursts) and not self.pause())
                sampled = await ctx.tick().sample(
                    axi.awvalid & axi.awready,
                    axi.awaddr,
                    axi.awlen,
                    axi.wvalid,
                    axi.wready,
                    axi.wdata,
                    axi.wlast,
                    axi.bready,
                    done,
                )
                asked, address, length, valid, ready, word, last, taken, finished = sampled[2:]
                if given:
                    assert taken, "BREADY must always be high"
                    answers.popleft()
                if ready:
                    first, written, beats = bursts[0]
                    assert valid, "W must not keep anybody waiting"
                    assert last == (written + 1 == beats)
                    self.words[first // size + written] = word
                    bursts[0] = (first, written + 1, beats)
                    if last:
                        bursts.popleft()
                        response = self.responses.get(first, OKAY)
                        answers.append((self.cycle + self.latency, response))
                if asked:
                    bursts.append((address, 0, length + 1))
                if finished == count:
                    self.finished = self.cycle
                    return
                self.cycle += 1

        return bench


def read(reader, asked, memory, **options):
    total = sum(one["beats"] for one in asked)
    return run_streams(
        reader,
        {"request": asked},
        {"o": total},
        drive=memory.reading(reader.axi, total),
        **options,
    )


@pytest.mark.parametrize("stall", [0.0, 0.4, {"o": 0.8}])
@pytest.mark.parametrize("outstanding, burst_beats", [(1, 2), (2, 16), (4, 8), (3, 32)])
def test_reads_what_is_asked_in_order(outstanding, burst_beats, stall):
    rng = random.Random(burst_beats)
    words = [rng.getrandbits(32) for _ in range(4096)]
    asked = requests(rng, 12, 4, longest=60, pages=2)
    memory = Memory(words, latency=7, stall=stall if isinstance(stall, float) else 0.0)
    reader = MemoryReader(32, outstanding=outstanding, burst_beats=burst_beats)
    run = read(reader, asked, memory, stall=stall)
    assert run.received["o"] == [
        {"data": words[one["address"] // 4 + n], "last": int(n == one["beats"] - 1)}
        for one in asked
        for n in range(one["beats"])
    ]
    assert run.final["busy"] == 0
    assert run.final["error"]["kind"] == Fault.NONE.value


def write(writer, asked, beats, memory, **options):
    return run_streams(
        writer,
        {"request": asked, "i": beats},
        {},
        drive=memory.writing(writer.axi, writer.done, len(asked)),
        **options,
    )


@pytest.mark.parametrize("stall", [0.0, 0.4, {"i": 0.8}, {"request": 0.9}])
@pytest.mark.parametrize("outstanding, burst_beats", [(1, 2), (2, 16), (4, 8), (3, 32)])
def test_writes_what_comes_where_it_belongs(outstanding, burst_beats, stall):
    rng = random.Random(burst_beats)
    asked = requests(rng, 12, 4, longest=60, pages=2)
    beats = [rng.getrandbits(32) for _ in range(sum(one["beats"] for one in asked))]
    expected = [0] * 4096
    left = iter(beats)
    for one in asked:
        for n in range(one["beats"]):
            expected[one["address"] // 4 + n] = next(left)
    memory = Memory([0] * 4096, latency=7, stall=stall if isinstance(stall, float) else 0.0)
    writer = MemoryWriter(32, outstanding=outstanding, burst_beats=burst_beats)
    run = write(writer, asked, beats, memory, stall=stall)
    assert memory.words == expected
    assert run.final["busy"] == 0
    assert run.final["done"] == len(asked)
    assert run.final["error"]["kind"] == Fault.NONE.value


def covered(outstanding, beats, burst_beats):
    """The largest latency that costs nothing, as ``Timing`` has it, for requests of so many beats."""
    sizes = [burst["len"] + 1 for burst in split(0, beats, 4, burst_beats)] * outstanding
    row = range(outstanding - 1)
    least = min(sum(sizes[n + k] for k in row) for n in range(len(sizes) - len(row)))
    return least - 3


FULL_RATE = [
    (outstanding, burst_beats, beats)
    for outstanding, burst_beats in [(2, 16), (4, 16), (8, 16), (8, 8), (9, 4), (16, 2), (2, 64)]
    for beats in [1, 2, 7, 8, 16, 17, 24, 32, 64]
    if covered(outstanding, beats, burst_beats) > 0
]


@pytest.mark.parametrize("outstanding, burst_beats, beats", FULL_RATE)
def test_reads_at_full_rate(outstanding, burst_beats, beats):
    latency = covered(outstanding, beats, burst_beats)
    reader = MemoryReader(32, outstanding=outstanding, burst_beats=burst_beats)
    asked = [{"address": 0x400 * n, "beats": beats} for n in range(12)]
    run = read(reader, asked, Memory([0] * 4096, latency))
    cycles = run.times["o"][-1] - run.times["request"][0] + 1
    deep = outstanding * burst_beats > 64
    assert cycles == 12 * beats + latency + 4 + deep


@pytest.mark.parametrize("outstanding, burst_beats, beats", FULL_RATE)
def test_writes_at_full_rate(outstanding, burst_beats, beats):
    latency = covered(outstanding, beats, burst_beats)
    writer = MemoryWriter(32, outstanding=outstanding, burst_beats=burst_beats)
    asked = [{"address": 0x400 * n, "beats": beats} for n in range(12)]
    memory = Memory([0] * 4096, latency)
    run = write(writer, asked, [1] * (12 * beats), memory)
    cycles = memory.finished - run.times["i"][0] + 1
    late = beats == 1  # here requests come with their first beats
    assert cycles == 12 * beats + min(beats, burst_beats) + latency + 3 + late


def test_more_latency_costs_cycles():
    """So the limit is one: the two tests above are not of a memory that is hardly used."""
    reader = MemoryReader(32, outstanding=4, burst_beats=16)
    asked = [{"address": 0x400 * n, "beats": 16} for n in range(12)]
    latency = covered(4, 16, 16) + 20
    run = read(reader, asked, Memory([0] * 4096, latency))
    assert run.times["o"][-1] - run.times["request"][0] + 1 > 12 * 16 + latency + 5


@pytest.mark.parametrize("response, kind", [(SLVERR, Fault.SLVERR), (DECERR, Fault.DECERR)])
def test_the_first_error_is_kept(response, kind):
    """With the address of its burst; all else goes on."""
    asked = [{"address": 0x3F00, "beats": 40}, {"address": 0x100, "beats": 5}]
    other = SLVERR + DECERR - response
    responses = {0x3F40: response, 0x3F80: other, 0x100: other}

    reader = MemoryReader(32, 48, burst_beats=16)
    run = read(reader, asked, Memory([0] * 4096, responses=responses))
    assert run.final == {"busy": 0, "error": {"kind": kind.value, "address": 0x3F40}}
    writer = MemoryWriter(32, 48, burst_beats=16)
    run = write(writer, asked, [0] * 45, Memory([0] * 4096, responses=responses))
    assert run.final == {"busy": 0, "done": 2, "error": {"kind": kind.value, "address": 0x3F40}}


def test_a_refused_request_is_told_and_those_before_it_finish():
    good, bad = {"address": 0x3F80, "beats": 20}, {"address": 0x1002, "beats": 4}
    told = {"kind": Fault.UNALIGNED.value, "address": 0x1002}

    reader = MemoryReader(32, burst_beats=16)
    total, memory = 20, Memory([7] * 4096)
    run = run_streams(
        reader,
        {"request": [good, bad]},
        {"o": total},
        drive=memory.reading(reader.axi, total),
        settle=100,
    )
    assert run.final == {"busy": 0, "error": told}
    writer = MemoryWriter(32, burst_beats=16)
    memory = Memory([0] * 4096)
    run = run_streams(
        writer,
        {"request": [good, bad], "i": [9] * 20},
        {},
        drive=memory.writing(writer.axi, writer.done, 1),
        settle=100,
    )
    assert memory.words == [0] * 0xFE0 + [9] * 20 + [0] * (4096 - 0xFE0 - 20)
    assert run.final == {"busy": 0, "done": 1, "error": told}


@pytest.mark.parametrize("master", [MemoryReader, MemoryWriter])
@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((48,), {}, r"^Beats must have 32, 64, 128, 256 or 512 bits, not 48$"),
        ((64, 31), {}, r"^Addresses must have 32 to 64 bits, not 31$"),
        ((64, 65), {}, r"^Addresses must have 32 to 64 bits, not 65$"),
        ((64,), {"burst_beats": 48}, r"power of two from 2 to 256, not 48$"),
        ((64,), {"burst_beats": 1}, r"power of two from 2 to 256, not 1$"),
        ((32,), {"burst_beats": 512}, r"power of two from 2 to 256, not 512$"),
        ((512,), {"burst_beats": 128}, r"has 8192 \(128 beats of 512 bits\)$"),
        ((64,), {"outstanding": 0}, r"^Outstanding bursts must be 1 to 64, not 0$"),
        ((64,), {"outstanding": 65}, r"^Outstanding bursts must be 1 to 64, not 65$"),
    ],
)
def test_sizes_that_cannot_be_are_refused(master, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        master(*arguments, **options)


def test_sizes_that_are_no_integers_are_refused():
    with pytest.raises(TypeError):
        MemoryReader(64.0)
