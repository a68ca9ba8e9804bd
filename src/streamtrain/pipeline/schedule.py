"""What a plan costs in cycles, and foldings that keep them few.

The rules by which the gateware takes up work are those of :mod:`streamtrain.pipeline.timing`. Here
they are asked about a plan: cycles of a training step and of a prediction, and which phase of which
stage decides them.
"""

from dataclasses import dataclass, replace
from itertools import pairwise, permutations, product
from math import ceil, prod
from operator import index

import numpy as np

from streamtrain.pipeline import timing
from streamtrain.pipeline.plan import Plan, lower
from streamtrain.records import Record
from streamtrain.tables import Shown

__all__ = ["Estimate", "balanced_foldings", "estimate"]

PHASES = ("FP", "BP", "WU")

_COLUMNS = {  # durations that grow with a phase
    "FP": ("fp", "fp_group"),
    "BP": ("bp", "bp_group"),
    "WU": ("word", "biases"),
}
_NUDGE = 2**-8  # by which a phase is lengthened to see whether the step gets longer

# The search for foldings.
_ALIKE = 0.001  # part of the cycles that is no reason to prefer a folding: fewer lanes are
_RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of a stage's time to the one before, at the start
_STARTS = 2  # the best of these are improved
_LARGER = 3  # next larger sizes that one stage gets at another's expense
_SHAPES = 3  # foldings of each size that are tried in such an exchange


@dataclass(frozen=True)
class Estimate(Shown, Record):
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
    updated : tuple of :class:`int`
        For each stage, cycles from a sample's first error (the last sample's of a mini-batch) to
        the first one in which FP may multiply with the updated weights; 0 for a frozen one.
    path : tuple of (FP, BP, WU)
        For each stage, the part of ``cycles`` that its phases decide: what a sample would take
        longer if that phase alone took twice as long, to first order. 0 where others hide it. In a
        mini-batch all samples but the last one wait for the busiest stage alone.
    """

    plan: Plan
    batch: int
    cycles: int
    latency: int
    updated: tuple
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


def estimate(plan, batch=1):
    """Estimate the cycles of a training step.

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
    geometry = timing.geometry(plan.stages, plan.network.loss)
    table = timing.durations(plan.stages)
    options = {"in_flight": plan.in_flight, "accumulates": plan.late}
    # The first table is the plan's; in each of the others one phase of one stage is a little longer.
    tables = np.repeat(table[None], 1 + len(PHASES) * len(table), axis=0)
    for number, (stage, phase) in enumerate(product(range(len(table)), PHASES)):
        for column in _COLUMNS[phase]:
            tables[1 + number, stage, timing.DURATIONS.index(column)] *= 1 + _NUDGE
    steps, updates = timing.step(geometry, tables, **options)
    cycles, updated = steps[0], updates[0]
    path = (steps[1:] - cycles).reshape(-1, len(PHASES)) / _NUDGE
    if batch > 1:
        decays = bool(plan.network.optimizer.weight_decay)
        cycles, updated = timing.flow(geometry, table, batch=batch, decays=decays, **options)
        phases = np.array([list(stage.phase_cycles().values()) for stage in plan.stages])
        busiest = phases.sum(axis=1).argmax()
        path /= batch
        path[busiest] += phases[busiest] * (batch - 1) / batch
    return Estimate(
        plan=plan,
        batch=batch,
        cycles=round(float(cycles)),
        latency=ceil(timing.latency(geometry, table[None])[0]),
        updated=tuple(np.rint(np.maximum(updated, 0)).astype(int).tolist()),
        path=tuple(tuple(own) for own in np.rint(path).astype(int).tolist()),
    )


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
    search = _Search(stages, network.loss, multipliers, in_flight)
    found = search.best([search.improved(start) for start in search.starts()])
    return {stage.name: folding for stage, folding in zip(stages, found, strict=True)}


class _Search:
    """Foldings of ``stages`` within a budget, as tuples of one (Pm, Pn, Pk) for each."""

    def __init__(self, stages, loss, multipliers, in_flight):
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
        self.geometry = timing.geometry(stages, loss)

    def best(self, candidates):
        """The candidate with the fewest cycles; of those alike with the least hardware."""
        candidates = list(dict.fromkeys(candidates))
        new = [candidate for candidate in candidates if candidate not in self.costs]
        if new:
            cycles, _ = timing.step(
                self.geometry, np.stack([self._table(c) for c in new]), in_flight=self.in_flight
            )
            for candidate, rank in zip(new, np.rint(np.log(cycles) / _ALIKE).tolist(), strict=True):
                size = sum(prod(folding) for folding in candidate)
                self.costs[candidate] = (rank, size, sum(map(_lanes, candidate)))
        return min(candidates, key=self.costs.__getitem__)

    def _table(self, foldings):
        stages = [replace(s, folding=f) for s, f in zip(self.stages, foldings, strict=True)]
        return timing.durations(stages)

    def starts(self):
        """Good ones of the foldings whose stages take times in a fixed ratio."""
        balanced = []
        for ratio in _RATIOS:
            work = [
                _phases(stage) * stage.pixels * prod(stage.weight_shape) / ratio**position
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


def _phases(stage):
    """Phases of a stage; three for the first one that is trained, which has WU besides FP and waits."""
    return 3 if stage.trainable else 2 if stage.back else 1


def _divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def _lanes(folding):
    return folding[0] + folding[1]


def _fit(folding, following):
    """Whether the lanes between two stages divide: those that leave, or those that enter."""
    out, into = folding[0], following[1]
    return out % into == 0 or into % out == 0
