"""FPGAs and boards, read from small data files.

They lie in ``boards/`` at the root of the repository (``streamtrain/_boards`` in a wheel), one TOML
file a board, and in ``boards/devices/``, one file an FPGA. Adding one takes no code; a file of the
user's own can be anywhere.
"""

import tomllib
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from streamtrain.records import Record

__all__ = ["Board", "Fpga", "known_boards", "known_devices", "load_board"]

_PACKAGE = Path(__file__).parents[1]
_IN_WHEEL, _IN_REPOSITORY = _PACKAGE / "_boards", _PACKAGE.parents[1] / "boards"
_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_REPOSITORY


@dataclass(frozen=True)
class Fpga(Record):
    """What an FPGA has.

    Parameters
    ----------
    name : :class:`str`
        Of the device, without package and speed.
    family : :class:`str`
        As ``synth_xilinx -family`` calls it, such as ``xc7``.
    dsp, bram36, lut, ff : :class:`int`
        DSP slices, block RAMs of 36 Kbit, LUTs with six inputs, flip-flops.
    dsp_widths : (:class:`int`, :class:`int`)
        Bits of a DSP slice's signed operands.
    source : :class:`str`
        Where the figures were read.

    Raises
    ------
    TypeError, ValueError
        If a field is of the wrong kind, or not positive.
    """

    name: str
    family: str
    dsp: int
    dsp_widths: tuple
    bram36: int
    lut: int
    ff: int
    source: str

    def __post_init__(self):
        for field in ("name", "family", "source"):
            _text(field, getattr(self, field))
        for field in ("dsp", "bram36", "lut", "ff"):
            _count(field, getattr(self, field))
        widths = self.dsp_widths
        if not isinstance(widths, (tuple, list)) or len(widths) != 2:
            raise TypeError(f"dsp_widths must be two integers, not {widths!r}")
        for width in widths:
            _count("dsp_widths", width)
        object.__setattr__(self, "dsp_widths", tuple(widths))

    @property
    def resources(self):
        """DSP slices, block RAMs, LUTs and flip-flops, by the names that reports use."""
        return {"dsp": self.dsp, "bram36": self.bram36, "lut": self.lut, "ff": self.ff}


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
        Device with package and speed grade, as vendor tools take it.
    clock_mhz : :class:`float`
        Clock of the core, unless a plan asks for another.

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

    def __post_init__(self):
        for field in ("name", "title", "part"):
            _text(field, getattr(self, field))
        if not isinstance(self.device, Fpga):
            raise TypeError(f"device must be an Fpga, not {self.device!r}")
        if not isinstance(self.clock_mhz, (int, float)) or isinstance(self.clock_mhz, bool):
            raise TypeError(f"clock_mhz must be a number, not {self.clock_mhz!r}")
        if not 0 < self.clock_mhz < float("inf"):
            raise ValueError(f"clock_mhz must be positive, not {self.clock_mhz!r}")
        object.__setattr__(self, "clock_mhz", float(self.clock_mhz))


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


def known_boards():
    """Names that :func:`load_board` takes, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def known_devices():
    """Names of the FPGAs that a board file can refer to, sorted."""
    return sorted(path.stem for path in (_FOLDER / "devices").glob("*.toml"))


def load_board(board):
    """Read a board's description.

    Parameters
    ----------
    board : :class:`str` or :class:`pathlib.Path`
        A known name (``-`` and ``_`` and case are the same), or a TOML file of the same form as
        those in ``boards/``. Such a file may name an FPGA that lies beside it in ``devices/``.

    Returns a :class:`Board`.

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
        path = _FOLDER / f"{_nearest('board', board, known_boards())}.toml"
    return _read(Board, path, _table(path))


def _nearest(what, name, known):
    plain = name.lower().replace("-", "_")
    if plain in known:
        return plain
    close = get_close_matches(plain, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise ValueError(f"There is no {what} {name!r}{hint} Known are {', '.join(known)}")


def _table(path):
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None


def _device(path, name):
    if not isinstance(name, str):
        raise ValueError(f"{path}: device must be text, not {name!r}")
    beside = path.parent / "devices" / f"{name}.toml"
    if not beside.is_file():
        try:
            beside = _FOLDER / "devices" / f"{_nearest('device', name, known_devices())}.toml"
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return _read(Fpga, beside, _table(beside))


def _read(cls, path, table):
    names = [field.name for field in fields(cls)]
    missing = [f.name for f in fields(cls) if f.name not in table and f.default is MISSING]
    if missing:
        raise ValueError(f"{path}: field {missing[0]} is missing; a file has {', '.join(names)}")
    unknown = sorted(table.keys() - set(names))
    if unknown:
        raise ValueError(f"{path}: unknown field {unknown[0]}; a file has {', '.join(names)}")
    if "device" in table:
        table = {**table, "device": _device(path, table["device"])}
    try:
        return cls(**table)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
