"""Synthesise the units of floating-point and fixed-point arithmetic with Yosys.

    python benchmarks/floats.py
    python benchmarks/floats.py --family xcup --units "fp32 multiplier" "fp32 adder"

What a unit takes of a Xilinx part, and its longest path between registers: how many LUTs are on it,
a carry chain counting as one more. These figures are from before place and route.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from dataclasses import dataclass
from functools import partial
from json import dumps, loads
from pathlib import Path
from tempfile import TemporaryDirectory

from columns import columns

from streamtrain.build.errors import BuildError
from streamtrain.build.synth import SYNTHESISED, Resources, first_error, run_yosys, yosys_version
from streamtrain.numeric import MultiplyAdd, arithmetic
from streamtrain.pipeline.generate import verilog_of

FORMATS = ("fp32", "bf16", "fp16", "fixed<16,4>")
_TOP = "unit"
_SCRIPT = """\
read_verilog design.v
synth_xilinx -family {family} -flatten -noiopad -noclkbuf -top {top}
delete t:$scopeinfo
opt_clean -purge
write_json netlist.json
"""


def units():
    """Functions that make each unit, by name."""
    found = {}
    for name in FORMATS:
        kind = arithmetic(name)
        found[f"{name} multiplier"] = kind.multiplier
        if (
            name == "fp32" or "fixed" in name
        ):  # the accumulators of all floating-point formats are FP32
            found[f"{name} adder"] = kind.adder
        found[f"{name} multiply-add"] = partial(MultiplyAdd, kind)
        if name != "fp32":
            found[f"{name} narrow"] = kind.narrow
            found[f"{name} widen"] = kind.widen
        found[f"{name} maximum"] = kind.maximum
        found[f"{name} relu"] = kind.relu
    return found


@dataclass(frozen=True)
class Figures:
    """A unit's latency in cycles, its resources, and the LUTs and carry chains of its longest path."""

    latency: int
    resources: Resources
    levels: int


def measure(unit, family="xc7"):
    """:class:`Figures` of a unit. Raises :exc:`BuildError` if Yosys fails."""
    with TemporaryDirectory(prefix="streamtrain-") as work:
        folder = Path(work)
        (folder / "design.v").write_text(verilog_of(unit, _TOP))
        (folder / "synthesise.ys").write_text(_SCRIPT.format(family=family, top=_TOP))
        output = run_yosys(folder)
        if not (folder / "netlist.json").exists():
            raise BuildError(first_error(output), step="synthesise")
        cells = loads((folder / "netlist.json").read_text())["modules"][_TOP]["cells"]
    used = Resources.from_cells(Counter(cell["type"] for cell in cells.values()))
    return Figures(unit.latency, used, levels(cells.values()))


_LOGIC = ("LUT", "INV", "CARRY", "MUXF")


def levels(cells):
    """LUTs on the longest path between registers; a carry chain counts as one more.

    Parameters
    ----------
    cells : sequence of dict
        As in Yosys' JSON: ``type``, ``port_directions`` and ``connections``.
    """
    drivers, ends = {}, []
    for cell in cells:
        logic = cell["type"].startswith(_LOGIC)
        for port, nets in cell["connections"].items():
            if cell["port_directions"][port] == "input" and not logic:
                ends += nets
            elif cell["port_directions"][port] == "output" and logic:
                drivers.update((net, (cell, place)) for place, net in enumerate(nets))
    known = {}

    def depth(net):
        if net not in drivers:  # of a register, or constant
            return 0
        if net not in known:
            cell, place = drivers[net]
            chain = cell["type"].startswith("CARRY")
            deepest = 0
            for port, nets in cell["connections"].items():
                if cell["port_directions"][port] != "input":
                    continue
                # A carry goes upwards, from one cell of its chain to the next without a new level.
                own = 0 if cell["type"].startswith("MUXF") or (chain and port == "CI") else 1
                seen = nets[: place + 1] if chain else nets
                deepest = max([deepest, *(depth(other) + own for other in seen)])
            known[net] = deepest
        return known[net]

    return max(map(depth, ends), default=0)


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if a multiplier has other DSP slices."""
    made = units()
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=SYNTHESISED, default="xc7")
    parser.add_argument("--units", nargs="+", choices=made, default=list(made), metavar="UNIT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    results = {}
    for name in options.units:
        print(name, file=sys.stderr, flush=True)
        results[name] = measure(made[name](), options.family)
    print(describe(results, options.family))
    if options.json:
        figures = {
            name: {
                "latency": found.latency,
                "dsp": found.resources.dsp,
                "lut": found.resources.lut,
                "ff": found.resources.ff,
                "levels": found.levels,
            }
            for name, found in results.items()
        }
        text = dumps(
            {"yosys": yosys_version(), "family": options.family, "units": figures}, indent=2
        )
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if all(as_announced(name, results[name], options.family) for name in results) else 1


def as_announced(name, found, family):
    """Whether a unit has the DSP slices that its arithmetic says."""
    kind, _, part = name.rpartition(" ")
    multiplies = part in {"multiplier", "multiply-add"}
    return found.resources.dsp == (arithmetic(kind).multiplier_dsp(family) if multiplies else 0)


def describe(results, family):
    """Results as a table."""
    header = ("unit", "cycles", "DSP", "LUT", "FF", "levels")
    rows = [
        (
            name,
            str(found.latency),
            str(found.resources.dsp),
            str(found.resources.lut),
            str(found.resources.ff),
            str(found.levels),
        )
        for name, found in results.items()
    ]
    return (
        f"Synthesised for {family} by Yosys {yosys_version()}; LUTs are not paired yet; levels are LUTs and "
        f"carry chains\n\n{columns(header, rows)}"
    )


if __name__ == "__main__":
    sys.exit(main())
