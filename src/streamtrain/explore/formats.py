"""Which number formats train as well as floating point, and what they cost."""

from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from operator import index

import numpy as np

from streamtrain.design import plan as plan_design
from streamtrain.explore.devices import load_board
from streamtrain.explore.ranges import observe
from streamtrain.host.progress import ProgressBar
from streamtrain.network import Network
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import DSP_WIDTHS, Numbers
from streamtrain.pipeline.resources import estimate_resources
from streamtrain.tables import html_table, text_table
from streamtrain.usage import Usage

__all__ = ["FormatStudy", "Trial", "candidates", "study_formats"]

_HEADROOM = {"weights": 1, "activations": 0, "logits": 2, "errors": 0}
"""Bits above those that a range needs: weights and scores go on growing after a short run."""

_NARROW = 10  # bits up to which a format leaves out the largest numbers rather than the smallest
_NARROW_SHARE = 99.9  # percent of the numbers that it holds then

# Widths of weights, activations, errors and master weights, and how weights are rounded.
_WIDTHS = (
    (18, 18, 18, 32, Round.NEAREST),  # the widest there is: what is left is not the formats' doing
    (18, 18, 18, None, Round.NEAREST),
    (16, 16, 16, None, Round.NEAREST),
    (12, 12, 16, None, Round.NEAREST),
    (12, 12, 16, None, Round.STOCHASTIC),
    (12, 12, 16, 24, Round.NEAREST),
    (8, 8, 16, 24, Round.NEAREST),
    (8, 8, 16, 16, Round.STOCHASTIC),
    (8, 8, 10, 20, Round.NEAREST),
    (6, 6, 10, 20, Round.NEAREST),
)
_LOGIT_BITS = 16
_RECENT = 1000  # samples that the progress bar's loss is averaged over


@dataclass(frozen=True)
class Trial:
    """How training went with one choice of formats.

    Parameters
    ----------
    name : :class:`str`
        Such as ``"8/8/16 + 24"``: bits of weights, activations and errors, and of master weights.
    numbers : :class:`~streamtrain.pipeline.numbers.Numbers`
    losses, accuracies : tuple of :class:`float`
        Of each seed: online, over the last quarter of the training. Empty if these formats cannot
        be trained with.
    saturated : :class:`dict`, optional
        Numbers that were saturated, by site: ``"output"``, ``"errors"``, ``"weights"``.
    usage : :class:`~streamtrain.usage.Usage`, optional
        What the design takes, estimated.
    share : :class:`float`, optional
        Part of the board that it takes, 1 for all of it: the mean for DSP slices, block RAMs and
        LUTs.
    reason : :class:`str`
        Why these formats cannot be trained with; empty if they can.
    """

    name: str
    numbers: Numbers
    losses: tuple = ()
    accuracies: tuple = ()
    saturated: dict | None = None
    usage: Usage | None = None
    share: float | None = None
    reason: str = ""

    @property
    def loss(self):
        """Mean of the losses; None if there are none."""
        return float(np.mean(self.losses)) if self.losses else None

    @property
    def accuracy(self):
        """Mean of the accuracies, 0 to 1; None if there are none."""
        return float(np.mean(self.accuracies)) if self.accuracies else None


