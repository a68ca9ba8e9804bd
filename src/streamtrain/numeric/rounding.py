"""Rounding and saturation, in NumPy and in gates on the same page.

Every number in streamtrain is rounded in one visible place, by one of two functions of the same
meaning: :func:`requantize_codes` on arrays, :func:`requantize` on signals. Both take codes with
`shift` more fractional bits than the result, drop them as `Round` says, and saturate.
"""

from enum import Enum

import numpy as np
from amaranth import Cat, Const, Mux, Signal, signed

__all__ = ["Round", "requantize", "requantize_codes", "round_codes", "round_value"]


class Round(Enum):
    """How the dropped bits of a number decide its last kept bit."""

    NEAREST = "nearest"
    """To the nearest code, ties towards plus infinity: half an LSB is added, the rest dropped.
    In gates the half comes with an accumulator's initial value or as a carry, so it is free."""

    NEAREST_EVEN = "nearest_even"
    """To the nearest code, ties to the even one."""

    TRUNCATE = "truncate"
    """Towards minus infinity. Biased: harmless for activations, fatal for errors and weights."""

    STOCHASTIC = "stochastic"
    """Up with a probability of the dropped fraction: a random number from an
    :class:`~streamtrain.numeric.Lfsr` is added, the rest dropped."""


def round_codes(code, shift, mode, random=None):
    """Drop ``shift`` bits of integer codes.

    Parameters
    ----------
    code : integer array
    shift : :class:`int`
        Bits to drop; none if negative, then zeros are appended instead.
    mode : :class:`Round`
    random : integer array, optional
        For :attr:`Round.STOCHASTIC`: uniform in ``0 .. 2**shift - 1``, one for each code.
    """
    code = np.asarray(code, dtype=np.int64)
    if shift <= 0:
        return code << -shift
    if mode is Round.TRUNCATE:
        return code >> shift
    if mode is Round.NEAREST:
        return (code + (1 << shift - 1)) >> shift
    if mode is Round.NEAREST_EVEN:
        return (code + (1 << shift - 1) - 1 + (code >> shift & 1)) >> shift
    return (code + random) >> shift


def requantize_codes(code, shift, fmt, mode, random=None):
    """Drop ``shift`` bits and saturate to ``fmt``.

    Returns the new codes, and how many of them were saturated.
    """
    rounded = round_codes(code, shift, mode, random)
    clipped = np.clip(rounded, fmt.codes[0], fmt.codes[-1])
    return clipped, int(np.count_nonzero(clipped != rounded))


def round_value(value, shift, mode, random=None):
    """Drop ``shift`` bits of a signed Amaranth value: :func:`round_codes` in gates."""
    if shift <= 0:
        return Cat(Const(0, -shift), value).as_signed()
    if len(value) <= shift:  # keep a bit: the sign
        value = Cat(value, value[-1].replicate(shift + 1 - len(value))).as_signed()
    if mode is Round.TRUNCATE:
        return value[shift:].as_signed()
    if mode is Round.NEAREST:
        # One adder: the dropped part's top bit is the carry. (value >> 1 keeps it as the LSB.)
        half = value[shift - 1 :].as_signed()
        return (half + 1)[1:].as_signed()
    addend = (
        (1 << shift - 1) - 1 + value[shift] if mode is Round.NEAREST_EVEN else random[:shift]
    )
    return (value + addend)[shift:].as_signed()


def requantize(m, value, shift, fmt, mode, random=None):
    """Drop ``shift`` bits of a signed Amaranth value and saturate to ``fmt``.

    Parameters
    ----------
    m : :class:`Module`
        Where the intermediate signals are driven.
    value : signed value
    shift : :class:`int`
    fmt : :class:`Fixed`
    mode : :class:`Round`
    random : unsigned value, optional
        For :attr:`Round.STOCHASTIC`: at least ``shift`` bits.

    Returns the code, and a bit that says whether it was saturated.
    """
    rounded = round_value(value, shift, mode, random)
    width = len(rounded)
    if width <= fmt.width:
        return rounded, Const(0)
    wide = Signal(signed(width))
    sign = wide[-1]
    overflow = Signal()
    code = Signal(signed(fmt.width))
    m.d.comb += [
        wide.eq(rounded),
        overflow.eq((wide[fmt.width - 1 :].any()) & ~(wide[fmt.width - 1 :].all())),
        code.eq(Mux(overflow, Cat((~sign).replicate(fmt.width - 1), sign), wide[: fmt.width])),
    ]
    return code, overflow
