"""A first-in first-out queue of payloads of any shape."""

from operator import index

from amaranth import Module, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["DISTRIBUTED_DEPTH", "Queue", "memory_style"]

DISTRIBUTED_DEPTH = 64
"""Unless told otherwise, memories up to this many words live in LUT RAM: block RAM would be nearly empty."""


def memory_style(depth, lutram_depth=DISTRIBUTED_DEPTH):
    """Attributes that put a memory of ``depth`` words into LUT RAM, or into block RAM if it is deeper
    than ``lutram_depth``."""
    return {"ram_style": "distributed" if depth <= lutram_depth else "block"}


class Queue(wiring.Component):
    """Keep up to ``depth`` payloads in order; in block RAM one more, on its way out.

    Parameters
    ----------
    shape : shape-like
    depth : :class:`int`
        Payloads in memory, at least 1.
    lutram_depth : :class:`int`
        Largest ``depth`` that lives in LUT RAM.

    Members
    -------
    i : :py:`In(stream.Signature(shape))`
    o : :py:`Out(stream.Signature(shape))`
    level : :py:`Out(range(depth + 2))`
        Payloads inside.

    Timing
    ------
    One payload per cycle at both ends, or every other cycle if ``depth`` is 1. A payload is offered
    on the cycle after it was accepted, and one cycle later if it comes out of block RAM.
    """

    def __init__(self, shape, depth, *, lutram_depth=DISTRIBUTED_DEPTH):
        self.shape = shape
        self.depth = index(depth)
        self.lutram_depth = index(lutram_depth)
        if self.depth < 1:
            raise ValueError(f"Queue must hold at least one payload, not {depth!r}")
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            "level": Out(range(self.depth + 2)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=Shape.cast(self.shape),
            depth=self.depth,
            init=[],
            attrs=memory_style(self.depth, self.lutram_depth),
        )
        block = self.depth > self.lutram_depth
        write, read = memory.write_port(), memory.read_port(domain="sync" if block else "comb")
        stored = Signal(range(self.depth + 1))  # in memory
        fetch = Signal()  # the oldest one leaves the memory

        m.d.comb += [
            self.i.ready.eq(stored != self.depth),
            write.en.eq(self.i.valid & self.i.ready),
            write.data.eq(self.i.payload),
            self.o.payload.eq(read.data),
        ]
        for port, moved in ((write, write.en), (read, fetch)):
            with m.If(moved):
                m.d.sync += port.addr.eq(port.addr + 1)
                with m.If(port.addr == self.depth - 1):
                    m.d.sync += port.addr.eq(0)
        m.d.sync += stored.eq(stored + write.en - fetch)
        if block:
            # What is read waits in the memory's own register: it is free, or becomes so.
            m.d.comb += [
                fetch.eq((stored != 0) & (~self.o.valid | self.o.ready)),
                read.en.eq(fetch),
                self.level.eq(stored + self.o.valid),
            ]
            with m.If(fetch):
                m.d.sync += self.o.valid.eq(1)
            with m.Elif(self.o.ready):
                m.d.sync += self.o.valid.eq(0)
        else:
            m.d.comb += [fetch.eq(self.o.valid & self.o.ready), self.level.eq(stored)]
            with m.If(write.en):
                m.d.sync += self.o.valid.eq(1)
            with m.Elif(fetch):
                m.d.sync += self.o.valid.eq(stored != 1)
        return m
