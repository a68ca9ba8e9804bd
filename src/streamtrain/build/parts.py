"""What a build does differently for parts of different makers."""

from collections import Counter
from dataclasses import dataclass
from json import loads
from pathlib import Path
from shutil import copyfile

from streamtrain.build.ecp5 import Part, nextpnr_version, pack, place_and_route, synthesise_ecp5
from streamtrain.build.report import RESOURCES
from streamtrain.build.serial_board import SerialBoard, SerialClocks, board_pins, constraints
from streamtrain.build.synth import SYNTHESISED, synthesise, yosys_version
from streamtrain.host.uio import uio_overlay
from streamtrain.pipeline.generate import verilog_of
from streamtrain.vivado import run as run_vivado
from streamtrain.vivado import write_project
from streamtrain.vivado.project import DMA_BYTES, INTERRUPTS, REGISTER_BYTES

__all__ = ["TOP", "AmdBuild", "Ecp5Build", "ecp5_resources", "part_build"]

TOP = "streamtrain"
"""Name of the files that boards load."""

_BOARD_TOP = "board"
_SEEDS = 3  # placements that are tried until one meets the clock


@dataclass(frozen=True)
class Implemented:
    """What came of placing and routing a design.

    Parameters
    ----------
    note : :class:`str`
        In a line: what came of it, or why it was not done.
    summary : dict
        ``routed`` (what of :data:`~streamtrain.build.report.RESOURCES` it takes), ``timing``, ``power``;
        empty if it was not done.
    """

    note: str
    summary: dict


def part_build(board, core="streaming"):
    """The class that builds a core for a board: :class:`AmdBuild` or :class:`Ecp5Build`.

    Raises
    ------
    ValueError
        If nothing builds for its part, or not this core.
    """
    family = board.device.family
    for kind in (AmdBuild, Ecp5Build):
        if family in kind.families and core not in kind.cores:
            raise ValueError(
                f"Builds of the {core} core are for parts of the families {', '.join(AmdBuild.families)}, whose "
                f"boards give it memory behind AXI; {board.name} has a part of {family} ({board.device.name}), and "
                f"a serial line"
            )
        if family in kind.families:
            return kind
    known = ", ".join((*AmdBuild.families, *Ecp5Build.families))
    raise ValueError(
        f"Builds are for parts of the families {known}, but {board.name} has a part of {family} "
        f"({board.device.name})"
    )


class AmdBuild:
    """Builds for parts of AMD: Yosys counts, Vivado implements where it is there.

    Parameters
    ----------
    board : :class:`~streamtrain.explore.devices.Board`
    core : :class:`~streamtrain.build.core.CoreBuild`
    clock_mhz : :class:`float`
    """

    families = SYNTHESISED
    cores = ("streaming", "unified")

    def __init__(self, board, core, clock_mhz):
        self.board, self.core, self.clock_mhz = board, core, clock_mhz

    @staticmethod
    def check():
        """Raise :exc:`BuildError` if a tool is missing that a step cannot do without."""
        yosys_version()

    def package(self, folder, verilog):
        """Write what tools for the part need besides the IP."""
        write_project(folder, verilog, self.core.ip(), self.board)

    def synthesise(self, folder, progress):
        """Resources by the names of :data:`~streamtrain.build.report.RESOURCES`."""
        top = self.core.top
        resources, _ = synthesise(
            folder / "ip" / f"{top}.v", top, family=self.board.device.family, progress=progress
        )
        return {name: getattr(resources, name) for name in RESOURCES}

    def implement(self, folder, progress):
        """Run Vivado if it is there. Returns an :class:`Implemented`."""
        if self.board.ps is not None:
            deploy = folder / "deploy"
            deploy.mkdir(exist_ok=True)
            (deploy / f"{TOP}.dtso").write_text(
                _overlay(self.core, self.board.ps), encoding="utf-8"
            )
        done = run_vivado(folder)
        if not done.ran:
            return Implemented(done.note, {})
        for product in done.products:
            _deploy(folder, product)
        found = done.summary
        return Implemented(
            done.note,
            {"routed": found["resources"], "timing": found["timing"], "power": found["power"]},
        )


