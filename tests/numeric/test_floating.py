from fractions import Fraction

import numpy as np
import pytest
from amaranth import Const, unsigned
from amaranth.hdl import Shape
from float_pairs import (
    codes16,
    codes32,
    corners,
    exact,
    exact_product,
    exact_sum,
    float32s,
    hard_pairs,
    pairs,
    parts,
    with_all,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtrain.numeric import (
    BF16,
    FP16,
    FP32,
    Float,
    add_codes,
    convert_codes,
    maximum_codes,
    multiply_codes,
    relu_codes,
)

NAMED = [FP32, BF16, FP16]
formats = st.sampled_from([
    *NAMED,
    Float(2, 2),
    Float(4, 3),
    Float(6, 9),
    Float(8, 17),
    Float(3, 23),
])


def codes(fmt):
    """Any codes, and those at the limits twice as often."""
    limits = st.sampled_from(corners(fmt).tolist())
    return limits | limits.map(lambda code: code ^ 1) | st.integers(0, (1 << fmt.width) - 1)


# -- The format -----------------------------------------------------------------------------------


def test_is_named():
    assert (str(FP32), str(BF16), str(FP16)) == ("float<8,23>", "float<8,7>", "float<5,10>")
    assert [fmt.name for fmt in (*NAMED, Float(4, 3))] == ["fp32", "bf16", "fp16", "float<4,3>"]
    assert [Float.parse(name) for name in ("fp32", " bf16", "fp16 ")] == NAMED
    assert Float.parse(" float< 4, 3> ") == Float(4, 3)


@given(formats)
def test_name_and_json_describe_it_completely(fmt):
    assert Float.parse(str(fmt)) == Float.parse(fmt.name) == fmt
    assert Float.from_json(fmt.to_json()) == fmt


@pytest.mark.parametrize("text", ["", "fp64", "float<8>", "fixed<8,3>", "float<8,23"])
def test_rejects_other_names(text):
    with pytest.raises(
        ValueError,
        match=r"^Format must be written float<exponent bits,mantissa bits>, such as float<8,23>, "
        rf"or be one of fp32, bf16, fp16, not '{text}'$",
    ):
        Float.parse(text)


@pytest.mark.parametrize(("exponent", "mantissa", "what"), [(1, 8, "Exp"), (9, 8, "Exp"), (8, 24, "Man"), (8, 1, "Man")])  # fmt: skip
def test_rejects_sizes(exponent, mantissa, what):
    with pytest.raises(ValueError, match=rf"^{what}\w+ must be 2 to \d+ bits, not \d+$"):
        Float(exponent, mantissa)
    with pytest.raises(TypeError):
        Float(8.0, 23)


def test_is_a_shape_of_bits():
    assert Shape.cast(BF16) == unsigned(16)
    assert isinstance(BF16.const(0x3F80), Const)
    assert (BF16.const(0x3F80).value, BF16.const(None).value) == (0x3F80, 0)
    assert BF16.from_bits(0xFFFF) == 0xFFFF


def test_limits_are_those_of_numpy():
    for fmt, info in ((FP32, np.finfo(np.float32)), (FP16, np.finfo(np.float16))):
        assert (fmt.highest, fmt.lowest, fmt.smallest) == (info.max, info.min, info.tiny)
    assert (BF16.infinity, BF16.nan, FP32.nan, FP16.nan) == (0x7F80, 0x7FC0, 0x7FC00000, 0x7E00)
    assert [fmt.dtype for fmt in NAMED] == [np.uint32, np.uint16, np.uint16]
    assert [fmt.bias for fmt in NAMED] == [127, 127, 15]


def test_formats_within_others():
    assert BF16 in FP32
    assert FP16 in FP32
    assert FP16 in FP16
    assert FP16 not in BF16
    assert BF16 not in FP16


# -- From and to real numbers ---------------------------------------------------------------------


@given(formats, st.floats())
def test_encodes_the_nearest_number(fmt, real):
    code = fmt.encode(real)
    if np.isnan(real):
        assert code == fmt.nan
    elif np.isinf(real):
        assert code == fmt.infinity | (real < 0) << fmt.width - 1
    else:
        assert code == exact(Fraction(real), fmt, int(np.signbit(real)))


@given(formats, st.data())
def test_decodes_what_bits_mean(fmt, data):
    code = data.draw(codes(fmt))
    kind, value, sign = parts(code, fmt)
    found = float(fmt.decode(code))
    if kind == "nan":
        assert np.isnan(found)
    elif kind == "infinity":
        assert found == (-np.inf if sign else np.inf)
    else:
        assert found == value
        assert np.signbit(found) == sign


@pytest.mark.parametrize("fmt", [BF16, FP16, Float(4, 3)], ids=str)
def test_every_code_survives_decoding(fmt):
    every = np.arange(1 << fmt.width)
    magnitude = every & (1 << fmt.width - 1) - 1
    expected = np.where(magnitude < 1 << fmt.mantissa, every - magnitude, every)
    expected[magnitude > fmt.infinity] = fmt.nan
    np.testing.assert_array_equal(fmt.encode(fmt.decode(every)), expected)
    np.testing.assert_array_equal(fmt.from_float32(fmt.to_float32(every)), expected)


def test_float32_goes_there_and_back():
    a, _ = pairs(FP32, 100_000, 0)
    a = np.concatenate([a, corners(FP32)])
    np.testing.assert_array_equal(FP32.to_float32(a), float32s(a, FP32))
    np.testing.assert_array_equal(
        FP32.from_float32(FP32.to_float32(a)), FP32.encode(FP32.decode(a))
    )
    assert FP32.from_float32(np.float32([1e-45, -1e-45, np.nan])).tolist() == [0, 1 << 31, FP32.nan]


# -- Arithmetic, against fractions ----------------------------------------------------------------


@settings(max_examples=500)
@given(formats, formats, st.data())
def test_products_are_exact_but_for_one_rounding(operand, result, data):
    a, b = data.draw(codes(operand)), data.draw(codes(operand))
    assert multiply_codes(a, b, operand, result) == exact_product(a, b, operand, result)


@settings(max_examples=500)
@given(formats, st.data())
def test_sums_are_exact_but_for_one_rounding(fmt, data):
    a, b = data.draw(codes(fmt)), data.draw(codes(fmt))
    assert add_codes(a, b, fmt) == exact_sum(a, b, fmt)


@settings(max_examples=300)
@given(formats, st.integers(0, 10**9))
def test_hard_pairs_are_right_in_every_format(fmt, seed):
    a, b = pairs(fmt, 6, seed)
    for x, y, product, total in zip(
        a.tolist(), b.tolist(), multiply_codes(a, b, fmt, fmt), add_codes(a, b, fmt), strict=True
    ):
        assert product == exact_product(x, y, fmt, fmt)
        assert total == exact_sum(x, y, fmt)


@settings(max_examples=300)
@given(formats, formats, st.data())
def test_conversion_is_one_rounding(source, target, data):
    code = data.draw(codes(source))
    kind, value, sign = parts(code, source)
    expected = {"nan": target.nan, "infinity": target.infinity | sign << target.width - 1}
    assert convert_codes(code, source, target) == expected.get(kind, exact(value, target, sign))


def test_what_is_too_small_is_decided_after_rounding():
    other = FP32.encode(2.0**-64)
    # (1 - 2**-24) * 2**-126 has 24 digits, so nothing is rounded. A processor, which has but 23 there, rounds up.
    a = FP32.encode((2 - 2.0**-23) * 2.0**-63)
    assert a.view(np.float32) * other.view(np.float32) == FP32.smallest
    assert multiply_codes(a, other, FP32, FP32) == 0
    assert multiply_codes(a ^ (1 << 31), other, FP32, FP32) == 1 << 31
    # (1 - 2**-26) * 2**-126 has more, and is rounded up.
    a, b = FP32.encode([(1 + 2.0**-13) * 2.0**-63, (1 - 2.0**-13) * 2.0**-63])
    assert FP32.decode(a) * FP32.decode(b) < FP32.smallest
    assert multiply_codes(a, b, FP32, FP32) == 1 << 23


# -- Arithmetic, against the processor ------------------------------------------------------------


def test_ten_million_products_and_sums_are_those_of_the_processor():
    for a, b in hard_pairs():
        x, y = float32s(a, FP32), float32s(b, FP32)
        with np.errstate(all="ignore"):
            product = codes32(np.multiply(x, y, dtype=np.float64))
            total = codes32((x + y).astype(np.float64))
        np.testing.assert_array_equal(multiply_codes(a, b, FP32, FP32), product)
        np.testing.assert_array_equal(add_codes(a, b, FP32), total)


@pytest.mark.parametrize("fmt", [BF16, FP16], ids=lambda fmt: fmt.name)
def test_every_16_bit_number_is_multiplied_and_added_right(fmt):
    for a, b in with_all(fmt):
        x, y = float32s(a, fmt), float32s(b, fmt)
        with np.errstate(all="ignore"):
            product = np.multiply(x, y, dtype=np.float64)
            expected, total = codes32(product), codes16(x + y, fmt)
        np.testing.assert_array_equal(multiply_codes(a, b, fmt, FP32), expected)
        np.testing.assert_array_equal(add_codes(a, b, fmt), total)


@pytest.mark.parametrize("fmt", [BF16, FP16], ids=lambda fmt: fmt.name)
def test_conversions_are_those_of_numpy_and_ml_dtypes(fmt):
    every = np.arange(1 << 16)
    with np.errstate(all="ignore"):
        expected = codes32(float32s(every, fmt).astype(np.float64))
    np.testing.assert_array_equal(convert_codes(every, fmt, FP32), expected)
    a, b = pairs(FP32, 500_000, 7)
    halfway = FP32.encode(fmt.decode(every)).astype(np.int64) + (1 << 22 - fmt.mantissa)
    a = np.concatenate([a, b, corners(FP32), halfway - 1, halfway, halfway + 1]) & 0xFFFFFFFF
    with np.errstate(all="ignore"):
        expected = codes16(float32s(a, FP32), fmt)
    np.testing.assert_array_equal(convert_codes(a, FP32, fmt), expected)


@pytest.mark.parametrize("fmt", NAMED, ids=lambda fmt: fmt.name)
def test_the_larger_one_is_found(fmt):
    a, b = (side.ravel() for side in np.meshgrid(corners(fmt), corners(fmt)))
    x, y = float32s(a, fmt), float32s(b, fmt)
    largest, second = maximum_codes(a, b, fmt)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(fmt.decode(largest), np.maximum(x, y))
    both_zero = (x == 0) & (y == 0)
    negative = np.signbit(x) & np.signbit(y)
    np.testing.assert_array_equal(
        largest[both_zero], np.where(negative, 1 << fmt.width - 1, 0)[both_zero]
    )
    canonical = np.where(second, convert_codes(b, fmt, fmt), convert_codes(a, fmt, fmt))
    np.testing.assert_array_equal(largest, canonical)
    assert not second[(x == y) & ~both_zero].any()
    np.testing.assert_array_equal(relu_codes(a, fmt), maximum_codes(a, np.zeros_like(a), fmt)[0])


# -- Compiled -------------------------------------------------------------------------------------


def test_compiled_scalars_give_the_same_bits():
    numba = pytest.importorskip("numba")
    from streamtrain.jit import njit
    from streamtrain.numeric import add_float32, multiply_float32, pack, unpack

    assert numba

    @njit
    def scalars(a, b, exponent, mantissa, products, sums, packed):
        for n in range(len(a)):
            x, y = unpack(a[n], exponent, mantissa), unpack(b[n], exponent, mantissa)
            products[n] = multiply_float32(x, y)
            sums[n] = add_float32(x, y)
            packed[n] = pack(np.float64(x), 5, 10)

    for fmt in NAMED:
        a, b = (side.ravel() for side in np.meshgrid(corners(fmt), corners(fmt)))
        more = pairs(fmt, 300_000, 3)
        a, b = np.concatenate([a, more[0]]), np.concatenate([b, more[1]])
        products, sums = np.empty((2, len(a)), np.float32)
        packed = np.empty(len(a), np.int64)
        scalars(a, b, fmt.exponent, fmt.mantissa, products, sums, packed)
        np.testing.assert_array_equal(FP32.from_float32(products), multiply_codes(a, b, fmt, FP32))
        wide = [convert_codes(side, fmt, FP32) for side in (a, b)]
        np.testing.assert_array_equal(FP32.from_float32(sums), add_codes(*wide, FP32))
        np.testing.assert_array_equal(packed, convert_codes(a, fmt, FP16))