@dataclass(frozen=True, eq=False)
class FormatStudy:
    """What :func:`study_formats` found.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    board : :class:`str`
    ranges : tuple of :class:`~streamtrain.explore.ranges.TensorRange`
        Of the first training in floating point.
    losses, accuracies : tuple of :class:`float`
        In floating point, of each seed: online, over the last quarter of the training.
    trials : tuple of :class:`Trial`
    tolerance : :class:`float`
        Part by which the loss may exceed that in floating point.
    samples : :class:`int`
        Samples of each training, all epochs together.
    stopped : :class:`int`
        Candidates that were left out because of Ctrl-C.
    """

    network: Network
    board: str
    ranges: tuple
    losses: tuple
    accuracies: tuple
    trials: tuple
    tolerance: float
    samples: int
    stopped: int = 0

    @property
    def loss(self):
        """Mean of the losses in floating point."""
        return float(np.mean(self.losses))

    @property
    def accuracy(self):
        """Mean of the accuracies in floating point, 0 to 1."""
        return float(np.mean(self.accuracies))

    @property
    def good(self):
        """The trials whose loss is within the tolerance, smallest design first.

        Smaller is one that takes a smaller share of the board.
        """
        most = self.loss * (1 + self.tolerance)
        good = [trial for trial in self.trials if not trial.reason and trial.loss <= most]
        return tuple(sorted(good, key=lambda trial: trial.share))

    @property
    def best(self):
        """The smallest design's :class:`Trial` among :attr:`good`; its ``numbers`` go into ``st.plan``.

        Raises :exc:`ValueError` if no candidate is within the tolerance.
        """
        if not self.good:
            raise ValueError(self._shortfall())
        return self.good[0]

    def _shortfall(self):
        """Why no candidate is good."""
        tried = [trial for trial in self.trials if not trial.reason]
        if not tried:
            why = self.trials[0].reason if self.trials else "none was tried"
            return f"No candidate can be trained with: {why}"
        nearest = min(tried, key=lambda trial: trial.loss)
        return (
            f"No candidate's loss is within {self.tolerance:.1%} of floating point's; the nearest, "
            f"{nearest.name}, has {nearest.loss / self.loss - 1:+.1%}. Give a larger tolerance, or "
            f"other formats"
        )

    def _spread(self, trial):
        """Half the range, over seeds, of a trial's loss as a part of that in floating point."""
        return float(np.ptp(np.divide(trial.losses, self.losses))) / 2

    def table(self):
        """Header and rows: loss and accuracy, numbers that were saturated, and resources."""
        rows = [("float", f"{self.loss:.4f}", "", f"{self.accuracy:.2%}", *[""] * 6)]
        best = self.good[0] if self.good else None
        for trial in self.trials:
            if trial.reason:
                rows.append((trial.name, *[""] * 8, trial.reason))
                continue
            note = "best" if trial is best else "within" if trial in self.good else ""
            rows.append((
                trial.name,
                f"{trial.loss:.4f}",
                f"{trial.loss / self.loss - 1:+.1%} ± {100 * self._spread(trial):.1f}",
                f"{trial.accuracy:.2%}",
                sum(trial.saturated.values()),
                trial.usage.dsp,
                trial.usage.bram36,
                round(trial.usage.lut),
                f"{trial.share:.1%}",
                note,
            ))
        header = ("formats", "loss", "to float", "accuracy", "saturated")
        header += ("DSP", "BRAM36", "LUT", "of board", "")
        return header, rows

    def range_table(self):
        """Header and rows: the range of each tensor of the training in floating point.

        Percentiles are of magnitudes, without zeros.
        """
        rows = []
        for own in self.ranges:
            percentiles = (f"{own.percentile(q):.2g}" for q in (1, 50, 99.9))
            rows.append((
                own.tensor,
                own.layer,
                f"{own.lowest:.3g}",
                f"{own.highest:.3g}",
                *percentiles,
                f"{own.zeros / (own.zeros + int(own.counts.sum())):.0%}",
            ))
        header = ("tensor", "layer", "lowest", "highest", "1 %", "50 %", "99.9 %", "zeros")
        return header, rows

    def _summary(self):
        seeds = f"{len(self.losses)} seed" + "s" * (len(self.losses) > 1)
        lines = [
            f"{self.samples:,} samples, {seeds}; loss and accuracy online, over the last quarter."
        ]
        if self.stopped:
            lines.append(f"Stopped: {self.stopped} candidates were not tried.")
        if self.good:
            lines.append(f"Best: {self.best.name}. {formats_text(self.best.numbers)}")
        else:
            lines.append(f"{self._shortfall()}.")
        return lines

    def __str__(self):
        return "\n".join([text_table(*self.table()), *self._summary()])

    def _repr_html_(self):
        lines = "".join(f"<p>{line}</p>" for line in self._summary())
        return f"{html_table(*self.range_table())}{html_table(*self.table())}{lines}"

    def plot(self, path=None):
        """Draw the ranges by octave, with what the best formats hold, and loss against LUTs.

        Parameters
        ----------
        path : path, optional
            Where the picture is written to.

        Returns the axes. Raises :exc:`ImportError` without matplotlib.
        """
        from streamtrain.explore.formats_plot import formats_plot

        return formats_plot(self, path)


