"""The files of a Vivado project: scripts that are the same for every design, and their settings.

The scripts lie in ``tcl/`` beside this file. What differs from design to design is in two files that
they read, ``ip/ip_settings.tcl`` and ``vivado/settings.tcl``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from streamtrain.records import Record

__all__ = [
    "ADDRESSES",
    "DESIGN",
    "DMA_BYTES",
    "INTERRUPTS",
    "REGISTER_BYTES",
    "Ip",
    "MemoryIp",
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
"""Their numbers at the GIC, in the order of an IP's ``interrupts``."""

_TCL = Path(__file__).parent / "tcl"
_AMD = ("xc7", "xcup")


def _check_ip(info):
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", info.name):
        raise ValueError(f"name must be a Verilog name, not {info.name!r}")
    if not re.fullmatch(r"\d+\.\d+", info.version):
        raise ValueError(f"version must be MAJOR.MINOR, not {info.version!r}")
    if not 0 < info.clock_mhz < float("inf"):
        raise ValueError(f"clock_mhz must be positive, not {info.clock_mhz!r}")


def _vlnv(info):
    return f"{VENDOR}:{LIBRARY}:{info.name}:{info.version}"


@dataclass(frozen=True)
class Ip(Record):
    """A core with streams as an IP: what Vivado's scripts must know of it. A DMA feeds it.

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

    description: ClassVar[str] = "Trains a convolutional network, sample by sample"
    streams: ClassVar[str] = "s_axis slave m_axis master"
    masters: ClassVar[str] = ""
    script: ClassVar[str] = "block_design_streams"
    interrupts: ClassVar[tuple] = (
        "the DMA (memory to core)",
        "the DMA (core to memory)",
        "the core",
    )

    def __post_init__(self):
        _check_ip(self)
        if self.bytes not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise ValueError(f"bytes must be a power of two up to 128, not {self.bytes!r}")

    @property
    def vlnv(self):
        """Vendor, library, name and version, as Vivado writes them."""
        return _vlnv(self)

    def settings(self, ps):
        """What the block design must know besides."""
        return {
            "stream_bits": 8 * self.bytes,
            "memory_bits": max(32, 8 * self.bytes),  # the DMA's least
            "dma_address": f"0x{ADDRESSES[ps.type]['axi_dma']:08X}",
            "dma_bytes": DMA_BYTES,
        }

    def registers(self, ps):
        """Addresses by the cell of the block design whose registers are there."""
        addresses = ADDRESSES[ps.type]
        return {"axi_dma": addresses["axi_dma"], self.name: addresses["core"]}


@dataclass(frozen=True)
class MemoryIp(Record):
    """A core with an AXI4 master as an IP: it reads and writes memory by itself.

    Parameters
    ----------
    name, version, clock_mhz
        As :class:`Ip` has them.
    data_bits : :class:`int`
        Of the master: 32, 64, 128, 256 or 512.

    Raises
    ------
    ValueError
        If a field is out of its range.
    """

    name: str = "streamtrain_unified"
    version: str = "1.0"
    data_bits: int = 64
    clock_mhz: float = 100.0

    description: ClassVar[str] = "Trains a convolutional network that lies in memory"
    streams: ClassVar[str] = ""
    script: ClassVar[str] = "block_design_memory"
    interrupts: ClassVar[tuple] = ("the core",)

    def __post_init__(self):
        _check_ip(self)
        if self.data_bits not in (32, 64, 128, 256, 512):
            raise ValueError(f"data_bits must be 32, 64, 128, 256 or 512, not {self.data_bits!r}")

    @property
    def vlnv(self):
        """Vendor, library, name and version, as Vivado writes them."""
        return _vlnv(self)

    @property
    def masters(self):
        """Name and bits of the master, as the packaging reads them."""
        return f"m_axi {self.data_bits}"

    def settings(self, ps):
        """What the block design must know besides: nothing."""
        return {}

    def registers(self, ps):
        """Addresses by the cell of the block design whose registers are there."""
        return {self.name: ADDRESSES[ps.type]["core"]}


def write_project(folder, rtl, info, board):
    """Write all that Vivado needs to go from Verilog to a bitstream.

    Parameters
    ----------
    folder : path
        Gets ``ip/`` and ``vivado/``; they may exist.
    rtl : :class:`str` or :class:`pathlib.Path`
        Verilog text of the core, or the file that holds it.
    info : :class:`Ip` or :class:`MemoryIp`
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
        "ip_description": info.description,
        "ip_register_bytes": REGISTER_BYTES,
        "ip_streams": info.streams,
        "ip_masters": info.masters,
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
        _write(vivado / "cells.tcl", _script("cells")),
        _write(vivado / "block_design.tcl", _script(info.script)),
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
        values |= {
            "board_part": ps.board_part or "",
            "design": DESIGN,
            "clock_mhz": f"{info.clock_mhz:g}",
            "dma_port": ps.dma_port,
            "core_address": f"0x{ADDRESSES[ps.type]['core']:08X}",
            **info.settings(ps),
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
        rows = [
            (f"registers of `{cell}`", f"0x{at:08X}") for cell, at in info.registers(ps).items()
        ]
        numbers = [str(number) for number in INTERRUPTS[ps.type][: len(info.interrupts)]]
        rows += [
            (f"interrupts of {', '.join(info.interrupts)}", f"{', '.join(numbers)} at the GIC"),
            ("clock", f"{info.clock_mhz:g} {_README_CLOCK}"),
        ]
        parts.append(
            _README_BOARD.format(
                rows="\n".join(f"| {what} | {where} |" for what, where in rows),
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
{rows}

## Board files

{files}
"""

_README_CLOCK = (
    "MHz are asked for; what the processor system's dividers make of that is in the timing report"
)

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
