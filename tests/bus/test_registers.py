"""Tables of registers that are none are refused, and say what is wrong."""

import pytest

from streamtrain.bus import Field, Register, RegisterMap, Value

IT = Field("it", 0, 8, "Eight bits.")
REG = Register("REG", 0, "A register.", (IT,))


def test_tables_travel_as_json():
    table = RegisterMap("table", "One.", (REG,))
    assert RegisterMap.from_json(table.to_json()) == table


def test_registers_are_in_the_order_of_their_addresses():
    table = RegisterMap("table", "", (Register("LATER", 8, "", (IT,)), REG))
    assert [register.name for register in table] == ["REG", "LATER"]
    assert "LATER" in table and "NEVER" not in table
    assert table["LATER"]["it"] is IT


def test_resets_and_masks_are_at_the_fields_places():
    register = Register(
        "REG", 4, "", (Field("a", 4, 3, "", reset=5), Field("b", 31, 1, "", reset=1))
    )
    assert register.reset == 0x80000050
    assert [field.mask for field in register.fields] == [0x70, 0x80000000]


@pytest.mark.parametrize(
    "address, bits", [(0, 12), (0xFFC, 12), (0x1000, 13), (0x1FFC, 13), (0x2000, 14)]
)
def test_addresses_have_room_for_all_registers(address, bits):
    table = RegisterMap("table", "", (Register("REG", address, "", (IT,)),))
    assert table.address_bits == bits


@pytest.mark.parametrize(
    ("arguments", "members", "message"),
    [
        (("it", 0, 0), {}, r"^Field 'it' has bits 0 to -1, but a register has 0 to 31$"),
        (("it", 30, 3), {}, r"^Field 'it' has bits 30 to 32, but a register has 0 to 31$"),
        (("it", -1, 3), {}, r"^Field 'it' has bits -1 to 1, but a register has 0 to 31$"),
        (
            ("it", 0, 3),
            {"access": "wo"},
            r"^Access of field 'it' must be one of ro, rw, w1c, pulse, not 'wo'$",
        ),
        (("it", 0, 3), {"reset": 8}, r"^Field 'it' has 3 bits, but reset is 8$"),
        (("it", 0, 3), {"reset": -1}, r"^Field 'it' has 3 bits, but reset is -1$"),
        (("it", 0, 3), {"values": (Value("HIGH", 9),)}, r"^Field 'it' has 3 bits, but HIGH is 9$"),
        (
            ("it", 0, 3),
            {"values": (Value("ONE", 1), Value("ONE", 2))},
            r"^Two values of field 'it' have the same name$",
        ),
        (("it", 0, 3), {"maximum": 8}, r"^Field 'it' has 3 bits, but takes 0 to 8$"),
        (("it", 0, 3), {"minimum": 5, "maximum": 4}, r"^Field 'it' has 3 bits, but takes 5 to 4$"),
        (("it", 0, 3), {"constant": True}, r"^Field 'it' is constant, but its access is 'rw'$"),
        (
            ("it", 0, 3),
            {"access": "ro", "reset": 2},
            r"^Field 'it' keeps no value, but is to be 2 after reset$",
        ),
        (
            ("it", 0, 3),
            {"access": "pulse", "reset": 1},
            r"^Field 'it' keeps no value, but is to be 1 after reset$",
        ),
        (
            ("It", 0, 3),
            {},
            r"^Field 'It' must be named by small letters, digits and _, and be a name in C and Python$",
        ),
        (("class", 0, 3), {}, r"^Field 'class' must be named by small letters"),
        (("größe", 0, 3), {}, r"^Field 'größe' must be named by small letters"),
    ],
)
def test_refuses_fields_that_are_none(arguments, members, message):
    with pytest.raises(ValueError, match=message):
        Field(*arguments, "", **members)


@pytest.mark.parametrize(
    ("name", "address", "fields", "message"),
    [
        ("REG", 2, (IT,), r"^Register REG is at 0x002, which is not a word's address$"),
        ("REG", -4, (IT,), r"^Register REG is at -0x04, which is not a word's address$"),
        (
            "REG",
            0,
            (IT, Field("top", 7, 2, "")),
            r"^Field 'top' of register REG overlaps another one$",
        ),
        ("REG", 0, (IT, Field("it", 8, 2, "")), r"^Register REG has two fields 'it'$"),
        (
            "2ND",
            0,
            (IT,),
            r"^Register '2ND' must be named by capitals, digits and _, and be a name",
        ),
        ("Reg", 0, (IT,), r"^Register 'Reg' must be named by capitals"),
    ],
)
def test_refuses_registers_that_are_none(name, address, fields, message):
    with pytest.raises(ValueError, match=message):
        Register(name, address, "", fields)


@pytest.mark.parametrize(
    ("registers", "message"),
    [
        ((), r"^Register map table has no register$"),
        ((REG, Register("REG", 4, "", (IT,))), r"^There are two registers REG$"),
        ((REG, Register("TWIN", 0, "", (IT,))), r"^There are two registers at 0x000$"),
        (
            (REG, Register("HIGH", 4, "", (IT,), captured_by="LOW")),
            r"^Register HIGH is captured by LOW, which is not there$",
        ),
        (
            (
                Register("LOSS", 0, "", (Field("high_it", 0, 1, ""),)),
                Register("LOSS_HIGH", 4, "", (IT,)),
            ),
            r"^Field 'it' of register LOSS_HIGH has the name of one of LOSS: LOSS_HIGH_IT$",
        ),
    ],
)
def test_refuses_tables_that_are_none(registers, message):
    with pytest.raises(ValueError, match=message):
        RegisterMap("table", "", registers)


@pytest.mark.parametrize("name", ["high", "2", "", "A-B"])
def test_refuses_values_without_a_name(name):
    with pytest.raises(ValueError, match=rf"^Value {name!r} must be named by capitals"):
        Value(name, 0)


def test_refuses_addresses_that_are_no_integers():
    with pytest.raises(TypeError):
        Register("REG", 4.0, "", (IT,))
    with pytest.raises(TypeError):
        Field("it", 0.0, 3, "")


def test_names_what_is_not_there():
    table = RegisterMap("table", "", (REG,))
    with pytest.raises(KeyError, match="There is no register 'GER'"):
        table["GER"]
    with pytest.raises(KeyError, match="Register REG has no field 'ti'; it has it"):
        table["REG"]["ti"]
