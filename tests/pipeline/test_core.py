# amaranth: UnusedElaboratable=no
"""Whole pipelines, from commands and samples to results and weights, against the golden model."""

from itertools import pairwise

import numpy as np
import pytest
from small_plans import (
    PLANS,
    mixed_formats,
    only_convolutions,
    only_linear,
    partly_frozen,
    tiny,
)

from streamtrain.golden import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.host.packing import pack_states, stage_words
from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, SquaredHinge
from streamtrain.numeric import Fixed
from streamtrain.pipeline.core import TrainingPipeline
from streamtrain.pipeline.layouts import command_layout
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.schedule import estimate
from streamtrain.simulate.bench import run_streams


class Script:
    """A run of a pipeline: what is sent, and what the golden model says should come."""

    def __init__(self, plan, seed=0):
        self.plan, self.golden = plan, Golden(plan)
        self.rng = np.random.default_rng(seed)
        self.sent = {"command": [], "i": [], "weights_i": []}
        self.expected = {"o": [], "weights_o": []}
        self.blank = {name: 0 for name, _ in command_layout(plan)}

    def sample(self, op=Op.TRAIN, update=True, frozen=0):
        plan = self.plan
        fmt = plan.stages[0].input
        x = self.rng.integers(0, 2**fmt.frac, plan.network.input_shape, endpoint=True)
        x = np.minimum(x, fmt.codes[-1])
        command = {
            "op": int(op),
            "label": int(self.rng.integers(plan.network.classes)),
            "update": int(update),
            "mantissa": int(self.rng.integers(64, 129)),
            "shift": int(self.rng.integers(plan.rate_shifts + 1)),
            "frozen": frozen,
            **self.update_codes(),
        }
        self.sent["command"].append({**self.blank, **command})
        self.sent["i"] += x.transpose(1, 2, 0).reshape(-1, plan.stages[0].folding[1]).tolist()
        one = Commands(**{name: np.array([value]) for name, value in command.items()})
        results = self.golden.run(x[np.newaxis], one)
        self.expected["o"].append({
            "scores": results.scores[0].tolist(),
            "loss": int(results.loss[0]),
            "predicted": int(results.predicted[0]),
        })

    def update_codes(self):
        """What a command tells an optimiser besides the learning rate."""
        return {}

    def _words(self, stage):
        weights = self.golden.read_weights()
        name = stage.name
        words = stage_words(stage, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
        return words.ravel().tolist()

    def _scan(self, op, number):
        self.sent["command"].append({**self.blank, "op": int(op), "stage": number})
        return self._words(self.plan.stages[number])

    def _scan_states(self, op):
        self.sent["command"].append(
            {**self.blank, "op": int(op), "stage": len(self.plan.stages)}
        )
        return pack_states(self.plan, self.golden.read_random()).tolist()

    def read_states(self):
        self.expected["weights_o"] += self._scan_states(Op.READ)

    def write_states(self):
        states = self.golden.read_random()
        self.golden.write_random({n: int(self.rng.integers(1, 2**32)) for n in states})
        # The other bits do not matter.
        self.sent["weights_i"] += [bit - 2 for bit in self._scan_states(Op.WRITE)]

    def read(self):
        for number in range(len(self.plan.stages)):
            self.expected["weights_o"] += self._scan(Op.READ, number)

    def write(self, weights=None):
        if weights is not None:
            self.golden.write_weights(weights)
        for number in range(len(self.plan.stages)):
            self.sent["weights_i"] += self._scan(Op.WRITE, number)

    def write_random(self, spread=1.0):
        weights = {}
        for name, codes in self.golden.read_weights().items():
            (stage,) = (s for s in self.plan.stages if s.name == name.partition(".")[0])
            weights[name] = stage.stored.encode(self.rng.normal(0, spread, codes.shape))
        self.write(weights)

    def run(self, **options):
        pipeline = TrainingPipeline(self.plan)
        counts = {name: len(payloads) for name, payloads in self.expected.items()}
        run = run_streams(pipeline, self.sent, counts, max_cycles=60_000, **options)
        for name, payloads in self.expected.items():
            assert run.received[name] == payloads, name
        for stage, counters in self.golden.saturations().items():
            for what, count in counters.items():
                assert run.final[f"saturated_{stage}_{what}"] == count, (stage, what)
        assert run.final["idle"] == 1
        return run


MIXED = [Op.TRAIN, Op.EVALUATE, Op.TRAIN, Op.TRAIN, Op.INFER, Op.INFER, Op.TRAIN, Op.EVALUATE]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
def test_equals_golden(plan, stall):
    script = Script(plan)
    script.write()
    for op in MIXED[: 8 if stall else 4]:
        script.sample(op)
    script.read()
    script.run(stall=stall)


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize(
    "stall", [{"o": 0.97}, {"i": 0.9}, {"command": 0.99}, {"weights_i": 0.8, "weights_o": 0.8}]
)
def test_any_stream_may_be_slow(stall, in_flight):
    script = Script(only_linear() if in_flight == 2 else only_convolutions())
    script.write()
    for op in MIXED:
        script.sample(op)
    script.read()
    script.run(stall=stall)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_mini_batches_equal_golden(in_flight):
    script = Script(tiny(in_flight=in_flight, max_batch=3))
    script.write()
    for length in (3, 1, 2):
        for number in range(length):
            script.sample(update=number == length - 1)
        script.sample(Op.EVALUATE)
    script.read()
    script.run(stall=0.1)


def changed(script, before):
    """Names of the layers whose weights are others than before."""
    after = script.golden.read_weights()
    return {name.partition(".")[0] for name in after if (after[name] != before[name]).any()}


@pytest.mark.parametrize(
    ("frozen", "in_flight"),
    [
        (["conv1"], 1),
        (["conv2"], 1),
        (["linear2"], 2),
        (["conv1", "linear1"], 2),
        (["conv1", "conv2", "linear1"], 1),
        (["conv1", "conv2", "linear1"], 2),
        (["conv2", "linear1", "linear2"], 2),
    ],
)
def test_frozen_layers_equal_golden(frozen, in_flight):
    plan = partly_frozen(*frozen, in_flight=in_flight)
    script = Script(plan)
    before = script.golden.read_weights()
    script.write()
    for op in MIXED[:6]:
        script.sample(op)
    script.read()
    script.run(stall=0.3 if in_flight == 2 else 0.0)
    assert changed(script, before) == {s.name for s in plan.stages} - set(frozen)


@pytest.mark.parametrize("frozen", [["conv1"], ["conv2", "linear1"], ["linear2"]], ids="-".join)
def test_frozen_layers_of_mixed_formats_equal_golden(frozen):
    script = Script(mixed_formats(frozen=frozen))
    script.write()
    for op in MIXED[:4]:
        script.sample(op)
    script.read()
    script.run(stall=0.2)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_frozen_layers_equal_golden_in_mini_batches(in_flight):
    script = Script(partly_frozen("conv1", "linear1", in_flight=in_flight, max_batch=4))
    script.write()
    for number in range(8):
        script.sample(update=number % 4 == 3)
    script.read()
    script.run(stall=0.1)


@pytest.mark.parametrize("plan", [tiny(in_flight=2), partly_frozen("linear1"), mixed_formats()])
def test_layers_are_frozen_from_sample_to_sample(plan):
    script = Script(plan)
    script.write()
    last = 2 ** (len(plan.stages) - 1)
    for frozen in (0, 1, last, last, 0):
        script.sample(frozen=frozen)
    script.read()
    script.run(stall=0.1)


@pytest.mark.parametrize("frozen", ["conv1", "linear1"])
def test_masked_layers_keep_their_weights(frozen):
    script = Script(tiny(in_flight=2, max_batch=2))
    before = script.golden.read_weights()
    names = [stage.name for stage in script.plan.stages]
    script.write()
    for number in range(4):
        script.sample(update=number % 2, frozen=1 << names.index(frozen))
    script.read()
    script.run()
    assert changed(script, before) == set(names) - {frozen}


def test_a_masked_layer_does_not_keep_the_next_sample_waiting():
    paces = []
    for frozen in (0, 0b01):
        script = Script(tiny(in_flight=2))
        script.write()
        for _ in range(4):
            script.sample(frozen=frozen)
        script.read()
        times = script.run().times["o"]
        paces.append(times[-1] - times[-2])
    assert paces[1] < 0.9 * paces[0]


def test_pixels_that_a_pool_drops_may_come_late():
    net = Network((1, 3, 3), (Conv2d(2, 1), Conv2d(2, 1), MaxPool2d(), Flatten(), Linear(2)))
    foldings = {"conv1": (1, 1, 1), "conv2": (2, 2, 1), "linear1": (1, 1, 1)}
    script = Script(lower(net, foldings, in_flight=3, max_batch=3))
    script.write()
    for number in range(6):
        script.sample(update=number % 3 == 2)
    script.read()
    script.run()


def test_weights_are_written_and_read_between_samples():
    script = Script(tiny(in_flight=2))
    script.write()
    script.read()
    script.sample()
    script.read()
    script.sample(Op.INFER)
    script.write_random()
    script.sample()
    script.write_random()
    script.read()
    script.read()
    script.run(stall=0.2)


@pytest.mark.parametrize(
    ("frozen", "stall"), [((), 0.4), (("conv1",), 0.0), (("conv2", "linear2"), 0.4)], ids=str
)
def test_random_states_are_written_and_read_between_samples(frozen, stall):
    script = Script(mixed_formats(SquaredHinge(), frozen))
    script.write()
    script.read_states()
    script.sample()
    script.read_states()
    script.read_states()
    script.sample(Op.EVALUATE)
    script.write_states()
    script.sample(frozen=0b0100)
    script.sample(Op.INFER)
    script.sample()
    script.read_states()
    script.read()
    script.run(stall=stall)


def test_saturations_are_counted():
    numbers = Numbers(
        weights=Fixed(6, 3), activations=Fixed(6, 4), logits=Fixed(6, 3), errors=Fixed(6, 6)
    )
    script = Script(tiny(numbers, in_flight=2))
    script.write_random(4.0)
    for op in MIXED:
        script.sample(op)
    script.read()
    script.run()
    counts = script.golden.saturations()
    assert counts["conv1"]["output"] and counts["conv1"]["weights"] and counts["linear1"]["output"]
    assert counts["conv1"]["errors"] and counts["linear1"]["errors"]


@pytest.mark.parametrize("plan", [tiny(), tiny(in_flight=2), only_linear()])
def test_steps_take_no_longer_than_estimated(plan):
    script = Script(plan)
    script.write()
    for _ in range(5):
        script.sample()
    script.read()
    times = script.run().times["o"]
    (pace,) = {after - before for before, after in pairwise(times[2:])}
    busiest = max(sum(stage.phase_cycles().values()) for stage in plan.stages)
    assert busiest <= pace <= 1.05 * estimate(plan).cycles


def test_updates_are_announced_by_stage():
    script = Script(tiny())
    script.write()
    script.sample()
    script.sample(Op.EVALUATE)
    script.sample()
    pulses = []

    async def watch(ctx):
        idle = False
        while not (idle and len(pulses) == 4):
            _, _, updated, idle = await ctx.tick().sample(pipeline.updated, pipeline.idle)
            pulses.extend(n for n in range(2) if updated >> n & 1)

    pipeline = TrainingPipeline(script.plan)
    run_streams(pipeline, script.sent, {"o": 3}, drive=watch)
    assert pulses == [1, 0, 1, 0]  # the last stage has its errors first
