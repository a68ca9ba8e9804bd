"""Models exported by PyTorch, imported, compared with PyTorch, trained, and written back."""

import copy
import logging
import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch_models import BUILDERS, build

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.golden.rounding import rounding_of_step
from streamtrain.host.device import Commands
from streamtrain.pipeline.plan import lower

NUMBERS = st.Numbers(
    weights="fixed<18,3>",
    master="fixed<20,3>",
    activations="fixed<18,5>",
    logits="fixed<18,6>",
    errors="fixed<18,2>",
)
LABEL = 1


def export(module, shape, path, **options):
    """As PyTorch's users do, with less to read."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about itself
        torch.onnx.export(
            module, (torch.zeros(1, *shape),), path, dynamo=True, verbose=False, **options
        )


@pytest.fixture(scope="module", params=BUILDERS)
def case(request, tmp_path_factory):
    """Name, model, and ONNX file of a model; the exporter folds batch norms itself unless told."""
    model = build(request.param)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(model.module, model.shape, path, optimize=request.param != "batch norm")
    return request.param, model, path


def imported(name, read):
    """The network, from a reader that warns of batch norms where there are some."""
    if name == "batch norm":
        with pytest.warns(
            UserWarning, match="batch normalization is folded into conv1, conv2, linear1"
        ):
            return read()
    return read()


def trainer_of(network, exact=True):
    plan = lower(network, lambda *layer: (1, 1, 1), NUMBERS)
    return st.Trainer(plan, Golden(plan, exact=exact))


def scores(trainer, x):
    """Class scores of samples, and the samples as they were encoded."""
    stages = trainer.plan.stages
    codes = stages[0].input.encode(x)
    none = np.zeros(len(x), int)
    results = trainer.device.run(codes, Commands(none, none, none, none, none))
    return stages[-1].output.decode(results.scores), stages[0].input.decode(codes)


def logits(name, values):
    """What is compared: a log-softmax that the loss absorbed is applied."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return (values.log_softmax(1) if name == "functional" else values).numpy()


def autograd(model, x):
    """Scores and gradients of PyTorch's own, in double precision, of the layers as imported."""
    module = copy.deepcopy(model.module).double()
    output = module(torch.tensor(x, dtype=torch.float64))
    nn.functional.cross_entropy(output, torch.tensor([LABEL])).backward()
    gradients, layers = [], []
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            layers.append([part, None])
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            layers[-1][1] = part
    for layer, norm in layers:
        weight = layer.weight.grad
        bias = None if layer.bias is None else layer.bias.grad
        if norm is not None:  # by the chain rule: what the folded layer's tensors move
            deviation = (norm.running_var + norm.eps).sqrt()
            scale = (norm.weight if norm.affine else torch.ones_like(deviation)) / deviation
            weight = weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))
            bias = norm.bias.grad if norm.affine else bias / scale
        gradients += [weight] if bias is None else [weight, bias]
    return output.detach().numpy(), [gradient.detach().numpy() for gradient in gradients]


def test_file_and_module_are_the_same_network(case):
    name, model, path = case
    before = copy.deepcopy(model.module.state_dict())
    net = imported(name, lambda: st.from_torch(model.module, model.shape))
    assert imported(name, lambda: st.from_onnx(path)).layers == net.layers
    other = imported(name, lambda: st.from_onnx(onnx.load(path))).initial_weights()
    for key, array in net.initial_weights().items():
        np.testing.assert_allclose(array, other[key], rtol=1e-6, atol=1e-6, err_msg=key)
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())


def test_twin_predicts_as_pytorch_does(case):
    name, model, _ = case
    net = imported(name, lambda: st.from_torch(model.module, model.shape))
    found, x = scores(trainer_of(net, exact=False), model.samples(3))
    with torch.no_grad():
        expected = copy.deepcopy(model.module).double()(torch.tensor(x))
    np.testing.assert_allclose(logits(name, found), expected, rtol=1e-9, atol=1e-12)


