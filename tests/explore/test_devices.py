import re
from dataclasses import replace
from pathlib import Path

import pytest

from streamtrain.explore import (
    FAMILIES,
    BlockRam,
    Board,
    Dram,
    Fpga,
    Ps,
    boards_table,
    known_boards,
    known_devices,
    load_board,
)
from streamtrain.tables import text_table

BOARD = """
name = "bench"
title = "The one on the bench"
device = "xc7z020"
part = "xc7z020clg484-1"
clock_mhz = 50
memory = { mb = 256, type = "DDR3" }
"""

DEVICE = """
name = "tiny"
family = "xc7"
dsp = 10
dsp_widths = [25, 18]
lut = 1000
lut_inputs = 6
lutram = 250
ff = 2000
source = "a drawer"

[clocks_mhz]
2 = 60
1 = 40.5

[[block_ram]]
name = "RAMB36"
number = 5
bits = 36_864
shapes = [[1_024, 36], [512, 72]]

[[block_ram]]
name = "RAMB18"
number = 10
bits = 18_432
shapes = [[512, 36]]

[[block_ram]]
name = "URAM288"
number = 3
bits = 294_912
shapes = [[4_096, 72]]
used = false
"""

TINY = Fpga(
    name="tiny",
    family="xc7",
    dsp=10,
    dsp_widths=(25, 18),
    block_ram=(
        BlockRam("RAMB36", 5, 36_864, ((1024, 36), (512, 72))),
        BlockRam("RAMB18", 10, 18_432, ((512, 36),)),
        BlockRam("URAM288", 3, 294_912, ((4096, 72),), used=False),
    ),
    lut=1000,
    lut_inputs=6,
    lutram=250,
    ff=2000,
    clocks_mhz={"2": 60, "1": 40.5},
    source="a drawer",
)


# -- The files ------------------------------------------------------------------------------------

# DSP, LUT, FF, and how much block RAM and distributed RAM data sheets print.
DATA_SHEETS = {
    "xc7z010": (80, 17_600, 35_200, "2.1 Mb", "375 Kb"),  # DS190, and for the last UG474
    "xc7z020": (220, 53_200, 106_400, "4.9 Mb", "1088 Kb"),
    "xc7z045": (900, 218_600, 437_200, "19.2 Mb", "4400 Kb"),
    "xc7z100": (2_020, 277_400, 554_800, "26.5 Mb", "6763 Kb"),
    "xc7a200t": (740, 134_600, 269_200, "13140 Kb", "2888 Kb"),  # DS180
    "xc7k325t": (840, 203_800, 407_600, "16020 Kb", "4000 Kb"),
    "xczu9eg": (2_520, 274_080, 548_160, "32.1 Mb", "8.8 Mb"),  # DS891
    "xczu7ev": (1_728, 230_400, 460_800, "11.0 Mb", "6.2 Mb"),
    "xck26": (1_248, 117_120, 234_240, "5.1 Mb", "3.5 Mb"),
    "lfe5u_25f": (28, 24_288, 24_288, "1008 Kb", "194 kilo"),  # FPGA-DS-02012; LUTs of nextpnr
    "lfe5u_85f": (156, 83_640, 83_640, "3744 Kb", "669 kilo"),
}

UNITS = {"Mb": 1024**2, "Kb": 1024, "kilo": 1000}


def printed(text):
    """Bits that a data sheet prints, give or take half of its last digit."""
    number, unit = text.split()
    last_digit = 10.0 ** -len(number.partition(".")[2])
    return pytest.approx(float(number) * UNITS[unit], rel=0, abs=last_digit / 2 * UNITS[unit])


ULTRA_RAMS = {"xczu7ev": 96, "xck26": 64}


def test_every_device_has_a_data_sheet_here():
    assert list(known_devices()) == sorted(DATA_SHEETS)


@pytest.mark.parametrize("name", DATA_SHEETS)
def test_devices_have_what_the_data_sheets_say(name):
    device = load_board(name).device
    dsp, lut, ff, block_ram, distributed_ram = DATA_SHEETS[name]
    assert (device.name, device.dsp, device.lut, device.ff) == (name, dsp, lut, ff)
    assert device.bram36 * 36 * 1024 == printed(block_ram)
    assert device.lutram_bits == printed(distributed_ram)
    ultra = {kind.name: kind.number for kind in device.block_ram if not kind.used}
    assert ultra == ({"URAM288": ULTRA_RAMS[name]} if name in ULTRA_RAMS else {})


