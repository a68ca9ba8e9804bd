"""Change how many lanes of a stream travel side by side."""

from math import gcd
from operator import index

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.stream.connect import connect

__all__ = ["Resize"]


class Resize(wiring.Component):
    """Pass elements on in order, in groups of another size.

    Neighbouring layers multiply different numbers of channels in parallel; this stands between
    them. If neither size divides the other, elements travel through their greatest common divisor.

    Parameters
    ----------
    fmt : :class:`Fixed`
        Format of an element.
    lanes_in, lanes_out : :class:`int`
        Elements in a payload on either side.

    Members
    -------
    i : :py:`In(stream.Signature(ArrayLayout(fmt, lanes_in)))`
    o : :py:`Out(stream.Signature(ArrayLayout(fmt, lanes_out)))`

    Timing
    ------
    Combinational. The side with fewer lanes moves a payload every cycle. If neither size divides
    the other, their greatest common divisor of elements moves every cycle.
    """

    def __init__(self, fmt, lanes_in, lanes_out):
        self.fmt = fmt
        self.lanes_in = index(lanes_in)
        self.lanes_out = index(lanes_out)
        if min(self.lanes_in, self.lanes_out) < 1:
            raise ValueError(f"Lanes must be at least 1, not {lanes_in!r} and {lanes_out!r}")
        super().__init__({
            "i": In(stream.Signature(data.ArrayLayout(fmt, self.lanes_in))),
            "o": Out(stream.Signature(data.ArrayLayout(fmt, self.lanes_out))),
        })

    def elaborate(self, platform):
        m = Module()
        common = gcd(self.lanes_in, self.lanes_out)
        if common == self.lanes_in:
            self._gather(m, self.lanes_out // common)
        elif common == self.lanes_out:
            self._split(m, self.lanes_in // common)
        else:
            m.submodules.split = split = Resize(self.fmt, self.lanes_in, common)
            m.submodules.gather = gather = Resize(self.fmt, common, self.lanes_out)
            connect(m, wiring.flipped(self.i), split.i)
            connect(m, split.o, gather.i)
            connect(m, gather.o, wiring.flipped(self.o))
        return m

    def _split(self, m, parts):
        bits = self.lanes_out * self.fmt.width
        part = Signal(range(parts))
        last = part == parts - 1
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.o.payload.eq(self.i.payload.as_value().word_select(part, bits)),
            self.i.ready.eq(self.o.ready & last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += part.eq(part + 1)
            with m.If(last):
                m.d.sync += part.eq(0)

    def _gather(self, m, parts):
        bits = self.lanes_in * self.fmt.width
        if parts == 1:
            m.d.comb += [
                self.o.valid.eq(self.i.valid),
                self.o.payload.eq(self.i.payload),
                self.i.ready.eq(self.o.ready),
            ]
            return
        part = Signal(range(parts))
        last = part == parts - 1
        earlier = Signal(bits * (parts - 1))
        m.d.comb += [
            self.o.valid.eq(self.i.valid & last),
            self.o.payload.eq(Cat(earlier, self.i.payload)),
            self.i.ready.eq(self.o.ready | ~last),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += part.eq(part + 1)
            with m.If(last):
                m.d.sync += part.eq(0)
            with m.Else():
                m.d.sync += earlier.word_select(part, bits).eq(self.i.payload)
