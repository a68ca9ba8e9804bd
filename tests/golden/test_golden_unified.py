"""Training on the unified core's golden model: against PyTorch, and where order cannot matter, exactly."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden.softmax import SCORE, probabilities
from streamtrain.golden.unified import UnifiedGolden
from streamtrain.numeric import arithmetic
from streamtrain.unified.plan import lower

torch = pytest.importorskip("torch")


def small(seed=0):
    return st.Network(
        (3, 10, 10),
        [
            st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(2),
            st.Conv2d(9, 5), st.ReLU(), st.Conv2d(5, 1), st.MaxPool2d(2),
            st.Flatten(), st.Linear(11), st.ReLU(), st.Linear(7),
        ],
        seed=seed,
    )  # fmt: skip


def strided(seed=0):
    """A folded first layer as AlexNet's, whose kernels leave a rest of 3 rows and 1 column, then stride 2."""
    return st.Network(
        (3, 34, 32),
        [
            st.Conv2d(6, 11, "valid", stride=4), st.ReLU(), st.Conv2d(9, 5, stride=2), st.ReLU(),
            st.MaxPool2d(2), st.Flatten(), st.Linear(5),
        ],
        seed=seed,
    )  # fmt: skip


def data(network, images, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, *network.input_shape)), rng.integers(0, network.classes, images)


def normalized(seed=0):
    """Batch norms with and without pool and ReLU, behind strides and a 5x5 kernel."""
    return st.Network(
        (3, 23, 20),
        [
            st.Conv2d(11, 3, stride=2, bias=False), st.BatchNorm2d(), st.ReLU(), st.MaxPool2d(2),
            st.Conv2d(9, 5, "valid", bias=False), st.BatchNorm2d(eps=1e-3, momentum=0.3), st.ReLU(),
            st.Conv2d(5, 1), st.BatchNorm2d(), st.Flatten(), st.Linear(4),
        ],
        seed=seed,
    )  # fmt: skip


def trained(network, x, labels, lr, steps):
    """Weights after steps of SGD with PyTorch's autograd in float64."""
    weights = {name: torch.tensor(value) for name, value in network.initial_weights().items()}
    learnt = {
        name: tensor.requires_grad_() for name, tensor in weights.items() if "running" not in name
    }
    for _ in range(steps):
        y = torch.tensor(x)
        for layer in network.layers:
            own = weights.get(f"{layer.name}.weight"), weights.get(f"{layer.name}.bias")
            if layer.stem == "conv":
                y = torch.nn.functional.conv2d(y, *own, layer.stride, layer.pad)
            elif layer.stem == "linear":
                y = torch.nn.functional.linear(y, *own)
            elif layer.stem == "norm":
                running = [weights[f"{layer.name}.running_{name}"] for name in ("mean", "var")]
                y = torch.nn.functional.batch_norm(
                    y, *running, *own, training=True, momentum=layer.momentum, eps=layer.eps
                )
            elif layer.stem == "pool":
                y = torch.nn.functional.max_pool2d(y, layer.kernel)
            else:
                y = torch.relu(y) if layer.stem == "relu" else y.flatten(1)
        loss = torch.nn.functional.cross_entropy(y, torch.tensor(labels))
        gradients = torch.autograd.grad(loss, list(learnt.values()))
        with torch.no_grad():
            for weight, gradient in zip(learnt.values(), gradients, strict=True):
                weight -= lr * gradient
    return {name: value.detach().numpy() for name, value in weights.items()}


