"""From floating point to fixed point and back, in gates; in NumPy that is ``encode`` of ``decode``."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric.floating import Fields, delayed

__all__ = ["FixedToFloat", "FloatToFixed"]


class FloatToFixed(wiring.Component):
    """The nearest code of a fixed-point format, ties to even, saturated; NaN becomes zero.

    Parameters
    ----------
    source : :class:`Float`
    target : :class:`Fixed`

    Attributes
    ----------
    latency : :class:`int`
        3 cycles.

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

    latency = 3

    def __init__(self, source, target):
        self.source = source
        self.target = target
        super().__init__({"i": In(source), "o": Out(target), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        source, width = self.source, self.target.width
        i = Fields(self.i, source)
        # The mantissa's leading one is one place above the largest code's. From there it goes to the
        # right, with as many places behind the last one again, which only decide how it is rounded.
        digits = max(width, source.mantissa + 1)
        above = width - 1 - self.target.frac + source.bias  # the exponent of that place
        right = Signal(signed(source.exponent + 2), reset_less=True)
        mantissa = Signal(digits, reset_less=True)
        large, shifted = Signal(reset_less=True), Signal(2 * digits, reset_less=True)
        sticky = Signal(reset_less=True)
        with m.If(self.enable):
            m.d.sync += [
                right.eq(above - i.exponent),
                mantissa.eq(Cat(i.mantissa, ~i.zero) << digits - 1 - source.mantissa),
                large.eq(Mux(i.top, ~i.fraction, (i.exponent >= above) & ~i.zero)),
            ]
            with m.If(i.zero | i.top & i.fraction):
                m.d.sync += mantissa.eq(0)
            wide = Cat(Const(0, digits), mantissa)
            far = right > 2 * digits - 1
            m.d.sync += [
                shifted.eq(Mux(far, 0, wide >> right[: (2 * digits - 1).bit_length()])),
                sticky.eq(far & mantissa.any()),
            ]
        sign = delayed(m, self.enable, i.sign, 2, "sign")
        too_large = delayed(m, self.enable, large, 1, "large")
        drop = 2 * digits - width
        kept, half, rest = shifted[drop:], shifted[drop - 1], shifted[: drop - 1].any() | sticky
        rounded, limit = Signal(width + 1), 1 << width - 1
        m.d.comb += rounded.eq(kept + (half & (rest | kept[0])))
        code = Mux(sign, -rounded.as_signed(), rounded.as_signed())
        over = too_large | (rounded >= limit)
        with m.If(self.enable):
            m.d.sync += self.o.eq(Mux(over, Mux(sign, -limit, limit - 1), code))
        return m


class FixedToFloat(wiring.Component):
    """The nearest number of a floating-point format, ties to even; what would be subnormal is zero.

    Parameters
    ----------
    source : :class:`Fixed`
        All its numbers must be within the target's range.
    target : :class:`Float`

    Attributes
    ----------
    latency : :class:`int`
        3 cycles.

    Members
    -------
    i : :py:`In(source)`
    o : :py:`Out(target)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A number per cycle. ``o`` belongs to ``i`` of ``latency`` enabled cycles ago.

    Raises
    ------
    ValueError
        If the largest number of ``source`` is infinite in ``target``.
    """

    latency = 3

    def __init__(self, source, target):
        self.source = source
        self.target = target
        if -source.lowest > target.highest:
            raise ValueError(f"{source} reaches {source.lowest}, beyond the range of {target}")
        super().__init__({"i": In(source), "o": Out(target), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        target, width = self.target, self.source.width
        size = Signal(width, reset_less=True)
        zeros, digits = Signal(range(width + 1)), Signal(width, reset_less=True)
        lead = Signal(range(width + 1), reset_less=True)
        for place in range(width):  # the highest one that is set comes last
            with m.If(size[place]):
                m.d.comb += zeros.eq(width - 1 - place)
        with m.If(self.enable):
            m.d.sync += [
                size.eq(Mux(self.i[-1], -self.i, self.i)),
                digits.eq(size << zeros),
                lead.eq(zeros),
            ]
        sign = delayed(m, self.enable, self.i[-1], 2, "sign")
        # Below the leading one is the mantissa; rounding up may carry into the exponent, which is right.
        padded = Cat(Const(0, target.mantissa + 2), digits[:-1])
        at = len(padded) - target.mantissa
        kept, half, rest = padded[at:], padded[at - 1], padded[: at - 1].any()
        exponent = Signal(signed(target.exponent + 2))
        m.d.comb += exponent.eq(target.bias + width - 1 - self.source.frac - lead)
        code = Signal(signed(target.width + 2))
        m.d.comb += code.eq((exponent << target.mantissa) + kept + (half & (rest | kept[0])))
        tiny = ~digits[-1] | (code < 1 << target.mantissa)
        with m.If(self.enable):
            m.d.sync += self.o.eq(Cat(Mux(tiny, 0, code)[: target.width - 1], sign & digits[-1]))
        return m
