"""Synthesise the units of floating-point and fixed-point arithmetic with Yosys.

    python benchmarks/floats.py
    python benchmarks/floats.py --family xcup --units "fp32 multiplier" "fp32 adder"

What a unit takes of a Xilinx part, and its longest path between registers: how many LUTs are on it,
each of its carry chains counting as one more. These figures are from before place and route.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass
from functools import cache
from json import dumps, loads
from pathlib import Path
from tempfile import TemporaryDirectory

from columns import columns

from streamtrain.build.synth import SYNTHESISED, run_yosys, synthesise, yosys_version
from streamtrain.numeric import FP32, MultiplyAdd, arithmetic
from streamtrain.pipeline.generate import verilog_of

FORMATS = ("fp32", "bf16", "fp16", "fixed<16,4>")


def units():
    """All units by name: functions that make them."""
    found = {}
    for name in FORMATS:
        kind = arithmetic(name)
        found |= {
            f"{name} multiplier": kind.multiplier,
            f"{name} adder": kind.adder,
            f"{name} multiply-add": lambda kind=kind: MultiplyAdd(kind),
            f"{name} narrow": kind.narrow,
            f"{name} widen": kind.widen,
            f"{name} maximum": kind.maximum,
        }
        if kind.accumulator == FP32 and kind.operand != FP32:
            del found[f"{name} adder"]  # that of fp32
    return found
