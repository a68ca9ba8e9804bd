"""The host's way to the random bits of stochastic rounding."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.host.packing import STATE_BITS
from streamtrain.numeric import Chain
from streamtrain.pipeline.layouts import stored_width

__all__ = ["RandomScan"]


class RandomScan(wiring.Component):
    """Scan all states of a design's random bits out or in, a bit at a time.

    The registers are linked into one, in the order of the plan's ``random_sites``. The highest bit of
    the last one comes first. What is read goes in again at the other end, so it is there afterwards.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    token : :py:`In(stream.Signature(StructLayout({"write": 1})))`
        Read or write all states.
    i, o : :py:`In(...)`, :py:`Out(stream.Signature(signed(stored_width(plan))))`
        One bit each, the lowest one.
    chain : :py:`Out(Chain())`
    idle : :py:`Out(1)`
        No token is inside.

    Timing
    ------
    A bit each cycle.
    """

    def __init__(self, plan):
        self.plan = plan
        width = stored_width(plan)
        super().__init__({
            "token": In(stream.Signature(data.StructLayout({"write": 1}))),
            "i": In(stream.Signature(signed(width))),
            "o": Out(stream.Signature(signed(width))),
            "chain": Out(Chain()),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(STATE_BITS * len(self.plan.random_sites) + 1))
        write = Signal()
        busy = left != 0
        m.d.comb += [
            self.idle.eq(~busy),
            self.token.ready.eq(~busy),
            self.i.ready.eq(busy & write),
            self.o.valid.eq(busy & ~write),
            self.o.payload.eq(self.chain.o),
            self.chain.i.eq(Mux(write, self.i.payload[0], self.chain.o)),
            self.chain.shift.eq(busy & Mux(write, self.i.valid, self.o.ready)),
        ]
        with m.If(self.token.valid & self.token.ready):
            m.d.sync += [
                left.eq(STATE_BITS * len(self.plan.random_sites)),
                write.eq(self.token.payload.write),
            ]
        with m.If(self.chain.shift):
            m.d.sync += left.eq(left - 1)
        return m
