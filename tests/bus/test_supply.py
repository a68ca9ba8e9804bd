# amaranth: UnusedElaboratable=no

import numpy as np
import pytest
from amaranth import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from packet_plans import FORMATS, name_of
from small_plans import tiny

from streamtrain.bus import PacketFormat
from streamtrain.bus.supply import SampleSupply
from streamtrain.simulate.bench import run_stream, run_streams


class Marked(wiring.Component):
    """A supply whose words say themselves whether a sample ends with them, and how."""

    def __init__(self, fmt):
        self.supply = SampleSupply(fmt)
        word = data.StructLayout({"word": unsigned(8 * fmt.size), "commit": 1, "discard": 1})
        super().__init__({
            "i": In(stream.Signature(word)),
            "o": Out(self.supply.signature.members["o"].signature),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.supply = supply = self.supply
        taken = self.i.valid & self.i.ready
        m.d.comb += [
            supply.words.valid.eq(self.i.valid),
            supply.words.payload.eq(self.i.payload.word),
            self.i.ready.eq(supply.words.ready),
            supply.commit.eq(taken & self.i.payload.commit),
            supply.discard.eq(taken & self.i.payload.discard),
        ]
        wiring.connect(m, supply.o, wiring.flipped(self.o))
        return m


def words(fmt, packed, good):
    """Packed samples, without labels, as words; some are discarded at a random place."""
    rng, found = np.random.default_rng(1), []
    for row, counts in zip(packed, good, strict=True):
        pixels = row[fmt.size :].view(f"<u{fmt.size}").tolist()
        if not counts:
            pixels = pixels[: rng.integers(1, len(pixels) + 1)]
        found += [{"word": word, "commit": 0, "discard": 0} for word in pixels]
        found[-1]["commit" if counts else "discard"] = 1
    return found


def expected(fmt, x):
    """Payloads of samples: channels innermost, saturated."""
    first = fmt.plan.stages[0]
    clipped = np.clip(x, first.input.codes[0], first.input.codes[-1])
    return np.moveaxis(clipped, 1, -1).reshape(-1, first.folding[1]).tolist()


@pytest.mark.parametrize("stall", [0.0, 0.5, {"o": 0.8}])
@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_elements_are_those_of_the_samples_that_count(fmt, stall):
    codes = np.array(fmt.plan.stages[0].input.codes)
    x = np.random.default_rng(3).choice(codes, (6, *fmt.plan.network.input_shape))
    x[1], x[3] = codes[0], codes[-1]
    good = np.array([1, 1, 0, 1, 0, 1], bool)
    given = words(fmt, fmt.pack(x, np.zeros(6, int)), good)
    right = expected(fmt, x[good])
    assert run_stream(Marked(fmt), given, len(right), stall=stall) == right


@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_numbers_without_a_code_saturate(fmt):
    info = np.iinfo(f"i{fmt.pixel_bytes}")
    first = fmt.plan.stages[0].input
    numbers = [info.min, info.max, first.codes[0] - 1, first.codes[-1] + 1, 0, -1]
    numbers = np.clip(numbers, info.min, info.max)
    x = np.resize(numbers, (2, *fmt.plan.network.input_shape))
    right = expected(fmt, x)
    given = words(fmt, fmt.pack(x, [0, 0]), [True, True])
    assert run_stream(Marked(fmt), given, len(right)) == right


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_first_payload_comes_two_cycles_after_the_commit_and_one_for_each_word(size):
    fmt = PacketFormat(tiny(), size)
    given = words(fmt, fmt.pack(np.zeros((1, 1, 6, 6), int), [0]), [True])
    run = run_streams(Marked(fmt), {"i": given}, {"o": 36})
    assert run.times["o"][0] == run.times["i"][-1] + 2 + -(-fmt.pixel_bytes // size)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_words_and_payloads_move_every_cycle(size):
    """The narrower side sets the pace; two samples are kept."""
    fmt = PacketFormat(tiny(), size)
    given = words(fmt, fmt.pack(np.zeros((8, 1, 6, 6), int), np.zeros(8, int)), np.ones(8, bool))
    run = run_streams(Marked(fmt), {"i": given}, {"o": 8 * 36})
    per_sample = max(36, fmt.payload_words)
    assert run.times["o"][-1] - run.times["o"][35] == 7 * per_sample


def test_keeps_two_samples_while_nothing_is_taken():
    fmt = PacketFormat(tiny(), 4)
    given = words(fmt, fmt.pack(np.zeros((2, 1, 6, 6), int), [0, 0]), [True, True])
    run = run_streams(Marked(fmt), {"i": given}, {"o": 72}, stall={"o": 0.95}, max_cycles=5000)
    assert run.times["i"] == list(range(2 * fmt.payload_words))
