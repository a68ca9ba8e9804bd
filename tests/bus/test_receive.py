# amaranth: UnusedElaboratable=no

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.sim import Simulator
from packet_plans import FORMATS, name_of
from small_plans import tiny

from streamtrain.bus import PacketFormat
from streamtrain.bus.receive import SampleReceiver

REASONS = ("short", "long", "keep", "class_unknown")


@dataclass
class Seen:
    """What a receiver said."""

    samples: list = field(default_factory=list)
    """(label, last, words) of those that count."""
    ends: list = field(default_factory=list)
    """Of each of them, whether it turned out to be the last one of its packet that counts; or None."""
    reasons: list = field(default_factory=list)
    """Of those that are discarded."""
    dropped: int = 0
    cycles: int = 0


def model(fmt, beats, count, *, labelled=True):
    """What should be said of ``(data, keep, last)``, one after the other: the rules, read aloud."""
    seen, whole = Seen(), (1 << fmt.size) - 1
    tail = fmt.payload_bytes - (fmt.payload_words - 1) * fmt.size
    needed = (1 << tail) - 1
    packet, dropping = [], False  # words of the sample, its label first
    number = 0
    for data, keep, last in beats:
        if dropping:
            dropping = not last
            continue
        packet.append(data)
        label = packet[0] & ((1 << fmt.label_bits) - 1)
        ends = len(packet) == 1 + fmt.payload_words
        reasons = set()
        if last and not (ends and number == count - 1):
            reasons.add("short")
        if not last and ends and number == count - 1:
            reasons.add("long")
        if (keep & needed != needed) if ends else keep != whole:
            reasons.add("keep")
        if labelled and label >= fmt.plan.network.classes:
            reasons.add("class_unknown")
        if reasons:
            seen.reasons.append(reasons)
            seen.dropped += 1
            if number:
                seen.ends[-1] = True
            packet, number, dropping = [], 0, not last
        elif ends:
            if number:
                seen.ends[-1] = False
            seen.ends.append(True if last else None)
            seen.samples.append((label, number == count - 1, packet[1:]))
            packet, number = [], 0 if last else number + 1
    return seen


def receive(fmt, beats, count, *, stall=0.0, seed=0, control=None, labelled=True, cycles=None):
    """Send beats; ``control(ctx, dut, cycle)`` may change other inputs. Without ``cycles``, all are sent."""
    dut, rng, seen = SampleReceiver(fmt), random.Random(seed), Seen()
    axis = dut.axis

    async def bench(ctx):
        ctx.set(dut.open, 1)
        ctx.set(dut.room, 1)
        ctx.set(dut.count, count)
        ctx.set(dut.labelled, labelled)
        sent, words, offering = 0, [], False
        while sent < len(beats) if cycles is None else seen.cycles < cycles:
            assert seen.cycles < 10_000
            offering = sent < len(beats) and (offering or rng.random() >= stall)
            data, keep, last = beats[sent] if offering else (rng.getrandbits(8 * fmt.size), 0, 1)
            ctx.set(axis.tdata, data)
            ctx.set(axis.tkeep, keep)
            ctx.set(axis.tlast, last)
            ctx.set(axis.tvalid, offering)
            ctx.set(dut.words.ready, rng.random() >= stall)
            if control:
                control(ctx, dut, seen.cycles)
            (
                _,
                _,
                taken,
                word,
                payload,
                commit,
                discard,
                label,
                ends,
                dropped,
                more,
                cut,
                *reasons,
            ) = await ctx.tick().sample(
                axis.tvalid & axis.tready,
                dut.words.valid & dut.words.ready,
                dut.words.payload,
                dut.commit,
                dut.discard,
                dut.label,
                dut.last,
                dut.dropped,
                dut.more,
                dut.cut,
                *(getattr(dut, reason) for reason in REASONS),
            )
            seen.cycles += 1
            seen.dropped += dropped
            if taken:
                sent, offering = sent + 1, False
            if word:
                words.append(payload)
            assert discard == any(reasons) and not (commit and discard)
            if more or cut:
                assert seen.ends[-1] is None and not (more and cut)
                seen.ends[-1] = bool(cut)
            if commit:
                seen.samples.append((label, bool(ends), words))
                seen.ends.append(True if ends else None)
            if discard:
                reasons = {name for name, said in zip(REASONS, reasons, strict=True) if said}
                seen.reasons.append(reasons)
            if commit or discard:
                words = []
        seen.receiving = ctx.get(dut.receiving)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def packet(fmt, samples, rng):
    """Beats of a right packet."""
    beats = []
    for _ in range(samples):
        beats.append(rng.randrange(fmt.plan.network.classes))
        beats += [rng.getrandbits(8 * fmt.size) for _ in range(fmt.payload_words)]
    whole = (1 << fmt.size) - 1
    return [[data, whole, int(n == len(beats) - 1)] for n, data in enumerate(beats)]


