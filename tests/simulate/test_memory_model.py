"""Memory in simulation: that it is as fast as it is told to be, and sees what a master does wrong."""

import numpy as np
import pytest
from memory_designs import COPY, DRIVEN, CopyEngine, Copying, DrivenMaster, simulated

from streamtrain.bus.axi import DECERR, OKAY, SLVERR
from streamtrain.host.bus_device import BusError
from streamtrain.simulate import BrokenRuleError, MemoryTiming, SimulatedMemory

pytestmark = pytest.mark.xdist_group("memory simulations")

AR, AW, W = 1, 2, 4
ALL = AR | AW | W


@pytest.fixture
def driven():
    """A memory whose master does what ``set_`` says."""
    model = simulated(DrivenMaster(), 1 << 16, base=0x10000, timing=MemoryTiming(1, 1))

    def set_(**values):
        for name, value in values.items():
            model.write(DRIVEN[name.upper()].address, value)

    model.set = set_
    set_(ar_addr=0x10000, ar_size=2, ar_burst=1, aw_addr=0x18000, aw_size=2, aw_burst=1, w_last=1)
    yield model
    model.close()


def in_between(model, cycles):
    """What happens in so many cycles."""
    before = model.counts
    model.wait(cycles)
    return model.counts - before


def cycle_of(model, happened):
    """Steps until ``happened()``; the cycle in which it did."""
    for _ in range(300):
        if happened():
            return model.cycle
        model.wait(1)
    raise TimeoutError


def test_latency_of_reads(driven):
    """From the cycle in which an address is taken to the one in which its first beat is."""
    driven.timing = MemoryTiming(read_latency=37)
    driven.set(valid=AR)
    asked = cycle_of(driven, lambda: driven.counts.read_bursts)
    assert cycle_of(driven, lambda: driven.counts.read_beats) - asked == 37


def test_latency_of_writes(driven):
    """From the cycle in which a burst's last beat is taken to the one in which its answer is."""
    driven.timing = MemoryTiming(write_latency=37)
    driven.set(w_data=0x01020304, valid=AW | W)
    contents = driven.contents[0x8000:0x8004]
    written = cycle_of(driven, lambda: driven.counts.write_beats)
    assert cycle_of(driven, contents.any) - written == 37
    assert contents.tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("rate", [1.0, 0.75, 0.3, 0.01])
def test_rates(driven, rate):
    driven.timing = MemoryTiming(1, 1, read_rate=rate)
    driven.set(ar_len=255, valid=ALL)
    driven.wait(100)
    found = in_between(driven, 10_000)
    assert found.read_beats == pytest.approx(10_000 * rate, abs=2)
    assert found.write_beats == pytest.approx(10_000, abs=2)
    driven.timing = MemoryTiming(1, 1, write_rate=rate)
    found = in_between(driven, 10_000)
    assert found.read_beats == pytest.approx(10_000, abs=2)
    assert found.write_beats == pytest.approx(10_000 * rate, abs=2)


@pytest.mark.parametrize("rate", [2.0, 1.5, 1.0, 0.25])
def test_reads_and_writes_share(driven, rate):
    driven.timing = MemoryTiming(1, 1, shared_rate=rate)
    driven.set(ar_len=255, valid=ALL)
    driven.wait(100)
    found = in_between(driven, 10_000)
    assert found.read_beats == pytest.approx(5_000 * rate, abs=5)
    assert found.write_beats == pytest.approx(5_000 * rate, abs=5)


def test_who_is_alone_shares_with_nobody(driven):
    driven.timing = MemoryTiming(1, 1, shared_rate=0.8)
    driven.set(ar_len=255, valid=AR)
    assert in_between(driven, 10_000).read_beats == pytest.approx(8_000, abs=5)


def test_stalls_are_found_again_by_their_seed(driven):
    driven.timing = MemoryTiming(1, 1, stall=0.3)
    driven.set(ar_len=255, valid=ALL)
    found = in_between(driven, 10_000)
    assert found.read_beats == pytest.approx(7_000, rel=0.05)
    assert found.read_busy == pytest.approx(10_000, abs=2)

    def play(seed):
        copy = Copying(CopyEngine(64), seed=seed, timing=MemoryTiming(stall=0.3))
        copy.push(0, 0x8000, 1000)
        cycles = copy.run(10_000)
        copy.model.close()
        return cycles

    assert play(1) == play(1) != play(2)


