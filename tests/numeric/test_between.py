# amaranth: UnusedElaboratable=no
"""Between floating and fixed point: gates against the formats' own encode and decode."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from streamtrain.numeric import BF16, FP16, FP32, Fixed, Float
from streamtrain.numeric.between import FixedToFloat, FloatToFixed


def converted(dut, codes):
    """Results for a stream of codes, with pauses in which nothing may move."""
    found, rng = [], np.random.default_rng(0)

    async def play(ctx):
        ctx.set(dut.enable, 1)
        for code in [*codes, *[0] * dut.latency]:
            while rng.random() < 0.1:
                ctx.set(dut.enable, 0)
                ctx.set(dut.i, 1)
                await ctx.tick()
            ctx.set(dut.enable, 1)
            ctx.set(dut.i, int(code))
            found.append(ctx.get(dut.o))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()
    return np.array(found[dut.latency :])


@pytest.mark.parametrize("source", [FP32, BF16, FP16, Float(4, 3)], ids=str)
@pytest.mark.parametrize("target", [Fixed(32, 20), Fixed(8, 3), Fixed(40, 2)], ids=str)
def test_float_to_fixed(source, target):
    rng = np.random.default_rng(1)
    near = target.decode(rng.integers(target.codes[0], target.codes[-1] + 1, 300))
    halves = near + rng.choice([0, 0.5, -0.5, 0.25, 0.75], 300) / 2**target.frac
    edges = [target.lowest, target.highest, target.lowest * 2, target.highest * 2, 0.0, -0.0, 1e-9]
    codes = np.concatenate([
        source.encode(np.concatenate([halves, edges, halves * 2.0**-12])),
        rng.integers(0, 1 << source.width, 300).astype(source.dtype),
        np.array([source.infinity, source.infinity | 1 << source.width - 1, source.nan], source.dtype),
    ])  # fmt: skip
    want = target.encode(np.nan_to_num(source.decode(codes), posinf=np.inf, neginf=-np.inf))
    np.testing.assert_array_equal(converted(FloatToFixed(source, target), codes), want)


@pytest.mark.parametrize("source", [Fixed(26, 24), Fixed(9, 3), Fixed(12, 20)], ids=str)
@pytest.mark.parametrize("target", [FP32, BF16, FP16, Float(8, 3)], ids=str)
def test_fixed_to_float(source, target):
    rng = np.random.default_rng(2)
    codes = rng.integers(source.codes[0], source.codes[-1] + 1, 500)
    codes = np.concatenate([codes, codes >> rng.integers(0, source.width, 500)])
    codes = np.concatenate([codes, [0, 1, -1, source.codes[0], source.codes[-1]]])
    want = target.encode(source.decode(codes))
    got = converted(FixedToFloat(source, target), codes)
    np.testing.assert_array_equal(got, want)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="beyond the range"):
        FixedToFloat(Fixed(40, 0), FP16)
