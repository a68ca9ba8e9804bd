# amaranth: UnusedElaboratable=no
"""Momentum, weight decay and clipping in whole pipelines, against the golden model."""

from dataclasses import replace

import pytest
from small_plans import FOLDINGS, TINY, mixed_formats
from test_core import Script
from test_timing import close, many_words, pooled_vector
from test_timing import train as run_gateware

from streamtrain.host.device import Op
from streamtrain.host.packing import stage_words
from streamtrain.network import SGD, Flatten, Linear, Network, ReLU
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.optimizer import CLIP_BITS, decay_limit, velocity
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.schedule import estimate


class UpdateScript(Script):
    """A run in which the optimiser's values change with every sample, to their limits."""

    def update_codes(self):
        plan, own = self.plan, self.plan.network.optimizer
        draw, found = self.rng.integers, {}
        if own.momentum:
            found["momentum"] = int(draw(1024))
        if own.weight_decay:
            found["decay"] = int(draw(decay_limit(plan)) >> draw(decay_limit(plan).bit_length()))
        if own.clip is not None:
            found["clip"] = int(draw(2**CLIP_BITS) >> draw(CLIP_BITS + 1))
        return found

    def _velocity_words(self, number):
        self.sent["command"][-1]["velocity"] = 1
        stage, held = self.plan.stages[number], self.golden.read_optimizer()
        name = stage.name
        return (
            stage_words(stage, held[f"{name}.weight.velocity"], held.get(f"{name}.bias.velocity"))
            .ravel()
            .tolist()
        )

    def _learning(self):
        return [number for number, stage in enumerate(self.plan.stages) if stage.trainable]

    def read_velocities(self):
        for number in self._learning():
            self._scan(Op.READ, number)
            self.expected["weights_o"] += self._velocity_words(number)

    def write_velocities(self, ends=False):
        state = {}
        for name, codes in self.golden.read_optimizer().items():
            (stage,) = (s for s in self.plan.stages if s.name == name.partition(".")[0])
            fmt = velocity(self.plan, stage)
            drawn = fmt.codes[:: len(fmt.codes) - 1] if ends else fmt.codes
            state[name] = self.rng.choice(drawn, codes.shape)
        self.golden.write_optimizer(state)
        for number in self._learning():
            self._scan(Op.WRITE, number)
            self.sent["weights_i"] += self._velocity_words(number)


def make(max_batch=1, numbers=None, net=TINY, foldings=FOLDINGS, in_flight=2, lr=2**-3, **options):
    network = replace(net, optimizer=SGD(lr, **options))
    return lower(network, foldings, numbers, in_flight=in_flight, max_batch=max_batch)


MOMENTUM, DECAY, CLIP = {"momentum": 0.9}, {"weight_decay": 0.01}, {"clip": 1.0}
OPTIONS = {
    "momentum": MOMENTUM,
    "decay": DECAY,
    "clip": CLIP,
    "momentum, decay": MOMENTUM | DECAY,
    "momentum, clip": MOMENTUM | CLIP,
    "decay, clip": DECAY | CLIP,
    "all": MOMENTUM | DECAY | CLIP,
}


def train(script, batches):
    """Weights and velocities are written, changed in mini-batches, and read."""
    momentum = script.plan.network.optimizer.momentum
    script.write()
    if momentum:
        script.write_velocities()
    for length in batches:
        for number in range(length):
            script.sample(update=number == length - 1)
        script.sample(Op.EVALUATE)
    script.read()
    if momentum:
        script.read_velocities()
    return script


BATCHES = {1: (1,) * 5, 3: (3, 1, 2)}


@pytest.mark.parametrize(
    ("options", "max_batch"),
    [
        ("momentum", 1), ("decay", 1), ("clip", 1), ("all", 1),
        ("momentum, decay", 3), ("momentum, clip", 3), ("decay, clip", 3), ("all", 3),
    ],
)  # fmt: skip
def test_equals_golden(options, max_batch):
    plan = make(max_batch, **OPTIONS[options])
    train(UpdateScript(plan), BATCHES[max_batch]).run()


WORDS = Network((6, 1, 1), (Flatten(), Linear(6), ReLU(), Linear(4, bias=False)))
LANES = {"linear1": (1, 2, 1), "linear2": (4, 1, 1)}


