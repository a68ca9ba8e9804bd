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
            "o": Out(stream.Signature(word)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.sender = sender = ResultSender(self.fmt)
        wiring.connect(m, wiring.flipped(self.i), sender.i)
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


def send(fmt, given, **options):
    scores, loss, predicted, labels = (part.tolist() for part in given)
    payloads = [
        {
            "result": {"scores": scores[n], "loss": loss[n], "predicted": predicted[n]},
            "label": labels[n],
            "last": n % 3 == 2,
        }
        for n in range(len(loss))
    ]
    return run_streams(Sent(fmt), {"i": payloads}, {"o": len(loss) * fmt.result_words}, **options)


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
    ends = [n for n, word in enumerate(words) if word["last"]]
    assert ends == [n * fmt.result_words - 1 for n in (3, 6)]
    # What a result is filled up with is 0.
    used = 8 + fmt.plan.network.classes * fmt.score_bytes
    assert not np.frombuffer(packed, np.uint8).reshape(6, -1)[:, used:].any()


def test_a_label_and_a_class_may_have_nine_bits():
    fmt = PacketFormat(many_classes(300), 8)
    given = results(fmt, 2)
    assert given[2][0] == given[3][1] == 299
    words = send(fmt, given).received["o"]
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
