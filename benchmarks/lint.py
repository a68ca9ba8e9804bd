"""Lint the whole IP of the benchmarks' nets, and print how many warnings nothing explains.

    python benchmarks/lint.py
    python benchmarks/lint.py --nets M S --foldings small

Each net is linted with few multipliers and with the foldings that it is measured with. The exit status
is 1 if a warning is left.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from time import perf_counter

from columns import columns
from nets import BOARD, NETS

import streamtrain as st
from streamtrain.build.lint import WAIVERS, lint
from streamtrain.bus import PacketFormat
from streamtrain.bus.generate import generate_ip

SMALL = 16
"""Multipliers of a small design."""

FOLDINGS = ("small", "own")


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    rows, left, waived = [], [], set()
    for name in options.nets:
        for foldings in options.foldings:
            row, found = measure(name, foldings)
            rows.append(row)
            left += [f"{name}, {foldings}: {warning}" for warning in found.warnings]
            waived |= found.waived.keys()
    print(describe(rows, found.tools))
    idle = [waiver for number, waiver in enumerate(WAIVERS) if number not in waived]
    print(*left, sep="\n")
    for waiver in idle:
        print(f"explains nothing here: {waiver.code}, {waiver.message}")
    return int(bool(left))


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--foldings", nargs="+", choices=FOLDINGS, default=FOLDINGS)
    return parser


def measure(name, foldings):
    """A row of the table, and the :class:`~streamtrain.build.lint.Lint`."""
    net = NETS[name]
    own = net.design() if foldings == "own" else st.plan(net.network(), BOARD, multipliers=SMALL)
    print(f"{name}, {foldings}: {own.multipliers:,} multipliers", file=sys.stderr, flush=True)
    verilog = generate_ip(PacketFormat(own.plan))
    began = perf_counter()
    found = lint(verilog, "streamtrain")
    row = {
        "net": name,
        "multipliers": own.multipliers,
        "lines": verilog.count("\n"),
        "unexplained": len(found.warnings),
        "explained": sum(found.waived.values()),
        "kinds": len(found.waived),
        "seconds": perf_counter() - began,
    }
    return row, found


def describe(rows, tools):
    """Rows as a table."""
    ran = ", ".join(f"{name} {version}" for name, version in tools.items() if version)
    header = ("net", "multipliers", "lines", "unexplained", "explained", "kinds", "seconds")
    body = [
        (row["net"], *(f"{row[name]:,}" for name in header[1:-1]), f"{row['seconds']:.0f}")
        for row in rows
    ]
    return f"Warnings of {ran}\n\n{columns(header, body)}"


if __name__ == "__main__":
    sys.exit(main())
