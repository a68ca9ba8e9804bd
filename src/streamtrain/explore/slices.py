"""The search of a slice: the designs with so many DSP slices that are better than all that are known.

Stage by stage, from the last one to the first: what the bounds leave is worked out, and what is dominated is
dropped. If known designs bound the search, the first stages are tried together, as *heads*.
"""

from dataclasses import dataclass

import numpy as np

from streamtrain.explore.bounds import corners, least_by_lanes, least_by_share
from streamtrain.explore.heads import completed
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.partial import NEVER, Partial, Stage, extended, undominated
from streamtrain.explore.prospects import (
    Bound,
    Heads,
    candidates,
    completions,
    least_of_nodes,
    most_to_be_better,
    refine,
)
from streamtrain.explore.space import FIGURES, RESOURCES
from streamtrain.explore.trees import halved, joined
from streamtrain.pipeline import timing

__all__ = ["Slice", "SliceSearch"]

_CYCLES, _, _DSP, _BRAM = range(4)

_LEVELS = 384, 64  # of DSP slices and of block RAM, in a table
_SHARES = 512  # levels of each other resource
_MEMORY = 16  # halves of a block RAM to which the most that is known is rounded up
_ANY = 1e18  # of a resource without limit
_BLOCK = 16  # heads in a last node of a tree
_ROOM = 2**16  # candidates that are looked at together
_BYTES = 2**28  # of their times


@dataclass(frozen=True)
class Slice:
    """A part of the search: designs with more than ``low`` and up to ``high`` DSP slices."""

    low: int
    high: int


