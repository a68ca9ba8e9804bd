"""Momentum, weight decay and clipping: the float twin against PyTorch, the exact model against integers."""

import numpy as np
import pytest
import torch
from slow_golden import SlowGolden
from test_golden_float import make_data
from torch_twin import real_weights, torch_model

from streamtrain.golden import Golden
from streamtrain.host.trainer import training_commands
from streamtrain.network import SGD, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.optimizer import decay_limit, velocity
from streamtrain.pipeline.plan import lower

LAYERS = [
    Conv2d(4, 3), ReLU(), MaxPool2d(), Conv2d(3, 3, bias=False), ReLU(), Flatten(), Linear(5)
]  # fmt: skip

OPTIONS = {  # all of them whole numbers of steps
    "momentum": {"momentum": 0.875},
    "decay": {"weight_decay": 2**-5},
    "clip": {"clip": 2**-4},
    "all": {"momentum": 0.75, "weight_decay": 2**-4, "clip": 2**-3},
}


def make_plan(options, max_batch=1, lr=2**-4, numbers=None):
    network = Network((2, 6, 7), LAYERS, optimizer=SGD(lr, **options), seed=1)
    folding = {"conv1": (2, 1, 3), "conv2": (3, 2, 1), "linear1": (1, 3, 1)}
    return lower(network, folding, numbers, max_batch=max_batch)


def torch_training(plan, x, labels, batch):
    """Train in PyTorch. Returns the tensors by name, and the velocities."""
    own = plan.network.optimizer
    model, tensors = torch_model(plan.network)
    optimizer = torch.optim.SGD(
        model.parameters(), own.lr, momentum=own.momentum, weight_decay=own.weight_decay
    )
    real = torch.tensor(plan.stages[0].input.decode(x))
    clipped = 0
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(real[part]), torch.tensor(labels[part])).backward()
        if own.clip is not None:
            largest = max(tensor.grad.abs().max() for tensor in tensors.values())
            clipped += bool(largest > own.clip)
            torch.nn.utils.clip_grad_value_(model.parameters(), own.clip)
        optimizer.step()
    assert own.clip is None or clipped > 1
    held = {
        name: optimizer.state[tensor].get("momentum_buffer") for name, tensor in tensors.items()
    }
    return tensors, held


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_twin_trains_as_pytorch_does(options, batch):
    plan = make_plan(options, batch)
    x, labels = make_data(plan, 24)
    twin = Golden(plan, exact=False)
    twin.run(x, training_commands(plan, labels, batch))
    tensors, held = torch_training(plan, x, labels, batch)
    for name, w in real_weights(twin).items():
        np.testing.assert_allclose(w, tensors[name].detach(), rtol=1e-9, atol=1e-12)
    formats = {stage.name: velocity(plan, stage) for stage in plan.stages}
    found = twin.read_optimizer()
    assert len(found) == (5 if "momentum" in options else 0)
    for name, codes in found.items():
        layer, kind, _ = name.split(".")
        np.testing.assert_allclose(
            formats[layer].decode(codes) / 2**-4, held[f"{layer}.{kind}"], rtol=1e-9, atol=1e-12
        )


NARROW = {"weights": Fixed(8, 6), "activations": Fixed(8, 5), "errors": Fixed(8, 7)}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rounding", list(Round))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_exact_model_computes_plain_integers(options, rounding, batch):
    numbers = Numbers(**NARROW, master=Fixed(14, 11), round_weights=rounding)
    plan = make_plan(options, batch, lr=2**-3, numbers=numbers)
    rng = np.random.default_rng(7)
    x, labels = make_data(plan, 4 * batch)
    commands = training_commands(plan, labels, batch)
    commands.momentum[:] = rng.integers(0, 1024, len(x)) * ("momentum" in options)
    commands.decay[:] = rng.integers(0, decay_limit(plan), len(x)) * ("weight_decay" in options)
    commands.clip[:] = rng.integers(0, 2000, len(x)) * ("clip" in options)
    golden = Golden(plan)
    slow = SlowGolden(plan, golden.read_weights())
    golden.run(x, commands)
    names = ("op", "label", "update", "mantissa", "shift")
    for i in range(len(x)):
        values = {name: int(getattr(commands, name)[i]) for name in ("momentum", "decay", "clip")}
        slow.step(x[i], *(getattr(commands, name)[i] for name in names), **values)
    for name, codes in slow.weights().items():
        np.testing.assert_array_equal(golden.read_weights()[name], codes)
    for stage in slow.stages:
        layer = stage.stage.name
        if "momentum" in options:
            held = golden.read_optimizer()
            found = held[f"{layer}.weight.velocity"]
            stage.w = stage.vw
            np.testing.assert_array_equal(found, stage.torch_weight(found.shape))
            if stage.stage.bias:
                np.testing.assert_array_equal(held[f"{layer}.bias.velocity"], stage.vb)
    assert golden.saturations() == slow.saturations()
