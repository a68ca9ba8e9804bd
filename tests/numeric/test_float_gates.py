# amaranth: UnusedElaboratable=no
"""Arithmetic in gates, as compiled simulation: the same codes as NumPy gives."""

import numpy as np
import pytest
from float_pairs import corners, hard_pairs, pairs, with_all
from streamed import Streamer

from streamtrain.numeric import (
    BF16,
    FP16,
    FP32,
    Fixed,
    FixedArithmetic,
    Float,
    FloatAdder,
    FloatArithmetic,
    FloatConverter,
    FloatMaximum,
    FloatMultiplier,
    MultiplyAdd,
    add_codes,
    arithmetic,
    convert_codes,
    maximum_codes,
    multiply_codes,
)

pytestmark = pytest.mark.xdist_group("units")  # compiled once, not by each worker

ODD = Float(8, 17)  # a multiplier of 18 by 16 and 18 by 2 bits
TINY = Float(3, 2)  # of which all pairs can be tried
CONVERSIONS = {
    (FP32, FP32): "fp32 widen",
    (FP32, BF16): "bf16 narrow",
    (FP32, FP16): "fp16 narrow",
    (BF16, FP32): "bf16 widen",
    (FP16, FP32): "fp16 widen",
    (FP16, BF16): "fp16 to bf16",
    (BF16, FP16): "bf16 to fp16",
}
KINDS = {kind.name: kind for kind in [
    *map(arithmetic, ("fp32", "bf16", "fp16", "fixed<16,4>", "fixed<18,9>", "fixed<8,1>")),
    FixedArithmetic(Fixed(16, 12), Fixed(34, 24)),
    FloatArithmetic(BF16, BF16),
]}  # fmt: skip
PARTS = ("multiplier", "adder", "narrow", "widen", "relu", "maximum")


ADDING = ("fp32", "bf16", "fixed<16,4>")


def named(name, part):
    """Name of a unit; all that add FP32 numbers are the same."""
    shared = part == "adder" and KINDS[name].accumulator == FP32
    return f"{'fp32' if shared else name} {part}"


@pytest.fixture(scope="module")
def multipliers():
    """Those that get the most operands: a model of few units is quick."""
    kinds = [KINDS[name] for name in ("fp32", "bf16", "fp16")]
    made = {f"{kind.name} multiplier": kind.multiplier() for kind in kinds}
    return Streamer(made | {"fp32 adder": KINDS["fp32"].adder()})


@pytest.fixture(scope="module")
def units():
    made = {
        named(name, part): getattr(kind, part)() for name, kind in KINDS.items() for part in PARTS
    }
    made |= {f"{name} multiply-add": MultiplyAdd(KINDS[name]) for name in ADDING}
    made |= {
        "fp16 sum": FloatAdder(FP16),
        "fp16 product": FloatMultiplier(FP16, FP16),
        "odd product": FloatMultiplier(ODD, ODD),
        "odd sum": FloatAdder(ODD),
        "tiny product": FloatMultiplier(TINY, TINY),
        "tiny sum": FloatAdder(TINY),
        "tiny maximum": FloatMaximum(TINY),
        "fp16 to bf16": FloatConverter(FP16, BF16),
        "bf16 to fp16": FloatConverter(BF16, FP16),
    }
    return Streamer(made)


def equal(found, expected):
    np.testing.assert_array_equal(found, np.asarray(expected).astype(np.int64))


# -- Every result is that of NumPy ----------------------------------------------------------------


def test_ten_million_fp32_products_and_sums(multipliers):
    for a, b in hard_pairs():
        equal(multipliers.run("fp32 multiplier", a, b)[0], multiply_codes(a, b, FP32, FP32))
        equal(multipliers.run("fp32 adder", a, b)[0], add_codes(a, b, FP32))


@pytest.mark.parametrize("fmt", [BF16, FP16], ids=lambda fmt: fmt.name)
def test_every_16_bit_number_is_multiplied_right(multipliers, fmt):
    for a, b in with_all(fmt):
        equal(multipliers.run(f"{fmt.name} multiplier", a, b)[0], multiply_codes(a, b, fmt, FP32))


