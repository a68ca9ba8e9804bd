# amaranth: UnusedElaboratable=no
"""The losses: scores in; loss, prediction and errors as the golden model has them."""

import numpy as np
import pytest

from streamtrain.golden import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.network import Conv2d, CrossEntropy, Flatten, MSELoss, Network, SquaredHinge
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.loss import ScoreLoss
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower
from streamtrain.simulate.bench import run_streams

SQUARES = [MSELoss(), SquaredHinge()]
LOSSES = [CrossEntropy(), *SQUARES]


def each(losses):
    return pytest.mark.parametrize("loss", losses, ids=lambda loss: type(loss).__name__)


def make(loss, classes=3, logits=Fixed(16, 8), errors=Fixed(16, 13), mode=Round.NEAREST):
    """A plan whose scores are its biases, so that the golden model can be given any."""
    net = Network((1, 1, 1), (Conv2d(classes, kernel=1), Flatten()), loss=loss)
    numbers = Numbers(
        weights=logits,
        logits=logits,
        activations=Fixed(8, 6),
        errors=errors,
        round_errors=mode,
    )
    return lower(net, {"conv1": (1, 1, 1)}, numbers)


def scores(plan, count):
    """Scores of all kinds: random, equal, far apart, close together, only just different."""
    rng = np.random.default_rng(count)
    fmt, classes = plan.stages[-1].output, plan.network.classes
    low, high = fmt.codes[0], fmt.codes[-1]
    one = min(2 ** max(0, fmt.frac), high)
    kinds = [
        lambda: rng.integers(low, high, classes, endpoint=True),
        lambda: np.full(classes, rng.choice([low, 0, high])),
        lambda: rng.choice([low, high], classes),
        lambda: np.clip(rng.normal(0, 2.0**fmt.frac, classes), low, high).astype(np.int64),
        lambda: rng.integers(-1, 2, classes),
        lambda: rng.choice([-one - 1, -one, 0, one - 1, one], classes),  # near the targets
    ]
    return np.array([kinds[number % len(kinds)]() for number in range(count)])


def commands(plan, ops):
    rng = np.random.default_rng(len(ops))
    count = len(ops)
    mantissa = rng.choice([0, 1, 127, 128, *range(129)], count)
    label = rng.integers(0, plan.network.classes, count)
    return Commands(np.array(ops), label, np.ones(count, int), mantissa, np.zeros(count, int))


def golden(plan, z, todo):
    """Results, errors and the number of saturated errors."""
    model, tracer = Golden(plan), Golden(plan)
    results, errors = [], []
    for number, one in enumerate(z):
        weights = {"conv1.weight": np.zeros((len(one), 1, 1, 1), int), "conv1.bias": one}
        command = Commands(*(getattr(todo, f)[number : number + 1] for f in FIELDS))
        for device in (model, tracer):
            device.write_weights(weights)
        result = model.run(np.zeros((1, 1, 1, 1), int), command)
        trace = tracer.trace(np.zeros((1, 1, 1), int), command)
        assert result.scores[0].tolist() == one.tolist()
        results.append({
            "scores": one.tolist(),
            "loss": int(result.loss[0]),
            "predicted": int(result.predicted[0]),
        })
        if command.op[0] == Op.TRAIN:
            errors += trace["conv1"]["dz"].reshape(-1, 1).tolist()
    return results, errors, model.saturations()["conv1"]["errors"]


FIELDS = ("op", "label", "update", "mantissa", "shift")


def check(plan, z, ops, **options):
    todo = commands(plan, ops)
    results, errors, saturated = golden(plan, z, todo)
    tokens = [
        {"op": int(op), "label": int(label), "mantissa": int(mantissa)}
        for op, label, mantissa in zip(todo.op, todo.label, todo.mantissa, strict=True)
    ]
    inputs = {"token": tokens, "i": z.reshape(-1, 1)}
    outputs = {"o": len(errors), "result": len(results)}
    run = run_streams(ScoreLoss(plan), inputs, outputs, **options)
    assert run.received == {"o": errors, "result": results}
    assert run.final == {"saturated": saturated, "idle": 1}
    return run


def mixed(count):
    return np.random.default_rng(count).choice([Op.INFER, Op.EVALUATE, Op.TRAIN, Op.TRAIN], count)


@pytest.mark.parametrize("stall", [0.0, 0.5, {"o": 0.8}, {"i": 0.8}])
@pytest.mark.parametrize("classes", [2, 3, 10, 17])
@each(LOSSES)
def test_equals_golden(loss, classes, stall):
    plan = make(loss, classes)
    check(plan, scores(plan, 18), mixed(18), stall=stall)


LOGITS = [
    Fixed(8, 4),
    Fixed(18, 12),
    Fixed(16, 15),
    Fixed(18, 20),
    Fixed(2, 0),
    Fixed(10, -2),
    Fixed(8, -6),
    Fixed(18, -1),
]


@pytest.mark.parametrize("logits", LOGITS, ids=str)
def test_formats_of_scores(logits):
    plan = make(CrossEntropy(), logits=logits)
    check(plan, scores(plan, 20), mixed(20))


