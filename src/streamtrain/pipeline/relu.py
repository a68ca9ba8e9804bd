"""Rectification, forward and backward."""

from operator import index

from amaranth import Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.layouts import forward_layout
from streamtrain.stream import fork, join

__all__ = ["ReLU", "ReLUGrad"]


class ReLU(wiring.Component):
    """``max(x, 0)`` in each lane, and which lanes let their value through.

    Parameters
    ----------
    fmt : :class:`Fixed`
    lanes : :class:`int`
    records : :class:`bool`
        Whether errors come back, and ``mask`` is needed.

    Members
    -------
    i, o : :py:`In(...)`, :py:`Out(stream.Signature(forward_layout(fmt, lanes)))`
    mask : :py:`Out(stream.Signature(ArrayLayout(1, lanes)))`
        For samples that are trained with: 1 where the value is positive. Only with ``records``.

    Timing
    ------
    Combinational.
    """

    def __init__(self, fmt, lanes, *, records=True):
        self.fmt = fmt
        self.lanes = index(lanes)
        self.records = records
        members = {
            "i": In(stream.Signature(forward_layout(fmt, self.lanes))),
            "o": Out(stream.Signature(forward_layout(fmt, self.lanes))),
        }
        if records:
            members["mask"] = Out(stream.Signature(data.ArrayLayout(1, self.lanes)))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        train = self.i.payload.train
        branches = [(self.o, 1)] + ([(self.mask, train)] if self.records else [])
        m.d.comb += [
            self.o.payload.train.eq(train),
            self.i.ready.eq(fork(m, self.i.valid, branches)),
        ]
        for lane in range(self.lanes):
            x = self.i.payload.data[lane]
            m.d.comb += self.o.payload.data[lane].eq(Mux(x[-1], 0, x))
            if self.records:
                m.d.comb += self.mask.payload[lane].eq(x > 0)
        return m


class ReLUGrad(wiring.Component):
    """Pass the errors of values that :class:`ReLU` let through; 0 for the others.

    Parameters
    ----------
    fmt : :class:`Fixed`
    lanes : :class:`int`

    Members
    -------
    i, o : :py:`In(...)`, :py:`Out(stream.Signature(ArrayLayout(fmt, lanes)))`
    mask : :py:`In(stream.Signature(ArrayLayout(1, lanes)))`

    Timing
    ------
    Combinational.
    """

    def __init__(self, fmt, lanes):
        self.fmt = fmt
        self.lanes = index(lanes)
        super().__init__({
            "i": In(stream.Signature(data.ArrayLayout(fmt, self.lanes))),
            "o": Out(stream.Signature(data.ArrayLayout(fmt, self.lanes))),
            "mask": In(stream.Signature(data.ArrayLayout(1, self.lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        join(m, self.o, self.i, self.mask)
        for lane in range(self.lanes):
            m.d.comb += self.o.payload[lane].eq(Mux(self.mask.payload[lane], self.i.payload[lane], 0))
        return m
