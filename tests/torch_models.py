"""Models that PyTorch users have, with what their import is expected to be."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

SHAPES = {"M": (1, 28, 28), "E": (1, 28, 28), "C": (3, 32, 32), "X": (3, 32, 32)}
TEXTS = {
    "M": "8P-16P-32P-FC10",
    "E": "16P-32P-FC64-FC10",
    "C": "8P-16P-32P-64P-64-FC10",
    "X": "16-16P-32-32P-64-64P-FC10",
}


class Functional(nn.Module):
    """What matters is in ``forward``."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding="same")
        self.second = nn.Conv2d(4, 6, 3, padding=2, bias=False)
        self.out = nn.Linear(6 * 2 * 2, 5)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = nn.functional.max_pool2d(self.second(x), 2).relu()
        x = self.dropout(x.view(x.size(0), -1))
        return nn.functional.log_softmax(self.out(x), dim=1)


def sequential(shape, text):
    """As the short names of the benchmarks say."""
    channels, rows, cols = shape
    modules, size = [], None
    for part in text.split("-"):
        if part.startswith("FC"):
            if size is None:
                modules.append(nn.Flatten())
                size = channels * rows * cols
            features = int(part.removeprefix("FC"))
            modules += [nn.Linear(size, features), nn.ReLU()]
            size = features
        else:
            out = int(part.removesuffix("P"))
            modules += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
            if part.endswith("P"):
                modules.append(nn.MaxPool2d(2))
                rows, cols = rows // 2, cols // 2
    return nn.Sequential(*modules[:-1])


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


def all_convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 5), nn.ReLU(),
        nn.Conv2d(12, 4, 1), nn.Flatten(),
    )  # fmt: skip


def bottlenecks():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 4, 1), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 12, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12 * 16, 6),
    )  # fmt: skip


def normalized():
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip
    for module in net:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.6, 1.4)
                nn.init.uniform_(module.bias, -0.2, 0.2)
    return net


@dataclass
class Model:
    """A module in evaluation mode, and the shape of its samples."""

    module: nn.Module
    shape: tuple

    def samples(self, count, seed=0):
        return np.random.default_rng(seed).uniform(0, 1, (count, *self.shape)).astype(np.float32)


BUILDERS = {
    "LeNet-5": ((1, 28, 28), lenet),
    **{
        f"net {name}": (SHAPES[name], lambda n=name: sequential(SHAPES[n], TEXTS[n]))
        for name in "EMCX"
    },
    "all convolutional": ((3, 9, 9), all_convolutional),
    "bottlenecks": ((3, 8, 8), bottlenecks),
    "batch norm": ((2, 8, 8), normalized),
    "functional": ((2, 7, 7), Functional),
}


def build(name):
    """A :class:`Model` with weights from a fixed seed, of about the size that training gives."""
    shape, builder = BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        module = builder()
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return Model(module.eval(), shape)
