# amaranth: UnusedElaboratable=no
"""The model of cycles against the gates: each phase of each layer, and whole steps."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.numeric import Fixed, FixedArithmetic
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate.memory import MemoryTiming, SimulatedMemory, compile_memory_design
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import Compiler
from streamtrain.unified.core import UnifiedCore
from streamtrain.unified.ip import UnifiedIP, unified_registers
from streamtrain.unified.plan import lower
from streamtrain.unified.timing import KernelTiming

pytestmark = pytest.mark.xdist_group("memory simulations")

NUMBERS = FixedArithmetic(Fixed(16, 10), Fixed(32, 20))
IMAGES, BITS, CLASSES = 4, 64, 4
DEPTHS = Depths(x=512, e=512, sums=512, weights=800, gradients=200, tiles=4)
REGISTERS = unified_registers()
SHORT = 50
"""Cycles that phases of a few thousand may be off: how requests of few beats interleave is not modelled."""


@pytest.fixture(scope="module", params=[4, 6], ids=["4 lanes", "6 lanes"])
def compiler(request):
    relu, pool = st.ReLU(), st.MaxPool2d(2)
    network = st.Network((1, 32, 32), [
        st.Conv2d(8, 5, stride=2), relu, st.Conv2d(12, 3), relu, pool, st.Conv2d(16, 3), relu, pool,
        st.Flatten(), st.Linear(16), relu, st.Linear(CLASSES),
    ])  # fmt: skip
    return Compiler(lower(network, request.param), NUMBERS, IMAGES, DEPTHS, data_bits=BITS)


@pytest.fixture(scope="module")
def library(compiler):
    core = UnifiedCore(NUMBERS, compiler.plan.lanes, DEPTHS, CLASSES, compiler.fold, data_bits=BITS)
    return compile_memory_design(lambda: verilog_of(UnifiedIP(core), "streamtrain"), BITS)


def simulated(compiler, library, program, memory):
    image, address = np.frombuffer(program.image(), np.uint8), compiler.programs
    device = SimulatedMemory(library, -(-(address + len(image)) // 4096) * 4096, timing=memory)
    device.contents[address : address + len(image)] = image
    device.write(REGISTERS["PROGRAM"].address, address)
    device.write(REGISTERS["CONTROL"].address, 1)
    device.wait_for_irq(10**6)
    cycles = device.read(REGISTERS["CYCLES"].address)
    device.close()
    return cycles


@pytest.mark.parametrize(
    ("memory", "within"),
    [
        (MemoryTiming(), 0.02),
        (MemoryTiming(read_latency=60, write_latency=40), 0.02),
        (MemoryTiming(read_rate=0.5, write_rate=0.5), 0.04),
    ],
    ids=["fast", "late", "slow"],
)
def test_the_model_agrees_with_the_gates(compiler, library, memory, within):
    lanes = compiler.plan.lanes
    padded = lanes * NUMBERS.operand.width % BITS
    timing = KernelTiming(NUMBERS, lanes, CLASSES, data_bits=BITS, memory=memory)
    phases = [("step", "", compiler.step())]
    if not padded:  # else phases, which take some thousand cycles each, are up to 7 % off
        phases += [(*each, compiler.single(*each)) for each in compiler.phases]
    for phase, layer, program in phases:
        cycles, model = simulated(compiler, library, program, memory), timing.cycles(program)
        assert model.total == pytest.approx(cycles, rel=within, abs=SHORT), (phase, layer)
        assert max(model.compute, model.read, model.write) < cycles, (phase, layer)


def test_what_binds_is_the_busiest_part(compiler):
    program = compiler.single("FP", "conv2")
    for memory, culprit in (
        (MemoryTiming(), "array"), (MemoryTiming(read_rate=0.02), "reads"),
        (MemoryTiming(write_rate=0.01), "writes"),
    ):  # fmt: skip
        timing = KernelTiming(NUMBERS, compiler.plan.lanes, CLASSES, data_bits=BITS, memory=memory)
        assert timing.cycles(program).binds == culprit
