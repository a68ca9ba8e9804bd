"""Reproducible random bits, the same in NumPy and in gates."""

from operator import index

import numpy as np
from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Chain", "Lfsr", "lane_bits", "lfsr_bit", "lfsr_states", "link"]

_TAPS = (32, 22, 2, 1)  # x^32 + x^22 + x^2 + x + 1 is primitive: the period is 2^32 - 1
_STEPS = 16  # bits shifted at each advance, so that neighbouring numbers share few bits


def lfsr_bit(state):
    """The bit that moves into a shift register from below. Works on integers and Amaranth values."""
    bit = 0
    for tap in _TAPS:
        bit ^= state >> tap - 1
    return bit & 1


def _advance(state):
    for _ in range(_STEPS):
        state = (state << 1 | lfsr_bit(state)) & 0xFFFFFFFF
    return state


def lfsr_states(seed, count):
    """The first ``count`` states of an :class:`Lfsr`, and the one that follows them."""
    states = np.empty(count, dtype=np.uint32)
    for number in range(count):
        states[number] = seed
        seed = _advance(seed)
    return states, seed


def lane_bits(state, lane, bits):
    """Random number of ``bits`` bits for one of the lanes that are rounded together.

    Each lane reads the state rotated by a distance of its own (32 distances, then they repeat).
    Works on integers, arrays and Amaranth values.
    """
    if bits > 32:
        raise ValueError(f"Stochastic rounding drops at most 32 bits, not {bits}")
    turn = (lane * 11) % 32
    if isinstance(state, (int, np.integer, np.ndarray)):
        state = np.asarray(state, dtype=np.uint64)
        turned = (state << np.uint64(turn) | state >> np.uint64(32 - turn)) & np.uint64(0xFFFFFFFF)
        return (turned & np.uint64((1 << bits) - 1)).astype(np.int64)
    return state.rotate_left(turn)[:bits]


class Chain(wiring.Signature):
    """What is around registers that are linked into one, so that a host can read and write them.

    Members
    -------
    shift : :py:`Out(1)`
        Move all registers by one place after this cycle.
    i : :py:`Out(1)`
        The first register's new lowest bit.
    o : :py:`In(1)`
        The last register's highest bit.
    """

    def __init__(self):
        super().__init__({"shift": Out(1), "i": Out(1), "o": In(1)})


def link(m, chain, parts):
    """Make ``parts`` one chain, the first one first."""
    bit = chain.i
    for part in parts:
        m.d.comb += [part.shift.eq(chain.shift), part.i.eq(bit)]
        bit = part.o
    m.d.comb += chain.o.eq(bit)


class Lfsr(wiring.Component):
    """Fibonacci shift register of 32 bits that moves 16 places at a time.

    Parameters
    ----------
    seed : :class:`int`
        State after reset, 1 to ``2**32 - 1``.

    Members
    -------
    advance : :py:`In(1)`
        Move on after this cycle.
    state : :py:`Out(32)`
    chain : :py:`In(Chain())`
        Its own bits, for as long as it does not advance.

    Timing
    ------
    ``state`` changes on the cycle after ``advance`` or ``chain.shift``.
    """

    advance: In(1)
    state: Out(32)
    chain: In(Chain())

    def __init__(self, seed):
        self.seed = index(seed)
        if not 0 < self.seed < 1 << 32:
            raise ValueError(f"Seed must be 1 to 2**32 - 1, not {seed!r}")
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        register = Signal(32, init=self.seed)
        # Advancing is linear over GF(2): each new bit is the parity of some old ones.
        moved = [_advance(1 << old) for old in range(32)]
        parities = [
            Cat(register[old] for old in range(32) if moved[old] >> new & 1).xor()
            for new in range(32)
        ]
        with m.If(self.chain.shift):
            m.d.sync += register.eq(Cat(self.chain.i, register[:-1]))
        with m.Elif(self.advance):
            m.d.sync += register.eq(Cat(parities))
        m.d.comb += [self.state.eq(register), self.chain.o.eq(register[-1])]
        return m
