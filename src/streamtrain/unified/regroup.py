"""Words of one of several sizes out of a stream of beats."""

from operator import index

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Regroup"]


class Regroup(wiring.Component):
    """Cut beats into words, or put words together from beats.

    Parameters
    ----------
    beat : :class:`int`
        Bits of a beat.
    sizes : sequence of :class:`int`
        Bits of words: each divides a beat, or is a multiple of it.

    Members
    -------
    size : :py:`In(range(len(sizes)))`
        Number of the size of what comes now.
    last : :py:`In(1)`
        The word that is offered is the last one of its beats: what is left of the beat is dropped.
    i : :py:`In(stream.Signature(unsigned(beat)))`
    o : :py:`Out(stream.Signature(unsigned(max(sizes))))`
        The word is in the low bits.

    Timing
    ------
    The side with the smaller words moves one in each cycle. A word is offered in the cycle in which its
    last beat comes.
    """

    def __init__(self, beat, sizes):
        self.beat = index(beat)
        self.sizes = tuple(index(size) for size in sizes)
        for size in self.sizes:
            if size < 1 or (size % self.beat and self.beat % size):
                raise ValueError(
                    f"Words of {size} bits neither divide beats of {self.beat} bits nor hold whole ones"
                )
        super().__init__({
            "size": In(range(len(self.sizes))),
            "last": In(1),
            "i": In(stream.Signature(unsigned(self.beat))),
            "o": Out(stream.Signature(unsigned(max(self.sizes)))),
        })

    def elaborate(self, platform):
        m = Module()
        cuts = max(1, *(self.beat // size for size in self.sizes))
        parts = max(1, *(size // self.beat for size in self.sizes))
        cut, part = Signal(range(cuts + 1)), Signal(range(parts + 1))
        last_cut, last_part = Signal(), Signal()
        held = Signal(max(self.sizes))  # earlier beats of a word
        with m.Switch(self.size):
            for number, size in enumerate(self.sizes):
                with m.Case(number):
                    if size < self.beat:
                        m.d.comb += [
                            self.o.payload.eq(self.i.payload.word_select(cut, size)),
                            last_cut.eq(cut == self.beat // size - 1),
                            last_part.eq(1),
                        ]
                    else:
                        m.d.comb += [
                            self.o.payload.eq(held),
                            self.o.payload.word_select(part, self.beat).eq(self.i.payload),
                            last_cut.eq(1),
                            last_part.eq(part == size // self.beat - 1),
                        ]
        moves = Signal()
        m.d.comb += [
            self.o.valid.eq(self.i.valid & last_part),
            moves.eq(self.i.valid & (~last_part | self.o.ready)),
            self.i.ready.eq((~last_part | self.o.ready) & (last_cut | last_part & self.last)),
        ]
        with m.If(moves):
            m.d.sync += held.word_select(part, self.beat).eq(self.i.payload)
            with m.If(last_part):
                m.d.sync += [part.eq(0), cut.eq(Mux(self.i.ready, 0, cut + 1))]
            with m.Else():
                m.d.sync += part.eq(part + 1)
        return m
