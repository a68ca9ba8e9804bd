"""An optimiser's values as integers: ranges, formats, and what is refused."""

from dataclasses import replace

import pytest
from small_plans import FOLDINGS, TINY

from streamtrain.network import SGD
from streamtrain.numeric import Fixed
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.optimizer import (
    MOMENTUM_BITS,
    clip_frac,
    decay_frac,
    decay_limit,
    gradient_frac,
    update_codes,
    update_terms,
    velocity,
)
from streamtrain.pipeline.plan import Plan, lower

EIGHT = Numbers(
    weights=Fixed(8, 6), activations=Fixed(8, 5), logits=Fixed(12, 6), errors=Fixed(8, 7)
)
EIGHTEEN = Numbers(weights=Fixed(18, 15), activations=Fixed(18, 13), errors=Fixed(18, 15))
ALL = {"momentum": 0.9, "weight_decay": 1e-2, "clip": 1.0}


def make(numbers=None, lr=2**-6, **options):
    return lower(replace(TINY, optimizer=SGD(lr, **options)), FOLDINGS, numbers)


@pytest.mark.parametrize("lr", [2**-3, 0.01, 2**-10])
@pytest.mark.parametrize("numbers", [None, EIGHT, EIGHTEEN])
def test_codes_are_values_on_the_accumulators_scale(numbers, lr):
    plan = make(numbers, lr, **ALL)
    codes = update_codes(plan, lr)
    assert codes["momentum"] * 2.0**-MOMENTUM_BITS == pytest.approx(0.9, abs=2**-11)
    assert codes["decay"] * 2.0 ** -decay_frac(plan) == pytest.approx(
        lr * 1e-2, abs=2.0 ** (-decay_frac(plan) - 1)
    )
    assert codes["clip"] * 2.0 ** -clip_frac(plan) == pytest.approx(lr, rel=2**-10)
    for stage in plan.stages:
        terms, frac = update_terms(plan, stage), gradient_frac(plan, stage)
        assert terms.velocity.frac + MOMENTUM_BITS + terms.momentum_shift == frac
        assert stage.weights.frac + decay_frac(plan) + terms.decay_shift == frac
        assert terms.coefficient <= 24  # with its sign the multiplier's wide side
        assert terms.velocity.width <= 18
        assert decay_limit(plan) << terms.decay_shift <= 1 << 24
        assert clip_frac(plan) <= frac - stage.input.frac


def test_a_velocity_holds_many_gradients_of_one():
    plan = make(**ALL)
    for stage in plan.stages:
        # 64 gradients of 1 at a learning rate of 2**-6, in steps of 2**-11 of one.
        assert velocity(plan, stage) == Fixed(18, 6 + 11)
    assert velocity(make(), make().stages[0]) is None


def test_updates_take_an_operation_for_each_term_and_word():
    plain, plan = make(), make(momentum=0.9, weight_decay=1e-2)
    for before, after in zip(plain.stages, plan.stages, strict=True):
        words = after.words + after.blocks[0]
        assert (before.terms, after.terms) == (0, 2)
        assert after.phase_cycles()["WU"] == before.phase_cycles()["WU"] + 2 * words


def test_travels_as_json():
    plan = make(**ALL)
    assert Plan.from_json(plan.to_json()) == plan


def test_small_rates_may_leave_nothing_of_the_decay():
    plan = make(EIGHT, momentum=0.5, weight_decay=1e-2, clip=0.1)
    assert update_codes(plan, 2**-6)["decay"] == 20
    assert update_codes(plan, 2**-13) == {"momentum": 512, "decay": 0, "clip": 1}


def test_zero_switches_off_what_there_is():
    plan = make(**ALL)
    codes = update_codes(plan, 2**-6, momentum=0, weight_decay=0)
    assert (codes["momentum"], codes["decay"]) == (0, 0)
    assert update_codes(make(), 2**-6, momentum=0, weight_decay=0.0) == dict.fromkeys(codes, 0)


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        ({}, {"momentum": 0.5}, r"^This design has no momentum; plan .* SGD\(momentum=\.\.\.\)$"),
        ({}, {"weight_decay": 0.1}, r"^This design has no weight decay; plan the network with"),
        ({}, {"clip": 1.0}, r"^This design has no clip; plan the network with SGD\(clip=\.\.\.\)$"),
        (ALL, {"momentum": 0.9999}, r"^Momentum 0\.9999 is not 0 to 0\.99902\d, in steps of 0\.00"),
        (ALL, {"momentum": -0.5}, r"^momentum must be 0 or more, not -0\.5$"),
        (ALL, {"weight_decay": 10}, r"^Weight decay 10 at a learning rate of 0\.015625 is outside"),
        (ALL, {"weight_decay": 1e-9}, r"^Weight decay 1e-09 .* takes: [\d.e-]+ to [\d.]+, in step"),
        (ALL, {"clip": 1000}, r"^Clip 1000 at a learning rate of 0\.015625 is outside of what"),
        (ALL, {"clip": 0}, r"^Clip 0 at a learning rate"),
    ],
)
def test_refuses_what_there_is_no_hardware_for(options, values, message):
    with pytest.raises(ValueError, match=message):
        update_codes(make(**options), 2**-6, **values)


def test_refuses_what_is_no_number():
    with pytest.raises(TypeError, match=r"^momentum must be a number, not '0\.9'$"):
        update_codes(make(**ALL), 2**-6, momentum="0.9")


@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        (
            Numbers(weights=Fixed(6, 1), activations=Fixed(8, 1), errors=Fixed(8, 4)),
            {"momentum": 0.9},
            r"^conv1: gradients of inputs .* leave \d bits to a velocity, but momentum needs 8; ",
        ),
        (EIGHT, {"weight_decay": 1e-6}, r"^Weight decay 1e-06 at a learning rate of 0\.015625 is"),
        (None, {"momentum": 0.9999}, r"^Momentum 0\.9999 is not"),
    ],
)
def test_refuses_formats_without_room(numbers, options, message):
    with pytest.raises(ValueError, match=message):
        make(numbers, **options)
