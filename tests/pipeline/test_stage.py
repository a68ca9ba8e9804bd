# amaranth: UnusedElaboratable=no
"""A whole stage, trained with given inputs and errors, against plain NumPy."""

from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest

from streamtrain.host.packing import stage_words
from streamtrain.network import SGD, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.numeric import (
    Fixed,
    Round,
    lane_bits,
    lfsr_states,
    requantize_codes,
    round_codes,
)
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.stage import TrainingStage
from streamtrain.simulate.bench import run_streams

NARROW = Numbers(  # saturates often
    weights=Fixed(8, 5),
    activations=Fixed(8, 4),
    logits=Fixed(8, 4),
    errors=Fixed(8, 5),
)


def numbers(**changes):
    return Numbers(**{**{name: getattr(NARROW, name) for name in NARROW.__dict__}, **changes})


def conv_plan(folding, *, shape=(4, 3, 3), kernel=3, channels=4, pool=False, **options):
    """The second of three stages is looked at."""
    n, rows, cols = shape
    layer = {"padding": options.pop("padding", "same"), "bias": options.pop("bias", True)}
    layers = [Conv2d(n, 1), Conv2d(channels, kernel, **layer)]
    layers += [MaxPool2d(), ReLU()] * pool + [Flatten(), Linear(2)]
    foldings = {"conv1": (1, 1, 1), "conv2": folding, "linear1": (1, 1, 1)}
    return make((1, rows, cols), layers, foldings, **options), 1


def first_plan(folding, *, shape=(2, 3, 4), channels=4, padding="same", **options):
    """The first of two stages."""
    layers = [Conv2d(channels, 3, padding=padding), Flatten(), Linear(2)]
    return make(shape, layers, {"conv1": folding, "linear1": (1, 1, 1)}, **options), 0


def linear_plan(folding, *, shape=(3, 2, 2), features=4, **options):
    """The last of two stages."""
    layers = [Conv2d(shape[0], 1), Flatten(), Linear(features)]
    foldings = {"conv1": (1, 1, 1), "linear1": folding}
    return make((1, *shape[1:]), layers, foldings, **options), 1


def make(shape, layers, foldings, formats=NARROW, overrides=None, **options):
    net = Network(shape, tuple(layers), optimizer=SGD(2**-2))
    return lower(net, foldings, formats, overrides, **options)


