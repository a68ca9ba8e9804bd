"""How far estimates are from what they estimate: the error tables of docs/estimates.md.

    python benchmarks/estimates.py resources
    python benchmarks/estimates.py resources --fit
    python benchmarks/estimates.py cycles

``resources`` synthesises designs with Yosys and compares DSP slices, block RAM, LUTs and flip-flops. The
LUTs' weights are fitted to the designs of one set, :data:`CALIBRATION`; those of the other,
:data:`VALIDATION`, share neither net nor foldings with them, and are what the errors are stated for. The
first run takes an hour or more on one core; results are kept in the cache, so that the next one takes a
minute. ``--fit`` prints the weights that fit best, for :data:`streamtrain.pipeline.tally.LUT_WEIGHTS`.

``cycles`` simulates the designs of ``cycle_designs.py`` at batch 1 and 16, and compares cycles of a step. The
first run compiles a model of each, which takes an hour or more on two cores; it can be interrupted.
"""

import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from statistics import median

import numpy as np
from columns import columns
from cycle_designs import BATCHES, designs
from scipy.optimize import nnls

import streamtrain as st
from streamtrain.build.synth import synthesise, yosys_version
from streamtrain.explore.evidence import TOTAL, confirm
from streamtrain.pipeline.generate import generate_verilog
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.resources import estimate_resources, lut_counts
from streamtrain.pipeline.tally import LUT_WEIGHTS

PAGE = Path(__file__).parents[1] / "docs" / "estimates.md"
TOP = "streamtrain"

RESOURCES = {"dsp": "DSP", "bram36": "BRAM36", "lut": "LUT", "ff": "FF"}
EXACT = ("dsp", "bram36")
MEDIAN, WORST = 0.10, 0.20  # of the others, at most
CYCLES_WORST = 0.01

PRIOR = 0.1
"""How much a weight of 1 counts in the fit: a weight that is off by 1 as much as a design whose LUTs are off
by this part. What is counted is LUTs already, so that no weight is far from 1."""

FORMATS = {
    "16": {},
    "18": {
        "weights": "fixed<18,3>", "activations": "fixed<18,5>", "logits": "fixed<18,8>",
        "errors": "fixed<18,3>",
    },
    "12": {
        "weights": "fixed<12,2>", "activations": "fixed<12,4>", "logits": "fixed<14,7>",
        "errors": "fixed<12,2>",
    },
    "8": {
        "weights": "fixed<8,2>", "activations": "fixed<8,3>", "logits": "fixed<12,6>",
        "errors": "fixed<8,1>",
    },
    "8 of 20": {
        "weights": "fixed<8,2>", "master": "fixed<20,4>", "activations": "fixed<8,3>",
        "logits": "fixed<12,6>", "errors": "fixed<10,1>",
    },
    "16 of 24": {"master": "fixed<24,4>"},
}  # fmt: skip
"""Formats by their bits; where weights are stored with more, "of" those."""

_CONV = re.compile(r"(\d+)k(\d)(v?)(n?)(R?)(P?)")
_LINEAR = re.compile(r"FC(\d+)(n?)(R?)")


@dataclass(frozen=True)
class Sample:
    """A design, in short.

    Parameters
    ----------
    shape : (channels, rows, columns)
    text : :class:`str`
        Such as ``"8k3RP-4k5vn-FC10"``: channels and kernel of each convolution, then features of each linear
        layer. Behind them ``v`` is for padding "valid", ``n`` for no bias, ``R`` for ReLU, ``P`` for a pool.
    foldings : :class:`str`
        Such as ``"2x1x9 4x4x1 1x2x1"``.
    formats : :class:`str`
        A key of :data:`FORMATS`.
    rounding : :class:`str`
    in_flight, max_batch : :class:`int`
    """

    shape: tuple
    text: str
    foldings: str
    formats: str = "16"
    rounding: str = "nearest"
    in_flight: int = 2
    max_batch: int = 1

    @property
    def net(self):
        """The net by name, input shape included."""
        return f"{'x'.join(map(str, self.shape))} {self.text}"

    @property
    def options(self):
        """What is not the default, as text."""
        return ", ".join(
            [f"{self.formats} bit"] * (self.formats != "16")
            + [self.rounding.replace("_", " ")] * (self.rounding != "nearest")
            + [f"{self.in_flight} in flight"] * (self.in_flight != 2)
            + [f"batch {self.max_batch}"] * (self.max_batch > 1)
        )

    def plan(self):
        """Its :class:`~streamtrain.pipeline.plan.Plan`."""
        layers, flat = [], False
        for part in self.text.split("-"):
            if found := _CONV.fullmatch(part):
                channels, kernel, valid, unbiased, relu, pool = found.groups()
                padding = "valid" if valid else "same"
                layers.append(st.Conv2d(int(channels), int(kernel), padding, not unbiased))
            else:
                features, unbiased, relu = _LINEAR.fullmatch(part).groups()
                layers += [] if flat else [st.Flatten()]
                flat, pool = True, ""
                layers.append(st.Linear(int(features), not unbiased))
            layers += [st.ReLU()] * bool(relu) + [st.MaxPool2d()] * bool(pool)
        network = st.Network(self.shape, layers, optimizer=st.SGD(2**-6))
        foldings = [tuple(map(int, folding.split("x"))) for folding in self.foldings.split()]
        rounding = {f"round_{what}": self.rounding for what in ("activations", "errors", "weights")}
        return lower(
            network,
            dict(zip(network.macs, foldings, strict=True)),
            st.Numbers(**FORMATS[self.formats], **rounding),
            in_flight=self.in_flight,
            max_batch=self.max_batch,
        )


