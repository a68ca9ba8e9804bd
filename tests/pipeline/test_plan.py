"""What a network becomes when it is planned."""

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest

import streamtrain as st
from streamtrain.network import (
    SGD,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    Loss,
    MaxPool2d,
    MSELoss,
    Network,
    ReLU,
    SquaredHinge,
)
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import ACCUMULATOR_WIDTH, RATE_UNIT, Plan, ceil_log2, lower

NET = Network(
    (1, 9, 7),
    (
        Conv2d(4, kernel=3),
        ReLU(),
        MaxPool2d(),
        Conv2d(6, kernel=3, padding="valid", bias=False),
        ReLU(),
        Flatten(),
        Linear(8),
        ReLU(),
        Linear(5),
    ),
    optimizer=SGD(2**-7),
)
FOLDINGS = {"conv1": (2, 1, 3), "conv2": (3, 2, 9), "linear1": (4, 6, 1), "linear2": (5, 1, 1)}


def one_stage(*, channels=(1, 2), size=(3, 3), kernel=3, folding=(1, 1, 1), lr=2**-7, **formats):
    n, m = channels
    layers = (Conv2d(m, kernel, padding="valid"), Flatten(), Linear(2))
    net = Network((n, *size), layers, optimizer=SGD(lr))
    foldings = {"conv1": folding, "linear1": (1, 1, 1)}
    return lower(net, foldings, Numbers(**formats))


# What becomes of layers.


def test_layers_with_weights_become_stages():
    conv1, conv2, linear1, linear2 = lower(NET, FOLDINGS).stages
    assert [conv1.channels, conv2.channels] == [(1, 4), (4, 6)]
    assert [linear1.channels, linear2.channels] == [(6 * 2 * 1, 8), (8, 5)]
    assert [s.linear for s in (conv1, conv2, linear1, linear2)] == [False, False, True, True]
    assert [s.back for s in (conv1, conv2, linear1, linear2)] == [False, True, True, True]
    assert [s.relu for s in (conv1, conv2, linear1, linear2)] == [True, True, True, False]
    assert [s.bias for s in (conv1, conv2, linear1, linear2)] == [True, False, True, True]
    assert [s.pool for s in (conv1, conv2, linear1, linear2)] == [2, 1, 1, 1]
    assert (conv2.rows, conv2.cols, conv2.kernel, conv2.pad) == (4, 3, 3, 0)


def test_outputs_that_a_pool_drops_are_not_computed():
    conv1 = lower(NET, FOLDINGS).stages[0]
    assert (conv1.rows, conv1.cols) == (9, 7)
    assert (conv1.out_rows, conv1.out_cols) == (8, 6)
    assert conv1.pooled == (4, 3)
    assert conv1.pixels == 48


def test_a_linear_layer_remembers_the_map_that_it_flattens():
    _, _, linear1, linear2 = lower(NET, FOLDINGS).stages
    assert linear1.flattened == (6, 2, 1)
    assert linear2.flattened == (8, 1, 1)
    net = Network((3, 2, 4), (Flatten(), Linear(2)))
    (stage,) = lower(net, {"linear1": (1, 1, 1)}).stages
    assert stage.flattened == (3, 2, 4)


@pytest.mark.parametrize("order", [(ReLU(), MaxPool2d()), (MaxPool2d(), ReLU())])
def test_rectifying_and_pooling_may_be_swapped(order):
    net = Network((1, 4, 4), (Conv2d(2, 3), *order, Flatten(), Linear(2)))
    stage = lower(net, {"conv1": (1, 1, 1), "linear1": (1, 1, 1)}).stages[0]
    assert stage.relu
    assert stage.pool == 2


def test_words_and_cycles_follow_from_the_folding():
    conv1, conv2, *_ = lower(NET, FOLDINGS).stages
    assert conv1.blocks == (2, 1, 3)
    assert conv2.blocks == (2, 2, 1)
    assert conv2.words == 4
    assert conv2.multipliers == 54
    assert conv2.weight_shape == (6, 4, 3, 3)
    assert conv1.phase_cycles() == {"FP": 48 * 6, "BP": 0, "WU": 48 * 6}
    assert conv2.phase_cycles() == {"FP": 2 * 4, "BP": 12 * 4, "WU": 2 * 4}


