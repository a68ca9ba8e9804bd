"""The layers, losses and optimisers that a network can be described with."""

from dataclasses import dataclass
from math import inf, prod
from numbers import Real
from operator import index
from typing import ClassVar

import numpy as np

from streamtrain.records import Record

__all__ = [
    "KERNELS",
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
    "ReLU",
    "ShapeError",
    "SquaredHinge",
]

KERNELS = (1, 3, 5, 7, 9, 11)
"""Rows and columns that the kernel of a :class:`Conv2d` may have."""


class ShapeError(ValueError):
    """A layer cannot take the shape that reaches it."""


def _size(record, field, low=1):
    value = getattr(record, field)
    try:
        value = index(value)
    except TypeError:
        raise TypeError(
            f"{type(record).__name__} {field} must be an integer, not {value!r}"
        ) from None
    if value < low:
        raise ValueError(f"{type(record).__name__} {field} must be at least {low}, not {value!r}")
    object.__setattr__(record, field, value)


def _flag(record, field):
    value = getattr(record, field)
    if not isinstance(value, bool):
        raise TypeError(f"{type(record).__name__} {field} must be True or False, not {value!r}")


def _map_shape(layer, shape):
    if len(shape) != 3:
        raise ShapeError(
            f"{layer.name} takes a map (channels, rows, columns), but gets {shape}; "
            f"put it before Flatten, or use Linear"
        )
    return shape


def _random(layer, shape, rng):
    """He weights (normal, variance 2 / fan-in), zero biases.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015, equation 10.
    """
    size = layer.weight_shape(shape)
    tensors = {"weight": rng.normal(0, np.sqrt(2 / prod(size[1:])), size)}
    return tensors | {"bias": np.zeros(size[0])} if layer.bias else tensors


class Layer(Record):
    """Base of the layers. A layer maps the shape of one sample to another, without a batch axis."""

    #: Stem of the names that :class:`Network` gives to unnamed layers.
    stem: ClassVar[str] = ""
    name: str | None

    def output_shape(self, shape):
        """Shape of the output for an input of ``shape``. Raises :exc:`ShapeError`."""
        raise NotImplementedError

    def weight_shape(self, shape) -> tuple[int, ...] | None:
        """Shape of the weight tensor for an input of ``shape``; None without weights."""
        return None

    def tensors(self, shape, rng):
        """What training starts with, for an input of ``shape``: arrays by PyTorch's names."""
        return {}


