"""The core: memory, program, engine and what moves data between them."""

from operator import index

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from streamtrain.bus.axi import AxiRead, AxiWrite
from streamtrain.bus.memory import MemoryReader, MemoryWriter
from streamtrain.unified.buffers import DoubleBuffer
from streamtrain.unified.compute import ComputeEngine
from streamtrain.unified.loader import Loader
from streamtrain.unified.program import ProgramFetch, ReadShare
from streamtrain.unified.storer import Storer

__all__ = ["CoreFault", "UnifiedCore", "core_configuration", "fault_layout"]

_SETTLE = 128  # cycles in which all pipelines run empty


class CoreFault(enum.Enum, shape=3):
    """Why a program was stopped: as :class:`~streamtrain.bus.bursts.Fault` has it, and ``PROGRAM``."""

    NONE = 0
    UNALIGNED = 1
    EMPTY = 2
    BEYOND = 3
    SLVERR = 4
    DECERR = 5
    PROGRAM = 6
    """It is no program for this core: of another version, for another configuration, or none at all."""


def fault_layout(address_bits):
    """What stopped a program: whether at a write, the address, and how far it had come."""
    return data.StructLayout({
        "kind": CoreFault, "write": 1, "address": address_bits, "loads": 32, "writes": 32,
    })  # fmt: skip


def core_configuration(
    arithmetic, lanes, depths, classes, fold, normalized, data_bits, address_bits
):
    """All that a core is generated from, as text: programs are for cores with the same one."""
    return "; ".join((
        arithmetic.name, f"lanes {lanes}", f"{tuple(depths)}", f"classes {classes}",
        f"{fold}", f"normalized {normalized}", f"data {data_bits}", f"address {address_bits}",
    ))  # fmt: skip


class UnifiedCore(wiring.Component):
    """Runs a program that is in memory, on data that are in memory.

    Loader, engine and storer each work off commands of their own, in order. Double buffers keep them in
    step: nobody is told when to begin.

    After an error of the memory, or in a program for another core, all of it is reset but the masters, which
    end what has begun on the bus. Then it is idle, and ``fault`` says what happened, until the next start.

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
        A program runs, or is being stopped.
    fault : :py:`Out(fault_layout(address_bits))`
        What stopped the last program: the burst's address (of a program, its own), and how many loads were
        through and writes done.

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
            "fault": Out(fault_layout(self.address_bits)),
        })

    @property
    def configuration(self):
        """What it is generated from, as text."""
        return core_configuration(
            self.arithmetic, self.lanes, self.depths, self.classes, self.fold, self.normalized,
            self.data_bits, self.address_bits,
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        stops = Signal()

        def until(part):
            """A part that forgets everything when the program is stopped."""
            return ResetInserter(stops)(part)

        memory = {"data_bits": self.data_bits, "address_bits": self.address_bits}
        numbers = self.arithmetic, self.lanes, self.depths
        m.submodules.reader = reader = MemoryReader(**memory)
        m.submodules.writer = writer = MemoryWriter(**memory)
        share = ReadShare(**memory)
        fetch = ProgramFetch(self.configuration, **memory)
        engine = ComputeEngine(*numbers, self.fold)
        loader = Loader(*numbers, engine.groups, **memory)
        storer = Storer(*numbers, self.classes, self.normalized, **memory)
        routes = DoubleBuffer(*engine.sizes["routes"])
        m.submodules.share, m.submodules.fetch = until(share), until(fetch)
        m.submodules.engine, m.submodules.loader = until(engine), until(loader)
        m.submodules.storer, m.submodules.routes = until(storer), until(routes)

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
            storer.rate.eq(self.rate),
            storer.command.valid.eq(fetch.store.valid),
            fetch.store.ready.eq(storer.command.ready),
        ]

        # Writes count from the program's start.
        before, done, starts = Signal(32), Signal(32), Signal()
        m.d.comb += [
            starts.eq(self.start & ~self.busy),
            done.eq(writer.done - before),
            fetch.done.eq(done),
            loader.done.eq(done),
            fetch.start.eq(starts),
            fetch.address.eq(self.address),
            self.busy.eq(fetch.busy | stops),
        ]
        with m.If(starts):
            m.d.sync += before.eq(writer.done)
        self._stop(m, starts, stops, fetch, loader, reader, writer, done)

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

    def _stop(self, m, starts, stops, fetch, loader, reader, writer, done):
        """Keep the first fault of a program, and stop it: until the masters and all pipelines are empty."""
        kind, fault, settled = CoreFault.NONE, self.fault, Signal(range(_SETTLE + 1))
        loads, at = Signal(32), Signal(self.address_bits)
        earlier = Signal.like(done)  # a cycle ago: the write that fails is counted, too
        m.d.sync += earlier.eq(done)
        m.d.comb += [reader.abort.eq(stops), writer.abort.eq(stops)]
        with m.If(starts):
            m.d.sync += [loads.eq(0), at.eq(self.address), fault.kind.eq(kind)]
        with m.Elif(loader.through):
            m.d.sync += loads.eq(loads + 1)
        reads, writes = (master.error.kind.as_value().any() for master in (reader, writer))
        with m.If(stops):
            m.d.sync += settled.eq(settled + 1)
            with m.If((settled == _SETTLE) & ~reader.busy & ~writer.busy):
                m.d.sync += [stops.eq(0), settled.eq(0)]
            with m.Elif(settled == _SETTLE):
                m.d.sync += settled.eq(settled)
        with m.Elif(self.busy & (reads | writes | fetch.wrong)):
            m.d.sync += [
                stops.eq(1),
                fault.write.eq(writes),
                fault.loads.eq(loads),
                fault.writes.eq(earlier),
            ]
            with m.If(writes):
                m.d.sync += [fault.kind.eq(writer.error.kind), fault.address.eq(writer.error.address)]
            with m.Elif(reads):
                m.d.sync += [fault.kind.eq(reader.error.kind), fault.address.eq(reader.error.address)]
            with m.Else():
                m.d.sync += [fault.kind.eq(CoreFault.PROGRAM), fault.address.eq(at)]

    def _halves(self, m, loader, engine, name):
        """The loader fills halves that the engine is through with."""
        m.d.comb += [
            getattr(engine, f"{name}_filled").eq(getattr(loader, f"{name}_filled")),
            getattr(loader, f"{name}_full").eq(getattr(engine, f"{name}_full")),
        ]
