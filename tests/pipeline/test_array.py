# amaranth: UnusedElaboratable=no
"""The multiplier array: sums of all three phases, cycle by cycle."""

import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from streamtrain.network import Conv2d, Flatten, Linear, Network
from streamtrain.numeric import Fixed
from streamtrain.pipeline.array import MultiplierArray, operand_widths, shifts_products
from streamtrain.pipeline.gates import balanced_sum
from streamtrain.pipeline.optimizer import UpdateTerms
from streamtrain.pipeline.plan import lower
from streamtrain.simulate.bench import run_streams

FOLDINGS = {
    (1, 1, 1): 1,
    (2, 1, 3): 3,
    (1, 2, 9): 3,
    (5, 3, 1): 1,
    (3, 6, 1): 3,
    (2, 1, 5): 5,
    (1, 1, 25): 5,
}


def stage(folding, kernel, **changes):
    """A stage behind another, with formats that are all different."""
    pm, pn, _ = folding
    net = Network(
        (1, 5, 5),
        (Conv2d(2 * pn, kernel), Conv2d(2 * pm, kernel), Flatten(), Linear(2)),
    )
    foldings = {"conv1": (1, 1, 1), "conv2": folding, "linear1": (1, 1, 1)}
    formats = {
        "input": Fixed(7, 3),
        "weights": Fixed(9, 6),
        "stored": Fixed(9, 6),
        "errors": Fixed(8, 5),
    }
    return replace(lower(net, foldings).stages[1], **{**formats, **changes})


def codes(rng, fmt, size, extreme):
    """Random codes, or only the largest and smallest."""
    return rng.choice([fmt.codes[0], fmt.codes[-1]] if extreme else fmt.codes, size)


def operations(rng, stage, count, shifts, extreme, pause):
    """Random operations: each a dictionary of inputs and the sums that they make."""
    (pm, pn, pk), phases = stage.folding, ["fp", "wu"] + ["bp"] * stage.back
    done = []
    while len(done) < count:
        phase = rng.choice(phases)
        gradient = np.zeros((pm, pn, pk), np.int64)
        shift = int(rng.integers(shifts + 1)) if phase == "wu" else 0
        # WU multiplies one pixel after another, and is not interrupted. The last one is the worst.
        pixels = stage.pixels if phase == "wu" else 1
        for pixel in range(pixels):
            w = codes(rng, stage.weights, (pm, pn, pk), extreme)
            x = codes(rng, stage.input, (pn, pk), extreme)
            window = codes(rng, stage.errors, (pm, pk), extreme)
            dz = codes(rng, stage.errors, pm, extreme)
            if phase == "wu" and extreme:
                x[:], dz[:] = stage.input.codes[0], stage.errors.codes[0]
            inputs = {
                "valid": 1,
                "bp": int(phase == "bp"),
                "wu": int(phase == "wu"),
                "load": int(pixel == 0),
                "shift": shift,
                "w": w.ravel().tolist(),
                "x": x.tolist(),
                "dz": dz.tolist(),
            }
            if stage.back:
                inputs["dz_window"] = window.tolist()
            sums = {}
            if phase == "fp":
                sums["forward"] = (w * x).sum(axis=(1, 2))
            elif phase == "bp":
                sums["backward"] = (w * window[:, None, ::-1]).sum(axis=(0, 2))
            else:
                gradient = gradient + dz[:, None, None] * (x << shift)
                sums["gradient"] = gradient.ravel()
            done.append((inputs, sums))
            while rng.random() < pause:
                noise = dict(inputs, valid=0, w=[0] * w.size, load=1, wu=int(rng.integers(2)))
                done.append((noise, {}))
    return done


