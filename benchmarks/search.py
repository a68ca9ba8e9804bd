"""Search the five nets exactly and with NSGA-II, and print how long it takes and what it finds.

    python benchmarks/search.py
    python benchmarks/search.py --nets M C --evaluations 10000

Objectives are samples/s, DSP slices and block RAM, on the board that every net fits on. *Hypervolume* is
the part of the box between no resources at all and the largest that either search found, and between
the slowest and the fastest, in which some design is at least as good (Zitzler and Thiele, IEEE
Trans. Evolutionary Computation 3, 1999). Resources and samples/s are taken as logarithms, so that a
small design counts as much as a large one.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from json import dumps
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from columns import columns
from nets import BOARD, NETS
from pymoo.indicators.hv import HV

import streamtrain as st

OBJECTIVES = ("samples_per_s", "dsp", "bram36")


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if the genetic front is the larger one anywhere."""
    options = _parser().parse_args(arguments)
    st.explore(NETS["M"].network(), BOARD, objectives=["samples_per_s"], progress=False)  # compiles
    results = []
    for name in options.nets:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(compare(name, options.evaluations))
    print(columns(*rows(results)))
    if options.json:
        options.json.write_text(dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if all(r["exact"]["hypervolume"] >= r["nsga2"]["hypervolume"] for r in results) else 1


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--evaluations", type=int, default=10_000, metavar="N", help="of NSGA-II (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def compare(name, evaluations):
    """Both fronts of a net: points, seconds, evaluated designs, hypervolume; the exact one's ends."""
    network = NETS[name].network()
    fronts, found = {}, {"net": name}
    for search in ("exact", "nsga2"):
        began, cpu = perf_counter(), process_time()
        front = st.explore(
            network, BOARD, objectives=OBJECTIVES, search=search, evaluations=evaluations,
            progress=False,
        )  # fmt: skip
        fronts[search] = front
        found[search] = {
            "points": len(front),
            "evaluated": front.evaluated,
            "seconds": perf_counter() - began,
            "cpu_seconds": process_time() - cpu,
        }
    values = {search: np.log(np.abs(front.figures(*OBJECTIVES))) for search, front in fronts.items()}
    for own in values.values():
        own[:, 0] *= -1  # samples/s: less is better, as figures() says
    every = np.concatenate(list(values.values()))
    low, span = every.min(axis=0), np.ptp(every, axis=0)
    for search, own in values.items():
        found[search]["hypervolume"] = float(HV(ref_point=np.ones(3))((own - low) / span))
    fastest = fronts["exact"].fastest()
    found["fastest"] = {
        "cycles": fastest.estimate().cycles,
        "multipliers": fastest.multipliers,
        "utilisation": fastest.estimate().utilisation,
        "foldings": {name: list(folding) for name, folding in fastest.foldings.items()},
    }
    return found


def rows(results):
    """Header and rows, a net each."""
    header = (
        "net", "designs in\nthe space", "exact:\npoints", "evaluated", "CPU s", "hypervolume",
        "NSGA-II:\npoints", "evaluated", "CPU s", "hypervolume", "fastest:\ncycles", "multipliers",
    )  # fmt: skip
    lines = []
    for result in results:
        line = [result["net"], f"{size(result['net']):.2g}"]
        for search in ("exact", "nsga2"):
            own = result[search]
            line += [
                f"{own['points']:,}", f"{own['evaluated']:,}", f"{own['cpu_seconds']:.1f}",
                f"{own['hypervolume']:.4f}",
            ]  # fmt: skip
        line += [f"{result['fastest']['cycles']:,}", f"{result['fastest']['multipliers']:,}"]
        lines.append(line)
    return header, lines


def size(name):
    """Number of foldings of a net."""
    from streamtrain.explore.space import Space
    from streamtrain.pipeline.plan import lower

    return float(Space(lower(NETS[name].network(), lambda *layer: (1, 1, 1))).size)


if __name__ == "__main__":
    sys.exit(main())