def test_counts(driven):
    assert driven.counts.read_bursts == driven.counts.write_bursts == 0
    driven.timing = MemoryTiming(1, 1)
    driven.set(aw_len=3, w_last=0, valid=AW)
    driven.wait(100)
    found = in_between(driven, 1000)
    assert (found.cycles, found.write_busy, found.write_starved) == (1000, 1000, 1000)
    assert (found.write_beats, found.read_busy, found.read_beats) == (0, 0, 0)


# -- Rules ------------------------------------------------------------------------------------------

SLOW = MemoryTiming(1, 1, stall=0.9999)  # so READY is low

BROKEN = {
    "address went away": (SLOW, AR, {"valid": 0}, r"ARVALID went away before ARREADY came$"),
    "write address went away": (SLOW, AW, {"valid": 0}, r"AWVALID went away before AWREADY came$"),
    "data went away": (SLOW, W, {"valid": 0}, r"WVALID went away before WREADY came$"),
    "address changed": (
        SLOW,
        AR,
        {"ar_addr": 0x10010},
        r"AR changed before ARREADY came: address 0x10000, LEN 0 became 0x10010, 0$",
    ),
    "length changed": (SLOW, AW, {"aw_len": 3}, r"LEN 0 became 0x18000, 3$"),
    "data changed": (SLOW, W, {"w_data": 3}, r"W changed before WREADY came$"),
    "last changed": (SLOW, W, {"w_last": 0}, r"W changed before WREADY came$"),
    "fixed burst": (
        None,
        0,
        {"ar_burst": 0, "valid": AR},
        r"ARBURST is 0, and the memory knows only INCR \(1\)$",
    ),
    "wrapping burst": (None, 0, {"aw_burst": 2, "valid": AW}, r"AWBURST is 2"),
    "narrow burst": (
        None,
        0,
        {"aw_size": 1, "valid": AW},
        r"AWSIZE is 1, and the memory knows only whole beats \(2\)$",
    ),
    "unaligned": (
        None,
        0,
        {"ar_addr": 0x10002, "valid": AR},
        r"ARADDR 0x10002 is no beat's address \(4 bytes\)$",
    ),
    "page crossed by reads": (
        None,
        0,
        {"ar_addr": 0x10FF0, "ar_len": 4, "valid": AR},
        r"the burst of 5 beats at ARADDR 0x10ff0 crosses a page of 4 KB$",
    ),
    "page crossed by writes": (
        None,
        0,
        {"aw_addr": 0x18C04, "aw_len": 255, "valid": AW},
        r"the burst of 256 beats at AWADDR 0x18c04 crosses a page of 4 KB$",
    ),
    "last too early": (
        None,
        0,
        {"aw_len": 3, "valid": AW | W},
        r"WLAST is 1 on beat 1 of the 4 at AWADDR 0x18000$",
    ),
    "last missing": (
        None,
        0,
        {"aw_len": 3, "w_last": 0, "valid": AW | W},
        r"WLAST is 0 on beat 4 of the 4 at AWADDR 0x18000$",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_master_that_breaks_a_rule_is_caught(driven, case):
    timing, offered, then, message = BROKEN[case]
    if timing is not None:
        driven.timing = timing
    driven.set(valid=offered)
    with pytest.raises(BrokenRuleError, match=r"^cycle \d+, m_axi: .*" + message):
        driven.set(**then)
        driven.wait(20)
    with pytest.raises(BrokenRuleError, match=message):  # it stays broken
        driven.wait(1)


def test_what_breaks_no_rule_is_not_caught(driven):
    """Bursts that end with a page, and any VALID that was taken."""
    driven.set(ar_addr=0x10FF0, ar_len=3, aw_addr=0x18FFC, valid=ALL)
    driven.wait(100)
    driven.timing = MemoryTiming(5, 5, stall=0.5)
    driven.wait(100)


def test_valid_right_after_reset_is_caught(driven):
    driven.set(valid=AR)
    driven.reset()
    with pytest.raises(BrokenRuleError, match=r"ARVALID is high right after reset$"):
        driven.wait(1)


# -- Contents ---------------------------------------------------------------------------------------


@pytest.fixture
def copy():
    made = Copying(CopyEngine(64), size=1 << 16)
    made.model.contents[:] = np.random.default_rng(1).integers(0, 256, 1 << 16)
    yield made
    made.model.close()


def test_a_read_gets_what_was_there_when_it_was_asked(copy):
    copy.model.timing = MemoryTiming(read_latency=500)
    contents = copy.model.contents
    before = contents[:128].copy()
    copy.push(0, 0x8000, 16)
    copy.write("CONTROL", 1)
    copy.model.wait(20)
    contents[:128] = 0
    copy.model.wait_for_irq(1000)
    np.testing.assert_array_equal(contents[0x8000:0x8080], before)


def test_what_is_written_is_there_when_its_response_is(copy):
    copy.model.timing = MemoryTiming(read_latency=1, write_latency=500)
    contents = copy.model.contents
    before = contents.copy()
    copy.push(0, 0x8000, 16)
    copy.write("CONTROL", 1)
    copy.model.wait(400)
    np.testing.assert_array_equal(contents, before)
    copy.model.wait_for_irq(1000)
    np.testing.assert_array_equal(contents[0x8000:0x8080], before[:128])


def test_latencies_add_up(copy):
    """Of a single beat, to the cycle: what is not the memory's is constant."""
    constant = set()
    for read_latency, write_latency in [(1, 1), (1, 2), (2, 1), (40, 1), (1, 40), (33, 44)]:
        copy.model.reset()
        copy.model.timing = MemoryTiming(read_latency, write_latency)
        copy.push(0, 0x8000, 1)
        constant.add(copy.run(1000) - read_latency - write_latency)
    assert len(constant) == 1


@pytest.mark.parametrize("response", [SLVERR, DECERR])
def test_a_write_that_fails_writes_nothing(copy, response):
    contents = copy.model.contents
    before = contents.copy()
    copy.model.fail(0x8000 + 512 + 9, response)
    copy.push(0, 0x8000, 128)
    copy.run(1000)
    copy.model.wait(1000)
    expected = before.copy()
    expected[0x8000:0x8200] = before[:0x200]
    np.testing.assert_array_equal(contents[:0x8400], expected[:0x8400])
    copy.model.fail(0x8000 + 512 + 9, OKAY)


def test_misuse(copy):
    library = copy.model._library
    for options in ({"size": 100}, {"size": 0}, {"size": 4096, "base": 1}):
        with pytest.raises(ValueError, match=r"^Memory must be whole pages of 4096 bytes, not "):
            SimulatedMemory(library, **options)
    with pytest.raises(ValueError, match=r"^Response must be OKAY, SLVERR or DECERR, not 1$"):
        copy.model.fail(0, 1)
    with pytest.raises(TimeoutError, match=r"^No interrupt in 10 cycles$"):
        copy.model.wait_for_irq(10)
    with pytest.raises(BusError, match=r"^The design refuses that address 0xffc is read now$"):
        copy.model.read(0xFFC)
    with pytest.raises(BusError, match=r"^The design refuses 0x00000001 at address 0x024$"):
        copy.model.write(COPY["DONE"].address, 1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"read_latency": 0}, r"^read_latency must be at least 1 cycle, not 0$"),
        ({"write_latency": -1}, r"^write_latency must be at least 1 cycle, not -1$"),
        ({"read_rate": 0.0}, r"^read_rate must be above 0 and up to 1 beats per cycle, not 0.0$"),
        ({"write_rate": 1.1}, r"^write_rate must be above 0 and up to 1 beats per cycle, not 1.1$"),
        ({"shared_rate": 2.5}, r"^shared_rate must be above 0 and up to 2 beats per cycle"),
        ({"stall": 1.0}, r"^Stall must be a probability below 1, not 1.0$"),
    ],
)
def test_timings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryTiming(**options)


def test_closed_is_closed(copy):
    copy.model.close()
    copy.model.close()
    with pytest.raises(RuntimeError, match=r"^The simulation is closed$"):
        copy.model.wait(1)
