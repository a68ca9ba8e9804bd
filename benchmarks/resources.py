"""Synthesise designs with Yosys, and print what they take of a Xilinx part.

    python benchmarks/resources.py
    python benchmarks/resources.py --nets M
    python benchmarks/resources.py design.json my_network.py

Without designs, the demo's is synthesised (a CNN for 8x8 digits on a PYNQ-Z2), and a small one.
A design takes one DSP slice for each multiplier, and one for the loss. These figures are from
before place and route.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from json import dumps
from pathlib import Path
from time import perf_counter

from columns import columns
from nets import NETS, convolutional

import streamtrain as st
from streamtrain.build.synth import synthesise, yosys_version
from streamtrain.description import default_network, load_description
from streamtrain.design import Design
from streamtrain.pipeline.generate import generate_verilog
from streamtrain.pipeline.resources import loss_dsp

TOP = "streamtrain"


def defaults():
    """The demo's design and a small one, by name."""
    small = convolutional((1, 8, 8), "4P-8P-FC10", lr=2**-5)
    return {
        "demo": st.plan(default_network()),
        "small": st.plan(
            small, foldings={"conv1": (4, 1, 3), "conv2": (4, 2, 3), "linear1": (2, 4, 1)}
        ),
    }


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if a design has other DSP slices."""
    options = _parser().parse_args(arguments)
    designs = {name: NETS[name].design() for name in options.nets}
    for path in options.descriptions:
        described = load_description(path)
        designs[path] = described if isinstance(described, Design) else st.plan(described)
    results = [measure(name, design) for name, design in (designs or defaults()).items()]
    print(describe(results))
    if options.json:
        options.json.write_text(dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if all(result["dsp_as_announced"] for result in results) else 1


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("descriptions", nargs="*", help="Python or JSON files, as the build takes")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[], help="of the benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def measure(name, design):
    """Resources of a design, by the names of :class:`~streamtrain.build.synth.Resources`."""
    family = st.load_board(design.board).device.family
    print(f"{name}: {design.multipliers:,} multipliers", file=sys.stderr, flush=True)
    began = perf_counter()
    used, log = synthesise(generate_verilog(design.plan, name=TOP), TOP, family=family)
    return {
        "design": name,
        "board": design.board,
        "yosys": yosys_version(),
        "multipliers": design.multipliers,
        "loss_dsp": loss_dsp(design.plan),
        "dsp": used.dsp,
        "dsp_as_announced": used.dsp == design.dsp,
        "bram36": used.bram36,
        "lut": used.lut,
        "ff": used.ff,
        "seconds": perf_counter() - began,
        "log": str(log),
    }


def describe(results):
    """Results as a table."""
    header = (
        "design",
        "multipliers",
        "DSP",
        "multipliers + loss",
        "BRAM36",
        "LUT",
        "FF",
        "LUT each",
        "FF each",
        "seconds",
    )
    rows = [
        (
            found["design"],
            f"{found['multipliers']:,}",
            f"{found['dsp']:,}",
            "yes" if found["dsp_as_announced"] else "NO",
            f"{found['bram36']:g}",
            f"{found['lut']:,}",
            f"{found['ff']:,}",
            f"{found['lut'] / found['multipliers']:.0f}",
            f"{found['ff'] / found['multipliers']:.0f}",
            f"{found['seconds']:.0f}",
        )
        for found in results
    ]
    return (
        f"Synthesised by Yosys {results[0]['yosys']}; a RAMB18 is half a BRAM36, "
        f"LUTs are not paired yet; each is for a multiplier\n\n{columns(header, rows)}"
    )


if __name__ == "__main__":
    sys.exit(main())
