import pytest

from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import DSP_WIDTHS, Numbers

FIELDS = ["weights", "activations", "logits", "errors"]


def test_formats_may_be_given_by_name():
    numbers = Numbers(weights="fixed<8,3>", master="fixed<12,3>", round_weights="stochastic")
    assert numbers.weights == Fixed(8, 5)
    assert numbers.stored == numbers.master == Fixed(12, 9)
    assert numbers.round_weights is Round.STOCHASTIC


def test_weights_are_stored_as_they_are_multiplied_without_a_master():
    assert Numbers(weights=Fixed(9, 4)).stored == Fixed(9, 4)


@pytest.mark.parametrize(
    "numbers", [Numbers(), Numbers(master=Fixed(32, 20), round_errors="truncate")]
)
def test_travels_as_json(numbers):
    assert Numbers.from_json(numbers.to_json()) == numbers


@pytest.mark.parametrize("field", FIELDS)
def test_operands_fit_the_multiplier(field):
    Numbers(**{field: Fixed(DSP_WIDTHS[1], 9)})
    message = (
        rf"^Format of {field} is fixed<19,10>, but a multiplier's operand has at most 18 bits$"
    )
    with pytest.raises(ValueError, match=message):
        Numbers(**{field: Fixed(19, 9)})


def test_rejects_masters_of_more_than_32_bits():
    with pytest.raises(
        ValueError, match=r"^Format of master is .*, but a master has at most 32 bits$"
    ):
        Numbers(master=Fixed(33, 30))


@pytest.mark.parametrize(
    "master", [Fixed(16, 13), Fixed(20, 13), Fixed(17, 15), Fixed(20, 18), Fixed(18, 12)], ids=str
)
def test_a_master_refines_the_weights(master):
    with pytest.raises(
        ValueError, match=r"^Master fixed<.*> must refine the weights fixed<16,3>: "
    ):
        Numbers(weights=Fixed(16, 13), master=master)


@pytest.mark.parametrize("field", [*FIELDS, "master"])
def test_rejects_what_is_no_format(field):
    with pytest.raises(TypeError, match=rf"^Format of {field} must be Fixed, not 16$"):
        Numbers(**{field: 16})
    with pytest.raises(ValueError, match=r"^Format must be written fixed<width,integer bits>"):
        Numbers(**{field: "float32"})


@pytest.mark.parametrize("field", ["weights", "activations", "logits", "errors"])
def test_formats_are_needed(field):
    with pytest.raises(TypeError, match=rf"^Format of {field} must be Fixed, not None$"):
        Numbers(**{field: None})


def test_rejects_unknown_rounding():
    with pytest.raises(ValueError, match="'up' is not a valid Round"):
        Numbers(round_errors="up")
