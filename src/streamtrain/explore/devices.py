"""FPGAs and boards, read from small data files.

They lie in ``boards/`` at the root of the repository (``streamtrain/_boards`` in a wheel), one TOML
file a board, and in ``boards/devices/``, one file an FPGA. Adding one takes no code; a file of the
user's own can be anywhere. ``docs/boards.md`` says what the fields mean and where figures come from.
"""

from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from streamtrain.records import Record

__all__ = [
    "FAMILIES",
    "BlockRam",
    "Board",
    "Dram",
    "Fpga",
    "Ps",
    "boards_table",
    "known_boards",
    "known_devices",
    "load_board",
]

FAMILIES = ("xc7", "xcup", "ecp5")
"""Families of FPGAs: AMD 7 series and Zynq-7000, AMD UltraScale+, Lattice ECP5."""


_PACKAGE = Path(__file__).parents[1]
_IN_WHEEL, _IN_REPOSITORY = _PACKAGE / "_boards", _PACKAGE.parents[1] / "boards"
_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_REPOSITORY

_BRAM36_BITS = 36 * 1024


@dataclass(frozen=True)
class BlockRam(Record):
    """One kind of RAM block of an FPGA.

    Parameters
    ----------
    name : :class:`str`
        Of the primitive, such as ``RAMB36``.
    number : :class:`int`
        How many there are.
    bits : :class:`int`
        What each of them holds, parity bits included.
    shapes : tuple of (:class:`int`, :class:`int`)
        Aspect ratios: depth and width of each way to use it.
    used : :class:`bool`
        Whether the pipeline's memories are made of it.

    Raises
    ------
    TypeError, ValueError
        If a field is of the wrong kind, not positive, or a shape has more bits than the block.
    """

    name: str
    number: int
    bits: int
    shapes: tuple
    used: bool = True

    def __post_init__(self):
        _text("name", self.name)
        _count("number", self.number)
        _count("bits", self.bits)
        if not isinstance(self.used, bool):
            raise TypeError(f"used must be true or false, not {self.used!r}")
        if not isinstance(self.shapes, (tuple, list)):
            raise TypeError(f"shapes must be a list of [depth, width], not {self.shapes!r}")
        if not self.shapes:
            raise ValueError("shapes must not be empty")
        shapes = tuple(_pair("shapes", shape) for shape in self.shapes)
        for depth, width in shapes:
            if depth * width > self.bits:
                raise ValueError(
                    f"shapes must fit in {self.bits} bits, but {depth} x {width} is {depth * width}"
                )
        object.__setattr__(self, "shapes", shapes)


