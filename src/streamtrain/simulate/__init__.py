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
from streamtrain.simulate.kernel import SimulatedKernel, SimulatedKernelTrainer
from streamtrain.simulate.line import SimulatedLine
from streamtrain.simulate.memory import (
    BrokenRuleError,
    MemoryCounts,
    MemoryTiming,
    SimulatedMemory,
    compile_memory_design,
)
from streamtrain.simulate.trainer import SimulatedTrainer
from streamtrain.simulate.verify import Difference, Verification, compare, verify
from streamtrain.simulate.verify_kernel import compare_kernels, verify_kernel

__all__ = [
    "BrokenRuleError",
    "CompileError",
    "Difference",
    "HangError",
    "MemoryCounts",
    "MemoryTiming",
    "SimulatedBus",
    "SimulatedDevice",
    "SimulatedKernel",
    "SimulatedKernelTrainer",
    "SimulatedLine",
    "SimulatedMemory",
    "SimulatedTrainer",
    "StepCycles",
    "Verification",
    "compare",
    "compare_kernels",
    "compile_design",
    "compile_memory_design",
    "count_cycles",
    "cycles_per_sample",
    "steady_samples",
    "verify",
    "verify_kernel",
]
