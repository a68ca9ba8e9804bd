"""Ranges of all that a training step computes, from a training run in floating point."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor, log2

import numpy as np

from streamtrain.host.device import Op
from streamtrain.host.progress import ProgressBar
from streamtrain.host.results import History
from streamtrain.host.trainer import encode_samples, training_commands
from streamtrain.pipeline.plan import RATE_UNIT

__all__ = ["TENSORS", "Tally", "TensorRange", "observe"]

TENSORS = ("weights", "activations", "logits", "errors", "gradients")
"""Kinds of tensors that are observed."""

_LOWEST, _HIGHEST = -60, 40  # octaves that are told apart
_PARTS = 8  # of an octave, in a histogram


@dataclass(frozen=True, eq=False)
class TensorRange:
    """How large the numbers of one tensor were over a training run.

    Parameters
    ----------
    layer, tensor : :class:`str`
        The layer, or ``"input"`` for samples; and one of :data:`TENSORS`. Biases count as weights.
        Activations and logits are what a layer puts out, after ReLU and pooling; errors are
        gradients with respect to a layer's sums, with the mantissa of the learning rate in them;
        gradients are those of weights and biases, for one sample, without a learning rate.
    lowest, highest : :class:`float`
    zeros : :class:`int`
        Numbers that were 0. All else is about the others.
    counts : int64 array
        Numbers by magnitude: 8 bins for each octave, from ``2**-60``; those beyond are in the
        first and in the last bin.
    """

    layer: str
    tensor: str
    lowest: float
    highest: float
    zeros: int
    counts: np.ndarray

    @property
    def largest(self):
        """The largest magnitude."""
        return max(abs(self.lowest), abs(self.highest))

    @property
    def octaves(self):
        """Share of the numbers in each octave: ``{e: share}`` with ``2**e <= |number| < 2**(e+1)``."""
        counts = self.counts.reshape(-1, _PARTS).sum(axis=1)
        used = np.flatnonzero(counts)
        return {int(e) + _LOWEST: float(counts[e] / counts.sum()) for e in used}

    def percentile(self, q):
        """Magnitude that ``q`` percent of the numbers do not exceed, to within an eighth of an octave."""
        total = self.counts.sum()
        if not total:
            return 0.0
        bin_ = int(np.searchsorted(np.cumsum(self.counts), q / 100 * total))
        return min(2.0 ** (_LOWEST + (min(bin_, len(self.counts) - 1) + 1) / _PARTS), self.largest)

    def integer_bits(self, q=100):
        """Bits above the point, with the sign, that ``q`` percent of the numbers need."""
        largest = self.largest if q == 100 else self.percentile(q)
        return 1 if not largest else floor(log2(largest)) + 2


class Tally:
    """A range that grows with the numbers that are added to it."""

    def __init__(self):
        self._lowest, self._highest, self._zeros = np.inf, -np.inf, 0
        self._counts = np.zeros((_HIGHEST - _LOWEST) * _PARTS, np.int64)

    def add(self, values):
        values = np.ravel(values)
        self._lowest = min(self._lowest, float(values.min()))
        self._highest = max(self._highest, float(values.max()))
        sizes = np.abs(values[values != 0])
        self._zeros += values.size - sizes.size
        bins = np.floor((np.log2(sizes) - _LOWEST) * _PARTS).astype(np.int64)
        self._counts += np.bincount(
            np.clip(bins, 0, self._counts.size - 1), minlength=self._counts.size
        )

    def range(self, layer, tensor):
        return TensorRange(layer, tensor, self._lowest, self._highest, self._zeros, self._counts)


def observe(design, x, y, *, epochs=1, batch_size=1, lr=None, observed=500, progress=True):
    """Train the float twin of a design, and look at its numbers along the way.

    The looks change nothing: a copy with the same weights computes the gradients of one sample.

    Parameters
    ----------
    design : :class:`~streamtrain.design.Design`
    x, y : arrays
        Samples and labels; each epoch in their order.
    epochs, batch_size : :class:`int`
    lr : :class:`float`, optional
        Learning rate; that of the network's optimiser without.
    observed : :class:`int`
        Looks, evenly spread over the training.
    progress : :class:`bool`
        Whether to show a progress bar.

    Returns a :class:`~streamtrain.host.results.History` and a tuple of :class:`TensorRange`.

    Raises what :meth:`~streamtrain.host.trainer.Trainer.fit` raises.
    """
    from streamtrain.golden import Golden  # late: it brings a compiler

    trainer, probe = design.golden(exact=False), Golden(design.plan, exact=False)
    x = trainer._samples(x)
    y = trainer._labels(y, len(x))
    steps = ceil(len(x) / batch_size)  # of an epoch
    looks = min(steps * epochs, observed)
    edges = set(np.linspace(0, steps * epochs, looks, endpoint=False).astype(int).tolist())
    edges = sorted(edges | {steps * epoch for epoch in range(1, epochs + 1)})
    tallies, histories = {}, []
    with ProgressBar("training in float", len(x) * epochs, enabled=progress) as bar:
        for first, end in pairwise(edges):
            start = first % steps * batch_size
            own = np.full(batch_size, y[start])
            command = training_commands(design.plan, own, batch_size, lr)[:1]
            probe.write_weights(trainer.device.read_weights())
            codes = encode_samples(design.plan, x[start : start + 1])
            _look(tallies, design.plan, probe, codes, replace(command, update=np.ones(1, int)))

            part = slice(start, start + (end - first) * batch_size)
            histories.append(
                trainer.fit(x[part], y[part], batch_size=batch_size, lr=lr, progress=False)
            )
            bar.update(sum(map(len, histories)), f"loss {histories[-1].loss:.3f}")
    _tally(tallies, "input", "activations").add(x / 255 if x.dtype == np.uint8 else x)
    history = History(
        losses=np.concatenate([history.losses for history in histories]),
        correct=np.concatenate([history.correct for history in histories]),
        seconds=sum(history.seconds for history in histories),
        epochs=epochs,
    )
    order = ["input", *(stage.name for stage in design.plan.stages)]
    named = sorted(tallies, key=lambda name: (TENSORS.index(name[1]), order.index(name[0])))
    return history, tuple(tallies[name].range(*name) for name in named)


def _tally(tallies, layer, tensor):
    return tallies.setdefault((layer, tensor), Tally())


def _look(tallies, plan, probe, codes, command):
    """Add all numbers of one sample's training step."""
    for name, values in plan.decode_weights(probe.read_weights()).items():
        _tally(tallies, name.partition(".")[0], "weights").add(values)
    last = plan.stages[-1]
    scores = probe.run(codes, replace(command, op=np.array([Op.INFER]))).scores
    _tally(tallies, last.name, "logits").add(last.output.decode(scores))
    trace = probe.trace(codes[0], command)
    rate = command.mantissa[0] / RATE_UNIT  # it is in the errors
    for before, stage in zip([None, *plan.stages], plan.stages, strict=False):
        seen = trace[stage.name]
        x = stage.input.decode(seen["x"])
        if before is not None:
            _tally(tallies, before.name, "activations").add(x)
        if "dz" not in seen:
            continue
        dz = stage.errors.decode(seen["dz"])
        _tally(tallies, stage.name, "errors").add(dz)
        gradients = _tally(tallies, stage.name, "gradients")
        gradients.add(_weight_gradients(stage, x, dz) / rate)
        if stage.bias:
            gradients.add(dz.sum(axis=(1, 2)) / rate)


def _weight_gradients(stage, x, dz):
    """dw[m, n, i, j] = sum over r, c of dz[m, r, c] * x[n, r + i - pad, c + j - pad], in any order."""
    x = np.pad(x.reshape(len(x), stage.rows, stage.cols), [(0, 0)] + [(stage.pad, stage.pad)] * 2)
    taps = [
        x[:, i : i + stage.out_rows, j : j + stage.out_cols]
        for i in range(stage.kernel)
        for j in range(stage.kernel)
    ]
    return np.concatenate(taps).reshape(-1, stage.pixels) @ dz.reshape(-1, stage.pixels).T
