"""From a model's graph to a :class:`Network`, and trained weights back into the graph's constants.

The graph is walked from its input. Each operator of :data:`~streamtrain.network.support.OPERATORS`
has a method here; whatever is not supported becomes a :class:`~streamtrain.network.verdict.Problem`,
and the walk goes on, so that a verdict names everything at once.
"""

from collections import deque
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from streamtrain.network.graph import Slot
from streamtrain.network.layers import (
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    ShapeError,
)
from streamtrain.network.network import Network
from streamtrain.network.support import FOLDABLE, INSTEAD, OPERATORS
from streamtrain.network.tensors import Norm, Weighted
from streamtrain.network.verdict import ModelError, Problem
from streamtrain.network.weights import Weights

__all__ = ["Imported", "convert"]

_CHAIN = "a chain of layers, each read by the next"


@dataclass
class Imported:
    """A network, and the way back into the model that it is from.

    Parameters
    ----------
    network : :class:`Network`
    layers : list
        Those with weights.
    """

    network: Network
    layers: list

    @property
    def frozen(self):
        """Layers whose batch norm is folded into them, and is frozen therefore."""
        return [layer.name for layer in self.layers if layer.norm is not None]

    def tensors(self, trainer):
        """The model's constants that training changed, by :class:`Slot`, as float32.

        A layer whose weights are still what its constants are rounded to keeps these: they are nearer
        to what the model was, frozen layers' above all.

        Parameters
        ----------
        trainer : :class:`~streamtrain.Trainer`

        Raises :exc:`ValueError` if its network is not this one.
        """
        plan, codes = trainer.plan, trainer.state_dict()
        trained = [layer.name for layer in plan.network.layers if layer.stem == "norm"]
        if trained:
            raise ValueError(
                f"{trained[0]} is trained, and models that are put back have batch norms folded into the layers before "
                f"them; trainer.state_dict() has PyTorch's names and shapes: "
                f"module.load_state_dict({{name: torch.tensor(value) for name, value in ...}})"
            )
        weights = plan.decode_weights(codes)
        checked = Network(
            self.network.input_shape, self.network.layers, weights=Weights.of(weights)
        ).initial_weights()
        tensors = {}
        for layer in self.layers:
            names = (f"{layer.name}.weight", f"{layer.name}.bias")
            own = dict(zip(names, layer.folded(), strict=True))
            own = plan.encode_weights({name: w for name, w in own.items() if name in checked})
            if any((codes[name] != w).any() for name, w in own.items()):
                tensors |= layer.unfolded(checked[names[0]], checked.get(names[1]))
        return {slot: array.astype(np.float32) for slot, array in tensors.items()}


def convert(graph, source, problems=(), *, loss, optimizer):
    """Make a network of a graph.

    Parameters
    ----------
    graph : :class:`~streamtrain.network.graph.Graph`
    source : :class:`str`
        Name of the model, for errors.
    problems : sequence of :class:`Problem`
        What was found already.
    loss, optimizer
        Of the network.

    Returns :class:`Imported`. Raises :exc:`ModelError`.
    """
    walk = _Walk(graph, loss)
    walk.problems += problems
    walk.run()
    if not walk.problems:
        weights = {}
        for layer in walk.weighted:
            weight, bias = layer.folded()
            weights[f"{layer.name}.weight"] = weight
            if bias is not None:
                weights[f"{layer.name}.bias"] = bias
        layers = tuple(walk.described(layer) for layer in walk.layers)
        try:
            network = Network(graph.shape, layers, loss, optimizer, weights=Weights.of(weights))
            return Imported(network, walk.weighted)
        except ValueError as error:
            walk.problems.append(Problem("", "", "layers", str(error), "see the message"))
    raise ModelError(source, walk.problems)


