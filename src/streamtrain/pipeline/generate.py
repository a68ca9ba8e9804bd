"""From a plan to Verilog."""

import sys

from amaranth.back import verilog

from streamtrain.pipeline.core import TrainingPipeline

__all__ = ["generate_verilog"]


def generate_verilog(plan, name="streamtrain"):
    """Verilog of the training pipeline.

    The same plan gives the same bytes, on any machine and in any run.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    name : :class:`str`
        Of the top module.
    """
    # Amaranth nests Python calls as deeply as the expressions of wide designs are.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))
    try:
        return verilog.convert(
            TrainingPipeline(plan), name=name, emit_src=False, strip_internal_attrs=True
        )
    finally:
        sys.setrecursionlimit(limit)
