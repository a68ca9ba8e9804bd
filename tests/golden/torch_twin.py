"""A network in PyTorch, to compare the float twin with."""

import torch

from streamtrain.network import (
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    SquaredHinge,
)

__all__ = ["LOSSES", "real_weights", "torch_model"]


def real_weights(golden):
    """The twin's weights as real numbers."""
    stored = {stage.name: stage.stored for stage in golden.plan.stages}
    return {name: stored[name.split(".")[0]].decode(w) for name, w in golden.read_weights().items()}


def torch_model(network):
    """The network in PyTorch, and its tensors by our names."""
    modules, tensors = [], {}
    initial = network.initial_weights()
    for layer, shape in zip(network.layers, network.shapes, strict=False):
        match layer:
            case Conv2d():
                module = torch.nn.Conv2d(
                    shape[0], layer.channels, layer.kernel, padding=layer.pad, bias=layer.bias
                )
            case Linear():
                module = torch.nn.Linear(shape[0], layer.features, bias=layer.bias)
            case MaxPool2d():
                module = torch.nn.MaxPool2d(2)
            case ReLU():
                module = torch.nn.ReLU()
            case Flatten():
                module = torch.nn.Flatten()
        module = module.double()
        for kind, tensor in module.named_parameters():
            name = f"{layer.name}.{kind}"
            tensor.data = torch.tensor(initial[name])
            tensors[name] = tensor
        modules.append(module)
    return torch.nn.Sequential(*modules), tensors


def cross_entropy(scores, labels):
    return torch.nn.functional.cross_entropy(scores, labels, reduction="none")


def mse(scores, labels):
    targets = torch.nn.functional.one_hot(labels, scores.shape[1]).double()
    return torch.stack([torch.nn.MSELoss()(z, t) for z, t in zip(scores, targets, strict=True)])


def squared_hinge(scores, labels):
    targets = 2 * torch.nn.functional.one_hot(labels, scores.shape[1]).double() - 1
    return (torch.clamp(1 - targets * scores, min=0) ** 2).mean(dim=1)


LOSSES = {CrossEntropy(): cross_entropy, MSELoss(): mse, SquaredHinge(): squared_hinge}
