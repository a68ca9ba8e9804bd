# amaranth: UnusedElaboratable=no
"""The harness itself: it drives payloads of any shape, and catches what it is there to catch."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Fixed
from streamtrain.simulate.bench import run_stream, run_streams

Q4_4 = Fixed(8, 4)


class Wire(wiring.Component):
    """Passes everything on; ``waits`` offers it only to an end that is ready."""

    def __init__(self, shape, *, waits=False):
        self.waits = waits
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & (self.o.ready if self.waits else 1)),
            self.i.ready.eq(self.o.ready),
        ]
        return m


class Fault(wiring.Component):
    """Breaks a rule of streams: what the harness is there to catch."""

    i: In(stream.Signature(Q4_4))
    o: Out(stream.Signature(Q4_4))

    def __init__(self, what):
        self.what = what
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        beat = Signal(3)
        m.d.sync += beat.eq(beat + 1)
        moment = beat == 0
        m.d.comb += [
            self.o.payload.eq(self.i.payload + (beat if self.what == "changes" else 0)),
            self.o.valid.eq(
                self.i.valid & ~(moment & (self.what == "retracts"))
                | moment & (self.what == "repeats")
            ),
            self.i.ready.eq(self.o.ready & self.o.valid),
        ]
        return m


class Gate(wiring.Component):
    """Lets payloads through while open, and counts them."""

    i: In(stream.Signature(Q4_4))
    o: Out(stream.Signature(Q4_4))
    open: In(1)
    passed: Out(4)
    pair: Out(data.StructLayout({"low": Fixed(2, 0), "high": 2}))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & self.open),
            self.i.ready.eq(self.o.ready & self.open),
            self.pair.eq(self.passed),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.passed.eq(self.passed + 1)
        return m


LANES = data.ArrayLayout(Q4_4, 3)
SHAPES = {
    "format": (Q4_4, [-128, 127, 0]),
    "bits": (2, [0, 3]),
    "range": (range(10), [9, 0]),
    "array": (LANES, [[-128, 127, 0], [1, 2, 3]]),
    "nested": (data.ArrayLayout(data.ArrayLayout(Q4_4, 2), 1), [[[-1, 1]], [[0, -128]]]),
    "structure": (
        data.StructLayout({"data": LANES, "train": 1}),
        [{"data": [-1, -2, -3], "train": 1}, {"data": [4, 5, 6], "train": 0}],
    ),
}


@pytest.mark.parametrize("stall", [0.0, 0.6, {"o": 0.9}])
@pytest.mark.parametrize("shape, payloads", SHAPES.values(), ids=list(SHAPES))
def test_payloads_of_any_shape_arrive(shape, payloads, stall):
    assert run_stream(Wire(shape), payloads, len(payloads), stall=stall) == payloads


def test_numpys_arrays_are_payloads():
    codes = np.random.default_rng(1).integers(-128, 128, (5, 3))
    np.testing.assert_array_equal(run_stream(Wire(LANES), codes, 5), codes)


def test_tells_when_payloads_were_taken():
    run = run_streams(Wire(Q4_4), {"i": [1, 2, 3]}, {"o": 3})
    assert run.times == {"i": [0, 1, 2], "o": [0, 1, 2]}
    assert run.cycles == 3


def test_seeds_decide_the_pauses():
    def times(seed):
        return run_streams(Wire(Q4_4), {"i": [0] * 20}, {"o": 20}, stall=0.5, seed=seed).times

    assert times(1) == times(1) != times(2)
    assert times(1)["o"][-1] > 30


def test_a_driver_sees_to_other_inputs():
    async def open_later(ctx):
        for _ in range(10):
            await ctx.tick()
        ctx.set(gate.open, 1)

    gate = Gate()
    run = run_streams(gate, {"i": [1, 2, 3, -1, 5]}, {"o": 5}, drive=open_later)
    assert run.received["o"] == [1, 2, 3, -1, 5]
    assert run.times["o"][0] == 10
    assert run.final == {"passed": 5, "pair": {"low": 1, "high": 1}}


def test_waves_are_written(tmp_path):
    run_streams(Wire(Q4_4), {"i": [1]}, {"o": 1}, waves=tmp_path / "wire.vcd")
    assert "$enddefinitions" in (tmp_path / "wire.vcd").read_text()


def test_a_changed_payload_is_caught():
    with pytest.raises(AssertionError, match=r"^cycle \d+, o: payload \d+ became \d+$"):
        run_stream(Fault("changes"), [0] * 8, 8, stall=0.5)


def test_a_retracted_payload_is_caught():
    with pytest.raises(AssertionError, match=r"^cycle \d+, o: payload 7 was retracted$"):
        run_stream(Fault("retracts"), [7] * 80, 80, stall=0.5)


def test_an_extra_payload_is_caught():
    with pytest.raises(AssertionError, match=r"^cycle \d+, o: payload .* comes after all 1$"):
        run_stream(Fault("repeats"), [7], 1)


def test_an_output_that_is_not_expected_is_caught():
    with pytest.raises(AssertionError, match=r"^cycle 0, o: payload 7 comes after all 0$"):
        run_streams(Wire(Q4_4), {"i": [7]}, {})


def test_valid_that_waits_for_ready_is_caught():
    assert run_stream(Wire(Q4_4, waits=True), [1, 2], 2) == [1, 2]
    with pytest.raises(TimeoutError):
        run_stream(Wire(Q4_4, waits=True), [1] * 20, 20, stall=0.5)


def test_a_payload_that_is_used_before_it_is_valid_is_caught():
    class Hasty(Wire):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            held = Signal(Q4_4)
            m.d.sync += held.eq(self.i.payload)
            m.d.comb += self.o.payload.eq(held)
            return m

    with pytest.raises(AssertionError):
        run_stream(Hasty(Q4_4), [7] * 20, 20, stall=0.5)


def test_a_stuck_run_is_caught():
    with pytest.raises(TimeoutError, match=r"^In 50 cycles, o gave 3 of 4 payloads$"):
        run_stream(Wire(Q4_4), [1] * 3, 4, max_cycles=50)
    with pytest.raises(
        TimeoutError, match=r"^In 9 cycles, i took 0 of 2 payloads, o gave 0 of 2 payloads$"
    ):
        run_stream(Gate(), [1, 2], 2, max_cycles=9)


def test_a_driver_that_does_not_return_is_caught():
    async def endless(ctx):
        while True:
            await ctx.tick()

    with pytest.raises(TimeoutError, match=r"^In 9 cycles, the driver has not returned$"):
        run_stream(Wire(Q4_4), [1], 1, drive=endless, max_cycles=9)


def test_cycles_are_counted_to_the_last_payload():
    run_stream(Wire(Q4_4), [1] * 9, 9, max_cycles=9)
    with pytest.raises(TimeoutError):
        run_stream(Wire(Q4_4), [1] * 9, 9, max_cycles=8)


@pytest.mark.parametrize(
    "shape, payload, message",
    [
        (Q4_4, 128, r"^i: payload 1 is 128, outside Fixed\(width=8, frac=4\)$"),
        (range(10), 10, r"^i: payload 1 is 10, outside range\(0, 10\)$"),
        (2, -1, r"^i: payload 1 is -1, outside 2$"),
        (LANES, [0, -129, 0], r"^i: payload 1\[1\] is -129, outside Fixed\(width=8, frac=4\)$"),
        (LANES, [0, 0], r"^i: payload 1 has \[0, 1\], not \[0, 1, 2\]$"),
        (
            SHAPES["structure"][0],
            {"data": [0, 0, 300], "train": 1},
            r"^i: payload 1\['data'\]\[2\] is 300, outside",
        ),
        (
            SHAPES["structure"][0],
            {"data": [0, 0, 0]},
            r"^i: payload 1 has \['data'\], not \['data', 'train'\]$",
        ),
    ],
)
def test_refuses_what_the_simulator_would_wrap(shape, payload, message):
    good = next(payloads[0] for other, payloads in SHAPES.values() if other == shape)
    with pytest.raises(ValueError, match=message):
        run_stream(Wire(shape), [good, payload], 2)


def test_refuses_streams_that_are_not_there():
    with pytest.raises(ValueError, match=r"^'x' is no input stream; there are i$"):
        run_streams(Wire(Q4_4), {"x": [1]}, {"o": 1})
    with pytest.raises(ValueError, match=r"^'i' is no output stream; there are o$"):
        run_streams(Wire(Q4_4), {}, {"i": 1})


def test_refuses_a_stall_without_end():
    with pytest.raises(ValueError, match=r"^Stall must be a probability below 1, not 1$"):
        run_stream(Wire(Q4_4), [1], 1, stall=1)
