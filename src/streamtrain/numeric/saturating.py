"""Fixed-point products and sums that saturate, in NumPy and in gates on the same page."""

import numpy as np
from amaranth import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric.floating import delayed
from streamtrain.numeric.rounding import Round, requantize, requantize_codes, round_value

__all__ = [
    "FixedAdder",
    "FixedMaximum",
    "FixedMultiplier",
    "FixedNarrower",
    "FixedReLU",
    "FixedWidener",
    "add_saturating",
    "narrow_saturating",
]


def add_saturating(a, b, fmt):
    """Sums of codes of a format; what is out of its range becomes the largest or smallest code."""
    total = np.add(a, b, dtype=np.int64)
    return np.clip(total, fmt.codes[0], fmt.codes[-1])


def narrow_saturating(codes, source, target, mode):
    """Codes of one format as those of another one with fewer fractional bits, rounded and saturated."""
    return requantize_codes(codes, source.frac - target.frac, target, mode)[0]


class FixedMultiplier(wiring.Component):
    """Exact product of two numbers of one format.

    Parameters
    ----------
    operand : :class:`Fixed`
    result : :class:`Fixed`
        Has twice the fractional bits, and at least twice the bits.

    Attributes
    ----------
    latency : :class:`int`
        3 cycles: the registers of a DSP slice.

    Members
    -------
    a, b : :py:`In(operand)`
    o : :py:`Out(result)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A product per cycle. ``o`` belongs to the operands of ``latency`` enabled cycles ago.
    """

    latency = 3

    def __init__(self, operand, result):
        self.operand = operand
        self.result = result
        super().__init__({"a": In(operand), "b": In(operand), "o": Out(result), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        a = delayed(m, self.enable, self.a, 1, "a")
        b = delayed(m, self.enable, self.b, 1, "b")
        m.d.comb += self.o.eq(delayed(m, self.enable, a * b, 2, "product"))
        return m


class FixedAdder(wiring.Component):
    """Sum of two numbers of one format, saturated: :func:`add_saturating` in gates.

    Parameters
    ----------
    fmt : :class:`Fixed`

    Attributes
    ----------
    latency : :class:`int`
        2 cycles.

    Members
    -------
    a, b : :py:`In(fmt)`
    o : :py:`Out(fmt)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A sum per cycle. ``o`` belongs to the operands of ``latency`` enabled cycles ago.
    """

    latency = 2

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({"a": In(fmt), "b": In(fmt), "o": Out(fmt), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        total = delayed(m, self.enable, self.a + self.b, 1, "total")
        code, _ = requantize(m, total, 0, self.fmt, Round.TRUNCATE)
        m.d.comb += self.o.eq(delayed(m, self.enable, code, 1, "code"))
        return m


class FixedNarrower(wiring.Component):
    """A number with fewer bits, rounded and saturated: :func:`narrow_saturating` in gates.

    Parameters
    ----------
    source, target : :class:`Fixed`
    mode : :class:`Round`

    Attributes
    ----------
    latency : :class:`int`
        2 cycles.

    Members
    -------
    i : :py:`In(source)`
    o : :py:`Out(target)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A number per cycle. ``o`` belongs to ``i`` of ``latency`` enabled cycles ago.
    """

    latency = 2

    def __init__(self, source, target, mode):
        self.source = source
        self.target = target
        self.mode = mode
        super().__init__({"i": In(source), "o": Out(target), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        rounded = round_value(self.i, self.source.frac - self.target.frac, self.mode)
        rounded = delayed(m, self.enable, rounded, 1, "rounded")
        code, _ = requantize(m, rounded, 0, self.target, Round.TRUNCATE)
        m.d.comb += self.o.eq(delayed(m, self.enable, code, 1, "code"))
        return m


class FixedWidener(wiring.Component):
    """The same number with more fractional bits.

    Parameters
    ----------
    source, target : :class:`Fixed`

    Attributes
    ----------
    latency : :class:`int`
        1 cycle.

    Members
    -------
    i : :py:`In(source)`
    o : :py:`Out(target)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A number per cycle. ``o`` belongs to ``i`` of the last enabled cycle.
    """

    latency = 1

    def __init__(self, source, target):
        self.source = source
        self.target = target
        super().__init__({"i": In(source), "o": Out(target), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        i = delayed(m, self.enable, self.i, 1, "i")
        m.d.comb += self.o.eq(i << self.target.frac - self.source.frac)
        return m


class FixedMaximum(wiring.Component):
    """The larger one of two numbers.

    Parameters
    ----------
    fmt : :class:`Fixed`

    Attributes
    ----------
    latency : :class:`int`
        2 cycles.

    Members
    -------
    a, b : :py:`In(fmt)`
    o : :py:`Out(fmt)`
    second : :py:`Out(1)`
        It is ``b``; of two equal numbers it is ``a``.
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A number per cycle. Outputs belong to the operands of ``latency`` enabled cycles ago.
    """

    latency = 2

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({
            "a": In(fmt),
            "b": In(fmt),
            "o": Out(fmt),
            "second": Out(1),
            "enable": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        second = delayed(m, self.enable, self.b > self.a, 1, "less")
        a = delayed(m, self.enable, self.a, 1, "a")
        b = delayed(m, self.enable, self.b, 1, "b")
        with m.If(self.enable):
            m.d.sync += [self.o.eq(Mux(second, b, a)), self.second.eq(second)]
        return m


class FixedReLU(wiring.Component):
    """The larger one of a number and 0.

    Parameters
    ----------
    fmt : :class:`Fixed`

    Attributes
    ----------
    latency : :class:`int`
        1 cycle.

    Members
    -------
    i : :py:`In(fmt)`
    o : :py:`Out(fmt)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A number per cycle. ``o`` belongs to ``i`` of the last enabled cycle.
    """

    latency = 1

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({"i": In(fmt), "o": Out(fmt), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.o.eq(Mux(self.i[-1], 0, self.i))
        return m
