"""From one floating-point format to another, the larger of two numbers, and ReLU, in NumPy and in gates."""

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric.floating import Fields, delayed, give

__all__ = [
    "FloatConverter",
    "FloatMaximum",
    "FloatReLU",
    "convert_codes",
    "maximum_codes",
    "relu_codes",
]


def convert_codes(codes, source, target):
    """Codes of one format as those of another one, rounded.

    Parameters
    ----------
    codes : integer array
    source, target : :class:`Float`
    """
    return target.encode(source.decode(codes))


def maximum_codes(a, b, fmt):
    """The larger one of each two numbers, and whether that is ``b``.

    0 is larger than -0; of two equal numbers it is ``a``. If there is a NaN, it is NaN, the first one.
    """
    a, b = convert_codes(a, fmt, fmt), convert_codes(b, fmt, fmt)

    def rank(codes):
        magnitude = (codes & (1 << fmt.width - 1) - 1).astype(np.int64)
        ranks = np.where(codes >> fmt.width - 1, -1 - magnitude, magnitude)
        return np.where(codes == fmt.nan, fmt.nan, ranks)  # above infinity

    second = rank(b) > rank(a)
    return np.where(second, b, a), second


def relu_codes(codes, fmt):
    """The larger one of each number and 0; NaN of NaN."""
    return maximum_codes(codes, np.zeros_like(codes), fmt)[0]


class FloatConverter(wiring.Component):
    """A number in another format, rounded if that has fewer bits.

    Parameters
    ----------
    source, target : :class:`Float`

    Attributes
    ----------
    latency : :class:`int`
        1 cycle if the target has all the source's numbers; otherwise 2.

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

    def __init__(self, source, target):
        self.source = source
        self.target = target
        self.latency = 1 if source in target else 2
        super().__init__({"i": In(source), "o": Out(target), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        source, target = self.source, self.target

        def then(value, name):
            return delayed(m, self.enable, value, self.latency - 1, name)

        i = Fields(self.i, source)
        # Zeros for what the target has in addition, and one for a digit that rounds.
        digits = Cat(Const(0, max(0, target.mantissa - source.mantissa) + 1), i.mantissa)
        at = len(digits) - target.mantissa
        exponent = Signal(signed(max(source.exponent, target.exponent) + 2))
        m.d.comb += exponent.eq(i.exponent + (target.bias - source.bias))
        code = Cat(digits[at:], exponent).as_signed()
        if self.latency == 2:
            up = digits[at - 1] & (digits[at] | digits[: at - 1].any())
            code = (Cat(Const(1, 1), code).as_signed() + Cat(up, Const(0, 1)).as_signed())[1:]
            code = code[: len(exponent) + target.mantissa]
        code = then(code, "code")
        nan = then(i.top & i.fraction, "nan")
        infinite = then(i.top & ~i.fraction, "infinite")
        zero = then(i.zero, "zero")
        sign = then(i.sign, "sign")
        if self.latency == 2:
            finite = ~(nan | infinite | zero)
            exponent = code[target.mantissa :].as_signed()
            infinite = infinite | finite & (exponent >= (1 << target.exponent) - 1)
            zero = zero | finite & (exponent <= 0)
        code = Cat(code[: target.width - 1], sign)
        give(m, self, code, target, nan=nan, infinite=infinite, zero=zero)
        return m


class FloatMaximum(wiring.Component):
    """The larger one of two numbers, as :func:`maximum_codes` has it.

    Parameters
    ----------
    fmt : :class:`Float`

    Attributes
    ----------
    latency : :class:`int`
        2 cycles.

    Members
    -------
    a, b : :py:`In(fmt)`
    o : :py:`Out(fmt)`
    second : :py:`Out(1)`
        It is ``b``.
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
        fmt = self.fmt

        def then(value, name):
            return delayed(m, self.enable, value, 1, name)

        a, b = Fields(self.a, fmt), Fields(self.b, fmt)
        less = then(a.magnitude < b.magnitude, "less")
        more = then(a.magnitude > b.magnitude, "more")
        a_zero, b_zero = then(a.zero, "a_zero"), then(b.zero, "b_zero")
        a_nan, b_nan = then(a.top & a.fraction, "a_nan"), then(b.top & b.fraction, "b_nan")
        a, b = Fields(then(self.a, "a"), fmt), Fields(then(self.b, "b"), fmt)
        both_zero = a_zero & b_zero
        larger = Mux(a.sign ^ b.sign, a.sign, ~both_zero & Mux(a.sign, more, less))
        second = Signal()
        m.d.comb += second.eq(~a_nan & (b_nan | larger))
        with m.If(self.enable):
            m.d.sync += self.second.eq(second)
        nan, zero = a_nan | b_nan, Mux(second, b_zero, a_zero)
        code = Mux(second, Cat(b.magnitude, b.sign), Cat(a.magnitude, a.sign))
        give(m, self, code, fmt, nan=nan, infinite=Const(0, 1), zero=~nan & zero)
        return m


class FloatReLU(wiring.Component):
    """The larger one of a number and 0, as :func:`relu_codes` has it.

    Parameters
    ----------
    fmt : :class:`Float`

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
        i = Fields(self.i, self.fmt)
        nan = i.top & i.fraction
        code = Cat(i.magnitude, Const(0, 1))
        zero = ~nan & (i.sign | i.zero)
        give(m, self, code, self.fmt, nan=nan, infinite=Const(0, 1), zero=zero)
        return m
