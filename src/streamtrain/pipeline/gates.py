"""Small pieces of gates that several components are made of."""

from itertools import pairwise

from amaranth import Signal

__all__ = ["balanced_sum", "delayed"]


def balanced_sum(terms):
    """Sum of values as a balanced tree: :func:`sum` would build a chain."""
    terms = list(terms)
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]


def delayed(m, value, registers, name, **options):
    """A value, and what it was 1 to ``registers`` cycles ago: a list, the newest first.

    ``options`` are those of :class:`Signal`; the registers are named ``name`` and their age.
    """
    line = [value]
    line += [Signal.like(value, name=f"{name}{age}", **options) for age in range(1, registers + 1)]
    m.d.sync += [older.eq(newer) for newer, older in pairwise(line)]
    return line