@pytest.mark.parametrize(
    "logits",
    [Fixed(2, 0), Fixed(8, 4), Fixed(16, 14), Fixed(17, 3), Fixed(18, 12), Fixed(18, 0)],
    ids=str,
)
@pytest.mark.parametrize("classes", [2, 5])
@each(SQUARES)
def test_formats_of_scores_that_hold_the_targets(loss, classes, logits):
    plan = make(loss, classes, logits=logits)
    check(plan, scores(plan, 24), mixed(24))


ERRORS = [
    Fixed(8, 7),
    Fixed(18, 17),
    Fixed(18, 24),
    Fixed(4, 0),
    Fixed(6, -2),
    Fixed(18, 38),
    Fixed(18, 40),
]


# Stochastic rounding drops at most 32 bits, so coarse errors cannot be rounded that way.
@each(LOSSES)
@pytest.mark.parametrize(
    ("errors", "mode"),
    [
        pytest.param(errors, mode, id=f"{errors} {mode.value}")
        for errors in ERRORS
        for mode in Round
        if mode is not Round.STOCHASTIC or errors.frac >= 6
    ],
)
def test_formats_and_rounding_of_errors(loss, errors, mode):
    plan = make(loss, errors=errors, mode=mode)
    check(plan, scores(plan, 10), [Op.TRAIN] * 10, stall={"o": 0.3})


@pytest.mark.parametrize("classes", [2, 5, 10])
@each(LOSSES)
def test_errors_follow_in_the_cycles_that_are_documented(loss, classes):
    plan = make(loss, classes)
    z = scores(plan, 6)
    run = check(plan, z, [Op.TRAIN] * 6)
    last_score = run.times["i"][classes - 1 :: classes]
    first, result = (7, 21) if loss in SQUARES else (classes + 17, 0)
    for number, at in enumerate(last_score):
        errors = run.times["o"][number * classes : (number + 1) * classes]
        assert errors == list(range(at + first, at + first + classes))
        assert run.times["result"][number] == max(errors[-1] + 1, at + result)


@each(LOSSES)
def test_scores_are_returned_at_once_for_inference(loss):
    plan = make(loss)
    run = check(plan, scores(plan, 5), [Op.INFER] * 5)
    assert run.times["result"] == [last + 1 for last in run.times["i"][2::3]]


@each(LOSSES)
def test_largest_and_first_of_equals_is_predicted(loss):
    plan = make(loss, 4)
    z = np.array([[5, 7, 7, 1], [-3, -3, -3, -3], [-9, -8, -7, -6]])
    run = check(plan, z, [Op.INFER] * 3)
    assert [result["predicted"] for result in run.received["result"]] == [1, 0, 3]


def test_softmax_loss_and_errors_are_near_their_real_values():
    plan = make(CrossEntropy(), 5)
    fmt = plan.stages[-1]
    real = np.random.default_rng(0).normal(0, 2, (8, 5))
    z = fmt.output.encode(real)
    todo = commands(plan, [Op.TRAIN] * 8)
    run = check(plan, z, [Op.TRAIN] * 8)
    powers = np.exp(fmt.output.decode(z))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    which = np.arange(8), todo.label
    losses = np.array([result["loss"] for result in run.received["result"]]) / 2**12
    np.testing.assert_allclose(losses, -np.log(softmax[which]), atol=2e-3)
    softmax[which] -= 1
    errors = fmt.errors.decode(run.received["o"]).reshape(8, 5)
    np.testing.assert_allclose(errors, softmax * todo.mantissa[:, None] / 128, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 5, 10, 24])
@each(SQUARES)
def test_squared_loss_and_errors_are_near_their_real_values(loss, classes):
    plan = make(loss, classes)
    fmt = plan.stages[-1]
    z = fmt.output.encode(np.random.default_rng(0).normal(0, 1, (8, classes)))
    todo = commands(plan, [Op.TRAIN] * 8)
    run = check(plan, z, [Op.TRAIN] * 8)
    real, label = fmt.output.decode(z), np.eye(classes)[todo.label]
    distance = real - label
    if isinstance(loss, SquaredHinge):
        target = 2 * label - 1
        distance = -target * np.maximum(0, 1 - target * real)
    losses = np.array([result["loss"] for result in run.received["result"]]) / 2**12
    # 2/n has 16 bits; what is below a loss's last bit is dropped, an error is rounded.
    exact = (distance**2).mean(axis=1)
    np.testing.assert_allclose(losses, exact - 2**-13, rtol=2**-16, atol=2**-13)
    errors = fmt.errors.decode(run.received["o"]).reshape(8, classes)
    expected = 2 / classes * distance * todo.mantissa[:, None] / 128
    np.testing.assert_allclose(errors, expected, rtol=2**-16, atol=2**-14)


@each(SQUARES)
def test_the_largest_squares_saturate(loss):
    """A loss has 20 integer bits; the largest square of these scores has 34."""
    plan = make(loss, 3, logits=Fixed(18, 0))
    low, high = plan.stages[-1].output.codes[0], plan.stages[-1].output.codes[-1]
    z = np.array([[low, high, 0], [0, 1, 0], [high, high, high], [low, low, low]])
    run = check(plan, z, [Op.EVALUATE, Op.TRAIN, Op.TRAIN, Op.EVALUATE])
    losses = [result["loss"] for result in run.received["result"]]
    assert losses[0] == losses[2] == losses[3] == 2**32 - 1
    assert losses[1] < 4 * 2**12
