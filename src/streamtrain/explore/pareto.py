"""Which of many choices are worth having: those that no other one beats.

A choice *dominates* another if it is no worse in any objective and better in one. What nothing
dominates is the Pareto front.
"""

import numpy as np

__all__ = ["non_dominated"]

_SMALL = 64  # rows that are compared pair by pair; more are halved
_AT_ONCE = 2**22  # comparisons in memory at a time


def non_dominated(values):
    """Find the rows that no other row dominates; less is better in every column.

    Exact, for any number of columns. With up to three it takes ``n log(n)**2`` operations for ``n``
    rows (divide and conquer: Kung, Luccio and Preparata, "On finding the maxima of a set of
    vectors", Journal of the ACM 22, 1975). With more, halves are compared row by row.

    Parameters
    ----------
    values : array (rows, objectives)

    Returns
    -------
    array (rows,) of :class:`bool`
        Of rows that are equal, the first is marked.

    Raises
    ------
    ValueError
        If ``values`` has another shape, no objectives, or holds NaN.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"Values must have shape (rows, objectives), not {values.shape}")
    if np.isnan(values).any():
        raise ValueError("Values must be comparable, but some are NaN")
    front = np.zeros(len(values), bool)
    if not len(values):
        return front
    order = np.lexsort(values.T[::-1])  # stable: the first of equal rows stays the first
    rows = values[order]
    distinct = np.append(True, (rows[1:] != rows[:-1]).any(axis=1))
    order, rows = order[distinct], rows[distinct]
    # Now only an earlier row can dominate, and it does if its other columns are no larger.
    front[order[_unbeaten(rows[:, 1:])]] = True
    return front


def _unbeaten(rows):
    """Positions of the rows that no earlier row is at most as large as, in all columns."""
    if not rows.shape[1]:
        return np.array([0])
    if rows.shape[1] == 1:
        least = np.minimum.accumulate(rows[:, 0])
        return np.flatnonzero(np.append(True, rows[1:, 0] < least[:-1]))
    if len(rows) <= _SMALL:
        beats = np.triu((rows[:, None] <= rows).all(axis=2), 1)
        return np.flatnonzero(~beats.any(axis=0))
    half = len(rows) // 2
    early, late = _unbeaten(rows[:half]), half + _unbeaten(rows[half:])
    return np.append(early, late[~_beaten(rows[late], rows[early])])


def _beaten(rows, others):
    """Whether one of ``others`` is at most as large as each row, in all columns."""
    if rows.shape[1] == 2:
        others = others[np.argsort(others[:, 0])]
        least = np.minimum.accumulate(others[:, 1])
        at_most = np.searchsorted(others[:, 0], rows[:, 0], side="right")
        return (at_most > 0) & (least[at_most - 1] <= rows[:, 1])
    group = max(1, _AT_ONCE // others.size)
    parts = np.split(rows, range(group, len(rows), group))
    return np.concatenate([(others <= part[:, None]).all(axis=2).any(axis=1) for part in parts])