class SliceSearch:
    """The search of one slice: tables of its own, and the designs that they allow.

    Parameters
    ----------
    search : :class:`~streamtrain.explore.exact._Search`
    part : :class:`Slice`
    """

    def __init__(self, search, part):
        self.search, self.part = search, part
        self.space, self.front = search.space, search.front
        self.rest, self.last = search.rest, search.stages - 1
        self.room = np.minimum(self.rest, _ANY)
        cuts, self.few = search.choose_cuts(part)
        self.constants = np.array([cut.constant for cut in cuts], np.float32)
        self.stages = self._stages(cuts)
        self.heads = self._heads()
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
        first = self.search.heads.designs.shape[1] + 1 if heads else 0
        partial = self._loss(len(goals.block_most))
        for s in range(self.last, first - 1, -1):
            partial = self._extend(s, partial, goals, heads if s == first else None, alike)
        if heads:
            self._complete(first - 1, partial, heads, best)
        elif len(partial.designs):
            designs = partial.designs.astype(np.int64)
            self.front.add(designs, self.front.figures_of(designs))

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
        """The :class:`Heads` that fit in the slice; None if too many designs of the first stages are there."""
        if self.search.heads is None:
            return None
        designs = self.search.heads.designs
        cost, parts = 0, 0
        for s, own in enumerate(designs.T):
            stage = self.stages[s]
            before = self.space.pm[s - 1][designs[:, s - 1]] if s else 0
            link = before, stage.pn[own]
            cost = cost + stage.cost[own] + stage.link_cost[link]
            parts = parts + stage.parts[own] + stage.link_parts[link]
        lanes, stage = stage.pm[designs[:, -1]], self.stages[designs.shape[1]]
        pair_cost = (stage.cost + stage.link_cost[:, stage.pn]).reshape(-1, len(RESOURCES))
        pair_parts = (stage.parts + stage.link_parts[:, stage.pn]).reshape(-1, parts.shape[1])
        room, few = np.minimum(self.rest, [self.part.high, *self.rest[1:]]), self.few
        scale = np.maximum(parts[:, :few].max(axis=0) + pair_parts[:, :few].max(axis=0), 1)
        trees, heads, taken = [], [], []
        for foldings in np.split(np.arange(len(stage.pm)), stage.by_pm[1:-1]):
            head, o = np.indices((len(designs), len(foldings))).reshape(2, -1)
            pair = lanes[head] * len(stage.pm) + foldings[o]
            total = cost[head] + pair_cost[pair]
            fit = (total <= room).all(axis=1)
            head, pair, total = head[fit], pair[fit], total[fit, :2]
            # What is alike relative to all that the slice is about is close together.
            worth = (parts[head, :few] + pair_parts[pair, :few]) / scale
            places = np.vstack([total.T / self.part.high, worth.T])
            trees.append(halved(np.ascontiguousarray(places, np.float32), _BLOCK))
            heads.append(np.stack([head, pair], axis=1).astype(np.int32))
            taken.append(total.astype(np.int32))
        tree, by_pm = joined(trees)
        if not len(tree.rows):
            return None
        nodes = len(tree.skips)
        own = Heads(
            np.concatenate(heads)[tree.rows], np.concatenate(taken)[tree.rows], cost, parts, pair_cost,
            pair_parts, by_pm, tree.begins, tree.skips,
            np.full((nodes, parts.shape[1]), np.inf, np.float32),
            np.full((nodes, 2), np.iinfo(np.int32).max, np.int32), np.zeros(nodes, np.int64),
            np.empty((0, 0), np.float32), self.part.low, self.room,
        )  # fmt: skip
        least_of_nodes(own)
        return own

    def _best(self):
        """The fewest cycles of known designs, an array (DSP slices + 1, block RAM + 1).

        Its last column is for any amount of block RAM.
        """
        figures, objectives = self.front.figures, self.search.objectives
        shell = self.space.shell
        most_b = 0
        if self.search.compares and _BRAM in objectives:  # rounded up, so that tables often serve again
            most_b = int(figures[:, _BRAM].max(initial=shell[1]) - shell[1])
            most_b = -(-most_b // _MEMORY) * _MEMORY
        best = np.full((self.part.high + 1, most_b + 1), np.floor(self.search.limits[_CYCLES]) + 1)
        if self.search.compares:
            d, b = (figures[:, [_DSP, _BRAM]] - shell[:2]).astype(np.int64).T
            self._lower(best, d, b, figures[:, _CYCLES])
        return best

    def _lower(self, best, d, b, cycles):
        """Let designs count in ``best``; what is no objective is as good as none of it."""
        objectives, columns = self.search.objectives, best.shape[1]
        d = d if _DSP in objectives else np.zeros_like(d)
        b = b if _BRAM in objectives else np.zeros_like(b)
        cycles = cycles if _CYCLES in objectives else np.full(len(cycles), -np.inf)
        inside = d < len(best)
        np.minimum.at(best, (d[inside], np.minimum(b, columns - 1)[inside]), cycles[inside])
        np.minimum.accumulate(best, axis=0, out=best)
        np.minimum.accumulate(best, axis=1, out=best)

    def _loss(self, blocks):
        """The partial design that has no stage yet: for each Pm of the last stage, the loss behind it.

        All ``blocks`` of corners are still open.
        """
        space, last = self.space, self.last
        link = space.link[-1][:, 0].astype(np.int64)
        times = np.full((len(link), 6), NEVER, np.int32)
        times[:, 2:4] = link[:, :2]
        times[space.pm[last], 4] = space.own[last][:, timing._ERRORS] + timing._QUEUE
        times[:, 5] = space.geometry.loss[0]
        n = len(link)
        return Partial(
            np.arange(n),
            times,
            np.zeros((n, len(RESOURCES))),
            np.tile(self.constants[: self.few], (n, 1)),
            np.zeros((n, self.last + 1), np.int16),
            np.full(n, 2**blocks - 1, np.uint64),
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

        With ``heads``, also those that they do not complete.
        """
        stage, few = self.stages[s], self.few
        most = max(1, _BYTES // (16 + 8 * int(self.space.geometry.fp_needs.shape[1])))
        worth = self._worth(s + 1, partial) if heads else None
        parts = []
        for found in self._candidates(s, partial, goals):
            if heads:
                found = self._completed(s, partial, worth, goals, heads, found)
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
            if not heads:
                refine(grown, self._bound(s), goals)
            for first in range(0, len(found), most):
                chosen = found[first : first + most]
                times = self._times(s, partial, chosen)
                own = Partial(*(array[first : first + most] for array in grown))
                parts.append(self._pruned(s, own._replace(times=times), alike))
        if not parts:
            return Partial(*(array[:0] for array in partial))
        whole = Partial(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        return self._pruned(s, whole, alike) if len(parts) > 1 else whole

    def _completed(self, s, partial, worth, goals, heads, found):
        """Those candidates that a head completes; ``worth`` is that of partial designs by all cuts."""
        stage = self.stages[s]
        row, o, a = found.T
        link = a, stage.pn[o]
        cost = partial.cost[row] + stage.cost[o] + stage.link_cost[link]
        worth = worth[row]
        worth += stage.parts[o]
        worth += stage.link_parts[link]
        d_step, b_step, _ = goals.grid
        order = np.lexsort((cost[:, 1] // b_step, cost[:, 0] // d_step, a))
        hits = np.empty((len(found), 2), np.int64)
        count, _ = completions(a, cost, worth, heads, order, 0, False, hits)
        return found[np.sort(hits[:count, 0])]

    def _worth(self, s, partial):
        """What partial designs, of which ``s`` is the first stage, are worth by all cuts."""
        worth, before = np.tile(self.constants, (len(partial.lanes), 1)), partial.lanes
        for t in range(s, self.last + 1):
            stage, own = self.stages[t], partial.designs[:, t]
            worth += stage.parts[own]
            worth += stage.link_parts[before, stage.pn[own]]
            before = stage.pm[own]
        return worth

    def _complete(self, s, partial, heads, best):
        """Put heads, of which ``s`` is the last stage, before partial designs, and add what they become."""
        stage, worth, known = self.stages[s], self._worth(s + 1, partial), self.search.heads
        hits, added = np.empty((max(_ROOM, len(heads.heads)), 2), np.int64), []
        order, first = np.arange(len(partial.lanes)), 0
        while first < len(order):
            heads = heads._replace(most=most_to_be_better(best).astype(np.float32))
            count, first = completions(
                partial.lanes, partial.cost, worth, heads, order, first, True, hits
            )
            row, at = hits[:count].T
            head, pair = heads.heads[at].T
            tried, label = np.unique(row * len(heads.pair_cost) + pair, return_inverse=True)
            pair = tried % len(heads.pair_cost)
            a, o = np.divmod(pair, len(stage.pm))
            found = np.stack([tried // len(heads.pair_cost), o, a], axis=1).astype(np.int32)
            times, kinds = self._times(s, partial, found), known.kinds[a, stage.pn[o]]
            cycles = np.empty(count, np.int64)
            completed(s, np.stack([label, head, kinds[label]], axis=1), known.times, times, cycles)
            d, b = (partial.cost[row, :2].astype(np.int64) + heads.taken[at]).T
            new = cycles < best[d, np.minimum(b, best.shape[1] - 1)]
            self._lower(best, d[new], b[new], cycles[new])
            designs = partial.designs[row[new]].astype(np.int64)
            designs[:, s] = o[label[new]]
            designs[:, :s] = known.designs[head[new]]
            added.append((designs, np.stack([cycles[new], d[new], b[new]], axis=1)))
        if added:
            designs, figures = (np.concatenate(arrays) for arrays in zip(*added, strict=True))
            order = [_CYCLES, _DSP, _BRAM]
            columns = [order.index(objective) for objective in self.search.objectives]
            keep = non_dominated(figures[:, columns])
            designs, cycles = designs[keep], figures[keep, _CYCLES]
            self.front.add(designs, self.front.figures_of(designs, cycles))

    def _times(self, s, partial, found):
        """Times of candidates, an array (candidates, times)."""
        space = self.space
        width = 4 + 2 * int(space.geometry.pooled[s - 1]) if s else 1 + self.search.latency
        times = np.empty((len(found), width), np.int32)
        extended(
            space.geometry, s, int(space.plan.late), space.plan.in_flight, self.stages[s], partial,
            found, times,
        )  # fmt: skip
        return times

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
