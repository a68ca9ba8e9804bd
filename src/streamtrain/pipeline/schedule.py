"""When each stage of a plan is busy: cycles of a training step, and foldings that keep them few.

The estimate follows every pixel of a sample through the stages. A stage multiplies an output once
the inputs under its window are in its memory, and one output after the other. So the times at which
outputs are done follow from the times at which the stage before was done with its own,
``done[p] = max(done[p - 1], ready[p]) + cycles``, which NumPy solves with one running maximum.
Errors go the same way back. All times are cycles.

Many foldings of one network are estimated at once: arrays of times have a leading axis for them.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, permutations, product
from math import ceil, prod
from operator import index

import numpy as np

from streamtrain.pipeline.plan import Plan, lower
from streamtrain.records import Record
from streamtrain.tables import html_table, text_table

__all__ = ["Estimate", "balanced_foldings", "estimate"]

# Cycles that the gateware's registers add; all others follow from what is multiplied and written.

# From the last multiplication of an output (or input error) until the neighbour can read it.
LATENCY = 14
# From a pixel at the pipeline's edge until the first stage can read it.
INPUT_LATENCY = 5
# From the last logit to the first error, besides one cycle for each class.
LOSS_LATENCY = 36
# From the last multiplication of a weight gradient until the next sample may be multiplied.
UPDATE_LATENCY = 10

PHASES = ("FP", "BP", "WU")

_NUDGE = 2**-8  # by which a phase is lengthened to see whether the step gets longer

# The search for foldings.
_GROUP = 32  # foldings estimated at once: as many as keep the arrays in the processor's cache
_ALIKE = 0.001  # part of the cycles that is no reason to prefer a folding: fewer lanes are
_RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of a stage's time to the one before, at the start
_STARTS = 2  # the best of these are improved
_LARGER = 3  # next larger sizes that one stage gets at another's expense
_SHAPES = 3  # foldings of each size that are tried in such an exchange


@dataclass(frozen=True)
class Estimate(Record):
    """What a plan costs in cycles.

    Parameters
    ----------
    plan : :class:`Plan`
    batch : :class:`int`
        Samples between two updates.
    cycles : :class:`int`
        From one sample to the next while training; with a mini-batch the mean over its samples,
        including the wait for the update.
    latency : :class:`int`
        Cycles of a prediction: from a sample's first pixel to its class, with all else idle.
    path : tuple of (FP, BP, WU)
        For each stage, the part of ``cycles`` that its phases decide: what a sample would take
        longer if that phase alone took twice as long, to first order. 0 where others hide it.
    """

    plan: Plan
    batch: int
    cycles: int
    latency: int
    path: tuple

    @property
    def phases(self):
        """Cycles in which each stage's array multiplies for one sample, by name and phase."""
        return {stage.name: stage.phase_cycles() for stage in self.plan.stages}

    @property
    def binding(self):
        """Name and phase of what decides the most cycles: where more multipliers help first."""
        deciding = {
            (stage.name, phase): cycles
            for stage, own in zip(self.plan.stages, self.path, strict=True)
            for phase, cycles in zip(PHASES, own, strict=True)
        }
        return max(deciding, key=deciding.__getitem__)

    @property
    def bound_cycles(self):
        """Cycles of a step if every multiplier worked in every cycle."""
        return self.plan.bound_cycles

    @property
    def utilisation(self):
        """Part of all multipliers' cycles in which they work."""
        return self.bound_cycles / self.cycles

    def table(self):
        """Header and rows: a stage's folding, the cycles of its phases, and those they decide."""
        rows = []
        for stage, path in zip(self.plan.stages, self.path, strict=True):
            phases = stage.phase_cycles()
            rows.append((
                stage.name,
                "x".join(map(str, stage.folding)),
                stage.multipliers,
                *(phases[phase] for phase in PHASES),
                f"{sum(phases.values()) / self.cycles:.0%}",
                *path,
            ))
        decides = [f"{phase} decides" for phase in PHASES]
        return ("stage", "folding", "multipliers", *PHASES, "busy", *decides), rows

    def _summary(self):
        stage, phase = self.binding
        each = "a training step" if self.batch == 1 else f"each of a batch of {self.batch}"
        return (
            f"{self.cycles:,} cycles for {each} on {self.plan.multipliers:,} multipliers "
            f"({self.utilisation:.0%} of them busy), decided most by {stage}'s {phase}; "
            f"{self.latency:,} cycles for a prediction"
        )

    def __str__(self):
        return f"{text_table(*self.table())}\n{self._summary()}"

    def _repr_html_(self):
        return f"{html_table(*self.table())}<p>{self._summary()}</p>"


