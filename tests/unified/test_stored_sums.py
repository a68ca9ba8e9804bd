# amaranth: UnusedElaboratable=no
"""Sums of what is stored, in gates as in NumPy."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.golden import passes
from streamtrain.golden.passes import PARTIALS
from streamtrain.numeric import arithmetic
from streamtrain.numeric.floating import FP32
from streamtrain.unified.stored_sums import StoredSums


@pytest.mark.parametrize(
    ("numbers", "lanes", "beat", "cycles"),
    [("fp32", 8, 64, 4), ("fp32", 4, 128, 1), ("bf16", 4, 128, 1), ("fp16", 3, 16, 3)],
)
def test_sums_equal_numpy(numbers, lanes, beat, cycles):
    """Of two images of three tiles, each pixel as soon as may be; then of another mini-batch."""
    numbers = arithmetic(numbers)
    dut = StoredSums(numbers, lanes, 3, data_bits=beat)
    assert dut.cycles == cycles
    rng, fmt = np.random.default_rng(lanes), numbers.operand

    async def play(ctx):
        for size in ((2, 3, 3, 5), (2, 3, 1, 9)):
            codes = fmt.encode(rng.normal(size=(*size, lanes)))
            for image, tile in np.ndindex(*size[:2]):
                while not ctx.get(dut.quiet):
                    await ctx.tick()
                for pixel, word in enumerate(codes[image, tile].reshape(-1, lanes)):
                    ctx.set(
                        dut.vector, sum(int(code) << fmt.width * n for n, code in enumerate(word))
                    )
                    ctx.set(dut.tile, tile)
                    ctx.set(dut.pixel, pixel % PARTIALS)
                    ctx.set(dut.fresh, image == 0 and pixel < PARTIALS)
                    ctx.set(dut.valid, 1)
                    await ctx.tick()
                    ctx.set(dut.valid, 0)
                    for _ in range(cycles - 1):
                        await ctx.tick()
                waits = 0
                while not ctx.get(dut.quiet):
                    await ctx.tick()
                    waits += 1
                assert waits <= cycles + 15
            y = fmt.to_float32(codes)
            sums, squares = np.zeros((2, 3, PARTIALS, lanes), np.float32)
            passes.channel_sums(y, y, passes.FLOAT, sums, squares)
            want = FP32.from_float32(np.concatenate([sums, squares], axis=1))
            got = np.zeros_like(want)
            for at in np.ndindex(*want.shape):
                for port, value in zip((dut.of_tile, dut.row, dut.lane), at, strict=True):
                    ctx.set(port, value)
                await ctx.tick()
                got[at] = ctx.get(dut.word)
            np.testing.assert_array_equal(got, want)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()
