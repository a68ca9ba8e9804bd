"""The files of a Vivado project: scripts that are the same for every design, and their settings.

The scripts lie in ``tcl/`` beside this file. What differs from design to design is in two files that
they read, ``ip/ip_settings.tcl`` and ``vivado/settings.tcl``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from streamtrain.records import Record

__all__ = [
    "ADDRESSES",
    "DESIGN",
    "DMA_BYTES",
    "INTERRUPTS",
    "REGISTER_BYTES",
    "Ip",
    "block_design",
    "package_ip",
    "scripts",
    "write_project",
]

VENDOR, LIBRARY = "streamtrain.org", "ip"

DESIGN = "system"
"""Name of the block design."""

REGISTER_BYTES = 4096
"""Size of the core's registers."""

ADDRESSES = {
    "PS7": {"axi_dma": 0x4040_0000, "core": 0x43C0_0000},
    "PS8": {"axi_dma": 0xA000_0000, "core": 0xA001_0000},
}
"""Where the processor sees the registers of the DMA and of the core, by kind of processor system."""

DMA_BYTES = 65_536
"""Range of the DMA's registers."""

INTERRUPTS = {"PS7": (61, 62, 63), "PS8": (121, 122, 123)}
"""Their numbers at the GIC: DMA out, DMA in, core."""

_TCL = Path(__file__).parent / "tcl"
_AMD = ("xc7", "xcup")


@dataclass(frozen=True)
class Ip(Record):
    """The core as an IP: what Vivado's scripts must know of it.

    Parameters
    ----------
    name : :class:`str`
        Of the top module and its file.
    version : :class:`str`
        ``MAJOR.MINOR``: with the name, what block designs refer to.
    bytes : :class:`int`
        Width of the two streams: 1, 2, 4, 8 and so on, up to 128.
    clock_mhz : :class:`float`
        Clock that the processor system is asked for.

    Raises
    ------
    ValueError
        If a field is out of its range.
    """

    name: str = "streamtrain"
    version: str = "1.0"
    bytes: int = 4
    clock_mhz: float = 100.0

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise ValueError(f"name must be a Verilog name, not {self.name!r}")
        if not re.fullmatch(r"\d+\.\d+", self.version):
            raise ValueError(f"version must be MAJOR.MINOR, not {self.version!r}")
        if self.bytes not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise ValueError(f"bytes must be a power of two up to 128, not {self.bytes!r}")
        if not 0 < self.clock_mhz < float("inf"):
            raise ValueError(f"clock_mhz must be positive, not {self.clock_mhz!r}")

    @property
    def vlnv(self):
        """Vendor, library, name and version, as Vivado writes them."""
        return f"{VENDOR}:{LIBRARY}:{self.name}:{self.version}"


def write_project(folder, rtl, info, board):
    """Write all that Vivado needs to go from Verilog to a bitstream.

    Parameters
    ----------
    folder : path
        Gets ``ip/`` and ``vivado/``; they may exist.
    rtl : :class:`str` or :class:`pathlib.Path`
        Verilog text of the core, or the file that holds it.
    info : :class:`Ip`
    board : :class:`~streamtrain.explore.devices.Board`
        Without a processor system, the core can be packaged and routed out of context, but there
        is no block design.

    Returns the paths that were written, in order.

    Raises
    ------
    ValueError
        If the part is not AMD's, has no package, or does not go with the kind of processor system.
    """
    _check(board)
    text = rtl.read_text(encoding="utf-8") if isinstance(rtl, Path) else rtl
    written = [_write(Path(folder) / "ip" / f"{info.name}.v", text), *package_ip(folder, info)]
    if board.ps is not None:
        written += block_design(folder, info, board)
    return list(dict.fromkeys([*written, *scripts(folder, info, board)]))


def package_ip(folder, info):
    """Write ``ip/package_ip.tcl``, which packages ``ip/NAME.v``. Returns the paths."""
    settings = {
        "ip_vendor": VENDOR,
        "ip_library": LIBRARY,
        "ip_name": info.name,
        "ip_version": info.version,
        "ip_register_bytes": REGISTER_BYTES,
    }
    ip = Path(folder) / "ip"
    return [
        _write(ip / "ip_settings.tcl", _settings(settings)),
        _write(ip / "package_ip.tcl", _script("package_ip")),
    ]


def block_design(folder, info, board):
    """Write ``vivado/block_design.tcl`` and the processor system's script. Returns the paths.

    Raises :exc:`ValueError` if the board has no processor system.
    """
    _check(board)
    if board.ps is None:
        raise ValueError(
            f"{board.name} has no processor system ([ps] in its file): it can be packaged and "
            f"routed out of context, but there is no block design"
        )
    vivado = Path(folder) / "vivado"
    return [
        _write(vivado / "settings.tcl", _project_settings(info, board)),
        _write(vivado / "processor.tcl", _script(f"processor_{board.ps.type.lower()}")),
        _write(vivado / "block_design.tcl", _script("block_design")),
    ]


def scripts(folder, info, board):
    """Write the scripts that run Vivado, the constraints, and the README. Returns the paths.

    ``vivado/build.tcl`` is written for boards with a processor system.
    """
    _check(board)
    vivado = Path(folder) / "vivado"
    written = [
        _write(vivado / "settings.tcl", _project_settings(info, board)),
        _write(vivado / "out_of_context.tcl", _script("out_of_context")),
        _write(vivado / "out_of_context.xdc", _clock_constraint(info)),
    ]
    if board.ps is not None:
        written.append(_write(vivado / "build.tcl", _script("build")))
    return [*written, _write(vivado / "README.md", _readme(info, board))]