def estimate(plan, batch=1):
    """Estimate the cycles of a training step.

    At batch 1 a stage takes up a sample when its own weights are updated, and every pixel is
    followed. In a mini-batch samples pass freely: their pace is set by the busiest stage, or by the
    one that stores its ``plan.in_flight`` samples for longest; the last sample takes a whole step.
    That is coarser: a simulation of every pixel comes out up to a tenth slower or faster.

    Parameters
    ----------
    plan : :class:`Plan`
    batch : :class:`int`
        Samples between two updates.

    Returns
    -------
    :class:`Estimate`

    Raises
    ------
    ValueError
        If ``batch`` is less than 1 or more than the plan's ``max_batch``.
    """
    batch = index(batch)
    if not 1 <= batch <= plan.max_batch:
        raise ValueError(
            f"Batch must be 1 to {plan.max_batch}, the plan's max_batch, not {batch!r}"
        )
    # The first row is the plan; in each of the others one phase of one stage is a little longer.
    phases = len(plan.stages) * len(PHASES)
    stretch = np.ones((1 + phases, phases))
    stretch[1:] += _NUDGE * np.eye(phases)
    foldings = np.broadcast_to([s.folding for s in plan.stages], (1 + phases, len(plan.stages), 3))
    timing = _Timing(plan.stages, foldings, plan.in_flight, stretch.reshape(foldings.shape))
    cycles = timing.cycles(batch)
    path = np.rint((cycles[1:] - cycles[0]) / _NUDGE).astype(int).reshape(-1, 3)
    return Estimate(
        plan=plan,
        batch=batch,
        cycles=_whole(cycles[0]),
        latency=_whole(timing.latency()[0]),
        path=tuple(tuple(own) for own in path.tolist()),
    )


def _whole(cycles):
    """Whole cycles; parts of one come from words that are shared between pixels."""
    return ceil(cycles - 1e-6)


