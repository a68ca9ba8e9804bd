"""Weights as part of a description: what training starts with."""

from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from operator import index

import numpy as np

from streamtrain.checks import not_finite
from streamtrain.records import Record

__all__ = ["Weights"]


@dataclass(frozen=True)
class Weights(Record):
    """Arrays of real numbers by name, kept as text: comparable, hashable, and JSON both ways.

    Parameters
    ----------
    names : tuple of :class:`str`
        Such as ``"conv1.weight"``.
    shapes : tuple of tuples of :class:`int`
    data : :class:`str`
        All numbers, array after array, as base64 of little-endian float64.

    Raises
    ------
    ValueError
        If the parts do not fit together, or a number is not finite.
    """

    names: tuple
    shapes: tuple
    data: str = field(repr=False)

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        shapes = tuple(tuple(index(size) for size in shape) for shape in self.shapes)
        object.__setattr__(self, "shapes", shapes)
        if len(set(self.names)) != len(self.names) or len(self.names) != len(shapes):
            raise ValueError("Weights need one shape for each name, and each name once")
        numbers = self._numbers()
        count = sum(prod(shape) for shape in shapes)
        if len(numbers) != count:
            raise ValueError(f"Weights hold {len(numbers)} numbers, but their shapes {count}")
        for name, array in self.arrays().items():
            if (at := not_finite(array)) is not None:
                raise ValueError(f"{name} is {array[at]} at {at}, but must be finite")

    @classmethod
    def of(cls, arrays):
        """From a dictionary of arrays."""
        real = {name: np.asarray(array, "<f8") for name, array in arrays.items()}
        data = b64encode(b"".join(array.tobytes() for array in real.values())).decode("ascii")
        return cls(tuple(real), tuple(array.shape for array in real.values()), data)

    @cached_property
    def ranges(self):
        """Smallest and largest number of each array, by name."""
        return {
            name: (float(array.min()), float(array.max())) for name, array in self.arrays().items()
        }

    def arrays(self):
        """A dictionary of float64 arrays, for the caller to change."""
        numbers, arrays, at = self._numbers(), {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            arrays[name] = numbers[at : at + prod(shape)].reshape(shape)
            at += prod(shape)
        return arrays

    def _numbers(self):
        try:
            raw = b64decode(self.data, validate=True)
            return np.frombuffer(raw, "<f8").astype(np.float64)
        except (Error, ValueError):
            raise ValueError("Weights' data must be base64 of float64 numbers") from None
