"""Bounds: the least that the stages to come add to a partial design, by what they may take.

The search puts designs together from the last stage to the first. For each cut a table tells the
least that the missing stages can add, for every remainder of DSP slices and block RAM. The
stages behind have decided on the Pm of the stage that comes next, so there is a table for each.
"""

from typing import NamedTuple

import numpy as np

from streamtrain.jit import njit

__all__ = ["Corners", "corners", "least", "least_by_lanes", "walk"]

_BLOCKS = 64  # of corners that are looked at together
_MOST = 1e15  # cycles that count as any number


class Corners(NamedTuple):
    """What a design must be better than, to be better than all that are known.

    Parameters
    ----------
    most : array (corners,)
        What cuts may say of a design that is better.
    levels : integer array (corners, 2)
        Of DSP slices and block RAM, which it is not beyond.
    block_most, block_levels : arrays as above
        The loosest of each block of corners.
    ends : integer array (blocks + 1,)
        Where blocks begin.
    grid : tuple of three :class:`int`
        DSP slices and block RAM of a level, and the level from which on block RAM does not matter.
    """

    most: np.ndarray
    levels: np.ndarray
    block_most: np.ndarray
    block_levels: np.ndarray
    ends: np.ndarray
    grid: tuple


def corners(most, low, d_step, b_step):
    """The :class:`Corners` of a staircase.

    Parameters
    ----------
    most : array (DSP slices + 1, block RAM + 1)
        What cuts may say of a design that takes so much, and is better than those that are known. The last
        column is for any amount of block RAM.
    low : :class:`int`
        More DSP slices than these are asked for.
    d_step, b_step : :class:`int`
        Of a level.

    Returns None if no design can be better.
    """
    # A level allows all that it holds, and what is known to take no more than its first amount counts.
    any_b = -(-(most.shape[1] - 1) // b_step)
    rows = np.arange(0, len(most), d_step)
    columns = np.minimum(np.arange(any_b + 1) * b_step, most.shape[1] - 1)
    most = most[np.ix_(rows, columns)]
    above = np.vstack([most[1:], np.full((1, any_b + 1), -np.inf)])
    right = np.hstack([most[:, 1:], np.full((len(most), 1), -np.inf)])
    outer = (most > above) & (most > right)
    outer[: low // d_step] = False
    i, j = np.nonzero(outer)
    if not len(i):
        return None
    own = np.minimum(most[i, j], _MOST)
    # A block is as loose as its corners differ in cycles and in DSP slices.
    places = np.log(np.stack([np.maximum(own, 1), i + 1, j + 1]))
    blocks = [np.arange(len(i))]
    while len(blocks) < _BLOCKS // 2 + 1 and len(blocks[-1]) > 1:
        blocks = [part for block in blocks for part in _halves(block, places)]
    order = np.concatenate(blocks)
    ends = np.cumsum([0] + [len(block) for block in blocks])
    begins = ends[:-1]
    own, levels = own[order].astype(np.float32), np.stack([i, j], axis=1)[order]
    return Corners(
        own, levels, np.maximum.reduceat(own, begins), np.maximum.reduceat(levels, begins),
        ends, (d_step, b_step, any_b),
    )  # fmt: skip


def _halves(block, places):
    """A block in two where its places differ most; or as it is, if it is a single one."""
    if len(block) < 2:
        return [block]
    own = places[:, block]
    axis = np.ptp(own, axis=1).argmax()
    order = block[np.argsort(own[axis], kind="stable")]
    return np.split(order, [len(order) // 2])


@njit(cache=True)
def _grow(table, above, to, source, d, b, costs):
    """Put choices before tables: ``table[to]`` becomes the least of ``costs + above[source]``.

    Each choice takes ``d`` and ``b`` levels.
    """
    _, levels, columns, cuts = table.shape
    any_b = columns - 1
    row = np.empty(columns * cuts, np.float32)  # a choice's costs, for each column
    for o in range(len(to)):
        first, left = b[o] * cuts, max(any_b - b[o], 0) * cuts
        for n in range(len(row)):
            row[n] = costs[o, n % cuts]
        for i in range(d[o], levels):
            mine, rest = table[to[o], i].ravel(), above[source[o], i - d[o]].ravel()
            for n in range(left):
                mine[first + n] = min(mine[first + n], row[n] + rest[n])
            for n in range(any_b * cuts, len(row)):
                mine[n] = min(mine[n], row[n] + rest[n])


def least_by_lanes(stages, levels, d_step, b_step, any_b, cuts):
    """Tables of the least that stages add to cuts, by what two resources allow and by lanes.

    Parameters
    ----------
    stages : sequence of :class:`~streamtrain.explore.partial.Stage`
        The first stages, from the front.
    levels : :class:`int`
        Of DSP slices.
    d_step, b_step, any_b : :class:`int`
        As for :class:`Corners`.
    cuts : :class:`int`
        How many: the first of ``parts``.

    Returns
    -------
    (tables, linked)
        By stage ``s``, arrays (lanes, levels, any_b + 1, cuts) of what all stages before it add:
        by Pm of stage ``s - 1``, its link to ``s`` not counted; and by Pn of ``s``, the link that is the
        best counted.
    """

    def level(cost):
        d, b = cost[..., 0] // d_step, np.minimum(cost[..., 1] // b_step, any_b + 1)
        return d.astype(np.int64).ravel(), b.astype(np.int64).ravel()

    shape = levels, any_b + 1, cuts
    tables, linked = [np.zeros((1, *shape), np.float32)], []
    for stage in stages:
        lanes = np.indices(stage.link_parts.shape[:2]).reshape(2, -1)
        grown = np.full((stage.link_parts.shape[1], *shape), np.inf, np.float32)
        parts = np.ascontiguousarray(stage.link_parts[..., :cuts].reshape(-1, cuts))
        _grow(grown, tables[-1], lanes[1], lanes[0], *level(stage.link_cost), parts)
        linked.append(grown)
        if len(linked) == len(stages):
            return tables, linked
        tables.append(np.full((len(stage.by_pm) - 1, *shape), np.inf, np.float32))
        parts = np.ascontiguousarray(stage.parts[:, :cuts])
        _grow(tables[-1], grown, stage.pm, stage.pn, *level(stage.cost), parts)


def least_by_share(stages, limits, levels, cuts):
    """Tables of the least that stages add to cuts, by what each resource but the first two allows.

    Parameters
    ----------
    stages, cuts
        As for :func:`least_by_lanes`, but all stages.
    limits : array (resources,)
        Of all stages together.
    levels : :class:`int`

    Returns
    -------
    (steps, shares)
        Amounts of a level, an array (resources,); and by stage ``s`` what all stages before it add, an
        array (stages, resources, levels, cuts). Of a resource without limit nothing is known.
    """
    steps = np.where(np.isfinite(limits), limits, 1e18) / (levels - 1)
    shares = np.full((len(stages), len(limits), levels, cuts), -np.inf, np.float32)
    for r in np.flatnonzero(np.isfinite(limits)):
        shares[0, r] = 0
        for s, stage in enumerate(stages[:-1]):
            cost = stage.cost[:, 2 + r] + stage.link_cost[..., 2 + r].min(axis=0)[stage.pn]
            parts = stage.parts[:, :cuts] + stage.link_parts[..., :cuts].min(axis=0)[stage.pn]
            taken = np.minimum(cost // steps[r], levels).astype(np.int64)
            none = np.zeros(len(taken), np.int64)
            table = np.full((1, levels, 1, cuts), np.inf, np.float32)
            above = shares[s, r][None, :, None]
            _grow(table, above, none, none, taken, none, np.ascontiguousarray(parts))
            shares[s + 1, r] = table[0, :, 0]
    return steps, shares


@njit(cache=True)
def _choose(table, costs, d, b, above, choices):
    """One stage of a table of least costs: ``table`` from the stages before, ``above``.

    The last column is for any amount of the second resource. ``choices`` becomes the folding that is
    the least.
    """
    levels, columns = table.shape
    for o in range(len(costs)):
        for i in range(d[o], levels):
            for j in range(columns):
                if j < columns - 1 and j < b[o]:
                    continue
                rest = columns - 1 if j == columns - 1 else j - b[o]
                value = costs[o] + above[i - d[o], rest]
                if value < table[i, j]:
                    table[i, j] = value
                    choices[i, j] = o


def least(costs, d, b, levels, columns):
    """The least cost of all stages, by what two resources allow, and the foldings that it is of.

    Parameters
    ----------
    costs, d, b : lists of arrays (foldings,)
        By stage; resources in levels.
    levels, columns : :class:`int`

    Returns
    -------
    (table, choices)
        Arrays (levels, columns) and (stages, levels, columns).
    """
    table = np.zeros((levels, columns))
    choices = np.full((len(costs), levels, columns), -1, np.int16)
    for own, own_d, own_b, chosen in zip(costs, d, b, choices, strict=True):
        above, table = table, np.full((levels, columns), np.inf)
        _choose(table, own, own_d, own_b, above, chosen)
    return table, choices


def walk(choices, d, b, i, j):
    """The design that a table chose at level ``i`` and column ``j``."""
    columns = choices.shape[2]
    design = np.empty(len(choices), np.int64)
    for s in range(len(choices) - 1, -1, -1):
        o = design[s] = choices[s, i, j]
        i -= d[s][o]
        j = j if j == columns - 1 else j - b[s][o]
    return tuple(design)