class _Walk:
    """Walks a graph from its input, and collects layers and problems."""

    def __init__(self, graph, loss):
        self.graph = graph
        self.loss = loss
        self.problems = []
        self.layers = []
        self.weighted = []  # Weighted, in order
        self.constants = dict(graph.constants)
        self.shapes = {graph.input: graph.shape}  # of a sample, by value; None if unknown
        self.readers = {}  # names of the nodes that read a value of the sample
        self.extra = set()  # outputs besides a node's first
        self.tensors = {}  # node that a weight tensor belongs to
        self.begun = False  # whether a layer with weights, or what may stand for one, was there
        self.pooled = False  # whether a pool was there since
        self.ended = None  # the softmax
        self.map_shape = graph.shape  # what was flattened

    def run(self):
        producers = self._producers()
        for position in self._order(producers):
            node = self.graph.nodes[position]
            if not self._fold(position, node):
                self._visit(position, node)
        self._check_trainable()
        self._finish(producers)

    def problem(self, node, attribute, found, instead):
        self.problems.append(Problem(node.name, node.operator, attribute, found, instead))

    # -- Structure ----------------------------------------------------------------------------------

    def _producers(self):
        """Position of the node that computes each value."""
        producers = {}
        for position, node in enumerate(self.graph.nodes):
            for name in filter(None, node.outputs):
                if name in producers or name in self.constants or name == self.graph.input:
                    self.problem(
                        node, "output", f"{name} is computed twice", "one node for each value"
                    )
                else:
                    producers[name] = position
        return producers

    def _order(self, producers):
        """Positions of the nodes, each after those that it reads; those in cycles are left out."""
        waits = []
        followers = {}
        for position, node in enumerate(self.graph.nodes):
            before = {producers[name] for name in node.inputs if name in producers}
            waits.append(len(before))
            for other in before:
                followers.setdefault(other, []).append(position)
        ready = deque(position for position, count in enumerate(waits) if not count)
        order = []
        while ready:
            order.append(ready.popleft())
            for follower in followers.get(order[-1], ()):
                waits[follower] -= 1
                if not waits[follower]:
                    ready.append(follower)
        for position, count in enumerate(waits):
            if count:
                self.problem(
                    self.graph.nodes[position], "input", "is in a cycle, or behind one", _CHAIN
                )
        return order

    def _fold(self, position, node):
        """Compute a node of constants. Returns whether it was one."""
        known = [self.constants.get(name) for name in node.inputs]
        if node.operator in ("Shape", "CastLike") and node.inputs and node.outputs:
            shape = self.shapes.get(node.inputs[-1])  # of a map, but its numbers do not matter
            if shape is not None and node.operator == "Shape":
                ends = [node.attributes.get(name) for name in ("start", "end")]
                ends = [end if type(end) is int else None for end in ends]
                sizes = (self.graph.batch, *shape)[slice(*ends)]
                self.constants[node.outputs[0]] = np.array(sizes, np.int64)
                return True
            if shape is not None:
                known[-1] = np.zeros(1, np.float32)
        if node.operator not in FOLDABLE or any(array is None for array in known):
            return False
        if self.graph.fold is None or not node.outputs:
            return False
        try:
            self.constants[node.outputs[0]] = self.graph.fold(position, known)
        except ValueError as error:
            self.problem(node, "inputs", f"cannot be computed: {error}", "a constant")
            self.graph.broken.update(node.outputs)
        return True

    def _visit(self, position, node):
        given = [name for name in node.inputs if name]
        self.extra.update(filter(None, node.outputs[1:]))
        output = node.outputs[0] if node.outputs else ""
        self.shapes[output] = None  # until it is known
        read = [name for name in given if name in self.shapes]
        for name in given:
            if name in self.extra:
                self.problem(
                    node, "input", f"{name} is no first output", "only first outputs are read"
                )
            elif not (name in self.shapes or name in self.constants or name in self.graph.broken):
                self.problem(node, "input", f"{name} is computed by no node", _CHAIN)
        for name in read:
            earlier = self.readers.setdefault(name, [])
            if earlier:
                self.problem(node, "input", f"{name} is read by {earlier[0]} as well", _CHAIN)
            earlier.append(node.name)
        if node.operator not in OPERATORS or OPERATORS[node.operator].becomes in (
            "Conv2d",
            "Linear",
        ):
            self.begun, self.pooled = True, False
        if node.operator not in OPERATORS:
            supported = ", ".join(OPERATORS)
            instead = INSTEAD.get(node.operator.rpartition(".")[2], f"one of {supported}")
            self.problem(node, "", "unsupported operator", instead)
            return
        if self.ended is not None and node.operator not in ("Identity", "Dropout"):
            self.problem(node, "", f"follows {self.ended}", f"{self.ended} at the end")
        if len(read) > 1:
            self.problem(node, "input", f"joins {' and '.join(read)}", _CHAIN)
            return
        if not read or not output:
            self.problem(node, "input", "does not depend on the model's input", _CHAIN)
            return
        if node.inputs[0] != read[0] and node.operator != "Add":
            self.problem(node, "input", f"{read[0]} is not its first input", "constant weights")
            return
        attributes = self._attributes(node)
        if attributes is None:
            return
        method = getattr(self, f"_{node.operator.lower()}")
        try:
            self.shapes[output] = method(position, node, self.shapes[read[0]], attributes)
        except ShapeError as error:
            self.problem(node, "input", str(error), "a larger map, or a smaller window")

    def _attributes(self, node):
        """Attributes by name, defaults filled in; None if one is unsupported."""
        rules = {rule.attribute: rule for rule in OPERATORS[node.operator].rules}
        values, fine = {}, True
        for name, rule in rules.items():
            value = node.attributes.get(name, rule.default)
            kind = tuple if rule.default is None else type(rule.default)
            if value is None:
                pass
            elif (
                type(value) is not kind
                or (kind is tuple and any(type(number) is not int for number in value))
                or not rule.fits(value)
            ):
                self.problem(node, name, _text(value), rule.takes)
                fine = False
            values[name] = value
        return values if fine else None

    def _trainable(self, layer):
        """Whether each tensor of a layer is trained, by name, where the model says so."""
        names = [self.graph.nodes[slot.node].inputs[slot.input] for slot in layer.slots]
        known = self.graph.trainable
        return {name: known[name] for name in names if name in known}

    def _check_trainable(self):
        for layer in self.weighted:
            flags = self._trainable(layer)
            if len(set(flags.values())) > 1:
                self.problem(
                    self.graph.nodes[layer.weight_slot.node], "requires_grad",
                    ", ".join(f"{value} for {name}" for name, value in flags.items()),
                    "the same for all parameters of a layer and its batch norm",
                )  # fmt: skip

    def _finish(self, producers):
        graph = self.graph
        if graph.output in self.constants:
            found = "does not depend on the input"
        elif graph.output not in producers:
            found = "is computed by no node"
        else:
            found = ""
        if found:
            self.problems.append(Problem(graph.output, "output", "", found, _CHAIN))
        for name, position in producers.items():
            node = graph.nodes[position]
            if name in self.shapes and name != graph.output and name not in self.readers:
                self.problem(node, "output", f"{name} leads nowhere", _CHAIN)
        if graph.output in self.readers:
            last = graph.nodes[producers[graph.output]] if graph.output in producers else None
            if last is not None:
                self.problem(last, "output", "is read after it is the model's output", _CHAIN)
        if self.problems:
            return
        shape = self.shapes[graph.output]
        scores = f"{_sizes(shape)} scores"
        if not self.weighted:
            self.problems.append(
                Problem("", "", "layers", "nothing to train", "at least one Conv or Gemm")
            )
        elif len(shape) != 1:
            self.problems.append(
                Problem(graph.output, "output", "shape", scores, "a vector: Flatten at the end")
            )
        elif self.weighted[-1].kind is Conv2d and shape[0] != len(self.weighted[-1].weight):
            self.problems.append(
                Problem(
                    graph.output, "output", "shape", f"{scores} of a map {_sizes(self.map_shape)}",
                    "scores from Gemm, or from a 1x1 map",
                )
            )  # fmt: skip
        elif shape[0] < 2:
            self.problems.append(
                Problem(graph.output, "output", "shape", "1 class", "at least 2 classes")
            )

    # -- Constants ----------------------------------------------------------------------------------

    def _name_at(self, node, at):
        return node.inputs[at] if at < len(node.inputs) else ""

    def _constant(self, node, at, what):
        """A constant of float32 among a node's inputs, as float64; None with a problem."""
        name = self._name_at(node, at)
        if name in self.graph.broken:
            return None
        array = self.constants.get(name)
        if array is None:
            found = f"{name} is no constant" if name else "is not given"
            self.problem(node, what, found, f"a constant {what}")
        elif array.dtype != np.float32:
            self.problem(node, what, f"{name} is {array.dtype}", "float32")
        elif not np.isfinite(array).all():
            self.problem(node, what, f"{name} has values that are not finite", "finite numbers")
        else:
            return array.astype(np.float64)
        return None

    def _vector(self, node, at, what, size):
        """A constant of ``size`` numbers, or None with a problem."""
        array = self._constant(node, at, what)
        if array is None:
            return None
        if array.shape not in ((size,), (1, size)):
            self.problem(node, what, f"has the shape {_sizes(array.shape)}", f"a vector of {size}")
            return None
        return array.reshape(size)

    def _matrix(self, node, at, rank):
        """A constant weight tensor with as many axes, or None with a problem."""
        array = self._constant(node, at, "weights")
        if array is None:
            return None
        if array.ndim != rank or not array.size:
            self.problem(node, "weights", f"have the shape {_sizes(array.shape)}", f"{rank} axes")
            return None
        name = self._name_at(node, at)
        if name in self.tensors:
            self.problem(
                node, "weights", f"{name} belongs to {self.tensors[name]} as well",
                "weights of its own for each layer",
            )  # fmt: skip
        self.tensors[name] = node.name
        return array

    # -- Operators: each returns the shape of its output, None if unknown ---------------------------

    def _name(self, kind):
        same = [layer for layer in self.layers if type(layer) is kind]
        return f"{kind.stem}{len(same) + 1}"

    def _add_layer(self, layer, shape):
        self.layers.append(layer)
        return None if shape is None else layer.output_shape(shape)

    def described(self, layer):
        """The layer, with a bias if its tensors have one by now, frozen if they are."""
        for weighted in self.weighted:
            if weighted.name == layer.name:
                bias = weighted.folded()[1] is not None
                trainable = all(self._trainable(weighted).values())
                return replace(layer, bias=bias, trainable=trainable)
        return layer

    def _add_weighted(self, position, node, layer, weight, *, transposed=False):
        weighted = Weighted(
            layer.name,
            node.name,
            type(layer),
            node.outputs[0],
            weight,
            Slot(position, 1),
            transposed,
        )
        if len(node.inputs) > 2 and node.inputs[2]:
            weighted.bias = self._vector(node, 2, "bias", len(weight))
            weighted.bias_slot = Slot(position, 2)
        self.weighted.append(weighted)

    def _conv(self, position, node, shape, attributes):
        weight = self._matrix(node, 1, 4)
        if weight is None:
            return None
        channels, inputs, *kernel = weight.shape
        rule = next(rule for rule in OPERATORS["Conv"].rules if rule.attribute == "kernel_shape")
        given = attributes["kernel_shape"]
        if given not in (None, tuple(kernel)):
            self.problem(
                node, "kernel_shape", f"{_text(given)}, but the weights have {_text(kernel)}",
                "the weights' own",
            )  # fmt: skip
            return None
        if not rule.fits(tuple(kernel)):
            self.problem(node, "kernel_shape", _text(kernel), rule.takes)
            return None
        size, stride = kernel[0], attributes["strides"][0]
        if stride > size:
            self.problem(
                node, "strides", f"{stride} with a {size}x{size} kernel", "at most the kernel"
            )
            return None
        pad = 0 if attributes["pads"] is None else attributes["pads"][0]
        if attributes["auto_pad"] == "VALID":
            pad = 0
        if pad >= size:
            self.problem(
                node, "pads", f"{pad} around a {size}x{size} kernel", "less than the kernel"
            )
            return None
        if shape is not None and (len(shape) != 3 or shape[0] != inputs):
            self.problem(
                node,
                "input",
                f"is {_sizes(shape)}",
                f"a map of {inputs} channels, as the weights say",
            )
            return None
        if attributes["auto_pad"].startswith("SAME"):
            pad = self._same_pad(node, shape, size, stride, attributes["auto_pad"])
        padding = "same" if pad == size // 2 else "valid" if pad == 0 else pad
        layer = Conv2d(channels, size, padding, name=self._name(Conv2d), stride=stride)
        self._add_weighted(position, node, layer, weight)
        return self._add_layer(layer, shape)

    def _same_pad(self, node, shape, size, stride, auto_pad):
        """Zeros on each side that ONNX's SAME means: as few as there must be for rows / stride outputs."""
        if stride == 1 or shape is None:
            return size // 2
        around = {max(0, size - (extent % stride or stride)) for extent in shape[1:]}
        if len(around) > 1 or min(around) % 2:
            self.problem(
                node, "auto_pad", f"{auto_pad} pads {_sizes(shape)} unevenly with strides of {stride}",
                "pads, the same on all sides",
            )  # fmt: skip
        return min(around) // 2

    def _linear(self, position, node, shape, *, transposed):
        weight = self._matrix(node, 1, 2)
        if weight is None:
            return None
        weight = weight.T if transposed else weight
        features, inputs = weight.shape
        if shape is not None and shape != (inputs,):
            instead = f"a vector of {inputs}"
            if len(shape) == 3 and prod(shape) == inputs:
                instead = "Flatten before it"
            self.problem(node, "input", f"is {_sizes(shape)}", instead)
            return (features,)
        layer = Linear(features, name=self._name(Linear))
        self._add_weighted(position, node, layer, weight, transposed=transposed)
        return self._add_layer(layer, shape) or (features,)

    def _gemm(self, position, node, shape, attributes):
        return self._linear(position, node, shape, transposed=not attributes["transB"])

    def _matmul(self, position, node, shape, attributes):
        return self._linear(position, node, shape, transposed=True)

    def _before(self, node, value):
        """The layer with weights that computes ``value``; None with a problem."""
        layer = self.weighted[-1] if self.weighted else None
        if layer is None or layer.output != value or layer.norm is not None:
            form = OPERATORS[node.operator].form
            self.problem(node, "input", f"{value} is not the output of a layer with weights", form)
            return None
        layer.output = node.outputs[0]
        return layer

    def _add(self, position, node, shape, attributes):
        at = 0 if node.inputs[0] not in self.shapes else 1
        layer = self._before(node, node.inputs[1 - at])
        if layer is None:
            return shape
        if layer.kind is not Linear or layer.bias_slot is not None:
            self.problem(node, "input", "is no MatMul's output", f"the bias in {layer.node}")
            return shape
        layer.bias = self._vector(node, at, "bias", len(layer.weight))
        layer.bias_slot = Slot(position, at)
        return shape

    def _batchnormalization(self, position, node, shape, attributes):
        layer = self._before(node, node.inputs[0])
        if layer is None:
            return shape
        size = len(layer.weight)
        given = [bool(self._name_at(node, at)) for at in (1, 2)]
        gamma = self._vector(node, 1, "scale", size) if given[0] else np.ones(size)
        beta = self._vector(node, 2, "B", size) if given[1] else np.zeros(size)
        mean = self._vector(node, 3, "mean", size)
        variance = self._vector(node, 4, "var", size)
        if gamma is None or beta is None or mean is None or variance is None:
            return shape
        if (variance + attributes["epsilon"]).min() <= 0:
            self.problem(node, "var", f"has {variance.min():g}", "positive variances")
            return shape
        slots = [Slot(position, 1 + at) if there else None for at, there in enumerate(given)]
        layer.norm = Norm(
            gamma,
            beta,
            mean,
            np.sqrt(variance + attributes["epsilon"]),
            (*slots, Slot(position, 3)),
        )
        return shape

    def _relu(self, position, node, shape, attributes):
        if not self.begun:
            self.problem(node, "input", "comes before any weights", "a Conv or Gemm before it")
        return self._add_layer(ReLU(self._name(ReLU)), shape)

    def _maxpool(self, position, node, shape, attributes):
        if attributes["kernel_shape"] is None:
            self.problem(node, "kernel_shape", "is not given", "2x2")
            return None
        if not self.begun:
            self.problem(node, "input", "comes before any weights", "a Conv before it")
        elif self.pooled:
            self.problem(node, "input", "pools what is pooled already", "a Conv between the two")
        self.pooled = True
        return self._add_layer(MaxPool2d(2, self._name(MaxPool2d)), shape)

    def _flatten(self, position, node, shape, attributes):
        if shape is None or len(shape) == 1:
            return shape
        self.map_shape = shape
        return self._add_layer(Flatten(self._name(Flatten)), shape)

    def _reshape(self, position, node, shape, attributes):
        name = self._name_at(node, 1)
        if name in self.graph.broken or shape is None:
            return None
        target = self.constants.get(name)
        if target is None or target.dtype != np.int64 or target.ndim != 1:
            self.problem(node, "shape", "is no constant list of integers", "a constant shape")
            return None
        size, to = prod(shape), tuple(target.tolist())
        keep = 0 if not attributes["allowzero"] else self.graph.batch
        fine = len(to) == 2 and to.count(-1) < 2 and to[0] in (keep, -1, self.graph.batch)
        if not fine or to[1] not in (-1, size):
            self.problem(node, "shape", _text(to), f"batch x {size}: all of a sample")
            return None
        return self._flatten(position, node, shape, attributes)

    def _dropout(self, position, node, shape, attributes):
        if len(node.inputs) > 2 and node.inputs[2]:
            training = self.constants.get(node.inputs[2])
            if training is None or training.size != 1 or bool(training.reshape(-1)[0]):
                self.problem(node, "training_mode", "may be true", "a model in evaluation mode")
        return self._identity(position, node, shape, attributes)

    def _identity(self, position, node, shape, attributes):
        if self.weighted and self.weighted[-1].output == node.inputs[0]:
            self.weighted[-1].output = node.outputs[0]
        return shape

    def _softmax(self, position, node, shape, attributes):
        if shape is not None and len(shape) != 1:
            self.problem(node, "input", f"is {_sizes(shape)}", "a vector of class scores")
        if not isinstance(self.loss, CrossEntropy):
            self.problem(
                node, "", f"is no part of {type(self.loss).__name__}",
                "CrossEntropy, or a model that ends with class scores",
            )  # fmt: skip
        self.ended = node.name
        return shape

    _logsoftmax = _softmax


def _sizes(shape):
    return "x".join(map(str, shape)) or "a single number"


def _text(value):
    """An attribute's value, short."""
    text = str(list(value)) if isinstance(value, (tuple, list)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