@pytest.mark.parametrize(
    "family, widths, inputs, blocks",
    [
        ("xc7", (25, 18), 6, {"RAMB36": 1, "RAMB18": 2}),
        ("xcup", (27, 18), 6, {"RAMB36": 1, "RAMB18": 2}),
        ("ecp5", (18, 18), 4, {"DP16KD": 2}),
    ],
)
def test_a_family_has_its_primitives(family, widths, inputs, blocks):
    devices = [load_board(name).device for name in known_devices()]
    devices = [device for device in devices if device.family == family]
    assert devices
    for device in devices:
        assert (device.dsp_widths, device.lut_inputs) == (widths, inputs)
        used = {kind.name: kind.number for kind in device.block_ram if kind.used}
        assert used == {name: number * device.bram36 for name, number in blocks.items()}


@pytest.mark.parametrize("name", known_devices())
def test_shapes_use_all_bits_but_parity(name):
    for kind in load_board(name).device.block_ram:
        assert len(set(kind.shapes)) == len(kind.shapes)
        for depth, width in kind.shapes:
            assert depth & (depth - 1) == 0
            data_width = width if width < 9 else width // 9 * 8
            assert depth * data_width * 9 == kind.bits * 8
            assert width < 9 or width % 9 == 0


@pytest.mark.parametrize("name", known_devices())
def test_faster_grades_have_faster_clocks(name):
    clocks = dict(load_board(name).device.clocks_mhz)
    by_grade = [clocks[grade] for grade in sorted(clocks)]
    assert by_grade == sorted(by_grade)
    assert by_grade[0] >= 50
    assert by_grade[-1] <= 200


@pytest.mark.parametrize(
    "name, part, resources",
    [
        ("pynq_z2", "xc7z020clg400-1", (220, 140, 53_200, 106_400)),
        ("zynq7100", "xc7z100ffg900-2", (2020, 755, 277_400, 554_800)),
        ("zcu102", "xczu9eg-ffvb1156-2-e", (2520, 912, 274_080, 548_160)),
        ("kv260", "xck26-sfvc784-2LV-c", (1248, 144, 117_120, 234_240)),
        ("ulx3s_85f", "LFE5U-85F-6BG381C", (156, 104, 83_640, 83_640)),
    ],
)
def test_boards_have_what_their_device_has(name, part, resources):
    board = load_board(name)
    assert (board.name, board.part) == (name, part)
    assert tuple(board.device.resources) == ("dsp", "bram36", "lut", "ff")
    assert tuple(board.device.resources.values()) == resources


def test_a_bench_clock_of_100_mhz_is_the_default_of_the_pynq_z2():
    assert load_board("pynq_z2").clock_mhz == pytest.approx(100)


@pytest.mark.parametrize("name", ["pynq_z2", "pynq-z2", "PYNQ-Z2"])
def test_names_take_dashes_and_any_case(name):
    assert load_board(name).name == "pynq_z2"


def test_every_board_is_there():
    assert known_boards() == [
        "arty_z7_20", "genesys2", "kv260", "nexys_video", "pynq_z1", "pynq_z2", "ulx3s_25f", "ulx3s_85f",
        "zc706", "zcu102", "zcu104", "zedboard", "zybo_z7_20", "zynq7100",
    ]  # fmt: skip


GRADE = {
    "xc7": r"\w+-(\w+)",
    "xcup": r"\w+-\w+-(\w+)-[a-z]",
    "ecp5": r"\w+-\w+-(\d)\w+",
}
"""Where the speed grade stands in a part's name."""


@pytest.mark.parametrize("name", known_boards())
def test_a_board_is_of_its_part(name):
    board = load_board(name)
    assert board.name == name
    part = board.part.lower().replace("-", "_")
    assert part.startswith(board.device.name)
    grade = re.fullmatch(GRADE[board.device.family], board.part)[1]
    assert board.clock_mhz <= board.device.clock_mhz(grade)
    assert Board.from_json(board.to_json()) == board
    assert hash(board) == hash(load_board(name))


# -- Devices as boards ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, part, clock_mhz",
    [
        ("xc7z010", "xc7z010-1", 100),
        ("XC7K325T", "xc7k325t-1", 115),
        ("xck26", "xck26-2LV", 135),
        ("LFE5U-85F", "lfe5u_85f-6", 90),
    ],
)
def test_a_device_is_a_board_of_its_slowest_grade(name, part, clock_mhz):
    board = load_board(name)
    assert board.name == board.device.name == name.lower().replace("-", "_")
    assert (board.part, board.clock_mhz, board.memory) == (part, clock_mhz, None)
    assert load_board(board.name) == board


