"""The command line: a thin mirror of :func:`streamtrain.build.build`."""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import redirect_stdout
from json import dumps

from streamtrain.build.check import check
from streamtrain.build.errors import BuildError
from streamtrain.build.flow import SEARCH_STEP, STEPS, build_planned
from streamtrain.build.search import Search
from streamtrain.description import default_network, load_description
from streamtrain.design import Design, UnifiedDesign, plan
from streamtrain.explore.command import DEFAULT_BOARD, LIMIT_OPTIONS, add_limits, given_limits
from streamtrain.explore.front import OBJECTIVES

__all__ = ["main"]

_PLANNED = {
    "board": "board", "core": "core", "multipliers": "multipliers", "numbers": "numbers", "lanes": "lanes",
    "batch": "max_batch",
}  # fmt: skip
_OPTIONS = {name: option for option, name in _PLANNED.items()}

_EPILOG = f"""\
steps: {", ".join(STEPS)}; with a search, {SEARCH_STEP} comes first

With a limit, an objective or --pareto, the Pareto front is searched, and the design on it that is best
in the objective and keeps the limits is built. OUT/report/pareto.html shows the whole front.

Without a description, a CNN for the 8x8 digits that come with scikit-learn is built for a PYNQ-Z2.
A Python description defines `network` (or `design`, which says its board and multipliers itself);
`st.plan` has what the command cannot say, such as buffers of the unified core;
a JSON one is what `network.to_json()` or `design.to_json()` wrote, such as OUT/design.json. An ONNX
model brings its weights. --check says what of a model is not supported, and what would be instead.

exit status: 0 done, 1 a step failed (its log is OUT.failed.log) or --check refused, 2 bad input,
130 interrupted

A build that failed, was interrupted or was stopped by --stop goes on after its last finished step when the same
command is given again. A complete one is made anew.
"""


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.check is not None:
            if options.description is not None:
                raise ValueError("--check takes the model itself: leave out the description")
            board = options.board or DEFAULT_BOARD
            planned = _given(options) if options.core not in {None, "streaming"} else {}
            planned.pop("board", None)
            return 0 if check(options.check, board, as_json=options.json, planned=planned) else 1
        with redirect_stdout(sys.stderr):  # whatever a description or a tool prints
            result = _build(options)
    except BuildError as error:
        print(f"streamtrain.build: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"streamtrain.build: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"streamtrain.build: interrupted; {options.out} is as it was, and the same command goes on "
            f"after the last step that was finished",
            file=sys.stderr,
        )
        return 130
    if options.json:
        print(dumps(result.summary, indent=2))
    elif not options.quiet:
        print(f"\n{result}")
    return 0


def _parser():
    parser = ArgumentParser(
        prog="python -m streamtrain.build",
        description="Make hardware that trains a CNN: Verilog, checked bit for bit, with a report.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "description",
        nargs="?",
        help="Python, JSON or ONNX file that describes a network or design",
    )
    parser.add_argument(
        "--check", metavar="MODEL", help="only say whether a model can be trained on the board"
    )
    parser.add_argument(
        "--board", help="name of a board or a device, or its TOML file (default: pynq_z2)"
    )
    parser.add_argument("--out", default="out", help="folder to make (default: %(default)s)")
    parser.add_argument(
        "--multipliers",
        type=int,
        metavar="N",
        help="at most this many (default: what leaves a quarter of the board's LUTs free)",
    )
    parser.add_argument(
        "--core",
        help="streaming (the default); unified: one array for all layers, with DRAM behind it; or auto: the faster one",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="samples of a mini-batch, at most (default: 1)"
    )
    unified = parser.add_argument_group("the unified core, instead of --multipliers")
    unified.add_argument(
        "--numbers", metavar="FORMAT", help="fp32, bf16, fp16 or fixed<16,8> (default: fp32)"
    )
    unified.add_argument("--lanes", type=int, metavar="N", help="N x N multipliers, such as 6 or 16")
    search = parser.add_argument_group("search, instead of --multipliers")
    add_limits(search)
    search.add_argument(
        "--objective",
        choices=tuple(OBJECTIVES),
        help="what the design is best in (default: dsp if a speed is asked for, else samples_per_s)",
    )
    search.add_argument(
        "--pareto", action="store_true", help="search, even without a limit or an objective"
    )
    parser.add_argument(
        "--data",
        default="digits",
        help="digits, mnist:DIR, cifar10:DIR, svhn:DIR, npz:FILE or images:DIR "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="images to train on in simulation (default: 4096; with the unified core 8 mini-batches)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="steps that are compared with the golden model (default: 200; with the unified core 3)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--stream-bytes",
        type=int,
        metavar="N",
        help="width of the AXI streams (default: 4); the unified core has none",
    )
    parser.add_argument(
        "--start",
        metavar="STEP",
        help="do this step and those after it anew, and take the others from the build that is there; "
        f"{STEPS[0]} is all of them",
    )
    parser.add_argument("--stop", metavar="STEP", help="the last step to do")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print summary.json or the verdict, and nothing else, to standard output",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _given(options):
    """What :func:`~streamtrain.plan` is asked for, by its names."""
    return {
        name: value
        for option, name in _PLANNED.items()
        if (value := getattr(options, option)) is not None
    }


def _build(options):
    described = load_description(options.description) if options.description else default_network()
    limits = given_limits(options)
    searches = [LIMIT_OPTIONS[name][0] for name in limits]
    searches += [f"--{name}" for name in ("objective", "pareto") if getattr(options, name)]
    given = _given(options)
    is_design = isinstance(described, Design | UnifiedDesign)
    if is_design and (given or searches):
        name = next(iter(given), "foldings")
        option = f"--{_OPTIONS[name]}" if given else searches[0]
        raise ValueError(
            f"{options.description} describes a design, which has its own {name}: "
            f"leave out {option}, or describe a network"
        )
    planned = [option for option, name in _PLANNED.items() if name in given and name != "board"]
    if planned and searches:
        raise ValueError(
            f"--{planned[0]} plans one design, and {searches[0]} searches many, of the streaming core at batch 1: "
            f"leave out one of them. Designs of the unified core: python -m streamtrain.explore --core unified"
        )
    search = None
    if searches:
        board = given.get("board", DEFAULT_BOARD)
        search = Search(described, board, limits, options.objective)

    def design(front):
        if search:
            return search.choose(front)
        return described if is_design else plan(described, **given)

    return build_planned(
        design,
        options.out,
        search=search,
        data=options.data,
        samples=options.samples,
        steps=options.steps,
        seed=options.seed,
        stream_bytes=options.stream_bytes,
        start=options.start,
        stop=options.stop,
        progress=not options.quiet,
    )
