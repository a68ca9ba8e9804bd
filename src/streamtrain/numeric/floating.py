"""Floating-point formats: what the bits of a number mean, and their arithmetic in software.

All arithmetic is that of IEEE 754, rounded to nearest with ties to even, with two simplifications that
save gates:

- There are no subnormal numbers. As an operand one is read as zero of its sign, and a result that
  would be one becomes zero of its sign. Whether a result is that small is decided *after rounding*: it is
  rounded as if exponents had no limit, and what is then below the smallest normal number is zero.
- There is one NaN, positive and quiet (0x7FC00000 in FP32). Any NaN is understood, this one is given.

The functions on codes are the definition of what the gates compute. Those on float32 numbers are the
same arithmetic for loops that Numba compiles: they take arrays and, in compiled code, scalars.
"""

import re
from dataclasses import dataclass
from operator import index

import numpy as np
from amaranth import Cat, Const, Signal, unsigned
from amaranth.hdl import ShapeCastable

from streamtrain.jit import jitable
from streamtrain.records import Record

__all__ = [
    "BF16",
    "FP16",
    "FP32",
    "SMALLEST",
    "Fields",
    "Float",
    "delayed",
    "give",
    "pack",
    "unpack",
]

_NAME = re.compile(r"float<\s*(\d+)\s*,\s*(\d+)\s*>")


@dataclass(frozen=True)
class Float(ShapeCastable, Record):
    """Binary floating point: a sign, ``exponent`` bits, and ``mantissa`` bits behind the point.

    A value is stored as a *code*, the unsigned integer of its bits, the sign on top. Every value of every
    format is one of float32, too. The format is also an Amaranth shape, as :class:`Fixed` is.

    Parameters
    ----------
    exponent : :class:`int`
        Bits of the exponent, 2 to 8.
    mantissa : :class:`int`
        Bits of the mantissa that are stored, 2 to 23.

    Raises
    ------
    ValueError
        If either is out of range.
    """

    exponent: int
    mantissa: int

    def __post_init__(self):
        object.__setattr__(self, "exponent", index(self.exponent))
        object.__setattr__(self, "mantissa", index(self.mantissa))
        if not 2 <= self.exponent <= 8:
            raise ValueError(f"Exponent must be 2 to 8 bits, not {self.exponent!r}")
        if not 2 <= self.mantissa <= 23:
            raise ValueError(f"Mantissa must be 2 to 23 bits, not {self.mantissa!r}")

    @classmethod
    def parse(cls, text):
        """Read a format by name: ``float<E,M>``, ``fp32``, ``bf16`` or ``fp16``.

        Raises :exc:`ValueError` if ``text`` is no such name.
        """
        if text.strip() in _NAMED:
            return _NAMED[text.strip()]
        match = _NAME.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"Format must be written float<exponent bits,mantissa bits>, such as float<8,23>, "
                f"or be one of {', '.join(_NAMED)}, not {text!r}"
            )
        return cls(int(match[1]), int(match[2]))

    def __contains__(self, other):
        """Whether it has all numbers of another format."""
        return other.exponent <= self.exponent and other.mantissa <= self.mantissa

    def __str__(self):
        return f"float<{self.exponent},{self.mantissa}>"

    # What Amaranth asks of a shape.

    def as_shape(self):
        return unsigned(self.width)

    def __call__(self, value):
        return value

    def const(self, code):
        return Const(code or 0, self.as_shape())

    def from_bits(self, code):
        return code

    # What software asks of a format.

    @property
    def name(self):
        """``fp32``, ``bf16``, ``fp16``; of other formats, ``float<E,M>``."""
        return next((name for name, fmt in _NAMED.items() if fmt == self), str(self))

    @property
    def width(self):
        """Bits of a code."""
        return 1 + self.exponent + self.mantissa

    @property
    def dtype(self):
        """NumPy's type of codes: ``uint16`` up to 16 bits, ``uint32`` beyond."""
        return np.dtype(np.uint16 if self.width <= 16 else np.uint32)

    @property
    def bias(self):
        """What is added to an exponent to store it."""
        return (1 << self.exponent - 1) - 1

    @property
    def infinity(self):
        """Code of plus infinity."""
        return (1 << self.exponent) - 1 << self.mantissa

    @property
    def nan(self):
        """Code of the one NaN that arithmetic gives."""
        return self.infinity | 1 << self.mantissa - 1

    @property
    def smallest(self):
        """The smallest value above zero."""
        return 2.0 ** (1 - self.bias)

    @property
    def lowest(self):
        """The smallest finite value."""
        return -self.highest

    @property
    def highest(self):
        """The largest finite value."""
        return (2 - 2.0**-self.mantissa) * 2.0**self.bias

    def encode(self, real):
        """Codes nearest to ``real``, ties to even; what is too large becomes infinity."""
        with np.errstate(invalid="ignore"):  # signalling NaN
            real = np.asarray(real, dtype=np.float64)
        code = pack(real, self.exponent, self.mantissa)
        return code.astype(self.dtype)

    def decode(self, code):
        """Values of ``code``, as float64."""
        value = unpack(np.asarray(code), self.exponent, self.mantissa)
        with np.errstate(invalid="ignore"):
            return value.astype(np.float64)

    def to_float32(self, code):
        """Values of ``code``, as float32."""
        if self != FP32:
            return unpack(np.asarray(code), self.exponent, self.mantissa)
        value = np.asarray(code, dtype=np.uint32).view(np.float32)
        with np.errstate(invalid="ignore"):
            return value * (np.abs(value) >= SMALLEST)

    def from_float32(self, value):
        """Codes nearest to float32 numbers: :meth:`encode`, quicker in FP32."""
        if self != FP32:
            return self.encode(value)
        value = np.asarray(value, dtype=np.float32)
        magnitude = np.abs(value)
        code = (value * (magnitude >= SMALLEST)).view(np.uint32)
        return np.where(np.isnan(magnitude), np.uint32(FP32.nan), code)


