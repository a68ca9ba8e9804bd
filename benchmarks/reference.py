"""Synthesise the reference designs, route one of them, and print what changed since figures were kept.

    python benchmarks/reference.py
    python benchmarks/reference.py --cheap
    python benchmarks/reference.py --route --keep

Without ``--route`` the clock is that of the last time. ``--cheap`` leaves out what takes longer than a
minute. ``--keep`` writes what was found to ``benchmarks/reference.json``, with date and tools. A change is
told, and is no failure.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from time import perf_counter

from columns import columns
from nets import NETS

import streamtrain as st
from streamtrain.build.ecp5 import (
    Part,
    nextpnr_version,
    place_and_route,
    synthesise_ecp5,
)
from streamtrain.build.parts import ecp5_resources
from streamtrain.build.synth import synthesise, yosys_version
from streamtrain.bus import PacketFormat
from streamtrain.bus.generate import generate_ip
from streamtrain.description import default_network
from streamtrain.design import Design
from streamtrain.pipeline.generate import generate_verilog

KEPT = Path(__file__).with_suffix(".json")
"""The figures that changes are told against."""

TOP = "streamtrain"
SEED = 1  # of nextpnr: other ones find clocks that are some percent away

FIGURES = {"fmax_mhz": "Fmax MHz", "lut": "LUT", "ff": "FF", "dsp": "DSP", "bram36": "BRAM36"}
"""What is measured, and what tables call it."""


@dataclass(frozen=True)
class Reference:
    """A design that figures are kept of.

    Parameters
    ----------
    title : :class:`str`
    plan : callable
        Gives the :class:`~streamtrain.design.Design`.
    whole : :class:`bool`
        Whether it is the whole IP, or the training pipeline without buses.
    cheap : :class:`bool`
        Whether synthesis takes about a minute at most.
    """

    title: str
    plan: Callable[[], Design]
    whole: bool
    cheap: bool


REFERENCES = {
    "digits": Reference(
        "digits, ULX3S-85F, pipeline",
        lambda: st.plan(default_network(), board="ulx3s_85f", multipliers=17),
        whole=False,
        cheap=True,
    ),
    "M": Reference(
        "M, PYNQ-Z2 (XC7Z020), IP",
        lambda: st.plan(NETS["M"].network(), board="pynq_z2", multipliers=48),
        whole=True,
        cheap=False,
    ),
    "E": Reference(
        "E, ZC706 (XC7Z045), IP",
        lambda: st.plan(NETS["E"].network(), board="zc706", multipliers=128),
        whole=True,
        cheap=False,
    ),
}


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    kept = loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    names = [name for name in options.designs if REFERENCES[name].cheap or not options.cheap]
    found = {name: measure(name, route=options.route) for name in names}
    print(describe(found, kept))
    if options.keep:
        for name, own in found.items():
            kept[name] = _merged(own, kept.get(name))
        KEPT.write_text(dumps(kept, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--designs", nargs="+", choices=REFERENCES, default=list(REFERENCES))
    parser.add_argument("--cheap", action="store_true", help="only what takes about a minute")
    parser.add_argument("--route", action="store_true", help="place and route where it can be done")
    parser.add_argument("--keep", action="store_true", help=f"write {KEPT.name}")
    return parser


def measure(name, *, route):
    """Figures of a design, with the tools that they come from."""
    reference = REFERENCES[name]
    design = reference.plan()
    board = st.load_board(design.board)
    print(f"{reference.title}: {design.multipliers:,} multipliers", file=sys.stderr, flush=True)
    began = perf_counter()
    if reference.whole:
        verilog = generate_ip(PacketFormat(design.plan), TOP)
    else:
        verilog = generate_verilog(design.plan, TOP)
    tools, fmax = {"yosys": yosys_version()}, {}
    if board.device.family == "ecp5":
        netlist, _ = synthesise_ecp5(verilog, TOP)
        used = ecp5_resources(netlist, TOP)
        if route:
            part = Part.from_name(board.part)
            routed, _, _ = place_and_route(netlist, part, mhz=design.clock_mhz, seed=SEED)
            tools["nextpnr"] = nextpnr_version()
            fmax = {"fmax_mhz": round(routed.fmax_mhz, 1)}
    else:
        resources, _ = synthesise(verilog, TOP, family=board.device.family)
        used = {figure: getattr(resources, figure) for figure in FIGURES if figure != "fmax_mhz"}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "tools": tools,
        "multipliers": design.multipliers,
        "seconds": round(perf_counter() - began),
        **fmax,
        **used,
    }


def _merged(own, kept):
    """What is kept: a clock stays, with its tool, where nothing was routed this time."""
    if kept and "fmax_mhz" in kept and "fmax_mhz" not in own:
        tools = kept["tools"] | own["tools"]
        return own | {"fmax_mhz": kept["fmax_mhz"], "tools": tools}
    return own


def describe(found, kept):
    """A table of what was found, and under each design what changed since figures were kept."""
    header = ("design", "multipliers", *FIGURES.values(), "seconds")
    rows, told = [], []
    for name, own in found.items():
        rows.append((
            REFERENCES[name].title,
            f"{own['multipliers']:,}",
            *(f"{own[figure]:,g}" if figure in own else "-" for figure in FIGURES),
            str(own["seconds"]),
        ))
        told.append(f"{REFERENCES[name].title}: {change(own, kept.get(name))}")
    return "\n".join([
        "Synthesised by Yosys before place and route; Fmax where it was routed by nextpnr",
        "",
        columns(header, rows),
        "",
        *told,
    ])


def change(own, kept):
    """In a line: each figure that is another one than the one that was kept."""
    if kept is None:
        return "no figures were kept"
    since = f"since {kept['date']}"
    tools = [
        f"{tool} {kept['tools'][tool]} was then, now {version}"
        for tool, version in own["tools"].items()
        if kept["tools"].get(tool, version) != version
    ]
    changed = [
        _change(FIGURES[figure], own[figure], kept[figure])
        for figure in FIGURES
        if figure in own and figure in kept and own[figure] != kept[figure]
    ]
    return "; ".join([", ".join(changed) + f" {since}" if changed else f"as {since}", *tools])


def _change(name, now, then):
    share = f" ({now / then - 1:+.1%})" if then else ""
    return f"{name} {then:,g} -> {now:,g}{share}"


if __name__ == "__main__":
    sys.exit(main())