@dataclass(frozen=True)
class Conv2d(Layer):
    """Convolution, as PyTorch defines it (a cross-correlation).

    The unified core takes all of them; the streaming core those with a kernel of 1, 3 or 5 and stride 1.

    Parameters
    ----------
    channels : :class:`int`
        Output channels.
    kernel : :class:`int`
        Rows and columns of the square kernel: an odd number up to 11.
    padding : ``"same"``, ``"valid"`` or :class:`int`
        Zeros around the map, less than ``kernel``. ``"same"`` is half a kernel: with stride 1, the map keeps
        its size.
    bias : :class:`bool`
    name : :class:`str`, optional
    trainable : :class:`bool`
        Whether its weights are trained. A frozen layer gets no hardware to change them.
    stride : :class:`int`
        Rows and columns from one window to the next, at most ``kernel``.
    """

    channels: int
    kernel: int
    padding: str | int = "same"
    bias: bool = True
    name: str | None = None
    trainable: bool = True
    stride: int = 1

    stem: ClassVar[str] = "conv"

    def __post_init__(self):
        _size(self, "channels")
        _size(self, "kernel")
        _size(self, "stride")
        _flag(self, "trainable")
        if self.kernel not in KERNELS:
            raise ValueError(f"Conv2d kernel must be 1, 3, 5, 7, 9 or 11, not {self.kernel!r}")
        if self.stride > self.kernel:
            raise ValueError(
                f"Conv2d stride must be at most the kernel ({self.kernel}), not {self.stride!r}"
            )
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(
                    f'Conv2d padding must be "same", "valid" or a number, not {self.padding!r}'
                )
        else:
            _size(self, "padding", 0)
            if self.padding >= self.kernel:
                raise ValueError(
                    f"Conv2d padding must be less than the kernel ({self.kernel}), "
                    f"not {self.padding!r}"
                )

    @property
    def pad(self):
        """Zeros on each side of the map."""
        if self.padding == "same":
            return self.kernel // 2
        return 0 if self.padding == "valid" else self.padding

    def output_shape(self, shape):
        _, rows, cols = _map_shape(self, shape)
        grown = (rows + 2 * self.pad, cols + 2 * self.pad)
        if min(grown) < self.kernel:
            raise ShapeError(
                f"{self.name}: a {self.kernel}x{self.kernel} kernel does not fit a "
                f"{rows}x{cols} map padded to {grown[0]}x{grown[1]}; "
                f"use a kernel of {max(k for k in KERNELS if k <= min(grown))} or padding 'same'"
            )
        rows, cols = ((size - self.kernel) // self.stride + 1 for size in grown)
        return (self.channels, rows, cols)

    def weight_shape(self, shape):
        return (self.channels, shape[0], self.kernel, self.kernel)

    def tensors(self, shape, rng):
        return _random(self, shape, rng)


@dataclass(frozen=True)
class BatchNorm2d(Layer):
    """Batch normalization, as PyTorch defines it, directly behind a :class:`Conv2d`.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, for each channel. In training, mean and variance are
    those of the mini-batch, over images, rows and columns; the running ones follow, with which is evaluated:
    ``running <- (1 - momentum) * running + momentum * own``, where the own variance is the unbiased one.

    Only the unified core takes it, in floating point.

    Source: Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015, algorithms 1 and 2.

    Parameters
    ----------
    eps : :class:`float`
        Above 0.
    momentum : :class:`float`
        0 to 1.
    name : :class:`str`, optional
    """

    eps: float = 1e-5
    momentum: float = 0.1
    name: str | None = None

    stem: ClassVar[str] = "norm"

    def __post_init__(self):
        for field in ("eps", "momentum"):
            value = getattr(self, field)
            if not isinstance(value, Real) or isinstance(value, bool):
                raise TypeError(f"BatchNorm2d {field} must be a number, not {value!r}")
            object.__setattr__(self, field, float(value))
        if not 0 < self.eps < inf:
            raise ValueError(f"BatchNorm2d eps must be more than 0, not {self.eps!r}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"BatchNorm2d momentum must be 0 to 1, not {self.momentum!r}")

    def output_shape(self, shape):
        return _map_shape(self, shape)

    def tensors(self, shape, rng):
        zeros, ones = np.zeros(shape[0]), np.ones(shape[0])
        return {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}


@dataclass(frozen=True)
class ReLU(Layer):
    """``max(x, 0)``; its gradient at 0 is 0."""

    name: str | None = None

    stem: ClassVar[str] = "relu"

    def output_shape(self, shape):
        return shape


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """Largest of each 2x2 square; an odd last row or column is dropped, as in PyTorch."""

    kernel: int = 2
    name: str | None = None

    stem: ClassVar[str] = "pool"

    def __post_init__(self):
        _size(self, "kernel")
        if self.kernel != 2:
            raise ValueError(f"MaxPool2d kernel must be 2, not {self.kernel!r}")

    def output_shape(self, shape):
        channels, rows, cols = _map_shape(self, shape)
        if min(rows, cols) < self.kernel:
            raise ShapeError(
                f"{self.name}: a {rows}x{cols} map is smaller than the 2x2 pool; "
                f"drop this layer, or pad the convolution before it"
            )
        return (channels, rows // 2, cols // 2)


@dataclass(frozen=True)
class Flatten(Layer):
    """A map as one vector, in PyTorch's order: channels outermost, columns innermost."""

    name: str | None = None

    stem: ClassVar[str] = "flatten"

    def output_shape(self, shape):
        channels, rows, cols = _map_shape(self, shape)
        return (channels * rows * cols,)


@dataclass(frozen=True)
class Linear(Layer):
    """Fully connected layer.

    Parameters
    ----------
    features : :class:`int`
        Output features.
    bias : :class:`bool`
    name : :class:`str`, optional
    trainable : :class:`bool`
        Whether its weights are trained. A frozen layer gets no hardware to change them.
    """

    features: int
    bias: bool = True
    name: str | None = None
    trainable: bool = True

    stem: ClassVar[str] = "linear"

    def __post_init__(self):
        _size(self, "features")
        _flag(self, "trainable")

    def output_shape(self, shape):
        if len(shape) != 1:
            raise ShapeError(f"{self.name} takes a vector, but gets {shape}; put Flatten before it")
        return (self.features,)

    def weight_shape(self, shape):
        return (self.features, shape[0])

    def tensors(self, shape, rng):
        return _random(self, shape, rng)


class Loss(Record):
    """Base of the losses: how far the scores ``z`` of n classes are from a sample's class."""

    #: What it is called in reports.
    title: ClassVar[str] = ""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy of the logits with a class index, natural logarithm."""

    title: ClassVar[str] = "cross-entropy"


@dataclass(frozen=True)
class MSELoss(Loss):
    """Mean squared error: the mean over the classes of ``(z - t)**2``.

    The target ``t`` is 1 for the sample's class and 0 for the others. The gradient is
    ``2 / n * (z - t)``, as of ``torch.nn.MSELoss()`` on one sample.
    """

    title: ClassVar[str] = "squared error"


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """Squared hinge, one class against the others: the mean of ``max(0, 1 - t * z)**2``.

    The target ``t`` is 1 for the sample's class and -1 for the others. The gradient is
    ``-2 / n * t * max(0, 1 - t * z)``: scores beyond their margin are left alone.

    Source: Tang, "Deep learning using linear support vector machines", ICML 2013 workshop,
    equations 5 and 11 (L2-SVM). There it is the sum over the classes; the mean keeps errors and
    learning rates alike, whatever the number of classes.
    """

    title: ClassVar[str] = "squared hinge"


@dataclass(frozen=True)
class SGD(Record):
    """Stochastic gradient descent, with what PyTorch's ``SGD`` and ``clip_grad_value_`` may add to it.

    ======================================  ================================================
    ``g <- mean over the mini-batch``       of dL/dw
    ``g <- max(-clip, min(g, clip))``       if there is a ``clip``
    ``g <- g + weight_decay * w``           if there is ``weight_decay``
    ``v <- momentum * v + lr * g``          if there is ``momentum``; else ``v = lr * g``
    ``w <- w - v``
    ======================================  ================================================

    The learning rate is inside the velocity. While it stays the same, that is PyTorch's SGD; when it
    changes, what the velocity holds keeps the rate that it came with.

    Hardware has room only for what is asked for here. The values can be changed between samples,
    within the ranges that the plan states.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013, equations 1 and 2.

    Parameters
    ----------
    lr : :class:`float`
        Learning rate to start with.
    momentum : :class:`float`
        0 to less than 1.
    weight_decay : :class:`float`
        0 or more; of biases, too.
    clip : :class:`float`, optional
        Largest magnitude of each element of the mean gradient.

    Raises
    ------
    TypeError, ValueError
        If a value is no number, or out of its range.
    """

    lr: float = 2**-7
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self):
        given = {name: getattr(self, name) for name in ("lr", "momentum", "weight_decay", "clip")}
        if self.clip is None:
            del given["clip"]
        for name, value in given.items():
            if not isinstance(value, Real) or isinstance(value, bool):
                raise TypeError(f"SGD {name} must be a number, not {value!r}")
        if not 0 < self.lr < 1:
            raise ValueError(f"SGD lr must be between 0 and 1, not {self.lr!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"SGD momentum must be at least 0 and below 1, not {self.momentum!r}")
        if not 0 <= self.weight_decay < inf:
            raise ValueError(f"SGD weight_decay must be 0 or more, not {self.weight_decay!r}")
        if self.clip is not None and not 0 < self.clip < inf:
            raise ValueError(f"SGD clip must be more than 0, or None, not {self.clip!r}")
        for name, value in given.items():
            object.__setattr__(self, name, float(value))

    @property
    def terms(self):
        """What is added to a gradient, in the order of its addition."""
        found = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return tuple(name for name, value in found.items() if value)
