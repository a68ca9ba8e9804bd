# amaranth: UnusedElaboratable=no
"""What batch normalization computes for each channel: in gates as in NumPy, and near to what it should be."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.golden import channels
from streamtrain.golden.channels import PROGRAMS, ROWS, Register
from streamtrain.golden.passes import PARTIALS
from streamtrain.numeric.floating import FP32
from streamtrain.unified.channels import (
    READ_ROWS,
    ChannelProcessor,
    channels_layout,
    program_cycles,
    written_rows,
)

R = Register
NUMBERS = list(PROGRAMS)


def processed(lanes, jobs, *, beat=64, pause=0.3, partials=PARTIALS):
    """Rows that the gates write for jobs of (program, rate, rows), and their cycles.

    They read those rows that belong to the program; ``train`` gets the others of the sums that were stored.
    """
    own = {"train": ROWS, "evaluate": ROWS, "back": READ_ROWS}
    dut, rng = ChannelProcessor(lanes, data_bits=beat), random.Random(1)
    words = beat // 32
    found, cycles = [], []
    beats = [
        sum(int(code) << 32 * n for n, code in enumerate(codes))
        for name, _, rows in jobs
        for codes in rows[: own[name]].reshape(-1, words)
    ]

    async def command(ctx):
        for number, (name, rate, _) in enumerate(jobs):
            ctx.set(dut.rate, rate)
            payload = {
                "program": NUMBERS.index(name),
                "tile": number,
                "partials": partials,
            }
            ctx.set(dut.command.payload, channels_layout().const(payload))
            ctx.set(dut.command.valid, 1)
            count, ready = 0, False
            while not ready:
                *_, ready = await ctx.tick().sample(dut.command.ready)
                count += 1
            cycles.append(count)
        ctx.set(dut.command.valid, 0)

    async def give(ctx):
        for beat in beats:
            while rng.random() < pause:
                await ctx.tick()
            ctx.set(dut.i.payload, beat)
            ctx.set(dut.i.valid, 1)
            ready = False
            while not ready:
                *_, ready = await ctx.tick().sample(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def take(ctx):
        while len(found) < len(jobs) * written_rows(lanes) * lanes:
            ctx.set(dut.o.ready, rng.random() >= pause)
            *_, payload, valid, ready = await ctx.tick().sample(
                dut.o.payload, dut.o.valid, dut.o.ready
            )
            if valid and ready:
                found.extend(payload >> 32 * n & 0xFFFFFFFF for n in range(words))

    async def answer(ctx):
        async for _, _, row, lane, job in ctx.tick().sample(
            dut.row, dut.lane, dut.command.payload.tile
        ):
            ctx.set(dut.word, int(jobs[job][2][ROWS + row][lane]))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_process(answer)
    for process in (command, give, take):
        simulator.add_testbench(process)
    simulator.run()
    return np.array(found, np.uint32).reshape(len(jobs), -1, lanes), cycles


def drawn(lanes, rng, count=56):
    """Registers and sums of plausible channels: of ``count`` pixels."""
    y = rng.normal(rng.normal(size=(lanes, 1)), rng.uniform(0.1, 3, (lanes, 1)), (lanes, count))
    rows = np.zeros((ROWS, lanes), np.uint32)
    rows[:6] = FP32.encode(rng.uniform(0.5, 2, (6, lanes)))
    for register, code in channels.constants(count, 1e-5, 0.1).items():
        rows[register] = code
    parts = y.reshape(lanes, -1, PARTIALS)
    return rows, *(FP32.encode(part.sum(1).T) for part in (parts, parts**2)), y


@pytest.mark.parametrize(("lanes", "beat", "pause"), [(4, 64, 0.3), (2, 32, 0.0), (16, 128, 0.0)])
def test_gates_equal_numpy(lanes, beat, pause):
    rng = np.random.default_rng(lanes)
    jobs, wants = [], []
    for number in range(6):
        rows, sums, products, _ = drawn(lanes, rng)
        if number > 3:  # anything at all
            rows, sums, products = (
                rng.integers(0, 1 << 32, a.shape, np.uint32) for a in (rows, sums, products)
            )
        name, rate = NUMBERS[number % 3], int(FP32.encode(-0.01))
        jobs.append((name, rate, np.concatenate([rows, sums, products])))
        wants.append((name, channels.run(name, rows, sums, products, rate)))
    found, _ = processed(lanes, jobs, beat=beat, pause=pause)
    for got, (name, want) in zip(found, wants, strict=True):
        np.testing.assert_array_equal(got[:ROWS], want[:ROWS], err_msg=name)
        for block, register in ((got[ROWS : ROWS + lanes], R.A), (got[ROWS + lanes :], R.C)):
            if name == "back" or register is R.A:
                np.testing.assert_array_equal(block, np.diag(want[register]), err_msg=name)


def test_takes_a_word_in_a_cycle_and_an_operation_in_one_for_each_channel():
    lanes = 16
    rows, sums, products, _ = drawn(lanes, np.random.default_rng(0))
    job = "train", 0, np.concatenate([rows, sums, products])
    _, (cycles,) = processed(lanes, [job], beat=128, pause=0)
    operations = program_cycles(PROGRAMS["train"], lanes)
    assert operations == (len(PROGRAMS["train"]) + 1) * (lanes + 1)
    assert cycles <= (READ_ROWS + written_rows(lanes)) * lanes + operations + 10


def test_a_small_map_has_fewer_partial_sums():
    lanes = 4
    rows, sums, products, _ = drawn(lanes, np.random.default_rng(0))
    few = [
        np.where(np.arange(PARTIALS)[:, None] < 6, a, 0).astype(np.uint32) for a in (sums, products)
    ]
    job = "train", 0, np.concatenate([rows, sums, products])
    (got,), _ = processed(lanes, [job], partials=6)
    np.testing.assert_array_equal(got[:ROWS], channels.run("train", rows, *few)[:ROWS])


def test_numbers_are_right():
    rng = np.random.default_rng(3)
    rows, sums, products, y = drawn(64, rng, count=1000)
    found = FP32.decode(channels.run("train", rows, sums, products))
    old = FP32.decode(rows)
    deviation = 1 / np.sqrt(y.var(1) + 1e-5)
    a = old[R.GAMMA] * deviation
    for register, want in {
        R.MEAN: y.mean(1), R.DEVIATION: deviation, R.A: a, R.B: old[R.BETA] - y.mean(1) * a,
        R.RUNNING_MEAN: old[R.RUNNING_MEAN] + 0.1 * y.mean(1),
        R.SHIFT: -old[R.RUNNING_MEAN] - 0.1 * y.mean(1),
        R.RUNNING_VAR: 0.9 * old[R.RUNNING_VAR] + 0.1 * y.var(1, ddof=1),
    }.items():  # fmt: skip
        # A variance is the difference of two numbers that may be ten and a hundred times as large here.
        np.testing.assert_allclose(
            found[register], want, rtol=3e-5, atol=3e-6, err_msg=register.name
        )


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e30])
def test_roots_are_right_to_the_last_bits(scale):
    variance = scale * np.random.default_rng(1).uniform(1, 4, 1000)
    rows = np.zeros((ROWS, 1000), np.uint32)
    rows[R.RUNNING_VAR] = FP32.encode(variance)
    rows[R.EPS] = FP32.encode(1e-30)
    zeros = np.zeros((PARTIALS, 1000), np.uint32)
    found = FP32.decode(channels.run("evaluate", rows, zeros, zeros)[R.DEVIATION])
    want = 1 / np.sqrt(FP32.decode(rows[R.RUNNING_VAR]) + 1e-30)
    assert abs(found / want - 1).max() < 4 * 2.0**-24


def test_a_channel_that_never_changes_is_divided_by_eps():
    rows, _, _, _ = drawn(4, np.random.default_rng(0))
    value = np.array([1000.0, -1000.0, 0.0, 1e-3])
    sums = np.full((PARTIALS, 4), FP32.encode(value * 7))
    squares = np.full((PARTIALS, 4), FP32.encode(value**2 * 7 * (1 - 1e-7)))  # rounded down
    found = FP32.decode(channels.run("train", rows, sums, squares))
    np.testing.assert_allclose(found[R.DEVIATION], 1e-5**-0.5, rtol=1e-3)