CALIBRATION = (
    Sample((1, 6, 6), "2k3RP-FC3", "1x1x1 1x1x1", in_flight=1),
    Sample((1, 8, 8), "4k3RP-8k3RP-FC10", "4x1x3 2x4x3 2x4x1"),
    Sample((3, 7, 9), "6k1R-4k3nRP-FC5", "3x3x1 2x3x1 5x2x1", in_flight=3),
    Sample((1, 28, 28), "4k5RP-8k3RP-FC10", "1x1x25 1x2x3 2x2x1"),
    Sample((24, 1, 1), "FC32R-FC10", "8x2x1 5x4x1"),
    Sample((3, 32, 32), "4k3RP-4k3P-FC6n", "2x3x1 2x2x3 3x2x1", max_batch=16),
    Sample((2, 10, 10), "4k3R-6k3RP-FC12R-FC4", "2x2x9 3x1x3 2x2x1 1x3x1", "8"),
    Sample((1, 12, 12), "6k3RP-8k1R-FC7", "3x1x9 4x2x1 1x4x1", "18", max_batch=8),
    Sample((2, 9, 9), "4k3RP-6k3R-FC5", "2x1x3 2x2x3 5x1x1", "16 of 24", "stochastic"),
    Sample((1, 14, 14), "8k3P-FC10", "4x1x9 2x4x1", rounding="nearest_even", max_batch=16),
    Sample((3, 16, 16), "4k3R-4k3RP-8k3RP-8k1R-FC10", "1x1x3 2x2x1 2x1x9 2x2x1 1x2x1"),
    Sample((1, 10, 8), "2k5vRP-4k1nR-FC3", "1x1x5 2x2x1 1x1x1", "12", in_flight=1),
    Sample((4, 8, 8), "8k3nR-8k3n-FC8n", "4x2x3 2x4x3 4x2x1", in_flight=1),
    Sample(
        (1, 20, 20), "6k3RP-6k3RP-FC20R-FC10", "2x1x9 3x2x3 2x3x1 2x4x1", "8 of 20", max_batch=4
    ),
    Sample((6, 6, 6), "4k1RP-FC9", "4x6x1 3x4x1", "8", "stochastic", max_batch=16),
    Sample((1, 28, 28), "2k3RP-4k5RP-FC10", "2x1x1 2x1x5 1x4x1", in_flight=1),
    Sample((48, 1, 1), "FC40R-FC24R-FC10", "2x6x1 4x5x1 5x2x1", "12", "nearest_even", in_flight=3),
    Sample((2, 12, 12), "4k3RP-4k3RP-FC5", "4x2x1 1x4x9 1x1x1", "18"),
    Sample((3, 8, 8), "3k3R-9k3RP-FC7", "3x1x9 1x3x3 7x1x1", "16 of 24", max_batch=2),
    Sample((1, 32, 32), "8k3RP-4k3RP-FC4", "8x1x3 2x8x1 2x2x1", "12", in_flight=2),
)