def formats_text(numbers):
    """Formats in words."""
    names = ["weights", "master", "activations", "logits", "errors"]
    formats = [f"{name} {getattr(numbers, name)}" for name in names if getattr(numbers, name)]
    stochastic = numbers.round_weights is Round.STOCHASTIC
    return ", ".join(formats) + (", weights rounded at random" if stochastic else "")


def candidates(ranges, design):
    """Formats to try, from the ranges of a training in floating point.

    Each of the usual widths, with as many bits above the point as the numbers need. Formats of up
    to 10 bits hold 99.9 % of the numbers, wider ones all; weights get one bit more and logits two,
    for they grow. A master has no bits below the last one of a gradient.

    Parameters
    ----------
    ranges : sequence of :class:`~streamtrain.explore.ranges.TensorRange`
    design : :class:`~streamtrain.design.Design`
        Of the same network; its formats do not matter.

    Returns a dictionary of :class:`~streamtrain.pipeline.numbers.Numbers` by name.
    """

    def fixed(tensor, width):
        share = _NARROW_SHARE if width <= _NARROW else 100
        bits = max(own.integer_bits(share) for own in ranges if own.tensor == tensor)
        return Fixed(width, width - min(bits + _HEADROOM[tensor], width))

    found = {}
    for weights, activations, errors, master, rounding in _WIDTHS:
        numbers = Numbers(
            weights=fixed("weights", weights),
            activations=fixed("activations", activations),
            logits=fixed("logits", _LOGIT_BITS),
            errors=fixed("errors", errors),
            round_weights=rounding,
        )
        name = f"{weights}/{activations}/{errors}"
        if master is not None:
            finest = _finest(design, numbers)
            frac = min(master - weights + numbers.weights.frac, finest)
            gained = frac - numbers.weights.frac
            if gained < 1:
                continue
            wider = Fixed(weights + gained, frac)
            numbers = replace(numbers, master=wider)
            name += f" + {wider.width}"
        found[name + (" stochastic" if rounding is Round.STOCHASTIC else "")] = numbers
    return found


def _finest(design, numbers):
    """Most bits below the point that a stored weight may have: a gradient's, less one."""
    stages = [
        replace(stage, input=numbers.activations, errors=numbers.errors)
        for stage in design.plan.stages
    ]
    narrowed = replace(design.plan, stages=tuple(stages))
    return numbers.errors.frac + narrowed.rate_exponent - 1


