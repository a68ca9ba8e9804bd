"""What training and evaluation give back."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streamtrain.tables import Shown

__all__ = ["Done", "Evaluation", "History", "Step"]


class Done:
    """Losses, predictions and, where there is a clock, cycles of the samples that have been run.

    ``paused`` are those of the first mini-batch after a pause of the host.
    """

    def __init__(self, losses, predicted, cycles, paused=None):
        self.losses, self.predicted, self.cycles = losses, predicted, cycles
        self.paused = np.zeros(len(losses), bool) if paused is None else paused

    def __len__(self):
        return len(self.losses)

    def put(self, part, chunk):
        """Fill in a chunk."""
        self.losses[part] = chunk.losses
        self.predicted[part] = chunk.predicted
        if chunk.cycles is None or self.cycles is None:
            self.cycles = None
        else:
            self.cycles[part] = chunk.cycles

    def until(self, end):
        """The first ``end`` samples."""
        cycles = None if self.cycles is None else self.cycles[:end]
        return Done(self.losses[:end], self.predicted[:end], cycles, self.paused[:end])

    def paused_before(self, chosen):
        """Whether there was a pause between each chosen sample and the chosen one before it."""
        return np.diff(np.cumsum(self.paused)[chosen], prepend=0) > 0


@dataclass(frozen=True, eq=False)
class Step:
    """One training step: one mini-batch, one update of the weights.

    Parameters
    ----------
    loss : :class:`float`
        Mean over the mini-batch, from before the update.
    predicted : int64 array, (samples,)
        Class indices, from before the update.
    cycles : :class:`int`, optional
        Clock cycles until the last result, where there is a clock. They begin with what the step
        before left to do after its own result, so that they add up over steps.
    """

    loss: float
    predicted: np.ndarray
    cycles: int | None = None


@dataclass(frozen=True)
class Evaluation(Shown):
    """How well a network does on labelled samples.

    Parameters
    ----------
    loss : :class:`float`
        Mean loss.
    accuracy : :class:`float`
        Correctly classified part, 0 to 1.
    count : :class:`int`
        Samples.
    """

    loss: float
    accuracy: float
    count: int

    def table(self):
        """Header and row: samples, loss, accuracy."""
        return ("samples", "loss", "accuracy"), [(self.count, self.loss, f"{self.accuracy:.2%}")]

    def __str__(self):
        return f"{self.count:,} samples: loss {self.loss:.4f}, accuracy {self.accuracy:.2%}"


@dataclass(frozen=True, eq=False)
class History(Shown):
    """How a call to :meth:`~streamtrain.host.trainer.Trainer.fit` went, sample by sample.

    Losses and predictions are *online*: each sample's are from before the network learned from it.

    Parameters
    ----------
    losses : float64 array, (samples,)
        Loss of each sample, in the order of training.
    correct : bool array, (samples,)
        Whether each sample was classified correctly.
    seconds : :class:`float`
        Time that it all took.
    cycles : int64 array, (samples,), optional
        Clock cycle at which each sample's result left the hardware, where there is a clock.
    epochs : :class:`int`
        Passes over the samples that were asked for.
    restored : :class:`int`
        Samples, of all, that had been trained with before a checkpoint; ``seconds`` are of the others.
    paused : bool array, (samples,), optional
        Whether the host paused before each sample's mini-batch, which then found an empty pipeline.
    """

    losses: np.ndarray
    correct: np.ndarray
    seconds: float
    cycles: np.ndarray | None = None
    epochs: int = 1
    restored: int = 0
    paused: np.ndarray | None = None

    def __len__(self):
        return len(self.losses)

    @property
    def loss(self):
        """Mean online loss."""
        return float(self.losses.mean())

    @property
    def accuracy(self):
        """Correctly classified part, online, 0 to 1."""
        return float(self.correct.mean())

    @property
    def samples_per_second(self):
        """Samples trained on per second of real time."""
        return (len(self) - self.restored) / self.seconds

    @property
    def cycles_per_sample(self):
        """Mean clock cycles from one sample's result to the next; None without a clock.

        Mini-batches before which the host paused are left out, unless there are no others.
        """
        if self.cycles is None or len(self) < 2:
            return None
        gaps = np.diff(self.cycles)
        if self.paused is not None and not self.paused[1:].all():
            gaps = gaps[~self.paused[1:]]
        return float(gaps.mean())

    def table(self):
        """Header and rows: samples, online loss and accuracy; a row per epoch, or per quarter of one."""
        parts = self.epochs if self.epochs > 1 else min(4, len(self))
        edges = [len(self) * part // parts for part in range(parts + 1)]
        rows = [
            (
                f"{first + 1:,} to {end:,}",
                float(self.losses[first:end].mean()),
                f"{self.correct[first:end].mean():.2%}",
            )
            for first, end in pairwise(edges)
            if end > first
        ]
        return ("samples", "online loss", "online accuracy"), rows

    def _summary(self):
        cycles = self.cycles_per_sample
        clocked = "" if cycles is None else f", {cycles:,.0f} cycles each"
        restored = f" after {self.restored:,} of before" if self.restored else ""
        return (
            f"{len(self) - self.restored:,} samples in {self.seconds:,.1f} s{restored} "
            f"({self.samples_per_second:,.0f} samples/s{clocked}): "
            f"online loss {self.loss:.4f}, accuracy {self.accuracy:.2%}"
        )

    def plot(self):
        """Draw online loss and accuracy, averaged over windows of 1/50 of the samples.

        Returns the two axes. Raises :exc:`ImportError` without matplotlib.
        """
        try:
            from matplotlib import pyplot
        except ImportError:
            raise ImportError(
                "Plots need matplotlib; install it with: pip install streamtrain[notebook]"
            ) from None
        window = max(1, len(self) // 50)
        position = np.arange(window, len(self) + 1)
        _, axes = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
        for axis, values, label in (
            (axes[0], self.losses, "online loss"),
            (axes[1], self.correct, "online accuracy"),
        ):
            total = np.concatenate([[0], np.cumsum(values, dtype=np.float64)])
            axis.plot(position, (total[window:] - total[:-window]) / window)
            axis.set(xlabel="samples", ylabel=label)
            axis.grid(alpha=0.3)
        return axes
