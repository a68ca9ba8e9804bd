# amaranth: UnusedElaboratable=no

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from packet_plans import FORMATS, many_classes, name_of
from small_plans import tiny

from streamtrain.bus import PacketFormat
from streamtrain.bus.send import ResultSender, labelled_result
from streamtrain.simulate.bench import run_streams


class Sent(wiring.Component):
    """A sender whose AXI4-Stream is a stream of the harness."""

    def __init__(self, fmt):
        self.fmt = fmt
        word = data.StructLayout({"data": 8 * fmt.size, "keep": fmt.size, "last": 1})
        super().__init__({
            "i": In(stream.Signature(labelled_result(fmt.plan))),
            "fate": In(stream.Signature(1)),
            "abort": In(1),
            "o": Out(stream.Signature(word)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.sender = sender = ResultSender(self.fmt)
        wiring.connect(m, wiring.flipped(self.i), sender.i)
        wiring.connect(m, wiring.flipped(self.fate), sender.fate)
        m.d.comb += sender.abort.eq(self.abort)
        axis = sender.axis
        m.d.comb += [
            self.o.valid.eq(axis.tvalid),
            self.o.payload.data.eq(axis.tdata),
            self.o.payload.keep.eq(axis.tkeep),
            self.o.payload.last.eq(axis.tlast),
            axis.tready.eq(self.o.ready),
        ]
        return m


def results(fmt, count):
    """Random ones, the first two extreme; every third is the last of its packet."""
    rng, classes = np.random.default_rng(count), fmt.plan.network.classes
    codes = np.array(fmt.plan.stages[-1].output.codes)
    scores = rng.choice(codes, (count, classes))
    scores[0], scores[1] = codes[0], codes[-1]
    loss = rng.integers(1 << 32, size=count)
    loss[:2] = 0, 0xFFFFFFFF
    predicted, labels = rng.integers(classes, size=(2, count))
    predicted[0] = labels[1] = classes - 1
    return scores, loss, predicted, labels


def send(fmt, given, fates=(0, 0, 0, 0), count=None, **options):
    scores, loss, predicted, labels = (part.tolist() for part in given)
    payloads = [
        {
            "result": {"scores": scores[n], "loss": loss[n], "predicted": predicted[n]},
            "label": labels[n],
            "last": n % 3 == 2,
        }
        for n in range(len(loss))
    ]
    count = len(loss) * fmt.result_words if count is None else count
    return run_streams(Sent(fmt), {"i": payloads, "fate": fates}, {"o": count}, **options)


def ends(words):
    """Numbers of the words with TLAST."""
    return [n for n, word in enumerate(words) if word["last"]]


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_words_are_what_unpack_reads(fmt, stall):
    given = results(fmt, 6)
    words = send(fmt, given, stall=stall).received["o"]
    packed = b"".join(word["data"].to_bytes(fmt.size, "little") for word in words)
    found, labels = fmt.unpack(np.frombuffer(packed, np.uint8))
    for sent, read in zip(given, (found.scores, found.loss, found.predicted, labels), strict=True):
        np.testing.assert_array_equal(read, sent)
    assert {word["keep"] for word in words} == {(1 << fmt.size) - 1}
    assert ends(words) == [n * fmt.result_words - 1 for n in (3, 6)]
    # What a result is filled up with is 0.
    used = 8 + fmt.plan.network.classes * fmt.score_bytes
    assert not np.frombuffer(packed, np.uint8).reshape(6, -1)[:, used:].any()


def test_a_label_and_a_class_may_have_nine_bits():
    fmt = PacketFormat(many_classes(300), 8)
    given = results(fmt, 2)
    assert given[2][0] == given[3][1] == 299
    words = send(fmt, given, [0, 0]).received["o"]
    packed = b"".join(word["data"].to_bytes(8, "little") for word in words)
    found, labels = fmt.unpack(np.frombuffer(packed, np.uint8))
    np.testing.assert_array_equal(found.predicted, given[2])
    np.testing.assert_array_equal(labels, given[3])


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_word_per_cycle_and_one_cycle_between_results(size):
    fmt = PacketFormat(tiny(), size)
    run = send(fmt, results(fmt, 5))
    period = fmt.result_words + 1
    assert run.times["i"] == [period * n for n in range(5)]
    assert run.times["o"] == [
        period * n + 1 + word for n in range(5) for word in range(fmt.result_words)
    ]


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_a_result_whose_packet_was_cut_behind_it_is_the_last_one(size, stall):
    fmt = PacketFormat(tiny(), size)
    words = send(fmt, results(fmt, 6), [0, 1, 1, 0], stall=stall).received["o"]
    assert ends(words) == [n * fmt.result_words - 1 for n in (2, 3, 4, 6)]


@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("fate", [0, 1])
def test_the_last_word_waits_for_its_fate_and_no_other_does(size, fate):
    fmt = PacketFormat(tiny(), size)
    most, given = fmt.result_words - 1, [part[:1] for part in results(fmt, 2)]
    run = send(fmt, given, (), count=most, settle=100)
    assert len(run.received["o"]) == most
    words = send(fmt, given, [fate]).received["o"]
    assert ends(words) == [most] * fate


@pytest.mark.parametrize("cycle", range(12))
@pytest.mark.parametrize("fates", [(), (0, 0), (1, 1)])
def test_an_abort_ends_the_packet_with_the_result_that_was_begun(fates, cycle):
    """The harness sees whether a word that is offered stays as it is."""
    fmt = PacketFormat(tiny(), 4)
    dut, (scores, loss, predicted, labels) = Sent(fmt), (part.tolist() for part in results(fmt, 2))

    async def abort(ctx):
        for _ in range(cycle):
            await ctx.tick()
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)

    payload = {
        "result": {"scores": scores[0], "loss": loss[0], "predicted": predicted[0]},
        "label": labels[0],
        "last": 0,
    }
    words = fmt.result_words
    run = run_streams(
        dut,
        {"i": [payload], "fate": fates[:1] if cycle else ()},  # which the abort would have voided
        {"o": words},
        drive=abort,
        stall={"o": 0.3} if cycle % 2 else 0.0,
    )
    assert len(run.received["o"]) == words
    sent = run.times["o"][-1]
    begun = run.times["i"][0] <= cycle < run.times["o"][-1]
    last = run.received["o"][-1]["last"]
    if fates != (0, 0) or not cycle:
        assert last
    elif cycle > sent:
        assert not last
    elif begun and (words == 1 or cycle < run.times["o"][-2]):
        assert last