@dataclass(frozen=True)
class Fpga(Record):
    """What an FPGA has.

    Parameters
    ----------
    name : :class:`str`
        Of the device, without package and speed.
    family : :class:`str`
        One of :data:`FAMILIES`. AMD's are those of ``synth_xilinx -family``.
    dsp : :class:`int`
        DSP slices, or multipliers where a slice has more than one.
    dsp_widths : (:class:`int`, :class:`int`)
        Bits of a multiplier's signed operands.
    block_ram : tuple of :class:`BlockRam`
        The kinds of RAM blocks. Those that the pipeline uses are ways to cut the same storage, as
        one RAMB36 is two RAMB18, so all of them together hold the same number of bits.
    lut, lut_inputs : :class:`int`
        LUTs, and inputs of each.
    lutram : :class:`int`
        How many of the LUTs can be RAM (distributed RAM).
    ff : :class:`int`
        Flip-flops.
    clocks_mhz : dict of :class:`float` by :class:`str`
        By speed grade, a clock that the core is planned for if nobody asks for another. These are
        conservative choices of ours, not figures of a data sheet. Kept as pairs.
    source : :class:`str`
        Where the figures come from.

    Raises
    ------
    TypeError, ValueError
        If a field is of the wrong kind, not positive, or contradicts another.
    """

    name: str
    family: str
    dsp: int
    dsp_widths: tuple
    block_ram: tuple
    lut: int
    lut_inputs: int
    lutram: int
    ff: int
    clocks_mhz: tuple
    source: str

    def __post_init__(self):
        for field in ("name", "family", "source"):
            _text(field, getattr(self, field))
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {self.family!r}")
        for field in ("dsp", "lut", "lutram", "ff"):
            _count(field, getattr(self, field))
        if self.lutram > self.lut:
            raise ValueError(f"lutram must be at most the {self.lut} LUTs, not {self.lutram}")
        if self.lut_inputs not in (4, 6):
            raise ValueError(f"lut_inputs must be 4 or 6, not {self.lut_inputs!r}")
        object.__setattr__(self, "dsp_widths", _pair("dsp_widths", self.dsp_widths))
        object.__setattr__(self, "block_ram", _block_ram(self.block_ram))
        object.__setattr__(self, "clocks_mhz", _clocks(self.clocks_mhz))

    @property
    def bram36(self):
        """Block RAM that the pipeline can use, in units of 36 Kbit."""
        kind = next(kind for kind in self.block_ram if kind.used)
        units = kind.number * kind.bits / _BRAM36_BITS
        return int(units) if units.is_integer() else units

    @property
    def lutram_bits(self):
        """Bits of distributed RAM."""
        return self.lutram * 2**self.lut_inputs

    @property
    def slowest_grade(self):
        """The speed grade with the lowest clock."""
        return min(self.clocks_mhz, key=lambda pair: pair[1])[0]

    @property
    def resources(self):
        """DSP slices, block RAMs, LUTs and flip-flops, by the names that reports use."""
        return {"dsp": self.dsp, "bram36": self.bram36, "lut": self.lut, "ff": self.ff}

    def clock_mhz(self, grade):
        """The core's default clock in a part of speed grade ``grade``.

        Raises :exc:`ValueError` if the device has no such grade.
        """
        clocks = dict(self.clocks_mhz)
        if grade not in clocks:
            raise ValueError(
                f"{self.name} has no speed grade {grade!r}; its grades are {', '.join(clocks)}"
            )
        return clocks[grade]


@dataclass(frozen=True)
class Dram(Record):
    """Memory beside the FPGA.

    Parameters
    ----------
    mb : :class:`int`
        Size in megabytes of 2**20 bytes.
    type : :class:`str`
        Such as ``DDR3``.

    Raises
    ------
    TypeError, ValueError
        If a field is of the wrong kind, or the size is not positive.
    """

    mb: int
    type: str

    def __post_init__(self):
        _count("mb", self.mb)
        _text("type", self.type)

    def __str__(self):
        return f"{self.mb} MB {self.type}"


@dataclass(frozen=True)
class Ps(Record):
    """Processor system of a Zynq board, as far as a block design must know it.

    Parameters
    ----------
    type : :class:`str`
        ``PS7`` (Zynq-7000) or ``PS8`` (Zynq UltraScale+).
    board_part : :class:`str`, optional
        The board in Vivado, as ``vendor:name:part0``, without the revision of its files. Where they
        are installed, they configure clocks, DRAM and peripherals of the processor system.
    crystal_mhz : :class:`float`, optional
        What feeds the processor system's PLLs; without it, Vivado's default.
    ddr_part, ddr_bits : :class:`str` and :class:`int`, optional
        DRAM chip, by Vivado's name of it, and width of the data bus. Only for a PS7 whose board
        files are not installed, so that the size is right; traces are not described.
    dma_port : :class:`int`
        Which high-performance slave port the DMA uses, 0 to 3.

    Raises
    ------
    TypeError, ValueError
        If a field is of the wrong kind or out of its range, or only one of the DDR's is there.
    """

    type: str
    board_part: str | None = None
    crystal_mhz: float | None = None
    ddr_part: str | None = None
    ddr_bits: int | None = None
    dma_port: int = 0

    def __post_init__(self):
        if self.type not in ("PS7", "PS8"):
            raise ValueError(f"type must be PS7 or PS8, not {self.type!r}")
        if self.board_part is not None:
            _text("board_part", self.board_part)
            if self.board_part.count(":") != 2:
                raise ValueError(
                    f"board_part must be vendor:name:part0, without a revision, "
                    f"not {self.board_part!r}"
                )
        if self.crystal_mhz is not None:
            object.__setattr__(self, "crystal_mhz", _clock("crystal_mhz", self.crystal_mhz))
        if (self.ddr_part is None) != (self.ddr_bits is None):
            raise ValueError("ddr_part and ddr_bits go together")
        if self.ddr_part is not None:
            _text("ddr_part", self.ddr_part)
            if self.type != "PS7" or self.ddr_bits not in (16, 32):
                raise ValueError(f"ddr_bits must be 16 or 32, of a PS7, not {self.ddr_bits!r}")
        if self.dma_port not in range(4):
            raise ValueError(f"dma_port must be 0 to 3, not {self.dma_port!r}")


