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

from itertools import product

import numpy as np

from streamtrain.explore.bounds import least, walk
from streamtrain.explore.cuts import Cuts
from streamtrain.explore.heads import first_stages
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.slices import Slice, SliceSearch
from streamtrain.explore.space import FIGURES, RESOURCES
from streamtrain.pipeline import timing

__all__ = ["exact_front"]

_CYCLES, _LATENCY, _DSP, _BRAM = range(4)
_LINK = timing._LINK

_BUDGETS = 20  # of DSP slices, for which mixed cuts are made
_MEMORIES = 3  # amounts of block RAM, for each of these budgets
_SLICES = (64, 160, 300, 500, 750, 1100, 1500)  # DSP slices at which a new slice of the search begins
_SHARES = 512  # levels of a resource besides these two, for the first designs
_SAMPLES = 400  # of the first designs, whose cuts are made
_TABLES = 10  # cuts of single designs, besides the mixed ones, that there are tables of
_CUTS = 160  # in all
_ALIKE = 0.01  # part of a step; for a first, fast look at a slice


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

    def figures_of(self, designs, cycles=None):
        """Figures of designs, whose cycles may be known; latencies only if they matter."""
        self.evaluated += len(designs)
        if _LATENCY in self.objectives or np.isfinite(self.limits[_LATENCY]):
            return self.space.figures(designs)
        resources = np.rint(self.space.resources(designs))
        cycles = self.space.cycles(designs) if cycles is None else cycles
        return np.column_stack([cycles, np.zeros(len(designs)), resources])

    def add(self, designs, figures):
        """Keep those designs that are as good as any."""
        fits = (figures <= self.limits).all(axis=1)
        designs = np.concatenate([self.designs, designs[fits]])
        figures = np.concatenate([self.figures, figures[fits]])
        keep = np.flatnonzero(non_dominated(figures[:, self.objectives]))
        self.designs, self.figures = designs[keep], figures[keep]


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
        own = SliceSearch(search, part)
        own.run(alike=_ALIKE)
        own.run()
        progress((number + 1) / len(search.slices))
    front = search.front
    figures = space.figures(front.designs)
    order = np.lexsort(figures.T[::-1])
    return front.designs[order], figures[order], front.evaluated


class _Search:
    """What all slices share: the space's costs, cuts, and the front.

    Parameters
    ----------
    space : :class:`Space`
    objectives : sequence of column numbers of :data:`FIGURES`
    limits : array (:data:`FIGURES`,)

    Attributes
    ----------
    front : :class:`_Front`
    rest : array (:data:`RESOURCES`,)
        What stages may take together.
    cost, with_link : lists of arrays (foldings, :data:`RESOURCES`)
        What a stage takes, the last one with its link to the loss; and with the cheapest link to the stage before.
    slices : list of :class:`Slice`
    heads : :class:`~streamtrain.explore.heads.FirstStages`
        None if they are of no use.
    latency, compares : :class:`bool`
        Whether latencies matter; and whether known designs bound what is searched for: they do if cycles, DSP
        slices and block RAM are all that counts.
    """

    def __init__(self, space, objectives, limits):
        self.space, self.objectives, self.limits = space, objectives, limits
        self.stages = len(space.own)
        self.latency = _LATENCY in objectives or np.isfinite(limits[_LATENCY])
        self.compares = set(objectives) <= {_CYCLES, _DSP, _BRAM}
        # Heads are compared by their cycles; with one sample in flight, frozen stages pass more on.
        pairs = self.compares and not self.latency
        pairs &= space.plan.in_flight > 1 or not space.geometry.first
        self.heads = first_stages(space) if pairs else None
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
            Slice(low, high) for low, high in zip([0, *edges], [*edges, most], strict=True)
        ] if fewest <= most else []  # fmt: skip
        self.cuts = Cuts(space)
        self.mixes = self.cuts.mixed(limits[_DSP:], self._budgets(fewest, most)) if self.slices else []
        if not self.mixes:  # not even fractions of foldings fit
            self.slices = []
        self._first_front()
        sample = self.cuts.random.permutation(len(self.front.designs))[:_SAMPLES]
        found = self.cuts.of_designs(self.front.designs[sample])
        # Two paths that are equally long but for rounding can pass for one: such a cut is none.
        self.mixes = [(budget, cut) for budget, cut in self.mixes if self._holds(cut)]
        self.known = [cut for _, cut in self.mixes] + [cut for cut in found if self._holds(cut)]

    def _budgets(self, fewest, most):
        """DSP slices and block RAM for which mixed cuts are made."""
        dsp = np.unique(np.geomspace(fewest + 1, most + 1, _BUDGETS).astype(int)) + self.space.shell[0]
        bram = [np.inf]
        if {_CYCLES, _BRAM} <= set(self.objectives):
            least_b, most_b = (
                sum(pick(cost[:, 1]) for cost in self.with_link) + 2 for pick in (np.min, np.max)
            )
            amounts = np.geomspace(least_b, most_b, _MEMORIES)[:-1].astype(int)
            bram = [*(amounts + self.space.shell[1]), np.inf]
        return list(product(dsp, bram))

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
            designs = np.array(sorted(designs))
            self.front.add(designs, self.front.figures_of(designs))

    def choose_cuts(self, part):
        """The mixed cuts of a slice, and those that together say the most of the front there.

        Returns a list of cuts, and how many of the first ones there should be tables of.
        """
        shell = self.space.shell[0]
        chosen = [
            number
            for number, (budget, _) in enumerate(self.mixes)
            if 0.7 * part.low <= budget - shell <= 1.4 * part.high
        ] or [0]
        few = len(chosen) + _TABLES
        d = self.front.figures[:, _DSP] - shell
        near = (d > 0.9 * part.low) & (d <= part.high)
        if near.any():
            values = self.cuts.values(self.known, self.front.designs[near])
            values /= self.front.figures[near, :1]
            said = values[:, chosen].max(axis=1)
            while len(chosen) < _CUTS:
                sums = np.maximum(said[:, None], values).sum(axis=0)
                best = int(sums.argmax())
                if sums[best] <= said.sum() * (1 + 1e-6):
                    break
                chosen.append(best)
                said = np.maximum(said, values[:, best])
        cuts = [self.known[number] for number in chosen]
        return cuts, min(few, len(cuts))