def test_a_device_can_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(DEVICE)
    board = load_board(path)
    assert board == load_board(str(path))
    assert (board.name, board.part, board.clock_mhz) == ("tiny", "tiny-1", 40.5)
    assert board.device == TINY


def test_a_device_answers_what_a_search_asks():
    assert (TINY.bram36, TINY.lutram_bits, TINY.slowest_grade) == (5, 16_000, "1")
    assert TINY.resources == {"dsp": 10, "bram36": 5, "lut": 1000, "ff": 2000}
    assert [TINY.clock_mhz(grade) for grade in ("1", "2")] == [40.5, 60.0]
    assert TINY.family in FAMILIES
    assert Fpga.from_json(TINY.to_json()) == TINY


def test_an_odd_number_of_halves_is_half_a_block():
    halves = BlockRam("DP16KD", 7, 18_432, ((512, 36),))
    assert replace(TINY, block_ram=(halves,)).bram36 == pytest.approx(3.5)


def test_unknown_speed_grade():
    message = r"^tiny has no speed grade '3'; its grades are 2, 1$"
    with pytest.raises(ValueError, match=message):
        TINY.clock_mhz("3")


def test_table_has_all_that_has_a_name():
    header, rows = boards_table()
    assert [row[0] for row in rows] == known_boards() + known_devices()
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["ulx3s_85f"] == {
        "board": "ulx3s_85f", "device": "lfe5u_85f", "MHz": 90.0, "DSP": 156, "BRAM36": 104,
        "LUT": 83_640, "FF": 83_640, "LUT RAM": 41_820, "memory": "32 MB SDRAM",
    }  # fmt: skip
    assert by_name["xc7z010"]["memory"] == "-"
    assert len(text_table(header, rows).splitlines()) == len(rows) + 2


def test_a_board_says_what_it_has():
    assert str(load_board("pynq_z2")) == (
        "pynq_z2: TUL PYNQ-Z2, xc7z020 at 100 MHz: 220 DSP, 140 BRAM36, 53,200 LUT, 106,400 FF; "
        "512 MB DDR3"
    )
    assert str(load_board("xc7z010")).endswith("35,200 FF; no DRAM")


# -- Files of one's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_a_board_can_be_a_file_of_ones_own(tmp_path, kind):
    (tmp_path / "bench.toml").write_text(BOARD)
    board = load_board(kind(tmp_path / "bench.toml"))
    assert (board.name, board.device.name, board.clock_mhz) == ("bench", "xc7z020", 50.0)
    assert board.memory == Dram(256, "DDR3")


PS = """
[ps]
type = "PS7"
board_part = "maker.com:bench:part0"
crystal_mhz = 50
ddr_part = "MT41J256M16 RE-125"
ddr_bits = 16
dma_port = 1
"""


