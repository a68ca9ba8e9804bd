# amaranth: UnusedElaboratable=no
"""Times of a plan: against rules written down plainly, against one another, and against the gateware."""

from functools import cache
from itertools import pairwise, product
from math import ceil, gcd

import numpy as np
import pytest
from drawn import foldings, networks, plans
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_plans import (
    mixed_formats,
    only_convolutions,
    only_linear,
    partly_frozen,
    squared_error,
    tiny,
)

from streamtrain.host.device import Op
from streamtrain.network import Conv2d, CrossEntropy, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.pipeline import timing
from streamtrain.pipeline.core import TrainingPipeline
from streamtrain.pipeline.layouts import command_layout
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.schedule import estimate
from streamtrain.pipeline.stage import input_windows
from streamtrain.simulate.bench import run_streams

COLUMN = {name: number for number, name in enumerate(timing.DURATIONS)}


def known(plan):
    """Geometry of a plan and its durations."""
    return timing.geometry(plan.stages, plan.network.loss), timing.durations(plan.stages)


def cycles_of(geo, *tables, **options):
    return timing.step(geo, np.stack(tables), **options)[0]


in_flights = st.integers(1, 3)


@st.composite
def frozen_plans(draw, **options):
    """Plans of nets in which some layers are frozen, and no pool drops pixels.

    A dropped pixel may be computed while its sample's errors come back: FP and BP compete then.
    """
    net = draw(networks())
    names = [stage.name for stage in lower(net, lambda *layer: (1, 1, 1)).stages]
    kept = draw(st.integers(0, len(names) - 1))
    frozen = [name for at, name in enumerate(names) if at != kept and draw(st.booleans())]
    plan = lower(net.freeze(*frozen), draw(foldings(net)), **options)
    assume(all(input_windows(plan, stage).reaches_end for stage in plan.stages))
    return plan


# -- Against rules written down plainly ------------------------------------------------------------


