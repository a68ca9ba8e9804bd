"""Run generated gateware from Python at compiled speed."""

from streamtrain.simulate.bus import SimulatedBus
from streamtrain.simulate.compiled import CompileError, compile_design
from streamtrain.simulate.cycles import (
    StepCycles,
    count_cycles,
    cycles_per_sample,
    steady_samples,
)
from streamtrain.simulate.device import HangError, SimulatedDevice
from streamtrain.simulate.line import SimulatedLine
from streamtrain.simulate.trainer import SimulatedTrainer
from streamtrain.simulate.verify import Difference, Verification, compare, verify

__all__ = [
    "CompileError",
    "Difference",
    "HangError",
    "SimulatedBus",
    "SimulatedDevice",
    "SimulatedLine",
    "SimulatedTrainer",
    "StepCycles",
    "Verification",
    "compare",
    "compile_design",
    "count_cycles",
    "cycles_per_sample",
    "steady_samples",
    "verify",
]
