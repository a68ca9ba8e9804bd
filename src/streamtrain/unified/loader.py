"""What brings operands from memory into the engine's buffers."""

from enum import IntEnum
from operator import index

from amaranth import C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.bursts import request_layout
from streamtrain.bus.memory import beat_layout
from streamtrain.pipeline.gates import delayed
from streamtrain.stream import Queue
from streamtrain.unified.buffers import PLACES, WritePort
from streamtrain.unified.regions import padded
from streamtrain.unified.regroup import Regroup

__all__ = ["BUFFER", "BUFFERED", "REQUESTED", "Loader", "Target", "load_layout"]


class Target(IntEnum):
    """Where a load goes, and so what its words are.

    ``X`` and ``E`` are vectors of operands; ``GROUPS`` are vectors of a first layer's few channels, which each group
    of lanes gets; ``WEIGHTS`` are rows of accumulators, narrowed to operands; ``BIASES`` are vectors of accumulators;
    ``ROUTES`` have a bit for each place of a pooling square and lane, ``MASKS`` one for each lane, which is that of the
    first place; ``MASTERS`` are beats that go to the update.
    """

    X = 0
    E = 1
    GROUPS = 2
    WEIGHTS = 3
    BIASES = 4
    ROUTES = 5
    MASKS = 6
    MASTERS = 7


BUFFERED = ("x", "e", "weights", "routes")
"""Double buffers that are filled from memory; biases belong to the weights."""

_PORT = {
    Target.X: "x", Target.GROUPS: "x", Target.E: "e", Target.WEIGHTS: "weights", Target.BIASES: "biases",
    Target.ROUTES: "routes", Target.MASKS: "routes",
}  # fmt: skip

BUFFER = {target: "weights" if port == "biases" else port for target, port in _PORT.items()}
"""The double buffer that a load fills; biases belong to the weights."""

REQUESTED = 4
"""Loads whose requests may go out before the data of the first one are all there."""


def load_layout(address_bits):
    """A load: *chunks* of memory, one after the other into a buffer.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    target                :class:`Target`
    address, beats        the first chunk
    stride, chunks        bytes from one chunk to the next; how many
    rows, words           rows of all chunks together, and words in each; what is left of a row's last beat is dropped
    to                    address of the first word in the buffer
    last                  this half of the buffer is complete with it
    after                 it waits until so many writes of this program are done
    ====================  ==========================================================================
    """
    return data.StructLayout({
        "target": range(len(Target)), "last": 1, "address": address_bits, "stride": address_bits, "beats": 24, "chunks": 16,
        "rows": 24, "words": 20, "to": 20, "after": 32,
    })  # fmt: skip


