# amaranth: UnusedElaboratable=no
import numpy as np
import pytest
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import (
    BF16,
    FP16,
    FP32,
    Arithmetic,
    Fixed,
    FixedArithmetic,
    Float,
    FloatArithmetic,
    FloatMultiplier,
    MultiplyAdd,
    Round,
    arithmetic,
    requantize_codes,
)

NAMES = ["fp32", "bf16", "fp16", "float<4,3>", "fixed<16,4>", "fixed<8,2>"]


@pytest.mark.parametrize("name", NAMES)
def test_is_found_by_name_and_travels_as_json(name):
    kind = arithmetic(f" {name} ")
    assert isinstance(kind, Arithmetic)
    assert kind.name == name
    assert type(kind).from_json(kind.to_json()) == kind
    assert kind.operand == (Fixed if "fixed" in name else Float).parse(name)


def test_other_accumulators_are_in_the_name():
    assert FloatArithmetic(BF16, BF16).name == "bf16+bf16"
    assert FixedArithmetic(Fixed(8, 6), Fixed(20, 12)).name == "fixed<8,2>+fixed<20,8>"


@pytest.mark.parametrize("name", NAMES)
def test_ports_have_the_formats(name):
    kind = arithmetic(name)
    operand, accumulator = kind.operand, kind.accumulator
    ports = {
        kind.multiplier(): ({"a": operand, "b": operand}, accumulator),
        kind.adder(): ({"a": accumulator, "b": accumulator}, accumulator),
        kind.narrow(): ({"i": accumulator}, operand),
        kind.widen(): ({"i": operand}, accumulator),
        kind.relu(): ({"i": operand}, operand),
        kind.maximum(): ({"a": operand, "b": operand}, operand),
        MultiplyAdd(kind): ({"a": operand, "b": operand, "c": accumulator}, accumulator),
    }
    for unit, (inputs, output) in ports.items():
        members = dict(unit.signature.members)
        members.pop("second", None)
        assert members == {**{port: In(fmt) for port, fmt in inputs.items()}, "o": Out(output), "enable": In(1)}  # fmt: skip
        assert unit.latency >= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_dot_product_is_near_that_of_real_numbers(name):
    kind = arithmetic(name)
    x, w = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 50, 100))
    x, w = kind.encode(x), kind.encode(w)
    total = kind.widen_codes(kind.encode(np.full(100, 0.25)))
    for product in kind.multiply(x, w):
        total = kind.add(total, product)
    exact = 0.25 + (kind.decode(x) * kind.decode(w)).sum(axis=0)
    np.testing.assert_allclose(kind.accumulator.decode(total), exact, rtol=0, atol=1e-5)
    stored = kind.decode(kind.narrow_codes(total))
    unit = 2.0**-kind.operand.frac if "fixed" in name else 4 * 2.0**-kind.operand.mantissa
    np.testing.assert_allclose(stored, exact, rtol=0, atol=unit / 2 + 1e-5)


def test_sums_of_fixed_point_saturate():
    kind = FixedArithmetic(Fixed(4, 2), Fixed(8, 4))
    assert kind.add([127, -128, 100, -100], [1, -1, 27, -28]).tolist() == [127, -128, 127, -128]
    assert kind.multiply(-8, -8) == 64
    assert kind.narrow_codes([127, -128, 2, 1, -2, -3]).tolist() == [7, -8, 1, 0, 0, -1]


def test_default_accumulators_hold_65536_products_of_any_operands():
    for width in (2, 8, 16, 18):
        kind = FixedArithmetic(Fixed(width, width - 1))
        least = kind.operand.codes[0]
        assert 65536 * int(kind.multiply(least, least)) - 1 <= kind.accumulator.codes[-1]


def test_operands_are_rounded_as_everywhere():
    kind = arithmetic("fixed<8,4>")
    codes = np.arange(-3000, 3000)
    expected, _ = requantize_codes(codes, 4, kind.operand, Round.NEAREST)
    np.testing.assert_array_equal(kind.narrow_codes(codes), expected)


def test_multipliers_in_each_family():
    slices = {name: [arithmetic(name).multiplier_dsp(f) for f in ("xc7", "xcup", "ecp5")] for name in NAMES}  # fmt: skip
    assert slices.pop("fp32") == [2, 2, 4]
    assert all(counts == [1, 1, 1] for counts in slices.values())
    with pytest.raises(ValueError, match=r"^family must be one of xc7, xcup, ecp5, not 'ice40'$"):
        arithmetic("fp32").multiplier_dsp("ice40")


# -- Clear when misused ---------------------------------------------------------------------------


def test_rejects_accumulators_that_lack_numbers():
    with pytest.raises(
        ValueError,
        match=r"^Accumulators must have all numbers of float<8,23>, but float<5,10> has not$",
    ):
        FloatArithmetic(FP32, FP16)
    with pytest.raises(
        ValueError, match=r"^Products must have all numbers of float<8,7>, but float<5,10> has not$"
    ):
        FloatMultiplier(BF16, FP16)


@pytest.mark.parametrize(
    ("operand", "message"),
    [
        (Fixed(19, 3), "Operands must have 18 bits or less, as multipliers do, not 19"),
        (Fixed(16, -1), "Operands must have 0 to 32 fractional bits, not -1"),
        (Fixed(16, 33), "Operands must have 0 to 32 fractional bits, not 33"),
    ],
)
def test_rejects_operands(operand, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        FixedArithmetic(operand)


@pytest.mark.parametrize(("width", "frac"), [(48, 23), (31, 24), (63, 24)])
def test_rejects_accumulators(width, frac):
    with pytest.raises(
        ValueError,
        match=r"^Accumulators of fixed<16,4> must have 24 fractional bits \(two times 12\) "
        rf"and 32 to 62 bits, not {frac} and {width}$",
    ):
        FixedArithmetic(Fixed(16, 12), Fixed(width, frac))


def test_rejects_names():
    with pytest.raises(ValueError, match=r"^Format must be written float<.* not 'int8'$"):
        arithmetic("int8")
    with pytest.raises(ValueError, match=r"^Format must be written fixed<"):
        arithmetic("fixed8")
