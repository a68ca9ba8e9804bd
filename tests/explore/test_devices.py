from pathlib import Path

import pytest

from streamtrain.explore import Board, Fpga, known_boards, known_devices, load_board
from streamtrain.explore import devices as module

BOARD = """
name = "bench"
title = "The one on the bench"
device = "xc7z020"
part = "xc7z020clg484-1"
clock_mhz = 50
"""

DEVICE = """
name = "tiny"
family = "xc7"
dsp = 10
dsp_widths = [25, 18]
bram36 = 5
lut = 1000
ff = 2000
source = "a drawer"
"""


@pytest.mark.parametrize(
    "name, part, resources",
    [
        ("pynq_z2", "xc7z020clg400-1", (220, 140, 53_200, 106_400)),
        ("zynq7100", "xc7z100ffg900-2", (2020, 755, 277_400, 554_800)),
        ("zcu102", "xczu9eg-ffvb1156-2-e", (2520, 912, 274_080, 548_160)),
    ],
)
def test_boards_have_what_the_data_sheets_say(name, part, resources):
    board = load_board(name)
    assert (board.name, board.part) == (name, part)
    assert tuple(board.device.resources) == ("dsp", "bram36", "lut", "ff")
    assert tuple(board.device.resources.values()) == resources


def test_a_bench_clock_of_100_mhz_is_the_default_of_the_pynq_z2():
    assert load_board("pynq_z2").clock_mhz == pytest.approx(100)


@pytest.mark.parametrize("name", ["pynq_z2", "pynq-z2", "PYNQ-Z2"])
def test_names_take_dashes_and_any_case(name):
    assert load_board(name).name == "pynq_z2"


def test_every_file_is_read_and_carries_its_own_name():
    assert {"pynq_z2", "zcu102", "zynq7100"} <= set(known_boards())
    assert {"xc7z010", "xc7z020", "xc7z045", "xc7z100", "xczu9eg"} <= set(known_devices())
    for name in known_boards():
        board = load_board(name)
        assert board.name == name
        assert board.part.startswith(board.device.name)
        assert Board.from_json(board.to_json()) == board
    for name in known_devices():
        path = module._FOLDER / "devices" / f"{name}.toml"
        assert module._read(Fpga, path, module._table(path)).name == name


@pytest.mark.parametrize("kind", [str, Path])
def test_a_board_can_be_a_file_of_ones_own(tmp_path, kind):
    (tmp_path / "bench.toml").write_text(BOARD)
    board = load_board(kind(tmp_path / "bench.toml"))
    assert (board.name, board.device.name, board.clock_mhz) == ("bench", "xc7z020", 50.0)


def test_a_file_can_name_a_device_beside_it(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "tiny.toml").write_text(DEVICE)
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace("xc7z020", "tiny"))
    assert load_board(path).device == Fpga("tiny", "xc7", 10, (25, 18), 5, 1000, 2000, "a drawer")


@pytest.mark.parametrize(
    "name, message",
    [
        ("pynq_z1", r"^There is no board 'pynq_z1'; did you mean pynq_z2\? Known are .*pynq_z2, zcu102"),
        ("zynq-7100", r"did you mean zynq7100\?"),
        ("versal", r"^There is no board 'versal'\. Known are "),
        ("", r"^There is no board ''"),
        ("../boards/pynq_z2", r"^There is no board"),
    ],
)  # fmt: skip
def test_unknown_board(name, message):
    with pytest.raises(ValueError, match=message):
        load_board(name)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^There is no board file .*bench.toml$"):
        load_board(tmp_path / "bench.toml")


def test_a_board_is_a_name_or_a_file():
    with pytest.raises(TypeError, match=r"^Board must be a name or a file, not 7$"):
        load_board(7)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('part = "xc7z020clg484-1"\n', "", r"field part is missing; a file has name, title, device, part, clock_mhz$"),
        ("clock_mhz", "clock", r"field clock_mhz is missing"),
        ('part =', 'speed = 1\npart =', r"unknown field speed; a file has name"),
        ("= 50", "= -50", r"clock_mhz must be positive, not -50$"),
        ("= 50", "= inf", r"clock_mhz must be positive, not inf$"),
        ("= 50", '= "fast"', r"clock_mhz must be a number, not 'fast'$"),
        ("= 50", "= true", r"clock_mhz must be a number, not True$"),
        ('"bench"', "7", r"name must be text, not 7$"),
        ('"bench"', '""', r"name must not be empty$"),
        ('device = "xc7z020"', "device = 7", r"device must be text, not 7$"),
        ('device = "xc7z020"', 'device = "xc7z021"', r"There is no device 'xc7z021'; did you mean xc7z0\d0\? Known are xc7z010"),
        ("= 50", "= ", r"is no TOML file: Invalid value \(at line"),
    ],
)  # fmt: skip
def test_malformed_board_file(tmp_path, old, new, message):
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace(old, new))
    with pytest.raises(ValueError, match=rf"^\S*bench.toml:? {message}"):
        load_board(path)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("lut = 1000\n", "", r"field lut is missing"),
        ("= 1000", "= 0", r"lut must be at least 1, not 0$"),
        ("= 1000", "= 0.5", r"lut must be an integer, not 0.5$"),
        ("[25, 18]", "25", r"dsp_widths must be two integers, not 25$"),
        ("[25, 18]", "[25]", r"dsp_widths must be two integers, not \[25\]$"),
        ("[25, 18]", '["a", 18]', r"dsp_widths must be an integer, not 'a'$"),
    ],
)  # fmt: skip
def test_malformed_device_file(tmp_path, old, new, message):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "tiny.toml").write_text(DEVICE.replace(old, new))
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace("xc7z020", "tiny"))
    with pytest.raises(ValueError, match=rf"^\S*tiny.toml: {message}"):
        load_board(path)
