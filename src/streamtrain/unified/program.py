"""The program of a training step: records in memory, and what fetches them."""

from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from operator import index

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from streamtrain.bus.bursts import request_layout
from streamtrain.bus.memory import beat_layout
from streamtrain.stream import Queue
from streamtrain.unified.command import command_layout
from streamtrain.unified.loader import load_layout
from streamtrain.unified.regroup import Regroup
from streamtrain.unified.storer import store_layout

__all__ = [
    "BLOCK", "COMMANDS", "RECORD_BITS", "Kind", "ProgramFetch", "ReadShare", "begin_fields", "pack_record",
    "record_layouts",
]  # fmt: skip

RECORD_BITS = 512
"""Bits of a record."""

_KIND_BITS = 3
_MAGIC = int.from_bytes(b"STUP", "little")  # a streamtrain unified program
_VERSION = 2  # of the records' layouts and meaning
BLOCK = 8
"""Records that are asked for at once."""

COMMANDS = 16
"""Records that wait for a part of the core."""


class Kind(IntEnum):
    """What a record is for. ``BEGIN`` is the first one; ``END`` waits until the writes of the program are done."""

    LOAD = 0
    COMPUTE = 1
    STORE = 2
    END = 3
    BEGIN = 4


def begin_fields(configuration):
    """Fields of a program's first record: what the core must be for it to run.

    Parameters
    ----------
    configuration : :class:`str`
        All that the core was generated from, as text.
    """
    digest = sha256(configuration.encode()).digest()[:8]
    return {"magic": _MAGIC, "version": _VERSION, "core": int.from_bytes(digest, "little")}


def record_layouts(address_bits):
    """Layout of the command in a record, by :class:`Kind`; the kind is below it."""
    return {
        Kind.LOAD: load_layout(address_bits),
        Kind.COMPUTE: command_layout(),
        Kind.STORE: store_layout(address_bits),
        Kind.END: data.StructLayout({"writes": 32}),
        Kind.BEGIN: data.StructLayout({"magic": 32, "version": 16, "core": 64}),
    }


