# amaranth: UnusedElaboratable=no

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from amaranth import Module, Signal, signed, unsigned
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtrain.numeric import (
    Fixed,
    Round,
    requantize,
    requantize_codes,
    round_codes,
    round_value,
)

modes = st.sampled_from(Round)
codes = st.integers(-(2**52), 2**52)


def gates(width, shift, mode, fmt, stimuli):
    """Codes, saturation bits and rounded values that the gates give for (value, random) pairs."""
    m = Module()
    value, random = Signal(signed(width)), Signal(unsigned(max(1, shift)))
    code, saturated = requantize(m, value, shift, fmt, mode, random)
    out, flag = Signal(fmt), Signal()
    exact = Signal(signed(80))
    m.d.comb += [
        out.eq(code),
        flag.eq(saturated),
        exact.eq(round_value(value, shift, mode, random)),
    ]
    results = []

    async def bench(ctx):
        for v, r in stimuli:
            ctx.set(value, v)
            ctx.set(random, r)
            await ctx.delay(1e-9)
            results.append((ctx.get(out), ctx.get(flag), ctx.get(exact)))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return tuple(np.array(column) for column in zip(*results, strict=True))


def check(width, shift, mode, fmt, stimuli):
    out, flag, exact = gates(width, shift, mode, fmt, stimuli)
    value, random = np.array(stimuli, dtype=np.int64).T
    rounded = round_codes(value, shift, mode, random)
    expected, count = requantize_codes(value, shift, fmt, mode, random)
    np.testing.assert_array_equal(exact, rounded)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(flag, expected != rounded)
    assert count == np.count_nonzero(flag)


@pytest.mark.parametrize("mode", Round)
@pytest.mark.parametrize("shift", range(-3, 9))  # 6 drops all bits of a value, 7 and 8 more
def test_gates_equal_numpy_on_every_code(mode, shift):
    rng = np.random.default_rng(0)
    values = range(-32, 32)
    randoms = {0, (1 << max(0, shift)) - 1, *rng.integers(0, 1 << max(0, shift), size=3).tolist()}
    if mode is not Round.STOCHASTIC:
        randoms = {0}
    check(6, shift, mode, Fixed(4, 0), [(v, r) for v in values for r in randoms])


@pytest.mark.parametrize("mode", Round)
@pytest.mark.parametrize(("width", "shift"), [(40, 19), (48, 32), (33, 1), (24, 8)])
def test_gates_equal_numpy_at_the_extremes(mode, width, shift):
    low, high, one = -(1 << width - 1), (1 << width - 1) - 1, 1 << shift
    edges = [low, high, 0, -1, one // 2, -one // 2]
    for code in (-(2**15), 2**15 - 1, 2**15, -(2**15) - 1, 1, 2):
        edges += [code * one + part for part in (-one // 2, one // 2 - 1, one // 2, -1, 0, 1)]
    edges = [e for edge in edges for e in (edge - 1, edge, edge + 1) if low <= e <= high]
    randoms = [0, 1, one // 2, one - 1]
    check(width, shift, mode, Fixed(16, 0), [(e, r) for e in edges for r in randoms])


def test_narrow_results_need_no_saturation():
    m = Module()
    value = Signal(signed(8))
    code, saturated = requantize(m, value, 4, Fixed(8, 0), Round.TRUNCATE)
    assert len(code) <= 8
    assert saturated.value == 0


@given(codes, st.integers(-8, 40))
def test_each_mode_is_what_it_says(code, shift):
    exact = Fraction(code) / Fraction(2) ** shift
    assert round_codes(code, shift, Round.TRUNCATE) == floor(exact)
    assert round_codes(code, shift, Round.NEAREST) == floor(exact + Fraction(1, 2))
    assert round_codes(code, shift, Round.NEAREST_EVEN) == round(exact)
    half = 1 << shift - 1 if shift > 0 else 0
    assert round_codes(code, shift, Round.STOCHASTIC, half) == floor(
        exact + Fraction(half, 2 ** max(0, shift))
    )


@given(st.integers(1, 12), st.integers(-1000, 1000))
def test_nearest_is_biased_by_ties_only_and_even_is_not(shift, base):
    # Over two units of the last place, ties included: half an LSB at each of two ties.
    one = 1 << shift
    code = np.arange(2 * base * one, 2 * (base + 1) * one)
    exact = code / one
    assert (round_codes(code, shift, Round.NEAREST) - exact).sum() == 1
    assert (round_codes(code, shift, Round.NEAREST_EVEN) - exact).sum() == 0


@given(st.integers(1, 10), st.integers(-(2**30), 2**30))
def test_stochastic_is_right_on_average(shift, code):
    random = np.arange(1 << shift)  # each number once
    mean = round_codes(np.full(1 << shift, code), shift, Round.STOCHASTIC, random).mean()
    assert mean == code / (1 << shift)


@given(st.lists(codes, min_size=1), st.integers(-8, 40), modes, st.integers(2, 30))
def test_results_are_codes_and_saturations_are_counted(values, shift, mode, width):
    fmt = Fixed(width, 0)
    random = np.zeros(len(values), np.int64)
    rounded = round_codes(values, shift, mode, random)
    result, count = requantize_codes(values, shift, fmt, mode, random)
    assert all(int(code) in fmt.codes for code in result)
    assert count == sum(int(code) not in fmt.codes for code in rounded)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 50), st.integers(-4, 32), modes, st.integers(2, 20), st.data())
def test_gates_equal_numpy_in_any_format(width, shift, mode, to, data):
    value = st.integers(-(1 << width - 1), (1 << width - 1) - 1)
    random = st.integers(0, (1 << max(0, shift)) - 1)
    stimuli = data.draw(st.lists(st.tuples(value, random), min_size=1, max_size=20))
    check(width, shift, mode, Fixed(to, 0), stimuli)