VALIDATION = (
    Sample((1, 4, 4), "1k3RP-FC2", "1x1x1 1x1x1", in_flight=1),
    Sample((8, 1, 1), "FC4", "1x1x1"),
    Sample((2, 5, 5), "3k3R-FC4", "1x2x1 1x3x1", in_flight=1),
    Sample((1, 8, 8), "8k3RP-FC10", "2x1x9 5x8x1"),
    Sample((1, 28, 28), "4k3RP-8k3RP-FC10", "4x1x9 2x2x3 2x4x1"),
    Sample((3, 32, 32), "6k3RP-6k3RP-FC10", "3x3x3 2x3x1 5x2x1"),
    Sample((1, 28, 28), "6k5RP-FC10", "2x1x25 1x3x1"),
    Sample((16, 1, 1), "FC16R-FC16R-FC10", "4x4x1 4x4x1 5x4x1"),
    Sample((64, 1, 1), "FC32nR-FC10n", "8x4x1 2x8x1", in_flight=1),
    Sample((3, 9, 11), "5k3vRP-4k1R-FC6", "5x3x1 2x5x1 3x1x1", in_flight=3),
    Sample((2, 8, 8), "6k3R-6k3RP-8k3RP-FC10", "2x2x3 2x2x3 1x2x9 2x2x1", max_batch=16),
    Sample((1, 16, 16), "4k5RP-6k3RP-FC12R-FC10", "1x1x5 2x4x1 3x2x1 2x4x1", "8"),
    Sample((4, 10, 10), "8k1R-4k3RP-FC10", "8x4x1 1x2x9 2x1x1", "8", "nearest_even"),
    Sample((1, 12, 10), "4k3RP-8k3R-FC5", "2x1x9 4x1x3 5x2x1", "18", "stochastic"),
    Sample((3, 14, 14), "6k3RP-4k3RP-FC10", "2x3x3 2x6x1 2x2x1", "18", in_flight=1, max_batch=4),
    Sample((2, 16, 16), "4k3R-8k3RP-FC6", "4x2x3 2x1x9 2x2x1", "16 of 24"),
    Sample((1, 10, 10), "8k3nRP-8k3nRP-FC8n", "4x1x3 2x2x9 4x1x1", "16 of 24", "nearest_even", max_batch=16),
    Sample((5, 7, 7), "10k1-5k3P-FC3", "5x5x1 5x2x1 3x5x1", "12", in_flight=3),
    Sample((1, 24, 24), "4k5vRP-8k5vRP-FC10", "4x1x5 4x1x5 1x8x1", "12", "stochastic"),
    Sample((3, 32, 32), "8k3RP-8k1RP-FC4", "2x3x9 1x2x1 1x2x1", in_flight=1),
    Sample((1, 32, 32), "3k5RP-5k3RP-7k3RP-FC9", "3x1x1 1x3x3 1x1x3 3x1x1", max_batch=8),
    Sample((2, 6, 6), "4k3R-4k3R-4k3R-4k3RP-FC4", "2x1x3 2x2x3 1x2x3 1x2x1 1x2x1"),
    Sample((12, 4, 4), "6k1R-6k3RP-FC10R-FC5", "3x4x1 2x3x3 5x2x1 5x1x1", "8 of 20", "stochastic"),
    Sample((1, 18, 18), "4k3RP-4k3RP-FC16R-FC10", "2x1x3 4x1x3 4x2x1 2x4x1", "8 of 20", in_flight=3),
    Sample((1, 8, 8), "4k3RP-FC10", "1x1x1 1x1x1", "8"),
    Sample((1, 8, 8), "6k3-FC10n", "6x1x1 1x6x1", "12", max_batch=16),
    Sample((36, 1, 1), "FC30R-FC20R-FC10R-FC5", "5x3x1 2x5x1 5x2x1 1x5x1", max_batch=4),
    Sample((20, 1, 1), "FC60R-FC30", "4x4x1 2x10x1", "8", "stochastic", in_flight=1),
    Sample((3, 20, 20), "4k3nRP-8k3RP-FC10", "4x1x9 2x4x1 1x1x1", "18", "nearest_even", in_flight=3),
    Sample((1, 28, 28), "8k3RP-6k3RP-6k3R-FC10", "8x1x1 2x8x1 3x2x3 2x3x1"),
    Sample((6, 12, 12), "12k3RP-FC10", "2x2x9 2x4x1", rounding="stochastic", max_batch=16),
    Sample((4, 5, 5), "4k5R-4k5R-FC6", "2x4x5 1x2x5 3x2x1"),
    Sample((1, 14, 14), "5k1RP-5k3RP-FC10", "5x1x1 5x5x1 2x5x1", in_flight=1, max_batch=2),
    Sample((2, 30, 30), "4k3RP-FC8", "2x2x3 4x2x1", "8 of 20", max_batch=16),
)  # fmt: skip

