"""Floating-point products, in NumPy and in gates on the same page."""

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.jit import jitable
from streamtrain.numeric.floating import FP32, Fields, delayed, give

__all__ = ["SLICE_DIGITS", "FloatMultiplier", "multiply_codes", "multiply_float32"]

_SCALE = np.float32(2**24)
_SMALLEST_SCALED = np.float32(2**24 * FP32.smallest)

SLICE_DIGITS = 17
"""Bits of a DSP slice's narrower operand, without the sign."""


def multiply_codes(a, b, operand, result):
    """Products of codes of one format, rounded once to another one.

    Parameters
    ----------
    a, b : integer arrays
    operand, result : :class:`Float`
    """
    a, b = operand.to_float32(a), operand.to_float32(b)
    with np.errstate(all="ignore"):
        if result == FP32:
            return result.from_float32(multiply_float32(a, b))
        return result.encode(np.multiply(a, b, dtype=np.float64))  # of 24 bits each: exact


@jitable
def multiply_float32(a, b):
    """Products of float32 numbers that are not subnormal: :func:`multiply_codes` of FP32.

    Processors decide what is too small on the grid of subnormal numbers. A product 2**24 times as large is
    rounded as gates do.
    """
    scaled = a * _SCALE * b
    return a * b * np.float32(np.abs(scaled) >= _SMALLEST_SCALED)


class FloatMultiplier(wiring.Component):
    """Product of two numbers of one format, rounded once to another one.

    The mantissas are multiplied in one DSP slice, or in two from 18 bits on (with the leading one), of
    which the second adds up. Where the result has room for all bits of the product, as FP32 has for
    those of bfloat16 and FP16, nothing is rounded.

    Parameters
    ----------
    operand, result : :class:`Float`
        The result's format has all numbers of the operands'.

    Attributes
    ----------
    latency : :class:`int`
        4 cycles; 5 with two DSP slices.

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

    def __init__(self, operand, result):
        self.operand = operand
        self.result = result
        if operand not in result:
            raise ValueError(f"Products must have all numbers of {operand}, but {result} has not")
        self.latency = 4 if operand.mantissa < SLICE_DIGITS else 5
        super().__init__({"a": In(operand), "b": In(operand), "o": Out(result), "enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        operand, result = self.operand, self.result
        a, b = Fields(self.a, operand), Fields(self.b, operand)
        product, sticky = self._product(m, a.mantissa, b.mantissa)

        # Meanwhile: what kind of number it is, and its exponent, as if it were below 2.
        def then(value, name, cycles=1):
            return delayed(m, self.enable, value, cycles, name)

        rest = self.latency - 3
        sign = then(a.sign ^ b.sign, "sign", rest + 2)
        total = then(a.exponent + b.exponent, "total")
        a_zero, b_zero = then(a.zero, "a_zero"), then(b.zero, "b_zero")
        a_top, b_top = then(a.top, "a_top"), then(b.top, "b_top")
        a_fraction, b_fraction = then(a.fraction, "a_fraction"), then(b.fraction, "b_fraction")

        moved = result.bias - 2 * operand.bias
        smallest, greatest = 2 + moved, 2 * ((1 << operand.exponent) - 2) + moved
        exponent = Signal(range(moved, (2 << operand.exponent) + moved))
        m.d.comb += exponent.eq(total + moved)
        exponent = then(exponent, "exponent")
        nan = a_top & (a_fraction | b_zero) | b_top & (b_fraction | a_zero)
        infinite = then((a_top | b_top) & ~nan, "infinite")
        zero = then((a_zero | b_zero) & ~nan, "zero")
        nan = then(nan, "nan")

        finite = ~(nan | infinite | zero)
        lowest = highest = Const(0, 1)
        if smallest <= 0:
            zero = zero | finite & (exponent < 0)
            lowest = finite & (exponent == 0)
        if greatest >= (largest := (1 << result.exponent) - 2):
            infinite = infinite | finite & (exponent > largest)
            highest = finite & (exponent == largest)
        nan, infinite = then(nan, "nan2", rest), then(infinite, "infinite2", rest)
        zero = then(zero, "zero2", rest)
        lowest, highest = then(lowest, "lowest", rest), then(highest, "highest", rest)
        exponent = then(exponent[: result.exponent], "kept", rest)

        # Two digits are before the product's point. If the first one is not 0, it is the leading one.
        missing = max(0, result.mantissa + 3 - len(product))
        digits = Cat(Const(0, missing), product) if missing else product
        high = digits[-1]
        at = len(digits) - 2 - result.mantissa  # lowest digit of the smaller product's mantissa
        below = digits[: at - 1].any() | sticky
        up = Mux(
            high,
            digits[at] & (digits[at + 1] | digits[at - 1] | below),
            digits[at - 1] & (digits[at] | below),
        )
        mantissa = Mux(high, digits[at + 1 : -1], digits[at:-2])
        # Rounding up may carry into the exponent, which is right; below bit 0 is the carry in.
        rounded = Cat(Const(1, 1), Const(0, result.mantissa), exponent) + Cat(up, mantissa, high)
        becomes_one = ~high & digits[at - 1 : -2].all()  # the next larger power of 2, by rounding
        give(
            m,
            self,
            Cat(rounded[1 : result.width], sign),
            result,
            nan=nan,
            infinite=infinite | highest & high,
            zero=zero | lowest & ~high & ~becomes_one,
        )
        return m

    def _product(self, m, a, b):
        """The product of the mantissas with their leading ones, and whether a digit below it is not 0.

        The registers are those within DSP slices: two for the operands, one behind each multiplier and one
        behind each adder.
        """
        a, b = Cat(a, 1), Cat(b, 1)
        if len(b) <= SLICE_DIGITS:
            a = delayed(m, self.enable, a, 1, "a")
            b = delayed(m, self.enable, b, 1, "b")
            return delayed(m, self.enable, a * b, 2, "product"), Const(0, 1)
        cut = min(SLICE_DIGITS, len(b) - 2)
        a1 = delayed(m, self.enable, a, 1, "a_low")
        a2 = delayed(m, self.enable, a, 2, "a_high")
        low = delayed(m, self.enable, b[:cut], 1, "b_low")
        high = delayed(m, self.enable, b[cut:], 2, "b_high")
        first = delayed(m, self.enable, a1 * low, 2, "first")
        second = delayed(m, self.enable, a2 * high, 1, "second")
        total = Signal(2 * len(a) - cut, reset_less=True)
        sticky = Signal(reset_less=True)
        with m.If(self.enable):
            m.d.sync += [total.eq(second + (first >> cut)), sticky.eq(first[:cut].any())]
        return total, sticky
