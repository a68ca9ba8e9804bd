"""The core: memory, program, engine and what moves data between them."""

from operator import index

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from streamtrain.bus.axi import AxiRead, AxiWrite
from streamtrain.bus.memory import MemoryReader, MemoryWriter
from streamtrain.unified.buffers import DoubleBuffer
from streamtrain.unified.compute import ComputeEngine
from streamtrain.unified.loader import Loader
from streamtrain.unified.program import ProgramFetch, ReadShare
from streamtrain.unified.storer import Storer

__all__ = ["UnifiedCore"]


class UnifiedCore(wiring.Component):
    """Runs a program that is in memory, on data that are in memory.

    Loader, engine and storer each work off commands of their own, in order. Double buffers keep them in
    step: nobody is told when to begin.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
        With accumulators of 32 bits.
    lanes : :class:`int`
    depths : :class:`~streamtrain.unified.buffers.Depths`
    classes : :class:`int`
        Of the network.
    fold : :class:`~streamtrain.unified.sequencer.Fold` or None
    normalized : :class:`int`
        Tiles of channels of the network's largest batch norm; 0 without.
    data_bits, address_bits : :class:`int`
        Of the memory.

    Members
    -------
    read : :py:`Out(AxiRead(data_bits, address_bits))`
    write : :py:`Out(AxiWrite(data_bits, address_bits))`
    start : :py:`In(1)`
        Run the program at ``address``.
    address : :py:`In(address_bits)`
    rate : :py:`In(arithmetic.rate)`
        What gradients are multiplied with: minus the learning rate, divided by the mini-batch.
    busy : :py:`Out(1)`
        A program runs.

    Timing
    ------
    That of its parts, all at once: a program takes about as long as the busiest of memory and array.
    """

    def __init__(
        self,
        arithmetic,
        lanes,
        depths,
        classes,
        fold=None,
        normalized=0,
        *,
        data_bits,
        address_bits=32,
    ):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.depths = depths
        self.classes = index(classes)
        self.fold = fold
        self.normalized = index(normalized)
        self.data_bits = index(data_bits)
        self.address_bits = index(address_bits)
        if arithmetic.accumulator.width != 32:
            raise ValueError(
                f"Accumulators are words in memory and must have 32 bits, not "
                f"{arithmetic.accumulator.width} ({arithmetic.accumulator})"
            )
        super().__init__({
            "read": Out(AxiRead(self.data_bits, self.address_bits)),
            "write": Out(AxiWrite(self.data_bits, self.address_bits)),
            "start": In(1),
            "address": In(self.address_bits),
            "rate": In(arithmetic.rate),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        memory = {"data_bits": self.data_bits, "address_bits": self.address_bits}
        numbers = self.arithmetic, self.lanes, self.depths
        m.submodules.reader = reader = MemoryReader(**memory)
        m.submodules.writer = writer = MemoryWriter(**memory)
        m.submodules.share = share = ReadShare(**memory)
        m.submodules.fetch = fetch = ProgramFetch(self.arithmetic, **memory)
        m.submodules.engine = engine = ComputeEngine(*numbers, self.fold)
        m.submodules.loader = loader = Loader(*numbers, engine.groups, **memory)
        m.submodules.storer = storer = Storer(*numbers, self.classes, self.normalized, **memory)
        m.submodules.routes = routes = DoubleBuffer(*engine.sizes["routes"])

        connect(m, reader.axi, flipped(self.read))
        connect(m, writer.axi, flipped(self.write))
        connect(m, share.request, reader.request)
        connect(m, reader.o, share.i)
        connect(m, fetch.request, share.request0)
        connect(m, share.o0, fetch.i)
        connect(m, loader.request, share.request1)
        connect(m, share.o1, loader.i)
        connect(m, storer.request, writer.request)
        connect(m, storer.o, writer.i)
        connect(m, loader.masters, storer.masters)
        connect(m, fetch.load, loader.command)
        connect(m, fetch.compute, engine.command)
        m.d.comb += [
            storer.command.payload.eq(fetch.store.payload),
            storer.command.payload.weights.rate.eq(self.rate),
            storer.command.payload.channels.rate.eq(self.rate),
            storer.command.valid.eq(fetch.store.valid),
            fetch.store.ready.eq(storer.command.ready),
        ]

        # Writes count from the program's start.
        before, done = Signal(32), Signal(32)
        with m.If(self.start & ~fetch.busy):
            m.d.sync += before.eq(writer.done)
        m.d.comb += [
            done.eq(writer.done - before),
            fetch.done.eq(done),
            loader.done.eq(done),
            fetch.start.eq(self.start),
            fetch.address.eq(self.address),
            self.busy.eq(fetch.busy),
        ]

        for name in ("x", "e", "weights", "biases"):
            connect(m, getattr(loader, f"{name}_write"), getattr(engine, f"{name}_write"))
        for name in ("x", "e", "weights"):
            self._halves(m, loader, engine, name)
        for name in ("sums", "gradients", "bias_gradients"):
            connect(m, getattr(storer, f"{name}_read"), getattr(engine, f"{name}_read"))
        for name in ("sums", "gradients"):
            m.d.comb += [
                getattr(storer, f"{name}_full").eq(getattr(engine, f"{name}_full")),
                getattr(engine, f"{name}_emptied").eq(getattr(storer, f"{name}_emptied")),
            ]
        connect(m, loader.routes_write, routes.write)
        connect(m, storer.routes_read, routes.read)
        m.d.comb += [
            routes.filled.eq(loader.routes_filled),
            routes.emptied.eq(storer.routes_emptied),
            loader.routes_full.eq(routes.full),
            storer.routes_full.eq(routes.full),
        ]
        return m

    def _halves(self, m, loader, engine, name):
        """The loader fills halves that the engine is through with."""
        m.d.comb += [
            getattr(engine, f"{name}_filled").eq(getattr(loader, f"{name}_filled")),
            getattr(loader, f"{name}_full").eq(getattr(engine, f"{name}_full")),
        ]
