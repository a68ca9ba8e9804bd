"""What a trainer asks of the place where it runs: golden model, simulation, or board."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Protocol

import numpy as np

from streamtrain.network import Network

__all__ = [
    "LOSS_FRAC",
    "Commands",
    "Device",
    "Op",
    "Results",
    "TrainablePlan",
    "check_random",
]

LOSS_FRAC = 12
"""Fractional bits of a loss."""


class Op(IntEnum):
    """What the hardware does with one sample, or with its weights."""

    INFER = 0
    """Scores and predicted class."""
    EVALUATE = 1
    """Also the loss, by the sample's label."""
    TRAIN = 2
    """Also the gradients; the weights are updated at the end of the mini-batch."""
    WRITE = 3
    """Take new weights for one stage."""
    READ = 4
    """Give out the weights of one stage."""


@dataclass(frozen=True)
class Commands:
    """One command per sample, as equally long integer arrays.

    Parameters
    ----------
    op : array of :class:`Op`
    label : array
        Class index; 0 where there is none.
    update : array of 0 or 1
        Whether a mini-batch ends with this sample, so that the weights are updated after it.
    mantissa, shift : arrays
        Learning rate as the plan's ``rate_code`` gives it.
    frozen : array, optional
        Which stages keep their weights, as bits, the first stage lowest; the same for all samples of a
        mini-batch. None without.
    momentum, decay, clip : arrays, optional
        What else the optimiser needs, as :func:`streamtrain.pipeline.optimizer.update_codes` gives it; 0
        without.
    """

    op: np.ndarray
    label: np.ndarray
    update: np.ndarray
    mantissa: np.ndarray
    shift: np.ndarray
    frozen: np.ndarray | None = None
    momentum: np.ndarray | None = None
    decay: np.ndarray | None = None
    clip: np.ndarray | None = None

    def __post_init__(self):
        for name in ("frozen", "momentum", "decay", "clip"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(np.shape(self.op), np.int64))

    def __len__(self):
        return len(self.op)

    def __getitem__(self, part):
        """The commands of a slice of the samples."""
        return Commands(*(getattr(self, field.name)[part] for field in fields(self)))


@dataclass(frozen=True)
class Results:
    """One result per sample.

    Parameters
    ----------
    scores : integer array, (samples, classes)
        Logits as codes of the last stage's output format.
    loss : array, (samples,)
        Codes with :data:`LOSS_FRAC` fractional bits, or, where the host computes it, real numbers in units of
        such a code; 0 where there was no label.
    predicted : integer array, (samples,)
        The first class with the largest score.
    cycles : integer array, (samples,), or None
        Clock cycle at which the result left the hardware, where there is a clock. Where a mini-batch is
        computed as a whole, its samples share its cycles evenly.
    """

    scores: np.ndarray
    loss: np.ndarray
    predicted: np.ndarray
    cycles: np.ndarray | None = None


def check_random(plan, states):
    """Raise :exc:`ValueError` unless ``states`` are those of a plan's random bits."""
    names = [f"{stage.name}.{site}" for _, stage, site in plan.random_sites]
    if sorted(names) != sorted(states):
        raise ValueError(
            f"Random states must be those of {', '.join(names) or 'none'}, "
            f"not of {', '.join(states) or 'none'}"
        )
    for name, state in states.items():
        if not 0 < state < 1 << 32:
            raise ValueError(f"Random state of {name} must be 1 to 2**32 - 1, not {state!r}")


class TrainablePlan(Protocol):
    """What a trainer asks of a plan, whichever core it is for.

    Attributes
    ----------
    core : :class:`str`
        ``"streaming"`` or ``"unified"``.
    network : :class:`~streamtrain.network.Network`
    max_batch : :class:`int`
        Samples of a mini-batch, at most.
    random_sites : tuple
        Where numbers are rounded stochastically.
    """

    core: str
    network: Network
    max_batch: int
    random_sites: tuple

    @property
    def sample_format(self):
        """Format that samples are encoded in."""
        ...

    @property
    def weight_formats(self) -> dict:
        """Format in which the weights of each layer that has some are stored, by its name."""
        ...

    @property
    def velocity_formats(self) -> dict:
        """That of the velocities of layers that have some."""
        ...

    def command_codes(self, lr, batch, **others) -> dict[str, int]:
        """Fields of a sample's :class:`Commands` that say how weights are updated.

        Takes the learning rate of the mean over a mini-batch, its samples, and ``momentum``,
        ``weight_decay`` and ``clip``, None for the network's own. Raises :exc:`ValueError` for what the
        design cannot do.
        """
        ...

    def frozen_code(self, names) -> int:
        """The command's ``frozen``. Raises :exc:`ValueError` if layers cannot be frozen at run time."""
        ...

    def layer_facts(self) -> dict[str, dict]:
        """What results depend on besides the network, by layer and the words of a message."""
        ...

    def encode_weights(self, weights) -> dict:
        """Real weights by their names as they are stored."""
        ...

    def decode_weights(self, stored) -> dict:
        """Undo :meth:`encode_weights`."""
        ...


class Device(Protocol):
    """A place that trains. Shapes of tensors are PyTorch's.

    Tensors are integer codes of their formats; weights that are stored in floating point are float32 numbers.
    A device may have ``images``: it runs so many samples at once, and any other number is a waste.
    """

    def run(self, x: np.ndarray, commands: Commands) -> Results:
        """Process samples ``x`` (samples, channels, rows, columns) in order."""
        ...

    def read_weights(self) -> dict[str, np.ndarray]:
        """Stored weights: ``"conv1.weight"`` (out, in, rows, columns) or (out, in), ``"conv1.bias"``."""
        ...

    def write_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Replace all stored weights. What the optimiser remembers stays."""
        ...

    def read_optimizer(self) -> dict[str, np.ndarray]:
        """What the optimiser remembers between updates, shaped as the weights are.

        With momentum the velocities, ``"conv1.weight.velocity"``; nothing without.
        """
        ...

    def write_optimizer(self, state: dict[str, np.ndarray]) -> None:
        """Replace all that :meth:`read_optimizer` gives."""
        ...

    def read_random(self) -> dict[str, int]:
        """States of the random bits of stochastic rounding, ``"conv1.weights"``; empty without it."""
        ...

    def write_random(self, states: dict[str, int]) -> None:
        """Replace all that :meth:`read_random` gives."""
        ...

    def saturations(self) -> dict[str, dict[str, int]]:
        """Numbers saturated since the start: ``["conv1"]["output" | "errors" | "weights"]``.

        With momentum also ``"velocity"``. Nothing where none are counted.
        """
        ...
