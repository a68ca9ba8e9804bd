"""A model as its file or module has it: nodes and constants, in ONNX's words."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Graph", "Node", "Slot"]


@dataclass(frozen=True)
class Node:
    """One operation.

    Parameters
    ----------
    name, operator : :class:`str`
    inputs, outputs : tuples of :class:`str`
        Names of values; an empty one is an optional input that is not there.
    attributes : dict
        Numbers, text, or tuples of them, by ONNX's names.
    """

    name: str
    operator: str
    inputs: tuple
    outputs: tuple
    attributes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """An input of a node: where a tensor is read.

    Parameters
    ----------
    node, input : :class:`int`
        Positions, of the node in its graph and of the input.
    """

    node: int
    input: int


@dataclass
class Graph:
    """A model with one input and one output.

    Parameters
    ----------
    input, output : :class:`str`
    shape : (channels, rows, columns)
        Of a sample.
    batch : :class:`int`
        Samples that the model takes at once; 1 if any number.
    nodes : list of :class:`Node`
    constants : dict of arrays
    broken : set of :class:`str`
        Constants that cannot be read, which the problems say already.
    fold : callable
        ``fold(position, arrays)`` computes the first output of a node of constants; raises
        :exc:`ValueError` if it cannot.
    trainable : dict of :class:`bool`
        Whether training changes a constant, by its name, where the model says so.
    """

    input: str
    output: str
    shape: tuple
    batch: int
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    broken: set[str] = field(default_factory=set)
    fold: Callable[[int, list], Any] | None = None
    trainable: dict[str, bool] = field(default_factory=dict)
