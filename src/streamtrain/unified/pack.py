"""Beats out of a stream of words."""

from operator import index

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Pack"]


class Pack(wiring.Component):
    """Cut words into beats, or put words together into beats.

    Parameters
    ----------
    word, beat : :class:`int`
        Bits: one divides the other.

    Members
    -------
    i : :py:`In(stream.Signature(data.StructLayout({"word": word, "last": 1})))`
        ``last``: a beat that is not full goes out as it is, with zeros.
    o : :py:`Out(stream.Signature(unsigned(beat)))`

    Timing
    ------
    The side with the smaller words moves one in each cycle. A beat is offered in the cycle in which its
    last word comes.
    """

    def __init__(self, word, beat):
        self.word, self.beat = index(word), index(beat)
        if min(self.word, self.beat) < 1 or (self.word % self.beat and self.beat % self.word):
            raise ValueError(
                f"Words of {word!r} bits neither divide beats of {beat!r} bits nor hold whole ones"
            )
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"word": self.word, "last": 1}))),
            "o": Out(stream.Signature(unsigned(self.beat))),
        })

    def elaborate(self, platform):
        m = Module()
        word, last = self.i.payload.word, self.i.payload.last
        if self.word >= self.beat:
            count = self.word // self.beat
            at = Signal(range(count))
            through = at == count - 1
            m.d.comb += [
                self.o.payload.eq(word.word_select(at, self.beat)),
                self.o.valid.eq(self.i.valid),
                self.i.ready.eq(self.o.ready & through),
            ]
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += at.eq(Mux(through, 0, at + 1))
            return m
        count = self.beat // self.word
        at, held = Signal(range(count)), Signal(self.beat)
        through = last | (at == count - 1)
        m.d.comb += [
            self.o.payload.eq(held),
            self.o.payload.word_select(at, self.word).eq(word),
            self.o.valid.eq(self.i.valid & through),
            self.i.ready.eq(self.o.ready | ~through),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(Mux(through, 0, self.o.payload)), at.eq(Mux(through, 0, at + 1))]
        return m