@pytest.mark.parametrize(
    ("network", "lanes", "name", "steps", "close"),
    [
        (small(), 8, "fp32", 3, 1e-5),
        (small(), 8, "fp16", 1, 0.01),
        (small(), 8, "bf16", 1, 0.1),
        (strided(), 16, "fp32", 3, 1e-5),
        (normalized(), 8, "fp32", 3, 1e-5),
        (normalized(), 8, "fp16", 1, 0.01),
        (normalized(), 8, "bf16", 1, 0.1),
    ],
    ids=["fp32", "fp16", "bf16", "strides", "norms", "norms in fp16", "norms in bf16"],
)
def test_trains_as_pytorch_does(network, lanes, name, steps, close):
    """Weights move as they should: off by less than ``close`` of how far, in the root mean square.

    With operands of 8 bits (bfloat16), a maximum is taken from another place now and then.
    """
    golden = UnifiedGolden(lower(network, lanes), arithmetic(name))
    before = golden.read_weights()
    x, labels = data(network, 4)
    for _ in range(steps):
        golden.step(x, labels, 0.05)
    want = trained(network, x, labels, 0.05, steps)
    for key, got in golden.read_weights().items():
        moved = np.linalg.norm(want[key] - before[key])
        assert np.linalg.norm(got - want[key]) < close * moved + 1e-12, (
            key
        )  # biases before norms stay


def test_evaluates_with_running_statistics():
    network = normalized()
    golden = UnifiedGolden(lower(network, 8), arithmetic("fp32"))
    x, labels = data(network, 6)
    for _ in range(3):
        golden.step(x, labels, 0.05)
    weights = {name: torch.tensor(value) for name, value in golden.read_weights().items()}
    y = torch.tensor(x)
    for layer in network.layers:
        own = [weights.get(f"{layer.name}.{name}") for name in ("weight", "bias")]
        running = [weights.get(f"{layer.name}.running_{name}") for name in ("mean", "var")]
        if layer.stem == "conv":
            y = torch.nn.functional.conv2d(y, *own, layer.stride, layer.pad)
        elif layer.stem == "norm":
            y = torch.nn.functional.batch_norm(y, *running, *own, eps=layer.eps)
        elif layer.stem == "linear":
            y = torch.nn.functional.linear(y.flatten(1), *own)
        elif layer.stem != "flatten":
            y = torch.relu(y) if layer.stem == "relu" else torch.nn.functional.max_pool2d(y, 2)
    np.testing.assert_allclose(golden.forward(x), y.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "running", "close"),
    [(0, 0, 3e-6), (10, 0, 2e-4), (100, 0, 0.02), (100, 98.5, 3e-6), (1000, 985, 2e-4)],
)
def test_a_mean_far_from_zero_costs_digits_until_the_running_one_is_near(mean, running, close):
    """A variance is the mean of squares less the square of the mean, which is off by roundings of both.

    They grow with the square of the distance from the running mean, in deviations. Of all, the gradients of
    gamma suffer most. A kernel of ones leaves the inputs as they are: 16,384 pixels, of variance 1.
    """
    layers = [st.Conv2d(2, 1, bias=False), st.BatchNorm2d(), st.ReLU(), st.Flatten(), st.Linear(3)]
    given = st.Network((1, 32, 32), layers).initial_weights()
    given |= {"conv1.weight": np.ones((2, 1, 1, 1)), "norm1.running_mean": np.full(2, running)}
    network = st.Network((1, 32, 32), layers, weights=given)
    golden = UnifiedGolden(lower(network, 4), arithmetic("fp32"))
    x, labels = data(network, 16)
    x = np.float64(np.float32(x + mean))
    golden.step(x, labels, 0.05)
    want, got = trained(network, x, labels, 0.05, 1), golden.read_weights()
    for key in ("norm1.weight", "norm1.bias", "linear1.weight"):
        moved = np.linalg.norm(want[key] - given[key])
        assert np.linalg.norm(got[key] - want[key]) < close * moved, key


def test_fixed_point_learns():
    network = small()
    numbers = arithmetic("fixed<16,6>")
    golden = UnifiedGolden(lower(network, 8), numbers)
    x, labels = data(network, 4)
    first = golden.step(x, labels, 0.05)
    for _ in range(30):
        last = golden.step(x, labels, 0.05)
    own = np.arange(len(labels)), labels
    assert (last[own] - last.max(axis=1) == 0).all()
    assert last[own].mean() > first[own].mean()


