"""Small ONNX models, built node by node, to change one thing in."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def tensor(name, *shape, dtype=np.float32):
    rng = np.random.default_rng(len(name) + sum(shape))
    return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(dtype), name)


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def model(
    nodes, initializers, *, shape=("N", 1, 8, 8), kind=FLOAT, inputs=None, outputs=None, opset=18
):
    """A model of ``x`` to ``y``."""
    inputs = inputs or [helper.make_tensor_value_info("x", kind, shape)]
    outputs = outputs or [helper.make_tensor_value_info("y", FLOAT, ("N", "K"))]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(operator, inputs, output, name=None, **attributes):
    return helper.make_node(
        operator, inputs.split(), [output], name=name or f"the_{operator.lower()}", **attributes
    )


def small(**conv):
    """Conv 3x3, Relu, MaxPool, Flatten, Gemm on 1x8x8: four channels, three classes."""
    pads = {} if "auto_pad" in conv else {"pads": [1, 1, 1, 1]}
    attributes = {"kernel_shape": [3, 3], **pads, **conv}
    nodes = [
        node("Conv", "x w b", "c", **attributes),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f v d", "y", transB=1),
    ]
    return model(
        nodes, [tensor("w", 4, 1, 3, 3), tensor("b", 4), tensor("v", 3, 64), tensor("d", 3)]
    )


def around(nodes, initializers=(), *, before=False):
    """The small model with nodes from ``r`` to ``t`` behind its Relu, or from ``x`` to ``t`` in front."""
    proto = small()
    proto.graph.initializer.extend(initializers)
    old = list(proto.graph.node)
    read = "x" if before else "r"
    position = next(i for i, reader in enumerate(old) if reader.input[0] == read)
    old[position].input[0] = "t"
    del proto.graph.node[:]
    proto.graph.node.extend([*old[:position], *nodes, *old[position:]])
    return proto
