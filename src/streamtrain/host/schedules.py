"""Learning rates that change while a network is trained."""

from dataclasses import dataclass
from math import cos, pi
from numbers import Real
from operator import index

from streamtrain.records import Record

__all__ = ["CosineLR", "StepLR"]


def _rate(schedule, name, low=0.0):
    value = getattr(schedule, name)
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{type(schedule).__name__} {name} must be a number, not {value!r}")
    if value <= low:
        raise ValueError(
            f"{type(schedule).__name__} {name} must be more than {low:g}, not {value!r}"
        )


def _steps(schedule, name):
    value = getattr(schedule, name)
    try:
        object.__setattr__(schedule, name, index(value))
    except TypeError:
        raise TypeError(
            f"{type(schedule).__name__} {name} must be an integer, not {value!r}"
        ) from None
    if value < 1:
        raise ValueError(f"{type(schedule).__name__} {name} must be at least 1, not {value!r}")


@dataclass(frozen=True)
class StepLR(Record):
    """A learning rate that is multiplied with ``gamma`` every ``step_size`` updates.

    Parameters
    ----------
    lr : :class:`float`
        Of the first updates.
    step_size : :class:`int`
        Updates, that is, mini-batches.
    gamma : :class:`float`

    Raises
    ------
    TypeError, ValueError
        If a value is of the wrong kind, or not positive.
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self):
        _rate(self, "lr")
        _steps(self, "step_size")
        _rate(self, "gamma")

    def __call__(self, step):
        """Learning rate of the update number ``step``; the first one is 0."""
        return self.lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True)
class CosineLR(Record):
    """A learning rate that falls from ``lr`` to ``lowest`` on half a cosine, and stays there.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5, without restarts.

    Parameters
    ----------
    lr, lowest : :class:`float`
    steps : :class:`int`
        Updates, that is, mini-batches, until it is reached.

    Raises
    ------
    TypeError, ValueError
        If a value is of the wrong kind, not positive, or ``lowest`` is above ``lr``.
    """

    lr: float
    steps: int
    lowest: float

    def __post_init__(self):
        _rate(self, "lr")
        _steps(self, "steps")
        _rate(self, "lowest")
        if self.lowest > self.lr:
            raise ValueError(
                f"CosineLR lowest must be at most lr, {self.lr!r}, not {self.lowest!r}"
            )

    def __call__(self, step):
        """Learning rate of the update number ``step``; the first one is 0."""
        part = min(step / self.steps, 1.0)
        return self.lowest + (self.lr - self.lowest) * (1 + cos(pi * part)) / 2
