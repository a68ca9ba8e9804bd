# amaranth: UnusedElaboratable=no
"""Errors of scores in gates: against the golden model's."""

import numpy as np
import pytest
from amaranth.sim import Simulator

import streamtrain as st
from streamtrain.golden.unified import UnifiedGolden
from streamtrain.numeric import Fixed, FixedArithmetic, FloatArithmetic, arithmetic
from streamtrain.unified.plan import lower
from streamtrain.unified.softmax import SoftmaxErrors, softmax_cycles

LANES = 6
FORMATS = [
    arithmetic("fp32"), arithmetic("bf16"), arithmetic("fp16"),
    FixedArithmetic(Fixed(16, 10), Fixed(32, 20)), FixedArithmetic(Fixed(12, 2), Fixed(32, 4)),
]  # fmt: skip


def pack(codes, width):
    return sum((int(code) & (1 << width) - 1) << width * n for n, code in enumerate(codes))


def errors_of(numbers, scores, labels):
    """What the gates make of them, as codes (samples, lanes of all vectors), and cycles from one to the next."""
    classes, width = scores.shape[1], numbers.operand.width
    dut, found, cycle, ends = SoftmaxErrors(numbers, LANES, classes), [], 0, []
    vectors = -(-classes // LANES)
    noise = np.full(vectors * LANES - classes, 3)

    async def send(ctx):
        for own, label in zip(scores, labels, strict=True):
            padded = np.concatenate([own.astype(np.int64), noise]).reshape(vectors, LANES)
            targets = (np.arange(vectors * LANES) == label).reshape(vectors, LANES)
            for vector, target in zip(padded, targets, strict=True):
                ctx.set(dut.i.payload, {"scores": pack(vector, width), "target": pack(target, 1)})
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def take(ctx):
        nonlocal cycle
        ctx.set(dut.o.ready, 1)
        for _ in range(len(scores) * vectors):
            valid = False
            while not valid:
                _, _, valid, word = await ctx.tick().sample(dut.o.valid, dut.o.payload)
                cycle += 1
            found.append([word >> width * n & (1 << width) - 1 for n in range(LANES)])
            ends.append(cycle)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(take)
    simulator.run()
    found = np.array(found).reshape(len(scores), -1)
    return found, np.diff(ends[vectors - 1 :: vectors]).max()


@pytest.mark.parametrize("numbers", FORMATS, ids=lambda n: n.name)
@pytest.mark.parametrize("classes", [2, 5, 6, 7, 12, 20])
def test_errors_are_the_golden_models(numbers, classes):
    rng = np.random.default_rng(classes)
    real = rng.normal(scale=3, size=(25, classes))
    real[:8] *= [[0.0], [1e-4], [30], [300], [1e4], [1e7], [0.1], [1]]
    codes, labels = numbers.operand.encode(real), rng.integers(0, classes, len(real))
    network = st.Network((1, 2, 2), [st.Flatten(), st.Linear(classes)])
    golden = UnifiedGolden(lower(network, LANES), numbers)
    operands = codes
    if isinstance(numbers, FloatArithmetic):
        operands = numbers.operand.to_float32(codes)
    want = golden._loss(operands, labels).reshape(len(real), -1)
    if isinstance(numbers, FloatArithmetic):
        want = numbers.operand.from_float32(want)
    got, cycles = errors_of(numbers, codes, labels)
    np.testing.assert_array_equal(got, want.astype(np.int64) & (1 << numbers.operand.width) - 1)
    assert cycles == softmax_cycles(numbers, LANES, classes)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        SoftmaxErrors(FORMATS[0], LANES, 0)
