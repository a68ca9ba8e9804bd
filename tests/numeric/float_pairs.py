"""Operands that make floating-point arithmetic go wrong, and what the right results are.

The references are made of other means than what they check: exact fractions for single numbers, and for
arrays the processor's own arithmetic.
"""

from fractions import Fraction

import numpy as np

from streamtrain.numeric import FP32


def corners(fmt):
    """Codes next to every limit, of both signs."""
    one, top, m = 1 << fmt.mantissa, fmt.infinity, fmt.mantissa
    bias = fmt.bias << m
    codes = {0, 1, one - 1, one, one + 1, one | one >> 1, 2 * one - 1, 2 * one}
    codes |= {
        top - 1,
        top - 2,
        top - one,
        top - one - 1,
        top - one // 2,
        top,
        top + 1,
        fmt.nan,
        fmt.nan + 1,
    }
    codes |= {2 * top - top // 2, (1 << fmt.width - 1) - 1}
    for steps in (-m - 3, -m - 2, -m - 1, -m, -2, -1, 0, 1, 2, m, m + 1, m + 2):
        power = bias + (steps << m)
        codes |= {
            power - 1,
            power,
            power + 1,
            power | 1 << m // 2,
            power | one >> 1,
            power + one - 2,
        }
    codes = {code for code in codes if 0 <= code < 1 << fmt.width - 1}
    sign = 1 << fmt.width - 1
    return np.array(sorted(codes | {code | sign for code in codes}), dtype=np.int64)


def pairs(fmt, count, seed):
    """Pairs of codes of seven kinds, in turn.

    Any; close in size, and almost equal, to cancel; the same with few digits, for ties; products next to
    the limits, also by rounding; any with few digits.
    """
    rng = np.random.default_rng(seed)
    width, m = fmt.width, fmt.mantissa
    mask, sign = (1 << width - 1) - 1, 1 << width - 1
    a, b = rng.integers(0, 1 << width, (2, count))
    kind = np.arange(count) % 7
    few = -1 << rng.integers(0, m + 1, count)  # cuts digits off
    a = np.where((kind == 1) | (kind == 3) | (kind == 5), a & few, a)
    signs = rng.integers(0, 2, count) * sign

    near = (a & mask) + (rng.integers(-m - 4, m + 5, count) << m) + rng.integers(-2, 3, count)
    same = (a & mask) + rng.integers(-2, 3, count)
    # A product's code is the sum of its factors' codes, less that of 1, when they have few digits.
    low, high = fmt.bias + 1 << m, 3 * fmt.bias + 1 << m
    limit = np.where(rng.random(count) < 0.5, low, high)
    close = limit - (a & mask) + rng.integers(-3, 4, count) * rng.integers(0, 1 << m, count)
    # 1 + x times 1 - x is a little less than 1.
    x = rng.integers(1, 8, count) << rng.integers(0, m - m // 2 + 1, count)
    power = a & mask & -1 << m
    a = np.where(kind == 6, power + x | a & sign, a)
    b = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4, kind == 5],
        [b, near, same, np.where(near & few, near & few, near), np.clip(close, 0, mask), b & few],
        np.clip(limit - power - 2 * x, 0, mask),
    )
    return a, (b & mask) | np.where(kind == 0, b & sign, signs)


def hard_pairs():
    """10 million pairs, a part at a time."""
    special = corners(FP32)
    a, b = np.meshgrid(special, special)
    yield a.ravel(), b.ravel()
    for seed in range(5):
        yield pairs(FP32, 2_000_000, seed)


def with_all(fmt):
    """Every 16-bit code with each of a hundred others, a part at a time."""
    every = np.arange(1 << 16)
    others = np.concatenate([corners(fmt), np.random.default_rng(0).integers(0, 1 << 16, 24)])
    for part in np.array_split(others, 8):
        a, b = np.meshgrid(every, part)
        yield a.ravel(), b.ravel()