def test_lanes_change_the_order_and_little_else():
    network = small()
    x, labels = data(network, 2)
    found = []
    for lanes in (7, 8, 16):
        golden = UnifiedGolden(lower(network, lanes), arithmetic("fp32"))
        golden.step(x, labels, 0.05)
        found.append(golden.read_weights())
    assert all(
        np.allclose(a, b, atol=1e-6)
        for f in found
        for a, b in zip(f.values(), found[0].values(), strict=True)
    )


def test_frozen_layers_keep_their_weights():
    network = small().freeze("conv1", "linear1")
    golden = UnifiedGolden(lower(network, 8), arithmetic("fp32"))
    before = golden.read_weights()
    golden.step(*data(network, 2), 0.05)
    for key, after in golden.read_weights().items():
        assert (after == before[key]).all() == key.startswith(("conv1", "linear1"))


def test_batch_norms_of_frozen_layers_are_trained():
    network = normalized().freeze("conv1", "conv2")
    golden = UnifiedGolden(lower(network, 8), arithmetic("fp32"))
    before = golden.read_weights()
    golden.step(*data(network, 2), 0.05)
    same = [key for key, after in golden.read_weights().items() if (after == before[key]).all()]
    assert same == ["conv1.weight", "conv2.weight", "conv3.bias"]


def test_softmax_is_right_to_the_last_bits():
    rng = np.random.default_rng(1)
    scores = rng.normal(scale=4, size=(1000, 10))
    want = np.exp(scores - scores.max(axis=1, keepdims=True))
    want /= want.sum(axis=1, keepdims=True)
    got = probabilities(SCORE.encode(scores)) / 2.0**24
    # Scores are off by 2**-21, powers by about 2**-24 of them; what is shifted out of a power, and out of
    # its probability, is less than 2**-24 each.
    assert (abs(got - want) <= want * (2 * 2.0**-21 + 2 * 2.0**-23) + 2 * 2.0**-24).all()


@pytest.mark.parametrize("scores", [[0, 0], [2**31 - 1, -(2**31)], [-(2**31)] * 3, [5]])
def test_softmax_of_extreme_scores(scores):
    got = probabilities(np.array([scores]))[0]
    equal = np.array(scores) == max(scores)
    assert (got[equal] == 2**24 // equal.sum()).all()
    assert (got[~equal] == 0).all()


@pytest.mark.parametrize(
    ("layers", "culprit"),
    [
        ([st.ReLU(), st.Conv2d(3, 3), st.Flatten(), st.Linear(3)], "relu1 comes before any"),
        ([st.Conv2d(3, 3), st.MaxPool2d(), st.MaxPool2d(), st.Flatten(), st.Linear(3)], "pool2"),
        ([st.Flatten(), st.Linear(3), st.ReLU()], "must be the scores"),
        (
            [st.Conv2d(3, 3), st.ReLU(), st.BatchNorm2d(), st.Flatten(), st.Linear(3)],
            "norm1 must come directly",
        ),
        (
            [st.BatchNorm2d(), st.Conv2d(3, 3), st.Flatten(), st.Linear(3)],
            "norm1 must come directly",
        ),
        (
            [st.Conv2d(3, 3), st.BatchNorm2d(), st.MaxPool2d(), st.Flatten(), st.Linear(3)],
            "pool1 leaves out pixels",
        ),
    ],
)
def test_what_the_array_cannot_run_is_named(layers, culprit):
    with pytest.raises(ValueError, match=culprit):
        lower(st.Network((2, 9, 9), layers), 8)


def test_batch_norms_are_not_for_fixed_point():
    with pytest.raises(
        ValueError,
        match=r"^norm1 normalizes with floating-point numbers, not fixed<16,6>; use fp32",
    ):
        UnifiedGolden(lower(normalized(), 8), arithmetic("fixed<16,6>"))