class Loader(wiring.Component):
    """Load what the engine computes with, command after command, ahead of it as far as buffers allow.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes : :class:`int`
    depths : :class:`~streamtrain.unified.buffers.Depths`
    groups : :class:`int`
        Of lanes that get the same channels of a folded first layer.
    data_bits, address_bits : :class:`int`
        Of the memory.

    Members
    -------
    command : :py:`In(stream.Signature(load_layout(address_bits)))`
    request : :py:`Out(stream.Signature(request_layout(address_bits)))`
    i : :py:`In(stream.Signature(beat_layout(data_bits)))`
        From a :class:`~streamtrain.bus.memory.MemoryReader`.
    done : :py:`In(32)`
        Writes of this program that are done.
    x_write, e_write, weights_write, biases_write, routes_write : :py:`Out(WritePort(...))`
    x_filled, e_filled, weights_filled, routes_filled : :py:`Out(2)`
        Pulses: a half is complete.
    x_full, e_full, weights_full, routes_full : :py:`In(2)`
        Halves that are still needed.
    masters : :py:`Out(stream.Signature(unsigned(data_bits)))`
    through : :py:`Out(1)`
        A pulse for each load whose words are all where they belong.

    Timing
    ------
    A beat in each cycle, or a word, if a beat holds several.
    """

    def __init__(self, arithmetic, lanes, depths, groups, *, data_bits, address_bits):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.groups = index(groups)
        self.data_bits = index(data_bits)
        self.address_bits = index(address_bits)
        sizes = depths.sizes(arithmetic, self.lanes)
        self.ports = {name: sizes[name] for name in (*BUFFERED, "biases")}
        super().__init__({
            "command": In(stream.Signature(load_layout(self.address_bits))),
            "request": Out(stream.Signature(request_layout(self.address_bits))),
            "i": In(stream.Signature(beat_layout(self.data_bits))),
            "done": In(32),
            **{f"{name}_write": Out(WritePort(*size)) for name, size in self.ports.items()},
            **{f"{name}_filled": Out(2) for name in BUFFERED},
            **{f"{name}_full": In(2) for name in BUFFERED},
            "masters": Out(stream.Signature(unsigned(self.data_bits))),
            "through": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        layout = load_layout(self.address_bits)
        m.submodules.requested = requested = Queue(layout, depth=REQUESTED)
        self._requests(m, requested)
        self._words(m, requested)
        return m

    def _requests(self, m, requested):
        """Ask for the chunks of each command, as soon as what they read has been written."""
        command, request = self.command.payload, self.request
        chunk, address = Signal.like(command.chunks), Signal(self.address_bits)
        first, last, may = chunk == 0, Signal(), Signal()
        m.d.comb += [
            last.eq(chunk == command.chunks - 1),
            may.eq(
                self.command.valid & (self.done >= command.after) & (~first | requested.i.ready)
            ),
            request.valid.eq(may),
            request.payload.address.eq(Mux(first, command.address, address)),
            request.payload.beats.eq(command.beats),
            self.command.ready.eq(may & last & request.ready),
            requested.i.payload.eq(command),
            requested.i.valid.eq(may & first & request.ready),
        ]
        with m.If(may & request.ready):
            m.d.sync += [
                chunk.eq(Mux(last, 0, chunk + 1)),
                address.eq(request.payload.address + command.stride),
            ]

    def _words(self, m, requested):
        """Put what comes where its command says."""
        operands, accumulators = self.ports["x"][0], self.ports["biases"][0]
        group = operands // self.groups
        sizes = {
            Target.X: operands, Target.E: operands, Target.GROUPS: group, Target.WEIGHTS: accumulators,
            Target.BIASES: accumulators, Target.ROUTES: self.ports["routes"][0], Target.MASKS: self.lanes,
            Target.MASTERS: self.data_bits,
        }  # fmt: skip
        words = [padded(sizes[t], self.data_bits) for t in Target]
        m.submodules.regroup = regroup = Regroup(self.data_bits, words)
        load = requested.o.payload
        word, row = Signal.like(load.words), Signal.like(load.rows)
        at, moves, through = Signal.like(load.to), Signal(), Signal()
        half = {name: Signal(name=f"{name}_half") for name in BUFFERED}
        room = Signal()
        m.d.comb += [
            regroup.i.payload.eq(self.i.payload.data),
            regroup.i.valid.eq(self.i.valid & requested.o.valid),
            self.i.ready.eq(regroup.i.ready & requested.o.valid),
            regroup.size.eq(load.target),
            regroup.last.eq(word == load.words - 1),
            regroup.o.ready.eq(room),
            moves.eq(regroup.o.valid & room),
            through.eq(moves & regroup.last & (row == load.rows - 1)),
            requested.o.ready.eq(through),
            self.through.eq(through),
            self.masters.payload.eq(self.i.payload.data),
        ]
        with m.If(moves):
            m.d.sync += [at.eq(at + 1), word.eq(word + 1)]
            with m.If(regroup.last):
                m.d.sync += [word.eq(0), row.eq(row + 1)]
            with m.If(through):
                m.d.sync += [at.eq(0), row.eq(0)]
        narrowed, latency = self._narrowed(m, regroup.o.payload)
        with m.Switch(load.target):
            for target in Target:
                with m.Case(target):
                    if target == Target.MASTERS:
                        m.d.comb += [
                            self.masters.valid.eq(regroup.o.valid),
                            room.eq(self.masters.ready),
                        ]
                        continue
                    buffer = BUFFER[target]
                    m.d.comb += room.eq(
                        ~getattr(self, f"{buffer}_full").bit_select(half[buffer], 1)
                    )
        for name in self.ports:
            buffer = "weights" if name == "biases" else name
            here = Cat(load.target == target for target, own in _PORT.items() if own == name).any()
            port, late = getattr(self, f"{name}_write"), latency if name == "weights" else 0
            words = narrowed if name == "weights" else regroup.o.payload
            if name == "x":
                words = Mux(
                    load.target == Target.GROUPS, words[:group].replicate(self.groups), words
                )
            elif name == "routes":
                only = Cat(Cat(bit, C(0, PLACES - 1)) for bit in words[: self.lanes])
                words = Mux(load.target == Target.MASKS, only, words)
            later = delayed(m, Cat(moves & here, half[buffer], load.to + at), late, f"{name}_at")[
                -1
            ]
            m.d.comb += [
                port.enable.eq(later[0]),
                port.half.eq(later[1]),
                port.address.eq(later[2:]),
                port.data.eq(words),
            ]
        # Weights are narrowed on their way, so their half is complete a little later.
        for name in BUFFERED:
            ends = Signal(2, name=f"{name}_ends")
            mine = Cat(load.target == t for t, buffer in BUFFER.items() if buffer == name).any()
            m.d.comb += ends.eq((through & mine & load.last) << half[name])
            with m.If(ends.any()):
                m.d.sync += half[name].eq(~half[name])
            late = latency if name == "weights" else 0
            m.d.comb += getattr(self, f"{name}_filled").eq(
                delayed(m, ends, late, f"{name}_end")[-1]
            )

    def _narrowed(self, m, word):
        """A vector of accumulators as operands, and how many cycles that takes."""
        wide, results = self.arithmetic.accumulator, []
        for lane in range(self.lanes):
            unit = m.submodules[f"narrow{lane}"] = self.arithmetic.narrow()
            m.d.comb += [
                unit.i.eq(wide(word.word_select(lane, wide.as_shape().width))),
                unit.enable.eq(1),
            ]
            results.append(unit.o)
        return Cat(results), unit.latency