def test_a_step_is_pytorchs_within_rounding(case):
    name, model, path = case
    net = imported(name, lambda: st.from_onnx(path, optimizer=st.SGD(2**-4)))
    x = model.samples(1, seed=1)
    step = rounding_of_step(trainer_of(net).plan, x[0], LABEL)
    output, gradients = autograd(model, x)
    rtol = 1e-5 if name == "batch norm" else 1e-9  # the exporter computes some constants in float32
    np.testing.assert_allclose(logits(name, step.scores[np.newaxis]), output, rtol=rtol, atol=1e-9)
    assert len(gradients) == len(step.gradients)
    for gradient, (key, mine) in zip(gradients, step.gradients.items(), strict=True):
        np.testing.assert_allclose(
            mine, gradient, rtol=rtol, atol=rtol * abs(gradient).max(), err_msg=key
        )
    assert step.within, f"{name}\n{step}"
    norms = {row[0]: row[1] for row in step.table()[1]}
    assert step.bounds["scores"] < norms["scores"] / 10, f"the bound says little\n{step}"
    telling = [key for key, bound in step.bounds.items() if bound < norms[key] / 4]
    assert len(telling) >= len(norms) / 3, f"the bound says little\n{step}"


def test_predictions_are_pytorchs_unless_two_classes_are_within_rounding(case):
    name, model, path = case
    net = imported(name, lambda: st.from_onnx(path))
    trainer = trainer_of(net)
    x = model.samples(40)
    with torch.no_grad():
        expected = model.module(torch.tensor(x)).numpy()
    predicted = trainer.predict(x, progress=False)
    differ = np.flatnonzero(predicted != expected.argmax(axis=1))
    assert len(differ) < 4
    for i in differ:
        limit = rounding_of_step(trainer.plan, x[i], LABEL).bounds["scores"]
        assert expected[i].max() - expected[i, predicted[i]] <= 2 * limit


def test_trained_weights_go_back(case, tmp_path):
    name, model, path = case
    net = imported(name, lambda: st.from_onnx(path, optimizer=st.SGD(2**-5)))
    trainer = trainer_of(net)
    x, y = model.samples(8), np.arange(8) % net.classes
    trainer.fit(x, y, progress=False)
    trained = trainer.plan.decode_weights(trainer.state_dict())
    assert any(
        (abs(array - net.initial_weights()[key]) > 0.01).any() for key, array in trained.items()
    )

    st.to_onnx(trainer, path, tmp_path / "trained.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "trained.onnx")
    found, encoded = scores(trainer, x)
    encoded = encoded.astype(np.float32)
    feed = session.get_inputs()[0].name
    written = np.concatenate([session.run(None, {feed: encoded[i : i + 1]})[0] for i in range(8)])
    module = st.to_torch(trainer, copy.deepcopy(model.module))
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.tensor(encoded)), written, rtol=1e-4, atol=1e-4)

    exact = trainer_of(replace(net, weights=trained)).plan
    limit = rounding_of_step(exact, encoded[0], int(y[0])).bounds["scores"]
    distance = np.linalg.norm(logits(name, found[:1]) - written[0])
    assert distance <= 2 * limit + 1e-4  # a log-softmax stretches by two at most
    again = imported(name, lambda: st.from_onnx(tmp_path / "trained.onnx")).initial_weights()
    for key, array in trained.items():
        np.testing.assert_allclose(again[key], array, rtol=1e-5, atol=1e-5, err_msg=key)


def test_files_with_weights_beside_them(tmp_path):
    model = build("functional")
    export(model.module, model.shape, tmp_path / "model.onnx", external_data=True)
    assert (tmp_path / "model.onnx.data").exists()
    net = st.from_onnx(tmp_path / "model.onnx")
    assert net.weights == st.from_torch(model.module, model.shape).weights
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(st.ModelError, match=r"model\.onnx\.data") as caught:
        st.from_onnx(tmp_path / "model.onnx")
    assert {problem.operator for problem in caught.value.problems} == {"initializer"}
    with pytest.raises(st.ModelError, match="a path, or a model that holds its weights"):
        st.from_onnx((tmp_path / "model.onnx").read_bytes())
