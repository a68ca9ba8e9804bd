"""What takes results out of the engine's buffers to memory."""

from operator import index

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from streamtrain.bus.bursts import request_layout
from streamtrain.golden.passes import PARTIALS
from streamtrain.stream import Queue
from streamtrain.unified.buffers import PLACES, ReadPort
from streamtrain.unified.channels import ChannelProcessor, channels_layout
from streamtrain.unified.outputs import MapOutputs, outputs_layout
from streamtrain.unified.pack import Pack
from streamtrain.unified.regions import padded
from streamtrain.unified.softmax import SoftmaxErrors
from streamtrain.unified.stored_sums import StoredSums, sums_layout
from streamtrain.unified.update import WeightUpdate, update_layout

__all__ = ["Storer", "store_layout"]

_AHEAD = 2  # commands that one part may be ahead of another


def store_layout(address_bits):
    """What is stored: a map with its routes, new weights, or what becomes of a batch norm's channels.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    update, normalize     new weights, or a batch norm's channels; else a map
    map, weights,         what is to be stored, for :class:`~streamtrain.unified.outputs.MapOutputs`,
    channels              :class:`~streamtrain.unified.update.WeightUpdate` or
                          :class:`~streamtrain.unified.channels.ChannelProcessor`
    address, beats        first chunk of memory: of a map that of its first image, else the only one; each row begins
                          with a beat
    chunks, stride        how many, and bytes from one to the next
    sums                  those of a map that a batch norm wants
    routes_address,       the same of routes, if the map has some that are put out; without a pool they are masks, with
    routes_beats,         a bit for each lane
    routes_stride
    ====================  ==========================================================================
    """
    return data.StructLayout({
        "update": 1, "normalize": 1, "map": outputs_layout(), "weights": update_layout(),
        "channels": channels_layout(), "sums": sums_layout(),
        "address": address_bits, "beats": 24, "chunks": 16, "stride": address_bits,
        "routes_address": address_bits, "routes_beats": 24, "routes_stride": address_bits,
    })  # fmt: skip


