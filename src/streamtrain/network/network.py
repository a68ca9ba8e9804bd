"""A network: layers in a row, with the shapes between them."""

from collections import Counter
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from math import prod
from operator import index

import numpy as np

from streamtrain.network.layers import SGD, CrossEntropy, Layer, Loss, ShapeError
from streamtrain.network.weights import Weights
from streamtrain.records import Record

__all__ = ["Network", "check_layer_names", "network_text"]

_LETTERS = {"norm": "N", "pool": "P"}  # of layers behind one with weights


@dataclass(frozen=True)
class Network(Record):
    """What is trained: a chain of layers from one sample to the scores of its classes.

    Parameters
    ----------
    input_shape : (channels, rows, columns)
        Shape of one sample.
    layers : sequence of :class:`Layer`
        From the input to the logits. Unnamed layers are named by kind and number, such as ``conv1``.
    loss : :class:`CrossEntropy`, :class:`MSELoss` or :class:`SquaredHinge`
    optimizer : :class:`SGD`
    seed : :class:`int`
        Of the weights' initial values.
    weights : dict of arrays, optional
        The weights that training starts with, instead of random ones: named and shaped as
        :meth:`initial_weights` has them, finite, all of them. Kept as :class:`Weights`.

    Raises
    ------
    ShapeError
        If a layer cannot take the shape that reaches it.
    ValueError
        If two layers share a name, there is nothing to train, or the weights are not this network's.
    """

    input_shape: tuple
    layers: tuple
    loss: Loss = CrossEntropy()
    optimizer: SGD = SGD()
    seed: int = 0
    weights: Weights | None = None

    def __post_init__(self):
        try:
            shape = tuple(index(size) for size in self.input_shape)
        except TypeError:
            raise TypeError(
                f"Input shape must be three integers, not {self.input_shape!r}"
            ) from None
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(
                f"Input shape must be (channels, rows, columns), each at least 1, "
                f"not {self.input_shape!r}"
            )
        if not isinstance(self.loss, Loss):
            raise TypeError(
                f"Loss must be CrossEntropy(), MSELoss() or SquaredHinge(), not {self.loss!r}"
            )
        if not isinstance(self.optimizer, SGD):
            raise TypeError(f"Optimizer must be SGD(lr), not {self.optimizer!r}")
        object.__setattr__(self, "input_shape", shape)
        object.__setattr__(self, "seed", index(self.seed))
        object.__setattr__(self, "layers", self._named(self.layers))
        if not self.layers:
            raise ValueError("A network needs at least one layer")

        shapes = self.shapes
        if len(shapes[-1]) != 1:
            classes = prod(shapes[-1])
            raise ShapeError(
                f"The last layer ({self.layers[-1].name}) gives a map {shapes[-1]}, but the loss "
                f"takes a vector of class scores; add Flatten ({classes} classes) or Linear"
            )
        weighted = self._weighted
        if not weighted:
            raise ValueError("The network has no Conv2d or Linear layer, so nothing to train")
        if not any(layer.trainable for layer in weighted):
            names = ", ".join(layer.name for layer in weighted)
            raise ValueError(
                f"All layers with weights ({names}) are frozen, so nothing is left to train; "
                f"leave one of them trainable (a pipeline that trains is what is generated here)"
            )
        if shapes[-1][0] < 2:
            raise ValueError(
                f"The last layer ({self.layers[-1].name}) gives 1 score; "
                f"{self.loss.title} needs at least 2 classes"
            )
        if self.weights is not None:
            object.__setattr__(self, "weights", self._checked(self.weights))

    def _checked(self, weights):
        if isinstance(weights, dict):
            weights = Weights.of(weights)
        if not isinstance(weights, Weights):
            raise TypeError(f"Weights must be a dictionary of arrays, not {weights!r}")
        given = dict(zip(weights.names, weights.shapes, strict=True))
        expected = {name: value.shape for name, value in self.initial_weights(self.seed).items()}
        for name, shape in expected.items():
            if name not in given:
                raise ValueError(f"Weights lack {name} {shape}")
            if given[name] != shape:
                raise ValueError(f"Weights have {name} of {given[name]}, but it must be {shape}")
        unknown = [name for name in given if name not in expected]
        if unknown:
            raise ValueError(f"Weights have {unknown[0]}, but the network has {', '.join(expected)}")
        return weights

    def _named(self, layers):
        counts, taken, named = Counter(), set(), []
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Layer {position} must be a layer such as Conv2d, not {layer!r}")
            counts[layer.stem] += 1
            name = layer.name
            if name is None:
                name = f"{layer.stem}{counts[layer.stem]}"
                layer = replace(layer, name=name)
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"Layer name must be an identifier, not {name!r}")
            if name in taken:
                raise ValueError(f"Two layers are named {name!r}")
            taken.add(name)
            named.append(layer)
        return tuple(named)

    @property
    def _weighted(self):
        return [
            layer
            for layer, shape in zip(self.layers, self.shapes, strict=False)
            if layer.weight_shape(shape)
        ]

    def freeze(self, *names):
        """This network with layers frozen: their weights stay as they are, as in ``requires_grad_(False)``.

        Parameters
        ----------
        names : :class:`str`
            Layers with weights. Those that are frozen already remain so.

        Returns a :class:`Network`.

        Raises
        ------
        ValueError
            If a name is not that of a layer with weights, or no layer is left to train.
        """
        check_layer_names(names, [layer.name for layer in self._weighted])
        layers = (
            replace(layer, trainable=False) if layer.name in names else layer
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))

    @property
    def frozen(self):
        """Names of the layers with weights that are not trained."""
        return tuple(layer.name for layer in self._weighted if not layer.trainable)

    @cached_property
    def shapes(self):
        """Shape of one sample before each layer, and after the last one."""
        shapes = [self.input_shape]
        for layer in self.layers:
            shapes.append(layer.output_shape(shapes[-1]))
        return tuple(shapes)

    @property
    def classes(self):
        """Number of class scores at the end."""
        return self.shapes[-1][0]

    def input_of(self, name):
        """Shape that reaches the layer ``name``."""
        for layer, shape in zip(self.layers, self.shapes, strict=False):
            if layer.name == name:
                return shape
        raise KeyError(name)

    def initial_weights(self, seed=None):
        """What training starts with.

        That is the network's own ``weights``, if it has some and no ``seed`` is given; else random
        values, as layers have them.

        Returns a dictionary of float64 arrays, ``"conv1.weight"`` shaped (out, in, rows, columns)
        or (out, in), and ``"conv1.bias"`` shaped (out,): PyTorch's names and shapes.
        """
        if self.weights is not None and seed is None:
            return self.weights.arrays()
        rng = np.random.default_rng(self.seed if seed is None else seed)
        weights = {}
        for layer, shape in zip(self.layers, self.shapes, strict=False):
            for name, tensor in layer.tensors(shape, rng).items():
                weights[f"{layer.name}.{name}"] = tensor
        return weights

    @property
    def macs(self):
        """Multiply-accumulates of one forward pass, by layer name (padding counted)."""
        macs = {}
        for layer, shape, out in zip(self.layers, self.shapes, self.shapes[1:], strict=False):
            size = layer.weight_shape(shape)
            if size is not None:
                macs[layer.name] = prod(size) * prod(out[1:])
        return macs

    @property
    def training_macs(self):
        """Multiply-accumulates of one training step.

        FP of all layers, WU of those that are trained, and BP of those behind the first of these.
        """
        total, learning = 0, False
        for layer, macs in zip(self._weighted, self.macs.values(), strict=True):
            total += macs * (1 + learning + layer.trainable)
            learning |= layer.trainable
        return total

    def table(self):
        """Header and rows of a summary: layer, kind, output shape, weights, MACs."""
        macs = self.macs
        rows: list[tuple] = [("input", "", "x".join(map(str, self.input_shape)), "", "")]
        for layer, shape, out in zip(self.layers, self.shapes, self.shapes[1:], strict=False):
            size = layer.weight_shape(shape)
            weights = prod(size) + (size[0] if layer.bias else 0) if size else ""
            if layer.stem == "norm":
                weights = 2 * shape[0]
            frozen = size is not None and not layer.trainable
            rows.append((
                layer.name,
                type(layer).__name__ + (", frozen" if frozen else ""),
                "x".join(map(str, out)),
                weights,
                macs.get(layer.name, ""),
            ))
        return ("layer", "kind", "output", "weights", "MACs"), rows

    def _repr_html_(self):
        from streamtrain.tables import html_table

        return html_table(*self.table())


def check_layer_names(names, known):
    """Raise :exc:`ValueError`, with the nearest name, if one of ``names`` is not ``known``."""
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"No layer with weights is named {name!r}{hint}; there are {', '.join(known)}"
            )


def network_text(network):
    """A network in a line, such as ``8P-16P-FC10 on 1x8x8``.

    A convolution is its number of output channels, with ``k1`` or ``k5`` after it where the kernel
    is not 3x3, and ``s2`` where the stride is not 1; ``N`` is a batch norm, ``P`` a pool
    and ``FC`` a fully connected layer.
    """
    parts = []
    for layer in network.layers:
        if layer.stem == "conv":
            kernel = f"k{layer.kernel}" if layer.kernel != 3 else ""
            stride = f"s{layer.stride}" if layer.stride != 1 else ""
            parts.append(f"{layer.channels}{kernel}{stride}")
        elif layer.stem in _LETTERS and parts:
            parts[-1] += _LETTERS[layer.stem]
        elif layer.stem == "linear":
            parts.append(f"FC{layer.features}")
    return f"{'-'.join(parts)} on {'x'.join(map(str, network.input_shape))}"
