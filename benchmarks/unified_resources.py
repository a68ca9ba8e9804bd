"""The unified core's resources as estimated, beside what Yosys makes of it.

    python benchmarks/unified_resources.py                                    # half an hour of one core or less
    python benchmarks/unified_resources.py --numbers "fixed<16,8>" --lanes 8 --data-bits 128

A whole core is synthesised, for a small net, with buffers for whole layers. What Yosys found is kept in the cache.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from columns import columns

import streamtrain as st
from streamtrain.build.synth import synthesise
from streamtrain.pipeline.generate import verilog_of
from streamtrain.unified.kernel import KernelPlan, kernel_arithmetic
from streamtrain.unified.plan import lower
from streamtrain.unified.resources import estimate_resources

FIGURES = ("dsp", "bram36", "lut", "ff")


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if DSP slices or block RAMs differ."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", default="bf16", metavar="FORMAT")
    parser.add_argument("--lanes", type=int, default=4, metavar="N")
    parser.add_argument("--data-bits", type=int, default=64, metavar="N")
    parser.add_argument("--normalized", action="store_true", help="with a batch norm")
    options = parser.parse_args(arguments)
    norm = [st.BatchNorm2d()] if options.normalized else []
    network = st.Network((3, 16, 16), [
        st.Conv2d(16, 3), *norm, st.ReLU(), st.MaxPool2d(), st.Conv2d(32, 3), st.ReLU(), st.MaxPool2d(),
        st.Flatten(), st.Linear(4),
    ])  # fmt: skip
    plan = KernelPlan(
        lower(network, options.lanes), kernel_arithmetic(options.numbers), 4, data_bits=options.data_bits
    )  # fmt: skip
    estimate = estimate_resources(plan)
    print(estimate, flush=True)
    used, _ = synthesise(verilog_of(plan.hardware(), "streamtrain"), "streamtrain")
    rows = []
    for name in FIGURES:
        estimated, found = getattr(estimate.total, name), getattr(used, name)
        rows.append([name, f"{estimated:,.6g}", f"{found:,}", f"{estimated / found - 1:+.1%}"])
    print(columns(("", "estimated", "Yosys", "error"), rows))
    return int(any(getattr(estimate.total, name) != getattr(used, name) for name in FIGURES[:2]))


if __name__ == "__main__":
    raise SystemExit(main())
