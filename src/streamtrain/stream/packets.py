"""A queue whose newest payloads count only once all of them have come."""

from amaranth import Module, Signal
from amaranth.lib.wiring import In

from streamtrain.stream.queue import DISTRIBUTED_DEPTH, Store

__all__ = ["PacketQueue"]


class PacketQueue(Store):
    """Keep payloads in order; give them out only after :py:`commit`, or forget them at :py:`discard`.

    A sample that comes from outside may turn out to be damaged at its end. Nothing of it may have
    been used by then.

    Parameters
    ----------
    shape : shape-like
    depth : :class:`int`
        Payloads, at least 1. A packet that is longer never fits.
    lutram_depth : :class:`int`
        Largest ``depth`` that lives in LUT RAM.

    Members
    -------
    i : :py:`In(stream.Signature(shape))`
    o : :py:`Out(stream.Signature(shape))`
    commit : :py:`In(1)`
        What has been accepted, in this cycle too, counts.
    discard : :py:`In(1)`
        What has been accepted since the last ``commit``, in this cycle too, never was.

    Timing
    ------
    One payload per cycle at both ends. One is offered two cycles after its packet was committed. What
    is discarded leaves its room free from the next cycle on.
    """

    def __init__(self, shape, depth, *, lutram_depth=DISTRIBUTED_DEPTH):
        super().__init__(shape, depth, lutram_depth, {"commit": In(1), "discard": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self.memory()
        write, read = memory.write_port(), memory.read_port()
        whole = Signal(range(self.depth + 1))  # of committed packets, in memory
        begun = Signal(range(self.depth + 1))  # since then
        accepted = Signal.like(begun)  # the same, with this cycle's
        start = Signal.like(write.addr)  # of what is begun
        after = Signal.like(write.addr)  # the place behind this cycle's
        fetch = Signal()
        full = Signal()  # whole + begun == depth: whoever waits for that decides on much
        filled = whole + begun
        m.d.comb += [
            self.i.ready.eq(~full),
            write.en.eq(self.i.valid & self.i.ready),
            write.data.eq(self.i.payload),
            accepted.eq(begun + write.en),
            after.eq(write.addr),
            fetch.eq((whole != 0) & (~self.o.valid | self.o.ready)),
            read.en.eq(fetch),
            self.o.payload.eq(read.data),
        ]
        with m.If(write.en):
            m.d.comb += after.eq(write.addr + 1)
            with m.If(write.addr == self.depth - 1):
                m.d.comb += after.eq(0)
        m.d.sync += [
            write.addr.eq(after),
            begun.eq(accepted),
            whole.eq(whole - fetch),
            full.eq(~fetch & (full | write.en & (filled == self.depth - 1))),
        ]
        with m.If(self.commit):
            m.d.sync += [begun.eq(0), start.eq(after), whole.eq(whole - fetch + accepted)]
        with m.Elif(self.discard):
            m.d.sync += [begun.eq(0), write.addr.eq(start), full.eq(~fetch & (whole == self.depth))]
        with m.If(fetch):
            m.d.sync += [self.o.valid.eq(1), read.addr.eq(read.addr + 1)]
            with m.If(read.addr == self.depth - 1):
                m.d.sync += read.addr.eq(0)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
