"""Which operators of a model are supported, and in which form. The importer obeys this table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamtrain.network.layers import KERNELS

__all__ = ["FOLDABLE", "INSTEAD", "OPERATORS", "Operator", "Rule", "support_table"]


@dataclass(frozen=True)
class Rule:
    """One attribute of an operator.

    Parameters
    ----------
    attribute : :class:`str`
        ONNX's name.
    default : object
        Its value where it is not given; its kind is that of all values. None for one that depends on
        others.
    takes : :class:`str`
        What is supported, for people.
    fits : callable
        Whether a value is.
    """

    attribute: str
    default: Any
    takes: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Operator:
    """An operator that can be imported.

    Parameters
    ----------
    name : :class:`str`
        ONNX's.
    becomes : :class:`str`
        What it is here.
    form : :class:`str`
        What is asked of its inputs and its place.
    rules : tuple of :class:`Rule`
    """

    name: str
    becomes: str
    form: str
    rules: tuple = ()


def _all(value):
    """A rule's test: all numbers of a list are ``value``."""
    return lambda numbers: all(number == value for number in numbers)


def _is(*values):
    return lambda value: value in values


def _square(sizes):
    return len(sizes) == 2 and sizes[0] == sizes[1] > 0


OPERATORS = {
    operator.name: operator
    for operator in (
        Operator(
            "Conv", "Conv2d", "weights and bias are constants",
            (
                Rule("kernel_shape", None, "square and odd, up to 11x11",
                     _is(*((size, size) for size in KERNELS))),
                Rule("pads", None, "the same on all sides, less than the kernel",
                     lambda pads: len(pads) == 4 and len(set(pads)) == 1 and pads[0] >= 0),
                Rule("auto_pad", "NOTSET", "NOTSET, VALID, SAME_UPPER or SAME_LOWER",
                     _is("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")),
                Rule("group", 1, "1", _is(1)),
                Rule("dilations", (1, 1), "1", _all(1)),
                Rule("strides", (1, 1), "the same both ways, at most the kernel", _square),
            ),
        ),
        Operator(
            "Gemm", "Linear", "of the flattened map; weights and bias are constants",
            (
                Rule("alpha", 1.0, "1", _is(1.0)),
                Rule("beta", 1.0, "1", _is(1.0)),
                Rule("transA", 0, "0", _is(0)),
                Rule("transB", 0, "0 or 1", _is(0, 1)),
            ),
        ),
        Operator("MatMul", "Linear", "of the flattened map with constant weights"),
        Operator("Add", "bias of Linear", "behind MatMul, of a constant vector"),
        Operator("Relu", "ReLU", "behind a layer with weights"),
        Operator(
            "MaxPool", "MaxPool2d", "behind a layer with weights, once; only its first output is read",
            (
                Rule("kernel_shape", None, "2x2", _is((2, 2))),
                Rule("strides", (1, 1), "2", _is((2, 2))),
                Rule("pads", None, "0", lambda pads: len(pads) == 4 and not any(pads)),
                Rule("auto_pad", "NOTSET", "NOTSET or VALID", _is("NOTSET", "VALID")),
                Rule("ceil_mode", 0, "0", _is(0)),
                Rule("storage_order", 0, "0", _is(0)),
                Rule("dilations", (1, 1), "1", _all(1)),
            ),
        ),
        Operator(
            "BatchNormalization", "part of the layer before it, frozen",
            "directly behind Conv, Gemm, or MatMul; its inputs are constants",
            (
                Rule("epsilon", 1e-5, "any", lambda epsilon: epsilon >= 0),
                Rule("training_mode", 0, "0: export the model in evaluation mode", _is(0)),
                Rule("spatial", 1, "1", _is(1)),
            ),
        ),
        Operator("Flatten", "Flatten", "all of a sample",
                 (Rule("axis", 1, "1", _is(1)),)),
        Operator("Reshape", "Flatten", "to a constant shape that flattens all of a sample",
                 (Rule("allowzero", 0, "0 or 1", _is(0, 1)),)),
        Operator("Dropout", "nothing", "only its first output is read"),
        Operator("Identity", "nothing", "any"),
        Operator("Softmax", "part of the loss", "last",
                 (Rule("axis", -1, "-1 or 1", _is(-1, 1)),)),
        Operator("LogSoftmax", "part of the loss", "last",
                 (Rule("axis", -1, "-1 or 1", _is(-1, 1)),)),
    )
}  # fmt: skip
"""What is supported, by ONNX's names."""

FOLDABLE = (
    "Add", "Cast", "CastLike", "Concat", "Constant", "Div", "Expand", "Flatten", "Gather",
    "Identity", "Mul", "Neg", "Reshape", "Shape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose",
    "Unsqueeze",
)  # fmt: skip
"""Operators that are computed at import if all their inputs are constants.

Of ``Shape`` and ``CastLike`` the input may be a map: its shape and type are constants, too.
"""

_NEAREST = {
    "MaxPool with a 2x2 kernel and strides of 2": (
        "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxRoiPool",
        "ReduceMean", "ReduceMax", "Resize", "Upsample", "avg_pool2d", "adaptive_avg_pool2d", "mean",
    ),
    "Relu": (
        "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish",
        "PRelu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
        "celu", "clamp", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish",
        "prelu", "relu6", "selu", "sigmoid", "silu", "softplus", "tanh",
    ),
    "BatchNormalization directly behind Conv": (
        "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LRN",
        "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
        "group_norm", "instance_norm", "layer_norm",
    ),
    "Conv with a square, odd kernel": (
        "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "conv1d", "conv3d",
        "conv_transpose2d",
    ),
    "Gemm": ("Einsum", "MatMulInteger", "QLinearMatMul", "bilinear", "matmul", "mm", "addmm"),
    "pads of Conv": ("Pad", "pad", "constant_pad_nd"),
    "Flatten": ("Squeeze", "Transpose", "Unsqueeze", "permute", "squeeze", "transpose", "unsqueeze"),
    "a model of float32": (
        "Cast", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "_to_copy", "to",
    ),
    "a chain of layers, each read by the next": (
        "Concat", "If", "Loop", "Scan", "Split", "Sum", "add", "add_", "cat", "concat", "split",
    ),
}  # fmt: skip

INSTEAD = {name: text for text, names in _NEAREST.items() for name in names}
"""The nearest supported form of operators that are not."""


def support_table():
    """Header and rows of the support matrix: operator, what it becomes, the supported form."""
    rows = []
    for operator in OPERATORS.values():
        rules = [f"`{rule.attribute}` {rule.takes}" for rule in operator.rules]
        rows.append((f"`{operator.name}`", operator.becomes, "; ".join([operator.form, *rules])))
    names = ", ".join(f"`{name}`" for name in FOLDABLE)
    rows.append((names, "a constant", "of constants"))
    return ("operator", "becomes", "supported form"), rows