def exact(value, fmt, sign=0):
    """Code of a fraction; ``sign`` is that of zero."""
    if value == 0:
        return sign << fmt.width - 1
    sign, value = int(value < 0), abs(value)
    power = value.numerator.bit_length() - value.denominator.bit_length()
    power -= value < Fraction(2) ** power  # 2**power <= value < 2**(power + 1)
    digits = round(value / Fraction(2) ** (power - fmt.mantissa))  # Python's ties are to even, too
    if digits == 2 << fmt.mantissa:
        digits, power = 1 << fmt.mantissa, power + 1
    if power > fmt.bias:
        code = fmt.infinity
    elif power < 1 - fmt.bias:
        code = 0
    else:
        code = (power + fmt.bias << fmt.mantissa) + digits - (1 << fmt.mantissa)
    return code | sign << fmt.width - 1


def parts(code, fmt):
    """(kind, fraction, sign) of a code: kind is "nan", "infinity" or "number"."""
    sign, magnitude = code >> fmt.width - 1, code & (1 << fmt.width - 1) - 1
    if magnitude >= fmt.infinity:
        return "nan" if magnitude > fmt.infinity else "infinity", Fraction(0), sign
    exponent, digits = magnitude >> fmt.mantissa, magnitude & (1 << fmt.mantissa) - 1
    if exponent == 0:
        return "number", Fraction(0), sign
    value = Fraction(digits + (1 << fmt.mantissa), 1 << fmt.mantissa)
    value *= Fraction(2) ** (exponent - fmt.bias)
    return "number", -value if sign else value, sign


def exact_product(a, b, operand, result):
    (a_kind, x, a_sign), (b_kind, y, b_sign) = parts(a, operand), parts(b, operand)
    sign = a_sign ^ b_sign
    kinds = {a_kind, b_kind}
    if "nan" in kinds:
        return result.nan
    if "infinity" in kinds:
        zero = (a_kind == "number" and x == 0) or (b_kind == "number" and y == 0)
        return result.nan if zero else result.infinity | sign << result.width - 1
    return exact(x * y, result, sign)


def exact_sum(a, b, fmt):
    (a_kind, x, a_sign), (b_kind, y, b_sign) = parts(a, fmt), parts(b, fmt)
    kinds = [a_kind, b_kind]
    if "nan" in kinds or (kinds == ["infinity", "infinity"] and a_sign != b_sign):
        return fmt.nan
    if "infinity" in kinds:
        sign = a_sign if a_kind == "infinity" else b_sign
        return fmt.infinity | sign << fmt.width - 1
    return exact(x + y, fmt, a_sign & b_sign)


def float32s(codes, fmt):
    """Values as the processor or ml_dtypes has them, without subnormal ones."""
    codes = np.asarray(codes)
    if fmt == FP32:
        values = codes.astype(np.uint32).view(np.float32)
    elif fmt.exponent == 5:
        values = codes.astype(np.uint16).view(np.float16).astype(np.float32)
    else:
        import ml_dtypes

        values = codes.astype(np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    tiny = np.abs(values) < np.float32(2.0) ** (1 - fmt.bias)
    return np.where(tiny, np.copysign(np.float32(0), values), values)


def codes32(exact):
    """FP32 codes of float64 numbers that are exact or near enough, rounded by the processor."""
    # 2**64 times as large, no number is subnormal: what is too small is seen after rounding.
    too_small = np.abs((exact * 2.0**64).astype(np.float32)) < np.float32(2.0**-62)
    codes = np.where(too_small, np.copysign(0, exact), exact).astype(np.float32).view(np.uint32)
    return np.where(np.isnan(exact), FP32.nan, codes)


def codes16(values, fmt):
    """Codes of float32 numbers in a 16-bit format, rounded by NumPy or ml_dtypes."""
    import ml_dtypes

    kind = np.float16 if fmt.exponent == 5 else ml_dtypes.bfloat16
    smallest = np.float32(2.0) ** (1 - fmt.bias)
    scale = np.float32(2.0**8)
    large = np.abs(values) > 1
    lifted = np.where(large, values, values * scale).astype(kind).astype(np.float32)
    too_small = ~large & (np.abs(lifted) < smallest * scale)
    codes = (
        np.where(too_small, np.copysign(np.float32(0), values), values).astype(kind).view(np.uint16)
    )
    return np.where(np.isnan(values), fmt.nan, codes)