class Reference:
    """What a stage does, on whole tensors: x (N, rows, cols), z and dz (M, out_rows, out_cols)."""

    def __init__(self, plan, stage, rng):
        self.plan, self.stage = plan, stage
        self.before = plan.stages[plan.stages.index(stage) - 1] if stage.back else None
        self.w = rng.choice(stage.stored.codes, stage.weight_shape)
        self.b = rng.choice(stage.stored.codes, stage.channels[1]) * stage.bias
        self.gradients = [np.zeros_like(self.w), np.zeros_like(self.b)]
        self.saturated = {"output": 0, "errors": 0, "weights": 0}
        self.seeds = {site: plan.random_seed(stage, site) for site in ("output", "weights")}
        if stage.back:
            self.seeds["errors"] = plan.random_seed(self.before, "errors")

    def words(self):
        stage = self.stage
        w = self.w.reshape(len(self.w), -1) if stage.linear else self.w
        if stage.linear:  # the packing takes PyTorch's order of features
            channels, rows, cols = stage.flattened
            w = w.reshape(len(w), rows * cols, channels).transpose(0, 2, 1)
        return stage_words(stage, w, self.b if stage.bias else None).ravel().tolist()

    def operand(self, codes):
        stage = self.stage
        shift = stage.stored.frac - stage.weights.frac
        return requantize_codes(codes, shift, stage.weights, Round.NEAREST)[0]

    def quantized(self, sums, site, shift, fmt, mode, lanes):
        """Round a map's sums in the order in which they are computed."""
        random = None
        if mode is Round.STOCHASTIC and shift > 0:
            channels, rows, cols = sums.shape
            blocks = channels // lanes
            beats, self.seeds[site] = lfsr_states(self.seeds[site], rows * cols * blocks)
            random = np.stack([lane_bits(beats, lane, shift) for lane in range(lanes)])
            random = random.reshape(lanes, rows, cols, blocks).transpose(3, 0, 1, 2)
            random = random.reshape(sums.shape)
        codes, count = requantize_codes(sums, shift, fmt, mode, random)
        self.saturated[site] += count
        return codes

    def windows(self, x):
        """Each output's inputs: (N, K, K, out_rows, out_cols)."""
        s = self.stage
        wide = np.pad(x, ((0, 0), (s.pad, s.pad), (s.pad, s.pad)))
        k = range(s.kernel)
        return np.array([
            [[x[i : i + s.out_rows, j : j + s.out_cols] for j in k] for i in k] for x in wide
        ])

    def forward(self, x):
        s = self.stage
        sums = np.einsum("mnij,nijrc->mrc", self.operand(self.w), self.windows(x))
        sums += self.operand(self.b)[:, None, None] << s.input.frac
        shift = s.input.frac + s.weights.frac - s.output.frac
        return self.quantized(sums, "output", shift, s.output, s.round_output, s.folding[0])

    def backward(self, dz):
        s = self.stage
        wide = np.zeros((s.channels[0], s.rows + 2 * s.pad, s.cols + 2 * s.pad), np.int64)
        for i, j in product(range(s.kernel), repeat=2):
            part = np.einsum("mn,mrc->nrc", self.operand(self.w)[:, :, i, j], dz)
            wide[:, i : i + s.out_rows, j : j + s.out_cols] += part
        sums = wide[:, s.pad : s.pad + s.rows, s.pad : s.pad + s.cols]
        fmt, mode = self.before.errors, self.before.round_errors
        shift = s.errors.frac + s.weights.frac - fmt.frac
        return self.quantized(sums, "errors", shift, fmt, mode, s.folding[1])

    def update(self, x, dz, shift, apply):
        plan, s = self.plan, self.stage
        shifts = plan.weight_shift(s), plan.bias_shift(s)
        sums = (
            np.einsum("mrc,nijrc->mnij", dz, self.windows(x) << shift),
            (dz << shift).sum(axis=(1, 2)) * s.bias,
        )
        totals = [
            part + (earlier << plan.batch_shift(drop))
            for part, earlier, drop in zip(sums, self.gradients, shifts, strict=True)
        ]
        if not apply:
            self.gradients = [
                total >> plan.batch_shift(drop) for total, drop in zip(totals, shifts, strict=True)
            ]
            return
        self.gradients = [np.zeros_like(part) for part in totals]
        random = self.weight_random(shifts) if s.round_weights is Round.STOCHASTIC else (None, None)
        stored = []
        for old, total, drop, dice in zip((self.w, self.b), totals, shifts, random, strict=True):
            new = old - round_codes(total, drop, s.round_weights, dice)
            codes, count = requantize_codes(new, 0, s.stored, Round.TRUNCATE)
            self.saturated["weights"] += count if old is self.w or s.bias else 0
            stored.append(codes)
        self.w, self.b = stored[0], stored[1] * s.bias

    def weight_random(self, shifts):
        s = self.stage
        (pm, pn, pk), (m_blocks, n_blocks, taps) = s.folding, s.blocks
        beats, self.seeds["weights"] = lfsr_states(self.seeds["weights"], s.words)
        of_weights = np.stack([lane_bits(beats, n, shifts[0]) for n in range(pm * pn * pk)], 1)
        of_weights = of_weights.reshape(m_blocks, n_blocks, taps, pm, pn, pk)
        of_weights = of_weights.transpose(0, 3, 1, 4, 2, 5).reshape(s.weight_shape)
        first = beats[:: n_blocks * taps]
        lanes = range(pm * pn * pk, pm * pn * pk + pm)
        return of_weights, np.stack([lane_bits(first, n, shifts[1]) for n in lanes], 1).ravel()


def raster(x, lanes):
    """Payloads of a map: pixels in raster order, channels innermost."""
    return x.transpose(1, 2, 0).reshape(-1, lanes).tolist()


