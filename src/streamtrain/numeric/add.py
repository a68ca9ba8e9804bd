"""Floating-point sums, in NumPy and in gates on the same page."""

from itertools import pairwise

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.jit import jitable
from streamtrain.numeric.floating import FP32, SMALLEST, Fields, delayed, give

__all__ = ["FloatAdder", "add_codes", "add_float32"]


def add_codes(a, b, fmt):
    """Sums of codes of a format, rounded to that format.

    Parameters
    ----------
    a, b : integer arrays
    fmt : :class:`Float`
    """
    a, b = fmt.to_float32(a), fmt.to_float32(b)
    with np.errstate(all="ignore"):
        if fmt == FP32:
            return fmt.from_float32(add_float32(a, b))
        # float64 has more than twice the digits of both: rounding there first changes nothing.
        return fmt.encode(np.add(a, b, dtype=np.float64))


@jitable
def add_float32(a, b):
    """Sums of float32 numbers that are not subnormal: :func:`add_codes` of FP32.

    A sum that is subnormal is exact, so there is but one way to see whether it is too small.
    """
    return (a + b) * np.float32(np.abs(a + b) >= SMALLEST)


class FloatAdder(wiring.Component):
    """Sum of two numbers of one format, rounded once.

    Parameters
    ----------
    fmt : :class:`Float`

    Attributes
    ----------
    latency : :class:`int`
        6 cycles.

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

    latency = 6

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({"a": In(fmt), "b": In(fmt), "o": Out(fmt), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.fmt

        def then(value, name):
            return delayed(m, self.enable, value, 1, name)

        # 1. Which one is larger?
        a, b = Fields(self.a, fmt), Fields(self.b, fmt)
        swap = then(a.magnitude < b.magnitude, "swap")
        a_top, b_top = then(a.top, "a_top"), then(b.top, "b_top")
        a_fraction, b_fraction = then(a.fraction, "a_fraction"), then(b.fraction, "b_fraction")
        a_zero, b_zero = then(a.zero, "a_zero"), then(b.zero, "b_zero")
        a, b = Fields(then(self.a, "a"), fmt), Fields(then(self.b, "b"), fmt)

        # 2. The digits of the smaller one move down by the difference of the exponents, first by 0 to 7.
        exponent = Mux(swap, b.exponent, a.exponent)
        difference = Signal(max(6, fmt.exponent))
        m.d.comb += difference.eq(exponent - Mux(swap, a.exponent, b.exponent))
        moved = Cat(Const(0, 7), Mux(swap, a.mantissa, b.mantissa), Const(1, 1))
        moved = Mux(a.exponent[0] ^ b.exponent[0], moved >> 1, moved)
        moved = _one_of(difference[1:3], [moved >> 2 * n for n in range(4)])
        small = Signal(fmt.mantissa + 8, reset_less=True)
        with m.If(self.enable):
            m.d.sync += small.eq(moved)
            with m.If(difference[5:].any()):
                m.d.sync += small.eq(1)  # all it can do is to break a tie
            with m.If(a_zero | b_zero):
                m.d.sync += small.eq(0)
        subtract = a.sign ^ b.sign
        nan = a_top & a_fraction | b_top & b_fraction | a_top & b_top & subtract
        large = then(Mux(swap, b.mantissa, a.mantissa), "large")
        steps = then(difference[3:5], "steps")
        subtract = then(subtract, "subtract")
        exponent = then(exponent, "exponent2")
        flags = {
            "sign": Mux(swap, b.sign, a.sign),
            "zero_sign": a.sign & b.sign,
            "nan": nan,
            "infinite": (a_top | b_top) & ~nan,
            "zero": a_zero & b_zero,
        }
        flags = {name: then(flag, f"{name}2") for name, flag in flags.items()}

        # 3. Then by 0, 8, 16 or 24. What falls off below three more digits is gathered in the last of them.
        digits = fmt.mantissa + 4
        lowest = [5 + 8 * n for n in range(4)]
        parts = [small[low:high].any() for low, high in pairwise([0, *lowest])]
        first = Cat(Const(0, 3), large, Const(1, 2))
        second = Cat(
            (parts[0] | steps.any() & parts[1]) | (steps[1] & (parts[2] | steps[0] & parts[3])),
            _one_of(steps, [small[n:] for n in lowest]),
        )
        total = Signal(1 + digits + 1)  # below it is the carry in, above it a carry
        m.d.comb += total.eq(
            Cat(subtract, first) + (Cat(Const(0, 1), second) ^ subtract.replicate(len(total)))
        )
        digits += 1
        total = then(total[1:], "total")
        exponent = then(exponent, "exponent3")
        flags = {name: then(flag, f"{name}3") for name, flag in flags.items()}

        # 4. and 5. Leading zeros are removed: 0, 8, 16 or 24, then 0, 2, 4 or 6.
        coarse = _zeros(total, 8)
        shifted = _one_of(coarse, [(total << 8 * n)[:digits] for n in range(4)])
        coarse, shifted = then(coarse, "coarse"), then(shifted, "shifted4")
        exponent = then(exponent, "exponent4")
        flags = {name: then(flag, f"{name}4") for name, flag in flags.items()}
        fine = _zeros(shifted, 2)
        shifted = then(_one_of(fine, [(shifted << 2 * n)[:digits] for n in range(4)]), "shifted5")
        less = Signal(signed(max(fmt.exponent, 6) + 2))
        m.d.comb += less.eq(exponent - Cat(Const(0, 1), fine, coarse))
        exponent = then(less, "exponent5")
        flags = {name: then(flag, f"{name}5") for name, flag in flags.items()}

        # 6. Either of the top digits is the leading one now. If it is the higher, the exponent is one more.
        high, low = shifted[-1], shifted[-2]
        up = Mux(
            high,
            shifted[3] & (shifted[4] | shifted[:3].any()),
            shifted[2] & (shifted[3] | shifted[:2].any()),
        )
        mantissa = Mux(high, shifted[4:-1], shifted[3:-2])
        # Rounding up may carry into the exponent, which is right; below bit 0 is the carry in.
        kept = exponent[: fmt.exponent]
        rounded = Cat(Const(1, 1), Const(0, fmt.mantissa), kept) + Cat(up, mantissa, high)
        none = flags["zero"] | ~high & ~low
        finite = ~(flags["nan"] | flags["infinite"])
        too_large = high & (exponent == (1 << fmt.exponent) - 2)
        too_small = none | (exponent < 0) | ~high & (exponent == 0)
        sign = Mux(none & finite, flags["zero_sign"], flags["sign"])
        give(
            m,
            self,
            Cat(rounded[1 : fmt.width], sign),
            fmt,
            nan=flags["nan"],
            infinite=flags["infinite"] | finite & too_large,
            zero=finite & too_small,
        )
        return m


def _one_of(select, values):
    """That one of four values: one LUT a bit."""
    return Mux(
        select[1], Mux(select[0], values[3], values[2]), Mux(select[0], values[1], values[0])
    )


def _zeros(value, size):
    """How many groups of ``size`` digits are 0 at the top, up to three of them, in 2 bits."""
    at = [max(0, len(value) - n * size // 2) for n in range(7)]
    # In halves, of which a LUT finds out each: so there are but two LUTs one after the other.
    half = [~value[low:high].any() for high, low in pairwise(at)]
    one, two, three = half[0] & half[1], half[2] & half[3], half[4] & half[5]
    return Cat(one & (~two | three), one & two)
