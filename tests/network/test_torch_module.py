"""What is read from PyTorch modules, and what is refused."""

import builtins
import logging

import numpy as np
import pytest
import torch
from torch import nn

import streamtrain as st
from streamtrain.golden.unified import UnifiedGolden
from streamtrain.network import Network
from streamtrain.numeric import arithmetic
from streamtrain.unified.plan import lower

NET = Network((1, 8, 8), [st.Conv2d(4, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(3)])


@pytest.fixture(autouse=True)
def quiet_torch():
    """torch.export logs what it raises."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def small(*middle, size=64, end=()):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *middle, nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(size, 3), *end,
    )  # fmt: skip


class Forward(nn.Module):
    """The small network, with a forward of its own."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 3)
        self.code = forward

    def forward(self, x):
        return self.code(self, x)


def pooled(m, x):
    return nn.functional.max_pool2d(m.conv(x).relu(), 2)


def refused(module, shape=(1, 8, 8)):
    with pytest.raises(st.ModelError) as caught:
        st.from_torch(module, shape)
    return [tuple(vars(problem).values()) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "module",
    [
        lambda: small(),
        lambda: small(nn.Dropout2d(), nn.Identity(), end=[nn.Softmax(1)]),
        lambda: small(nn.ReLU(inplace=True)),
        lambda: Forward(lambda m, x: m.linear(pooled(m, x).flatten(1))),
        lambda: Forward(lambda m, x: m.linear(pooled(m, x).reshape(len(x), -1))),
        lambda: Forward(
            lambda m, x: m.linear(pooled(m, x).contiguous().view(-1, 64)).log_softmax(-1)
        ),
        lambda: Forward(lambda m, x: m.linear(pooled(m, x).clone().flatten(1)).detach()),
    ],
)
def test_forms_of_the_same(module):
    module = module()
    net = st.from_torch(module, (1, 8, 8), optimizer=st.SGD(0.5))
    names = [type(layer).__name__ for layer in net.layers if type(layer) is not st.ReLU]
    assert names == ["Conv2d", "MaxPool2d", "Flatten", "Linear"]
    assert net.optimizer == st.SGD(0.5)
    for mine, theirs in zip(net.initial_weights().values(), module.parameters(), strict=True):
        np.testing.assert_array_equal(mine, theirs.detach().numpy())


def test_strides_and_large_kernels():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 7, stride=2, padding=3), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=3),
        nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    net = st.from_torch(module, (1, 10, 9))
    assert net.shapes == ((1, 10, 9), (4, 5, 5), (4, 5, 5), (5, 1, 1), (5,), (3,))
    x = np.random.default_rng(3).normal(size=(2, 1, 10, 9)).astype(np.float32)
    golden = UnifiedGolden(lower(net, 4), arithmetic("fp32"))
    want = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(golden.forward(x), want, rtol=1e-4, atol=1e-6)


def test_mode_of_each_part_stays():
    module = small(nn.Dropout())
    module.train()
    module[0].eval()
    st.from_torch(module, (1, 8, 8))
    assert [part.training for part in module] == [False, *[True] * 5]


@pytest.mark.parametrize(
    "module, row",
    [
        (lambda: small(nn.Sigmoid()), ("2", "aten.sigmoid", "", "unsupported operator", "Relu")),
        (lambda: small(nn.Conv2d(4, 4, 3, stride=(2, 1)), size=12), ("2", "Conv", "strides", "[2, 1]", "the same both ways, at most the kernel")),
        (lambda: small(nn.Conv2d(4, 4, 3, groups=4), size=36), ("2", "Conv", "group", "4", "1")),
        (lambda: small(nn.Conv2d(4, 4, 4, padding=2), size=64), ("2", "Conv", "kernel_shape", "[4, 4]", "square and odd, up to 11x11")),
        (lambda: small(nn.AvgPool2d(2), size=16), ("2", "aten.avg_pool2d", "", "unsupported operator", "MaxPool with a 2x2 kernel and strides of 2")),
        (lambda: small(nn.MaxPool2d(3), size=4), ("2", "MaxPool", "kernel_shape", "[3, 3]", "2x2")),
        (lambda: small(nn.GroupNorm(2, 4)), ("2", "aten.group_norm", "", "unsupported operator", "BatchNormalization directly behind Conv")),
        (lambda: small().double(), ("0.weight", "parameter", "type", "float64", "float32: module.float()")),
        (lambda: small().to(torch.bfloat16), ("0.weight", "parameter", "type", "bfloat16", "float32: module.float()")),
        (lambda: small().to("meta"), ("0.weight", "parameter", "device", "meta", "a module with weights")),
        (lambda: Forward(lambda m, x: m.linear(m.conv(x))), ("", "", "forward")),
        (lambda: Forward(lambda m, x: m.linear(pooled(m, x).flatten(1)) if x.sum() > 0 else x), ("", "", "forward")),
        (lambda: Forward(lambda m, x: (m.linear(pooled(m, x).flatten(1)), x)), ("", "", "forward", "1 inputs and 2 outputs", "one tensor in, one out")),
        (lambda: Forward(lambda m, x: m.linear((pooled(m, x) + pooled(m, x)).flatten(1))), ("add", "aten.add", "", "unsupported operator", "a chain of layers, each read by the next")),
        (lambda: Forward(lambda m, x: m.linear((2 * pooled(m, x)).flatten(1))), ("mul", "aten.mul", "", "unsupported operator")),
        (lambda: Forward(lambda m, x: pooled(m, x).flatten(1)[:, :3]), ("slice_1", "aten.slice", "", "unsupported operator")),
    ],
)  # fmt: skip
def test_refusals(module, row):
    rows = refused(module())
    assert row in [found[: len(row)] for found in rows], rows


