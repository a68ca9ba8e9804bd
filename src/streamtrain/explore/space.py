"""All foldings of a plan, and what each choice costs: the space that a search looks at.

Whatever is known of a design is a sum over its stages and over pairs of neighbours, or follows from
such sums: resources, and the durations that :mod:`streamtrain.pipeline.timing` turns into cycles. So
all of it is looked up once for each folding of each stage and for each pair of lanes that meet, and a
design is then put together from tables.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from streamtrain.pipeline import timing
from streamtrain.pipeline.resources import link_usage, shell_usage, stage_usage

__all__ = ["FIGURES", "Space", "divisors"]

FIGURES = ("cycles", "latency", "dsp", "bram18", "lut", "ff")
"""What :meth:`Space.figures` finds out about a design, by column; all are better if they are less."""

RESOURCES = FIGURES[2:]

_LINK = timing._LINK  # from here on, durations depend on two foldings
_CHUNK = 4096  # designs whose tables are in memory at once


def divisors(n):
    """All divisors of ``n``, ascending."""
    return [d for d in range(1, n + 1) if n % d == 0]


class Space:
    """The foldings of every stage of a plan.

    A design is an integer array (stages,): for each stage, the number of one of its foldings.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
        Its own foldings are ignored.

    Attributes
    ----------
    foldings : list of lists of (Pm, Pn, Pk)
        By stage.
    own, cost : lists of arrays (foldings, durations) and (foldings, :data:`RESOURCES`)
        By stage: durations and resources that its own folding decides.
    pm, pn : lists of integer arrays (foldings,)
        By stage: the number of a folding's Pm and Pn among those of the stage.
    link, link_cost : lists of arrays (Pm, Pn of the next stage, ...)
        Likewise, what two neighbours decide. Behind the last stage there is one Pn.
    shell : array (:data:`RESOURCES`,)
        Resources that no folding changes.
    options : dict
        Of :func:`timing.step`.
    """

    def __init__(self, plan):
        self.plan = plan
        self.geometry = timing.geometry(plan.stages, plan.network.loss)
        self.foldings, self.own, self.cost = [], [], []
        self.pm, self.pn, self.link, self.link_cost = [], [], [], []
        befores, afters = [None, *plan.stages[:-1]], [*plan.stages[1:], None]
        for before, stage, after in zip(befores, plan.stages, afters, strict=True):
            (n, m), k = stage.channels, stage.kernel
            pms, pns = divisors(m), divisors(n)
            foldings = list(product(pms, pns, sorted({1, k, k * k})))
            folded = [replace(stage, folding=folding) for folding in foldings]
            self.foldings.append(foldings)
            self.own.append(np.array([timing.stage_durations(s, before) for s in folded], float))
            self.cost.append(np.array([_usage(stage_usage(plan, s)) for s in folded]))
            self.pm.append(np.array([pms.index(pm) for pm, _, _ in foldings]))
            self.pn.append(np.array([pns.index(pn) for _, pn, _ in foldings]))
            neighbours = [None]
            if after is not None:
                neighbours = [
                    replace(after, folding=(1, pn, 1)) for pn in divisors(after.channels[0])
                ]
            pairs = [[(replace(stage, folding=(pm, 1, 1)), b) for b in neighbours] for pm in pms]
            self.link.append(
                np.array(
                    [[np.ravel(timing.link_durations(a, b)) for a, b in row] for row in pairs], float
                )
            )
            self.link_cost.append(
                np.array([[_usage(link_usage(plan, a, b)) for a, b in row] for row in pairs])
            )
        self.shell = np.array(_usage(shell_usage(plan)))
        self.options = {"in_flight": plan.in_flight, "accumulates": plan.late}

    @property
    def size(self):
        """Number of designs."""
        return int(np.prod([len(own) for own in self.foldings], dtype=object))

    def pairs(self, designs):
        """For each stage but the last and then the last one, (Pm, next Pn) numbers of designs."""
        last = len(self.own) - 1
        for s in range(len(self.own)):
            after = self.pn[s + 1][designs[:, s + 1]] if s < last else 0
            yield s, self.pm[s][designs[:, s]], after

    def resources(self, designs):
        """Resources of designs, an array (designs, :data:`RESOURCES`)."""
        total = np.tile(self.shell, (len(designs), 1))
        for s, pm, pn in self.pairs(designs):
            total += self.cost[s][designs[:, s]] + self.link_cost[s][pm, pn]
        return total

    def tables(self, designs):
        """Durations of designs, an array (designs, stages, :data:`timing.DURATIONS`)."""
        tables = np.zeros((len(designs), len(self.own), len(timing.DURATIONS)))
        for s, pm, pn in self.pairs(designs):
            tables[:, s, :_LINK] = self.own[s][designs[:, s]]
            link = self.link[s][pm, pn]
            tables[:, s, _LINK : _LINK + 2] = link[:, :2]
            if s + 1 < len(self.own):
                tables[:, s + 1, _LINK + 2 :] = link[:, 2:]
        return tables

    def cycles(self, designs):
        """Cycles of designs at batch 1, an array (designs,)."""
        chunks = [designs[first : first + _CHUNK] for first in range(0, len(designs), _CHUNK)]
        found = [timing.step(self.geometry, self.tables(own), **self.options)[0] for own in chunks]
        return np.concatenate([np.empty(0), *found])

    def figures(self, designs, batch=1):
        """What designs cost: an array (designs, :data:`FIGURES`) of whole numbers."""
        designs = np.asarray(designs, np.int64).reshape(-1, len(self.own))
        found = np.empty((len(designs), len(FIGURES)))
        decays = bool(self.plan.network.optimizer.weight_decay)
        for first in range(0, len(designs), _CHUNK):
            chunk = designs[first : first + _CHUNK]
            part = found[first : first + _CHUNK]
            tables = self.tables(chunk)
            if batch == 1:
                part[:, 0], _ = timing.step(self.geometry, tables, **self.options)
            else:
                part[:, 0] = [
                    timing.flow(self.geometry, table, batch=batch, decays=decays, **self.options)[0]
                    for table in tables
                ]
            part[:, 1] = timing.latency(self.geometry, tables)
            part[:, 2:] = self.resources(chunk)
        found[:, 1] = np.ceil(found[:, 1])
        return np.rint(found)

    def named(self, design):
        """Foldings of a design, a tuple of (Pm, Pn, Pk)."""
        return tuple(own[number] for own, number in zip(self.foldings, design, strict=True))

    def folded(self, design):
        """The plan with a design's foldings."""
        stages = [
            replace(stage, folding=folding)
            for stage, folding in zip(self.plan.stages, self.named(design), strict=True)
        ]
        return replace(self.plan, stages=tuple(stages))


def _usage(usage):
    return (usage.dsp, usage.bram18, usage.lut, usage.ff)
