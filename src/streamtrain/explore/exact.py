"""The exact Pareto front of a space of foldings: dynamic programming with bounds.

A design's resources are sums over its stages, and its cycles are the longest path in a graph whose arcs
are durations (:mod:`streamtrain.pipeline.timing`). The search puts designs together stage by stage,
from the last one to the first, and drops a partial design for one of two reasons only.

*It is dominated.* All that the stages before can notice of it is when errors arrive from it and how long
it takes from its inputs to the end of the step: two times for each pixel between them, because a longest
path is linear in the max-plus sense. If another partial design needs no more of anything and is no later
in any of these times, whatever is put before them, it is at least as good.

*It is bounded.* Cycles are convex in the durations. So the longest path of any one design is a *cut*: a sum
over stages that no design's cycles are below. Mixed cuts, tight at the optimum of the relaxed problem,
come from Kelley's method (Journal of SIAM 8, 1960). For each cut a table tells the least that the stages
to come can add, for every remainder of DSP slices and block RAM. A partial design is dropped if, with
these, whatever it becomes, a design that is known already is at least as good.

What remains is the front. Of designs that are alike in all objectives one is kept.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.space import FIGURES, RESOURCES
from streamtrain.jit import njit
from streamtrain.pipeline import timing

__all__ = ["exact_front"]

_CYCLES, _LATENCY, _DSP, _BRAM = range(4)

_LINK = timing._LINK
_NEVER = -(2**29)  # a time that nothing waits for, and room to add to it

_BUDGETS = 20  # of DSP slices, for which mixed cuts are made
_GAP = 1e-3  # of the relaxed problem's solution
_ROUNDS = 30
_CUTS = 24  # besides the mixed ones, in each slice of the search
_SLICES = (
    64,
    160,
    300,
    500,
    750,
    1100,
    1500,
)  # DSP slices at which a new slice of the search begins
_LEVELS = 512, 192  # of DSP slices and of block RAM, in a table
_SHARES = 512  # levels of each other resource
_BLOCKS = 64  # of corners that are looked at together: one for each bit of a mask
_TIGHT = 2e-7  # relative error of a table's entries
_ALIKE = 0.01  # part of a step; for a first, fast look at a slice
_STEEP = 1e-6  # relative change of a duration that a longest path is found with


@njit(cache=True)
def _adjoint(geo, s, own, writes, last, weights, given):
    """FP of a stage, backwards: how long it is from each of its inputs to the end of the step.

    ``weights`` (pixels,) are those of its outputs, and become those of their being written.
    ``given`` (pixels,) becomes those of its inputs. Returns that of FP's beginning.
    """
    fp, group = int(own[timing._FP]), int(own[timing._FP_GROUP])
    latency, ahead = int(own[timing._FP_LATENCY]), int(own[timing._FP_AHEAD])
    given[:] = _NEVER
    follows = _NEVER
    for p in range(geo.outputs[s] - 1, -1, -1):
        q = geo.corner[s, p]
        end, begin = follows, _NEVER
        if q >= 0:
            if q + 1 < geo.pooled[s]:
                weights[q] = max(weights[q], writes + weights[q + 1])
            end = max(end, latency + last + weights[q])
            begin = group + latency + writes + weights[q]
        begin = max(begin, fp + end)
        if 0 < ahead <= q:
            weights[q - ahead] = max(weights[q - ahead], begin - fp)
        need = geo.fp_needs[s, p]
        given[need] = max(given[need], begin)
        follows = begin
    return follows


@njit(cache=True)
def _errors(geo, s, own, writes, last, dz, sent, extra):
    """BP and WU of a stage. ``sent`` becomes when the stage before can read its errors, if ever.

    Returns when FP may go on.
    """
    words, word = int(own[timing._WU]), int(own[timing._WORD])
    time = _NEVER
    if s <= geo.first:
        sent[:] = _NEVER
        if s < geo.first:
            return time
        for p in range(geo.outputs[s]):
            time = max(time, dz[geo.wu_needs[s, p]]) + 1
        time += int(own[timing._TERMS]) + int(own[timing._BIASES])
        return time + (words - 1) * word + timing._UPDATE + extra
    latency, ahead = int(own[timing._BP_LATENCY]), int(own[timing._BP_AHEAD])
    row = own.copy()
    row[timing._BP_LAST] = last
    written = _NEVER
    for p in range(geo.sent[s]):
        operations, group, end = timing._bp_pixel(row, geo.vectors[s], geo.channels[s, 0], p)
        begin = max(dz[geo.bp_needs[s, p]], time)
        if 0 < ahead <= p:
            begin = max(begin, sent[p - ahead] - int(operations))
        time = begin + int(operations)
        written = max(
            written + writes, time + latency + int(end), begin + int(group) + latency + writes
        )
        sent[p] = written
    if not geo.trained[s]:
        return _NEVER
    words_end = time + timing._TOKEN + words * word + int(own[timing._BIASES])
    return words_end + timing._UPDATE + extra


@njit(cache=True)
def _pace(geo, s, own, writes, last, in_flight, ends, given):
    """Cycles from one sample to the next that a stage which computes nothing but FP allows.

    ``ends`` (pixels,) are how long it is from each of its outputs to the end of FP in the next stage, if
    that one is alike, too; only with one sample in flight. ``given`` (pixels,) becomes that from its
    inputs to its own end.
    """
    fp, reads = int(own[timing._FP]), int(own[timing._READS])
    pace = max(geo.outputs[s] * fp + timing._FREE, geo.pooled[s] * writes)
    if s == 0:
        pace = max(pace, geo.inputs[0] * reads)
    if in_flight > 1:
        return pace
    if s + 1 < geo.first:  # the next stage's memory is free: it is filled, and read
        _adjoint(geo, s, own, writes, last, ends, given)
        pace = max(pace, writes + ends[0] + timing._FREE)
    given[:] = _NEVER
    for p in range(geo.outputs[s]):
        need = geo.fp_needs[s, p]
        given[need] = max(given[need], (geo.outputs[s] - p) * fp)
    if s == 0:
        for p in range(geo.inputs[0]):
            pace = max(pace, (p + 1) * reads + given[p] + timing._FREE)
    return pace


@njit(cache=True)
def _worth(parts, d, b, floor, table, corners, blocks, grid, ends, killer, mask):
    """The blocks of corners at which a partial design may become better than all that are known.

    ``mask`` are the blocks at which it might before its last stage was put to it, as bits. ``killer``
    (blocks,) remembers the cut that last said no.
    """
    levels, _, cuts = table.shape
    d_step, b_step, any_b, _ = grid
    alive = np.uint64(0)
    for at in range(len(blocks)):
        bit = np.uint64(1) << np.uint64(at)
        if not mask & bit:
            continue
        for number in range(ends[at] - 1, ends[at + 1]):  # first all corners of the block at once
            whole = number < ends[at]
            corner = blocks[at] if whole else corners[number]
            i = int((corner[1] + 1) * d_step - 1 - d) // d_step
            j = any_b if corner[2] == any_b else int((corner[2] + 1) * b_step - 1 - b) // b_step
            good = i >= 0 and j >= 0
            if good:
                i = min(i, levels - 1)
                most = corner[0] * (1 + _TIGHT) - 0.5
                row = table[i, j]
                k = killer[at]
                good = parts[k] + max(row[k], floor[k]) <= most
                if good:
                    for k in range(cuts):
                        if parts[k] + max(row[k], floor[k]) > most:
                            good = False
                            killer[at] = k
                            break
            if whole and not good:
                break
            if not whole and good:
                alive |= bit
                break
    return alive


@njit(cache=True)
def _extend(
    geo, s, extra, in_flight, first, group, times, cost, parts, designs, own, own_cost, own_parts,
    own_pm, own_pn, link, link_cost, link_parts, limits, steps, table, shares, corners, blocks,
    grid, ends, masks, to_group, to_times, to_cost, to_parts, to_designs, to_masks,
):  # fmt: skip
    """Put stage ``s`` before partial designs, from number ``first`` on, while there is room.

    Returns how many there are, and the number of the first partial design that is not done.
    """
    size = geo.pooled[s]
    after = geo.pooled[s - 1] if s > 0 else geo.inputs[0]
    lanes = len(link)
    weights, given = np.empty(size, np.int64), np.empty(after, np.int64)
    next_ends = np.empty(size, np.int64)
    row = np.zeros(len(timing.DURATIONS))
    sent = np.empty(after, np.int64)
    new_parts, new_others = np.empty(parts.shape[1]), np.empty(cost.shape[1] - 2)
    floor, killer = np.empty(len(new_parts)), np.zeros(len(blocks), np.int64)
    count = 0
    for label in range(first, len(times)):
        if count + len(own) * lanes > len(to_times):
            return count, label
        for o in range(len(own)):
            if own_pm[o] != group[label]:
                continue
            ready = False
            within = masks[label]
            for a in range(-1, lanes):  # first with the least that any link adds
                d, b = cost[label, 0] + own_cost[o, 0], cost[label, 1] + own_cost[o, 1]
                pair = a if a >= 0 else lanes
                d += link_cost[pair, own_pn[o], 0]
                b += link_cost[pair, own_pn[o], 1]
                floor[:] = -np.inf
                fits = b <= grid[3]
                for r in range(len(new_others)):
                    new_others[r] = cost[label, 2 + r] + own_cost[o, 2 + r]
                    new_others[r] += link_cost[pair, own_pn[o], 2 + r]
                    left = limits[r] - new_others[r]
                    fits &= left >= 0
                    if fits:
                        share = min(int(left // steps[r]), shares.shape[2] - 1)
                        for k in range(len(floor)):
                            floor[k] = max(floor[k], shares[r, k, share])
                if not fits:
                    if a < 0:
                        break
                    continue
                for k in range(len(new_parts)):
                    new_parts[k] = (
                        parts[label, k] + own_parts[k, o] + link_parts[k, pair, own_pn[o]]
                    )
                mask = _worth(
                    new_parts, d, b, floor, table, corners, blocks, grid, ends, killer, within
                )
                if a < 0:
                    within = mask
                    if not mask:
                        break
                    continue
                if not mask:
                    continue
                if not ready:
                    ready = True
                    weights[:] = times[label, 4 + size :]
                    row[: own.shape[1]] = own[o]
                    begin = _adjoint(geo, s, row, times[label, 2], times[label, 3], weights, given)
                writes, last = 0, 0
                if s > 0:
                    writes, last = link[a, own_pn[o], 2], link[a, own_pn[o], 3]
                updated = _errors(
                    geo, s, row, writes, last, times[label, 4 : 4 + size], sent, extra
                )
                end = max(times[label, 0], updated + begin)
                if s < geo.first:
                    next_ends[:] = times[label, 4 : 4 + size]
                    end = max(end, _pace(
                        geo, s, row, times[label, 2], times[label, 3], in_flight, next_ends, sent
                    ))  # fmt: skip
                if in_flight == 1:  # the next sample comes when there is memory for it
                    free = times[label, 1] - timing._OPEN
                    end = max(end, free + times[label, 2] + weights[0])
                    if s == 0:
                        for p in range(geo.inputs[0]):
                            read = (p + 1) * int(row[timing._READS])
                            end = max(end, updated - timing._OPEN + read + given[p])
                to_group[count] = a
                to_cost[count, 0], to_cost[count, 1] = d, b
                to_cost[count, 2:] = new_others
                to_parts[count] = new_parts
                to_designs[count] = designs[label]
                to_designs[count, s] = o
                to_masks[count] = mask
                to_times[count, 0] = end
                if s == 0 and to_times.shape[1] > 1:  # the latency of a prediction counts, too
                    to_times[count, 1] = timing._COMMAND + begin
                    for p in range(geo.inputs[0]):
                        read = (p + 1) * int(row[timing._READS])
                        to_times[count, 1] = max(to_times[count, 1], read + given[p])
                if s > 0:
                    to_times[count, 1] = updated if in_flight == 1 else _NEVER
                    to_times[count, 2] = link[a, own_pn[o], 0]
                    to_times[count, 3] = link[a, own_pn[o], 1]
                    to_times[count, 4 : 4 + after] = sent
                    to_times[count, 4 + after :] = given
                count += 1
    return count, len(times)


@njit(cache=True)
def _undominated(order, times, cost, safe, near):
    """Numbers of the partial designs that no other one dominates.

    ``order`` sorts them by their first resource. Those that are ``safe`` can never exceed the limits
    on the third resource and on: these do not count against them. Times that are later by up to
    ``near`` (designs,) count as alike.
    """
    kept = np.empty(len(order), np.int64)
    count = 0
    for i in order:
        dominated = False
        for at in range(count - 1, -1, -1):
            j = kept[at]
            worse = cost[j, 1] > cost[i, 1] or times[j, 0] > times[i, 0] + near[i]
            if not worse and not safe[j]:
                for r in range(2, cost.shape[1]):
                    if cost[j, r] > cost[i, r]:
                        worse = True
                        break
            if worse:
                continue
            for t in range(times.shape[1]):
                if times[j, t] > times[i, t] + near[i]:
                    worse = True
                    break
            if not worse:
                dominated = True
                break
        if not dominated:
            kept[count] = i
            count += 1
    return kept[:count]


@njit(cache=True)
def _fill(table, costs, d, b, above, choices):
    """One stage of a table of least costs: ``table`` from the stages before, ``above``.

    The last column is for any amount of the second resource. ``choices`` (empty for none) becomes the
    folding that is the least.
    """
    levels, columns = table.shape
    table[:] = np.inf
    for o in range(len(costs)):
        for i in range(d[o], levels):
            for j in range(columns):
                if j < columns - 1 and j < b[o]:
                    continue
                rest = columns - 1 if j == columns - 1 else j - b[o]
                value = costs[o] + above[i - d[o], rest]
                if value < table[i, j]:
                    table[i, j] = value
                    if choices.size:
                        choices[i, j] = o


def _least(costs, d, b, levels, columns, choose=False):
    """Tables of the least cost of the first 0, 1, ... stages, by what two resources allow.

    Parameters
    ----------
    costs, d, b : lists of arrays (foldings,)
        By stage; resources in levels.
    levels, columns : :class:`int`
    choose : :class:`bool`
        Whether to remember choices.

    Returns
    -------
    (tables, choices)
        Arrays (stages + 1, levels, columns) and (stages, levels, columns).
    """
    tables = np.zeros((len(costs) + 1, levels, columns))
    choices = np.full((len(costs), levels, columns) if choose else (len(costs), 0, 0), -1, np.int16)
    for s, own in enumerate(costs):
        keep = np.arange(len(own))
        if not choose:  # of foldings that need no less of either, the cheapest is enough
            keep = np.flatnonzero(non_dominated(np.stack([own, d[s], b[s]], axis=1)))
        _fill(tables[s + 1], own[keep], d[s][keep], b[s][keep], tables[s], choices[s])
    return tables, choices


def _walk(choices, d, b, i, j):
    """The design that a table chose at level ``i`` and column ``j``."""
    columns = choices.shape[2]
    design = np.empty(len(choices), np.int64)
    for s in range(len(choices) - 1, -1, -1):
        o = design[s] = choices[s, i, j]
        i -= d[s][o]
        j = j if j == columns - 1 else j - b[s][o]
    return tuple(design)


@dataclass(frozen=True)
class _Cut:
    """A sum over stages that no design's cycles are below: ``constant + sum(slopes * durations)``.

    ``slopes`` has the shape (stages, :data:`timing.DURATIONS`).
    """

    slopes: np.ndarray
    constant: float


class _Cuts:
    """Longest paths of a space's designs."""

    def __init__(self, space):
        self.space = space
        self.stages = len(space.own)
        self.options = {
            "in_flight": space.plan.in_flight, "accumulates": space.plan.late
        }  # fmt: skip
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
        return timing.step(self.space.geometry, tables, **self.options)[0]

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
                return _Cut(slopes, cycles[0] - (slopes * here).sum())
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
        """For each budget of DSP slices, the mix of cuts that is tight at the relaxed optimum.

        Returns a list of (budget, cut).
        """
        cuts = [self.at(self._mean(np.argmin)), self.at(self._mean(np.argmax))]
        mixes = []
        for budget in budgets:
            own = limits.copy()
            own[0] = min(budget, limits[0])
            weights = self._relaxed_optimum(cuts, own)
            if weights is None:
                continue
            mix = _Cut(
                sum(w * cut.slopes for w, cut in zip(weights, cuts, strict=True)),
                sum(w * cut.constant for w, cut in zip(weights, cuts, strict=True)),
            )
            if not any(np.allclose(mix.slopes, other.slopes, rtol=1e-3) for _, other in mixes):
                mixes.append((budget, mix))
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

    def add(self, designs):
        """Evaluate designs, and keep those that are as good as any."""
        figures = self.space.figures(designs)
        self.evaluated += len(designs)
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
        search.run(part, alike=_ALIKE)
        search.run(part)
        progress((number + 1) / len(search.slices))
    front = search.front
    order = np.lexsort(front.figures.T[::-1])
    return front.designs[order], front.figures[order], front.evaluated


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
        least = sum(cost[:, 0].min() for cost in self.with_link)
        most = int(min(most, self.rest[0]))
        edges = [edge for edge in _SLICES if least < edge < most]
        self.slices = [
            _Slice(low, high) for low, high in zip([0, *edges], [*edges, most], strict=True)
        ] if least <= most else []  # fmt: skip
        self.cuts = _Cuts(space)
        budgets = (
            np.unique(np.geomspace(least + 1, most + 1, _BUDGETS).astype(int)) + space.shell[0]
        )
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

    def _parts(self, cuts):
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
        _, _, costs = self._parts([cut for _, cut in self.mixes])
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
                tables, choices = _least(own, d, b, levels, 60, choose=True)
                least = tables[-1]
                better = least < np.hstack([np.full((levels, 1), np.inf), least[:, :-1]])
                better[: part.low // step] = False
                for i, j in np.argwhere(better):
                    designs.add(_walk(choices, d, b, i, j))
        for r in range(2, len(RESOURCES)):
            if not np.isfinite(self.rest[r]):
                continue
            step = self.rest[r] / (_SHARES - 1)
            share = [
                np.minimum(cost[:, r] // step, _SHARES).astype(np.int64) for cost in self.with_link
            ]
            none = [np.zeros(len(own), np.int64) for own in share]
            for number in range(len(self.mixes)):
                own = [cost[number] for cost in costs]
                tables, choices = _least(own, share, none, _SHARES, 1, choose=True)
                for i in range(_SHARES // 2, _SHARES):
                    if np.isfinite(tables[-1][i, 0]):
                        designs.add(_walk(choices, share, none, i, 0))
        if designs:
            self.front.add(np.array(sorted(designs)))

    def _choose_cuts(self, part):
        """The mixed cuts of a slice, and those that together say the most of the front there."""
        shell = self.space.shell[0]
        chosen = [
            number
            for number, (budget, _) in enumerate(self.mixes)
            if 0.7 * part.low <= budget - shell <= 1.4 * part.high
        ] or [0]
        d = self.front.figures[:, _DSP] - shell
        near = (d > 0.9 * part.low) & (d <= part.high)
        if near.any():
            values = self.cuts.values(self.known, self.front.designs[near])
            values /= self.front.figures[near, :1]
            said = values[:, chosen].max(axis=1)
            for _ in range(_CUTS):
                sums = np.maximum(said[:, None], values).sum(axis=0)
                best = int(sums.argmax())
                if sums[best] <= said.sum() * (1 + 1e-5):
                    break
                chosen.append(best)
                said = np.maximum(said, values[:, best])
        return [self.known[number] for number in chosen]

    def run(self, part, alike=0.0):
        """Search one slice.

        Parameters
        ----------
        part : :class:`_Slice`
        alike : :class:`float`
            Part of a step by which times may differ and count as alike: above 0, the search is fast and
            finds most of the front, or what is close to it.
        """
        space = self.space
        cuts = self._choose_cuts(part)
        own_parts, link_parts, costs = self._parts(cuts)
        d_step = -(-part.high // (_LEVELS[0] - 1))
        levels = part.high // d_step + 1
        # More block RAM than any known design has is one level, whatever the amount.
        most_b = max(0.0, self.front.figures[:, _BRAM].max(initial=0) - space.shell[1])
        b_step = max(1, int(-(-most_b // (_LEVELS[1] - 2))))
        any_b = int(most_b // b_step) + 1
        d = [(cost[:, 0] // d_step).astype(np.int64) for cost in self.with_link]
        b = [
            np.minimum(cost[:, 1] // b_step, any_b + 1).astype(np.int64) for cost in self.with_link
        ]
        tables = np.empty((self.stages + 1, levels, any_b + 1, len(cuts)), np.float32)
        for k in range(len(cuts)):
            tables[..., k] = _least([cost[k] for cost in costs], d, b, levels, any_b + 1)[0]
        rest, steps, shares = self._shares(costs, len(cuts))
        corners, blocks, ends = self._corners(part, d_step, b_step, levels, any_b)
        if not len(corners):
            return
        grid = (d_step, b_step, any_b, float(self.rest[1]))
        label = self._loss(cuts)
        for s in range(self.stages - 1, -1, -1):
            label = self._stage(
                part, s, label, own_parts, link_parts, rest, steps, tables[s], shares[s], corners,
                blocks, grid, ends, alike,
            )  # fmt: skip
        designs = label[4]
        if len(designs):
            self.front.add(designs.astype(np.int64))

    def _shares(self, costs, cuts):
        """Tables of least costs by what each other resource allows, (stages + 1, resources, cuts, levels)."""
        bounded = [r for r in range(2, len(RESOURCES)) if np.isfinite(self.rest[r])]
        rest = np.where(np.isfinite(self.rest[2:]), self.rest[2:], 1e18)
        steps = rest / (_SHARES - 1)
        shares = np.full((self.stages + 1, len(rest), cuts, _SHARES), -np.inf)
        for r in bounded:
            share = [
                np.minimum(cost[:, r] // steps[r - 2], _SHARES).astype(np.int64)
                for cost in self.with_link
            ]
            none = [np.zeros(len(own), np.int64) for own in share]
            for k in range(cuts):
                own = [cost[k] for cost in costs]
                shares[:, r - 2, k] = _least(own, share, none, _SHARES, 1)[0][..., 0]
        return rest, steps, shares

    def _corners(self, part, d_step, b_step, levels, any_b):
        """What a design must be better than: rows of (cycles, level of DSP, level of block RAM).

        If it has no more cycles than a corner, and is not beyond its levels, no known design is as
        good.
        """
        best = np.full((levels, any_b + 1), self.limits[_CYCLES] + 1)
        if set(self.objectives) <= {_CYCLES, _DSP, _BRAM}:
            known = self.front.figures
            cycles = (
                known[:, _CYCLES] if _CYCLES in self.objectives else np.full(len(known), -np.inf)
            )
            i, j = np.zeros((2, len(known)), np.int64)
            if _DSP in self.objectives:
                i = np.ceil((known[:, _DSP] - self.space.shell[0]) / d_step).astype(np.int64)
            if _BRAM in self.objectives:
                j = np.ceil((known[:, _BRAM] - self.space.shell[1]) / b_step).astype(np.int64)
            j = np.minimum(j, any_b)
            inside = i < levels
            np.minimum.at(best, (i[inside], j[inside]), cycles[inside])
            best = np.minimum.accumulate(np.minimum.accumulate(best, axis=0), axis=1)
        above = np.vstack([best[1:], np.full((1, any_b + 1), -np.inf)])
        right = np.hstack([best[:, 1:], np.full((levels, 1), -np.inf)])
        outer = (best > above) & (best > right)
        outer[: part.low // d_step] = False
        i, j = np.nonzero(outer)
        order = np.lexsort((j, i // 8))
        corners = np.stack([best[i, j], i, j], axis=1)[order]
        corners = np.minimum(corners, 1e15)
        ends = np.unique(np.linspace(0, len(corners), _BLOCKS + 1).astype(np.int64))
        blocks = [corners[low:high].max(axis=0) for low, high in pairwise(ends)]
        return corners, np.array(blocks).reshape(-1, 3), ends

    def _loss(self, cuts):
        """The partial design that has no stage yet: for each Pm of the last stage, the loss behind it."""
        space, last = self.space, self.stages - 1
        link = space.link[-1][:, 0].astype(np.int64)
        times = np.full((len(link), 6), _NEVER, np.int32)
        times[:, 2:4] = link[:, :2]
        pm, errors = space.pm[last], space.own[last][:, timing._ERRORS]
        times[pm, 4] = errors + timing._QUEUE
        times[:, 5] = space.geometry.loss[0]
        n = len(link)
        return (
            np.arange(n),
            times,
            np.zeros((n, len(RESOURCES))),
            np.tile([cut.constant for cut in cuts], (n, 1)),
            np.zeros((n, self.stages), np.int16),
            np.full(n, 2**64 - 1, np.uint64),
        )

    def _stage(
        self, part, s, label, own_parts, link_parts, rest, steps, table, shares, corners, blocks,
        grid, ends, alike,
    ):  # fmt: skip
        """Put stage ``s`` before partial designs, and drop those that are dominated."""
        space, geo = self.space, self.space.geometry
        size = int(geo.pooled[s - 1]) if s else 0
        room = max(200_000, 2 * len(space.own[s]) * 8)
        width = 4 + 2 * size if s else 1 + self.latency
        group, times, cost, parts, designs, masks = label
        found, first = [], 0
        lanes = len(space.pn[0])  # before the first stage there is no link: one that adds nothing
        link = space.link[s - 1].astype(np.int64) if s else np.zeros((1, lanes, 4), np.int64)
        link_cost = space.link_cost[s - 1] if s else np.zeros((1, lanes, len(RESOURCES)))
        link_part = link_parts[s - 1] if s else np.zeros((parts.shape[1], 1, lanes))
        # The last row is the least of the others.
        link_cost = np.concatenate([link_cost, link_cost.min(axis=0, keepdims=True)])
        link_part = np.concatenate([link_part, link_part.min(axis=1, keepdims=True)], axis=1)
        room = int(min(room, max(4e8 // (4 * width), 2 * len(space.own[s]) * len(link))))
        buffers = (
            np.empty(room, np.int64), np.empty((room, width), np.int32),
            np.empty((room, cost.shape[1])), np.empty((room, parts.shape[1])),
            np.empty((room, self.stages), np.int16), np.empty(room, np.uint64),
        )  # fmt: skip
        while first < len(times) or not found:
            count, first = _extend(
                geo, s, int(space.plan.max_batch > 1), space.plan.in_flight, first,
                group, times, cost, parts, designs, space.own[s], self.cost[s], own_parts[s],
                space.pm[s], space.pn[s], link, link_cost, link_part, rest, steps, table, shares,
                corners, blocks, grid, ends, masks, *buffers,
            )  # fmt: skip
            found.append(
                self._pruned(part, s, tuple(buffer[:count].copy() for buffer in buffers), alike)
            )
        label = tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
        return self._pruned(part, s, label, alike) if len(found) > 1 else label

    def _pruned(self, part, s, label, alike):
        """Partial designs without those that are dominated."""
        group, times, cost, parts, *_ = label
        near = (alike * parts.max(axis=1)).astype(np.int32)
        counted = [0, 1] + [r for r in range(2, len(RESOURCES)) if np.isfinite(self.rest[r])]
        if FIGURES.index("lut") in self.objectives:
            counted.append(2)
        counted = sorted(set(counted))
        safe = np.ones(len(cost), bool)
        for r in counted[2:]:
            left = np.clip(part.high - cost[:, 0], 0, part.high).astype(np.int64)
            safe &= cost[:, r] + self._most(r, s, part)[left] <= self.rest[r]
        if FIGURES.index("lut") in self.objectives:
            safe[:] = False
        kept = []
        for value in np.unique(group):
            mine = np.flatnonzero(group == value)
            order = mine[np.lexsort((times[mine, 0], cost[mine, 1], cost[mine, 0]))]
            kept.append(_undominated(order, times, cost[:, counted], safe, near))
        kept = np.concatenate(kept) if kept else np.empty(0, np.int64)
        return tuple(array[kept] for array in label)

    def _most(self, r, s, part):
        """The most of a resource that the stages before ``s`` can take, by DSP slices that are left."""
        most = np.zeros(part.high + 1)
        for t in range(s):
            worst = self.cost[t][:, r] + (
                self.space.link_cost[t - 1][..., r].max(axis=0)[self.space.pn[t]] if t else 0
            )
            grown = np.full(part.high + 1, -np.inf)
            for o, taken in enumerate(self.cost[t][:, 0].astype(int)):
                if taken <= part.high:
                    grown[taken:] = np.maximum(
                        grown[taken:], most[: part.high + 1 - taken] + worst[o]
                    )
            most = np.maximum.accumulate(grown)
        return most