FP32 = Float(8, 23)
"""Single precision."""

BF16 = Float(8, 7)
"""The upper half of single precision."""

FP16 = Float(5, 10)
"""Half precision."""

SMALLEST = np.float32(FP32.smallest)

_NAMED = {"fp32": FP32, "bf16": BF16, "fp16": FP16}


# Conditions are multiplied with: that is the same in arrays and in compiled scalars.


@jitable
def pack(real, exponent, mantissa):
    """Codes of float64 numbers, rounded once, as int64."""
    bits = np.float64(real).view(np.int64)
    magnitude = bits & 0x7FFF_FFFF_FFFF_FFFF
    nan = np.int64(magnitude > 0x7FF0_0000_0000_0000)
    magnitude = np.minimum(magnitude, 0x7FF0_0000_0000_0000)
    drop = 52 - mantissa
    # Rounding up may carry into the exponent, which is right.
    code = (magnitude + ((1 << drop - 1) - 1) + (magnitude >> drop & 1)) >> drop
    code = code - (1024 - (1 << exponent - 1) << mantissa)
    infinity = (1 << exponent) - 1 << mantissa
    code = np.minimum(code, infinity) * np.int64(code >= 1 << mantissa)
    sign = np.int64(bits < 0) * (1 - nan)
    return code + nan * (1 << mantissa - 1) + (sign << exponent + mantissa)


@jitable
def unpack(code, exponent, mantissa):
    """Values of codes, as float32, which has them all."""
    code = np.int64(code)
    magnitude = code & (1 << exponent + mantissa) - 1
    infinity = (1 << exponent) - 1 << mantissa
    bits = magnitude + (128 - (1 << exponent - 1) << mantissa)
    bits = (bits << 23 - mantissa) * np.int64(magnitude >= 1 << mantissa)
    bits = bits | np.int64(magnitude >= infinity) * 0x7F80_0000
    return np.uint32(bits | code >> exponent + mantissa << 31).view(np.float32)


# -- Gates ----------------------------------------------------------------------------------------


class Fields:
    """A code's parts, as Amaranth values.

    Parameters
    ----------
    code : value
    fmt : :class:`Float`
    """

    def __init__(self, code, fmt):
        self.mantissa = code[: fmt.mantissa]
        self.exponent = code[fmt.mantissa : -1]
        self.magnitude = code[:-1]
        self.sign = code[-1]
        self.zero = ~self.exponent.any()  # a subnormal number is one, too
        self.top = self.exponent.all()  # infinity or NaN
        self.fraction = self.mantissa.any()


def delayed(m, enable, value, cycles, name):
    """``value`` some enabled cycles later."""
    for cycle in range(cycles):
        register = Signal.like(value, name=f"{name}{cycle}", reset_less=True)
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value


def give(m, unit, code, fmt, nan, infinite, zero):
    """The last register of a unit: ``code``, or NaN, infinity or zero instead, of the code's sign.

    At most one of these may be true. Most bits are put to 0 by their flip-flops, which takes no logic.
    """
    mantissa = Signal(fmt.mantissa - 1, reset_less=True)
    quiet = Signal(reset_less=True)  # the mantissa's highest bit
    exponent = Signal(fmt.exponent, reset_less=True)
    sign = Signal(reset_less=True)
    with m.If(unit.enable):
        m.d.sync += [
            mantissa.eq(code),
            quiet.eq(code[fmt.mantissa - 1] | nan),
            exponent.eq(code[fmt.mantissa :] | (nan | infinite).replicate(fmt.exponent)),
            sign.eq(code[-1] & ~nan),
        ]
        with m.If(nan | infinite | zero):
            m.d.sync += mantissa.eq(0)
        with m.If(infinite | zero):
            m.d.sync += quiet.eq(0)
        with m.If(zero):
            m.d.sync += exponent.eq(0)
    m.d.comb += unit.o.eq(Cat(mantissa, quiet, exponent, sign))