def test_totals():
    plan = lower(NET, FOLDINGS)
    assert plan.multipliers == 6 + 54 + 24 + 5
    assert plan.bound_cycles == NET.training_macs / plan.multipliers


def test_sums_have_room():
    stage = replace(lower(NET, FOLDINGS).stages[1], input=Fixed(8, 0), weights=Fixed(6, 0))
    stage = replace(stage, errors=Fixed(7, 0))
    largest = 6 * 9 * 2 ** (8 - 1 + 6 - 1) + 2 ** (6 - 1)
    assert largest < 2 ** (stage.sum_width - 1)


def test_foldings_may_be_a_function():
    def largest(name, channels, kernel):
        seen.append((name, channels, kernel))
        return (channels[1], channels[0], 1)

    seen = []
    plan = lower(NET, largest)
    assert seen[:2] == [("conv1", (1, 4), 3), ("conv2", (4, 6), 3)]
    assert plan.stages[2].folding == (8, 12, 1)


def test_numpys_integers_are_sizes():
    foldings = {name: tuple(np.array(folding)) for name, folding in FOLDINGS.items()}
    plan = lower(NET, foldings, in_flight=np.int64(2), max_batch=np.int64(4), seed=np.int64(3))
    assert plan == lower(NET, FOLDINGS, in_flight=2, max_batch=4, seed=3)
    sizes = {"lutram_depth": np.int64(7), "operand_bits": np.int64(18)}
    assert lower(NET, FOLDINGS, **sizes).to_json()  # which NumPy's would not give


@pytest.mark.parametrize(
    "n, bits", [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)]
)
def test_ceil_log2(n, bits):
    assert ceil_log2(n) == bits


# Formats.


def test_formats_pass_from_stage_to_stage():
    plan = lower(NET, FOLDINGS, Numbers(activations=Fixed(9, 4), logits=Fixed(12, 3)))
    for before, after in zip(plan.stages, plan.stages[1:], strict=False):
        assert before.output == after.input == Fixed(9, 4)
    assert plan.stages[0].input == Fixed(9, 4)
    assert plan.stages[-1].output == Fixed(12, 3)


def test_layers_may_have_formats_of_their_own():
    own = Numbers(
        weights=Fixed(8, 5),
        master=Fixed(12, 8),
        activations=Fixed(7, 3),
        logits=Fixed(10, 2),
        errors=Fixed(11, 9),
        round_weights="stochastic",
        round_errors="truncate",
        round_activations="nearest_even",
    )
    plan = lower(NET, FOLDINGS, overrides={"conv2": own, "linear2": own})
    conv1, conv2, linear1, linear2 = plan.stages
    default = Numbers()
    assert (conv2.weights, conv2.stored) == (own.weights, own.master)
    assert (conv2.input, conv2.output) == (default.activations, own.activations)
    assert (linear1.input, linear1.output) == (own.activations, default.activations)
    assert linear2.output == own.logits
    assert [s.errors for s in (conv1, conv2)] == [default.errors, own.errors]
    assert conv2.round_weights is Round.STOCHASTIC
    assert conv2.round_errors is Round.TRUNCATE
    assert conv2.round_output is Round.NEAREST_EVEN
    assert linear1.round_output is Round.NEAREST


def test_shifts_follow_from_the_binary_points():
    plan = one_stage(activations=Fixed(10, 4), errors=Fixed(10, 6), weights=Fixed(10, 5))
    stage = plan.stages[0]
    assert plan.bias_shift(stage) == 6 + plan.rate_exponent - 5
    assert plan.weight_shift(stage) == 4 + plan.bias_shift(stage)
    assert plan.batch_shift(20) == 12
    assert plan.batch_shift(3) == 0


def test_rejects_samples_without_fractional_bits():
    message = r"^conv1: inputs are fixed<8,9>, but need at least 0 fractional bits$"
    with pytest.raises(ValueError, match=message):
        one_stage(activations=Fixed(8, -1))


