"""Softmax cross-entropy, in gates.

With d = max z - z >= 0, the softmax is 2^(-d log2 e), normalised. The power of two is a table of its
fraction, shifted; the norm is one division.

Source: the gradient of cross-entropy after softmax is p - onehot(y) (e.g. Bishop, "Pattern
recognition and machine learning", 2006, equation 4.109).
"""

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

from streamtrain.host.device import LOSS_FRAC
from streamtrain.pipeline.gates import delayed, times_constant
from streamtrain.pipeline.plan import ceil_log2
from streamtrain.pipeline.rule import rule_members

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
_DIVISION_CYCLES = 9  # the sum is at least 2^15, so its reciprocal has at most 17 bits


class SoftmaxCrossEntropy(wiring.Component):
    """Softmax cross-entropy, as a rule of :class:`~streamtrain.pipeline.loss.ScoreLoss`.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    Those of :func:`~streamtrain.pipeline.rule.rule_members`.

    Timing
    ------
    With n classes, ``prepare`` takes n + 13 cycles, so that the first error follows the last score by
    n + 17.
    """

    def __init__(self, plan):
        self.plan = plan
        self.scores = plan.stages[-1].output
        self.classes = plan.network.classes
        self.frac = RECIPROCAL_BITS + 7
        super().__init__(rule_members(plan))

    def elaborate(self, platform):
        m = Module()
        # Powers: a pipeline of four registers, fed with one score per cycle.
        below = Signal(range(2**self.scores.width))  # how far a score is below the largest
        own_below = Signal.like(below)  # of the label
        m.d.comb += below.eq(self.largest - self.score)
        fed = delayed(m, self.next, 4, "fed")
        power = self._power(m, below)
        powers = [Signal(_EXP_BITS, name=f"power{n}") for n in range(self.classes)]
        total = Signal(_EXP_BITS + ceil_log2(self.classes))
        arrives = fed[-1]
        with m.If(arrives | (self.turn & ~self.collect & ~self.prepare)):
            line = [*powers[1:], Mux(arrives, power, powers[0])]
            m.d.sync += [to.eq(by) for to, by in zip(powers, line, strict=True)]
        with m.If(self.collect):
            m.d.sync += total.eq(0)
        with m.Elif(arrives):
            m.d.sync += total.eq(total + power)

        # The norm, by long division, two bits in a cycle, and times the mantissa as its bits come;
        # meanwhile the loss. All digits are tried at once, and the one that is found goes into the norm
        # in the next cycle.
        remainder, division = Signal.like(total), Signal(range(_DIVISION_CYCLES))
        norm, digit, found = Signal(24), Signal(2), Signal()
        thrice = Signal(len(total) + 2)
        mantissa, mantissa_thrice = self.token.mantissa, Signal(len(self.token.mantissa) + 2)
        m.d.sync += [thrice.eq(total + (total << 1)), mantissa_thrice.eq(mantissa + (mantissa << 1))]
        four = Cat(Const(0, 2), remainder)
        next_remainder, next_digit = four, Const(0)
        for number, product in ((1, total), (2, total << 1), (3, thrice)):
            left = Signal(signed(len(thrice) + 1), name=f"left{number}")
            m.d.comb += left.eq(four - product)
            fits = ~left[-1]
            next_remainder = Mux(fits, left, next_remainder)
            next_digit = Mux(fits, number, next_digit)
        share = Mux(digit[0], Mux(digit[1], mantissa_thrice, mantissa), Mux(digit[1], mantissa << 1, 0))
        m.d.comb += self.a.eq(Mux(found, Cat(Const(0, 2), norm) + share, norm))
        m.d.sync += [norm.eq(self.a), found.eq(0)]
        self._log_loss(m, total, own_below)

        with m.FSM():
            with m.State("powers"), m.If(self.prepare):
                m.d.comb += self.next.eq(1)
                with m.If(self.own):
                    m.d.sync += own_below.eq(below)
                with m.If(self.last):
                    m.next = "sum"
            with m.State("sum"):
                m.d.sync += [
                    remainder.eq(1 << RECIPROCAL_BITS - 2 * _DIVISION_CYCLES),
                    norm.eq(0),
                    division.eq(0),
                    thrice.eq(-1),  # it follows the sum by a cycle: the first digit is never 3
                ]
                with m.If(~Cat(fed[:-1]).any()):
                    m.next = "divide"
            with m.State("divide"):
                m.d.sync += [
                    remainder.eq(next_remainder),
                    digit.eq(next_digit),
                    found.eq(1),
                    division.eq(division + 1),
                ]
                with m.If(division == _DIVISION_CYCLES - 1):
                    m.d.comb += self.ready.eq(1)
                    m.next = "powers"

        target = Cat(Const(0, RECIPROCAL_BITS), self.token.mantissa, Const(0, 1))
        m.d.comb += [
            self.b.eq(powers[0]),
            self.difference.eq(self.product - Mux(self.product_own, target, 0)),
        ]
        return m

    def _power(self, m, below):
        """2^-below of what ``below`` was four cycles ago."""
        below_held, power = Signal.like(below), Signal(_EXP_BITS)
        dropped = self.scores.frac + 12 - INDEX_BITS  # bits
        half = 1 << dropped - 1 if dropped > 0 else 0  # rounds to the nearest
        scaled = times_constant(below_held, LOG2_E, plus=half).shift_right(dropped)
        most = (2 ** len(below) - 1) * LOG2_E + half
        exponent = Signal(max(most.bit_length() - dropped, INDEX_BITS + 2))
        m.submodules.exp_table = exp_table = Memory(
            shape=unsigned(_EXP_BITS), depth=2**INDEX_BITS, init=EXP_TABLE.tolist()
        )
        exp = exp_table.read_port()
        # The table's answer comes late in a cycle: half of the shift follows in the next one.
        halvings, fours = Signal(len(exponent) - INDEX_BITS), Signal(2)
        m.d.comb += exp.addr.eq(exponent[:INDEX_BITS])
        m.d.sync += [
            below_held.eq(below),
            exponent.eq(scaled),
            halvings.eq(exponent[INDEX_BITS:]),
            power.eq(Mux(halvings >= _EXP_BITS, 0, exp.data >> halvings[:2])),
            fours.eq(halvings[2:]),
        ]
        return power >> (fours << 2)

    def _log_loss(self, m, total, own_below):
        """``ln(sum / 2^15) + d`` of the label, a few cycles after the sum is there."""
        m.submodules.log_table = log_table = Memory(
            shape=unsigned(LOSS_FRAC), depth=2**INDEX_BITS, init=LOG_TABLE.tolist()
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
        m.d.comb += [self.loss.eq(natural + own), self.loss_valid.eq(total != 0)]