def _check(board):
    device = board.device
    if device.family not in _AMD:
        raise ValueError(
            f"Vivado is for AMD's parts, but {board.name} has a part of {device.family} "
            f"({device.name})"
        )
    if board.part in {f"{device.name}-{grade}" for grade, _ in device.clocks_mhz}:
        raise ValueError(
            f"Vivado needs a part with its package, but {board.part} has none; make a board file for it"
        )
    if board.ps is None:
        return
    prefixes = {"PS7": ("xc7z",), "PS8": ("xczu", "xck")}[board.ps.type]
    if not board.part.startswith(prefixes):
        raise ValueError(f"{board.name}: a {board.part} has no {board.ps.type}")


def _script(name):
    return (_TCL / f"{name}.tcl").read_text(encoding="utf-8")


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _settings(values):
    lines = [f"set {name} {{{value}}}" for name, value in values.items()]
    return "\n".join(["# What differs from design to design.", *lines, ""])


def _project_settings(info, board):
    """Text of ``vivado/settings.tcl``, which reads the IP's settings, too."""
    values = {"part": board.part, "jobs": 4}
    if (ps := board.ps) is not None:
        addresses = ADDRESSES[ps.type]
        values |= {
            "board_part": ps.board_part or "",
            "design": DESIGN,
            "clock_mhz": f"{info.clock_mhz:g}",
            "stream_bits": 8 * info.bytes,
            "memory_bits": max(32, 8 * info.bytes),  # the DMA's least
            "dma_port": ps.dma_port,
            "dma_address": f"0x{addresses['axi_dma']:08X}",
            "dma_bytes": DMA_BYTES,
            "core_address": f"0x{addresses['core']:08X}",
            "ps_config": " ".join(f"{name} {{{value}}}" for name, value in _ps_config(ps)),
        }
    source = (
        "source [file join [file dirname [file normalize [info script]]] .. ip ip_settings.tcl]\n"
    )
    return _settings(values) + source


def _ps_config(ps):
    """Parameters of a processor system whose board files are not installed."""
    if ps.crystal_mhz is not None:
        name = {"PS7": "PCW_CRYSTAL_PERIPHERAL_FREQMHZ", "PS8": "PSU__PSS_REF_CLK__FREQMHZ"}
        yield f"CONFIG.{name[ps.type]}", f"{ps.crystal_mhz:g}"
    if ps.ddr_part is not None:
        yield "CONFIG.PCW_UIPARAM_DDR_PARTNO", ps.ddr_part
        yield "CONFIG.PCW_UIPARAM_DDR_BUS_WIDTH", f"{ps.ddr_bits} Bit"


def _clock_constraint(info):
    period = 1000 / info.clock_mhz
    return (
        f"# {info.clock_mhz:g} MHz for the core alone; in a block design the processor system's\n"
        f"# clock has a constraint of its own.\n"
        f"create_clock -name aclk -period {period:.3f} [get_ports aclk]\n"
    )


def _readme(info, board):
    ps = board.ps
    parts = [_README_HEAD.format(title=board.title, part=board.part, vlnv=info.vlnv)]
    if ps is not None:
        board_part = ps.board_part
        parts.append(
            _README_BOARD.format(
                clock=f"{info.clock_mhz:g}",
                dma=f"0x{ADDRESSES[ps.type]['axi_dma']:08X}",
                core=f"0x{ADDRESSES[ps.type]['core']:08X}",
                name=info.name,
                interrupts="{}, {} and {}".format(*INTERRUPTS[ps.type]),
                files=_WITH_FILES.format(board_part=board_part) if board_part else _NO_FILES,
            )
        )
    return "\n".join([*parts, _README_TAIL.format(name=info.name)])


_README_HEAD = """\
# {title} ({part}) in Vivado

The core is the IP `{vlnv}`. **None of these scripts has been run in Vivado yet**: they
were run in a Tcl interpreter against tables of Vivado's commands, parameters and pins. They need
Vivado 2022.1 or newer.
"""

_README_BOARD = """\
## Build

    vivado -mode batch -source build.tcl

packages the IP, makes the block design, synthesises, places and routes it, and leaves
`streamtrain.bit`, `streamtrain.hwh`, `streamtrain.xsa` and `reports/` here.

| what | where |
|---|---|
| registers of `axi_dma` | {dma} |
| registers of `{name}` | {core} |
| interrupts of the DMA (memory to core, core to memory) and of the core | {interrupts} at the GIC |
| clock | {clock} MHz are asked for; what the processor system's dividers make of that is in the timing report |

## Board files

{files}
"""

_WITH_FILES = """\
If Vivado has the files of `{board_part}`, they configure the processor system; the newest
revision is taken. Without them, the build goes on and says so. Its bitstream suits a system that has
booted already, such as PYNQ's, because the boot image configured clocks and DRAM; but do not make a
boot image of the `.xsa`, because the DRAM's timing would be wrong."""

_NO_FILES = """\
No board is known here, only the part, so DRAM and peripherals have Vivado's defaults. To boot from
the `.xsa`, configure the cell `ps` for your board first."""

_README_TAIL = """\
## The core alone

    vivado -mode batch -source out_of_context.tcl

places and routes `{name}` without pins, and leaves `reports_out_of_context/`.
"""