def test_a_board_can_have_a_processor_system(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(BOARD + PS)
    assert load_board(path).ps == Ps(
        "PS7", "maker.com:bench:part0", 50.0, "MT41J256M16 RE-125", 16, 1
    )
    path.write_text(BOARD)
    assert load_board(path).ps is None


@pytest.mark.parametrize(
    "right, wrong, message",
    [
        ('"PS7"', '"PS9"', r"type must be PS7 or PS8, not 'PS9'$"),
        ('type = "PS7"\n', "", r"field type is missing"),
        (":part0", ":part0:1.0", r"board_part must be vendor:name:part0, without a revision, not"),
        ('"maker.com:bench:part0"', "1", r"board_part must be text, not 1$"),
        ("crystal_mhz = 50", "crystal_mhz = 0", r"crystal_mhz must be positive, not 0$"),
        ("ddr_bits = 16\n", "", r"ddr_part and ddr_bits go together$"),
        ("ddr_bits = 16", "ddr_bits = 8", r"ddr_bits must be 16 or 32, of a PS7, not 8$"),
        ("dma_port = 1", "dma_port = 4", r"dma_port must be 0 to 3, not 4$"),
        ("dma_port", "port", r"unknown field port; a file has type, board_part"),
    ],
)
def test_a_malformed_processor_system_is_named(right, wrong, message, tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(BOARD + PS.replace(right, wrong))
    with pytest.raises(ValueError, match=rf"bench.toml: ps: {message}"):
        load_board(path)


def test_a_board_can_do_without_memory(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace("memory", "# memory"))
    assert load_board(path).memory is None


def test_a_file_can_name_a_device_beside_it(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "tiny.toml").write_text(DEVICE)
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace("xc7z020", "tiny"))
    assert load_board(path).device == TINY


@pytest.mark.parametrize(
    "name, message",
    [
        ("pynq_z3", r"^There is no board 'pynq_z3'; did you mean pynq_z\d\? Known are .*pynq_z2, .*; and as devices lfe5u_25f, .*xczu9eg$"),
        ("zynq-7100", r"did you mean zynq7100\?"),
        ("xc7k352t", r"^There is no board 'xc7k352t'; did you mean xc7k325t\?"),
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
        ('part = "xc7z020clg484-1"\n', "", r"field part is missing; a file has name, title, device, part, clock_mhz, memory, ps, platform$"),
        ("clock_mhz", "clock", r"field clock_mhz is missing"),
        ('part =', 'speed = 1\npart =', r"unknown field speed; a file has name"),
        ("= 50", "= -50", r"clock_mhz must be positive, not -50$"),
        ("= 50", "= inf", r"clock_mhz must be positive, not inf$"),
        ("= 50", '= "fast"', r"clock_mhz must be a number, not 'fast'$"),
        ("= 50", "= true", r"clock_mhz must be a number, not True$"),
        ('"bench"', "7", r"name must be text, not 7$"),
        ('"bench"', '""', r"name must not be empty$"),
        ('device = "xc7z020"', "device = 7", r"device must be text, not 7$"),
        ('device = "xc7z020"', 'device = "xc7z021"', r"There is no device 'xc7z021'; did you mean xc7z0\d0\? Known are .*xc7z010"),
        ("= 50", "= nan", r"clock_mhz must be positive, not nan$"),
        ("= 50", "= ", r"is no TOML file: Invalid value \(at line"),
        ("{ mb = 256, type", "{ type", r"memory: field mb is missing; a file has mb, type$"),
        ("mb =", "size = 1, mb =", r"memory: unknown field size; a file has mb, type$"),
        ("mb = 256", "mb = 0", r"memory: mb must be at least 1, not 0$"),
        ("mb = 256", 'mb = "lots"', r"memory: mb must be an integer, not 'lots'$"),
        ('"DDR3"', '""', r"memory: type must not be empty$"),
        ('{ mb = 256, type = "DDR3" }', "256", r"memory must be a table, not 256$"),
        ('device = "xc7z020"\n', "", r"field device is missing; a file has name, title"),
        ("part =", "lut = 9\npart =", r"unknown field lut; a file has name, title"),
    ],
)  # fmt: skip
def test_malformed_board_file(tmp_path, old, new, message):
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace(old, new))
    with pytest.raises(ValueError, match=rf"^\S*bench.toml:? {message}"):
        load_board(path)


