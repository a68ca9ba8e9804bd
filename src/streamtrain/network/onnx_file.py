"""Models in ONNX files: in, and back with trained weights."""

import warnings
from pathlib import Path

import numpy as np

from streamtrain.cache import write_atomic
from streamtrain.network.convert import convert
from streamtrain.network.graph import Graph, Node
from streamtrain.network.layers import SGD, CrossEntropy
from streamtrain.network.verdict import ModelError, Problem

__all__ = ["from_onnx", "to_onnx"]

_OLDEST_OPSET = 7  # before, Gemm and BatchNormalization had other attributes
_LARGEST = 1 << 27  # numbers in a computed constant


def from_onnx(model, *, loss=CrossEntropy(), optimizer=SGD()):
    """Read a network with its weights from an ONNX model.

    Training starts with the model's weights. A batch norm is folded into the layer before it, which
    makes it a frozen part of that layer; a warning says so. A softmax at the end becomes part of the
    loss. ``docs/models.md`` lists the supported operators.

    Parameters
    ----------
    model : path, :class:`bytes` or :class:`onnx.ModelProto`
        Weights in files of their own are looked for beside a path.
    loss, optimizer
        As :class:`Network` takes them.

    Returns a :class:`Network`.

    Raises
    ------
    ImportError
        If the package ``onnx`` is missing.
    OSError
        If the file cannot be read.
    ModelError
        If it is no ONNX model, or has something that is not supported: all of it, node by node.
    """
    source, proto, folder = _load(model)
    imported = _imported(source, proto, folder, loss, optimizer)
    warn_of_frozen(source, imported)
    return imported.network


def to_onnx(trainer, model, path):
    """Write an ONNX model again, with a trainer's weights in place of its own.

    All else stays as it is: names, operators, metadata. onnxruntime then predicts what the trainer's
    ``evaluate`` and ``predict`` do, but for the rounding of numbers. A batch norm keeps its scale
    and statistics: the layer before it is divided by the scale, and its ``B`` takes the change of
    the bias. Layers that training did not change, frozen ones among them, stay as they are. Weights that
    were in a file of their own are in the model afterwards.

    Parameters
    ----------
    trainer : :class:`~streamtrain.Trainer`
        Of a network of the same layers.
    model : path, :class:`bytes` or :class:`onnx.ModelProto`
        What the network was read from. It is not changed, unless it is the file at ``path``.
    path : path
        Written as a whole, or not at all.

    Raises
    ------
    ImportError
        If the package ``onnx`` is missing.
    OSError
        If a file cannot be read or written.
    ModelError
        If the model is not supported.
    ValueError
        If the trainer's network has other layers.
    """
    source, proto, folder = _load(model)
    imported = _imported(source, proto, folder, CrossEntropy(), SGD())
    before = _read(proto.graph)
    for slot, array in imported.tensors(trainer).items():
        _replace(proto.graph, slot, array)
    _prune(proto.graph, before)
    write_atomic(Path(path), proto.SerializeToString())


def warn_of_frozen(source, imported):
    """Warn of batch norms that training does not change, on behalf of the caller of a caller."""
    if imported.frozen:
        warnings.warn(
            f"{source}: batch normalization is folded into {', '.join(imported.frozen)} and frozen: "
            f"training changes the layer that it is folded into",
            stacklevel=3,
        )


def _onnx():
    try:
        import onnx
    except ImportError:
        raise ImportError(
            "ONNX models need the package onnx: pip install 'streamtrain[onnx]'"
        ) from None
    return onnx


def _load(model):
    """Name, ModelProto that may be changed, and folder (or None) of a model."""
    onnx = _onnx()
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    if isinstance(model, onnx.ModelProto):
        proto.CopyFrom(model)
        return model.graph.name or "the model", proto, None
    if isinstance(model, bytes):
        source, folder, content = "the model", None, model
    else:
        path = Path(model)
        source, folder, content = path.name, path.parent, path.read_bytes()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise _whole(
            source, "file", f"{len(content):,} bytes, no ONNX", "an ONNX file, whole"
        ) from None
    return source, proto, folder


