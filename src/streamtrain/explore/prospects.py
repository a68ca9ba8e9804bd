"""Prospects: which partial designs may become better than all that are known, compiled.

When a stage is put before partial designs, :func:`candidates` finds the foldings that the bounds allow. When only
the first stages are missing, :func:`completions` tries all their designs, the *heads*: each has to be good enough by
all cuts at once.
"""

from typing import NamedTuple

import numpy as np

from streamtrain.jit import njit

__all__ = [
    "Bound", "Heads", "candidates", "completions", "least_of_nodes", "most_to_be_better", "refine",
]  # fmt: skip

_TIGHT = 1e-6  # relative error of sums of float32
# Where the one bit of a number is: it shifts a sequence in which each six bits are others (de Bruijn's).
_SEQUENCE = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.argsort((_SEQUENCE << np.arange(64, dtype=np.uint64)) >> np.uint64(58))
_WHOLE = 0.99  # cycles are whole: to be better, they have to be a cycle less


def most_to_be_better(cycles):
    """What the cuts of a design may say, if it is to have fewer cycles than so many."""
    return cycles * (1 + _TIGHT) - _WHOLE


class Bound(NamedTuple):
    """What stages that are missing add at least, and what they may take.

    Parameters
    ----------
    tables : array (Pm, levels, levels, cuts)
        For a stage: without the link to it.
    linked : array (Pn, levels, levels, cuts)
        With the link that is the best.
    shares : array (resources, levels, cuts)
        By what the third resource and those after it allow.
    free : integer array (resources,)
        The level of ``shares`` from which on they are what any amount allows.
    steps : array (resources,)
        Of a level of ``shares``.
    rest : array (:data:`~streamtrain.explore.space.RESOURCES`,)
        What all stages together may take of each resource; finite.
    """

    tables: np.ndarray
    linked: np.ndarray
    shares: np.ndarray
    free: np.ndarray
    steps: np.ndarray
    rest: np.ndarray


class Heads(NamedTuple):
    """All designs of the first stages, in a tree for each Pm of the last one of them.

    A head is one of :class:`~streamtrain.explore.heads.FirstStages` and a folding of the stage behind them.

    Parameters
    ----------
    heads : integer array (heads, 2)
        Number of the design of the first stages, and of the pair of their lanes and the folding.
    taken : integer array (heads, 2)
        DSP slices and block RAM.
    cost, parts : arrays (designs of the first stages, ...)
        As for :class:`Partial`.
    pair_cost, pair_parts : arrays (pairs, ...)
        What the stage behind them and its link to them add.
    by_pm : integer array (Pm + 1,)
        Where the nodes of each Pm begin.
    begins, skips
        As for :class:`~streamtrain.explore.trees.Tree`.
    least_parts, least_taken : arrays (nodes, ...)
        The least of each node.
    killers : integer array (nodes,)
        The cut that last said no to a node: it is asked first.
    most : array (DSP slices + 1, block RAM + 1)
        What the cuts of a design that takes so much may say, if it is better than those that are known.
        The last column is for any amount of block RAM.
    low : :class:`int`
        A design takes more DSP slices than these.
    rest : array (:data:`~streamtrain.explore.space.RESOURCES`,)
        What all stages together may take of each resource; finite.
    """

    heads: np.ndarray
    taken: np.ndarray
    cost: np.ndarray
    parts: np.ndarray
    pair_cost: np.ndarray
    pair_parts: np.ndarray
    by_pm: np.ndarray
    begins: np.ndarray
    skips: np.ndarray
    least_parts: np.ndarray
    least_taken: np.ndarray
    killers: np.ndarray
    most: np.ndarray
    low: int
    rest: np.ndarray


