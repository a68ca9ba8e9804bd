"""Which format each tensor of a training step has, and how it is rounded."""

from dataclasses import dataclass

from streamtrain.numeric import Fixed, Round
from streamtrain.records import Record

__all__ = ["DSP_WIDTHS", "Numbers", "dsp_slices"]

DSP_WIDTHS = (25, 18)
"""Operand widths of the multiplier that formats have to fit: a DSP48E1's."""


def dsp_slices(width, operand_bits):
    """DSP slices of a multiplier for operands of ``width`` bits, of slices for ``operand_bits``; both signed.

    The parts of a wider operand have no sign but the highest one, which takes a bit of each slice.
    """
    return max(1, -((1 - width) // (operand_bits - 1)))


@dataclass(frozen=True)
class Numbers(Record):
    """Formats and rounding of one layer, or of all.

    The defaults trained four networks as well as floating point does. Logits have a format of their own:
    in the activations' format the softmax clips, its error never reaches zero, and training
    collapses.

    Parameters
    ----------
    weights : :class:`Fixed`
        Weights and biases as the multipliers see them; at most 18 bits.
    master : :class:`Fixed`, optional
        Weights as they are stored and updated, if wider: small updates add up there, and the
        multipliers see the value rounded to ``weights``.
    activations : :class:`Fixed`
        Samples, and outputs of hidden layers; at most 18 bits.
    logits : :class:`Fixed`
        Outputs of the last layer; at most 18 bits.
    errors : :class:`Fixed`
        Gradients with respect to a layer's output, before activation; at most 18 bits.
    round_activations, round_errors, round_weights : :class:`Round`
        Rounding of outputs (logits too), of errors, and of the write-back of weights.

    Raises
    ------
    ValueError
        If a format does not fit the multiplier, or the master is no refinement of the weights.
    """

    weights: Fixed = Fixed(16, 13)
    master: Fixed | None = None
    activations: Fixed = Fixed(16, 11)
    logits: Fixed = Fixed(16, 8)
    errors: Fixed = Fixed(16, 13)
    round_activations: Round = Round.NEAREST
    round_errors: Round = Round.NEAREST
    round_weights: Round = Round.NEAREST

    def __post_init__(self):
        for field in ("round_activations", "round_errors", "round_weights"):
            object.__setattr__(self, field, Round(getattr(self, field)))
        for field in ("weights", "master", "activations", "logits", "errors"):
            fmt = getattr(self, field)
            if isinstance(fmt, str):
                fmt = Fixed.parse(fmt)
                object.__setattr__(self, field, fmt)
            if fmt is None and field == "master":
                continue
            if not isinstance(fmt, Fixed):
                raise TypeError(f"Format of {field} must be Fixed, not {fmt!r}")
            limit = 32 if field == "master" else DSP_WIDTHS[1]
            if fmt.width > limit:
                why = "a master" if field == "master" else "a multiplier's operand"
                raise ValueError(
                    f"Format of {field} is {fmt}, but {why} has at most {limit} bits"
                )
        if self.master is not None:
            gained = self.master.frac - self.weights.frac
            if gained < 1 or self.master.width - gained < self.weights.width:
                raise ValueError(
                    f"Master {self.master} must refine the weights {self.weights}: "
                    f"more bits below the point, and as many above it"
                )

    @property
    def stored(self):
        """Format in which weights and biases are kept and updated."""
        return self.weights if self.master is None else self.master
