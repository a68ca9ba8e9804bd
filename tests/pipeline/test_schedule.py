"""Estimated cycles and the foldings that are chosen by them."""

from dataclasses import replace
from itertools import pairwise

import pytest

from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.schedule import Estimate, balanced_foldings, estimate


def network(input_shape, *convolutions, features=(10,)):
    """3x3 convolutions, "8P" with a pool behind it, then fully connected layers."""
    layers = []
    for text in convolutions:
        layers += [Conv2d(int(text.rstrip("P")), kernel=3), ReLU()]
        layers += [MaxPool2d()] * text.endswith("P")
    layers.append(Flatten())
    for size in features:
        layers += [Linear(size), ReLU()]
    return Network(input_shape, tuple(layers[:-1]))


# Multipliers, and cycles of a step that a folding has to beat.
REFERENCES = {
    "M": (network((1, 28, 28), "8P", "16P", "32P"), 700, 3600),
    "E": (network((1, 28, 28), "16P", "32P", features=(64, 10)), 720, 6600),
    "S": (network((3, 32, 32), "8P", "16P", "32P", "64P"), 1240, 5000),
    "C": (network((3, 32, 32), "8P", "16P", "32P", "64P", "64"), 1250, 7800),
    "X": (network((3, 32, 32), "16", "16P", "32", "32P", "64", "64P"), 1610, 30000),
}
SMALL = REFERENCES["M"][0]
FOLDINGS = {"conv1": (4, 1, 3), "conv2": (4, 4, 3), "conv3": (8, 2, 3), "linear1": (2, 8, 1)}


def test_counts_one_stage_to_the_cycle():
    # One output pixel of two channels, nine taps each: FP and WU multiply for 18 cycles. The queue
    # to the loss takes the first channel while the second is multiplied.
    net = Network((1, 3, 3), (Conv2d(2, kernel=3, padding="valid"), Flatten()))
    step = estimate(lower(net, {"conv1": (1, 1, 1)}, in_flight=2))
    classes, queue, written = 2, 1, 1
    window, product, total = 3, 3, 1
    update = classes + queue + 18 + (window + product + 2)
    forward = 18 + (window + product + total + queue + written)
    loss = classes + 16
    assert step.updated == (update,)
    assert step.cycles == update + forward + loss
    assert step.path == ((18, 0, 18),)


@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 16])
def test_never_faster_than_the_busiest_stage(batch, in_flight):
    result = estimate(lower(SMALL, FOLDINGS, in_flight=in_flight, max_batch=16), batch)
    assert result.cycles >= max(sum(phases.values()) for phases in result.phases.values())
    assert result.cycles >= result.bound_cycles
    assert 0 < result.utilisation <= 1


def test_a_step_is_a_prediction_and_the_way_back():
    # With two samples stored, the next one waits at the first stage for its update.
    result = estimate(lower(SMALL, FOLDINGS, in_flight=2))
    back = sum(phases["BP"] for phases in result.phases.values())
    loss = 2 * 10 + 30  # of ten classes
    least, most = result.latency + loss, result.latency + loss + back + result.phases["conv1"]["WU"]
    assert least < result.cycles < most


def test_stages_are_updated_when_their_errors_have_come():
    # The deepest stage has its errors first. None is updated before its WU could be done, and the
    # next sample passes all of them within the step.
    result = estimate(lower(SMALL, FOLDINGS, in_flight=2))
    assert min(result.updated) == result.updated[-1]
    work = [phases["BP"] + phases["WU"] for phases in result.phases.values()]
    assert all(updated > cycles for updated, cycles in zip(result.updated, work, strict=True))
    assert max(result.updated) < result.cycles


def test_updates_of_a_batch_count_from_its_last_sample():
    plan = lower(SMALL, FOLDINGS, in_flight=2, max_batch=4)
    one, four = estimate(plan), estimate(plan, 4)
    # Stages may still be busy with the samples before, and the last stage rarely is.
    assert all(later >= alone for later, alone in zip(four.updated, one.updated, strict=True))
    assert four.updated[-1] < 1.1 * one.updated[-1]


