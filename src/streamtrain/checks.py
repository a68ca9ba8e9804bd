"""Checks of arguments that many places make, in the same words."""

from operator import index

import numpy as np

__all__ = ["checked_integer", "not_finite"]


def checked_integer(what, value, least=None):
    """``value`` as an :class:`int`, at least ``least``.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is less.
    """
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{what} must be at least {least}, not {value!r}")
    return number


def not_finite(array):
    """Index of the first NaN or infinity of an array of numbers; None if all are finite."""
    if not array.size or (np.isfinite(array.min()) and np.isfinite(array.max())):
        return None
    return tuple(np.argwhere(~np.isfinite(array))[0].tolist())
