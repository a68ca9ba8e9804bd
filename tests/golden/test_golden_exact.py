"""The golden model against a slow, obvious one, to the last bit."""

import numpy as np
import pytest
from slow_golden import SlowGolden

from streamtrain.golden import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.network import (
    SGD,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    Network,
    ReLU,
    SquaredHinge,
)
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

SOFTMAX = CrossEntropy()

# Between them: odd maps, a pool that drops, every kernel and padding, wider output than input, no
# bias, no ReLU, both orders of ReLU and pool, a vector between linear layers, no linear layer.
NETS = {
    "odd": (
        (2, 11, 9),
        [Conv2d(4, 3), ReLU(), MaxPool2d(), Conv2d(6, 3), MaxPool2d(), ReLU(), Flatten(),
         Linear(5)],
        {"conv1": (2, 1, 9), "conv2": (3, 2, 3), "linear1": (1, 6, 1)},
    ),
    "valid": (
        (1, 10, 12),
        [
            Conv2d(4, 5, padding="valid", bias=False),
            MaxPool2d(),
            Conv2d(3, 1),
            ReLU(),
            Flatten(),
            Linear(8),
            ReLU(),
            Linear(4, bias=False),
        ],
        {"conv1": (4, 1, 5), "conv2": (1, 4, 1), "linear1": (4, 3, 1), "linear2": (2, 4, 1)},
    ),
    "all convolution": (
        (3, 4, 5),
        [Conv2d(2, 5, padding=4), ReLU(), MaxPool2d(), Conv2d(4, 3, padding="valid"), ReLU(),
         Conv2d(4, 1), MaxPool2d(), Flatten()],
        {"conv1": (1, 3, 25), "conv2": (4, 1, 1), "conv3": (2, 2, 1)},
    ),
}  # fmt: skip

WIDE = Numbers()
NARROW = Numbers(  # with a master, and narrow enough to saturate everywhere
    weights=Fixed(8, 6),
    master=Fixed(16, 14),
    activations=Fixed(8, 5),
    logits=Fixed(9, 4),
    errors=Fixed(8, 9),
)
ODD = Numbers(  # left shifts on the way to the logits, errors of one layer finer than the next's
    weights=Fixed(10, 4),
    activations=Fixed(9, 3),
    logits=Fixed(18, 14),
    errors=Fixed(14, 12),
)


def rounded(numbers, mode):
    fields = {
        f: getattr(numbers, f) for f in ("weights", "master", "activations", "logits", "errors")
    }
    return Numbers(**fields, round_activations=mode, round_errors=mode, round_weights=mode)


def make_plan(net, numbers, lr=2**-7, loss=SOFTMAX, **arguments):
    shape, layers, foldings = NETS[net]
    network = Network(shape, layers, loss=loss, optimizer=SGD(lr), seed=3)
    return lower(network, foldings, numbers, **arguments)


def make_samples(plan, count, seed=0):
    rng = np.random.default_rng(seed)
    fmt = plan.stages[0].input
    return fmt.encode(rng.normal(0, 1, (count, *plan.network.input_shape)))


def make_commands(plan, count, op=Op.TRAIN, update=1, seed=0):
    rng = np.random.default_rng(seed)
    return Commands(
        op=np.broadcast_to(op, count).astype(int),
        label=rng.integers(plan.network.classes, size=count),
        update=np.broadcast_to(update, count).astype(int),
        mantissa=rng.integers(64, 129, size=count),
        shift=rng.integers(0, plan.rate_shifts + 1, size=count),
    )


def one(commands, i):
    parts = (commands.op, commands.label, commands.update, commands.mantissa, commands.shift)
    return Commands(*[part[i : i + 1] for part in parts])


def check_same(plan, x, commands):
    """Run both models sample by sample; returns how often each number saturated."""
    golden = Golden(plan)
    slow = SlowGolden(plan, golden.read_weights())
    results = Golden(plan).run(x, commands)
    for i in range(len(x)):
        c = one(commands, i)
        trace = golden.trace(x[i], c)
        scores, loss, predicted = slow.step(
            x[i], c.op[0], c.label[0], c.update[0], c.mantissa[0], c.shift[0]
        )
        np.testing.assert_array_equal(results.scores[i], scores)
        assert (results.loss[i], results.predicted[i]) == (loss, predicted)
        for stage in slow.stages:
            seen = trace[stage.stage.name]
            assert ("dz" in seen) == (c.op[0] == Op.TRAIN)
            np.testing.assert_array_equal(seen["x"].ravel(), stage.x.ravel())
            np.testing.assert_array_equal(seen["weights"], stage.w)
            if "dz" in seen:
                np.testing.assert_array_equal(seen["dz"], stage.dz)
            if "biases" in seen:
                np.testing.assert_array_equal(seen["biases"], stage.b)
            assert all(part.dtype == np.int64 for part in seen.values())
    for name, expected in slow.weights().items():
        np.testing.assert_array_equal(golden.read_weights()[name], expected)
    assert golden.saturations() == slow.saturations()
    return golden.saturations()