def squares(x, lanes, size):
    """The same in squares, each block of channels by itself."""
    channels, rows, cols = x.shape
    parts = x.reshape(channels // lanes, lanes, rows // size, size, cols // size, size)
    return parts.transpose(2, 4, 0, 3, 5, 1).reshape(-1, lanes).tolist()


def draw(rng, fmt, shape):
    """Codes of all sizes, with zeros and ends; sums of them saturate now and then."""
    codes = rng.choice(fmt.codes, shape) >> rng.integers(0, fmt.width, shape)
    ends = rng.choice([fmt.codes[0], 0, fmt.codes[-1]], shape)
    return np.where(rng.random(shape) < 0.1, ends, codes)


class Script:
    """A run of a stage: tokens and payloads to send, and what is expected to come."""

    def __init__(self, plan, position, seed=0):
        self.plan, self.stage = plan, plan.stages[position]
        self.rng = np.random.default_rng(seed)
        self.reference = Reference(plan, self.stage, self.rng)
        names = ["o", "scan_o"] + ["dx"] * self.stage.back
        self.sent = {"token": [], "i": [], "dz": [], "scan_i": []}
        self.expected = {name: [] for name in names}

    def _token(self, **values):
        blank = dict.fromkeys(("train", "update", "shift", "read", "write", "frozen"), 0)
        self.sent["token"].append({**blank, **values})

    def write(self):
        self._token(write=1)
        self.sent["scan_i"] += self.reference.words()

    def read(self):
        self._token(read=1)
        self.expected["scan_o"] += self.reference.words()

    def sample(self, train=True, update=True):
        s, (n, m), (pm, pn, _) = self.stage, self.stage.channels, self.stage.folding
        shift = int(self.rng.integers(self.plan.rate_shifts + 1)) if train else 0
        self._token(train=int(train), update=int(update), shift=shift)
        x = draw(self.rng, s.input, (n, s.rows, s.cols))
        self.sent["i"] += raster(x, pn)
        z = raster(self.reference.forward(x), pm)
        self.expected["o"] += [{"data": lanes, "train": int(train)} for lanes in z]
        if train:
            dz = draw(self.rng, s.errors, (m, s.out_rows, s.out_cols))
            self.sent["dz"] += squares(dz, pm, s.pool)
            if s.back:
                self.expected["dx"] += raster(self.reference.backward(dz), pn)
            self.reference.update(x, dz, shift, update)

    def run(self, watch=None, **options):
        stage = TrainingStage(self.plan, self.stage)
        if watch:
            options["drive"] = partial(watch, stage=stage)
        counts = {name: len(payloads) for name, payloads in self.expected.items()}
        run = run_streams(stage, self.sent, counts, max_cycles=40_000, **options)
        for name, payloads in self.expected.items():
            assert run.received[name] == payloads, name
        found = {site: run.final[f"saturated_{site}"] for site in self.reference.saturated}
        assert found == self.reference.saturated
        assert run.final["idle"] == 1
        return run


def watched(script, updates):
    """Run without stalls; returns also the cycles in which weights were updated."""
    at = []

    async def watch(ctx, stage):
        cycle = 0
        while len(at) < updates:
            _, _, updated = await ctx.tick().sample(stage.updated)
            at.extend([cycle] * updated)
            cycle += 1

    return script.run(watch=watch), at


# Cycles of a step with an update in which nothing is multiplied, with the one in which BP, or WU, is told that
# FP has ended: here, errors are always there by then.
LATENCY = 9 + 1

TIES = {
    "round_activations": "nearest_even",
    "round_errors": "truncate",
    "round_weights": "truncate",
}
CASES = {
    "3x3": conv_plan((2, 2, 3), in_flight=2),
    "3x3, all taps": conv_plan((4, 1, 9)),
    "3x3, one multiplier": conv_plan((1, 1, 1), shape=(2, 2, 2), channels=2),
    "5x5 valid": conv_plan((1, 2, 25), shape=(2, 5, 6), kernel=5, channels=2, padding="valid"),
    "5x5 by row": conv_plan((2, 1, 5), shape=(1, 3, 3), kernel=5, channels=2, in_flight=3),
    "1x1": conv_plan((2, 4, 1), kernel=1, in_flight=2),
    "grown": conv_plan((2, 2, 3), shape=(2, 2, 3), padding=2),
    "pooled": conv_plan((2, 1, 3), shape=(2, 4, 2), pool=True, in_flight=2),
    "odd and pooled": conv_plan((2, 1, 9), shape=(2, 5, 3), pool=True),
    "without bias": conv_plan((2, 2, 3), shape=(2, 3, 2), bias=False),
    "one word": conv_plan((4, 4, 1), shape=(4, 1, 2), kernel=1, in_flight=2),
    "one pixel": conv_plan((2, 2, 9), shape=(4, 1, 1), in_flight=2),
    "ties": conv_plan((2, 2, 3), shape=(2, 3, 3), formats=numbers(**TIES)),
    "master": conv_plan((2, 2, 3), shape=(2, 3, 3), formats=numbers(master=Fixed(12, 8))),
    "first": first_plan((2, 2, 3)),
    "first, one lane": first_plan((1, 1, 1), shape=(1, 3, 3), channels=2, in_flight=2),
    "first, valid": first_plan((2, 1, 9), shape=(1, 4, 5), padding="valid"),
    "first, grown": first_plan((1, 1, 3), shape=(1, 2, 2), channels=2, padding=2),
    "linear": linear_plan((2, 3, 1), in_flight=2),
    "linear, one multiplier": linear_plan((1, 1, 1), shape=(2, 1, 1), features=3),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@each_case
def test_trains_as_numpy_does(case):
    script = Script(*case)
    script.write()
    for train in (True, False, True):
        script.sample(train)
    script.read()
    script.run(stall=0.4)
    if case is CASES["3x3"]:
        assert all(script.reference.saturated.values())


SLOW = [{"dz": 0.9}, {"o": 0.8, "dx": 0.8}, {"i": 0.9}, {"token": 0.9}]


@pytest.mark.parametrize("stall", SLOW)
@pytest.mark.parametrize(
    "case",
    [
        conv_plan((2, 2, 9), shape=(2, 4, 2), pool=True),
        conv_plan((2, 1, 3), shape=(2, 2, 3), in_flight=2),
        first_plan((2, 1, 9), shape=(1, 3, 2), in_flight=2),
    ],
    ids=["pooled", "conv", "first"],
)
def test_any_stream_may_be_slow(case, stall):
    script = Script(*case)
    script.write()
    for train in (True, False, True):
        script.sample(train)
    script.read()
    script.run(stall=stall)


def test_results_that_nobody_takes_hold_up_operations():
    script = Script(*conv_plan((1, 1, 1), shape=(4, 4, 4), kernel=1, in_flight=2))
    script.write()
    script.sample()
    script.sample(train=False)
    script.read()
    script.run(stall={"o": 0.9, "dx": 0.95})


@pytest.mark.parametrize("stall", [{"i": 0.7, "dz": 0.7}, {"i": 0.9}])
@pytest.mark.parametrize(
    "case",
    [
        conv_plan((2, 1, 3), shape=(2, 2, 3), max_batch=8, in_flight=3),
        conv_plan((1, 1, 1), shape=(4, 2, 3), kernel=1, max_batch=8, in_flight=3),
    ],
    ids=["3x3", "1x1"],
)
def test_phases_of_samples_do_not_disturb_one_another(case, stall):
    # Without updates the next sample's FP and BP may begin at any time during WU.
    script = Script(*case)
    script.write()
    for number in range(8):
        script.sample(update=number == 7)
    script.read()
    script.run(stall=stall)


RANDOM = numbers(
    round_activations="stochastic", round_errors="stochastic", round_weights="stochastic"
)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "case",
    [
        lambda **options: conv_plan((2, 2, 3), shape=(4, 2, 3), **options),
        lambda **options: linear_plan((2, 3, 1), **options),
    ],
    ids=["conv", "linear"],
)
def test_rounds_stochastically(case, batch):
    script = Script(*case(formats=RANDOM, max_batch=batch))
    script.write()
    for number in range(6):
        script.sample(train=number != 1, update=number % batch == batch - 1)
    script.read()
    script.run(stall=0.2)


@pytest.mark.parametrize("formats", [NARROW, numbers(master=Fixed(14, 9))], ids=["", "master"])
@pytest.mark.parametrize(
    "case", [conv_plan, linear_plan, first_plan], ids=["conv", "linear", "first"]
)
def test_mini_batches_of_any_length(case, formats):
    script = Script(*case((2, 2, 1), shape=(2, 2, 2), formats=formats, max_batch=3, in_flight=2))
    script.write()
    for last in (False, True, False, None, False, True, True):
        script.sample(train=last is not None, update=bool(last))
    script.read()
    script.run(stall=0.2)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_weights_are_read_and_written_between_samples(stall):
    script = Script(*conv_plan((2, 2, 9), shape=(2, 2, 2), in_flight=2))
    script.write()
    script.read()
    script.sample()
    script.read()
    script.reference.w[:], script.reference.b[:] = -3, 5
    script.write()
    script.sample()
    script.sample(train=False)
    script.write()
    script.read()
    script.run(stall=stall)


WIDE = Numbers(
    weights=Fixed(18, 14),
    activations=Fixed(18, 10),
    logits=Fixed(18, 10),
    errors=Fixed(18, 12),
)
COARSE = numbers(errors=Fixed(2, 0), weights=Fixed(2, 0), activations=Fixed(2, 0))


@pytest.mark.parametrize("formats", [WIDE, COARSE], ids=["widest", "narrowest"])
def test_widest_and_narrowest_formats(formats):
    script = Script(*conv_plan((2, 2, 3), shape=(2, 3, 2), formats=formats))
    script.write()
    script.sample()
    script.sample()
    script.read()
    script.run()


def test_half_of_a_coarse_output_does_not_wrap():
    plan, position = linear_plan((2, 3, 1), formats=numbers(logits=Fixed(8, -11)))
    script = Script(plan, position)
    script.write()
    script.sample()
    script.sample()
    script.run()


def test_largest_sums_do_not_wrap():
    plan, position = conv_plan((2, 2, 3), shape=(4, 3, 3))
    script = Script(plan, position)
    stage = plan.stages[position]
    script.reference.w[:], script.reference.b[:] = stage.weights.codes[0], stage.weights.codes[-1]
    script.write()
    script.rng = Lowest()
    script.sample()
    script.read()
    script.run()


class Lowest:
    """In place of a random generator: always the lowest code."""

    def choice(self, codes, shape):
        return np.full(shape, codes[0])

    def integers(self, low, high=None, shape=None):
        return np.full(shape, low) if shape else low - 1

    def random(self, shape):
        return np.ones(shape)


def test_formats_differ_on_all_sides():
    overrides = {
        "conv1": numbers(activations=Fixed(9, 3), errors=Fixed(10, 2)),
        "conv2": numbers(weights=Fixed(7, 4), activations=Fixed(11, 6), errors=Fixed(12, 7)),
    }
    plan, position = conv_plan((2, 2, 3), shape=(4, 3, 2), overrides=overrides)
    script = Script(plan, position)
    script.write()
    script.sample()
    script.sample()
    script.read()
    script.run(stall=0.2)


@each_case
def test_a_step_takes_its_operations_and_the_update_s_latency(case):
    stage = case[0].stages[case[1]]
    script = Script(*case)
    script.write()
    script.sample()
    script.sample()
    _, (before, after) = watched(script, 2)
    least = sum(stage.phase_cycles().values()) + LATENCY
    # With one slot the next sample arrives when this one is done.
    arrival = stage.rows * stage.cols * stage.blocks[1] if case[0].in_flight == 1 else 0
    assert least <= after - before <= least + arrival


def test_mini_batches_add_a_cycle_to_the_update_s_latency():
    script = Script(*conv_plan((2, 2, 3), max_batch=2, in_flight=2))
    script.write()
    script.sample()
    script.sample()
    _, (before, after) = watched(script, 2)
    assert after - before == sum(script.stage.phase_cycles().values()) + LATENCY + 1


@pytest.mark.parametrize("name", ["3x3", "pooled", "linear"])
def test_predictions_follow_one_another(name):
    script = Script(*CASES[name])
    script.write()
    for _ in range(4):
        script.sample(train=False)
    times = script.run().times["o"]
    last = times[len(times) // 4 - 1 :: len(times) // 4]
    pace = script.stage.phase_cycles()["FP"] + 1
    assert {after - before for before, after in pairwise(last)} == {pace}


def test_without_an_update_phases_of_samples_overlap():
    plan, position = conv_plan((2, 2, 3), max_batch=8, in_flight=2)
    script = Script(plan, position)
    script.write()
    for number in range(8):
        script.sample(update=number == 7)
    run, (updated,) = watched(script, 1)
    operations = sum(script.stage.phase_cycles().values())
    words = script.stage.words
    arrival = run.times["o"][0]
    assert updated - arrival <= 8 * (operations + words) + LATENCY + 1


def test_a_word_does_not_slip_into_the_cycle_that_fp_loses():
    # Pixels of the second sample arrive during WU of the first: its last one waits for the word
    # in work, and for no other, though each word takes a cycle from FP.
    plan, position = conv_plan((1, 1, 1), shape=(4, 3, 3), kernel=1, max_batch=2, in_flight=2)
    script = Script(plan, position)
    script.write()
    script.sample(update=False)
    script.sample()
    script.read()
    times = script.run(stall={"i": 0.9}).times
    (_, m_blocks), pixels, words = script.stage.channels, script.stage.pixels, script.stage.words
    latency = 15
    assert times["o"][-m_blocks - 1] < times["i"][-1]
    assert times["o"][-1] - times["i"][-1] <= pixels + words + latency


def test_the_first_word_waits_for_all_errors_while_fp_may_come():
    # A word that follows the errors as they arrive keeps FP out until the last of them. That of
    # the second sample is through before, unless there is only room for one.
    for in_flight, passes in ((2, True), (1, False)):
        case = first_plan((2, 1, 9), shape=(1, 3, 4), max_batch=2, in_flight=in_flight)
        script = Script(*case)
        script.write()
        script.sample(update=False)
        script.sample()
        script.read()
        times = script.run(stall={"i": 0.8, "dz": 0.98}).times
        first_errors = len(times["dz"]) // 2
        assert (times["o"][-1] < times["dz"][first_errors - 1]) == passes
