"""The five nets that streamtrain is measured with, and the foldings that they are measured on.

A convolution is 3x3 with padding "same", has ReLU behind it, and "P" is 2x2 max-pooling, which
floors odd maps. Linear layers have ReLU between them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import streamtrain as st

__all__ = ["BOARD", "DATA", "NETS", "Net", "convolutional", "images"]

BOARD = "zynq7100"
"""The board that every net fits on, with 2,020 DSP slices."""

DATA = Path(os.environ.get("STREAMTRAIN_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""Folder with the data sets; ``STREAMTRAIN_DATA`` names another one."""

_FOLDERS = {"mnist": "mnist", "cifar10": "cifar-10-batches-bin", "svhn": "svhn"}


def convolutional(input_shape, text, *, lr, seed=0):
    """A network by its short name.

    Parameters
    ----------
    input_shape : (channels, rows, columns)
    text : :class:`str`
        Such as ``"8P-16P-FC64-FC10"``: channels of each convolution, with P for a pool behind it,
        then features of each linear layer.
    lr : :class:`float`
    seed : :class:`int`
        Of the first weights.

    Returns a :class:`~streamtrain.network.Network`.
    """
    layers, flat = [], False
    for part in text.split("-"):
        if part.startswith("FC"):
            layers += [] if flat else [st.Flatten()]
            flat = True
            layers += [st.Linear(int(part.removeprefix("FC"))), st.ReLU()]
        else:
            layers += [st.Conv2d(int(part.removesuffix("P")), 3), st.ReLU()]
            layers += [st.MaxPool2d(2)] * part.endswith("P")
    return st.Network(input_shape, layers[:-1], optimizer=st.SGD(lr), seed=seed)


@dataclass(frozen=True)
class Net:
    """A net of the benchmarks.

    Parameters
    ----------
    name, title : :class:`str`
        One letter, and what the net is for.
    input_shape : (channels, rows, columns)
    text : :class:`str`
        As :func:`convolutional` takes it.
    lr : :class:`float`
    data : :class:`str`
        Kind of its images, a key of :func:`streamtrain.data.load`.
    foldings : tuple of (Pm, Pn, Pk), or :class:`int`
        Of each layer with weights; or the number of multipliers to look for foldings with.
    most_cycles : :class:`int`, optional
        The goal for a training step at batch 1.
    least_saving : :class:`float`, optional
        The goal for mini-batches of 16: part of the cycles of batch 1 that they save.
    golden_speed : (golden, torch), optional
        Samples/s of an integer simulator and of PyTorch at batch 1, as they were once measured on
        one machine. Half their ratio is the goal for the golden model.
    """

    name: str
    title: str
    input_shape: tuple
    text: str
    lr: float
    data: str
    foldings: tuple | int
    most_cycles: int | None = None
    least_saving: float | None = None
    golden_speed: tuple | None = None

    def network(self, seed=0):
        """Its :class:`~streamtrain.network.Network`; ``seed`` is that of the first weights."""
        return convolutional(self.input_shape, self.text, lr=self.lr, seed=seed)

    def design(self, *, seed=0, max_batch=1, in_flight=2):
        """Its :class:`~streamtrain.design.Design` on :data:`BOARD`."""
        network = self.network(seed)
        if isinstance(self.foldings, int):
            share = {"multipliers": self.foldings}
        else:
            share = {"foldings": dict(zip(network.macs, self.foldings, strict=True))}
        return st.plan(network, BOARD, max_batch=max_batch, in_flight=in_flight, **share)


NETS = {
    net.name: net
    for net in (
        Net(
            "M", "MNIST", (1, 28, 28), "8P-16P-32P-FC10", 2**-7, "mnist",
            ((8, 1, 9), (4, 8, 9), (8, 4, 9), (2, 24, 1)),
            most_cycles=3600, least_saving=0.10, golden_speed=(7582, 2933),
        ),
        Net(
            "S", "SVHN", (3, 32, 32), "8P-16P-32P-64P-FC10", 2**-8, "svhn",
            ((8, 3, 9), (16, 8, 3), (4, 8, 9), (16, 2, 9), (2, 32, 1)),
            most_cycles=5000,
        ),
        Net(
            "C", "CIFAR", (3, 32, 32), "8P-16P-32P-64P-64-FC10", 2**-8, "cifar10",
            ((8, 3, 9), (16, 2, 9), (16, 16, 1), (16, 16, 1), (8, 8, 3), (5, 8, 1)),
            most_cycles=7800, least_saving=0.20, golden_speed=(3110, 1722),
        ),
        Net(
            "E", "ES-FL", (1, 28, 28), "16P-32P-FC64-FC10", 2**-7, "mnist",
            ((8, 1, 9), (32, 16, 1), (8, 16, 1), (2, 4, 1)),
            most_cycles=6600, golden_speed=(3506, 2391),
        ),
        Net(
            "X", "1X", (3, 32, 32), "16-16P-32-32P-64-64P-FC10", 2**-8, "cifar10",
            1610,
            golden_speed=(580, 694),
        ),
    )
}  # fmt: skip
"""The nets, by name."""


def images(net, folder=None):
    """Images for a net.

    Parameters
    ----------
    net : :class:`Net`
    folder : path, optional
        Where the data sets are. Without it, :data:`DATA` if it is there, and random images if not.

    Returns a :class:`~streamtrain.data.Dataset`.
    """
    if net.data == "digits":
        return st.data.load("digits")
    if folder is None and not DATA.is_dir():
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (1000, *net.input_shape), np.uint8)
        y = rng.integers(0, net.network().classes, len(x))
        return st.data.Dataset("random images", x[:800], y[:800], x[800:], y[800:])
    return st.data.load(f"{net.data}:{Path(folder or DATA) / _FOLDERS[net.data]}")
