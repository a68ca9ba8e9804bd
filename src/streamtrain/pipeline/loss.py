"""Softmax cross-entropy: where the forward stream turns round.

With d = max z - z >= 0, the softmax is 2^(-d log2 e), normalised. The power of two is a table of its
fraction, shifted; the norm is one division; and the one multiplier makes the learning rate's
mantissa a factor of all errors.

Source: the gradient of cross-entropy after softmax is p - onehot(y) (e.g. Bishop, "Pattern
recognition and machine learning", 2006, equation 4.109).
"""

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.host.device import LOSS_FRAC, Op
from streamtrain.numeric import Lfsr, Round, lane_bits, requantize, round_value
from streamtrain.pipeline.gates import delayed
from streamtrain.pipeline.layouts import loss_token_layout, result_layout
from streamtrain.pipeline.plan import ceil_log2

__all__ = [
    "EXP_TABLE",
    "INDEX_BITS",
    "LN_2",
    "LOG2_E",
    "LOG_TABLE",
    "RECIPROCAL_BITS",
    "SoftmaxCrossEntropy",
]

INDEX_BITS = 10
"""Bits of a table's index."""

LOG2_E = 5909
"""log2(e), with 12 fractional bits."""

LN_2 = 2839
"""ln(2), with 12 fractional bits."""

RECIPROCAL_BITS = 31
"""The norm is ``floor(2**RECIPROCAL_BITS / sum)``."""

_INDEX = np.arange(2**INDEX_BITS) / 2**INDEX_BITS

EXP_TABLE = np.rint(2**15 * 2**-_INDEX).astype(np.int64)
"""2^-f for f in steps of 2^-10; 1 is 2^15."""

LOG_TABLE = np.rint(2**LOSS_FRAC * np.log2(1 + _INDEX + 0.5 / 2**INDEX_BITS)).astype(np.int64)
"""log2(1 + f) in the middle of each step of 2^-10, with 12 fractional bits."""

_EXP_BITS = 16  # of a table entry
_QUOTIENT_BITS = 17  # the sum is at least 2^15, its reciprocal at most 2^16


def _times(value, constant):
    """Product with a constant, as few shifted sums: a multiplier is not worth it."""
    total, place = None, 0
    while constant:
        digit = 0
        if constant & 1:  # the next two bits decide between adding and subtracting
            digit = 2 - (constant & 3)
            constant -= digit
            term = (value << place) if digit > 0 else -(value << place)
            total = term if total is None else total + term
        constant >>= 1
        place += 1
    return total


