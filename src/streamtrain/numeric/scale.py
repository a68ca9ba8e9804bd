"""Fixed-point products with a rate, in NumPy and in gates on the same page."""

import numpy as np
from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric.fixed import Fixed
from streamtrain.numeric.rounding import Round, requantize, requantize_codes

__all__ = ["RATE", "FixedScaler", "scale_saturating"]

RATE = Fixed(25, 24)
"""What a rate is, -1 to 1: the wider operand of a DSP slice."""


def scale_saturating(codes, rate, fmt):
    """Codes of a format times one of :data:`RATE`, rounded to the nearest and saturated."""
    product = np.multiply(codes, rate, dtype=np.int64)
    return requantize_codes(product, RATE.frac, fmt, Round.NEAREST)[0]


class FixedScaler(wiring.Component):
    """Product of a number and a rate, rounded to the nearest and saturated.

    Parameters
    ----------
    fmt : :class:`Fixed`
        Up to 38 bits.

    Attributes
    ----------
    latency : :class:`int`
        4 cycles.

    Members
    -------
    a : :py:`In(fmt)`
    b : :py:`In(RATE)`
    o : :py:`Out(fmt)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A product per cycle. ``o`` belongs to the operands of ``latency`` enabled cycles ago.
    """

    latency = 4

    def __init__(self, fmt):
        self.fmt = fmt
        if fmt.width + RATE.width > 63:
            raise ValueError(f"Numbers must have {63 - RATE.width} bits or less, not {fmt.width}")
        super().__init__({"a": In(fmt), "b": In(RATE), "o": Out(fmt), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        a, b = Signal.like(self.a, reset_less=True), Signal.like(self.b, reset_less=True)
        product = Signal(signed(self.fmt.width + RATE.width), reset_less=True)
        kept = Signal.like(product)
        value, _ = requantize(m, kept, RATE.frac, self.fmt, Round.NEAREST)
        with m.If(self.enable):
            m.d.sync += [
                a.eq(self.a), b.eq(self.b), product.eq(a * b), kept.eq(product), self.o.eq(value),
            ]  # fmt: skip
        return m
