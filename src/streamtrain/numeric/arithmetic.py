# amaranth: UnusedElaboratable=no
# Units are also made to be asked for their latency only.

"""The arithmetic of a multiply-accumulate kernel, as one interface over floating and fixed point.

A kernel multiplies *operands* (activations, weights, errors) and adds up the products as *accumulators*, which
are rounded to operands when they are stored. What is written over this interface works with any number
format, in gates and in NumPy.
"""

from dataclasses import dataclass

import numpy as np
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric.add import FloatAdder, add_codes
from streamtrain.numeric.convert import (
    FloatConverter,
    FloatMaximum,
    FloatReLU,
    convert_codes,
    maximum_codes,
    relu_codes,
)
from streamtrain.numeric.fixed import Fixed
from streamtrain.numeric.floating import FP32, Float
from streamtrain.numeric.multiply import SLICE_DIGITS, FloatMultiplier, multiply_codes
from streamtrain.numeric.rounding import Round
from streamtrain.numeric.saturating import (
    FixedAdder,
    FixedMaximum,
    FixedMultiplier,
    FixedNarrower,
    FixedReLU,
    FixedWidener,
    add_saturating,
    narrow_saturating,
)
from streamtrain.numeric.scale import RATE, FixedScaler, scale_saturating
from streamtrain.records import Record

__all__ = ["Arithmetic", "FixedArithmetic", "FloatArithmetic", "MultiplyAdd", "arithmetic"]

_WIDE = {"xc7": 24, "xcup": 26, "ecp5": 18}
"""Bits of the wider operand of a family's multiplier, without a sign."""


class Arithmetic:
    """What a kernel is written over: formats, factories of their units, and the same on codes.

    Every unit is a component that takes operands in each enabled cycle and gives the result ``latency``
    enabled cycles later; without ``enable``, nothing in it moves. Ports are ``a`` and ``b``, or ``i``, and ``o``.

    ===============  ===============================================  ======================
    unit             what it does                                     on codes
    ===============  ===============================================  ======================
    ``multiplier``   operand times operand: an accumulator            ``multiply(a, b)``
    ``adder``        accumulator plus accumulator                     ``add(a, b)``
    ``narrow``       an accumulator as an operand, rounded            ``narrow_codes(codes)``
    ``widen``        an operand as an accumulator, exactly            ``widen_codes(codes)``
    ``relu``         an operand, or 0 if that is larger               ``relu_codes(codes)``
    ``maximum``      the larger operand; ``second``: it is ``b``      ``maximum_codes(a, b)``
    ``scaler``       accumulator times ``rate``: an accumulator       ``scale(a, b)``
    ===============  ===============================================  ======================

    ``encode`` and ``decode`` are those of the operand's format. ``maximum_codes`` returns the codes, and
    where it is ``b``.
    """

    operand: Float | Fixed
    accumulator: Float | Fixed | None
    rate: Float | Fixed
    """Format of what a gradient is scaled with."""

    def encode(self, real):
        """Operands nearest to real numbers."""
        return self.operand.encode(real)

    def decode(self, codes):
        """Real numbers of operands."""
        return self.operand.decode(codes)

    def multiplier_dsp(self, family):
        """DSP slices, or multiplier blocks, of a multiplier.

        Raises :exc:`ValueError` for a family that is not known here.
        """
        if family not in _WIDE:
            raise ValueError(f"family must be one of {', '.join(_WIDE)}, not {family!r}")
        return self._slices(_WIDE[family])


