"""The tensors of an imported layer, with its batch norm folded in and taken out again."""

from dataclasses import dataclass

import numpy as np

from streamtrain.network.graph import Slot

__all__ = ["Norm", "Weighted"]

_LEAST_SCALE = 1e-12  # of a batch norm's channel that trained weights can be divided by


@dataclass
class Norm:
    """A batch norm behind a layer: its parameters, and where they are read."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray  # sqrt(variance + epsilon)
    slots: tuple  # of gamma, beta and mean; None where there is none


@dataclass
class Weighted:
    """A layer with weights, and where its tensors are read."""

    name: str
    node: str
    kind: type
    output: str  # the value that a bias or a batch norm may still follow
    weight: np.ndarray
    weight_slot: Slot
    transposed: bool
    bias: np.ndarray | None = None
    bias_slot: Slot | None = None
    norm: Norm | None = None

    @property
    def slots(self):
        """Where all its tensors are read, those of its batch norm too."""
        norm = () if self.norm is None else self.norm.slots
        return [slot for slot in (self.weight_slot, self.bias_slot, *norm) if slot is not None]

    def folded(self):
        """Weight and bias (or None) with the batch norm in them, in float64."""
        if self.norm is None:
            return self.weight, self.bias
        norm = self.norm
        scale = norm.gamma / norm.deviation
        bias = 0.0 if self.bias is None else self.bias
        return _rows(scale, self.weight) * self.weight, (bias - norm.mean) * scale + norm.beta

    def unfolded(self, weight, bias):
        """Tensors by slot with which the model computes what ``weight`` and ``bias`` do.

        A batch norm keeps its scale, and its statistics where it has a beta: the layer's weights
        are divided by the scale, and beta takes the whole change of the bias. A channel whose scale
        is 0, so that no weights could pass it, gets the scale 1.
        """
        tensors = {}
        if self.norm is None:
            if self.bias_slot is not None:
                tensors[self.bias_slot] = bias
        else:
            norm = self.norm
            gamma_slot, beta_slot, mean_slot = norm.slots
            scale = norm.gamma / norm.deviation
            dead = abs(scale) < _LEAST_SCALE
            if dead.any() and gamma_slot is not None:
                tensors[gamma_slot] = np.where(dead, norm.deviation, norm.gamma)
                scale = np.where(dead, 1.0, scale)
            own = 0.0 if self.bias is None else self.bias
            if beta_slot is None:
                tensors[mean_slot] = own - bias / scale
            else:
                tensors[beta_slot] = bias - (own - norm.mean) * scale
            weight = weight / _rows(scale, weight)
        tensors[self.weight_slot] = weight.T if self.transposed else weight
        return tensors


def _rows(values, weight):
    """One value for each output channel, shaped to go with the weights."""
    return values.reshape(-1, *(1,) * (weight.ndim - 1))