def test_rejects_weights_that_are_finer_than_their_gradients():
    message = (
        r"^conv1: stored weights fixed<18,0> are finer than the bias gradients of inputs "
        r"fixed<16,5> and errors fixed<8,4> at a learning rate of 0.5, by 9 bits$"
    )
    with pytest.raises(ValueError, match=message):
        one_stage(weights=Fixed(18, 18), errors=Fixed(8, 4), lr=0.5)


def test_rejects_logits_whose_losses_overflow():
    one_stage(logits=Fixed(18, -1))
    message = r"^linear1: logits are fixed<18,20>, but a loss has room for at most 19 integer bits$"
    with pytest.raises(ValueError, match=message):
        one_stage(logits=Fixed(18, -2))


@pytest.mark.parametrize("loss", [MSELoss(), SquaredHinge()])
def test_rejects_logits_that_cannot_hold_a_squared_losss_targets(loss):
    message = r"^conv1: logits are fixed<\d+,\d+>, but (MSEL|Sq).* drives scores to 1, which must be a code "
    net = Network((1, 1, 1), (Conv2d(2, 1), Flatten()), loss=loss)

    def planned(logits):
        return lower(net, {"conv1": (1, 1, 1)}, Numbers(logits=logits))

    for logits in (Fixed(16, 15), Fixed(8, -1)):
        with pytest.raises(ValueError, match=message):
            planned(logits)
    assert planned(Fixed(18, 16)).stages[0].output == Fixed(18, 16)
    assert planned(Fixed(18, 0)).stages[0].output == Fixed(18, 0)


@pytest.mark.parametrize(
    "classes, factor",
    [(2, (2**15, 15)), (3, (43691, 16)), (4, (2**15, 16)), (10, (52429, 18)), (17, (61681, 19))],
)
def test_two_over_n_has_sixteen_bits(classes, factor):
    net = Network((1, 1, 1), (Conv2d(classes, 1), Flatten()), loss=MSELoss())
    code, frac = lower(net, {"conv1": (1, 1, 1)}).mean_factor
    assert code.bit_length() == 16
    assert abs(code / 2**frac * classes / 2 - 1) < 2**-16
    assert (code, frac) == factor


def test_rejects_losses_that_the_hardware_does_not_have():
    class Hinge(Loss):
        title = "hinge"

        def __repr__(self):
            return "Hinge()"

    net = Network((1, 1, 1), (Conv2d(2, 1), Flatten()), loss=Hinge())
    message = r"^The loss is Hinge\(\), which .* it computes CrossEntropy, MSELoss, SquaredHinge$"
    with pytest.raises(ValueError, match=message):
        lower(net, {"conv1": (1, 1, 1)})


def test_rejects_more_random_bits_than_there_are():
    formats = {"weights": Fixed(8, 0), "errors": Fixed(16, 22)}
    one_stage(**formats)
    with pytest.raises(
        ValueError, match=r"^conv1: stochastic rounding drops at most 32 bits, not \d+$"
    ):
        one_stage(**formats, round_weights="stochastic")


# The learning rate.


@pytest.mark.parametrize("lr", [0.9, 0.5, 2**-7, 0.013, 2**-12])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_rate_codes_are_near_the_rate(lr, batch):
    plan = one_stage(lr=lr)
    mantissa, shift = plan.rate_code(lr, batch)
    assert 0 < mantissa <= RATE_UNIT
    assert 0 <= shift <= plan.rate_shifts
    rate = mantissa / RATE_UNIT * 2.0 ** (shift - plan.rate_exponent)
    assert rate == pytest.approx(lr / batch, rel=1 / RATE_UNIT)


@pytest.mark.parametrize("formats", [{}, {"activations": Fixed(18, 12)}])
def test_ends_of_the_rate_range_have_codes(formats):
    plan = one_stage(**formats)
    low, high = plan.rate_range
    assert plan.rate_code(low) == (1, 0)
    assert plan.rate_code(high) == (RATE_UNIT, plan.rate_shifts)
    assert plan.rate_code(high / 4, 2) == (RATE_UNIT, plan.rate_shifts - 3)


