"""Small pieces of gates that several components are made of."""

from itertools import pairwise

from amaranth import Const, Signal, unsigned
from amaranth.lib.memory import Memory

from streamtrain.stream import memory_style

__all__ = ["balanced_sum", "delayed", "times_constant", "word_memory"]


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


def times_constant(value, constant, plus=0):
    """Product with a positive constant, as few shifted sums: a multiplier is not worth it.

    ``plus`` is a constant that is added, in the same tree of sums.
    """
    place, terms = 0, {1: [], -1: []}
    while constant:
        if constant & 1:  # the next two bits decide between adding and subtracting
            digit = 2 - (constant & 3)
            constant -= digit
            terms[digit].append(value << place)
        constant >>= 1
        place += 1
    if plus and len(terms[-1]) < len(terms[1]):
        terms[-1].append(Const(-plus))
    elif plus:
        terms[1].append(Const(plus))
    total = balanced_sum(terms[1])
    return total - balanced_sum(terms[-1]) if terms[-1] else total


def word_memory(m, name, width, depth, lutram_depth):
    """A memory of words of ``width`` bits, in LUT RAM or in block RAM."""
    attrs = memory_style(depth, lutram_depth)
    m.submodules[name] = memory = Memory(shape=unsigned(width), depth=depth, init=[], attrs=attrs)
    return memory