def assert_same(seen, expected):
    assert seen.samples == expected.samples
    assert seen.ends == expected.ends
    assert seen.reasons == expected.reasons
    assert seen.dropped == expected.dropped


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_right_packets_count(fmt, count, stall):
    rng = random.Random(name_of(fmt))
    beats = [beat for _ in range(3) for beat in packet(fmt, count, rng)]
    seen = receive(fmt, beats, count, stall=stall)
    assert_same(seen, model(fmt, beats, count))
    assert len(seen.samples) == 3 * count and not seen.reasons and not seen.receiving
    if stall == 0:
        assert seen.cycles == len(beats)  # a word per cycle


def spoil(fmt, beats, rng):
    """Something may be wrong with a packet."""
    kind = rng.choice(["", "short", "long", "keep", "tail", "label", "several", "noise"])
    at = rng.randrange(len(beats))
    if kind in {"short", "several"}:
        beats = beats[: at + 1]
        beats[-1][2] = 1
    if kind in {"long", "several"}:
        beats[-1][2] = 0
        beats += packet(fmt, 1, rng)[: rng.randint(1, 5)]
        beats[-1][2] = 1
    if kind in {"keep", "several"}:
        beats[at % len(beats)][1] = rng.getrandbits(fmt.size)
    if kind == "tail":  # bytes that the last sample does not have
        tail = fmt.payload_bytes - (fmt.payload_words - 1) * fmt.size
        beats[-1][1] = (1 << tail) - 1 | rng.getrandbits(fmt.size)
    if kind in {"label", "several"}:
        starts = range(0, len(beats), 1 + fmt.payload_words)
        beats[rng.choice(starts)][0] = rng.randrange(fmt.plan.network.classes, 1 << fmt.label_bits)
    if kind == "noise":
        beats = [[rng.getrandbits(8 * fmt.size), rng.getrandbits(fmt.size), 0] for _ in beats]
        beats[-1][2] = 1
    return beats


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_random_faults_are_told_from_right_samples(fmt, count, stall):
    rng = random.Random(f"{name_of(fmt)} {count}")
    beats = [beat for _ in range(25) for beat in spoil(fmt, packet(fmt, count, rng), rng)][:1500]
    seen = receive(fmt, beats, count, stall=stall)
    assert_same(seen, model(fmt, beats, count))
    assert seen.samples and seen.reasons


FMT = PacketFormat(tiny(), 4)


@pytest.mark.parametrize("where", [0, 1, 5, 9, 10, 18])
def test_tlast_too_early_drops_what_is_not_whole(where):
    rng = random.Random(1)
    beats = packet(FMT, 2, rng)[: where + 1]
    beats[-1][2] = 1
    good = packet(FMT, 2, rng)
    seen = receive(FMT, beats + good, 2)
    words = 1 + FMT.payload_words
    assert seen.reasons == [{"short"}] and seen.dropped == 1
    # Whole samples in front of it count. The one that TLAST comes with does not.
    before = where // words
    assert [last for _, last, _ in seen.samples] == [False] * before + [False, True]
    assert seen.ends == [True] * before + [False, True]
    assert seen.samples[before][2] == [data for data, _, _ in good[1:words]]


def test_tlast_missing_drops_the_last_sample_and_all_up_to_tlast():
    rng = random.Random(1)
    beats = packet(FMT, 2, rng)
    beats[-1][2] = 0
    rest = packet(FMT, 3, rng)  # looks like samples, but belongs to the packet that is too long
    good = packet(FMT, 2, rng)
    seen = receive(FMT, beats + rest + good, 2)
    assert seen.reasons == [{"long"}] and seen.dropped == 1
    assert [last for _, last, _ in seen.samples] == [False, False, True]


@pytest.mark.parametrize("size, tail", [(2, 1), (4, 1), (8, 1)])
def test_the_last_word_needs_only_the_bytes_of_the_sample(size, tail):
    fmt = next(f for f in FORMATS if f.size == size and f.payload_bytes % size == tail)
    beats = packet(fmt, 1, random.Random(1))
    for keep, right in (((1 << tail) - 1, True), ((1 << size) - 2, False), (0, False)):
        beats[-1][1] = keep
        seen = receive(fmt, beats, 1)
        assert len(seen.samples) == right
        assert seen.reasons == ([] if right else [{"keep"}])