def study_formats(
    network,
    x,
    y,
    board="pynq_z2",
    *,
    epochs=1,
    batch_size=1,
    lr=None,
    tolerance=0.05,
    multipliers=None,
    foldings=None,
    formats=None,
    seeds=3,
    observed=500,
    progress=True,
):
    """Find formats that train a network as well as floating point does, and tell what they cost.

    The network is trained in floating point, which shows how large its numbers are. From that come
    formats to try; the golden model is trained with each, on the same samples in the same order
    from the same first weights. Ctrl-C ends the trials, and what has been tried is returned.

    All is done with several first weights, for what one training gives wanders: two that differ in
    one bit soon go different ways, and their losses differ by some percent.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    x : array (samples, channels, rows, columns)
    y : integer array (samples,)
    board : :class:`str` or path
        For the resources.
    epochs, batch_size : :class:`int`
        Passes over the samples, in their order; and samples in a mini-batch.
    lr : :class:`float`, optional
        Learning rate; that of the network's optimiser without.
    tolerance : :class:`float`
        Part by which a loss may exceed that in floating point.
    multipliers, foldings
        As :func:`~streamtrain.design.plan` takes them. All designs have the same foldings.
    formats : dict of :class:`~streamtrain.pipeline.numbers.Numbers` by name, optional
        What to try; without it, what :func:`candidates` proposes.
    seeds : :class:`int`
        First weights to train from: those of the network's seed, and of the seeds that follow.
    observed : :class:`int`
        Steps of the first training in floating point that are looked at.
    progress : :class:`bool`
        Whether to show progress bars.

    Returns a :class:`FormatStudy`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or value.
    KeyboardInterrupt
        On Ctrl-C while it trains in floating point.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance!r}")
    for name, numbers in (formats or {}).items():
        if not isinstance(numbers, Numbers):
            raise TypeError(f"Formats must be Numbers, but {name!r} is {numbers!r}")
    if lr is not None and not isinstance(lr, Real):
        raise TypeError(f"lr must be a number, not {lr!r}")
    counts = {"epochs": epochs, "batch_size": batch_size, "seeds": seeds, "observed": observed}
    for what, value in counts.items():
        if index(value) < 1:
            raise ValueError(f"{what} must be at least 1, not {value!r}")
    x, y = np.asarray(x), np.asarray(y)
    design = plan_design(
        network, board, numbers=_wide(x), multipliers=multipliers, foldings=foldings,
        max_batch=batch_size,
    )  # fmt: skip
    options = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    first, ranges = observe(design, x, y, **options, observed=observed, progress=progress)
    if formats is None:
        formats = candidates(ranges, design)
    count, trials = len(first), []
    with ProgressBar("trying formats", (len(formats) + 1) * seeds * count, enabled=progress) as bar:

        def train(designs, text, before, exact):
            """Histories of designs that differ in their first weights, and all that saturated."""
            histories, saturated = [], {}
            for number, one in enumerate(designs):
                trainer = one.golden(exact=exact)
                done = (before + number) * count

                def show(history, done=done):
                    loss = history.losses[-_RECENT:].mean()
                    bar.update(done + len(history), f"{text}  loss {loss:.3f}")

                histories.append(trainer.fit(x, y, **options, progress=False, callback=show))
                for sites in trainer.saturations().values():
                    for site, clipped in sites.items():
                        saturated[site] = saturated.get(site, 0) + clipped
            return histories, saturated

        others, _ = train(_seeded(design, seeds, _wide(x))[1:], "float", 0, False)
        try:
            for name, numbers in formats.items():
                before = (len(trials) + 1) * seeds
                trials.append(_try(name, numbers, design, seeds, partial(train, before=before)))
        except KeyboardInterrupt:
            pass
    losses, accuracies = _online([first, *others])
    return FormatStudy(
        network=network,
        board=design.board,
        ranges=ranges,
        losses=losses,
        accuracies=accuracies,
        trials=tuple(trials),
        tolerance=tolerance,
        samples=count,
        stopped=len(formats) - len(trials),
    )


def _online(histories):
    """Loss and accuracy of each over the last quarter."""
    last = slice(len(histories[0]) * 3 // 4, None)
    losses = (float(history.losses[last].mean()) for history in histories)
    accuracies = (float(history.correct[last].mean()) for history in histories)
    return tuple(losses), tuple(accuracies)


def _seeded(design, seeds, numbers=None):
    """A design with other formats, for each of the first weights."""
    own = design.network
    return [
        plan_design(
            replace(own, seed=own.seed + number),
            design.board,
            numbers=numbers,
            foldings=design.foldings,
            max_batch=design.plan.max_batch,
        )
        for number in range(seeds)
    ]


def _wide(x):
    """Formats for a training in floating point: only samples are rounded there."""
    if x.dtype == np.uint8 or not np.issubdtype(x.dtype, np.floating) or not x.size:
        return Numbers()
    largest = float(np.abs(x[np.isfinite(x)]).max(initial=1))
    bits = int(np.floor(np.log2(largest))) + 2
    width = DSP_WIDTHS[1]
    return Numbers(activations=Fixed(width, width - min(max(bits, 5), width)))


def _try(name, numbers, design, seeds, train):
    """Train with one choice of formats."""
    try:
        designs = _seeded(design, seeds, numbers)
        histories, saturated = train(designs, name, exact=True)
    except (ValueError, OverflowError) as error:  # of the formats: floating point took the rest
        return Trial(name, numbers, reason=str(error))
    losses, accuracies = _online(histories)
    device = load_board(design.board).device
    usage = estimate_resources(designs[0].plan, device).total
    parts = [getattr(usage, name) / device.resources[name] for name in ("dsp", "bram36", "lut")]
    return Trial(name, numbers, losses, accuracies, saturated, usage, float(np.mean(parts)))