def pack_record(layouts, kind, fields):
    """A record as bytes; fields that are not given are zero.

    Raises
    ------
    KeyError
        If a field is not there.
    ValueError
        If a number does not fit its field.
    """
    bits = int(kind) | _packed(_places(layouts[kind]), fields) << _KIND_BITS
    return bits.to_bytes(RECORD_BITS // 8, "little")


@lru_cache(maxsize=64)
def _places(layout):
    """Of each field, where it begins, and how many bits it has; or the same of its own fields."""
    return {
        name: (
            field.offset,
            field.width,
            _places(field.shape) if isinstance(field.shape, data.StructLayout) else None,
        )
        for name, field in layout
    }


def _packed(places, fields):
    bits = 0
    for name, value in fields.items():
        if name not in places:
            raise KeyError(f"There is no field {name!r}; there are {', '.join(places)}")
        offset, width, inside = places[name]
        if inside is None:
            # Differences of addresses may be negative; they wrap around.
            if not -1 << width - 1 <= (value := int(value)) < 1 << width:
                raise ValueError(f"{name} is {value:,}, which {width} bits do not hold")
            value &= (1 << width) - 1
        else:
            value = _packed(inside, value)
        bits |= value << offset
    return bits


class ReadShare(wiring.Component):
    """Two readers of one memory; the first one goes first.

    Each may only ask for what it takes without waiting for the other.

    Parameters
    ----------
    data_bits, address_bits : :class:`int`
    outstanding : :class:`int`
        Requests that have not been answered, at most.

    Members
    -------
    requests0, requests1 : :py:`In(stream.Signature(request_layout(address_bits)))`
    o0, o1 : :py:`Out(stream.Signature(beat_layout(data_bits)))`
    request, i
        Those of the :class:`~streamtrain.bus.memory.MemoryReader`.

    Timing
    ------
    Combinational.
    """

    def __init__(self, data_bits, address_bits, *, outstanding=16):
        self.outstanding = index(outstanding)
        request = stream.Signature(request_layout(address_bits))
        beats = stream.Signature(beat_layout(data_bits))
        super().__init__({
            "request0": In(request), "request1": In(request), "o0": Out(beats), "o1": Out(beats),
            "request": Out(request), "i": In(beats),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.owners = owners = Queue(unsigned(1), depth=self.outstanding)
        second = Signal()
        m.d.comb += [
            second.eq(~self.request0.valid),
            self.request.payload.eq(
                Mux(second, self.request1.payload.as_value(), self.request0.payload.as_value())
            ),
            self.request.valid.eq((self.request0.valid | self.request1.valid) & owners.i.ready),
            self.request0.ready.eq(self.request.ready & owners.i.ready),
            self.request1.ready.eq(self.request.ready & owners.i.ready & second),
            owners.i.payload.eq(second),
            owners.i.valid.eq(self.request.valid & self.request.ready),
            self.i.ready.eq(owners.o.valid & Mux(owners.o.payload, self.o1.ready, self.o0.ready)),
            owners.o.ready.eq(self.i.valid & self.i.ready & self.i.payload.last),
        ]
        for o, mine in ((self.o0, ~owners.o.payload), (self.o1, owners.o.payload)):
            m.d.comb += [
                o.payload.eq(self.i.payload),
                o.valid.eq(self.i.valid & owners.o.valid & mine),
            ]
        return m


class ProgramFetch(wiring.Component):
    """Fetch a program, and hand each record to the part of the core that it is for, in order.

    A program that does not begin as ``configuration`` asks for does not run.

    Parameters
    ----------
    configuration : :class:`str`
        What the core was generated from.
    data_bits, address_bits : :class:`int`

    Members
    -------
    start : :py:`In(1)`
        Begin with the program at ``address``. It must have whole blocks of 8 records: what is behind ``END``
        is not looked at.
    address : :py:`In(address_bits)`
    busy : :py:`Out(1)`
        A program runs.
    done : :py:`In(32)`
        Writes of this program that are done.
    wrong : :py:`Out(1)`
        This is no program for this core: it goes no further, until reset.
    request : :py:`Out(stream.Signature(request_layout(address_bits)))`
    i : :py:`In(stream.Signature(beat_layout(data_bits)))`
        From memory. There is room for what was asked.
    load, compute, store : :py:`Out(stream.Signature(...))`
        Commands.

    Timing
    ------
    A record in as many cycles as it has beats, or in one.
    """

    def __init__(self, configuration, *, data_bits, address_bits):
        self.configuration = configuration
        self.data_bits = index(data_bits)
        self.address_bits = index(address_bits)
        self.layouts = record_layouts(self.address_bits)
        for kind, layout in self.layouts.items():
            if layout.size + _KIND_BITS > RECORD_BITS:
                raise ValueError(
                    f"A record of kind {kind.name} takes {layout.size + _KIND_BITS} bits with addresses of "
                    f"{address_bits}; there are {RECORD_BITS}"
                )
        super().__init__({
            "start": In(1),
            "address": In(self.address_bits),
            "busy": Out(1),
            "done": In(32),
            "wrong": Out(1),
            "request": Out(stream.Signature(request_layout(self.address_bits))),
            "i": In(stream.Signature(beat_layout(self.data_bits))),
            "load": Out(stream.Signature(self.layouts[Kind.LOAD])),
            "compute": Out(stream.Signature(self.layouts[Kind.COMPUTE])),
            "store": Out(stream.Signature(self.layouts[Kind.STORE])),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.regroup = regroup = Regroup(self.data_bits, [RECORD_BITS])
        m.submodules.records = records = Queue(unsigned(RECORD_BITS), depth=2 * BLOCK)
        connect(m, regroup.o, records.i)
        m.d.comb += [
            regroup.i.payload.eq(self.i.payload.data),
            regroup.i.valid.eq(self.i.valid),
            self.i.ready.eq(regroup.i.ready),
        ]

        # Blocks of records, as long as there is room for a whole one. What comes behind the end is dropped.
        address, begun, ended = Signal(self.address_bits), Signal(), Signal()
        claimed, coming = Signal(range(2 * BLOCK + 1)), Signal(range(2 * BLOCK + 1))
        bytes_ = BLOCK * RECORD_BITS // 8
        asks = self.request.valid & self.request.ready
        arrives, leaves = records.i.valid & records.i.ready, records.o.valid & records.o.ready
        m.d.comb += [
            self.request.valid.eq(self.busy & ~ended & (claimed <= BLOCK)),
            self.request.payload.address.eq(address),
            self.request.payload.beats.eq(bytes_ * 8 // self.data_bits),
        ]
        m.d.sync += [
            claimed.eq(claimed + Mux(asks, BLOCK, 0) - leaves),
            coming.eq(coming + Mux(asks, BLOCK, 0) - arrives),
        ]
        with m.If(asks):
            m.d.sync += address.eq(address + bytes_)

        kind = records.o.payload[:_KIND_BITS]
        body = records.o.payload[_KIND_BITS:]
        for own, port in (
            (Kind.LOAD, self.load),
            (Kind.COMPUTE, self.compute),
            (Kind.STORE, self.store),
        ):
            layout = self.layouts[own]
            m.submodules[f"{own.name.lower()}s"] = queue = Queue(layout, depth=COMMANDS)
            mine = begun & ~ended & (kind == own)
            m.d.comb += [
                queue.i.payload.eq(body[: layout.size]),
                queue.i.valid.eq(records.o.valid & mine),
            ]
            with m.If(mine):
                m.d.comb += records.o.ready.eq(queue.i.ready)
            connect(m, queue.o, wiring.flipped(port))
        first = pack_record(self.layouts, Kind.BEGIN, begin_fields(self.configuration))
        bits = _KIND_BITS + self.layouts[Kind.BEGIN].size
        right = records.o.payload[:bits] == int.from_bytes(first, "little")
        known = (kind == Kind.LOAD) | (kind == Kind.COMPUTE) | (kind == Kind.STORE) | (kind == Kind.END)
        m.d.comb += self.wrong.eq(self.busy & ~ended & records.o.valid & ~Mux(begun, known, right))
        with m.If(ended):
            m.d.comb += records.o.ready.eq(1)
            with m.If((claimed == 0) & (coming == 0)):
                m.d.sync += self.busy.eq(0)
        with m.Elif(~begun):
            m.d.comb += records.o.ready.eq(right)
            with m.If(leaves):
                m.d.sync += begun.eq(1)
        with m.Elif(kind == Kind.END):
            m.d.comb += records.o.ready.eq(self.done == body[:32])
            with m.If(leaves):
                m.d.sync += ended.eq(1)
        with m.If(self.start & ~self.busy):
            m.d.sync += [self.busy.eq(1), begun.eq(0), ended.eq(0), address.eq(self.address)]
        return m
