"""The float twin against PyTorch and finite differences, and the exact model against the twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch_twin import LOSSES, real_weights, torch_model

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
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

SOFTMAX = CrossEntropy()
LR = 2**-4

NETS = {
    "relu before pool": (
        (2, 9, 11),
        [Conv2d(4, 3), ReLU(), MaxPool2d(), Conv2d(3, 3), ReLU(), MaxPool2d(), Flatten(),
         Linear(5)],
    ),
    "pool before relu": (
        (2, 9, 11),
        [Conv2d(4, 3), MaxPool2d(), ReLU(), Conv2d(3, 3), MaxPool2d(), ReLU(), Flatten(),
         Linear(5)],
    ),
    "kernels and paddings": (
        (1, 10, 9),
        [Conv2d(3, 5, padding="valid"), ReLU(), Conv2d(4, 3, padding=2), MaxPool2d(),
         Conv2d(2, 1, bias=False), ReLU(), Flatten(), Linear(6, bias=False), ReLU(), Linear(4)],
    ),
    "all convolution": (
        (3, 6, 6),
        [Conv2d(4, 3), ReLU(), MaxPool2d(), Conv2d(5, 3, padding="valid"), Flatten()],
    ),
}  # fmt: skip


def each_loss(test):
    return pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)(test)


def make_plan(net, max_batch=1, numbers=None, loss=SOFTMAX, frozen=()):
    shape, layers = NETS[net]
    network = Network(shape, layers, loss=loss, optimizer=SGD(LR), seed=1).freeze(*frozen)
    return lower(network, lambda name, channels, kernel: (1, 1, 1), numbers, max_batch=max_batch)


def make_commands(plan, labels, batch=1, op=Op.TRAIN):
    count = len(labels)
    mantissa, shift = plan.rate_code(plan.network.optimizer.lr, batch)
    update = (np.arange(count) % batch == batch - 1).astype(int)
    fill = np.ones(count, int)
    return Commands(fill * op, labels, update, fill * mantissa, fill * shift)


def make_data(plan, count):
    rng = np.random.default_rng(5)
    x = plan.stages[0].input.encode(rng.normal(0, 1, (count, *plan.network.input_shape)))
    return x, rng.integers(plan.network.classes, size=count)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("net", NETS)
@each_loss
def test_twin_trains_as_pytorch_does(loss, net, batch):
    check_against_pytorch(make_plan(net, max_batch=batch, loss=loss), loss, batch)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("frozen", [["conv1"], ["conv2", "linear1"], ["conv1", "conv3", "linear2"]])
def test_twin_freezes_as_pytorch_does(frozen, masked, batch):
    plan = make_plan("kernels and paddings", batch, frozen=() if masked else frozen)
    check_against_pytorch(plan, SOFTMAX, batch, frozen)


def check_against_pytorch(plan, loss, batch, frozen=()):
    x, labels = make_data(plan, 24)
    twin = Golden(plan, exact=False)
    mask = sum(1 << at for at, stage in enumerate(plan.stages) if stage.name in frozen)
    commands = replace(make_commands(plan, labels, batch), frozen=np.full(len(x), mask))
    results = twin.run(x, commands)

    model, tensors = torch_model(plan.network)
    for name, tensor in tensors.items():
        tensor.requires_grad_(name.partition(".")[0] not in frozen)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    real = torch.tensor(plan.stages[0].input.decode(x))
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        scores = model(real[part])
        losses = LOSSES[loss](scores, torch.tensor(labels[part]))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        np.testing.assert_allclose(
            plan.stages[-1].output.decode(results.scores[part]),
            scores.detach(),
            rtol=1e-9,
            atol=1e-12,
        )
        np.testing.assert_allclose(
            results.loss[part] / 4096, losses.detach(), rtol=1e-9, atol=1e-12
        )
        np.testing.assert_array_equal(results.predicted[part], scores.detach().argmax(dim=1))
    for name, w in real_weights(twin).items():
        np.testing.assert_allclose(w, tensors[name].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_twins_gradients_are_differences_of_its_loss(net):
    plan = make_plan(net)
    x, labels = make_data(plan, 1)
    rng = np.random.default_rng(0)
    twin = Golden(plan, exact=False)
    before = twin.read_weights()
    twin.run(x, make_commands(plan, labels))
    after = twin.read_weights()

    def loss(name, at, change):
        weights = {key: w.copy() for key, w in before.items()}
        weights[name][at] += change
        twin.write_weights(weights)
        return twin.run(x, make_commands(plan, labels, op=Op.EVALUATE)).loss[0] / 4096

    for name, w in before.items():
        scale = 2.0 ** next(s for s in plan.stages if s.name == name.split(".")[0]).stored.frac
        for index in rng.choice(w.size, min(10, w.size), replace=False):
            at = np.unravel_index(index, w.shape)
            step = 1e-5
            slope = (loss(name, at, step * scale) - loss(name, at, -step * scale)) / (2 * step)
            gradient = (before[name][at] - after[name][at]) / scale / LR
            assert gradient == pytest.approx(slope, rel=1e-5, abs=1e-8), (name, at)


def test_twin_saturates_nothing_and_counts_nothing():
    plan = make_plan("relu before pool")
    x, labels = make_data(plan, 3)
    twin = Golden(plan, exact=False)
    twin.write_weights({name: w * 1000 for name, w in twin.read_weights().items()})
    scores = twin.run(x, make_commands(plan, labels, op=Op.INFER)).scores
    assert abs(scores).max() > plan.stages[-1].output.codes[-1]
    assert not any(sum(sites.values()) for sites in twin.saturations().values())


@each_loss
def test_fine_formats_stay_close_to_the_twin(loss):
    softmax = loss == SOFTMAX  # the errors of squares are larger
    fine = Numbers(
        weights="fixed<18,3>",
        master="fixed<25,3>" if softmax else "fixed<24,3>",
        activations="fixed<18,5>",
        logits="fixed<18,7>",
        errors="fixed<18,2>" if softmax else "fixed<18,3>",
    )
    plan = make_plan("relu before pool", numbers=fine, loss=loss)
    x, labels = make_data(plan, 20)
    exact, twin = Golden(plan), Golden(plan, exact=False)
    commands = make_commands(plan, labels)
    np.testing.assert_allclose(
        exact.run(x, commands).loss / 4096, twin.run(x, commands).loss / 4096, rtol=0, atol=0.01
    )
    for name, w in real_weights(exact).items():
        np.testing.assert_allclose(w, real_weights(twin)[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("loss", "lr", "first", "third"),
    [
        pytest.param(CrossEntropy(), 2**-6, 1, 0.15, id="CrossEntropy"),
        pytest.param(MSELoss(), 2**-4, 0.08, 0.035, id="MSELoss"),
        pytest.param(SquaredHinge(), 2**-4, 0.25, 0.05, id="SquaredHinge"),
    ],
)
def test_digits_are_learned(loss, lr, first, third, exact):
    pixels, labels = load_digits(return_X_y=True)
    layers = [
        Conv2d(8, 3),
        ReLU(),
        MaxPool2d(),
        Conv2d(16, 3),
        ReLU(),
        MaxPool2d(),
        Flatten(),
        Linear(10),
    ]
    network = Network((1, 8, 8), layers, loss=loss, optimizer=SGD(lr))
    plan = lower(network, lambda name, channels, kernel: (1, 1, 1))
    x = plan.stages[0].input.encode(pixels.reshape(-1, 1, 8, 8) / 16)
    golden = Golden(plan, exact=exact)
    train = make_commands(plan, labels[:1400])
    losses = [golden.run(x[:1400], train).loss.mean() / 4096 for _ in range(3)]
    assert losses[0] < first and losses[2] < third
    tested = golden.run(x[1400:], make_commands(plan, labels[1400:], op=Op.EVALUATE))
    assert (tested.predicted == labels[1400:]).mean() > 0.85