class SoftmaxCrossEntropy(wiring.Component):
    """Loss, predicted class, and the errors of the class scores.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    token : :py:`In(stream.Signature(loss_token_layout(plan)))`
        What to do with a sample: ``INFER`` gives scores, ``EVALUATE`` also the loss, ``TRAIN`` also the
        errors, times ``mantissa / 128``.
    i : :py:`In(stream.Signature(ArrayLayout(output format, 1)))`
        Class scores.
    o : :py:`Out(stream.Signature(ArrayLayout(errors format, 1)))`
        Errors of the class scores, in order.
    result : :py:`Out(stream.Signature(result_layout(plan)))`
    saturated : :py:`Out(32)`
        Errors saturated since reset.
    idle : :py:`Out(1)`
        No token is inside.

    Timing
    ------
    With n classes, the first error follows the last score by n + 29 cycles, one more each cycle;
    then the result.
    """

    def __init__(self, plan):
        self.plan = plan
        self.scores, self.errors = plan.stages[-1].output, plan.stages[-1].errors
        self.classes = plan.network.classes
        super().__init__({
            "token": In(stream.Signature(loss_token_layout(plan))),
            "i": In(stream.Signature(data.ArrayLayout(self.scores, 1))),
            "o": Out(stream.Signature(data.ArrayLayout(self.errors, 1))),
            "result": Out(stream.Signature(result_layout(plan))),
            "saturated": Out(32),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        classes = self.classes
        number = Signal(range(classes))
        last = number == classes - 1
        token = self.token.payload
        scores = [Signal(self.scores, name=f"score{n}") for n in range(classes)]
        powers = [Signal(_EXP_BITS, name=f"power{n}") for n in range(classes)]
        turn_scores, turn_powers = Signal(), Signal()
        next_score, next_power = Signal(self.scores), Signal(_EXP_BITS)
        for turn, line, new in (
            (turn_scores, scores, next_score),
            (turn_powers, powers, next_power),
        ):
            with m.If(turn):
                m.d.sync += [to.eq(value) for to, value in zip(line, [*line[1:], new], strict=True)]

        largest, predicted = Signal(self.scores), Signal(range(classes))
        loss = Signal(32)
        m.d.comb += [
            next_score.eq(Mux(self.i.ready, self.i.payload[0], scores[0])),
            self.result.payload.loss.eq(loss),
            self.result.payload.predicted.eq(predicted),
            *(self.result.payload.scores[n].eq(scores[n]) for n in range(classes)),
        ]
        step = Signal()
        with m.If(step):
            m.d.sync += number.eq(Mux(last, 0, number + 1))

        # Powers: a pipeline of four registers, fed with one score per cycle.
        feed = Signal()
        below = Signal(range(2**self.scores.width))  # how far a score is below the largest
        m.d.comb += below.eq(largest - scores[0])
        own_below = Signal.like(below)  # of the label
        total = Signal(_EXP_BITS + ceil_log2(classes))
        fed = delayed(m, feed, 4, "fed")
        below_held = Signal.like(below)
        scaled = round_value(
            Cat(_times(below_held, LOG2_E), Const(0, 1)).as_signed(),
            self.scores.frac + 12 - INDEX_BITS,
            Round.NEAREST,
        )
        exponent = Signal(len(scaled))
        m.submodules.exp_table = exp_table = Memory(
            shape=unsigned(_EXP_BITS), depth=2**INDEX_BITS, init=EXP_TABLE.tolist()
        )
        exp = exp_table.read_port()
        halvings = Signal(len(scaled) - INDEX_BITS)
        m.d.comb += exp.addr.eq(exponent[:INDEX_BITS])
        m.d.sync += [
            below_held.eq(below),
            exponent.eq(scaled),
            halvings.eq(exponent[INDEX_BITS:]),
        ]
        power = Signal(_EXP_BITS)
        m.d.sync += power.eq(Mux(halvings >= _EXP_BITS, 0, exp.data >> halvings[:4]))
        m.d.comb += next_power.eq(Mux(fed[4], power, powers[0]))
        with m.If(fed[4]):
            m.d.comb += turn_powers.eq(1)
            m.d.sync += total.eq(total + power)

        # The norm, by long division; meanwhile the loss.
        remainder = Signal(len(total) + 1)
        quotient = Signal(_QUOTIENT_BITS)
        doubled = Cat(Const(0, 1), remainder)
        fits = doubled >= total
        division = Signal(range(_QUOTIENT_BITS))
        self._log_loss(m, total, own_below, loss)

        # The one multiplier: three cycles from operands to product.
        a, b = Signal(25), Signal(18)
        a_held, b_held = Signal(signed(25), reset_less=True), Signal(signed(18), reset_less=True)
        product = Signal(signed(43), reset_less=True)
        go = Signal()
        with m.If(go):
            m.d.sync += [a_held.eq(a), b_held.eq(b), product.eq(a_held * b_held)]
        scaled_norm = Signal(24)
        drop = RECIPROCAL_BITS + 7 - self.errors.frac
        onehot = Signal()
        sending = [Signal(name=f"sending{n}") for n in range(3)]
        hits = [Signal(name=f"hit{n}", reset_less=True) for n in range(2)]
        difference = Signal(signed(44))
        m.d.comb += [
            onehot.eq(number == token.label),
            difference.eq(
                product
                - Mux(hits[1], Cat(Const(0, RECIPROCAL_BITS), token.mantissa, Const(0, 1)), 0)
            ),
        ]
        mode = self.plan.stages[-1].round_errors
        random = None
        if mode is Round.STOCHASTIC and drop > 0:
            m.submodules.lfsr = lfsr = Lfsr(self.plan.random_seed(self.plan.stages[-1], "errors"))
            m.d.comb += lfsr.advance.eq(go & sending[1])
            random = lane_bits(lfsr.state, 0, drop)
        error, clipped = requantize(m, difference, drop, self.errors, mode, random)
        m.d.comb += self.o.valid.eq(sending[2])

        m.d.comb += [self.idle.eq(0), go.eq(1)]
        wait = Signal(range(4))
        emitted = Signal()  # all classes are on their way
        with m.FSM():
            with m.State("collect"):
                m.d.comb += [
                    self.idle.eq(~self.token.valid),
                    self.i.ready.eq(self.token.valid),
                ]
                m.d.sync += total.eq(0)
                with m.If(self.i.valid & self.i.ready):
                    m.d.comb += [step.eq(1), turn_scores.eq(1)]
                    with m.If((number == 0) | (self.i.payload[0] > largest)):
                        m.d.sync += [largest.eq(self.i.payload[0]), predicted.eq(number)]
                    with m.If(last):
                        m.next = "powers"
                        with m.If(token.op == Op.INFER):
                            m.d.sync += loss.eq(0)
                            m.next = "result"
            with m.State("powers"):
                m.d.comb += [feed.eq(1), step.eq(1), turn_scores.eq(1)]
                with m.If(number == token.label):
                    m.d.sync += own_below.eq(below)
                with m.If(last):
                    m.next = "sum"
            with m.State("sum"):
                m.d.sync += [
                    remainder.eq(1 << RECIPROCAL_BITS - _QUOTIENT_BITS),
                    division.eq(0),
                ]
                with m.If(~Cat(fed).any()):
                    m.next = "divide"
            with m.State("divide"):
                m.d.sync += [
                    remainder.eq(Mux(fits, doubled - total, doubled)),
                    quotient.eq(Cat(fits, quotient)),
                    division.eq(division + 1),
                    wait.eq(0),
                ]
                with m.If(division == _QUOTIENT_BITS - 1):
                    m.next = "scale"
                    with m.If(token.op == Op.EVALUATE):
                        m.next = "result"
            with m.State("scale"):
                m.d.comb += [a.eq(quotient), b.eq(token.mantissa)]
                m.d.sync += [wait.eq(wait + 1), scaled_norm.eq(product), emitted.eq(0)]
                with m.If(wait == 2):
                    m.next = "errors"
            with m.State("errors"):
                m.d.comb += [
                    a.eq(scaled_norm),
                    b.eq(powers[0]),
                    go.eq(~self.o.valid | self.o.ready),
                ]
                with m.If(go):
                    m.d.comb += [step.eq(~emitted), turn_powers.eq(~emitted)]
                    m.d.sync += [
                        sending[0].eq(~emitted),
                        sending[1].eq(sending[0]),
                        sending[2].eq(sending[1]),
                        hits[0].eq(onehot),
                        hits[1].eq(hits[0]),
                        self.o.payload[0].eq(error),
                        self.saturated.eq(self.saturated + (clipped & sending[1])),
                    ]
                    with m.If(last):
                        m.d.sync += emitted.eq(1)
                    with m.If(emitted & ~Cat(sending[:2]).any()):
                        m.next = "result"
            with m.State("result"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.d.comb += self.token.ready.eq(1)
                    m.next = "collect"
        return m

    def _log_loss(self, m, total, own_below, loss):
        """``ln(sum / 2^15) + d`` of the label, a few cycles after the sum is there."""
        m.submodules.log_table = log_table = Memory(
            shape=unsigned(LOSS_FRAC + 1), depth=2**INDEX_BITS, init=LOG_TABLE.tolist()
        )
        log = log_table.read_port()
        whole, whole_held = Signal(range(len(total))), Signal(range(len(total)))
        fraction = Signal(INDEX_BITS)
        for place in range(_EXP_BITS - 1, len(total)):
            with m.If(total[place]):
                m.d.sync += [
                    whole.eq(place - (_EXP_BITS - 1)),
                    fraction.eq(total[place - INDEX_BITS : place]),
                ]
        log_sum = Signal(len(whole) + LOSS_FRAC + 1)
        own = own_below << max(0, LOSS_FRAC - self.scores.frac)
        own = own >> max(0, self.scores.frac - LOSS_FRAC)
        natural = Signal(len(log_sum) + 1)
        m.d.comb += log.addr.eq(fraction)
        m.d.sync += [
            whole_held.eq(whole),
            log_sum.eq((whole_held << LOSS_FRAC) + log.data),
            natural.eq(_times(log_sum, LN_2) >> 12),
        ]
        with m.If(total != 0):
            m.d.sync += loss.eq(natural + own)