def test_shared_parameters():
    module = small(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    module[3].weight = module[2].weight
    assert ("3.weight", "parameter", "", "is 2.weight", "parameters of its own") in refused(module)


def test_a_layer_that_runs_twice():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    rows = refused(small(conv, conv))
    assert any("belongs to" in found or "is 2.weight" in found for *_, found, _ in rows)


@pytest.mark.parametrize(
    "module, shape, error, message",
    [
        (lambda: "net.pt", (1, 8, 8), TypeError, r"^Module must be a torch.nn.Module, not 'net.pt'$"),
        (small, (8, 8), ValueError, r"^Shape must be \(channels, rows, columns\)"),
        (small, 8, TypeError, r"^Shape must be three integers, not 8$"),
        (small, (1, 8, 0), ValueError, r"each at least 1"),
    ],
)  # fmt: skip
def test_misuse(module, shape, error, message):
    with pytest.raises(error, match=message):
        st.from_torch(module(), shape)


def normalized():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    ).eval()


@pytest.mark.filterwarnings("ignore:Sequential. batch normalization is folded")
@pytest.mark.parametrize("make, parts", [(small, [0]), (normalized, [0, 1])])
def test_layers_that_need_no_gradients_are_frozen(make, parts):
    module = make()
    assert st.from_torch(module, (1, 8, 8)).frozen == ()
    for part in parts:
        module[part].requires_grad_(False)
    net = st.from_torch(module, (1, 8, 8))
    assert net.frozen == ("conv1",)
    module.requires_grad_(False)
    assert st.to_torch(st.plan(net, multipliers=20).golden(), module) is module


def test_a_layer_is_frozen_as_a_whole():
    module = small()
    module[0].weight.requires_grad_(False)
    found = "False for 0.weight, True for 0.bias"
    instead = "the same for all parameters of a layer and its batch norm"
    assert refused(module) == [("0", "Conv", "requires_grad", found, instead)]


def test_a_frozen_layer_with_a_trained_batch_norm():
    module = normalized()
    module[0].requires_grad_(False)
    [(node, operator, attribute, found, _)] = refused(module)
    assert (node, operator, attribute) == ("0", "Conv", "requires_grad")
    assert found == "False for 0.weight, False for 0.bias, True for 1.weight, True for 1.bias"


def test_nothing_left_to_train():
    [(*_, found, _)] = refused(small().requires_grad_(False))
    assert found.startswith("All layers with weights (conv1, linear1) are frozen")


def test_wrong_trainers_change_nothing():
    other = Network(
        (1, 8, 8), [st.Conv2d(5, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(3)]
    )
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"^Weights have conv1.weight of \(5, 1, 3, 3\)"):
        st.to_torch(st.plan(other, multipliers=20).golden(), module)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_batch_norms_that_are_trained_go_another_way():
    net = Network((1, 8, 8), [st.Conv2d(4, 3), st.BatchNorm2d(), st.ReLU(), st.Flatten(), st.Linear(3)])
    trainer = st.plan(net, core="unified", numbers="bf16", lanes=4, progress=False).golden()
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(256, 3),
    ).eval()  # fmt: skip
    with pytest.raises(ValueError, match=r"^norm1 is trained, .* module.load_state_dict\("):
        st.to_torch(trainer, module)


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments):
        if name == "torch":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'streamtrain\[torch\]'"):
        st.from_torch(None, (1, 8, 8))


def test_layers_that_do_not_change_keep_their_parameters():
    torch.manual_seed(2)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(12, 2)
    )
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    net = st.from_torch(module, (1, 4, 4)).freeze("conv1")
    trainer = st.plan(net, multipliers=4).golden()
    st.to_torch(trainer, module)  # nothing is trained yet
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    trainer.step(np.ones((1, 1, 4, 4)), np.array([1]))
    st.to_torch(trainer, module)
    after = module.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])