SETS = {"calibration": CALIBRATION, "validation": VALIDATION}


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if an estimate is off by more than it may be."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    halves = parser.add_subparsers(required=True, metavar="HALF")
    half = halves.add_parser("resources", help="against synthesis")
    half.add_argument("--fit", action="store_true", help="fit the LUTs' weights, and print them")
    half.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    half.add_argument("--page", type=Path, default=PAGE, help="page whose table is written anew")
    half.set_defaults(run=resources)
    half = halves.add_parser("cycles", help="against simulation")
    half.add_argument("--only", nargs="+", metavar="NAME", help="designs, such as 'M, 50'")
    half.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    half.add_argument("--page", type=Path, default=PAGE, help="page whose table is written anew")
    half.set_defaults(run=cycles)
    return parser


# -- Resources -------------------------------------------------------------------------------------


def resources(options):
    """The half of :func:`main` that is about resources."""
    if options.fit:
        for kind, weight in fit(CALIBRATION).items():
            print(f'    "{kind}": {weight:.3f},')
        return 0
    results = {name: [measure(sample) for sample in samples] for name, samples in SETS.items()}
    print(describe(results))
    if options.json:
        options.json.write_text(dumps(results, indent=2) + "\n", encoding="utf-8")
    write_section(options.page, "resources", markdown(results))
    return 0 if good(results["validation"]) else 1


def _synthesised(plan):
    return synthesise(generate_verilog(plan, name=TOP), TOP)[0]


def measure(sample):
    """Estimate and synthesis of a design, by the names of :data:`RESOURCES`."""
    plan = sample.plan()
    print(f"{sample.net}: {plan.multipliers} multipliers", file=sys.stderr, flush=True)
    estimated, synthesised = estimate_resources(plan).total, _synthesised(plan)
    return {
        "net": sample.net,
        "foldings": sample.foldings,
        "options": sample.options,
        "multipliers": plan.multipliers,
        "estimated": {name: round(getattr(estimated, name), 1) for name in RESOURCES},
        "synthesised": {name: getattr(synthesised, name) for name in RESOURCES},
    }


def error(result, resource):
    """Part by which an estimate is too high."""
    return result["estimated"][resource] / result["synthesised"][resource] - 1


def good(results):
    """Whether estimates are as near as they have to be."""
    return all(
        all(error == 0 for error in errors)
        if resource in EXACT
        else median(errors) <= MEDIAN and max(errors) <= WORST
        for resource, errors in _errors(results).items()
    )


def _errors(results):
    return {name: [abs(error(result, name)) for result in results] for name in RESOURCES}


def _spread(name, errors, *, good, places):
    """A summary's row: how many errors are at most ``good``, their median and the worst."""
    return (
        name,
        f"{sum(error <= good for error in errors)} of {len(errors)}",
        f"{median(errors):.{places}%}",
        f"{max(errors):.{places}%}",
    )


def summary(results):
    """Header and rows: how many are exact, median and worst error of each resource."""
    rows = [
        _spread(RESOURCES[name], errors, good=0, places=1)
        for name, errors in _errors(results).items()
    ]
    return ("resource", "exact", "median error", "worst error"), rows


def rows(results):
    """Header and rows: each design's estimate and synthesis."""
    header = ["net", "folding", "besides", "multipliers"]
    for name in RESOURCES.values():
        header += [f"{name}\nestimate", f"{name}\nYosys"]
        header += [f"{name}\nerror"] * (name in ("LUT", "FF"))
    lines = []
    for result in results:
        line = [result["net"], result["foldings"], result["options"], str(result["multipliers"])]
        for name in RESOURCES:
            line += [f"{result[kind][name]:,.10g}" for kind in ("estimated", "synthesised")]
            if name not in EXACT:
                line[-2] = f"{result['estimated'][name]:,.0f}"
                line.append(f"{error(result, name):+.1%}")
        lines.append(line)
    return header, lines


def describe(results):
    """Results of each set, as text."""
    parts = [f"Synthesised by Yosys {yosys_version()}; errors are parts of what it gives"]
    for name, own in results.items():
        parts += [f"{name}, {len(own)} designs", columns(*rows(own)), columns(*summary(own))]
    return "\n\n".join(parts)