@pytest.mark.parametrize(
    ("name", "fmt"), [("fp16", FP16), ("bf16+bf16", BF16), ("odd", ODD), ("tiny", TINY)]
)
def test_formats_that_are_rounded_to_themselves(units, name, fmt):
    product, total = ("multiplier", "adder") if "+" in name else ("product", "sum")
    a, b = pairs(fmt, 1_000_000, 5)
    if fmt == TINY:
        a, b = (side.ravel() for side in np.meshgrid(np.arange(64), np.arange(64)))
        largest, second = maximum_codes(a, b, fmt)
        found = units.run("tiny maximum", a, b)
        equal(found[0], largest)
        equal(found[1], second)
    equal(units.run(f"{name} {product}", a, b)[0], multiply_codes(a, b, fmt, fmt))
    equal(units.run(f"{name} {total}", a, b)[0], add_codes(a, b, fmt))


@pytest.mark.parametrize(("source", "target"), CONVERSIONS, ids=str)
def test_conversions(units, source, target):
    every = np.arange(1 << 16)
    if source == FP32:
        halfway = FP32.encode(target.decode(every)).astype(np.int64) + (1 << 22 >> target.mantissa)
        every = [*pairs(FP32, 500_000, 9), corners(FP32), halfway - 1, halfway, halfway + 1]
        every = np.concatenate(every) & 0xFFFFFFFF
    equal(units.run(CONVERSIONS[source, target], every)[0], convert_codes(every, source, target))


def operands(kind, count, seed):
    """Codes of operands and of accumulators, two of each."""
    if isinstance(kind.operand, Float):
        return *pairs(kind.operand, count, seed), *pairs(kind.accumulator, count, seed + 1)
    rng = np.random.default_rng(seed)
    found = []
    for fmt in (kind.operand, kind.accumulator):
        least, most = fmt.codes[0], fmt.codes[-1]
        limits = np.array([least, least + 1, -1, 0, 1, most - 1, most, least // 2, most // 2 + 1])
        for _ in range(2):
            # Of all sizes; the middle ones are those that an accumulator is narrowed from.
            some = rng.integers(least, most, count, endpoint=True) >> rng.integers(
                0, fmt.width, count
            )
            found.append(np.where(rng.random(count) < 0.1, rng.choice(limits, count), some))
    return found


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", KINDS)
def test_units_are_what_numpy_says_however_they_stall(units, name, stall):
    kind = KINDS[name]
    x, y, p, q = operands(kind, 20_000, 11)

    def unit(part, *codes):
        return units.run(named(name, part), *codes, stall=stall, seed=3)

    equal(unit("multiplier", x, y)[0], kind.multiply(x, y))
    equal(unit("adder", p, q)[0], kind.add(p, q))
    equal(unit("narrow", p)[0], kind.narrow_codes(p))
    equal(unit("widen", x)[0], kind.widen_codes(x))
    equal(unit("relu", x)[0], kind.relu_codes(x))
    largest, second = kind.maximum_codes(x, y)
    found = unit("maximum", x, y)
    equal(found[0], largest)
    equal(found[1], second)

    if name not in ADDING:
        return
    late = units.units[f"{name} multiply-add"].addend_latency
    expected = kind.add(kind.multiply(x, y)[:-late], p[late:])
    equal(units.run(f"{name} multiply-add", x, y, p, stall=stall)[0][:-late], expected)


# -- Fast enough ----------------------------------------------------------------------------------


def test_latencies_are_those_of_the_page(units):
    def latencies(name):
        return tuple(units.units[named(name, part)].latency for part in PARTS)

    assert latencies("fp32") == (5, 6, 1, 1, 1, 2)
    assert latencies("bf16") == latencies("fp16") == (4, 6, 2, 1, 1, 2)
    assert latencies("fixed<16,4>") == (3, 2, 2, 1, 1, 2)
    assert units.units["fp32 multiply-add"].latency == 11