@pytest.mark.parametrize("max_batch", [1, 3])
@pytest.mark.parametrize("options", ["momentum", "decay", "momentum, decay", "decay, clip", "all"])
def test_words_of_one_pixel_follow_one_another(options, max_batch):
    # As close as words can be. Some have biases, which makes them longer.
    plan = make(max_batch, net=WORDS, foldings=LANES, **OPTIONS[options])
    train(UpdateScript(plan, seed=2), BATCHES[max_batch]).run(stall=0.3 if max_batch == 1 else 0)


@pytest.mark.parametrize("rounding", list(Round))
def test_all_roundings_and_stored_weights_that_are_wider(rounding):
    numbers = Numbers(
        weights=Fixed(8, 6),
        master=Fixed(18, 15),
        activations=Fixed(10, 6),
        errors=Fixed(10, 8),
        round_weights=rounding,
    )
    plan = make(3, numbers, net=WORDS, foldings=LANES, **OPTIONS["all"])
    train(UpdateScript(plan), BATCHES[3]).run()


def mixed(**options):
    """Stages whose formats, rounding and lanes all differ; convolutions with and without biases."""
    plan = mixed_formats()
    overrides = {
        stage.name: Numbers(
            weights=stage.weights,
            master=stage.stored if stage.stored != stage.weights else None,
            activations=stage.output,
            logits=stage.output,
            errors=stage.errors,
            round_activations=stage.round_output,
            round_errors=stage.round_errors,
            round_weights=stage.round_weights,
        )
        for stage in plan.stages
    }
    network = replace(plan.network, optimizer=SGD(2**-2, **options))
    foldings = {stage.name: stage.folding for stage in plan.stages}
    return lower(network, foldings, Numbers(activations=Fixed(8, 6)), overrides, in_flight=1)


@pytest.mark.parametrize("name", ["linear1", "linear2"])
@pytest.mark.parametrize("max_batch", [1, 3])
def test_frozen_layers_beside_others(name, max_batch):
    script = UpdateScript(make(max_batch, net=WORDS.freeze(name), foldings=LANES, **OPTIONS["all"]))
    train(script, BATCHES[max_batch]).run(stall=0.2)


def test_layers_that_are_frozen_for_some_samples():
    script = UpdateScript(make(net=WORDS, foldings=LANES, **OPTIONS["all"]))
    script.write()
    script.write_velocities()
    for frozen in (0, 1, 2, 2, 0, 1):
        script.sample(frozen=frozen)
    script.read()
    script.read_velocities()
    script.run(stall=0.1)


def test_stages_of_different_formats():
    train(UpdateScript(mixed(**OPTIONS["all"])), (1,) * 4).run(stall=0.1)


def test_velocities_saturate_and_are_counted():
    # They begin at the ends of their range, and momentum is as near to 1 as it can be.
    script = UpdateScript(make(net=WORDS, foldings=LANES, **MOMENTUM))
    script.update_codes = lambda: {"momentum": 1023}
    script.write_random(2.0)
    script.write_velocities(ends=True)
    for _ in range(6):
        script.sample()
    script.read_velocities()
    script.run()
    counts = script.golden.saturations()
    assert counts["linear1"]["velocity"]
    assert counts["linear1"].keys() == {"output", "errors", "weights", "velocity"}


@pytest.mark.parametrize("limit", [0, 1, 2**CLIP_BITS - 1])
def test_clips_at_its_limits(limit):
    plan = make(net=WORDS, foldings=LANES, **OPTIONS["momentum, clip"])
    script = UpdateScript(plan)
    script.update_codes = lambda: {"momentum": 0, "clip": limit}
    script.write()
    before = script.golden.read_weights()
    for _ in range(3):
        script.sample()
    script.read()
    script.run()
    after = script.golden.read_weights()
    largest = max(abs(after[name] - before[name]).max() for name in before)
    assert (largest > 0) == (limit > 0)
    assert largest <= 3 * limit  # whose unit is a weight's here


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("design", "options"),
    [(many_words, "momentum"), (many_words, "decay"), (pooled_vector, "all")],
)
def test_gateware_keeps_the_estimate(design, options, batch):
    plan = design(in_flight=2, max_batch=batch)
    foldings = {stage.name: stage.folding for stage in plan.stages}
    plan = make(batch, net=plan.network, foldings=foldings, **OPTIONS[options])
    paces, updates = run_gateware(plan, batch)
    (pace,) = paces
    expected = estimate(plan, batch)
    assert close(expected.cycles, pace)
    assert all(map(close, expected.updated, updates))