class Ecp5Build:
    """Builds for boards with an ECP5 and a serial line, with open tools.

    Parameters
    ----------
    board : :class:`~streamtrain.explore.devices.Board`
    core : :class:`~streamtrain.build.streaming.StreamingBuild`
    clock_mhz : :class:`float`

    Raises
    ------
    ValueError
        If the board is not described in amaranth-boards, or its PLL cannot make the clock.
    """

    families = ("ecp5",)
    cores = ("streaming",)

    def __init__(self, board, core, clock_mhz):
        if not board.platform:
            raise ValueError(
                f"{board.name} names no platform of amaranth-boards, so its pins are not known: builds "
                f"are for boards such as ulx3s_85f"
            )
        self.board, self.core, self.clock_mhz = board, core, clock_mhz
        self.part = Part.from_name(board.part)
        input_mhz, self.pins = board_pins(board.platform)
        self.clocks = SerialClocks(input_mhz, clock_mhz)

    @staticmethod
    def check():
        """Raise :exc:`BuildError` if a tool is missing that a step cannot do without."""
        yosys_version()
        nextpnr_version()

    def package(self, folder, verilog):
        """Write the board's top module, around the same trainer, and its constraints."""
        out = folder / "ecp5"
        out.mkdir(exist_ok=True)
        top = SerialBoard(self.core.format, self.clocks.input_mhz, self.clocks.clock_mhz)
        text = verilog_of(top, _BOARD_TOP)
        (out / f"{_BOARD_TOP}.v").write_text(text, encoding="utf-8")
        lpf = constraints(self.pins, self.clocks.input_mhz)
        (out / f"{_BOARD_TOP}.lpf").write_text(lpf, encoding="utf-8")

    def _netlist(self, folder, progress=None):
        return synthesise_ecp5(folder / "ecp5" / f"{_BOARD_TOP}.v", _BOARD_TOP, progress=progress)[
            0
        ]

    def synthesise(self, folder, progress):
        """Resources by the names of :data:`~streamtrain.build.report.RESOURCES`."""
        return ecp5_resources(self._netlist(folder, progress), _BOARD_TOP)

    def implement(self, folder, progress):
        """Place, route, and write the bitstream. Returns an :class:`Implemented`.

        If the clock is missed, other placements are tried, and the best one is kept.
        """
        lpf = (folder / "ecp5" / f"{_BOARD_TOP}.lpf").read_text(encoding="utf-8")
        netlist, found = self._netlist(folder), []
        for seed in range(1, _SEEDS + 1):
            routed, config, _ = place_and_route(
                netlist, self.part, lpf=lpf, mhz=self.clock_mhz, seed=seed, progress=progress
            )
            found.append((routed.fmax_mhz, -seed, routed, config))
            if routed.fmax_mhz >= self.clocks.clock_mhz:
                break
        _, seed, routed, config = max(found)
        bitstream = folder / "ecp5" / f"{TOP}.bit"
        bitstream.write_bytes(pack(config))
        (folder / "ecp5" / "critical_path.txt").write_text(f"{routed}\n", encoding="utf-8")
        _deploy(folder, bitstream)
        met = routed.fmax_mhz >= self.clocks.clock_mhz
        timing = {
            "met": met,
            "clock_mhz": self.clocks.clock_mhz,
            "fmax_mhz": routed.fmax_mhz,
            "seed": -seed,
            "critical_path": [f"{hop.step} {hop.name}" for hop in routed.critical_path],
        }
        used = {name: count for name, (count, _) in routed.utilisation.items()}
        verdict = "met" if met else "MISSED"
        return Implemented(
            f"nextpnr: {routed.fmax_mhz:.1f} MHz routed, {self.clocks.clock_mhz:g} MHz {verdict}; "
            f"deploy/{bitstream.name}",
            {"routed": _routed_resources(used), "timing": timing},
        )


def _overlay(core, ps):
    """Device tree overlay for Linux on a processor system of this kind."""
    info = core.ip()
    addresses = info.registers(ps)
    return uio_overlay(
        addresses[info.name],
        addresses.get("axi_dma"),
        firmware=f"{TOP}.bit.bin",
        control_bytes=REGISTER_BYTES,
        dma_bytes=DMA_BYTES,
        buffer_bytes=core.buffer_bytes,
        interrupt=INTERRUPTS[ps.type][len(info.interrupts) - 1],  # the core's own is the last one
        **{"PS7": {}, "PS8": {"address_cells": 2, "controller": "gic"}}[ps.type],
    )


def _deploy(folder, product):
    deploy = folder / "deploy"
    deploy.mkdir(exist_ok=True)
    copyfile(product, deploy / Path(product).name)


def ecp5_resources(netlist, top):
    """Resources by the names of :data:`~streamtrain.build.report.RESOURCES`, from a netlist of Yosys.

    A carry cell is two LUTs, a LUT RAM of 16 words and 4 bits is four.
    """
    module = loads(netlist)["modules"][top]
    cells = Counter(cell["type"] for cell in module["cells"].values())
    return {
        "dsp": cells["MULT18X18D"],
        "bram36": cells["DP16KD"] / 2,
        "lut": cells["LUT4"] + 2 * cells["CCU2C"] + 4 * cells["TRELLIS_DPR16X4"],
        "ff": cells["TRELLIS_FF"],
    }


def _routed_resources(used):
    """From nextpnr's count of what is used."""
    return {
        "dsp": used.get("MULT18X18D", 0),
        "bram36": used.get("DP16KD", 0) / 2,
        "lut": used.get("TRELLIS_COMB", 0),
        "ff": used.get("TRELLIS_FF", 0),
    }
