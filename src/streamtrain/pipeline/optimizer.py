"""What an update adds to a gradient, as integers: momentum, weight decay, clipping.

A stage's accumulators hold the gradient times the learning rate, with :func:`gradient_frac`
fractional bits. Momentum and weight decay are one more product each in the same accumulator:
``momentum * v`` and ``(lr * weight_decay) * w``, where v, the velocity, is what the update before
subtracted. Their coefficients go to the multiplier's wide side, shifted to where the accumulator's
fractional bits are. Clipping compares the accumulator's upper bits with ``lr * clip``.
"""

from dataclasses import dataclass
from math import ceil, log2
from numbers import Real

from streamtrain.numeric import Fixed
from streamtrain.pipeline.numbers import DSP_WIDTHS

__all__ = [
    "CLIP_BITS",
    "MOMENTUM_BITS",
    "UpdateTerms",
    "check_update",
    "clip_frac",
    "decay_frac",
    "decay_limit",
    "gradient_frac",
    "held_words",
    "update_codes",
    "update_terms",
    "velocity",
]

MOMENTUM_BITS = 10
"""Fractional bits of the momentum."""

CLIP_BITS = 17
"""Bits of ``lr * clip``."""

_CLIP_FRAC = 10  # fractional bits of clip, at the network's own learning rate
_VELOCITY_INTEGER = 7  # integer bits of a velocity, in gradients at the network's own learning rate
_VELOCITY_FRAC = 11  # and its fractional bits
_LEAST_VELOCITY = 8  # bits of a velocity that are of any use
_LEAST_DECAY = 4  # lr * weight_decay is less than 2**-4
_COEFFICIENT_BITS = DSP_WIDTHS[0] - 1  # of a multiplier's wide operand, without its sign


def gradient_frac(plan, stage):
    """Fractional bits of the accumulators that weights are updated from."""
    return stage.stored.frac + plan.weight_shift(stage)


def _rate_frac(plan):
    """The network's own learning rate is at least ``2**-_rate_frac``, and less than twice that."""
    return ceil(-log2(plan.network.optimizer.lr))


def velocity(plan, stage):
    """Format of a stage's velocities, or None without momentum, or if it is frozen.

    At the network's own learning rate it holds sums of 64 gradients of 1, in steps of 2**-11 of one,
    if the accumulator has as many fractional bits.
    """
    if not plan.network.optimizer.momentum or not stage.trainable:
        return None
    own, frac = _rate_frac(plan), gradient_frac(plan, stage)
    kept = min(max(own + _VELOCITY_FRAC, frac - _COEFFICIENT_BITS), frac - MOMENTUM_BITS)
    return Fixed(min(DSP_WIDTHS[1], _VELOCITY_INTEGER + kept - own), kept)


def decay_frac(plan):
    """Fractional bits of ``lr * weight_decay``: those of the coarsest stage."""
    return min(_decay_fracs(plan))


def _decay_fracs(plan):
    return [gradient_frac(plan, s) - s.weights.frac for s in plan.stages if s.trainable]


def decay_limit(plan):
    """``lr * weight_decay`` is less than this many times ``2**-decay_frac``."""
    frac, finest = decay_frac(plan), max(_decay_fracs(plan))
    return 2 ** max(0, min(frac - _LEAST_DECAY, _COEFFICIENT_BITS - finest + frac))


def clip_frac(plan):
    """Fractional bits of ``lr * clip``."""
    biases = (s.stored.frac + plan.bias_shift(s) for s in plan.stages if s.trainable)
    return min(_rate_frac(plan) + _CLIP_FRAC, *biases)


@dataclass(frozen=True)
class UpdateTerms:
    """How a stage's update computes momentum and weight decay.

    Parameters
    ----------
    velocity : :class:`Fixed` or None
        Format of v; None without momentum.
    decay : :class:`bool`
        Whether there is weight decay.
    momentum_shift, decay_shift : :class:`int`
        Zeros below the code of a coefficient.
    coefficient : :class:`int`
        Bits of the larger of the two.
    product : :class:`int`
        Bits of a product with either.
    velocity_shift : :class:`int`
        Bits between the accumulator and a velocity.
    """

    velocity: Fixed | None
    decay: bool
    momentum_shift: int
    decay_shift: int
    coefficient: int
    product: int
    velocity_shift: int

    @property
    def count(self):
        """Operations for each word."""
        return (self.velocity is not None) + self.decay

    def sum_bits(self, bits):
        """Bits of an accumulator in which a sum of ``bits`` bits and all products meet."""
        return max(bits, self.product) + self.count