@dataclass(frozen=True)
class Board(Record):
    """A board, or a bare part to plan for.

    Parameters
    ----------
    name : :class:`str`
    title : :class:`str`
        As its maker calls it.
    device : :class:`Fpga`
    part : :class:`str`
        Device with package and speed grade, as vendor tools take it. A device that is on no board
        has no package: here it is the device and the speed grade.
    clock_mhz : :class:`float`
        Clock of the core, unless a plan asks for another.
    memory : :class:`Dram`, optional
        What the FPGA, or the processor in it, can use as main memory.
    ps : :class:`Ps`, optional
        The processor system, if it has one.
    platform : :class:`str`
        Module and class that describe it in amaranth-boards, such as ``"ulx3s:ULX3S_85F_Platform"``;
        empty where none is needed.

    Raises
    ------
    TypeError, ValueError
        If a field is of the wrong kind, or the clock is not positive.
    """

    name: str
    title: str
    device: Fpga
    part: str
    clock_mhz: float
    memory: Dram | None = None
    ps: Ps | None = None
    platform: str = ""

    def __post_init__(self):
        for field in ("name", "title", "part"):
            _text(field, getattr(self, field))
        if not isinstance(self.platform, str):
            raise TypeError(f"platform must be text, not {self.platform!r}")
        if not isinstance(self.device, Fpga):
            raise TypeError(f"device must be an Fpga, not {self.device!r}")
        if self.memory is not None and not isinstance(self.memory, Dram):
            raise TypeError(f"memory must be a Dram, not {self.memory!r}")
        if self.ps is not None and not isinstance(self.ps, Ps):
            raise TypeError(f"ps must be a Ps, not {self.ps!r}")
        object.__setattr__(self, "clock_mhz", _clock("clock_mhz", self.clock_mhz))

    def __str__(self):
        device = self.device
        return (
            f"{self.name}: {self.title}, {device.name} at {self.clock_mhz:g} MHz: {device.dsp:,} DSP, "
            f"{device.bram36:,} BRAM36, {device.lut:,} LUT, {device.ff:,} FF; "
            f"{self.memory or 'no DRAM'}"
        )


def _text(field, value):
    if not isinstance(value, str):
        raise TypeError(f"{field} must be text, not {value!r}")
    if not value:
        raise ValueError(f"{field} must not be empty")


def _count(field, value):
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{field} must be at least 1, not {value!r}")


def _pair(field, value):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{field} must be two integers, not {value!r}")
    for number in value:
        _count(field, number)
    return tuple(value)


