"""The exact Pareto front of a space of foldings: dynamic programming with bounds.

A design's resources are sums over its stages, and its cycles are the longest path in a graph whose arcs
are durations (:mod:`streamtrain.pipeline.timing`). The search puts designs together stage by stage,
from the last one to the first, and drops a partial design for one of two reasons only.

*It is dominated.* If another partial design needs no more of anything and is no later in any time
that the stages before can notice, whatever is put before them, it is at least as good
(:mod:`~streamtrain.explore.partial`).

*It is bounded.* No design's cycles are below a cut (:mod:`~streamtrain.explore.cuts`). For each cut a table tells
the least that the stages to come can add, for every remainder of DSP slices and block RAM
(:mod:`~streamtrain.explore.bounds`). A partial design is dropped if, with these, whatever it becomes, a
design that is known already is at least as good. When few stages are missing, all their designs are
tried, and each has to be better by all cuts at once.

What remains is the front. Of designs that are alike in all objectives one is kept.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from streamtrain.explore.bounds import corners, least, least_by_lanes, least_by_share, walk
from streamtrain.explore.cuts import Cuts
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.partial import (
    NEVER,
    Bound,
    Heads,
    Partial,
    Stage,
    candidates,
    completions,
    extended,
    most_to_be_better,
    reaching,
    refine,
    undominated,
)
from streamtrain.explore.space import FIGURES, RESOURCES
from streamtrain.pipeline import timing

__all__ = ["exact_front"]

_CYCLES, _LATENCY, _DSP, _BRAM = range(4)
_LINK = timing._LINK

_SHARES_B = 3
_BUDGETS = 20  # of DSP slices, for which mixed cuts are made
_CUTS = 10  # besides the mixed ones, in tables
_MORE_CUTS = 160  # in all, for designs of the first stages
_SLICES = (64, 160, 300, 500, 750, 1100, 1500)  # DSP slices at which a new slice of the search begins
_LEVELS = 512, 96  # of DSP slices and of block RAM, in a table
_SHARES = 512  # levels of each other resource
_ANY = 1e18  # of a resource without limit
_HEADS = 6000  # designs of the first stages that are tried together
_ALIKE = 0.01  # part of a step; for a first, fast look at a slice
_ROOM = 2**16  # candidates that are looked at together
_BYTES = 2**28  # of their times
_FEW = 1000  # designs that are evaluated at once


class _Front:
    """The best designs so far.

    Parameters
    ----------
    space : :class:`Space`
    objectives : sequence of column numbers of :data:`FIGURES`
    limits : array (:data:`FIGURES`,)
    """

    def __init__(self, space, objectives, limits):
        self.space, self.objectives, self.limits = space, list(objectives), limits
        self.designs = np.empty((0, len(space.own)), np.int64)
        self.figures = np.empty((0, len(FIGURES)))
        self.evaluated = 0

    def add(self, designs, cycles=None):
        """Evaluate designs, and keep those that are as good as any.

        With ``cycles`` (designs,), which are known then, latencies are left out.
        """
        if cycles is None:
            figures = self.space.figures(designs)
        else:
            none = np.zeros(len(designs))
            figures = np.column_stack([cycles, none, np.rint(self.space.resources(designs))])
        fits = (figures <= self.limits).all(axis=1)
        designs = np.concatenate([self.designs, designs[fits]])
        figures = np.concatenate([self.figures, figures[fits]])
        keep = np.flatnonzero(non_dominated(figures[:, self.objectives]))
        self.designs, self.figures = designs[keep], figures[keep]


@dataclass(frozen=True)
class _Slice:
    """A part of the search: designs with more than ``low`` and up to ``high`` DSP slices."""

    low: int
    high: int


def exact_front(space, objectives, limits, progress=lambda done: None):
    """Find all designs of a space that no other one beats.

    Parameters
    ----------
    space : :class:`Space`
    objectives : sequence of :class:`str`
        Of :data:`FIGURES`; less is better.
    limits : dict of numbers by name of a figure
        At most.
    progress : callable, optional
        Is given the part of the search that is done.

    Returns
    -------
    (designs, figures, evaluated)
        Arrays (designs, stages) and (designs, :data:`FIGURES`), and how many designs were evaluated
        whole.
    """
    columns = [FIGURES.index(name) for name in objectives]
    bounds = np.array([limits.get(name, np.inf) for name in FIGURES], float)
    search = _Search(space, columns, bounds)
    for number, part in enumerate(search.slices):
        own = _SliceSearch(search, part)
        own.run(alike=_ALIKE)
        own.run()
        progress((number + 1) / len(search.slices))
    front = search.front
    figures = space.figures(front.designs)
    order = np.lexsort(figures.T[::-1])
    return front.designs[order], figures[order], front.evaluated


class _Search:
    """Bounds, a first front, and slice by slice the rest."""

    def __init__(self, space, objectives, limits):
        self.space, self.objectives, self.limits = space, objectives, limits
        self.stages = len(space.own)
        self.latency = _LATENCY in objectives or np.isfinite(limits[_LATENCY])
        self.front = _Front(space, objectives, limits)
        # Resources that stages may take. LUTs and flip-flops are compared when they are rounded.
        self.rest = np.floor(limits[_DSP:]) - space.shell
        self.rest[2:] += 0.499
        # What a stage adds, with the cheapest link to the stage before, and the last one's to the loss.
        last = self.stages - 1
        self.cost = [cost.copy() for cost in space.cost]
        self.cost[last] += space.link_cost[last][space.pm[last], 0]
        self.with_link = [cost.copy() for cost in self.cost]
        for s in range(1, self.stages):
            self.with_link[s] += space.link_cost[s - 1].min(axis=0)[space.pn[s]]
        most = sum(cost[:, 0].max() for cost in self.with_link)
        fewest = sum(cost[:, 0].min() for cost in self.with_link)
        most = int(min(most, self.rest[0]))
        edges = [edge for edge in _SLICES if fewest < edge < most]
        self.slices = [
            _Slice(low, high) for low, high in zip([0, *edges], [*edges, most], strict=True)
        ] if fewest <= most else []  # fmt: skip
        self.cuts = Cuts(space)
        budgets = np.unique(np.geomspace(fewest + 1, most + 1, _BUDGETS).astype(int)) + space.shell[0]
        shares = [np.inf]
        if _BRAM in objectives and len(objectives) > 1:
            b_least = sum(cost[:, 1].min() for cost in self.with_link)
            b_most = sum(cost[:, 1].max() for cost in self.with_link)
            shares = [*(np.geomspace(b_least + 2, b_most + 2, _SHARES_B).astype(int) + space.shell[1])[:-1], np.inf]
        budgets = list(product(budgets, shares))
        self.mixes = self.cuts.mixed(limits[_DSP:], budgets) if self.slices else []
        if not self.mixes:  # not even fractions of foldings fit
            self.slices = []
        self._first_front()
        sample = self.cuts.random.permutation(len(self.front.designs))[:800]
        found = self.cuts.of_designs(self.front.designs[sample])
        # Two paths that are equally long but for rounding can pass for one: such a cut is none.
        self.mixes = [(budget, cut) for budget, cut in self.mixes if self._holds(cut)]
        self.known = [cut for _, cut in self.mixes] + [cut for cut in found if self._holds(cut)]

    def _holds(self, cut):
        """Whether a cut is not above the cycles of any design that is known."""
        if not len(self.front.designs):
            return True
        said = self.cuts.values([cut], self.front.designs)[:, 0]
        return bool((said <= self.front.figures[:, _CYCLES] * (1 + 1e-9) + 1e-3).all())

    def parts(self, cuts):
        """What stages and links add to cuts: by stage, (cuts, foldings) and (cuts, Pm, next Pn)."""
        space, last = self.space, self.stages - 1
        own = [
            np.stack([cut.slopes[s, :_LINK] @ table.T for cut in cuts])
            for s, table in enumerate(self.cuts.own)
        ]
        links = []
        for s, link in enumerate(self.cuts.link):
            ends = [cut.slopes[s, _LINK : _LINK + 2] for cut in cuts]
            parts = np.stack([link[..., :2] @ end for end in ends])
            if s < last:
                parts += np.stack([link[..., 2:] @ cut.slopes[s + 1, _LINK + 2 :] for cut in cuts])
            links.append(parts)
        own[last] = own[last] + links[last][:, space.pm[last], 0]
        with_link = [part.copy() for part in own]
        for s in range(1, self.stages):
            with_link[s] += links[s - 1].min(axis=1)[:, space.pn[s]]
        return own, links, with_link

    def _first_front(self):
        """Designs that tables of the mixed cuts choose."""
        if not self.mixes:
            return
        _, _, costs = self.parts([cut for _, cut in self.mixes])
        shell = int(self.space.shell[0])
        designs = set()
        for part in self.slices:
            step = -(-part.high // 256)
            d = [(cost[:, 0] // step).astype(np.int64) for cost in self.with_link]
            b = [np.minimum(cost[:, 1] // 6, 60).astype(np.int64) for cost in self.with_link]
            for number, (budget, _) in enumerate(self.mixes):
                if not 0.6 * part.low <= budget - shell <= 1.6 * part.high:
                    continue
                levels = part.high // step + 1
                own = [cost[number] for cost in costs]
                table, choices = least(own, d, b, levels, 60)
                better = table < np.hstack([np.full((levels, 1), np.inf), table[:, :-1]])
                better[: part.low // step] = False
                for i, j in np.argwhere(better):
                    designs.add(walk(choices, d, b, i, j))
        for r in range(2, len(RESOURCES)):
            if not np.isfinite(self.rest[r]):
                continue
            step = self.rest[r] / (_SHARES - 1)
            share = [np.minimum(cost[:, r] // step, _SHARES).astype(np.int64) for cost in self.with_link]
            none = [np.zeros(len(own), np.int64) for own in share]
            for number in range(len(self.mixes)):
                own = [cost[number] for cost in costs]
                table, choices = least(own, share, none, _SHARES, 1)
                for i in range(_SHARES // 2, _SHARES):
                    if np.isfinite(table[i, 0]):
                        designs.add(walk(choices, share, none, i, 0))
        if designs:
            self.front.evaluated += len(designs)
            self.front.add(np.array(sorted(designs)))

    def choose_cuts(self, part):
        """The mixed cuts of a slice, and those that together say the most of the front there."""
        shell = self.space.shell[0]
        chosen = [
            number
            for number, (budget, _) in enumerate(self.mixes)
            if 0.7 * part.low <= budget - shell <= 1.4 * part.high
        ] or [0]
        few = len(chosen) + _CUTS
        d = self.front.figures[:, _DSP] - shell
        near = (d > 0.9 * part.low) & (d <= part.high)
        if near.any():
            values = self.cuts.values(self.known, self.front.designs[near])
            values /= self.front.figures[near, :1]
            said = values[:, chosen].max(axis=1)
            while len(chosen) < _MORE_CUTS:
                sums = np.maximum(said[:, None], values).sum(axis=0)
                best = int(sums.argmax())
                if sums[best] <= said.sum() * (1 + 1e-6):
                    break
                chosen.append(best)
                said = np.maximum(said, values[:, best])
        return [self.known[number] for number in chosen], min(few, len(chosen))


class _SliceSearch:
    """The search of one slice: tables of its own, and the designs that they allow.

    Parameters
    ----------
    search : :class:`_Search`
    part : :class:`_Slice`
    """

    def __init__(self, search, part):
        self.search, self.part = search, part
        self.space, self.front = search.space, search.front
        self.rest, self.last = search.rest, search.stages - 1
        self.room = np.minimum(self.rest, _ANY)
        self.compares = set(search.objectives) <= {_CYCLES, _DSP, _BRAM}
        cuts, self.few = search.choose_cuts(part)
        self.constants = np.array([cut.constant for cut in cuts], np.float32)
        self.stages = self._stages(cuts)
        self.heads = self._heads() if self.compares else None
        self.steps, self.shares = least_by_share(self.stages, self.rest[2:], _SHARES, self.few)
        self.shape = None  # of the tables

    def run(self, alike=0.0):
        """Add the designs of the slice that are better than those that are known.

        Parameters
        ----------
        alike : :class:`float`
            Part of a step by which times may differ and count as alike: above 0, the search is fast and
            finds most of the front, or what is close to it.
        """
        best = self._best()
        most = most_to_be_better(best)
        d_step = -(-self.part.high // (_LEVELS[0] - 1))
        b_step = max(1, -(-(best.shape[1] - 1) // (_LEVELS[1] - 1)))
        goals = corners(most, self.part.low, d_step, b_step)
        if goals is None:
            return
        shape = (self.part.high // d_step + 1, *goals.grid)
        if shape != self.shape:
            self.shape = shape
            self.tables, self.linked = least_by_lanes(self.stages, *shape, self.few)
        heads = self.heads and self.heads._replace(most=most.astype(np.float32))
        first = heads.designs.shape[1] if heads else 0
        partial = self._loss()
        for s in range(self.last, first - 1, -1):
            if s == first and heads:
                self._complete(s, partial, goals, heads)
            else:
                partial = self._extend(s, partial, goals, heads if s == first + 1 else None, alike)
        if not heads and len(partial.designs):
            self.front.evaluated += len(partial.designs)
            self.front.add(partial.designs.astype(np.int64))

    def _stages(self, cuts):
        """Each :class:`Stage`; the last one with its link to the loss."""
        space = self.space
        own, links, _ = self.search.parts(cuts)
        stages = []
        for s, pm in enumerate(space.pm):
            lanes = space.pn[s].max() + 1
            link, link_cost = np.zeros((1, lanes, 4)), np.zeros((1, lanes, len(RESOURCES)))
            link_parts = np.zeros((1, lanes, len(cuts)))
            if s:
                link, link_cost = space.link[s - 1], space.link_cost[s - 1]
                link_parts = np.moveaxis(links[s - 1], 0, -1)
            stages.append(
                Stage(
                    space.own[s], self.search.cost[s].astype(float),
                    np.ascontiguousarray(own[s].T, np.float32), pm, space.pn[s],
                    np.searchsorted(pm, np.arange(pm.max() + 2)), link.astype(np.int64),
                    link_cost.astype(float), np.ascontiguousarray(link_parts, np.float32),
                )
            )  # fmt: skip
        return stages

    def _heads(self):
        """All designs of as many first stages as are few; None if even one has too many."""
        stages = self.stages
        first, count = 0, 1
        while first < self.last and count * len(stages[first].pn) <= _HEADS:
            count *= len(stages[first].pn)
            first += 1
        if not first:
            return None
        designs = np.indices([len(stage.pn) for stage in stages[:first]]).reshape(first, -1).T
        cost, parts = 0, 0
        for s, stage in enumerate(stages[:first]):
            own = designs[:, s]
            before = self.space.pm[s - 1][designs[:, s - 1]] if s else 0
            link = before, stage.pn[own]
            cost = cost + stage.cost[own] + stage.link_cost[link]
            parts = parts + stage.parts[own] + stage.link_parts[link]
        lanes = self.space.pm[first - 1][designs[:, first - 1]]
        order = np.lexsort((cost[:, 0], lanes))
        order = order[(cost[order] <= self.rest).all(axis=1)]
        by_pm = np.searchsorted(lanes[order], np.arange(lanes.max() + 2))
        return Heads(
            by_pm, cost[order], parts[order], cost[order, :2].astype(np.int32), designs[order],
            np.empty((0, 0)), self.part.low, self.room,
        )  # fmt: skip

    def _best(self):
        """The fewest cycles of known designs, an array (DSP slices + 1, block RAM + 1).

        Its last column is for any amount of block RAM.
        """
        figures, objectives = self.front.figures, self.search.objectives
        shell = self.space.shell
        most_b = figures[:, _BRAM].max(initial=shell[1]) - shell[1]
        most_b = -(-int(most_b) // 16) * 16 if self.compares and _BRAM in objectives else 0
        best = np.full((self.part.high + 1, most_b + 1), np.floor(self.search.limits[_CYCLES]) + 1)
        if self.compares:
            i, j = np.zeros((2, len(figures)), np.int64)
            if _DSP in objectives:
                i = (figures[:, _DSP] - shell[0]).astype(np.int64)
            if _BRAM in objectives:
                j = (figures[:, _BRAM] - shell[1]).astype(np.int64)
            inside = i < len(best)
            cycles = figures[:, _CYCLES] if _CYCLES in objectives else np.full(len(figures), -np.inf)
            np.minimum.at(best, (i[inside], j[inside]), cycles[inside])
            best = np.minimum.accumulate(np.minimum.accumulate(best, axis=0), axis=1)
        return best

    def _loss(self):
        """The partial design that has no stage yet: for each Pm of the last stage, the loss behind it."""
        space, last = self.space, self.last
        classes = int(space.geometry.channels[last, 1])
        link = space.link[-1][:, 0].astype(np.int64)
        times = np.full((len(link), 6), NEVER, np.int32)
        times[:, 2:4] = link[:, :2]
        times[space.pm[last], 4] = space.own[last][:, timing._ERRORS] + timing._QUEUE
        times[:, 5] = classes + timing._LOSS
        n = len(link)
        return Partial(
            np.arange(n),
            times,
            np.zeros((n, len(RESOURCES))),
            np.tile(self.constants[: self.few], (n, 1)),
            np.zeros((n, self.last + 1), np.int16),
            np.full(n, 2**64 - 1, np.uint64),
        )

    def _bound(self, s):
        """The :class:`Bound` of the stages before ``s``."""
        shares = self.shares[s]
        free = (shares > shares[:, -1:]).any(axis=2).sum(axis=1)
        return Bound(self.tables[s], self.linked[s], shares, free, self.steps, self.room)

    def _candidates(self, s, partial, goals):
        """Choices of a stage that the bounds allow, in groups of up to about ``_ROOM``."""
        stage = self.stages[s]
        found = np.empty((max(_ROOM, 2 * len(stage.pn) * (1 + len(stage.link))), 3), np.int32)
        first = 0
        while first < len(partial.lanes):
            count, first = candidates(stage, partial, self._bound(s), goals, first, found)
            yield found[:count]

    def _extend(self, s, partial, goals, heads, alike):
        """Put stage ``s`` before partial designs, and drop those that are dominated.

        With ``heads``, also those that they and the stage before ``s`` do not complete.
        """
        space, stage, few = self.space, self.stages[s], self.few
        width = 4 + 2 * int(space.geometry.pooled[s - 1]) if s else 1 + self.search.latency
        most = max(1, _BYTES // (4 * width))
        parts = []
        for found in self._candidates(s, partial, goals):
            row, o, a = found.T
            link = a, stage.pn[o]
            designs = partial.designs[row]
            designs[:, s] = o
            grown = Partial(
                a.astype(np.int64),
                np.empty((len(a), 0), np.int32),
                partial.cost[row] + stage.cost[o] + stage.link_cost[link],
                partial.parts[row] + stage.parts[:, :few][o] + stage.link_parts[..., :few][link],
                designs,
                partial.blocks[row],
            )
            refine(grown, self._bound(s), goals)
            if heads:
                worth = self._worth(s, grown)
                alive = reaching(
                    grown, worth, self.stages[s - 1], self._bound(s - 1), goals, heads
                )
                grown, found = Partial(*(array[alive] for array in grown)), found[alive]
            for first in range(0, len(found), most):
                chosen = found[first : first + most]
                times = np.empty((len(chosen), width), np.int32)
                extended(
                    space.geometry, s, int(space.plan.max_batch > 1), space.plan.in_flight, stage,
                    partial, chosen, times,
                )  # fmt: skip
                own = Partial(*(array[first : first + most] for array in grown))
                parts.append(self._pruned(s, own._replace(times=times), alike))
        if not parts:
            return Partial(*(array[:0] for array in partial))
        whole = Partial(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        return self._pruned(s, whole, alike) if len(parts) > 1 else whole

    def _worth(self, s, partial):
        """What partial designs, of which ``s`` is the first stage, are worth by all cuts."""
        worth, before = np.tile(self.constants, (len(partial.lanes), 1)), partial.lanes
        for t in range(s, self.last + 1):
            stage, own = self.stages[t], partial.designs[:, t]
            worth += stage.parts[own]
            worth += stage.link_parts[before, stage.pn[own]]
            before = stage.pm[own]
        return worth

    def _complete(self, s, partial, goals, heads):
        """Put stage ``s`` and heads before partial designs, and add what they become."""
        stage, worth = self.stages[s], self._worth(s + 1, partial)
        room = max(_ROOM, len(heads.cost))
        hits, bounds = np.empty((room, 2), np.int64), np.empty(room, np.float32)
        for found in self._candidates(s, partial, goals):
            first = 0
            while first < len(found):
                count, first = completions(stage, partial, worth, found, heads, first, hits, bounds)
                number, head = hits[:count].T
                row, o, a = found[number].T
                designs = partial.designs[row].astype(np.int64)
                designs[:, s] = o
                designs[:, :s] = heads.designs[head]
                cost = partial.cost[row] + stage.cost[o] + stage.link_cost[a, stage.pn[o]]
                self._try(designs, bounds[:count], cost + heads.cost[head])

    def _try(self, designs, bounds, cost):
        """Add designs, the most promising ones first; what then cannot be better any more is not evaluated."""
        d, b = cost[:, :2].astype(np.int64).T
        while len(designs):
            best = self._best()
            most = best[d, np.minimum(b, best.shape[1] - 1)]
            good = np.flatnonzero(bounds < most)
            order = good[np.argsort(bounds[good] / most[good], kind="stable")]
            now = np.zeros(len(order), bool)
            now[:_FEW] = True
            if len(order) > _FEW:
                now |= non_dominated(np.stack([bounds, d, b], axis=1)[order])
            now, later = order[now], order[~now]
            cycles = self.space.cycles(designs[now])
            self.front.evaluated += len(now)
            better = cycles < most[now]
            self.front.add(designs[now[better]], None if self.search.latency else cycles[better])
            designs, bounds, d, b = designs[later], bounds[later], d[later], b[later]

    def _pruned(self, s, partial, alike):
        """Partial designs without those that are dominated."""
        group, times, cost, parts, *_ = partial
        near = (alike * parts.max(axis=1, initial=0)).astype(np.int32)
        counted = [0, 1] + [r for r in range(2, len(RESOURCES)) if np.isfinite(self.rest[r])]
        by_lut = FIGURES.index("lut") in self.search.objectives
        if by_lut:
            counted.append(2)
        counted = sorted(set(counted))
        safe = np.ones(len(cost), bool)
        for r in counted[2:]:
            left = np.clip(self.part.high - cost[:, 0], 0, self.part.high).astype(np.int64)
            safe &= cost[:, r] + self._most(r, s)[left] <= self.rest[r]
        if by_lut:
            safe[:] = False
        kept = []
        for value in np.unique(group):
            mine = np.flatnonzero(group == value)
            order = mine[np.lexsort((times[mine, 0], cost[mine, 1], cost[mine, 0]))]
            kept.append(undominated(order, times, cost[:, counted], safe, near))
        kept = np.concatenate(kept) if kept else np.empty(0, np.int64)
        return Partial(*(array[kept] for array in partial))

    def _most(self, r, s):
        """The most of a resource that the stages before ``s`` can take, by DSP slices that are left."""
        high = self.part.high
        most = np.zeros(high + 1)
        for stage in self.stages[:s]:
            worst = stage.cost[:, r] + stage.link_cost[..., r].max(axis=0)[stage.pn]
            grown = np.full(high + 1, -np.inf)
            for taken, own in zip(stage.cost[:, 0].astype(int), worst, strict=True):
                if taken <= high:
                    grown[taken:] = np.maximum(grown[taken:], most[: high + 1 - taken] + own)
            most = np.maximum.accumulate(grown)
        return most
