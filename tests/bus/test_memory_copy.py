# amaranth: UnusedElaboratable=no
"""A design that copies within a simulated memory: reader and writer compiled, and all they meet there."""

from dataclasses import replace

import numpy as np
import pytest
from memory_designs import CopyEngine, Copying

from streamtrain.bus.axi import DECERR, SLVERR
from streamtrain.bus.bursts import PAGE_BYTES, Fault
from streamtrain.simulate.memory import MemoryTiming

pytestmark = pytest.mark.xdist_group("memory simulations")

WIDTHS = {
    32: {"burst_beats": 256, "outstanding": 2},
    64: {},
    128: {"burst_beats": 16, "outstanding": 8, "address_bits": 40},
    256: {"burst_beats": 2, "outstanding": 16},
    512: {"address_bits": 64},
}
SIZE = 1 << 19
HALF = SIZE // 2


def copying(data_bits, **options):
    options = {"size": SIZE, **options}
    copy = Copying(CopyEngine(data_bits, **WIDTHS[data_bits]), **options)
    contents = copy.model.contents
    contents[:] = np.random.default_rng(data_bits).integers(0, 256, contents.size)
    return copy


def draw_program(rng, beat_bytes, count, longest):
    """Copies from the lower half to places in the upper half that do not overlap, in beats."""
    program, place = [], 0
    room = HALF // beat_bytes
    page = PAGE_BYTES // beat_bytes
    for _ in range(count):
        beats = int(rng.choice([1, 2, rng.integers(1, 20), rng.integers(1, longest)]))
        # Half of them begin or end near a page's end.
        near = rng.integers(1, room // page) * page + rng.integers(-3, 4)
        source = near if rng.random() < 0.5 else rng.integers(0, room - beats)
        source = max(0, min(int(source) - (beats if rng.random() < 0.5 else 0), room - beats))
        place += int(rng.integers(0, 5))
        if place + beats > room:
            break
        program.append((source * beat_bytes, HALF + place * beat_bytes, beats))
        place += beats
    return program


def draw_timing(rng):
    return MemoryTiming(
        read_latency=int(rng.integers(1, 60)),
        write_latency=int(rng.integers(1, 60)),
        read_rate=float(rng.choice([1.0, rng.uniform(0.1, 1)])),
        write_rate=float(rng.choice([1.0, rng.uniform(0.1, 1)])),
        shared_rate=float(rng.choice([2.0, rng.uniform(0.2, 2)])),
        stall=float(rng.choice([0.0, 0.1, 0.5])),
    )


def play(copy, program, base=0, cycles=400_000):
    """Run copies, and compare all bytes of the memory with NumPy's. Returns the cycles they took."""
    contents, size = copy.model.contents, copy.beat_bytes
    expected = contents.copy()
    for source, destination, beats in program:
        expected[destination : destination + beats * size] = expected[
            source : source + beats * size
        ]
    before = copy.model.counts
    copy.write("CONTROL", 2)  # forget those before
    copy.write("CONTROL", 0)
    for source, destination, beats in program:
        copy.push(base + source, base + destination, beats)
    taken = copy.run(cycles)
    np.testing.assert_array_equal(contents, expected)
    counts = copy.model.counts - before
    assert counts.read_beats == counts.write_beats == sum(beats for *_, beats in program)
    assert counts.read_blocked == 0, "RREADY was low"
    assert counts.write_starved == 0, "W kept the memory waiting"
    assert copy.read("STATUS") == 0
    assert copy.error("READ")[0] == copy.error("WRITE")[0] == Fault.NONE.value
    return taken


@pytest.fixture(scope="module")
def copies():
    """Copiers of each width, compiled once."""
    made = {}

    def get(data_bits):
        if data_bits not in made:
            made[data_bits] = copying(data_bits)
        made[data_bits].model.reset()
        return made[data_bits]

    yield get
    for copy in made.values():
        copy.model.close()


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_bytes_are_right_whatever_the_memory_does(copies, data_bits):
    copy = copies(data_bits)
    copy.model.contents[:] = np.random.default_rng(data_bits).integers(0, 256, SIZE)
    for seed in range(30):
        rng = np.random.default_rng((data_bits, seed))
        copy.model.timing = draw_timing(rng)
        program = draw_program(rng, copy.beat_bytes, 12, 300)
        copy.write("PAUSE", int(rng.choice([0, 0, 1, 7])))
        play(copy, program)
    copy.write("PAUSE", 0)


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_thousands_of_beats_at_full_rate(copies, data_bits):
    """What ``Timing`` says of both, one after the other."""
    copy = copies(data_bits)
    options = copy.engine.options
    burst = options.get("burst_beats", 64)
    outstanding = options.get("outstanding", 4)
    latency = (outstanding - 1) * burst - 3
    copy.model.timing = MemoryTiming(read_latency=latency, write_latency=latency)
    beats = HALF // copy.beat_bytes
    deep = outstanding * burst > 64
    taken = play(copy, [(0, HALF, beats)])
    # Three for the program; a beat into the writer in the cycle that it leaves the reader.
    assert taken <= beats + burst + 2 * latency + 4 + deep + 3 + 3


@pytest.mark.parametrize("beats", [16, 64, 100])
def test_many_requests_without_a_pause(copies, beats):
    copy = copies(64)
    copy.model.timing = MemoryTiming(read_latency=20, write_latency=20)
    program = [(0x1000 * n % HALF, HALF + 0x800 * n, beats) for n in range(60)]
    taken = play(copy, program)
    assert taken <= 60 * beats + 64 + 40 + 11


def test_a_page_is_never_crossed(copies):
    """All offsets around a page's end and several lengths; the memory watches."""
    copy = copies(512)
    copy.model.timing = MemoryTiming(read_latency=3, write_latency=2)
    for beats in (1, 2, 63, 64, 65, 129):
        program = [
            (PAGE_BYTES * 8 + 64 * offset, HALF + PAGE_BYTES * 4 * number + 64 * offset, beats)
            for number, offset in enumerate(range(-4, 5), 1)
        ]
        play(copy, program)


def test_what_was_done_can_be_read(copies):
    """The second copy reads what the first has written, as soon as ``done`` says so."""
    copy = copies(64)
    copy.model.timing = MemoryTiming(read_latency=1, write_latency=500)
    contents, beats = copy.model.contents, 100
    play(copy, [(0, HALF, beats)])
    play(copy, [(HALF, HALF + 0x4000, beats)])
    np.testing.assert_array_equal(contents[HALF + 0x4000 :][: 8 * beats], contents[: 8 * beats])


def test_addresses_above_32_bits():
    copy = copying(512, base=(1 << 64) - SIZE)
    copy.model.timing = MemoryTiming(stall=0.2)
    size = copy.beat_bytes
    play(copy, [(0, HALF, 1000), (HALF - 100 * size, SIZE - 100 * size, 100)], (1 << 64) - SIZE)
    copy.model.close()


@pytest.mark.parametrize("side", ["READ", "WRITE"])
@pytest.mark.parametrize("response, kind", [(SLVERR, Fault.SLVERR), (DECERR, Fault.DECERR)])
def test_errors_are_told_with_the_address_of_their_burst(copies, side, response, kind):
    copy = copies(64)
    copy.model.timing = MemoryTiming()
    base = 0 if side == "READ" else HALF
    burst = base + 512 * 3
    copy.model.fail(burst + 70, response)
    copy.model.fail(base + 512 * 5, SLVERR + DECERR - response)
    copy.push(0x40, HALF + 0x40, 500)
    copy.run(5000)
    copy.model.wait(5000)
    assert copy.error(side) == (kind.value, burst)
    assert copy.error("WRITE" if side == "READ" else "READ")[0] == Fault.NONE.value
    # All the same, traffic ended by the rules, and the design can go on.
    assert copy.read("DONE") == 1
    assert copy.read("STATUS") == 0
    copy.model.fail(burst + 70, 0)
    copy.model.fail(base + 512 * 5, 0)
    play(copy, [(0, HALF, 100)])


def test_where_no_memory_is(copies):
    copy = copies(64)
    copy.model.timing = MemoryTiming()
    copy.push(SIZE - 1024, HALF, 256)  # two bursts within, two outside
    copy.run(5000)
    assert copy.error("READ") == (Fault.DECERR.value, SIZE)
    assert copy.read("READ_ERROR_HIGH") == 0


@pytest.mark.parametrize("side", ["READ", "WRITE"])
@pytest.mark.parametrize(
    "address, beats, kind",
    [
        (0x1004, 3, Fault.UNALIGNED),
        (0x1000, 0, Fault.EMPTY),
        (0xFFFFFF80, 17, Fault.BEYOND),
    ],
)
def test_misuse_is_told_and_touches_nothing(copies, side, address, beats, kind):
    copy = copies(64)
    copy.model.timing = MemoryTiming()
    before, counts = copy.model.contents.copy(), copy.model.counts
    reading = side == "READ"
    copy.push(address if reading else None, None if reading else address, beats)
    if not reading:
        copy.push(0, None, 16)
    copy.run(1000)
    copy.model.wait(1000)
    assert copy.error(side) == (kind.value, address)
    np.testing.assert_array_equal(copy.model.contents, before)
    assert (copy.model.counts - counts).write_bursts == 0
    play(copy, [(0, HALF, 100)])  # after `abort`


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_abort_ends_by_the_rules(copies, stall):
    """At any time; what comes after is as if nothing had been."""
    copy = copies(64)
    copy.model.timing = timing = MemoryTiming(read_latency=40, write_latency=70, stall=stall)
    rng = np.random.default_rng(round(10 * stall))
    for _ in range(25):
        for n in range(3):
            copy.push(0x1000 * n, HALF + 0x1000 * n, 400)
        copy.write("PAUSE", int(rng.choice([0, 5])))
        copy.write("CONTROL", 1)
        copy.model.wait(int(rng.integers(0, 1500)))
        copy.write("CONTROL", 3)  # the program's rest is taken, and dropped
        copy.model.wait(3000)
        assert copy.read("STATUS") == 0
        assert copy.read("DONE") == 0
        copy.write("PAUSE", 0)
        play(copy, [(0x8008, HALF + 0x8008, 130)])
    copy.model.timing = replace(timing, stall=0.0)


def test_reset_in_the_middle(copies):
    copy = copies(64)
    for cycles in (3, 50, 100):
        copy.push(0, HALF, 400)
        copy.write("CONTROL", 1)
        copy.model.wait(cycles)
        copy.model.reset()
        play(copy, [(0, HALF, 100)])