MALFORMED = [
    *((f"{line}\n", "", rf"field {line.split()[0]} is missing; a file has name, family, dsp") for line in (
        'name = "tiny"', "dsp = 10", "dsp_widths = [25, 18]", "lut = 1000", "lut_inputs = 6",
        "lutram = 250", "ff = 2000", 'source = "a drawer"',
    )),
    ("lut =", "bram36 = 5\nlut =", r"unknown field bram36; a file has name, family"),
    *((f"{field} = {value}", f"{field} = {new}", rf"{field} must be {message}$")
      for field, value in (("dsp", 10), ("lut", 1000), ("lutram", 250), ("ff", 2000))
      for new, message in (
          ("0", "at least 1, not 0"), ("-5", "at least 1, not -5"), ("0.5", "an integer, not 0.5"),
          ("nan", "an integer, not nan"), ("true", "an integer, not True"), ('"x"', "an integer, not 'x'"),
      )),
    ("lutram = 250", "lutram = 1001", r"lutram must be at most the 1000 LUTs, not 1001$"),
    ("lut_inputs = 6", "lut_inputs = 5", r"lut_inputs must be 4 or 6, not 5$"),
    ("lut_inputs = 6", 'lut_inputs = "6"', r"lut_inputs must be 4 or 6, not '6'$"),
    ('"xc7"', '"xc6"', r"family must be one of xc7, xcup, ecp5, not 'xc6'$"),
    ('"xc7"', "7", r"family must be text, not 7$"),
    ('"a drawer"', '""', r"source must not be empty$"),
    ("[25, 18]", "25", r"dsp_widths must be two integers, not 25$"),
    ("[25, 18]", "[25]", r"dsp_widths must be two integers, not \[25\]$"),
    ("[25, 18]", '["a", 18]', r"dsp_widths must be an integer, not 'a'$"),
    ("[25, 18]", "[25, 0]", r"dsp_widths must be at least 1, not 0$"),
    ("2 = 60", "2 = 0", r"clocks_mhz: 2 must be positive, not 0$"),
    ("2 = 60", "2 = -60", r"clocks_mhz: 2 must be positive, not -60$"),
    ("2 = 60", "2 = inf", r"clocks_mhz: 2 must be positive, not inf$"),
    ("2 = 60", "2 = nan", r"clocks_mhz: 2 must be positive, not nan$"),
    ("2 = 60", "2 = true", r"clocks_mhz: 2 must be a number, not True$"),
    ("2 = 60", '2 = "60"', r"clocks_mhz: 2 must be a number, not '60'$"),
    ("[clocks_mhz]\n2 = 60\n1 = 40.5", "clocks_mhz = 60", r"clocks_mhz must be clocks by speed grade, not 60$"),
    ("2 = 60\n1 = 40.5", "", r"clocks_mhz must not be empty$"),
    ("number = 5\n", "", r"block_ram\[0\]: field number is missing; a file has name, number, bits, shapes, used$"),
    ("number = 10\n", "number = 10\nports = 2\n", r"block_ram\[1\]: unknown field ports"),
    ("number = 5", "number = -5", r"block_ram\[0\]: number must be at least 1, not -5$"),
    ("number = 5", "number = 4", r"block_ram must have as many bits in each kind that is used, but 10 RAMB18 are 184320 bits and 4 RAMB36 are 147456$"),
    ("bits = 36_864", "bits = 36.5", r"block_ram\[0\]: bits must be an integer, not 36.5$"),
    ("[512, 72]", "[512, 73]", r"block_ram\[0\]: shapes must fit in 36864 bits, but 512 x 73 is 37376$"),
    ("[512, 72]", "[512, 0]", r"block_ram\[0\]: shapes must be at least 1, not 0$"),
    ("[512, 72]", "512", r"block_ram\[0\]: shapes must be two integers, not 512$"),
    ("[[1_024, 36], [512, 72]]", "[]", r"block_ram\[0\]: shapes must not be empty$"),
    ("[[1_024, 36], [512, 72]]", '"1024x36"', r"block_ram\[0\]: shapes must be a list of \[depth, width\], not '1024x36'$"),
    ("used = false", "used = 0", r"block_ram\[2\]: used must be true or false, not 0$"),
]  # fmt: skip


@pytest.mark.parametrize("old, new, message", MALFORMED)
def test_malformed_device_file(tmp_path, old, new, message):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "tiny.toml").write_text(DEVICE.replace(old, new))
    path = tmp_path / "bench.toml"
    path.write_text(BOARD.replace("xc7z020", "tiny"))
    assert DEVICE.count(old) == 1
    for file in (path, tmp_path / "devices" / "tiny.toml"):
        with pytest.raises(ValueError, match=rf"^\S*tiny.toml: {message}"):
            load_board(file)


@pytest.mark.parametrize(
    "block_ram, message",
    [
        ("", r"field block_ram is missing"),
        ("block_ram = 5", r"block_ram must be a list of BlockRam, not 5$"),
        ("block_ram = [5]", r"block_ram\[0\] must be a table, not 5$"),
        ("block_ram = []", r"block_ram must have a kind that is used$"),
    ],
)
def test_a_device_must_have_block_ram(tmp_path, block_ram, message):
    scalars, _, rest = DEVICE.partition("[clocks_mhz]")
    path = tmp_path / "tiny.toml"
    path.write_text(f"{scalars}{block_ram}\n[clocks_mhz]{rest.partition('[[block_ram]]')[0]}")
    with pytest.raises(ValueError, match=rf"^\S*tiny.toml: {message}"):
        load_board(path)


def test_ultra_ram_alone_is_not_used(tmp_path):
    kinds = DEVICE.split("[[block_ram]]")
    path = tmp_path / "tiny.toml"
    path.write_text(f"{kinds[0]}[[block_ram]]{kinds[3]}")
    with pytest.raises(ValueError, match=r"tiny.toml: block_ram must have a kind that is used$"):
        load_board(path)


def test_a_board_is_made_of_a_device_and_a_memory():
    fields = {"name": "b", "title": "B", "device": TINY, "part": "p", "clock_mhz": 50}
    with pytest.raises(TypeError, match=r"^device must be an Fpga, not 'tiny'$"):
        Board(**{**fields, "device": "tiny"})
    with pytest.raises(TypeError, match=r"^memory must be a Dram, not 512$"):
        Board(**fields, memory=512)