@njit(cache=True)
def _worth(rows, parts, cost, tables, which, bound, corners, blocks, every):
    """The blocks of corners at which partial designs may become better than all that are known.

    It takes several at once because a call counts references to all arrays, which takes longer than one of
    them. All cuts are asked at once, too, without a branch: that is what the processor is fast at.

    Parameters
    ----------
    rows : :class:`int`
        How many partial designs.
    parts, cost : arrays (rows, ...)
        Of the partial designs.
    tables, which : array (tables, levels, levels, cuts), and integer array (rows,)
        The least that the missing stages add, and the number of the table for each.
    bound : :class:`Bound`
    corners : :class:`~streamtrain.explore.bounds.Corners`
    blocks : array (rows,) of :class:`numpy.uint64`
        The blocks to look at, as bits. Becomes those at which a partial design may become better.
    every : :class:`bool`
        Whether to find all of them, not only one.
    """
    # Fields are looked up here, not in loops: each look-up counts a reference.
    rest, steps, shares, free = bound.rest, bound.steps, bound.shares, bound.free
    ends, corner_most, corner_levels = corners.ends, corners.most, corners.levels
    block_most, block_levels = corners.block_most, corners.block_levels
    d_step, b_step, any_b = corners.grid
    _, levels, _, cuts = tables.shape
    for row in range(rows):
        table, wanted, found = which[row], blocks[row], np.uint64(0)
        fits = cost[row, 1] <= rest[1]
        least = np.float32(-np.inf)  # that a cut says, for what is left of the third resource and on
        for r in range(2, len(rest)):
            left = rest[r] - cost[row, r]
            fits &= left >= 0
            share = min(int(max(left, 0.0) / steps[r - 2]), shares.shape[1] - 1)
            if share < free[r - 2]:
                for k in range(cuts):
                    least = max(least, parts[row, k] + shares[r - 2, share, k])
        # A level of what is left, besides that of a corner.
        d_rest = (d_step - 1 - int(cost[row, 0])) // d_step
        b_rest = (b_step - 1 - int(cost[row, 1])) // b_step
        while fits and wanted:  # from one set bit to the next: few of them are
            bit = wanted & (~wanted + np.uint64(1))
            wanted ^= bit
            block = _PLACES[bit * _SEQUENCE >> np.uint64(58)]
            # First all corners of the block at once.
            i, j = block_levels[block, 0], block_levels[block, 1]
            i, j = min(i + d_rest, levels - 1), any_b if j == any_b else j + b_rest
            most = block_most[block]
            if i < 0 or j < 0 or least > most:
                continue
            beyond = False
            for k in range(cuts):
                beyond |= parts[row, k] + tables[table, i, j, k] > most
            for number in range(ends[block], ends[block] if beyond else ends[block + 1]):
                i, j = corner_levels[number, 0], corner_levels[number, 1]
                i, j = min(i + d_rest, levels - 1), any_b if j == any_b else j + b_rest
                most = corner_most[number]
                if i < 0 or j < 0 or least > most:
                    continue
                beyond = False
                for k in range(cuts):
                    beyond |= parts[row, k] + tables[table, i, j, k] > most
                if not beyond:
                    found |= bit
                    break
            if found and not every:
                break
        blocks[row] = found


@njit(cache=True)
def refine(partial, bound, corners):
    """Work out the blocks of corners of partial designs, given the bound of what comes next."""
    _worth(
        len(partial.lanes), partial.parts, partial.cost, bound.tables, partial.lanes, bound, corners,
        partial.blocks, True,
    )  # fmt: skip