# -- The recurrence --------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _needs(rows, cols, reach, given, square=1):
    """For each position of a rows x cols map, the last one of the ``given`` map that it waits for.

    The window reaches ``reach`` rows and columns ahead, in a map of which each given pixel covers a
    ``square``.
    """
    last_row = np.minimum((np.arange(rows) + reach) // square, given[0] - 1)
    last_col = np.minimum((np.arange(cols) + reach) // square, given[1] - 1)
    return (last_row[:, None] * given[1] + last_col).ravel()


@lru_cache(maxsize=256)
def _corners(pooled, cols, pool):
    """Of each pooling square, the position of its last output in a map with ``cols`` columns."""
    row = (np.arange(pooled[0]) + 1) * pool - 1
    col = (np.arange(pooled[1]) + 1) * pool - 1
    return (row[:, None] * cols + col).ravel()


def _in_turn(ready, cycles):
    """When jobs end that take ``cycles`` each, one after the other, none before it is ``ready``.

    Shapes are (foldings, jobs) for times and (foldings, 1) for ``cycles``.
    """
    before = np.arange(ready.shape[1]) * cycles
    return np.maximum.accumulate(ready - before, axis=1) + (before + cycles)


def _written(done, *, words, last, span):
    """When pixels can be read in the neighbour's memory, which takes one word per cycle.

    ``done`` is when a pixel's last sums are multiplied, ``span`` cycles after its first ones. The
    memory writes ``words`` for each pixel, ``last`` of them for its last sums. Also returns when
    the memory lets the array go, as the queue between them is short.
    """
    lag = LATENCY + np.maximum(last, words - span)
    written = _in_turn(done + lag - words, words)
    return written, written[:, -1:] - lag


class _Folded:
    """A stage on many foldings. Attributes, and times of one event, have shape (foldings, 1).

    Parameters
    ----------
    stage : :class:`Stage`
        Its own folding is ignored.
    foldings : array (foldings, 3)
    stretch : array (foldings, 3)
        Factors on the cycles of FP, BP and WU.
    """

    def __init__(self, stage, foldings, stretch):
        self.stage = stage
        self.pm, self.pn, pk = np.hsplit(foldings, 3)
        self.mb, self.nb = stage.channels[1] / self.pm, stage.channels[0] / self.pn
        words = self.mb * self.nb * stage.kernel**2 / pk
        fp, bp, wu = np.hsplit(stretch, 3)
        self.fp, self.bp = fp * words, bp * words  # for one pixel
        self.wu, self.wu_block = wu * words * stage.pixels, wu * stage.pixels
        inputs = stage.rows * stage.cols if stage.back else 0
        self.busy = stage.pixels * self.fp + inputs * self.bp + self.wu

    def read(self, start):
        """The first stage: when it can read its pixels if they are sent from ``start`` on."""
        pixels = self.stage.rows * self.stage.cols
        return start + INPUT_LATENCY + (np.arange(pixels) + 1) * self.nb

    def forward(self, x, start, room, following):
        """FP of a sample: when ``following`` (None for the loss) can read the outputs.

        Parameters
        ----------
        x : array (foldings, pixels)
            When inputs can be read.
        start : array (foldings, 1)
            When the weights are ready.
        room : array (foldings, 1)
            When ``following`` can store the sample.
        """
        stage = self.stage
        reach = stage.kernel - 1 - stage.pad
        needs = _needs(stage.out_rows, stage.out_cols, reach, (stage.rows, stage.cols))
        corners = _corners(stage.pooled, stage.out_cols, stage.pool)
        ready = np.maximum(x[:, needs], start)
        np.maximum(ready[:, corners[0] :], room - LATENCY, out=ready[:, corners[0] :])
        lanes = following.pn if following else 1
        written, _ = _written(
            _in_turn(ready, self.fp)[:, corners],
            words=np.ceil(stage.channels[1] / lanes),
            last=np.ceil(self.pm / lanes),
            span=self.fp * (1 - 1 / self.mb),
        )
        return written

    def backward(self, dz, before):
        """BP and WU: when the stage ``before`` can read its errors, and when WU is over."""
        stage = self.stage
        if not stage.back:
            # The first block of WU follows the errors as they arrive.
            needs = _needs(stage.out_rows, stage.out_cols, 0, stage.pooled, stage.pool)
            first = _in_turn(dz[:, needs], self.wu_block / stage.pixels)[:, -1:]
            return None, first + (self.wu - self.wu_block) + UPDATE_LATENCY
        needs = _needs(stage.rows, stage.cols, stage.pad, stage.pooled, stage.pool)
        done, cycles = _in_turn(dz[:, needs], self.bp), self.bp
        end = done[:, -1:]
        channels, pixels = before.stage.channels[1], prod(before.stage.pooled)
        if pixels != done.shape[1]:  # a flattened map leaves a linear layer pixel by pixel
            blocks = np.ceil((np.arange(pixels) + 1) * channels / self.pn)
            done = done - self.bp + blocks * (self.bp / self.nb)
            cycles = self.bp / pixels
        copies = before.stage.pool**2
        written, waited = _written(
            done,
            words=copies * before.mb,
            last=copies * np.ceil(self.pn / before.pm),
            span=cycles * np.maximum(1 - self.pn / channels, 0),
        )
        return written, np.maximum(end, waited) + self.wu + UPDATE_LATENCY


class _Timing:
    """Training steps on many foldings of the same stages.

    Parameters
    ----------
    stages : sequence of :class:`Stage`
        Their own foldings are ignored.
    foldings : array (foldings, stages, 3)
    in_flight : :class:`int`
    stretch : array (foldings, stages, 3), optional
        Factors on the cycles of FP, BP and WU.
    """

    def __init__(self, stages, foldings, in_flight, stretch=None):
        foldings = np.asarray(foldings, float)
        stretch = np.ones_like(foldings) if stretch is None else stretch
        self.stages = [
            _Folded(stage, foldings[:, position], stretch[:, position])
            for position, stage in enumerate(stages)
        ]
        self.classes = stages[-1].channels[1]
        self.in_flight = in_flight
        self.long_ago = np.full((len(foldings), 1), -np.inf)

    def cycles(self, batch=1):
        """Cycles per sample in the steady state, an array (foldings,).

        A sample waits for nothing older than the one before, so one step tells all: it lasts from
        the first error of a sample, at time 0, to that of the next.
        """
        dz, updated = np.full_like(self.long_ago, self.classes), []
        for before, stage in reversed([*zip([None, *self.stages[:-1]], self.stages, strict=True)]):
            dz, end = stage.backward(dz, before)
            updated.insert(0, end)
        room = updated if self.in_flight == 1 else [self.long_ago] * len(updated)
        step = self._forward(updated, room)[1][:, 0]
        if batch == 1:
            return step
        # A slot is taken from a sample's first pixel in the stage's memory until the update.
        arrived, scored = self._alone()
        taken = scored - np.hstack(arrived) + np.hstack(updated)
        busy = np.hstack([stage.busy for stage in self.stages])
        pace = np.maximum(busy, taken / self.in_flight).max(axis=1)
        return (step + (batch - 1) * np.minimum(pace, step)) / batch

    def latency(self):
        """Cycles from a sample's first pixel to its class, all else idle, an array (foldings,)."""
        return self._alone()[1][:, 0]

    def _alone(self):
        """:meth:`_forward` of a sample that is sent at time 0 and waits for no other."""
        idle = [self.long_ago] * len(self.stages)
        return self._forward(idle, [np.zeros_like(self.long_ago), *idle[1:]])

    def _forward(self, start, room):
        """When a sample's first pixel is in each stage's memory, and its error leaves the loss.

        ``start`` and ``room`` tell when each stage's weights are ready, and when it can store the
        sample.
        """
        arrived, x = [], self.stages[0].read(room[0])
        following = zip([*self.stages[1:], None], [*room[1:], self.long_ago], strict=True)
        for stage, ready, (after, space) in zip(self.stages, start, following, strict=True):
            arrived.append(x[:, :1])
            if stage.stage.rows * stage.stage.cols == 1:
                x = x[:, -1:]
            x = stage.forward(x, ready, space, after)
        return arrived, x[:, -1:] + self.classes + LOSS_LATENCY


# -- Foldings --------------------------------------------------------------------------------------


def balanced_foldings(network, multipliers, *, in_flight=2, numbers=None):
    """Find foldings that train in few cycles at batch 1.

    The search starts from foldings that give every stage about the same time, or the deeper ones
    (whose time the others spend waiting) more multipliers; then it moves multipliers from stage to
    stage for as long as the estimate improves. What leaves a stage fits into the next: of its
    ``Pm`` and the next one's ``Pn`` one divides the other. The same arguments give the same
    foldings.

    Parameters
    ----------
    network : :class:`Network`
    multipliers : :class:`int`
        Most that all stages together may have.
    in_flight : :class:`int`
        Samples that a stage stores.
    numbers : :class:`Numbers`, optional
        Formats.

    Returns
    -------
    dict of (Pm, Pn, Pk) by layer name
        As :func:`lower` takes it.

    Raises
    ------
    ValueError
        If there are fewer multipliers than stages.
    """
    multipliers = index(multipliers)
    stages = lower(network, lambda *layer: (1, 1, 1), numbers, in_flight=in_flight).stages
    if multipliers < len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise ValueError(
            f"{len(stages)} layers with weights ({names}) take a multiplier each, "
            f"{len(stages)} in all, but the budget is {multipliers}"
        )
    search = _Search(stages, multipliers, in_flight)
    found = search.best([search.improved(start) for start in search.starts()])
    return {stage.name: folding for stage, folding in zip(stages, found, strict=True)}


class _Search:
    """Foldings of ``stages`` within a budget, as tuples of one (Pm, Pn, Pk) for each."""

    def __init__(self, stages, multipliers, in_flight):
        self.stages, self.multipliers, self.in_flight = stages, multipliers, in_flight
        self.options = []  # by stage: foldings by size, those with the fewest lanes first
        for stage in stages:
            sizes = {}
            (n, m), k = stage.channels, stage.kernel
            for folding in product(_divisors(m), _divisors(n), sorted({1, k, k * k})):
                if prod(folding) <= multipliers:
                    sizes.setdefault(prod(folding), []).append(folding)
            self.options.append({size: sorted(sizes[size], key=_lanes) for size in sorted(sizes)})
        self.costs = {}

    def best(self, candidates):
        """The candidate with the fewest cycles; of those alike with the least hardware."""
        candidates = list(dict.fromkeys(candidates))
        new = [candidate for candidate in candidates if candidate not in self.costs]
        for first in range(0, len(new), _GROUP):
            group = new[first : first + _GROUP]
            cycles = _Timing(self.stages, group, self.in_flight).cycles()
            ranks = np.rint(np.log(cycles) / _ALIKE).tolist()
            for candidate, rank in zip(group, ranks, strict=True):
                size = sum(prod(folding) for folding in candidate)
                self.costs[candidate] = (rank, size, sum(map(_lanes, candidate)))
        return min(candidates, key=self.costs.__getitem__)

    def starts(self):
        """Good ones of the foldings whose stages take times in a fixed ratio."""
        balanced = []
        for ratio in _RATIOS:
            work = [
                stage.pixels * prod(stage.weight_shape) / ratio**position
                for position, stage in enumerate(self.stages)
            ]
            sizes = [1] * len(work)
            while True:  # the slowest stage gets its next larger size
                slowest = max(range(len(work)), key=lambda at: work[at] / sizes[at])
                larger = [size for size in self.options[slowest] if size > sizes[slowest]]
                if not larger or sum(sizes) - sizes[slowest] + larger[0] > self.multipliers:
                    break
                sizes[slowest] = larger[0]
            balanced.append(self._shaped(sizes))
        self.best(balanced)
        return sorted(dict.fromkeys(balanced), key=self.costs.__getitem__)[:_STARTS]

    def improved(self, found):
        """The best that single moves lead to."""
        while (better := self.best([found, *self.moves(found)])) != found:
            found = better
        return found

    def _shaped(self, sizes):
        """Foldings of at most these sizes in which lanes fit from stage to stage."""
        shaped = []
        for options, most in zip(self.options, sizes, strict=True):
            fitting = (
                folding
                for size in reversed(options)
                if size <= most
                for folding in options[size]
                if not shaped or _fit(shaped[-1], folding)
            )
            shaped.append(next(fitting))
        return tuple(shaped)

    def moves(self, found):
        """What differs from ``found`` in one stage, or in two that exchange multipliers."""
        sizes = [prod(folding) for folding in found]
        spare = self.multipliers - sum(sizes)
        for at, options in enumerate(self.options):
            for size, foldings in options.items():
                if size <= sizes[at] + spare:
                    for folding in foldings:
                        yield from self._changed(found, {at: folding})
        for up, down in permutations(range(len(found)), 2):
            larger = [size for size in self.options[up] if size >= sizes[up]]
            for size in larger[: 1 + _LARGER]:
                left = spare + sizes[up] + sizes[down] - size
                fitting = [size for size in self.options[down] if size <= left]
                if fitting:
                    for more in self.options[up][size][:_SHAPES]:
                        for less in self.options[down][fitting[-1]][:_SHAPES]:
                            yield from self._changed(found, {up: more, down: less})

    def _changed(self, found, changes):
        changed = tuple(changes.get(at, folding) for at, folding in enumerate(found))
        if all(_fit(*pair) for pair in pairwise(changed)):
            yield changed


def _divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def _lanes(folding):
    return folding[0] + folding[1]


def _fit(folding, following):
    """Whether the lanes between two stages divide: those that leave, or those that enter."""
    out, into = folding[0], following[1]
    return out % into == 0 or into % out == 0
