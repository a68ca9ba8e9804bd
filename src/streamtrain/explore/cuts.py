"""Cuts: sums over stages that no design's cycles are below.

Cycles are the longest path in a graph whose arcs are durations (:mod:`streamtrain.pipeline.timing`), so
they are convex in the durations. The longest path of any one design is a *cut*: how often it
passes each arc, times the arcs' durations, is a path of every design, and no longer than its longest.
A mix of cuts is one, too. Those that are tight at the optimum of the relaxed problem, in which a stage may
be of several foldings at once, come from Kelley's method (Journal of SIAM 8, 1960).
"""

from dataclasses import dataclass

import numpy as np

from streamtrain.pipeline import timing

__all__ = ["Cut", "Cuts"]

_LINK = timing._LINK

_GAP = 1e-3  # of the relaxed problem's solution
_ROUNDS = 30
_STEEP = 1e-6  # relative change of a duration that a longest path is found with


@dataclass(frozen=True)
class Cut:
    """A sum over stages that no design's cycles are below: ``constant + sum(slopes * durations)``.

    ``slopes`` has the shape (stages, :data:`timing.DURATIONS`).
    """

    slopes: np.ndarray
    constant: float


class Cuts:
    """Longest paths of a space's designs."""

    def __init__(self, space):
        self.space = space
        self.stages = len(space.own)
        self.own = []
        for s, own in enumerate(space.own):
            tables = np.zeros((len(own), self.stages, len(timing.DURATIONS)))
            tables[:, s, :_LINK] = own
            self.own.append(timing.relaxed(space.geometry, tables)[:, s, :_LINK])
        self.link = []
        for s, link in enumerate(space.link):
            tables = np.zeros((*link.shape[:2], self.stages, len(timing.DURATIONS)))
            tables[..., s, _LINK : _LINK + 2] = link[..., :2]
            if s + 1 < self.stages:
                # Relaxed durations depend on whether a stage computes a vector, whatever its folding.
                tables[..., s + 1, :_LINK] = space.own[s + 1][0]
                tables[..., s + 1, _LINK + 2 :] = link[..., 2:]
            tables = timing.relaxed(space.geometry, tables)
            ends = tables[..., s + 1, _LINK + 2 :] if s + 1 < self.stages else link[..., 2:]
            self.link.append(np.concatenate([tables[..., s, _LINK : _LINK + 2], ends], axis=-1))
        self.least = np.zeros((self.stages, len(timing.DURATIONS)))
        for s, link in enumerate(self.link):
            self.least[s, _LINK : _LINK + 2] = link[..., :2].min(axis=(0, 1))
            if s + 1 < self.stages:
                self.least[s + 1, _LINK + 2 :] = link[..., 2:].min(axis=(0, 1))
        constant = ("word", "terms", "bias_terms", "fp_ahead", "bp_ahead")
        fixed = {timing.DURATIONS.index(name) for name in constant}
        self.places = [
            (s, column)
            for s in range(self.stages)
            for column in range(len(timing.DURATIONS))
            if column not in fixed
        ]
        self.random = np.random.default_rng(0)

    def cycles(self, tables):
        """Cycles of relaxed durations."""
        return timing.step(self.space.geometry, tables, **self.space.options)[0]

    def at(self, table):
        """The cut of durations close to ``table``; None if its longest path is not unique there."""
        stages, columns = np.transpose(self.places)
        for _ in range(8):
            # A little to the side, so that of several longest paths one is the longest.
            here = table.copy()
            here[stages, columns] *= 1 + 1e-3 * self.random.random(len(self.places))
            here[stages, columns] += 1e-3 * self.random.random(len(self.places))
            steps = _STEEP * (1 + here[stages, columns])
            tables = np.repeat(here[None], 1 + len(self.places), axis=0)
            tables[np.arange(len(self.places)) + 1, stages, columns] += steps
            cycles = self.cycles(tables)
            rise = (cycles[1:] - cycles[0]) / steps
            if np.abs(rise - np.rint(rise)).max() < 0.005:  # a path counts each duration some times
                slopes = np.zeros_like(table)
                slopes[stages, columns] = np.rint(rise)
                return Cut(slopes, cycles[0] - (slopes * here).sum())
        return None

    def of_designs(self, designs):
        """The cuts of designs, each once."""
        tables = timing.relaxed(self.space.geometry, self.space.tables(designs))
        cuts = (self.at(table) for table in tables)
        return list({cut.slopes.tobytes(): cut for cut in cuts if cut}.values())

    def values(self, cuts, designs):
        """Array (designs, cuts) of what cuts say of designs."""
        tables = timing.relaxed(self.space.geometry, self.space.tables(designs))
        slopes = np.stack([cut.slopes.ravel() for cut in cuts], axis=1)
        return tables.reshape(len(tables), -1) @ slopes + [cut.constant for cut in cuts]

    def mixed(self, limits, budgets):
        """For each budget of DSP slices and block RAM, the mix of cuts that is tight at the relaxed optimum.

        Returns a list of (DSP slices, cut).
        """
        cuts = [self.at(self._mean(np.argmin)), self.at(self._mean(np.argmax))]
        mixes = []
        for budget in budgets:
            own = limits.copy()
            own[:2] = np.minimum(budget, limits[:2])
            weights = self._relaxed_optimum(cuts, own)
            if weights is None:
                continue
            mix = Cut(
                sum(w * cut.slopes for w, cut in zip(weights, cuts, strict=True)),
                sum(w * cut.constant for w, cut in zip(weights, cuts, strict=True)),
            )
            if not any(np.allclose(mix.slopes, other.slopes, rtol=1e-3) for _, other in mixes):
                mixes.append((budget[0], mix))
        return mixes

    def _mean(self, choose):
        """The table of the foldings with most (argmin of words), or with fewest multipliers."""
        table = self.least.copy()
        for s, own in enumerate(self.own):
            table[s, :_LINK] = own[choose(own[:, 0])]
        return table

    def _relaxed_optimum(self, cuts, limits):
        """Mix fractions of foldings for the fewest cycles; new cuts are appended to ``cuts``.

        Returns a weight for each cut, or None if nothing fits.
        """
        from scipy.optimize import linprog  # late: small boards train without it

        space = self.space
        counts = [len(own) for own in self.own]
        total, ends = sum(counts), np.cumsum(counts)
        places = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        usage = np.concatenate(space.cost)
        spent = space.shell + sum(cost.min(axis=(0, 1)) for cost in space.link_cost)
        bounded = np.isfinite(limits)
        resources = np.hstack([usage.T[bounded], np.zeros((bounded.sum(), 1))])
        choice = np.zeros((self.stages, total + 1))
        for s, place in enumerate(places):
            choice[s, place] = 1
        objective = np.append(np.zeros(total), 1)
        best = np.inf
        for _ in range(_ROUNDS):
            rows = [
                np.append(
                    np.concatenate([own @ cut.slopes[s, :_LINK] for s, own in enumerate(self.own)]),
                    -1,
                )
                for cut in cuts
            ]
            most = [-cut.constant - (cut.slopes * self.least).sum() for cut in cuts]
            solution = linprog(
                objective,
                A_ub=np.vstack([rows, resources]),
                b_ub=np.append(most, (limits - spent)[bounded]),
                A_eq=choice,
                b_eq=np.ones(self.stages),
            )
            if solution.status != 0:
                return None
            table = self.least.copy()
            for s, place in enumerate(places):
                table[s, :_LINK] = solution.x[place] @ self.own[s]
            weights = -solution.ineqlin.marginals[: len(cuts)]
            best = min(best, self.cycles(table[None])[0])
            if best - solution.fun <= _GAP * best:
                break
            cut = self.at(table)
            if cut is None:
                break
            cuts.append(cut)
        weights = np.append(weights, np.zeros(len(cuts) - len(weights)))
        return weights / weights.sum() if weights.sum() > 0 else None
