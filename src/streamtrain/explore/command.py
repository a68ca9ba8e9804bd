"""The command line of the search: a thin mirror of :func:`streamtrain.explore.search.explore`."""

import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import redirect_stdout
from pathlib import Path
from re import split

from streamtrain.description import default_network, load_description
from streamtrain.explore.devices import boards_table
from streamtrain.explore.evidence import EVIDENCE
from streamtrain.explore.front import LIMITS, OBJECTIVES
from streamtrain.explore.search import CORES, explore
from streamtrain.network import Network
from streamtrain.tables import text_table

__all__ = [
    "DEFAULT_BOARD",
    "DEFAULT_OBJECTIVES",
    "LIMIT_OPTIONS",
    "add_limits",
    "build_command",
    "given_limits",
    "main",
]

DEFAULT_BOARD = "pynq_z2"

DEFAULT_OBJECTIVES = ("samples_per_s", "dsp", "bram36")

_EPILOG = f"""\
objectives: {", ".join(OBJECTIVES)}

Without a description, the front of a CNN for the 8x8 digits that come with scikit-learn is searched.
A Python description defines `network`; a JSON one is what `network.to_json()` wrote.

exit status: 0 done, 1 no design keeps the limits, 2 bad input, 130 interrupted
"""

LIMIT_OPTIONS = {
    "samples_per_s": ("--samples-per-second", "X", "train at least so many samples per second"),
    "latency_us": ("--latency-us", "X", "predict within so many microseconds"),
    "dsp": ("--dsp", "N", "use at most so many DSP slices"),
    "bram36": ("--bram36", "N", "use at most so many block RAMs of 36 Kbit"),
    "lut": ("--lut", "N", "use at most so many LUTs (estimated)"),
}
"""Option, kind of value, and help of each limit."""


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.boards:
        print(text_table(*boards_table()))
        return 0
    try:
        with redirect_stdout(sys.stderr):  # whatever a description or a search prints
            front = _search(options)
            written = _write(front, options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"streamtrain.explore: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("streamtrain.explore: interrupted", file=sys.stderr)
        return 130
    if options.json:
        print(front.to_json())
    elif not options.quiet:
        print(front)
        if front and front.batch == 1 and front.variants[0].core == "streaming":
            command = build_command(front, front.point(front.knee()), options.description)
            print(f"\nThe knee is built by: {command}")
    for path in [] if options.quiet else written:
        print(f"streamtrain.explore: wrote {path}", file=sys.stderr)
    return 0 if front else 1


def _parser():
    parser = ArgumentParser(
        prog="python -m streamtrain.explore",
        description="Find the best designs that train a CNN: speed against resources.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "description", nargs="?", help="Python or JSON file that describes a network"
    )
    parser.add_argument(
        "--board",
        default=DEFAULT_BOARD,
        help="name of a board or a device, or its TOML file (default: %(default)s)",
    )
    parser.add_argument("--boards", action="store_true", help="list what is known, and stop")
    parser.add_argument(
        "--core",
        choices=CORES,
        default=CORES[0],
        help="a pipeline of all layers, one array with DRAM behind it, or the faster of both (default: %(default)s)",
    )
    parser.add_argument(
        "--numbers",
        metavar="A,B",
        help="formats to try with the unified core, such as fp32,bf16,fixed<16,8> (default: fp32)",
    )
    parser.add_argument(
        "--objective",
        default=",".join(DEFAULT_OBJECTIVES),
        metavar="A,B",
        help="what designs are compared by (default: %(default)s)",
    )
    add_limits(parser)
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="B",
        help="samples between two updates; with --core auto, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--search",
        choices=("exact", "nsga2"),
        default="exact",
        help="nsga2 is a genetic algorithm, to compare with (default: %(default)s)",
    )
    parser.add_argument(
        "--evidence",
        choices=EVIDENCE,
        help="confirm the fastest design, the knee and the smallest one, on standard error",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all designs to a CSV file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write an interactive page")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture, PNG or SVG")
    parser.add_argument(
        "--json", action="store_true", help="print the front as JSON, and nothing else"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress and no table")
    return parser


def add_limits(parser):
    """Add an option for each limit that a command line can set."""
    for name, (option, metavar, text) in LIMIT_OPTIONS.items():
        kind = int if metavar == "N" and name != "bram36" else float
        parser.add_argument(option, dest=name, type=kind, metavar=metavar, help=text)


def given_limits(options):
    """Limits that were given, by the names that fronts have for them."""
    return {name: limit for name in LIMIT_OPTIONS if (limit := getattr(options, name)) is not None}


def _search(options):
    for path in (options.csv, options.html, options.plot):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"Cannot write {path}: there is no folder {path.parent}")
    network = load_description(options.description) if options.description else default_network()
    if not isinstance(network, Network):
        raise ValueError(
            f"{options.description} describes a design, which has its foldings already; a search "
            f"takes a network"
        )
    return explore(
        network,
        options.board,
        core=options.core,
        numbers=_formats(options.numbers) if options.numbers else None,
        objectives=tuple(options.objective.split(",")),
        constraints=given_limits(options),
        **({"max_batch": options.batch} if options.core == "auto" else {"batch": options.batch}),
        search=options.search,
        evidence=options.evidence,
        progress=not options.quiet,
    )


def _formats(names):
    """Names of formats, which may have commas of their own: ``"bf16,fixed<16,8>"``."""
    return [name.strip() for name in split(r",(?![^<]*>)", names)]


def _write(front, options):
    """Write the files that are asked for. Returns their paths; an empty front has no picture."""
    written = []
    for path, write in (
        (options.csv, front.to_csv),
        (options.html, front.to_html),
        (options.plot, front.plot if front else None),
    ):
        if path is not None and write is not None:
            write(path)
            written.append(path)
    return written


def build_command(front, point, description=None):
    """The command that builds a point of a front: its own figures are the limits.

    Nothing on the front is better in one objective without being worse in another, so the best in
    the first objective, with all others at most as bad as the point's, is the point.
    """
    first, *others = front.objectives
    limits = {**front.constraints, **{name: getattr(point, name) for name in others}}
    words = ["python", "-m", "streamtrain.build", *([str(description)] if description else [])]
    words += ["--board", front.board, "--objective", first]
    for name in [name for name in LIMITS if name in limits and name in LIMIT_OPTIONS]:
        words += [LIMIT_OPTIONS[name][0], f"{limits[name]!r}"]
    return shlex.join(words)