def check(stage, *, shifts=3, count=60, extreme=False, pause=0.0, operand_bits=25):
    array = MultiplierArray(stage, shifts=shifts, operand_bits=operand_bits)
    latency = {"gradient": array.PRODUCT_LATENCY, "forward": array.forward_latency}
    if stage.back:
        latency["backward"] = array.backward_latency
    rng = np.random.default_rng(count)
    todo = operations(rng, stage, count, shifts, extreme, pause)

    async def drive(ctx):
        due = defaultdict(dict)  # sums by the cycle in which they must be there
        for cycle in range(len(todo) + max(latency.values())):
            for name, sums in due.pop(cycle, {}).items():
                assert list(ctx.get(getattr(array, name))) == sums.tolist(), (cycle, name)
            inputs, sums = todo[cycle] if cycle < len(todo) else ({"valid": 0}, {})
            for name, value in inputs.items():
                ctx.set(getattr(array, name), value)
            for name, values in sums.items():
                due[cycle + latency[name]][name] = values
            await ctx.tick()

    run_streams(array, {}, {}, drive=drive)
    return array


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("folding, kernel", FOLDINGS.items())
def test_sums_are_there_at_their_latency(folding, kernel, pause):
    check(stage(folding, kernel), pause=pause)


@pytest.mark.parametrize("operand_bits", [7, 25])  # products are shifted, or inputs
@pytest.mark.parametrize("folding, kernel", FOLDINGS.items())
def test_largest_sums_do_not_wrap(folding, kernel, operand_bits):
    check(stage(folding, kernel), extreme=True, shifts=7, operand_bits=operand_bits)


@pytest.mark.parametrize("operand_bits", [18, 25])
@pytest.mark.parametrize("fmt", [Fixed(2, 0), Fixed(18, 12)])
def test_narrowest_and_widest_operands(fmt, operand_bits):
    formats = {"input": fmt, "weights": fmt, "stored": fmt, "errors": fmt}
    check(
        stage((2, 2, 3), 3, **formats),
        extreme=True,
        shifts=7,
        count=30,
        operand_bits=operand_bits,
    )


def test_weights_may_be_wider_than_all_else():
    formats = {"input": Fixed(2, 0), "weights": Fixed(18, 12), "errors": Fixed(3, 0)}
    check(stage((1, 2, 1), 1, out_rows=1, out_cols=1, **formats), extreme=True, shifts=0)


def test_first_stage_has_no_back_propagation():
    array = check(stage((2, 2, 3), 3, back=False))
    assert not hasattr(array, "backward")
    assert not hasattr(array, "dz_window")


def test_learning_rate_without_shifts():
    check(stage((2, 2, 3), 3), shifts=0)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("pause", [0.0, 0.4])
def test_products_are_shifted_where_inputs_have_no_room(pause, back):
    check(stage((2, 2, 3), 3, back=back), shifts=7, pause=pause, operand_bits=13)


def test_operands_are_as_narrow_as_they_can_be():
    own = stage((2, 2, 3), 3)  # inputs of 7 bits, errors of 8, weights of 9
    assert operand_widths(own, 3, operand_bits=10) == (10, 9)
    assert operand_widths(own, 3, operand_bits=9) == (8, 9)
    assert operand_widths(own, 0, operand_bits=2) == (8, 9)
    assert operand_widths(replace(own, trainable=False), 3, operand_bits=2) == (8, 9)


def test_the_optimisers_coefficients_need_the_room_anyway():
    own = stage((2, 2, 3), 3)
    terms = UpdateTerms(
        velocity=None, decay=True, momentum_shift=0, decay_shift=0, coefficient=24, product=33,
        velocity_shift=0,
    )  # fmt: skip
    assert operand_widths(own, 3, terms, operand_bits=9) == (25, 9)
    assert not shifts_products(own, 3, terms, operand_bits=9)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_balanced_sum(count):
    terms = random.Random(count).sample(range(1000), count)
    assert balanced_sum(terms) == sum(terms)


def test_latency_grows_by_a_register_for_every_second_adder():
    def latencies(folding):
        array = MultiplierArray(stage(folding, 3), shifts=0)
        return array.forward_latency, array.backward_latency

    assert latencies((1, 1, 1)) == (3, 3)
    assert latencies((2, 8, 1)) == (3 + 2, 3 + 1)
    assert latencies((8, 2, 9)) == (3 + 2 + 1, 3 + 2 + 2)
