import numpy as np
import pytest
from amaranth import Const, signed
from amaranth.hdl import Shape
from hypothesis import given
from hypothesis import strategies as st

from streamtrain.numeric import Fixed

formats = st.builds(Fixed, st.integers(2, 64), st.integers(-20, 80))
reals = st.floats(allow_nan=False)


def test_is_named_by_width_and_integer_bits():
    assert str(Fixed(16, 13)) == "fixed<16,3>"
    assert Fixed.parse(" fixed< 16, 3> ") == Fixed(16, 13)
    assert Fixed.parse("fixed<8,-2>") == Fixed(8, 10)


@given(formats)
def test_name_and_json_describe_it_completely(fmt):
    assert Fixed.parse(str(fmt)) == fmt
    assert Fixed.from_json(fmt.to_json()) == fmt


@pytest.mark.parametrize("text", ["", "fixed<16>", "fixed<16,3", "ufixed<16,3>", "fixed<16.0,3>"])
def test_rejects_other_names(text):
    with pytest.raises(ValueError, match=r"^Format must be written fixed<width,integer bits>"):
        Fixed.parse(text)


@pytest.mark.parametrize("width", [1, 65])
def test_rejects_widths(width):
    with pytest.raises(ValueError, match=rf"^Format width must be 2 to 64 bits, not {width}$"):
        Fixed(width, 0)


def test_takes_numpys_integers():
    assert Fixed(np.int64(8), np.int32(4)) == Fixed(8, 4)
    with pytest.raises(TypeError):
        Fixed(8.0, 4)


def test_rounds_ties_to_even_and_saturates():
    fmt = Fixed(4, 1)
    real = [0.25, 0.75, -0.25, -0.75, 0.3, 3.5, 3.8, 99, np.inf, -4, -4.3, -99, -np.inf]
    assert fmt.encode(real).tolist() == [0, 2, 0, -2, 1, 7, 7, 7, 7, -8, -8, -8, -8]
    assert (fmt.lowest, fmt.highest) == (-4, 3.5)


@given(formats, reals)
def test_nearest_code_is_taken(fmt, real):
    code = int(fmt.encode(real))
    assert code in fmt.codes
    if fmt.lowest <= real <= fmt.highest:
        assert abs(fmt.decode(code) - real) <= 2.0 ** -(fmt.frac + 1)
    else:
        assert code == (fmt.codes[-1] if real > 0 else fmt.codes[0])


@given(formats, st.data())
def test_codes_survive_decoding(fmt, data):
    code = data.draw(st.integers(max(fmt.codes[0], -(2**53)), min(fmt.codes[-1], 2**53)))
    assert fmt.encode(fmt.decode(code)) == code


def test_rejects_nan_and_says_where():
    with pytest.raises(
        ValueError, match=r"^Element \(1, 0\) is NaN, which fixed<8,4> cannot hold$"
    ):
        Fixed(8, 4).encode([[0, 1], [np.nan, 2]])


def test_is_a_shape_of_signed_codes():
    fmt = Fixed(8, 4)
    assert Shape.cast(fmt) == signed(8)
    assert fmt.const(-3).value == -3
    assert fmt.const(None).value == 0
    assert fmt.from_bits(0xFF) == -1
    assert isinstance(fmt.const(1), Const)


def test_formats_of_different_meaning_differ():
    assert Fixed(16, 8) != Fixed(16, 10)
    assert len({Fixed(16, 8), Fixed(16, 8), Fixed(16, 10)}) == 2
