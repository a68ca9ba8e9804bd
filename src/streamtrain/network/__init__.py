"""What is trained: layers, their order and shapes, the loss, the optimiser."""

from streamtrain.network.layers import (
    SGD,
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
from streamtrain.network.network import Network, network_text

__all__ = [
    "SGD",
    "Conv2d",
    "CrossEntropy",
    "Flatten",
    "Layer",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Network",
    "ReLU",
    "ShapeError",
    "SquaredHinge",
    "network_text",
]