def update_terms(plan, stage):
    """The :class:`UpdateTerms` of a stage."""
    frac, kept = gradient_frac(plan, stage), velocity(plan, stage)
    drop = frac - kept.frac if kept else MOMENTUM_BITS
    shift, bits = drop - MOMENTUM_BITS, drop if kept else 0
    product = drop + kept.width if kept else 0
    decay, decay_shift = bool(plan.network.optimizer.weight_decay) and stage.trainable, 0
    if decay:
        decay_shift = frac - stage.weights.frac - decay_frac(plan)
        own = (decay_limit(plan) - 1).bit_length() + decay_shift
        bits, product = max(bits, own), max(product, own + stage.weights.width)
    return UpdateTerms(kept, decay, shift, decay_shift, bits, product, drop)


def held_words(plan, stage):
    """Words that weight decay has read and that wait for their update: the next one may follow soon."""
    terms = update_terms(plan, stage)
    if not terms.decay:
        return 0
    return 1 if stage.pixels + terms.count >= 3 + plan.late else 2


def check_update(plan):
    """Raise :exc:`ValueError` if a plan's formats have no room for its optimiser."""
    for stage in plan.stages:
        kept = velocity(plan, stage)
        if kept and kept.width < _LEAST_VELOCITY:
            raise ValueError(
                f"{stage.name}: gradients of inputs {stage.input} and errors {stage.errors} leave "
                f"{kept.width} bits to a velocity, but momentum needs {_LEAST_VELOCITY}; give them "
                f"{_LEAST_VELOCITY - kept.width} more fractional bits"
            )
    update_codes(plan, plan.network.optimizer.lr)


def update_codes(plan, lr, *, momentum=None, weight_decay=None, clip=None):
    """Coefficients of an update, as they go with the samples.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    lr : :class:`float`
        Learning rate, of a mini-batch's mean.
    momentum, weight_decay, clip : :class:`float`, optional
        As :class:`~streamtrain.network.SGD` has them; the network's own without.

    Returns a dictionary: ``"momentum"`` (in steps of 2**-10), ``"decay"`` (``lr * weight_decay``, with
    :func:`decay_frac` fractional bits) and ``"clip"`` (``lr * clip``, with :func:`clip_frac`, at least 1).
    What the design has no hardware for is 0.

    Raises
    ------
    TypeError
        If a value is no number.
    ValueError
        If the design has no hardware for it, or not that range.
    """
    own = plan.network.optimizer
    momentum = _value(own, "momentum", momentum, bool(own.momentum))
    decay = _value(own, "weight_decay", weight_decay, bool(own.weight_decay))
    limit = _value(own, "clip", clip, own.clip is not None)
    codes = {"momentum": 0, "decay": 0, "clip": 0}
    if momentum:
        one = 1 << MOMENTUM_BITS
        codes["momentum"] = round(momentum * one)
        if not 0 < codes["momentum"] < one:
            raise ValueError(
                f"Momentum {momentum:g} is not 0 to {(one - 1) / one:g}, in steps of {1 / one:g}"
            )
    if decay:
        frac, most = decay_frac(plan), decay_limit(plan) - 1
        codes["decay"] = _in_steps("Weight decay", decay, lr, own.lr, frac, most)
    if limit is not None:
        most = 2**CLIP_BITS - 1
        codes["clip"] = max(1, _in_steps("Clip", limit, lr, own.lr, clip_frac(plan), most))
    return codes


def _value(own, name, value, built):
    """A value, or the network's own; checked against what hardware there is."""
    if value is None:
        return getattr(own, name)
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")
    if not built and (value or name == "clip"):
        raise ValueError(
            f"This design has no {name.replace('_', ' ')}; plan the network with SGD({name}=...)"
        )
    return value


def _in_steps(what, value, lr, own, frac, most):
    """``lr * value`` as a code with ``frac`` fractional bits, at most ``most``.

    At learning rates below the network's ``own`` it may vanish, as ``lr`` itself does.
    """
    scale = 2.0**frac
    if not (lr * value * scale <= most and round(max(lr, own) * value * scale) > 0):
        step = 1 / scale / lr
        raise ValueError(
            f"{what} {value:g} at a learning rate of {lr:g} is outside of what this design takes: "
            f"{step:.2g} to {most * step:.3g}, in steps of {step:.2g}"
        )
    return round(lr * value * scale)