class Storer(wiring.Component):
    """Store results, command after command.

    A map's vectors go to memory as they come; its routes are kept meanwhile, and follow. Scores become
    their errors on the way.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes : :class:`int`
    depths : :class:`~streamtrain.unified.buffers.Depths`
    classes : :class:`int`
        Of the network.
    normalized : :class:`int`
        Tiles of channels of its largest batch norm; 0 without.
    data_bits, address_bits : :class:`int`
        Of the memory.

    Members
    -------
    command : :py:`In(stream.Signature(store_layout(address_bits)))`
    rate : :py:`In(arithmetic.rate)`
        What gradients are multiplied with. It stays while there are updates.
    sums_full, routes_full, gradients_full : :py:`In(2)`
        Halves that may be read.
    sums_read, routes_read, gradients_read, bias_gradients_read : :py:`Out(ReadPort(...))`
    sums_emptied, routes_emptied, gradients_emptied : :py:`Out(2)`
    masters : :py:`In(stream.Signature(unsigned(data_bits)))`
        Old weights, for updates; registers and sums of channels.
    request : :py:`Out(stream.Signature(request_layout(address_bits)))`
    o : :py:`Out(stream.Signature(unsigned(data_bits)))`
        To a :class:`~streamtrain.bus.memory.MemoryWriter`.

    Timing
    ------
    A beat per cycle, as its parts have it.
    """

    def __init__(
        self, arithmetic, lanes, depths, classes, normalized=0, *, data_bits, address_bits
    ):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.depths = depths
        self.classes = index(classes)
        self.normalized = index(normalized)
        self.data_bits = index(data_bits)
        self.address_bits = index(address_bits)
        sizes = depths.sizes(arithmetic, self.lanes)
        beats = stream.Signature(unsigned(self.data_bits))
        super().__init__({
            "command": In(stream.Signature(store_layout(self.address_bits))),
            "rate": In(arithmetic.rate),
            **{f"{name}_full": In(2) for name in ("sums", "routes", "gradients")},
            **{f"{name}_read": Out(ReadPort(*sizes[name])) for name in _READ},
            **{f"{name}_emptied": Out(2) for name in ("sums", "routes", "gradients")},
            "masters": In(beats),
            "request": Out(stream.Signature(request_layout(self.address_bits))),
            "o": Out(beats),
        })

    def elaborate(self, platform):
        m = Module()
        numbers = self.arithmetic, self.lanes, self.depths
        m.submodules.maps = maps = MapOutputs(*numbers)
        m.submodules.update = update = WeightUpdate(*numbers, data_bits=self.data_bits)
        for part, names, halves in (
            (maps, ("sums", "routes"), ("sums", "routes")),
            (update, ("gradients", "bias_gradients"), ("gradients",)),
        ):
            for name in names:
                connect(m, getattr(part, f"{name}_read"), flipped(getattr(self, f"{name}_read")))
            for name in halves:
                m.d.comb += [
                    getattr(part, f"{name}_full").eq(getattr(self, f"{name}_full")),
                    getattr(self, f"{name}_emptied").eq(getattr(part, f"{name}_emptied")),
                ]
        # Each part gets what concerns it, when all have room for it.
        command = self.command.payload
        layout = command.shape()
        m.submodules.asked = asked = Queue(layout, depth=_AHEAD)
        m.submodules.sent = sent = Queue(layout, depth=_AHEAD)
        m.submodules.mapped = mapped = Queue(outputs_layout(), depth=_AHEAD)
        m.submodules.updated = updated = Queue(update_layout(), depth=_AHEAD)
        takers = {asked: 1, sent: 1, mapped: _is_map(command), updated: command.update}
        room = Mux(command.update, updated.i.ready, mapped.i.ready)
        channels = None
        if not self.normalized:
            connect(m, flipped(self.masters), update.masters)
        else:
            m.submodules.normalized = normalized = Queue(channels_layout(), depth=_AHEAD)
            m.submodules.channels = channels = ChannelProcessor(
                self.lanes, data_bits=self.data_bits
            )
            connect(m, normalized.o, channels.command)
            m.d.comb += [normalized.i.payload.eq(command.channels), channels.rate.eq(self.rate)]
            takers[normalized] = command.normalize
            room = Mux(command.normalize, normalized.i.ready, room)
        m.d.comb += [
            mapped.i.payload.eq(command.map),
            updated.i.payload.eq(command.weights),
            update.rate.eq(self.rate),
            asked.i.payload.eq(command),
            sent.i.payload.eq(command),
            self.command.ready.eq(asked.i.ready & sent.i.ready & room),
            *(
                queue.i.valid.eq(self.command.valid & self.command.ready & takes)
                for queue, takes in takers.items()
            ),
        ]
        connect(m, mapped.o, maps.command)
        connect(m, updated.o, update.command)
        self._requests(m, asked)
        self._beats(m, sent, maps, update, channels)
        return m

    def _requests(self, m, asked):
        """Say where the chunks go: first those of the values, then those of the routes."""
        command, request = asked.o.payload, self.request
        chunk, address, routes = Signal.like(command.chunks), Signal(self.address_bits), Signal()
        first, last, through = chunk == 0, Signal(), Signal()
        start = Mux(routes, command.routes_address, command.address)
        stride = Mux(routes, command.routes_stride, command.stride)
        m.d.comb += [
            last.eq(chunk == command.chunks - 1),
            request.valid.eq(asked.o.valid),
            request.payload.address.eq(Mux(first, start, address)),
            request.payload.beats.eq(Mux(routes, command.routes_beats, command.beats)),
            through.eq(last & (routes | ~_has_routes(command))),
            asked.o.ready.eq(request.ready & through),
        ]
        with m.If(request.valid & request.ready):
            m.d.sync += [
                chunk.eq(Mux(last, 0, chunk + 1)),
                address.eq(request.payload.address + stride),
            ]
            with m.If(last):
                m.d.sync += routes.eq(~through)

    def _beats(self, m, sent, maps, update, channels):
        """Send what the requests are for, in their order."""
        command, routes = sent.o.payload, Signal()
        width, lanes = self.lanes * self.arithmetic.operand.width, self.lanes
        values, places, masks = (
            Pack(padded(bits, self.data_bits), self.data_bits)
            for bits in (width, PLACES * lanes, lanes)
        )
        m.submodules.values, m.submodules.places, m.submodules.masks = values, places, masks
        col, chunk = Signal.like(command.map.cols), Signal.like(command.chunks)
        beat, moves, last, through = Signal(24), Signal(), Signal(), Signal()
        m.submodules.softmax = softmax = SoftmaxErrors(self.arithmetic, self.lanes, self.classes)
        scored = _is_map(command) & command.map.scored
        plain, vector = stream.Signature(unsigned(width)).create(), maps.o.payload
        m.d.comb += [
            softmax.i.payload.scores.eq(vector.vector),
            softmax.i.payload.target.eq(vector.target),
            softmax.i.valid.eq(maps.o.valid & sent.o.valid & scored),
            plain.payload.eq(Mux(scored, softmax.o.payload, vector.vector)),
            plain.valid.eq(Mux(scored, softmax.o.valid, maps.o.valid)),
            softmax.o.ready.eq(scored & plain.ready),
            maps.o.ready.eq(Mux(scored, softmax.i.ready & sent.o.valid, plain.ready)),
        ]
        last_col, pooled = col == command.map.cols - 1, command.map.pool
        begins = self._sums(m, sent, plain, last_col, channels) if channels else 1
        for pack, source, what, mine in (
            (values, plain, plain.payload, ~routes & begins),
            (places, maps.routes, maps.routes.payload, routes & pooled),
            (masks, maps.routes, maps.routes.payload[::PLACES], routes & ~pooled),
        ):
            m.d.comb += [pack.i.payload.word.eq(what), pack.i.payload.last.eq(last_col)]
            with m.If(sent.o.valid & _is_map(command) & mine):
                m.d.comb += [pack.i.valid.eq(source.valid), source.ready.eq(pack.i.ready)]
                with m.If(source.valid & source.ready):
                    m.d.sync += col.eq(Mux(last_col, 0, col + 1))
        beats = Mux(routes, command.routes_beats, command.beats)
        with m.If(sent.o.valid & command.update):
            if channels:  # each takes its own
                connect(m, flipped(self.masters), update.masters)
            connect(m, update.o, flipped(self.o))
        with m.Elif(sent.o.valid & command.normalize):
            if channels:
                connect(m, flipped(self.masters), channels.i)
                connect(m, channels.o, flipped(self.o))
        with m.Elif(sent.o.valid & routes & pooled):
            connect(m, places.o, flipped(self.o))
        with m.Elif(sent.o.valid & routes):
            connect(m, masks.o, flipped(self.o))
        with m.Elif(sent.o.valid):
            connect(m, values.o, flipped(self.o))
        m.d.comb += [
            moves.eq(self.o.valid & self.o.ready),
            last.eq((beat == beats - 1) & (chunk == command.chunks - 1)),
            through.eq(moves & last & (routes | ~_has_routes(command))),
            sent.o.ready.eq(through),
        ]
        with m.If(moves):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == beats - 1):
                m.d.sync += [beat.eq(0), chunk.eq(Mux(last, 0, chunk + 1))]
            with m.If(last):
                m.d.sync += routes.eq(~through)

    def _sums(self, m, sent, plain, last_col, channels):
        """Add up vectors of maps that a batch norm wants it of. Returns whether the next vector may go."""
        command = sent.o.payload
        wanted, number = command.sums, Signal(10)  # of a tile in an image
        word, row = Signal(20), Signal.like(command.map.rows)  # in a chunk
        m.submodules.stored = stored = StoredSums(
            self.arithmetic, self.lanes, self.normalized, data_bits=self.data_bits
        )
        later = Signal()  # not the first image
        chunk_ends = last_col & (row == command.map.rows - 1)
        last_tile = number == wanted.tiles - 1
        m.d.comb += [
            stored.valid.eq(plain.valid & plain.ready & wanted.wanted),
            stored.vector.eq(plain.payload),
            stored.tile.eq(wanted.tile + number),
            stored.pixel.eq(wanted.pixel + word[: len(wanted.pixel)]),
            stored.fresh.eq(wanted.fresh & ~later & (word + wanted.pixel < PARTIALS)),
            stored.row.eq(channels.row),
            stored.lane.eq(channels.lane),
            stored.of_tile.eq(channels.command.payload.tile),
            channels.word.eq(stored.word),
        ]
        with m.If(plain.valid & plain.ready):
            m.d.sync += word.eq(Mux(chunk_ends, 0, word + 1))
            with m.If(last_col):
                m.d.sync += row.eq(Mux(chunk_ends, 0, row + 1))
        with m.If(stored.valid & chunk_ends):
            m.d.sync += number.eq(Mux(last_tile, 0, number + 1))
            with m.If(last_tile):
                m.d.sync += later.eq(1)
        with m.If(sent.o.ready):
            m.d.sync += [number.eq(0), later.eq(0)]
        return ~wanted.wanted | (word != 0) | stored.quiet


_READ = ("sums", "routes", "gradients", "bias_gradients")


def _is_map(command):
    return ~command.update & ~command.normalize


def _has_routes(command):
    return _is_map(command) & command.map.routed & ~command.map.backward
