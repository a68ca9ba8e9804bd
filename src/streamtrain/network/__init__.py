"""What is trained: layers, their order and shapes, the loss, the optimiser."""

from streamtrain.network.layers import (
    SGD,
    Conv2d,
    CrossEntropy,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    ShapeError,
)
from streamtrain.network.network import Network, network_text

__all__ = [
    "SGD",
    "Conv2d",
    "CrossEntropy",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Network",
    "ReLU",
    "ShapeError",
    "network_text",
]