@pytest.mark.parametrize("stage", list(FOLDINGS))
@pytest.mark.parametrize("lane", [0, 1, 2])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_more_multipliers_in_a_stage_never_hurt(stage, lane, in_flight):
    plan = lower(SMALL, FOLDINGS, in_flight=in_flight)
    (grown,) = (s for s in plan.stages if s.name == stage)
    size = (*reversed(grown.channels), grown.kernel**2)[lane]
    before = estimate(plan)
    for factor in (2, 4, 8, 3, 9):
        part = FOLDINGS[stage][lane] * factor
        if size % part or (lane == 2 and part not in {1, 3, 9}):
            continue
        folding = tuple(part if i == lane else p for i, p in enumerate(FOLDINGS[stage]))
        after = estimate(lower(SMALL, {**FOLDINGS, stage: folding}, in_flight=in_flight))
        assert after.cycles <= before.cycles
        assert after.latency <= before.latency


def test_more_samples_in_flight_never_hurt():
    plan = lower(SMALL, FOLDINGS, max_batch=16)
    for batch in (1, 4, 16):
        cycles = [estimate(replace(plan, in_flight=n), batch).cycles for n in (1, 2, 3, 4)]
        for fewer, more in pairwise(cycles):
            assert more <= fewer + 1  # who meets whom at an array may change by a cycle


def test_batches_fill_the_arrays():
    plan = lower(SMALL, FOLDINGS, in_flight=2, max_batch=64)
    alone, *batches = [estimate(plan, batch).cycles for batch in (1, 4, 16, 64)]
    busiest = max(sum(stage.phase_cycles().values()) for stage in plan.stages)
    assert max(batches) < alone
    assert all(busiest <= cycles < 1.01 * busiest for cycles in batches)


def test_the_binding_phase_is_the_one_worth_speeding_up():
    slow = {"conv1": (8, 1, 9), "conv2": (1, 1, 3), "conv3": (8, 4, 9), "linear1": (2, 8, 1)}
    result = estimate(lower(SMALL, slow, in_flight=2))
    assert result.binding == ("conv2", "FP")
    assert sum(map(sum, result.path)) <= result.cycles
    assert result.path[0][1] == 0  # the first stage has no BP


def test_prints_and_shows_a_row_for_each_stage():
    result = estimate(lower(SMALL, FOLDINGS))
    header, rows = result.table()
    assert [row[0] for row in rows] == list(FOLDINGS)
    assert all(len(row) == len(header) for row in rows)
    stage, phase = result.binding
    for text in (str(result), result._repr_html_()):
        assert f"{result.cycles:,} cycles for a training step" in text
        assert f"{stage}'s {phase}" in text


def test_travels_as_json():
    result = estimate(lower(SMALL, FOLDINGS, max_batch=4), 4)
    assert Estimate.from_json(result.to_json()) == result


@pytest.mark.parametrize("batch", [0, 5])
def test_rejects_a_batch_that_the_plan_cannot_accumulate(batch):
    plan = lower(SMALL, FOLDINGS, max_batch=4)
    with pytest.raises(ValueError, match=rf"^Batch must be 1 to 4, .* not {batch}$"):
        estimate(plan, batch)


@pytest.mark.parametrize("name", list(REFERENCES))
def test_foldings_of_the_reference_networks_beat_their_targets(name):
    net, budget, target = REFERENCES[name]
    foldings = balanced_foldings(net, budget)
    plan = lower(net, foldings, in_flight=2)  # refuses foldings that do not divide
    assert plan.multipliers <= budget
    assert estimate(plan).cycles < target
    assert estimate(replace(plan, in_flight=1)).cycles < target
    for (pm, _, _), (_, pn, _) in pairwise(foldings.values()):
        assert pm % pn == 0 or pn % pm == 0


def test_larger_budgets_give_faster_foldings():
    cycles = []
    for budget in (4, 20, 100, 200, 400, 800, 1600):
        plan = lower(SMALL, balanced_foldings(SMALL, budget), in_flight=2)
        assert plan.multipliers <= budget
        cycles.append(estimate(plan).cycles)
    assert cycles == sorted(cycles, reverse=True)


def test_a_budget_beyond_all_use_is_left_over():
    net = Network((1, 3, 3), (Conv2d(2, kernel=3, padding="valid"), Flatten()))
    assert balanced_foldings(net, 1000) == {"conv1": (2, 1, 9)}


def test_foldings_do_not_depend_on_chance():
    assert balanced_foldings(SMALL, 300) == balanced_foldings(SMALL, 300)


def test_rejects_fewer_multipliers_than_stages():
    expected = (
        r"^4 layers with weights \(conv1, conv2, conv3, linear1\) take a multiplier each, "
        r"4 in all, but the budget is 3$"
    )
    with pytest.raises(ValueError, match=expected):
        balanced_foldings(SMALL, 3)
