"""Softmax cross-entropy, in gates.

With d = max z - z >= 0, the softmax is 2^(-d log2 e), normalised. The power of two is a table of its
fraction, shifted; the norm is one division.

Source: the gradient of cross-entropy after softmax is p - onehot(y) (e.g. Bishop, "Pattern
recognition and machine learning", 2006, equation 4.109).
"""

import numpy as np
from amaranth import Cat, Const, Mux, Signal, unsigned
from amaranth.lib.memory import Memory

from streamtrain.host.device import LOSS_FRAC, Op
from streamtrain.numeric import Round, round_value
from streamtrain.pipeline.gates import delayed
from streamtrain.pipeline.loss import ScoreLoss, times_constant
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


class SoftmaxCrossEntropy(ScoreLoss):
    """Softmax cross-entropy: its loss, predicted class, and the errors of the class scores.

    Parameters and members are those of :class:`~streamtrain.pipeline.loss.ScoreLoss`.

    Timing
    ------
    With n classes, the first error follows the last score by n + 29 cycles, one more each cycle;
    then the result.
    """

    begins = "powers"

    def _lines(self, s):
        s.powers = [Signal(_EXP_BITS, name=f"power{n}") for n in range(self.classes)]
        s.turn_powers = Signal(name="turn_powers")
        s.next_power = Signal(_EXP_BITS, name="next_power")
        return [(s.turn_powers, s.powers, s.next_power)]

    def _compute(self, m, s):
        # Powers: a pipeline of four registers, fed with one score per cycle.
        s.feed = Signal()
        s.below = below = Signal(
            range(2**self.scores.width)
        )  # how far a score is below the largest
        m.d.comb += below.eq(s.largest - s.scores[0])
        s.own_below = Signal.like(below)  # of the label
        s.total = total = Signal(_EXP_BITS + ceil_log2(self.classes))
        s.fed = fed = delayed(m, s.feed, 4, "fed")
        below_held = Signal.like(below)
        scaled = round_value(
            Cat(times_constant(below_held, LOG2_E), Const(0, 1)).as_signed(),
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
        m.d.comb += s.next_power.eq(Mux(fed[4], power, s.powers[0]))
        with m.If(fed[4]):
            m.d.comb += s.turn_powers.eq(1)
            m.d.sync += total.eq(total + power)

        # The norm, by long division; meanwhile the loss.
        s.remainder = remainder = Signal(len(total) + 1)
        s.quotient = Signal(_QUOTIENT_BITS)
        s.doubled = doubled = Cat(Const(0, 1), remainder)
        s.fits = doubled >= total
        s.division = Signal(range(_QUOTIENT_BITS))
        self._log_loss(m, total, s.own_below, s.loss)

        s.factor, s.operand, s.turn = s.quotient, s.powers[0], s.turn_powers
        s.frac = RECIPROCAL_BITS + 7
        s.done = None

    def _difference(self, m, s):
        target = Cat(Const(0, RECIPROCAL_BITS), s.token.mantissa, Const(0, 1))
        return s.product - Mux(s.hits[1], target, 0)

    def _during(self, m, s, state):
        if state == "collect":
            m.d.sync += s.total.eq(0)

    def _states(self, m, s):
        with m.State("powers"):
            m.d.comb += [s.feed.eq(1), s.step.eq(1), s.turn_scores.eq(1)]
            with m.If(s.number == s.token.label):
                m.d.sync += s.own_below.eq(s.below)
            with m.If(s.last):
                m.next = "sum"
        with m.State("sum"):
            m.d.sync += [
                s.remainder.eq(1 << RECIPROCAL_BITS - _QUOTIENT_BITS),
                s.division.eq(0),
            ]
            with m.If(~Cat(s.fed).any()):
                m.next = "divide"
        with m.State("divide"):
            m.d.sync += [
                s.remainder.eq(Mux(s.fits, s.doubled - s.total, s.doubled)),
                s.quotient.eq(Cat(s.fits, s.quotient)),
                s.division.eq(s.division + 1),
                s.wait.eq(0),
            ]
            with m.If(s.division == _QUOTIENT_BITS - 1):
                m.next = "scale"
                with m.If(s.token.op == Op.EVALUATE):
                    m.next = "result"

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
            natural.eq(times_constant(log_sum, LN_2) >> 12),
        ]
        with m.If(total != 0):
            m.d.sync += loss.eq(natural + own)