def _clock(field, value):
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{field} must be a number, not {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{field} must be positive, not {value!r}")
    return float(value)


def _clocks(clocks):
    try:
        pairs = dict(clocks).items()
    except (TypeError, ValueError):
        raise TypeError(f"clocks_mhz must be clocks by speed grade, not {clocks!r}") from None
    if not pairs:
        raise ValueError("clocks_mhz must not be empty")
    for grade, _ in pairs:
        _text("clocks_mhz: a speed grade", grade)
    return tuple((grade, _clock(f"clocks_mhz: {grade}", clock)) for grade, clock in pairs)


def _block_ram(kinds):
    if not isinstance(kinds, (tuple, list)) or not all(isinstance(k, BlockRam) for k in kinds):
        raise TypeError(f"block_ram must be a list of BlockRam, not {kinds!r}")
    used = [kind for kind in kinds if kind.used]
    if not used:
        raise ValueError("block_ram must have a kind that is used")
    first = used[0]
    for kind in used[1:]:
        bits, expected = kind.number * kind.bits, first.number * first.bits
        if bits != expected:
            raise ValueError(
                f"block_ram must have as many bits in each kind that is used, but {kind.number} "
                f"{kind.name} are {bits} bits and {first.number} {first.name} are {expected}"
            )
    return tuple(kinds)


def known_boards():
    """Names of the boards that :func:`load_board` knows, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def known_devices():
    """Names of the FPGAs that :func:`load_board` and board files know, sorted."""
    return sorted(path.stem for path in (_FOLDER / "devices").glob("*.toml"))


def boards_table():
    """Header and rows of all that :func:`load_board` takes by name: boards, then bare devices."""
    header = ("board", "device", "MHz", "DSP", "BRAM36", "LUT", "FF", "LUT RAM", "memory")
    rows = []
    for name in known_boards() + known_devices():
        board = load_board(name)
        device = board.device
        rows.append((
            name,
            device.name,
            board.clock_mhz,
            *device.resources.values(),
            device.lutram,
            str(board.memory or "-"),
        ))
    return header, rows


def load_board(board):
    """Read a board's description, or take a device as a board.

    Parameters
    ----------
    board : :class:`str` or :class:`pathlib.Path`
        A known board or a known device (``-`` and ``_`` and case are the same), or a TOML file of
        the same form as those in ``boards/`` or ``boards/devices/``. A board's file may name an
        FPGA that lies beside it in ``devices/``.

    Returns a :class:`Board`. That of a device has its slowest speed grade, the default clock of
    that grade, and no memory.

    Raises
    ------
    TypeError
        If ``board`` is neither.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the name is unknown, or a file is malformed; the message names the file and the field.
    """
    if not isinstance(board, (str, Path)):
        raise TypeError(f"Board must be a name or a file, not {board!r}")
    if isinstance(board, Path) or board.endswith(".toml"):
        path = Path(board)
        if not path.is_file():
            raise FileNotFoundError(f"There is no board file {path}")
    else:
        path = _known_file(board)
    table = _table(path)
    if "device" not in table and table.keys() & (_names(Fpga) - _names(Board)):
        return _alone(_read(Fpga, path, table))
    return _read(Board, path, table)


def _known_file(name):
    boards, devices = known_boards(), known_devices()
    known = f"{', '.join(boards)}; and as devices {', '.join(devices)}"
    name = _nearest("board", name, boards + devices, known)
    return _FOLDER / f"{name}.toml" if name in boards else _FOLDER / "devices" / f"{name}.toml"


def _nearest(what, name, names, known):
    plain = name.lower().replace("-", "_")
    if plain in names:
        return plain
    close = get_close_matches(plain, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise ValueError(f"There is no {what} {name!r}{hint} Known are {known}")


def _alone(device):
    """A device without a board."""
    grade = device.slowest_grade
    return Board(
        name=device.name,
        title=f"no board, speed grade {grade}",
        device=device,
        part=f"{device.name}-{grade}",
        clock_mhz=device.clock_mhz(grade),
    )


def _table(path):
    import tomllib  # late: boards with Python 3.10 have no need of tables

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None


def _names(cls):
    return {field.name for field in fields(cls)}


def _device(path, name):
    if not isinstance(name, str):
        raise ValueError(f"{path}: device must be text, not {name!r}")
    beside = path.parent / "devices" / f"{name}.toml"
    if not beside.is_file():
        devices = known_devices()
        try:
            name = _nearest("device", name, devices, ", ".join(devices))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        beside = _FOLDER / "devices" / f"{name}.toml"
    return _read(Fpga, beside, _table(beside))


def _read(cls, path, table):
    """Make a ``cls`` of the table in ``path``; its own tables become records, too."""
    if "device" in table:
        table = {**table, "device": _device(path, table["device"])}
    try:
        return _record(cls, table)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _record(cls, table):
    names = [field.name for field in fields(cls)]
    missing = [f.name for f in fields(cls) if f.name not in table and f.default is MISSING]
    if missing:
        raise ValueError(f"field {missing[0]} is missing; a file has {', '.join(names)}")
    unknown = sorted(table.keys() - set(names))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]}; a file has {', '.join(names)}")
    return cls(**{name: _inner(name, value) for name, value in table.items()})


def _inner(name, value):
    """The value of a field; if it describes a record, that record."""
    if name == "memory":
        return _member(Dram, name, value)
    if name == "ps":
        return _member(Ps, name, value)
    if name == "block_ram" and isinstance(value, list):
        return tuple(_member(BlockRam, f"{name}[{at}]", kind) for at, kind in enumerate(value))
    return value


def _member(cls, name, value):
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a table, not {value!r}")
    try:
        return _record(cls, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