def plain_step(plan, table):
    """A step at batch 1 of a plan whose samples wait for no memory: when is each thing done?

    It asks for every tap of every window, and for what must have come before, back to the first
    error. No queue is ever full.
    """
    stages = plan.stages
    last = len(stages) - 1
    row = [dict(zip(timing.DURATIONS, map(float, line), strict=True)) for line in table]

    def shape_in(s):
        return stages[s].rows, stages[s].cols

    def shape_out(s):
        return stages[s].out_rows, stages[s].out_cols

    def vector(s):
        return s > 0 and np.prod(shape_in(s)) < np.prod(stages[s - 1].pooled)

    def around(stage, centre, reach, size):
        """Places of a map that a window begins to cover ``reach`` before its centre."""
        axes = [
            range(max(0, at - reach), min(length, at - reach + stage.kernel))
            for at, length in zip(centre, size, strict=True)
        ]
        return product(*axes)

    def raster(size):
        return list(product(*map(range, size)))

    @cache
    def error(s, place):
        """When a stage can read the error of one of its pooled outputs."""
        if s == last:
            return row[s]["errors"] + 1
        return sent(s + 1, raster(stages[s].pooled).index(place))[1]

    def errors(s, places):
        """When it can read those of outputs before the pool."""
        pool, (rows, cols) = stages[s].pool, stages[s].pooled
        squares = {(min(r // pool, rows - 1), min(c // pool, cols - 1)) for r, c in places}
        return max((error(s, square) for square in squares), default=-np.inf)

    @cache
    def sent(s, p):
        """When BP has multiplied the errors of its p-th pixel, and when they can be read."""
        stage, line = stages[s], row[s]
        before, written = sent(s, p - 1) if p else (-np.inf, -np.inf)
        if vector(s):
            size, lanes = stages[s - 1].channels[1], stage.folding[1]
            first, end = ceil(p * size / lanes), ceil((p + 1) * size / lanes)
            begin = max(before, error(s, (0, 0)))
            done = begin + (end - first) * line["bp_group"]
            taken = ceil(line["bp_last"] * ((p + 1) * size - (end - 1) * lanes) / lanes)
            group = line["bp_group"] if p == 0 else 0
        else:
            place = raster(shape_in(s))[p]
            reach = stage.kernel - 1 - stage.pad
            begin = max(before, errors(s, around(stage, place, reach, shape_out(s))))
            done, taken, group = begin + line["bp"], line["bp_last"], line["bp_group"]
        lag, writes = line["bp_latency"], line["bp_writes"]
        return done, max(written + writes, done + lag + taken, begin + group + lag + writes)

    def updated(s):
        words, word = row[s]["wu"], row[s]["word"]
        if s > 0:
            count = int(np.prod(stages[s - 1].pooled))
            return sent(s, count - 1)[0] + 1 + words * word + 8
        time = -np.inf
        for place in raster(shape_out(0)):
            time = max(time, errors(0, [place])) + 1
        return time + (words - 1) * word + 8

    @cache
    def computed(s, p):
        """When FP has multiplied its p-th output."""
        stage = stages[s]
        time = computed(s, p - 1) if p else updated(s)
        if s == 0:
            return time + row[s]["fp"]
        if vector(s):
            places = [tuple(size - 1 for size in stages[s - 1].pooled)]
        else:
            place = raster(shape_out(s))[p]
            places = around(stage, place, stage.pad, shape_in(s))
        inputs = [readable(s - 1, tuple(at)) for at in places]
        return max([time, *inputs]) + row[s]["fp"]

    @cache
    def readable(s, place):
        """When the next stage can read a pooled output."""
        stage, line = stages[s], row[s]
        number = raster(stage.pooled).index(place)
        corner = tuple((at + 1) * stage.pool - 1 for at in place)
        done = computed(s, raster(shape_out(s)).index(corner))
        written = readable(s, raster(stage.pooled)[number - 1]) if number else -np.inf
        lag, writes = line["fp_latency"], line["fp_writes"]
        began = done - line["fp"] + line["fp_group"]
        return max(written + writes, done + lag + line["fp_last"], began + lag + writes)

    classes = plan.network.classes
    return readable(last, (0, 0)) + classes + 16


@settings(max_examples=60, deadline=None)
@given(plans())
def test_steps_are_those_of_plain_rules(plan):
    geo, table = known(plan)
    table[:, [COLUMN["fp_ahead"], COLUMN["bp_ahead"]]] = 0
    assert cycles_of(geo, table)[0] == pytest.approx(plain_step(plan, table), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(plans() | frozen_plans(), in_flights, st.booleans())
def test_batches_of_one_are_steps(plan, in_flight, accumulates):
    geo, table = known(plan)
    options = {"in_flight": in_flight, "accumulates": accumulates}
    (expected,), (updated,) = timing.step(geo, table[None], **options)
    cycles, ends = timing.flow(geo, table, batch=1, **options)
    assert cycles == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(ends, updated, atol=1e-6)


# -- What a search may rely on ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(plans() | frozen_plans(), in_flights)
def test_relaxed_durations_take_no_longer(plan, in_flight):
    geo, table = known(plan)
    relaxed, exact = cycles_of(geo, timing.relaxed(geo, table), table, in_flight=in_flight)
    assert relaxed <= exact + 1e-6


@settings(max_examples=60, deadline=None)
@given(plans(count=2), in_flights)
def test_relaxed_steps_are_convex(pair, in_flight):
    geo = timing.geometry(pair[0].stages, pair[0].network.loss)
    one, other = (timing.relaxed(geo, timing.durations(plan.stages)) for plan in pair)
    ends = cycles_of(geo, one, other, in_flight=in_flight)
    for part in (0.25, 0.5, 0.75):
        (between,) = cycles_of(geo, part * one + (1 - part) * other, in_flight=in_flight)
        assert between <= part * ends[0] + (1 - part) * ends[1] + 1e-6


LONGER = [name for name in timing.DURATIONS if not name.endswith("ahead")]


@settings(max_examples=30, deadline=None)
@given(plans() | frozen_plans(), in_flights, st.integers(1, 9))
def test_nothing_that_takes_longer_shortens_a_step(plan, in_flight, more):
    geo, table = known(plan)
    table = timing.relaxed(geo, table)
    tables = np.repeat(table[None], 1 + len(LONGER) * len(table), axis=0)
    for longer, (stage, name) in zip(tables[1:], product(range(len(table)), LONGER), strict=True):
        longer[stage, COLUMN[name]] += more * (longer[stage, COLUMN[name]] > 0)
    before, *after = cycles_of(geo, *tables, in_flight=in_flight)
    assert min(after) >= before - 1e-6
    assert max(after) > before  # or nothing would count


@settings(max_examples=60, deadline=None)
@given(plans() | frozen_plans(), in_flights, st.sampled_from([1, 2, 5]))
def test_no_faster_than_the_busiest_stage(plan, in_flight, batch):
    geo, table = known(plan)
    busiest = max(sum(stage.phase_cycles().values()) for stage in plan.stages)
    cycles, updated = timing.flow(geo, table, batch=batch, in_flight=in_flight)
    assert cycles >= busiest
    for stage, own, words in zip(plan.stages, updated, table[:, COLUMN["wu"]], strict=True):
        assert own > words if stage.trainable else own == -np.inf


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 6))
def test_writes_are_those_of_changed_lanes(given_lanes, taken, factor):
    # What leaves in groups of one size is taken in another: a group at a time if one divides the
    # other, else their common divisor at a time. What waits in a queue leaves it group by group.
    channels = given_lanes * taken // gcd(given_lanes, taken) * factor
    net = Network((1, 1, 1), (Conv2d(channels, 1), Conv2d(channels, 1), Flatten(), Linear(2)))
    lanes = {"conv1": (given_lanes, 1, 1), "conv2": (1, taken, 1), "linear1": (1, 1, 1)}
    first, second, _ = lower(net, lanes).stages
    forward, backward = timing.link_durations(first, second)
    common = gcd(given_lanes, taken)
    narrow = min(given_lanes, taken)
    moves = channels // (narrow if common == narrow else common)
    assert forward[0] == (moves if given_lanes > common else channels // given_lanes)
    assert forward[1] == (given_lanes // common if given_lanes > common else 1)
    assert backward[0] >= channels // given_lanes
    assert backward[1] == (taken // common if taken > common else 1)


# -- Against the gateware --------------------------------------------------------------------------


def train(plan, batch, batches=4):
    """Train in the simulated gateware.

    Returns the pace of each mini-batch in cycles a sample, without the first ones, and when the
    stages' weights were updated, from the first error of a mini-batch's last sample on.
    """
    samples, first = batch * batches, plan.stages[0]
    command = dict.fromkeys((name for name, _ in command_layout(plan)), 0)
    command |= {"op": int(Op.TRAIN), "mantissa": 64}
    ends = [number % batch == batch - 1 for number in range(samples)]
    beats = samples * first.rows * first.cols * first.blocks[1]
    sent = {
        "command": [{**command, "update": int(end)} for end in ends],
        "i": [[0] * first.folding[1]] * beats,
    }
    pulses = [[] for _ in plan.stages]
    trained = [number for number, stage in enumerate(plan.stages) if stage.trainable]
    pipeline = TrainingPipeline(plan)

    async def watch(ctx):
        cycle = 0
        while min(len(pulses[number]) for number in trained) < batches:
            _, _, updated = await ctx.tick().sample(pipeline.updated)
            for number, times in enumerate(pulses):
                times.extend([cycle] * (updated >> number & 1))
            cycle += 1

    run = run_streams(pipeline, sent, {"o": samples}, drive=watch, max_cycles=60_000)
    results = run.times["o"][batch - 1 :: batch]
    paces = {(after - before) / batch for before, after in pairwise(results[1:])}
    # The result follows the errors, that of squares not before their mean is there.
    squares = not isinstance(plan.network.loss, CrossEntropy)
    first_error = results[-2] - (
        max(plan.network.classes, 21 - 7) if squares else plan.network.classes
    )
    return paces, [times[-2] - first_error if times else 0 for times in pulses]


def pooled_vector(**options):
    """A pool, a vector in groups that are parts of two pixels' channels, a slow last stage."""
    net = Network(
        (1, 4, 6), (Conv2d(4, 3), ReLU(), MaxPool2d(), Flatten(), Linear(6), ReLU(), Linear(3))
    )
    lanes = {"conv1": (2, 1, 3), "linear1": (2, 3, 1), "linear2": (1, 1, 1)}
    return lower(net, lanes, **options)


def slow_front(**options):
    """The first stage is busier than those behind it: they wait for it."""
    net = Network(
        (2, 4, 4), (Conv2d(4, 1), ReLU(), Conv2d(3, 3, padding="valid"), Flatten(), Linear(2))
    )
    return lower(net, {"conv1": (1, 1, 1), "conv2": (1, 4, 9), "linear1": (2, 4, 1)}, **options)


def slow_back(**options):
    """The last stages are busier than those in front of them: their memories fill."""
    net = Network((1, 3, 4), (Conv2d(6, 1), MaxPool2d(), ReLU(), Flatten(), Linear(6), Linear(5)))
    return lower(net, {"conv1": (6, 1, 1), "linear1": (1, 1, 1), "linear2": (1, 2, 1)}, **options)


def many_words(**options):
    """Words of one pixel: WU keeps FP and BP from the weights in every cycle."""
    net = Network((6, 1, 1), (Flatten(), Linear(6), ReLU(), Linear(4)))
    return lower(net, {"linear1": (1, 2, 1), "linear2": (4, 1, 1)}, **options)


def queued(**options):
    """Results of few cycles each, which the next stage takes one channel at a time."""
    net = Network((1, 3, 4), (Conv2d(8, 1), Conv2d(2, 1), Flatten(), Linear(2)))
    return lower(net, {"conv1": (8, 1, 1), "conv2": (2, 1, 1), "linear1": (1, 8, 1)}, **options)


DESIGNS = [tiny, pooled_vector, slow_front, slow_back, many_words, queued, squared_error]


def close(found, measured):
    """Within a cycle, or half a percent."""
    return found == pytest.approx(measured, rel=0.005, abs=1)


@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("design", DESIGNS)
def test_gateware_keeps_the_estimate(design, batch, in_flight):
    plan = design(in_flight=in_flight, max_batch=batch)
    paces, updates = train(plan, batch)
    (pace,) = paces
    expected = estimate(plan, batch)
    assert close(expected.cycles, pace)
    assert all(map(close, expected.updated, updates))


@pytest.mark.parametrize("plan", [mixed_formats(), only_linear(), only_convolutions()])
def test_gateware_keeps_the_estimate_of_other_plans(plan):
    paces, updates = train(plan, 1)
    (pace,) = paces
    expected = estimate(plan)
    assert close(expected.cycles, pace)
    assert all(map(close, expected.updated, updates))


@pytest.mark.parametrize(
    ("frozen", "batch", "in_flight"),
    [
        (["conv1"], 1, 1),
        (["conv1"], 1, 2),
        (["conv1", "conv2"], 1, 1),
        (["conv1", "conv2"], 4, 2),
        (["conv2", "linear1"], 4, 1),
        (["linear2"], 1, 2),
        (["conv1", "conv2", "linear1"], 1, 2),
    ],
)
def test_gateware_keeps_the_estimate_of_frozen_layers(frozen, batch, in_flight):
    plan = partly_frozen(*frozen, in_flight=in_flight, max_batch=batch)
    paces, updates = train(plan, batch, 8 if batch == 1 else 4)
    expected = estimate(plan, batch)
    assert close(expected.cycles, max(paces))
    assert all(map(close, expected.updated, updates))


def test_gateware_keeps_the_mean_of_batches_that_take_turns():
    # The frozen stage in front never waits. How far it is when the others update differs from one
    # mini-batch to the next, so these are shorter and longer than its work by turns.
    net = Network(
        (2, 5, 3), (Conv2d(1, 3, padding="valid"), ReLU(), Flatten(), Linear(2), ReLU(), Linear(5))
    )
    lanes = {"conv1": (1, 1, 1), "linear1": (1, 3, 1), "linear2": (1, 1, 1)}
    plan = lower(net.freeze("conv1", "linear2"), lanes, in_flight=3, max_batch=5)
    short, long = sorted(train(plan, 5, 8)[0])
    busiest = max(sum(stage.phase_cycles().values()) for stage in plan.stages)
    assert short < busiest < (short + long) / 2
    assert close(estimate(plan, 5).cycles, (short + long) / 2)


@pytest.mark.parametrize("design", DESIGNS)
def test_predictions_take_their_latency(design):
    plan = design()
    first = plan.stages[0]
    command = dict.fromkeys(("label", "update", "mantissa", "shift", "stage", "frozen"), 0)
    beats = first.rows * first.cols * first.blocks[1]
    sent = {"command": [{**command, "op": int(Op.INFER)}], "i": [[0] * first.folding[1]] * beats}
    run = run_streams(TrainingPipeline(plan), sent, {"o": 1})
    assert run.times["i"][0] == 0
    assert estimate(plan).latency == run.times["o"][0]