def test_labels_matter_only_where_they_are_asked_for():
    beats = packet(FMT, 1, random.Random(1))
    beats[0][0] = 3
    assert receive(FMT, beats, 1).reasons == [{"class_unknown"}]
    seen = receive(FMT, beats, 1, labelled=False)
    assert len(seen.samples) == 1 and not seen.reasons


def test_labels_above_sixteen_bits_do_not_matter():
    beats = packet(FMT, 1, random.Random(1))
    beats[0][0] = 0xFFFF_0002
    assert receive(FMT, beats, 1).samples[0][0] == 2


@pytest.mark.parametrize("cycle", [1, 5, 9])
def test_labels_that_come_to_matter_in_mid_sample_are_checked(cycle):
    """The mode is that of the last word; a sample without a class must not be trained with."""

    def control(ctx, dut, now):
        ctx.set(dut.labelled, now >= cycle)

    beats = packet(FMT, 1, random.Random(1))
    beats[0][0] = 3
    seen = receive(FMT, beats, 1, control=control)
    assert seen.samples == [] and seen.reasons == [{"class_unknown"}]


def test_a_closed_receiver_ends_the_packet_that_is_under_way():
    beats = [beat for _ in range(2) for beat in packet(FMT, 2, random.Random(1))]

    def control(ctx, dut, now):
        ctx.set(dut.open, now < 3)

    seen = receive(FMT, beats, 2, control=control, cycles=100)
    assert [last for _, last, _ in seen.samples] == [False, True]
    assert not seen.receiving and not seen.dropped


def test_without_room_no_sample_begins():
    beats = packet(FMT, 3, random.Random(1))
    words = 1 + FMT.payload_words

    def control(ctx, dut, now):
        ctx.set(dut.room, not 3 <= now < 50)

    seen = receive(FMT, beats, 3, control=control)
    assert len(seen.samples) == 3
    assert seen.cycles == 50 + 2 * words  # the first one had begun


@pytest.mark.parametrize("cycle", range(22))
def test_abort_forgets_the_packet_that_is_under_way(cycle):
    rng = random.Random(1)
    words = 1 + FMT.payload_words
    beats, good = packet(FMT, 2, rng), packet(FMT, 2, rng)
    begun = []

    def control(ctx, dut, now):
        ctx.set(dut.abort, now == cycle)
        if now == cycle:
            begun.append(ctx.get(dut.receiving))

    seen = receive(FMT, beats + good, 2, control=control)
    # Whole samples had counted; no word passes in the cycle of the abort.
    at = cycle % (2 * words)
    assert begun == [at != 0]
    assert len(seen.samples) == 2 + (at // words if at else 2)
    assert seen.dropped == begun[0]
    assert seen.reasons == []


def test_abort_while_a_packet_is_dropped_drops_it_once():
    rng = random.Random(1)
    bad, good = packet(FMT, 1, rng), packet(FMT, 1, rng)
    bad[0][0] = 3

    def control(ctx, dut, now):
        ctx.set(dut.abort, now in {3, 4})

    seen = receive(FMT, bad + good, 1, control=control)
    assert seen.dropped == 1 and len(seen.samples) == 1


def test_pixels_are_those_that_were_packed():
    rng = np.random.default_rng(1)
    x, labels = rng.integers(-99, 99, (2, 1, 6, 6)), [2, 1]
    packed = FMT.pack(x, labels)
    data = packed.view("<u4").ravel().tolist()
    beats = [[word, 0xF, int(n == len(data) - 1)] for n, word in enumerate(data)]
    seen = receive(FMT, beats, 2)
    assert [label for label, _, _ in seen.samples] == labels
    for (_, _, words), row in zip(seen.samples, packed, strict=True):
        assert np.array(words, "<u4").tobytes() == row[4:].tobytes()


@pytest.mark.parametrize("count", [1, 65535])
def test_packets_may_be_as_long_as_the_register_says(count):
    """Only that the number is compared whole: a packet of 65,535 samples would take long."""
    beats = packet(FMT, 2, random.Random(1))
    seen = receive(FMT, beats, count)
    assert seen.reasons == ([{"long"}] if count == 1 else [{"short"}])
