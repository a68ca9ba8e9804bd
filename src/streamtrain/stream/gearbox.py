"""Cut a stream of words into words of any other size."""

from operator import index

from amaranth import Array, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Gearbox"]


class Gearbox(wiring.Component):
    """Pass units of some bits on in order, in words of another number of them.

    Packets have a whole number of words at the output; at the input the last word of a packet may be
    filled up with units that are dropped here. :class:`~streamtrain.stream.Resize` costs less where one
    number divides the other and packets end with a word.

    Parameters
    ----------
    unit : :class:`int`
        Bits of a unit.
    units_in, units_out : :class:`int`
        Units in a word on either side.
    packet : :class:`int`
        Units in a packet, a multiple of ``units_out``.

    Members
    -------
    i : :py:`In(stream.Signature(unsigned(unit * units_in)))`
    o : :py:`Out(stream.Signature(unsigned(unit * units_out)))`
        The first unit is lowest.

    Timing
    ------
    The side with fewer units moves a word every cycle. A word is offered on the cycle after its last
    unit was accepted.
    """

    def __init__(self, unit, units_in, units_out, packet):
        self.unit, self.units_in, self.units_out = index(unit), index(units_in), index(units_out)
        self.packet = index(packet)
        if min(self.unit, self.units_in, self.units_out) < 1:
            raise ValueError(
                f"Units of {unit!r} bits, {units_in!r} and {units_out!r} of them: each must be at least 1"
            )
        if self.packet < 1 or self.packet % self.units_out:
            raise ValueError(
                f"Packets must be words of {self.units_out} units, but have {packet!r} units"
            )
        super().__init__({
            "i": In(stream.Signature(unsigned(self.unit * self.units_in))),
            "o": Out(stream.Signature(unsigned(self.unit * self.units_out))),
        })

    def elaborate(self, platform):
        m = Module()
        words = -(-self.packet // self.units_in)
        last_units = self.packet - (words - 1) * self.units_in
        room = self.units_in + self.units_out - 1  # less than a word out, and a word in
        held = Signal(self.unit * room)
        level = Signal(range(room + 1))
        number = Signal(range(words))  # of the packet's words
        last = number == words - 1
        left, kept, coming = Signal.like(level), Signal.like(held), Signal.like(level)
        take = self.i.valid & self.i.ready
        m.d.comb += [
            self.o.valid.eq(level >= self.units_out),
            self.o.payload.eq(held),
            left.eq(level),
            kept.eq(held),
            self.i.ready.eq(left < self.units_out),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += [
                left.eq(level - self.units_out),
                kept.eq(held >> self.unit * self.units_out),
            ]
        m.d.sync += [held.eq(kept), level.eq(left)]
        with m.If(take):
            places = Array(self.i.payload << self.unit * place for place in range(self.units_out))
            m.d.comb += coming.eq(self.units_in)
            with m.If(last):
                m.d.comb += coming.eq(last_units)
            # What is above the level is not looked at, and is written over.
            below = Array((1 << self.unit * place) - 1 for place in range(self.units_out))
            m.d.sync += [
                held.eq((kept & below[left]) | places[left]),
                level.eq(left + coming),
                number.eq(number + 1),
            ]
            with m.If(last):
                m.d.sync += number.eq(0)
        return m