@njit(cache=True)
def _foldings(number, group, partial, parts, stage, bound, corners, blocks, work):
    """Put each folding of a stage, with each link, before a partial design.

    Parameters
    ----------
    number, group : :class:`int`
        Of the partial design and of its lanes.
    partial : :class:`Partial`
    parts : array (partial designs, cuts)
        Of which the first ones are those of the tables.
    stage, bound, corners
        As for :func:`_worth`.
    blocks : :class:`numpy.uint64`
        Of the partial design.
    work : tuple of arrays (rows, ...)
        ``cost``, ``parts``, ``lanes``, ``foldings`` and ``blocks`` of what is put together.

    Returns how many there are that the bounds allow: the first rows of ``cost``, ``lanes`` and ``foldings``.
    """
    cost, own, lanes, foldings, alive = work
    own_cost, link_cost, own_parts, link_parts = (
        stage.cost, stage.link_cost, stage.parts, stage.link_parts,
    )  # fmt: skip
    all_cost, pns, cuts, resources = partial.cost, stage.pn, own.shape[1], cost.shape[1]
    begin, end = stage.by_pm[group], stage.by_pm[group + 1]
    for o in range(begin, end):
        row = o - begin
        for r in range(resources):
            cost[row, r] = all_cost[number, r] + own_cost[o, r]
        for k in range(cuts):
            own[row, k] = parts[number, k] + own_parts[o, k]
        lanes[row], alive[row] = pns[o], blocks
    _worth(end - begin, own, cost, bound.linked, lanes, bound, corners, alive, False)
    rows = 0
    for o in range(begin, end):  # to rows behind, and then to the front
        if not alive[o - begin]:
            continue
        pn = pns[o]
        for a in range(len(link_cost)):
            row = end - begin + rows
            for r in range(resources):
                cost[row, r] = all_cost[number, r] + own_cost[o, r] + link_cost[a, pn, r]
            for k in range(cuts):
                own[row, k] = parts[number, k] + own_parts[o, k] + link_parts[a, pn, k]
            lanes[row], foldings[row] = a, o
            alive[row] = blocks & ~(alive[o - begin] - np.uint64(1))  # none before the first one
            rows += 1
    first = end - begin
    _worth(
        rows, own[first:], cost[first:], bound.tables, lanes[first:], bound, corners, alive[first:],
        False,
    )  # fmt: skip
    count = 0
    for row in range(first, first + rows):
        if alive[row]:
            for r in range(resources):
                cost[count, r] = cost[row, r]
            lanes[count], foldings[count] = lanes[row], foldings[row]
            count += 1
    return count


@njit(cache=True)
def _room(stage, cuts):
    """The arrays that :func:`_foldings` works with."""
    most = 0
    for group in range(len(stage.by_pm) - 1):
        most = max(most, stage.by_pm[group + 1] - stage.by_pm[group])
    rows = most * (1 + len(stage.link))
    return (
        np.empty((rows, stage.cost.shape[1])), np.empty((rows, cuts), np.float32),
        np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.uint64),
    )  # fmt: skip


@njit(cache=True)
def candidates(stage, partial, bound, corners, first, found):
    """Which foldings of a stage, and lanes of the one before it, bounds allow to come next.

    Parameters
    ----------
    stage : :class:`Stage`
    partial : :class:`Partial`
    bound : :class:`Bound`
    corners : :class:`~streamtrain.explore.bounds.Corners`
    first : :class:`int`
        Partial design to begin with.
    found : integer array (room, 3)
        Becomes numbers of a partial design, a folding, and lanes.

    Returns
    -------
    (count, next)
        How many there are, and the first partial design that there was no room for.
    """
    work, count = _room(stage, bound.tables.shape[3]), 0
    _, _, lanes, foldings, _ = work
    for number in range(first, len(partial.lanes)):
        if count + len(lanes) > len(found):
            return count, number
        alive = _foldings(
            number, partial.lanes[number], partial, partial.parts, stage, bound, corners,
            partial.blocks[number], work,
        )  # fmt: skip
        for row in range(alive):
            found[count, 0], found[count, 1], found[count, 2] = number, foldings[row], lanes[row]
            count += 1
    return count, len(partial.lanes)


@njit(cache=True)
def least_of_nodes(heads):
    """Work out ``least_parts`` and ``least_taken`` of :class:`Heads`."""
    least_parts, least_taken, begins, skips = (
        heads.least_parts, heads.least_taken, heads.begins, heads.skips,
    )  # fmt: skip
    parts, pair_parts, taken, cuts = heads.parts, heads.pair_parts, heads.taken, heads.parts.shape[1]
    least_parts[:] = np.inf
    least_taken[:] = np.iinfo(np.int32).max
    for node in range(len(skips) - 1, -1, -1):  # those below a node come first
        to, to_taken = least_parts[node], least_taken[node]
        if skips[node] == node + 1:
            for at in range(begins[node], begins[node + 1]):
                one, pair = parts[heads.heads[at, 0]], pair_parts[heads.heads[at, 1]]
                for k in range(cuts):
                    to[k] = min(to[k], one[k] + pair[k])
                for r in range(2):
                    to_taken[r] = min(to_taken[r], taken[at, r])
        else:
            for half in (node + 1, skips[node + 1]):
                for k in range(cuts):
                    to[k] = min(to[k], least_parts[half, k])
                for r in range(2):
                    to_taken[r] = min(to_taken[r], least_taken[half, r])