@dataclass(frozen=True)
class FloatArithmetic(Arithmetic, Record):
    """Floating point: products and sums are rounded to the accumulator's format.

    Parameters
    ----------
    operand : :class:`Float`
    accumulator : :class:`Float`
        Has all numbers of ``operand``.
    """

    operand: Float
    accumulator: Float = FP32

    def __post_init__(self):
        if self.operand not in self.accumulator:
            raise ValueError(
                f"Accumulators must have all numbers of {self.operand}, but {self.accumulator} has not"
            )

    @property
    def rate(self):
        return self.accumulator

    @property
    def name(self):
        """Such as ``bf16``; with accumulators other than FP32, such as ``bf16+bf16``."""
        added = "" if self.accumulator == FP32 else f"+{self.accumulator.name}"
        return self.operand.name + added

    def _slices(self, wide):
        digits = self.operand.mantissa + 1
        return 1 if digits <= SLICE_DIGITS else 2 * -(-digits // wide)

    def multiplier(self):
        return FloatMultiplier(self.operand, self.accumulator)

    def adder(self):
        return FloatAdder(self.accumulator)

    def narrow(self):
        return FloatConverter(self.accumulator, self.operand)

    def widen(self):
        return FloatConverter(self.operand, self.accumulator)

    def relu(self):
        return FloatReLU(self.operand)

    def maximum(self):
        return FloatMaximum(self.operand)

    def scaler(self):
        return FloatMultiplier(self.accumulator, self.accumulator)

    def multiply(self, a, b):
        return multiply_codes(a, b, self.operand, self.accumulator)

    def scale(self, a, b):
        return multiply_codes(a, b, self.accumulator, self.accumulator)

    def add(self, a, b):
        return add_codes(a, b, self.accumulator)

    def narrow_codes(self, codes):
        return convert_codes(codes, self.accumulator, self.operand)

    def widen_codes(self, codes):
        return convert_codes(codes, self.operand, self.accumulator)

    def relu_codes(self, codes):
        return relu_codes(codes, self.operand)

    def maximum_codes(self, a, b):
        return maximum_codes(a, b, self.operand)


@dataclass(frozen=True)
class FixedArithmetic(Arithmetic, Record):
    """Fixed point: products are exact, sums saturate, and operands are rounded to the nearest.

    The accumulator's default has 16 bits more than a product, so that no sum of 65,536 products saturates,
    whatever they are. With fewer bits, a sum that saturates depends on the order of its terms, which is
    the same in gates and in NumPy.

    Parameters
    ----------
    operand : :class:`Fixed`
        2 to 18 bits, none of them above the lowest bit of an integer.
    accumulator : :class:`Fixed`, optional
        Twice the operand's fractional bits, and at least twice its bits; up to 62.
    """

    operand: Fixed
    accumulator: Fixed | None = None

    def __post_init__(self):
        width, frac = self.operand.width, self.operand.frac
        if width > 18:
            raise ValueError(f"Operands must have 18 bits or less, as multipliers do, not {width}")
        if not 0 <= frac <= width + 16:
            raise ValueError(f"Operands must have 0 to {width + 16} fractional bits, not {frac}")
        if self.accumulator is None:
            object.__setattr__(self, "accumulator", Fixed(2 * width + 16, 2 * frac))
        least = max(2 * width, width + frac)
        if self.accumulator.frac != 2 * frac or not least <= self.accumulator.width <= 62:
            raise ValueError(
                f"Accumulators of {self.operand} must have {2 * frac} fractional bits (two times {frac}) "
                f"and {least} to 62 bits, not {self.accumulator.frac} and {self.accumulator.width}"
            )

    @property
    def rate(self):
        return RATE

    @property
    def name(self):
        """Such as ``fixed<16,4>``; with accumulators other than the default, theirs behind a plus."""
        default = FixedArithmetic(self.operand).accumulator
        added = "" if self.accumulator == default else f"+{self.accumulator}"
        return f"{self.operand}{added}"

    def _slices(self, wide):
        return 1

    def multiplier(self):
        return FixedMultiplier(self.operand, self.accumulator)

    def adder(self):
        return FixedAdder(self.accumulator)

    def narrow(self):
        return FixedNarrower(self.accumulator, self.operand, Round.NEAREST)

    def widen(self):
        return FixedWidener(self.operand, self.accumulator)

    def relu(self):
        return FixedReLU(self.operand)

    def maximum(self):
        return FixedMaximum(self.operand)

    def scaler(self):
        return FixedScaler(self.accumulator)

    def multiply(self, a, b):
        return np.multiply(a, b, dtype=np.int64)

    def scale(self, a, b):
        return scale_saturating(a, b, self.accumulator)

    def add(self, a, b):
        return add_saturating(a, b, self.accumulator)

    def narrow_codes(self, codes):
        return narrow_saturating(codes, self.accumulator, self.operand, Round.NEAREST)

    def widen_codes(self, codes):
        return np.asarray(codes, dtype=np.int64) << self.accumulator.frac - self.operand.frac

    def relu_codes(self, codes):
        return np.maximum(codes, 0)

    def maximum_codes(self, a, b):
        return np.maximum(a, b), np.greater(b, a)


def arithmetic(name):
    """Arithmetic by its operands' format: ``fp32``, ``bf16``, ``fp16``, ``float<5,10>``, ``fixed<16,4>``.

    Accumulators are the default ones. Raises :exc:`ValueError` if ``name`` is no format.
    """
    if name.strip().startswith("fixed"):
        return FixedArithmetic(Fixed.parse(name))
    return FloatArithmetic(Float.parse(name))


class MultiplyAdd(wiring.Component):
    """A product and a sum: ``o = a * b + c``, where the product is rounded as an accumulator first.

    Parameters
    ----------
    arithmetic : :class:`Arithmetic`

    Attributes
    ----------
    latency : :class:`int`
        Those of the multiplier and the adder.
    addend_latency : :class:`int`
        ``c`` is taken that many enabled cycles after ``a`` and ``b``: that of the multiplier.

    Members
    -------
    a, b : :py:`In(arithmetic.operand)`
    c : :py:`In(arithmetic.accumulator)`
    o : :py:`Out(arithmetic.accumulator)`
    enable : :py:`In(1)`
        Without it, nothing moves.

    Timing
    ------
    A result per cycle. ``o`` belongs to ``a`` and ``b`` of ``latency`` enabled cycles ago.
    """

    def __init__(self, arithmetic):
        self.arithmetic = arithmetic
        self._multiplier, self._adder = arithmetic.multiplier(), arithmetic.adder()
        self.addend_latency = self._multiplier.latency
        self.latency = self._multiplier.latency + self._adder.latency
        super().__init__({
            "a": In(arithmetic.operand),
            "b": In(arithmetic.operand),
            "c": In(arithmetic.accumulator),
            "o": Out(arithmetic.accumulator),
            "enable": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.multiplier = multiplier = self._multiplier
        m.submodules.adder = adder = self._adder
        m.d.comb += [
            multiplier.a.eq(self.a),
            multiplier.b.eq(self.b),
            multiplier.enable.eq(self.enable),
            adder.a.eq(multiplier.o),
            adder.b.eq(self.c),
            adder.enable.eq(self.enable),
            self.o.eq(adder.o),
        ]
        return m