@pytest.mark.parametrize("factor, batch", [(1.01, 1), (0.99, 4)])
def test_rates_outside_of_the_range_are_refused(factor, batch):
    plan = one_stage()
    rate = plan.rate_range[1] * factor if factor > 1 else plan.rate_range[0] * factor * batch
    message = rf"^Learning rate .* over a batch of {batch} is .* a sample; this design takes .* to "
    with pytest.raises(ValueError, match=message):
        plan.rate_code(rate, batch)


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf")])
def test_rates_that_are_none_are_refused(rate):
    with pytest.raises(ValueError, match=r"^Learning rate "):
        one_stage().rate_code(rate)


@pytest.mark.parametrize("size, shifts", [(3, 7), (34, 2), (66, 0)])
def test_shifts_of_the_rate_are_what_operand_and_accumulator_leave(size, shifts):
    formats = {"activations": Fixed(18, 11), "errors": Fixed(18, 15)}
    plan = one_stage(size=(size, size), **formats)
    assert plan.rate_shifts == shifts
    bits = 18 + 18 + ceil_log2(plan.stages[0].pixels)
    assert bits + shifts <= ACCUMULATOR_WIDTH


def test_rejects_gradients_that_no_accumulator_holds():
    message = (
        r"^conv1: weight gradients of inputs fixed<18,7> and errors fixed<18,3> over 4,225 outputs "
        r"need 49 bits, but the accumulator has 48$"
    )
    with pytest.raises(ValueError, match=message):
        one_stage(size=(67, 67), activations=Fixed(18, 11), errors=Fixed(18, 15))


# Random bits.


@pytest.mark.parametrize("seed", [1, 2, 2**32 - 1, 2**40])
def test_every_site_has_random_bits_of_its_own(seed):
    plan = lower(NET, FOLDINGS, seed=seed)
    seeds = {
        plan.random_seed(stage, site)
        for stage in plan.stages
        for site in ("output", "errors", "weights")
    }
    assert len(seeds) == 3 * len(plan.stages)
    assert all(0 < seed < 2**32 for seed in seeds)


# What cannot be planned.


@pytest.mark.parametrize(
    "folding, message",
    [
        (
            (3, 1, 1),
            r"^conv1: Pm = 3 does not divide its 4 output channels; what divides them is 1, 2, 4$",
        ),
        ((0, 1, 1), r"^conv1: Pm = 0 does not divide its 4 output channels"),
        (
            (1, 2, 1),
            r"^conv1: Pn = 2 does not divide its 1 input channels; what divides them is 1$",
        ),
        ((1, 1, 2), r"^conv1: Pk = 2 must be 1, 3 \(a kernel row\) or 9 \(all taps\)$"),
    ],
)
def test_rejects_foldings_that_do_not_divide(folding, message):
    with pytest.raises(ValueError, match=message):
        lower(NET, {**FOLDINGS, "conv1": folding})


def test_rejects_foldings_that_are_missing_or_of_nothing():
    with pytest.raises(ValueError, match=r"^No folding is given for conv1$"):
        lower(NET, {name: FOLDINGS[name] for name in list(FOLDINGS)[1:]})
    known = "the layers with weights are conv1, conv2, linear1, linear2$"
    with pytest.raises(ValueError, match=rf"^Foldings are given for 'relu1'; {known}"):
        lower(NET, {**FOLDINGS, "relu1": (1, 1, 1)})
    with pytest.raises(ValueError, match=rf"^Formats are given for 'conv3'; {known}"):
        lower(NET, FOLDINGS, overrides={"conv3": Numbers()})


@pytest.mark.parametrize("first", [ReLU(), MaxPool2d()])
def test_rejects_networks_that_begin_with_something_else(first):
    net = Network((1, 4, 4), (first, Conv2d(2, 3), Flatten(), Linear(2)))
    message = rf"^{first.stem}1 comes before any Conv2d or Linear; the pipeline begins with one of"
    with pytest.raises(ValueError, match=message):
        lower(net, lambda *_: (1, 1, 1))


