"""Trees of rows: halves of halves, so that rows which are much alike lie together, compiled.

A tree's nodes are numbered from the root down, and all nodes below one follow it. Whoever looks through a tree
goes from a node to the next one, or past all that is below it.
"""

from typing import NamedTuple

import numpy as np

from streamtrain.jit import njit

__all__ = ["Tree", "halved", "joined"]


class Tree(NamedTuple):
    """Rows in halves.

    Parameters
    ----------
    rows : integer array (rows,)
        In the order of the tree.
    begins : integer array (nodes + 1,)
        Where the rows of each node begin. They end where those of the node that it skips to begin.
    skips : integer array (nodes,)
        The node behind all that are below this one: the next one, if none are.
    """

    rows: np.ndarray
    begins: np.ndarray
    skips: np.ndarray


@njit(cache=True)
def halved(places, most):
    """The :class:`Tree` of rows at ``places`` (axes, rows), with up to ``most`` in each last node.

    A node is cut where its places differ most.
    """
    axes, count = places.shape
    rows, spare = np.arange(count), np.empty(count, np.int64)
    own = np.empty(count, places.dtype)
    nodes = max(1, 4 * count // most)
    begins, ends, open_ = np.empty(nodes + 1, np.int64), np.empty(nodes, np.int64), [(0, count)]
    nodes = 0
    while open_:
        begin, end = open_.pop()
        begins[nodes], ends[nodes] = begin, end
        nodes += 1
        if end - begin <= most:
            continue
        widest, axis = -1.0, 0
        for other in range(axes):
            low = high = places[other, rows[begin]]
            for at in range(begin + 1, end):
                value = places[other, rows[at]]
                low, high = min(low, value), max(high, value)
            if high - low > widest:
                widest, axis = high - low, other
        for at in range(begin, end):
            own[at] = places[axis, rows[at]]
        half = (end - begin) // 2
        middle = np.partition(own[begin:end], half)[half]
        equal = half - (own[begin:end] < middle).sum()  # of those at the middle, to the first half
        first, second = begin, begin + half
        for at in range(begin, end):
            early = own[at] < middle
            if own[at] == middle and equal:
                early, equal = True, equal - 1
            if early:
                spare[first] = rows[at]
                first += 1
            else:
                spare[second] = rows[at]
                second += 1
        rows[begin:end] = spare[begin:end]
        open_.append((begin + half, end))
        open_.append((begin, begin + half))
    begins[nodes] = count
    # From the last node to the first: the node that begins where this one ends is known.
    skips, at = np.empty(nodes, np.int64), np.empty(count + 1, np.int64)
    at[count] = nodes
    for node in range(nodes - 1, -1, -1):
        skips[node] = at[ends[node]]
        at[begins[node]] = node
    return Tree(rows, begins[: nodes + 1], skips)


def joined(trees):
    """Several trees as one, with their rows one behind another, and where the nodes of each begin."""
    nodes = np.cumsum([0] + [len(tree.skips) for tree in trees])
    rows = np.cumsum([0] + [len(tree.rows) for tree in trees])
    begins = [tree.begins[:-1] + row for tree, row in zip(trees, rows[:-1], strict=True)]
    skips = [tree.skips + node for tree, node in zip(trees, nodes[:-1], strict=True)]
    whole = [tree.rows + row for tree, row in zip(trees, rows[:-1], strict=True)]
    begins = np.concatenate([*begins, rows[-1:]])
    return Tree(np.concatenate(whole), begins, np.concatenate(skips)), nodes
