"""A first-in first-out queue of payloads of any shape."""

from operator import index

from amaranth import Module, Mux, Shape, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["DISTRIBUTED_DEPTH", "Queue", "Store", "memory_style"]

DISTRIBUTED_DEPTH = 64
"""Unless told otherwise, memories up to this many words live in LUT RAM: block RAM would be nearly empty."""


def memory_style(depth, lutram_depth=DISTRIBUTED_DEPTH):
    """Attributes that put a memory of ``depth`` words into LUT RAM, or into block RAM if it is deeper
    than ``lutram_depth``."""
    return {"ram_style": "distributed" if depth <= lutram_depth else "block"}


def _count(m, i, write, fetch, depth):
    """Payloads in a queue's memory; drives ``i.ready``.

    Both ``write`` and ``fetch`` come late in a cycle, and ``i.ready`` is wanted early.
    """
    stored, full = Signal(range(depth + 1)), Signal()
    with m.If(write & ~fetch):
        m.d.sync += [stored.eq(stored + 1), full.eq(stored == depth - 1)]
    with m.If(fetch & ~write):
        m.d.sync += [stored.eq(stored - 1), full.eq(0)]
    m.d.comb += i.ready.eq(~full)
    return stored


class Store(wiring.Component):
    """What queues have in common: payloads that go through a memory.

    Parameters
    ----------
    shape : shape-like
    depth : :class:`int`
        Payloads in memory, at least 1.
    lutram_depth : :class:`int`
        Largest ``depth`` that lives in LUT RAM.
    members : dict
        Ports besides the streams.

    Members
    -------
    i : :py:`In(stream.Signature(shape))`
    o : :py:`Out(stream.Signature(shape))`

    Timing
    ------
    That of the queue.
    """

    def __init__(self, shape, depth, lutram_depth, members):
        self.shape = shape
        self.depth = index(depth)
        self.lutram_depth = index(lutram_depth)
        if self.depth < 1:
            raise ValueError(f"Queue must hold at least one payload, not {depth!r}")
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            **members,
        })

    def memory(self):
        """The memory: LUT RAM, or block RAM if it is deeper than ``lutram_depth``."""
        return Memory(
            shape=Shape.cast(self.shape),
            depth=self.depth,
            init=[],
            attrs=memory_style(self.depth, self.lutram_depth),
        )


class Queue(Store):
    """Keep up to ``depth`` payloads in order; in block RAM one or two more, on their way out.

    Parameters
    ----------
    shape : shape-like
    depth : :class:`int`
        Payloads in memory, at least 1.
    lutram_depth : :class:`int`
        Largest ``depth`` that lives in LUT RAM.
    head : :class:`bool`
        Keep the oldest payload in a register, for those who decide on much in the cycle in which it is
        offered. Block RAM answers late in a cycle.

    Members
    -------
    i : :py:`In(stream.Signature(shape))`
    o : :py:`Out(stream.Signature(shape))`
    level : :py:`Out(range(depth + 3))`
        Payloads inside.

    Timing
    ------
    One payload per cycle at both ends, or every other cycle if ``depth`` is 1. A payload is offered
    on the cycle after it was accepted, and one cycle later if it comes out of block RAM; two, if it
    goes through a register then.
    """

    def __init__(self, shape, depth, *, lutram_depth=DISTRIBUTED_DEPTH, head=False):
        super().__init__(shape, depth, lutram_depth, {"level": Out(range(index(depth) + 3))})
        self.head = head

    def elaborate(self, platform):
        m = Module()
        block = self.depth > self.lutram_depth
        if self.head and not block:
            self._behind_a_register(m)
            return m
        m.submodules.memory = memory = self.memory()
        write, read = memory.write_port(), memory.read_port(domain="sync" if block else "comb")
        fetch = Signal()  # the oldest one leaves the memory
        stored = _count(m, self.i, write.en, fetch, self.depth)  # in memory

        m.d.comb += [
            write.en.eq(self.i.valid & self.i.ready),
            write.data.eq(self.i.payload),
        ]
        for port, moved in ((write, write.en), (read, fetch)):
            with m.If(moved):
                m.d.sync += port.addr.eq(port.addr + 1)
                with m.If(port.addr == self.depth - 1):
                    m.d.sync += port.addr.eq(0)
        if block:
            # What is read waits in the memory's own register: it is free, or becomes so.
            o, held, taken, level = Value.cast(self.o.payload), self.o.valid, self.o.ready, stored
            if self.head:
                held, taken, level = Signal(), ~self.o.valid | self.o.ready, stored + self.o.valid
                with m.If(taken):
                    m.d.sync += [self.o.valid.eq(held), o.eq(read.data)]
            else:
                m.d.comb += o.eq(read.data)
            m.d.comb += [
                fetch.eq((stored != 0) & (~held | taken)),
                read.en.eq(fetch),
                self.level.eq(level + held),
            ]
            with m.If(fetch):
                m.d.sync += held.eq(1)
            with m.Elif(taken):
                m.d.sync += held.eq(0)
        else:
            m.d.comb += [
                fetch.eq(self.o.valid & self.o.ready),
                self.o.payload.eq(read.data),
                self.level.eq(stored),
            ]
            with m.If(write.en):
                m.d.sync += self.o.valid.eq(1)
            with m.Elif(fetch):
                m.d.sync += self.o.valid.eq(stored != 1)
        return m

    def _behind_a_register(self, m):
        """The oldest payload in a register, and the others, if there may be any, in memory."""
        behind = self.depth - 1
        waiting, oldest = 0, self.i.payload
        free = ~self.o.valid | self.o.ready
        accept = self.i.valid & self.i.ready
        if behind:
            m.submodules.memory = memory = Memory(
                shape=Shape.cast(self.shape), depth=behind, init=[], attrs=memory_style(behind)
            )
            write, read = memory.write_port(), memory.read_port(domain="comb")
            fetch, stays = Signal(), Signal()
            stored = _count(m, self.i, stays, fetch, behind)
            waiting = stored != 0
            m.d.comb += [
                fetch.eq(waiting & self.o.ready),  # then there is a head, too
                stays.eq(accept & (waiting | ~free)),
                write.en.eq(accept),  # whether it stays is known late; if not, it is overwritten
                write.data.eq(self.i.payload),
                self.level.eq(stored + self.o.valid),
            ]
            for port, moved in ((write, stays), (read, fetch)):
                with m.If(moved):
                    m.d.sync += port.addr.eq(port.addr + 1)
                    with m.If(port.addr == behind - 1):
                        m.d.sync += port.addr.eq(0)
            oldest = Mux(waiting, read.data, Value.cast(self.i.payload))
        else:
            m.d.comb += [self.i.ready.eq(~self.o.valid), self.level.eq(self.o.valid)]
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(waiting | accept),
                Value.cast(self.o.payload).eq(Value.cast(oldest)),
            ]