@pytest.mark.parametrize("mode", list(Round))
@pytest.mark.parametrize("numbers", [WIDE, NARROW, ODD], ids=["wide", "narrow", "odd"])
@pytest.mark.parametrize("net", NETS)
def test_training_matches_plain_numpy(net, numbers, mode):
    plan = make_plan(net, rounded(numbers, mode))
    check_same(plan, make_samples(plan, 4), make_commands(plan, 4))


@pytest.mark.parametrize("mode", [Round.NEAREST, Round.STOCHASTIC])
@pytest.mark.parametrize("numbers", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("net", ["odd", "valid"])
def test_mini_batches_match_plain_numpy(net, numbers, mode):
    plan = make_plan(net, rounded(numbers, mode), max_batch=6)
    update = np.isin(np.arange(32), [5, 6, 9, 15, 21, 27])
    check_same(plan, make_samples(plan, 32), make_commands(plan, 32, update=update))


@pytest.mark.parametrize("mode", list(Round))
@pytest.mark.parametrize("numbers", [WIDE, NARROW, ODD], ids=["wide", "narrow", "odd"])
@pytest.mark.parametrize("loss", [MSELoss(), SquaredHinge()], ids=["error", "hinge"])
def test_squares_match_plain_integers(loss, numbers, mode):
    plan = make_plan("odd", rounded(numbers, mode), loss=loss)
    ops = [Op.TRAIN, Op.EVALUATE, Op.TRAIN, Op.INFER, Op.TRAIN]
    check_same(plan, make_samples(plan, 5), make_commands(plan, 5, op=ops))


@pytest.mark.parametrize(
    "logits", [Fixed(18, 0), Fixed(18, 16), Fixed(17, 12), Fixed(4, 2)], ids=str
)
@pytest.mark.parametrize("loss", [MSELoss(), SquaredHinge()], ids=["error", "hinge"])
def test_squares_of_extreme_scores_match_plain_integers(loss, logits):
    plan, weights = score_plan(logits, 3, loss)
    low, high, unit = logits.codes[0], logits.codes[-1], 2**logits.frac
    values = [low, -unit - 1, -unit, -1, 0, unit - 1, unit, unit + 1, high]
    x = np.random.default_rng(5).choice(np.clip(values, low, high), (60, 3, 1, 1))
    commands = make_commands(plan, len(x))
    for i in range(len(x)):
        golden = Golden(plan)
        golden.write_weights(weights)
        c = one(commands, i)
        slow = SlowGolden(plan, weights)
        _, expected, _ = slow.step(x[i], Op.TRAIN, c.label[0], 1, c.mantissa[0], c.shift[0])
        dz = golden.trace(x[i], c)["conv1"]["dz"].ravel()
        np.testing.assert_array_equal(dz, slow.stages[0].dz.ravel())
        golden.write_weights(weights)
        assert golden.run(x[i : i + 1], c).loss[0] == expected


def test_other_commands_change_no_weights():
    plan = make_plan("odd", rounded(WIDE, Round.STOCHASTIC))
    ops = [Op.EVALUATE, Op.TRAIN, Op.INFER, Op.EVALUATE, Op.TRAIN]
    check_same(plan, make_samples(plan, 5), make_commands(plan, 5, op=ops))


def test_layers_of_different_formats_match_plain_numpy():
    shape, layers, foldings = NETS["odd"]
    overrides = {
        "conv2": Numbers(
            weights=Fixed(12, 9),
            activations=Fixed(14, 8),
            errors=Fixed(16, 16),
            round_errors="truncate",
        )
    }
    plan = lower(Network(shape, layers), foldings, rounded(WIDE, Round.STOCHASTIC), overrides)
    check_same(plan, make_samples(plan, 4), make_commands(plan, 4))


def test_extreme_numbers_saturate_and_are_counted():
    plan = make_plan("odd", NARROW, lr=0.9)
    low, high = plan.stages[0].input.codes[0], plan.stages[0].input.codes[-1]
    x = np.random.default_rng(1).choice([low, high], (12, *plan.network.input_shape))
    commands = make_commands(plan, 12)
    commands.shift[:] = plan.rate_shifts
    saturated = check_same(plan, x, commands)
    for site in ("output", "errors", "weights"):
        assert any(counts[site] for counts in saturated.values()), site


def test_extreme_weights_train():
    plan = make_plan("all convolution", rounded(Numbers(), Round.NEAREST_EVEN))
    golden = Golden(plan)
    rng = np.random.default_rng(2)
    weights = {
        name: rng.choice([-(2**15), 2**15 - 1], codes.shape)
        for name, codes in golden.read_weights().items()
    }
    golden.write_weights(weights)
    slow = SlowGolden(plan, weights)
    x, c = make_samples(plan, 3), make_commands(plan, 3)
    scores = golden.run(x, c).scores
    for i in range(3):
        expected, _, _ = slow.step(x[i], Op.TRAIN, c.label[i], 1, c.mantissa[i], c.shift[i])
        np.testing.assert_array_equal(scores[i], expected)
    for name, expected in slow.weights().items():
        np.testing.assert_array_equal(golden.read_weights()[name], expected)
    assert golden.saturations() == slow.saturations()


def test_weights_survive_a_round_trip():
    plan = make_plan("valid", NARROW)
    golden = Golden(plan)
    rng = np.random.default_rng(4)
    weights = {
        name: rng.integers(-(2**15), 2**15, codes.shape)
        for name, codes in golden.read_weights().items()
    }
    golden.write_weights(weights)
    for name, codes in golden.read_weights().items():
        np.testing.assert_array_equal(codes, weights[name])
    other = Golden(plan)
    other.write_weights(weights)
    x, commands = make_samples(plan, 5), make_commands(plan, 5)
    np.testing.assert_array_equal(golden.run(x, commands).scores, other.run(x, commands).scores)


def test_starts_from_the_networks_weights():
    plan = make_plan("odd", NARROW)
    for name, value in plan.network.initial_weights().items():
        np.testing.assert_array_equal(
            Golden(plan).read_weights()[name], plan.stages[0].stored.encode(value)
        )


def test_nothing_to_run_is_no_error():
    plan = make_plan("odd", WIDE)
    results = Golden(plan).run(make_samples(plan, 0), make_commands(plan, 0))
    assert results.scores.shape == (0, 5)


def test_runs_may_be_cut_anywhere():
    plan = make_plan("odd", rounded(WIDE, Round.STOCHASTIC), max_batch=4)
    x, commands = make_samples(plan, 8), make_commands(plan, 8, update=[0, 0, 0, 1, 0, 0, 1, 0])
    whole, cut = Golden(plan), Golden(plan)
    results = whole.run(x, commands)
    for i in range(8):
        part = cut.run(x[i : i + 1], one(commands, i))
        assert part.loss[0] == results.loss[i]
    for name, codes in whole.read_weights().items():
        np.testing.assert_array_equal(cut.read_weights()[name], codes)


def score_plan(logits, classes, loss=SOFTMAX):
    """A plan whose scores are its samples, with the weights that make it so."""
    network = Network((classes, 1, 1), [Conv2d(classes, 1, bias=False), Flatten()], loss=loss)
    numbers = Numbers(
        weights=Fixed(18, 0),
        activations=Fixed(18, logits.frac),
        logits=logits,
        errors=Fixed(18, 16),
    )
    plan = lower(network, {"conv1": (1, 1, 1)}, numbers)
    return plan, {"conv1.weight": np.eye(classes, dtype=int).reshape(classes, classes, 1, 1)}


@pytest.mark.parametrize("frac", [0, 1, 8, 11, 12, 13, 16])
def test_loss_of_every_distance_matches_plain_integers(frac):
    plan, weights = score_plan(Fixed(18, frac), 3)
    farthest = 2**17 - 1
    vanishing = round(15 * np.log(2) * 2**frac)  # from here on, a class has no share
    near = np.linspace(0, min(farthest, 13 * 2**frac), 300).astype(int)
    d = np.unique([*near, *range(vanishing - 20, vanishing + 20), farthest])
    d = d[(d >= 0) & (d <= farthest)]
    x = np.zeros((len(d), 3, 1, 1), int)
    x[:, 1, 0, 0] = -d
    x[:, 2, 0, 0] = -d // 2
    golden = Golden(plan)
    commands = make_commands(plan, len(d))
    for i in range(len(d)):
        golden.write_weights(weights)
        c = one(commands, i)
        dz = golden.trace(x[i], c)["conv1"]["dz"].ravel()
        golden.write_weights(weights)
        slow = SlowGolden(plan, weights)
        _, loss, _ = slow.step(x[i], Op.TRAIN, c.label[0], 1, c.mantissa[0], c.shift[0])
        assert golden.run(x[i : i + 1], c).loss[0] == loss
        np.testing.assert_array_equal(dz, slow.stages[0].dz.ravel())


@pytest.mark.parametrize("logits", [Fixed(16, 8), Fixed(18, 14), Fixed(10, 0)])
def test_loss_and_errors_are_close_to_softmax(logits):
    classes = 7
    plan, weights = score_plan(logits, classes)
    x = plan.stages[0].input.encode(np.random.default_rng(0).normal(0, 6, (30, classes, 1, 1)))
    commands = make_commands(plan, 30)
    for i, label in enumerate(commands.label):
        golden = Golden(plan)
        golden.write_weights(weights)
        dz = golden.trace(x[i], one(commands, i))["conv1"]["dz"].ravel()
        golden.write_weights(weights)
        results = golden.run(x[i : i + 1], one(commands, i))

        z = logits.decode(results.scores[0])
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        assert results.loss[0] / 4096 == pytest.approx(-np.log(p[label]), rel=1e-3, abs=1e-3)
        p[label] -= 1
        expected = p * commands.mantissa[i] / 128
        dz = plan.stages[0].errors.decode(dz)
        np.testing.assert_allclose(dz, expected, rtol=0, atol=1e-3)
