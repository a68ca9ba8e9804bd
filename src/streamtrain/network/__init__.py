"""What is trained: layers, their order and shapes, the loss, the optimiser."""

from streamtrain.network.layers import (
    SGD,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    MSELoss,
    ReLU,
    ShapeError,
    SquaredHinge,
)
from streamtrain.network.network import Network, check_layer_names, network_text
from streamtrain.network.onnx_file import from_onnx, to_onnx
from streamtrain.network.support import support_table
from streamtrain.network.torch_module import from_torch, to_torch
from streamtrain.network.verdict import ModelError, Problem
from streamtrain.network.weights import Weights

__all__ = [
    "SGD",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropy",
    "Flatten",
    "Layer",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "ModelError",
    "Network",
    "Problem",
    "ReLU",
    "ShapeError",
    "SquaredHinge",
    "Weights",
    "check_layer_names",
    "from_onnx",
    "from_torch",
    "network_text",
    "support_table",
    "to_onnx",
    "to_torch",
]
