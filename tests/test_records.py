import json
from dataclasses import FrozenInstanceError, dataclass, replace
from enum import Enum

import pytest

from streamtrain.numeric import Fixed
from streamtrain.records import Record


class Mood(Enum):
    CALM = "calm"


@dataclass(frozen=True)
class Toy(Record):
    size: int
    parts: tuple = ()
    format: Fixed | None = None
    notes: dict | None = None
    mood: object = None


TOY = Toy(3, parts=(1, (2.5, "x"), None), format=Fixed(16, 13), notes={"a": (1, 2)})


def test_json_goes_both_ways():
    again = Toy.from_json(TOY.to_json())
    assert again == TOY
    assert again.parts == (1, (2.5, "x"), None)
    assert isinstance(again.format, Fixed)
    assert again.to_json() == TOY.to_json()


def test_json_is_plain():
    data = json.loads(replace(TOY, mood=Mood.CALM).to_json())
    assert data == {
        "kind": "Toy",
        "size": 3,
        "parts": [1, [2.5, "x"], None],
        "format": {"kind": "Fixed", "width": 16, "frac": 13},
        "notes": {"a": [1, 2]},
        "mood": "calm",
    }


def test_fields_with_defaults_may_be_left_out():
    assert Toy.from_json('{"kind": "Toy", "size": 3}') == Toy(3)


def test_records_are_frozen_and_comparable():
    with pytest.raises(FrozenInstanceError):
        TOY.size = 4
    assert Toy(3) == Toy(3) != Toy(4)
    assert len({Toy(3), Toy(3), Toy(4)}) == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"^Not a JSON description of a Toy: "),
        ("{", r"^Not a JSON description of a Toy: "),
        ("[]", r"^Expected a Toy, not a tuple$"),
        ("{}", r"^Expected a Toy, not a dict$"),
        ('{"kind": "Fixed", "width": 8, "frac": 4}', r"^Expected a Toy, not a Fixed$"),
        ('{"kind": "Game"}', r"^Unknown kind 'Game'; known are .*Toy"),
        ('{"kind": ["Toy"]}', r"^Unknown kind \['Toy'\]"),
        ('{"kind": "Toy", "size": 3, "colour": "red"}', r"^Toy has no field 'colour'$"),
        ('{"kind": "Toy"}', r"^Cannot read a Toy: .*missing 1 required .*'size'"),
        ('{"kind": "Toy", "size": 3, "format": {"kind": "Fixed", "width": 1, "frac": 0}}', r"^Format width must be 2 to 64 bits, not 1$"),
    ],
)  # fmt: skip
def test_rejects_what_is_no_such_record(text, message):
    with pytest.raises(ValueError, match=message):
        Toy.from_json(text)