@njit(cache=True)
def completions(lanes, cost, parts, heads, order, first, every, hits):
    """Heads with which partial designs may be better than all known designs.

    Parameters
    ----------
    lanes, cost : arrays (partial designs, ...)
        As for :class:`Partial`.
    parts : array (partial designs, cuts)
        What they are worth by the cuts of ``heads``.
    heads : :class:`Heads`
    order : integer array
        Numbers of partial designs, in the order in which they are looked at. Neighbours that cost about the same find
        in the processor's cache what the one before them read, and fail for the same reason.
    first : :class:`int`
        Place in ``order`` to begin at.
    every : :class:`bool`
        Whether to find all heads of a partial design, not only one.
    hits : integer array (room, 2)
        Becomes numbers of a partial design and a head.

    Returns
    -------
    (count, next)
        How many there are, and the first place in ``order`` that there was no room for.
    """
    # Fields are looked up here, not in loops: each look-up counts a reference.
    all_heads, taken, head_cost, pair_cost = heads.heads, heads.taken, heads.cost, heads.pair_cost
    head_parts, pair_parts, killers = heads.parts, heads.pair_parts, heads.killers
    by_pm, begins, skips = heads.by_pm, heads.begins, heads.skips
    least_parts, least_taken, all_most = heads.least_parts, heads.least_taken, heads.most
    rest, low, levels, any_b = heads.rest, heads.low, len(all_most), all_most.shape[1] - 1
    cuts, resources, count = parts.shape[1], cost.shape[1], 0
    for place in range(first, len(order)):
        number = order[place]
        node, end = by_pm[lanes[number]], by_pm[lanes[number] + 1]
        if count + (begins[end] - begins[node] if every else 1) > len(hits):
            return count, place
        d_own, b_own = int(cost[number, 0]), int(cost[number, 1])
        while node < end:
            d, b = d_own + least_taken[node, 0], b_own + least_taken[node, 1]
            k = killers[node]
            if d >= levels or b > rest[1]:
                node = skips[node]
                continue
            most = all_most[d, min(b, any_b)]
            if parts[number, k] + least_parts[node, k] > most:
                node = skips[node]
                continue
            beyond = False
            for k in range(cuts):  # without a branch: that is what the processor is fast at
                beyond |= parts[number, k] + least_parts[node, k] > most
            if beyond:
                for k in range(cuts):
                    if parts[number, k] + least_parts[node, k] > most:
                        killers[node] = k
                        break
                node = skips[node]
                continue
            if skips[node] > node + 1:
                node += 1
                continue
            for at in range(begins[node], begins[node + 1]):
                d, b = d_own + taken[at, 0], b_own + taken[at, 1]
                if d >= levels or d <= low or b > rest[1]:
                    continue
                most, head, pair = all_most[d, min(b, any_b)], all_heads[at, 0], all_heads[at, 1]
                k = killers[node]
                if parts[number, k] + head_parts[head, k] + pair_parts[pair, k] > most:
                    continue
                fits = True
                for r in range(2, resources):
                    fits &= cost[number, r] + head_cost[head, r] + pair_cost[pair, r] <= rest[r]
                for k in range(cuts if fits else 0):
                    if parts[number, k] + head_parts[head, k] + pair_parts[pair, k] > most:
                        killers[node] = k
                        fits = False
                        break
                if fits:
                    hits[count, 0], hits[count, 1] = number, at
                    count += 1
                    if not every:
                        node = end
                        break
            node = skips[node] if node < end else end
    return count, len(order)