@pytest.mark.parametrize("layer", [Conv2d(2, 3, stride=2), Conv2d(2, 7)])
def test_strides_and_large_kernels_are_the_unified_cores(layer):
    net = Network((1, 8, 8), (layer, Flatten(), Linear(2)))
    message = (
        rf"^conv1 has a kernel of {layer.kernel}x{layer.kernel} and stride {layer.stride}; the streaming core takes "
        rf"1x1, 3x3 and 5x5 with stride 1. .* core=\"unified\"\), or --core unified$"
    )
    for plan in (st.plan, st.explore):
        with pytest.raises(ValueError, match=message):
            plan(net, board="pynq_z2")


def test_batch_norms_are_the_unified_cores():
    net = Network((1, 8, 8), (Conv2d(2, 3), BatchNorm2d(), Flatten(), Linear(2)))
    message = (
        r"^norm1 is a BatchNorm2d, which the pipeline cannot run; .* core=\"unified\"\), or --core unified$"
    )
    for plan in (st.plan, st.explore):
        with pytest.raises(ValueError, match=message):
            plan(net, board="pynq_z2")


def test_rejects_two_pools_in_a_row():
    net = Network((1, 8, 8), (Conv2d(2, 3), MaxPool2d(), ReLU(), MaxPool2d(), Flatten(), Linear(2)))
    message = r"^pool2 pools what pool1 pooled; put a Conv2d between them$"
    with pytest.raises(ValueError, match=message):
        lower(net, lambda *_: (1, 1, 1))


def test_rejects_scores_that_are_a_map():
    net = Network((1, 4, 4), (Conv2d(2, 3), MaxPool2d(), Flatten()))
    message = r"^conv1 gives 2x2 scores for each channel; the class scores must come from Linear"
    with pytest.raises(ValueError, match=message):
        lower(net, lambda *_: (1, 1, 1))


@pytest.mark.parametrize("what", ["in_flight", "max_batch", "seed"])
def test_rejects_less_than_one(what):
    with pytest.raises(ValueError, match=rf"^{what} must be at least 1, not 0$"):
        lower(NET, FOLDINGS, **{what: 0})
    with pytest.raises(TypeError):
        lower(NET, FOLDINGS, **{what: 1.5})


@pytest.mark.parametrize("depth", [-1, 1025])
def test_rejects_memories_that_lutram_does_not_hold(depth):
    with pytest.raises(ValueError, match=rf"^lutram_depth must be from 0 to 1024, not {depth}$"):
        lower(NET, FOLDINGS, lutram_depth=depth)


@pytest.mark.parametrize("depth", [16.0, "64", None])
def test_rejects_depths_that_are_no_integers(depth):
    with pytest.raises(TypeError, match=rf"^lutram_depth must be an integer, not {depth!r}$"):
        lower(NET, FOLDINGS, lutram_depth=depth)


@pytest.mark.parametrize("bits", [1, 0, -18])
def test_rejects_multipliers_that_are_too_narrow(bits):
    with pytest.raises(ValueError, match=rf"^operand_bits must be at least 2, not {bits}$"):
        lower(NET, FOLDINGS, operand_bits=bits)


@pytest.mark.parametrize("bits", [18.0, "18", None])
def test_rejects_operands_that_have_no_whole_number_of_bits(bits):
    with pytest.raises(TypeError, match=rf"^operand_bits must be an integer, not {bits!r}$"):
        lower(NET, FOLDINGS, operand_bits=bits)


# Plans are values.


def test_travels_as_json():
    plan = lower(
        NET,
        FOLDINGS,
        Numbers(master=Fixed(20, 16), round_errors="stochastic"),
        {"conv2": Numbers(activations=Fixed(9, 4))},
        in_flight=2,
        max_batch=8,
        seed=5,
        lutram_depth=256,
        operand_bits=18,
    )
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("field, default", [("lutram_depth", 64), ("operand_bits", 25)])
def test_reads_plans_from_before_there_was_a_choice(field, default):
    members = json.loads(lower(NET, FOLDINGS).to_json())
    assert members.pop(field) == default
    assert Plan.from_json(json.dumps(members)) == lower(NET, FOLDINGS)


def test_equal_plans_are_one_cache_key():
    plans = {lower(NET, FOLDINGS), lower(NET, FOLDINGS), lower(NET, FOLDINGS, in_flight=2)}
    assert len(plans) == 2
    assert prod(plans.pop().stages[0].folding) == 6