def _whole(source, attribute, found, instead):
    return ModelError(source, [Problem("", "", attribute, found, instead)])


def _imported(source, proto, folder, loss, optimizer):
    problems = []
    graph = _Reader(proto, folder, problems).graph(source)
    return convert(graph, source, problems, loss=loss, optimizer=optimizer)


class _Reader:
    """Reads a ModelProto's graph, and says what cannot be read."""

    def __init__(self, proto, folder, problems):
        self.proto = proto
        self.folder = folder
        self.problems = problems
        self.onnx = _onnx()

    def graph(self, source):
        proto = self.proto.graph
        if not proto.node:
            raise _whole(source, "graph", "no nodes", "an ONNX model, whole")
        opset = self._opset()
        constants, broken = self._constants(proto)
        inputs = [value for value in proto.input if value.name not in constants.keys() | broken]
        for what, values in (("input", inputs), ("output", list(proto.output))):
            if len(values) != 1:
                names = ", ".join(value.name for value in values)
                found = f"{len(values)} of them" + (f": {names}" if names else "")
                raise ModelError(
                    source, [*self.problems, Problem("", "", f"{what}s", found, f"one {what}")]
                )
        (given,) = inputs
        shape, batch = self._input_shape(given, source)
        nodes = [self._node(node, position) for position, node in enumerate(proto.node)]
        return Graph(
            input=given.name,
            output=proto.output[0].name,
            shape=shape,
            batch=batch,
            nodes=nodes,
            constants=constants,
            broken=broken,
            fold=lambda position, arrays: self._fold(position, arrays, opset),
        )

    def _opset(self):
        newest = self.onnx.defs.onnx_opset_version()
        versions = [
            entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")
        ]
        version = versions[0] if versions else 0
        if not _OLDEST_OPSET <= version <= newest:
            instead = f"{_OLDEST_OPSET} to {newest}, such as opset_version=18"
            self.problems.append(Problem("", "", "opset_import", str(version), instead))
            return newest
        return version

    def _constants(self, graph):
        constants, broken = {}, set()
        for tensor in graph.initializer:
            array, found, instead = self._array(tensor)
            if tensor.name in constants.keys() | broken:
                array, found, instead = None, "is there twice", "one initializer for each name"
            if array is None:
                broken.add(tensor.name)
                constants.pop(tensor.name, None)
                self.problems.append(Problem(tensor.name, "initializer", "", found, instead))
            else:
                constants[tensor.name] = array
        for tensor in graph.sparse_initializer:
            name = tensor.values.name
            broken.add(name)
            self.problems.append(
                Problem(name, "initializer", "", "is sparse", "a dense initializer")
            )
        return constants, broken

    def _array(self, tensor):
        """(array, "", ""), or (None, found, instead)."""
        from onnx.external_data_helper import load_external_data_for_tensor

        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            place = next(
                (entry.value for entry in tensor.external_data if entry.key == "location"), ""
            )
            if self.folder is None:
                return (
                    None,
                    f"is in the file {place!r}",
                    "a path, or a model that holds its weights",
                )
            try:
                load_external_data_for_tensor(tensor, str(self.folder))
            except Exception as error:  # each release of onnx has its own kinds
                reason = " ".join(str(error).split())
                return (
                    None,
                    f"is in the file {place!r}: {reason}",
                    "that file beside the model, whole",
                )
            tensor.data_location = self.onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        try:
            return self.onnx.numpy_helper.to_array(tensor), "", ""
        except Exception as error:  # whatever the bytes of a damaged file make NumPy raise
            reason = " ".join(str(error).split()) or type(error).__name__
            return None, f"cannot be read: {reason}", "an initializer that is whole"

    def _input_shape(self, value, source):
        kind = value.type.tensor_type
        if kind.elem_type != self.onnx.TensorProto.FLOAT:
            names = self.onnx.TensorProto.DataType
            number = kind.elem_type
            name = names.Name(number).lower() if number in names.values() else f"type {number}"
            self.problems.append(Problem(value.name, "input", "type", name, "float"))
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
        if len(sizes) != 4 or min(sizes[1:]) < 1:
            named = [str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
                     for dim in kind.shape.dim]  # fmt: skip
            found = f"({', '.join(named)})"
            instead = "(batch, channels, rows, columns), all but the batch fixed"
            raise ModelError(
                source, [*self.problems, Problem(value.name, "input", "shape", found, instead)]
            )
        return tuple(sizes[1:]), max(1, sizes[0])

    def _node(self, node, position):
        domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
        operator = f"{domain}{node.op_type}"
        name = node.name or f"{operator}[{position}]"
        attributes = {}
        for attribute in node.attribute:
            try:
                value = self.onnx.helper.get_attribute_value(attribute)
            except ValueError as error:
                value = f"unreadable: {error}"
            if isinstance(value, bytes):
                value = value.decode(errors="replace")
            elif not isinstance(value, (int, float, str)):
                is_list = attribute.type in (attribute.INTS, attribute.FLOATS)
                value = tuple(value) if is_list else type(value).__name__
            attributes[attribute.name] = value
        return Node(name, operator, tuple(node.input), tuple(node.output), attributes)

    def _fold(self, position, arrays, opset):
        """First output of a node of constants, by ONNX's reference implementation."""
        from onnx.reference import ReferenceEvaluator

        onnx, node = self.onnx, self.onnx.NodeProto()
        node.CopyFrom(self.proto.graph.node[position])
        del node.output[1:]
        feeds = {name: array for name, array in zip(node.input, arrays, strict=True) if name}
        try:
            with np.errstate(all="ignore"):
                graph = onnx.helper.make_graph(
                    [node],
                    "constant",
                    [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
                    [onnx.helper.make_empty_tensor_value_info(node.output[0])],
                )
                versions = [onnx.helper.make_opsetid("", opset)]
                model = onnx.helper.make_model(graph, opset_imports=versions)
                (result,) = ReferenceEvaluator(model).run(None, feeds)
                result = np.asarray(result)
        except Exception as error:  # whatever a wrong node makes NumPy raise
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
        if result.size > _LARGEST:
            raise ValueError(f"{result.size:,} numbers are too many")
        return result


# -- Writing back -----------------------------------------------------------------------------------


def _replace(graph, slot, array):
    """Let a node read other numbers: in its own initializer, or in a new one if others read that."""
    from onnx import helper, numpy_helper

    node = graph.node[slot.node]
    name = node.input[slot.input]
    readers = sum(list(other.input).count(name) for other in graph.node)
    for tensor in graph.initializer:
        if tensor.name == name and readers == 1:
            tensor.CopyFrom(numpy_helper.from_array(array.reshape(tuple(tensor.dims)), name))
            return
    taken = {tensor.name for tensor in graph.initializer} | {
        o for n in graph.node for o in n.output
    }
    fresh = next(
        candidate
        for count in range(len(taken) + 1)
        if (candidate := f"{name}_trained{count or ''}") not in taken
    )
    graph.initializer.append(numpy_helper.from_array(array, fresh))
    if any(value.name == name for value in graph.input):  # as old models list their initializers
        graph.input.append(helper.make_tensor_value_info(fresh, 1, array.shape))
    node.input[slot.input] = fresh


def _read(graph):
    """Names of the values that somebody reads."""
    return {name for node in graph.node for name in node.input} | {o.name for o in graph.output}


def _prune(graph, before):
    """Drop the constants that were read ``before``, and that nobody reads any more."""
    while True:
        unread = before - _read(graph)
        nodes = [node for node in graph.node if unread.intersection(node.output)]
        for node in nodes:
            graph.node.remove(node)
        if not nodes:
            break
    for values in (graph.initializer, graph.input):
        for value in [value for value in values if value.name in unread]:
            values.remove(value)
