"""Fixed-point formats: what the bits of a tensor mean."""

import re
from dataclasses import dataclass
from operator import index

import numpy as np
from amaranth import Const, signed
from amaranth.hdl import ShapeCastable

from streamtrain.records import Record

__all__ = ["Fixed"]

_NAME = re.compile(r"fixed<\s*(\d+)\s*,\s*(-?\d+)\s*>")


@dataclass(frozen=True)
class Fixed(ShapeCastable, Record):
    """Signed fixed point: ``width`` bits, ``frac`` of them below the binary point.

    A value is stored as an integer *code*, and ``value = code / 2**frac``. The format is also an
    Amaranth shape, so a stream can carry it and :func:`streamtrain.stream.connect` can refuse to
    join two streams whose bits mean different things.

    Parameters
    ----------
    width : :class:`int`
        Bits of a code, sign included, 2 to 64.
    frac : :class:`int`
        Bits below the binary point; may be negative or exceed ``width``.

    Raises
    ------
    ValueError
        If ``width`` is out of range.
    """

    width: int
    frac: int

    def __post_init__(self):
        object.__setattr__(self, "width", index(self.width))
        object.__setattr__(self, "frac", index(self.frac))
        if not 2 <= self.width <= 64:
            raise ValueError(f"Format width must be 2 to 64 bits, not {self.width!r}")

    @classmethod
    def parse(cls, text):
        """Read a format by name: ``fixed<W,I>`` has W bits, I of them (with the sign) integer.

        Raises :exc:`ValueError` if ``text`` is no such name.
        """
        match = _NAME.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"Format must be written fixed<width,integer bits>, such as fixed<16,3>, not {text!r}"
            )
        width, integer = int(match[1]), int(match[2])
        return cls(width, width - integer)

    def __str__(self):
        return f"fixed<{self.width},{self.width - self.frac}>"

    # What Amaranth asks of a shape.

    def as_shape(self):
        return signed(self.width)

    def __call__(self, value):
        # A lane of a view arrives as bare, unsigned bits.
        return value if value.shape().signed else value.as_signed()

    def const(self, code):
        return Const(code or 0, self.as_shape())

    def from_bits(self, code):
        return Const(code, self.as_shape()).value

    # What software asks of a format.

    @property
    def codes(self):
        """All codes, as a :class:`range`."""
        return range(-(1 << self.width - 1), 1 << self.width - 1)

    @property
    def lowest(self):
        """The smallest value."""
        return self.codes[0] / 2**self.frac

    @property
    def highest(self):
        """The largest value."""
        return self.codes[-1] / 2**self.frac

    def encode(self, real):
        """Codes nearest to ``real``, ties to even, saturated.

        Raises :exc:`ValueError` for NaN, which no code stands for.
        """
        real = np.asarray(real, dtype=np.float64)
        if np.isnan(real).any():
            where = tuple(int(i) for i in np.argwhere(np.isnan(real))[0])
            raise ValueError(f"Element {where} is NaN, which {self} cannot hold")
        with np.errstate(over="ignore"):  # infinity saturates as well
            code = np.rint(np.ldexp(real, self.frac))
        limit = 2.0 ** (self.width - 1)  # which float64 holds exactly, unlike the largest code
        low, high = code < -limit, code >= limit
        code = np.where(low | high, 0, code).astype(np.int64)
        return np.where(low, self.codes[0], np.where(high, self.codes[-1], code))

    def decode(self, code):
        """Values of ``code``, as float64."""
        return np.ldexp(np.asarray(code, dtype=np.float64), -self.frac)