def markdown(results):
    """Results of each set, as a section of the page."""
    parts = [
        f"Synthesised by Yosys {yosys_version()}. Errors are parts of what it gives.",
    ]
    for name, own in results.items():
        fitted = (
            "the LUTs' weights are fitted to these" if name == "calibration" else "fitted on others"
        )
        parts += [f"### {name.capitalize()}", f"{len(own)} designs; {fitted}."]
        parts += [_markdown_table(*summary(own)), _markdown_table(*rows(own))]
    return "\n\n".join(parts)


def _markdown_table(header, rows):
    lines = [[name.replace("\n", " ") for name in header], ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(page, name, text):
    """Put ``text`` between the page's marks of the section ``name``.

    Raises :exc:`ValueError` if the page has no such marks.
    """
    begin, end = f"<!-- {name}: made by benchmarks/estimates.py -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no section between {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def fit(samples):
    """Weights of :data:`LUT_WEIGHTS` with the least squares of relative errors, and none negative."""
    counted, synthesised = [], []
    for sample in samples:
        plan = sample.plan()
        counted.append(lut_counts(plan))
        synthesised.append(_synthesised(plan).lut)
    total = np.array(synthesised, float)
    counts = np.array([[one[kind] for kind in LUT_WEIGHTS] for one in counted])
    memory = np.array([one["memory"] for one in counted])
    prior = PRIOR * np.eye(len(LUT_WEIGHTS))
    weights, _ = nnls(
        np.vstack([counts / total[:, None], prior]),
        np.concatenate([1 - memory / total, np.full(len(LUT_WEIGHTS), PRIOR)]),
    )
    return dict(zip(LUT_WEIGHTS, weights.tolist(), strict=True))


# -- Cycles ----------------------------------------------------------------------------------------


def cycles(options):
    """The half of :func:`main` that is about cycles."""
    chosen = designs()
    if options.only:
        unknown = sorted(set(options.only) - chosen.keys())
        if unknown:
            print(f"There is no design {unknown[0]!r}", file=sys.stderr)
            return 2
        chosen = {name: chosen[name] for name in options.only}
    results = [{"design": name, "multipliers": d.multipliers} for name, d in chosen.items()]
    for batch in BATCHES:
        evidence = confirm(list(chosen.values()), "simulate", batch=batch)
        for result, finding in zip(results, evidence.findings, strict=True):
            if finding.problem:
                raise RuntimeError(f"{result['design']}: {finding.problem}")
            result[str(batch)] = {
                "estimated": finding.estimated[TOTAL]["cycles"],
                "simulated": finding.found[TOTAL]["cycles"],
            }
    print(columns(*cycle_rows(results)))
    print(columns(*cycle_summary(results)))
    if options.json:
        options.json.write_text(dumps(results, indent=2) + "\n", encoding="utf-8")
    if not options.only:
        write_section(options.page, "cycles", cycle_markdown(results))
    return 0 if all(max(own) <= CYCLES_WORST for own in cycle_errors(results).values()) else 1


def cycle_error(result, batch):
    """Part by which the estimate of a design's cycles is too high."""
    return result[str(batch)]["estimated"] / result[str(batch)]["simulated"] - 1


def cycle_errors(results):
    """Errors without their signs, a list for each batch size."""
    return {batch: [abs(cycle_error(one, batch)) for one in results] for batch in BATCHES}


def cycle_summary(results):
    """Header and rows: how many are within 1 %, median and worst error of each batch size."""
    rows = [
        _spread(f"batch {batch}", errors, good=CYCLES_WORST, places=2)
        for batch, errors in cycle_errors(results).items()
    ]
    return ("", "within 1 %", "median error", "worst error"), rows


def cycle_rows(results):
    """Header and rows: each design's estimated and simulated cycles."""
    header = ["design", "multipliers"]
    for batch in BATCHES:
        header += [f"batch {batch}\nestimate", f"batch {batch}\nsimulated", f"batch {batch}\nerror"]
    lines = []
    for result in results:
        line = [result["design"], f"{result['multipliers']:,}"]
        for batch in BATCHES:
            own = result[str(batch)]
            line += [f"{own['estimated']:,}", f"{own['simulated']:,.0f}"]
            line.append(f"{cycle_error(result, batch):+.2%}")
        lines.append(line)
    return header, lines


def cycle_markdown(results):
    """Results as a section of the page."""
    parts = [f"{len(results)} designs, cycles for each sample. Errors are parts of what is simulated."]
    return "\n\n".join([
        *parts, _markdown_table(*cycle_summary(results)), _markdown_table(*cycle_rows(results))
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
