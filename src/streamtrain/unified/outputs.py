"""What becomes of sums on their way to memory: rounded, pooled and rectified, or sent back along routes."""

from operator import index

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.gates import delayed
from streamtrain.stream import Queue, connect
from streamtrain.unified.buffers import PLACES, READ_LATENCY, ReadPort

__all__ = ["ROOM", "MapOutputs", "outputs_layout", "vector_layout"]

ROOM = 32
"""Vectors that may be on their way."""


def outputs_layout():
    """A map, or some rows of it, of a tile of channels, for some images.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    images, rows, cols    vectors that are put out, in order
    pool                  forward, 2x2 sums become one; backward, one becomes 2x2
    backward              sums are errors
    relu                  forward, ReLU
    routed                forward, routes are put out; backward, they are followed
    scored                sums are scores: with each vector comes its target, from where masks are
    o, o_row, o_image     first sum; how many a row has, and an image
    done                  the halves of the buffers are not needed any more
    ====================  ==========================================================================
    """
    return data.StructLayout({
        "images": 16, "rows": 16, "cols": 16, "pool": 1, "backward": 1, "relu": 1, "routed": 1,
        "scored": 1, "o": 20, "o_row": 20, "o_image": 20, "done": 1,
    })  # fmt: skip


def vector_layout(arithmetic, lanes):
    """A vector of operands, and of scores its target."""
    return data.StructLayout({"vector": lanes * arithmetic.operand.width, "target": lanes})


class MapOutputs(wiring.Component):
    """Read sums and put out vectors of operands.

    Forward, each is rounded to an operand; of a 2x2 square the largest one counts, of equal ones the first. ReLU lets
    through what is above zero. Where an output came from is its *route*, four bits: one is set, or none if ReLU held it
    back.

    Backward, an error goes where its output came from, and zero to the other places.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes : :class:`int`
    depths : :class:`~streamtrain.unified.buffers.Depths`

    Members
    -------
    command : :py:`In(stream.Signature(outputs_layout()))`
    sums_full, routes_full : :py:`In(2)`
        Halves that may be read.
    sums_read, routes_read : :py:`Out(ReadPort(...))`
    sums_emptied, routes_emptied : :py:`Out(2)`
    o : :py:`Out(stream.Signature(...))`
        ``vector``: operands; ``target``: if ``scored``, a bit for each lane, the first one of its route.
    routes : :py:`Out(stream.Signature(...))`
        Forward, if ``routed``: of each vector, those of a lane side by side.

    Timing
    ------
    A sum in each cycle, as long as vectors are taken.
    """

    def __init__(self, arithmetic, lanes, depths):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.sizes = depths.sizes(arithmetic, self.lanes)
        super().__init__({
            "command": In(stream.Signature(outputs_layout())),
            "sums_full": In(2),
            "routes_full": In(2),
            "sums_read": Out(ReadPort(*self.sizes["sums"])),
            "routes_read": Out(ReadPort(*self.sizes["routes"])),
            "sums_emptied": Out(2),
            "routes_emptied": Out(2),
            "o": Out(stream.Signature(vector_layout(arithmetic, self.lanes))),
            "routes": Out(stream.Signature(unsigned(PLACES * self.lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        room, begins = Signal(), Signal()
        mark = self._read(m, room, begins)
        values, latency = self._rounded(m)
        line = delayed(m, mark.as_value(), READ_LATENCY + latency, "mark")
        arrived = data.View(mark.shape(), line[-1])
        found = delayed(m, self.routes_read.data, latency, "found")[-1]

        # In turn, the places of a square; the largest one is known when the last has come.
        width, lanes = self.arithmetic.operand.width, self.lanes
        earlier = [Signal(lanes * width, name=f"place{n}") for n in range(PLACES - 1)]
        with m.If(arrived.valid):
            m.d.sync += [a.eq(b) for a, b in zip(earlier, [*earlier[1:], values], strict=True)]
        best, place, late = self._largest(m, [*earlier, values])
        mark = data.View(mark.shape(), delayed(m, arrived.as_value(), late, "late")[-1])
        single, found = (
            delayed(m, values, late, "single")[-1],
            delayed(m, found, late, "routes")[-1],
        )
        vector, routes = Signal(lanes * width), Signal(PLACES * lanes)
        pooled = mark.pool & ~mark.backward
        for lane in range(lanes):
            value = Mux(pooled, best.word_select(lane, width), single.word_select(lane, width))
            through = value.any() & ~value[width - 1]  # above zero, in any format
            came = found.word_select(lane, PLACES).bit_select(mark.place, 1)
            passes = Mux(mark.backward, ~mark.routed | came, ~mark.relu | through)
            m.d.comb += [
                vector.word_select(lane, width).eq(Mux(passes, value, 0)),
                routes.word_select(lane, PLACES).eq(
                    Mux(passes, Mux(pooled, place.word_select(lane, PLACES), 1), 0)
                ),
            ]

        m.submodules.vectors = vectors = Queue(vector_layout(self.arithmetic, lanes), depth=ROOM)
        m.submodules.found = kept = Queue(
            self.routes.payload.shape(), depth=self.sizes["routes"][1]
        )
        complete = mark.valid & mark.last
        m.d.comb += [
            vectors.i.payload.vector.eq(vector),
            vectors.i.payload.target.eq(Cat(found[::PLACES])),
            vectors.i.valid.eq(complete),
            kept.i.payload.eq(routes),
            kept.i.valid.eq(complete & mark.routed & ~mark.backward),
        ]
        connect(m, vectors.o, wiring.flipped(self.o))
        connect(m, kept.o, wiring.flipped(self.routes))

        # What has begun has room at its end.
        on_way = Signal(range(ROOM + 1))
        routes_on_way = Signal(range(kept.depth + 1))
        m.d.sync += [
            on_way.eq(on_way + begins - (vectors.o.valid & vectors.o.ready)),
            routes_on_way.eq(routes_on_way + begins - (kept.o.valid & kept.o.ready)),
        ]
        with m.If(complete & ~kept.i.valid):  # it had none
            m.d.sync += routes_on_way.eq(routes_on_way + begins - (kept.o.valid & kept.o.ready) - 1)
        m.d.comb += room.eq((on_way != ROOM) & (routes_on_way != kept.depth))
        return m

    def _read(self, m, room, begins):
        """Read the sums of each vector in turn. Returns what is known of the one that is read now."""
        command, active, issue, through = Signal(outputs_layout()), Signal(), Signal(), Signal()
        half = {name: Signal(name=f"{name}_half") for name in ("sums", "routes")}
        sub, col, row, image = Signal(2), Signal(16), Signal(16), Signal(16)
        row_base, image_base, address = Signal(20), Signal(20), Signal(20)
        merges, spreads = command.pool & ~command.backward, command.pool & command.backward
        follows = command.backward & command.routed | command.scored
        last = Signal(4)  # sub, column, row and image
        m.d.comb += [
            self.command.ready.eq(~active | through),
            last.eq(Cat(
                ~merges | (sub == PLACES - 1), col == command.cols - 1, row == command.rows - 1,
                image == command.images - 1,
            )),
            issue.eq(
                active & (room | (sub != 0))
                & self.sums_full.bit_select(half["sums"], 1)
                & (~follows | self.routes_full.bit_select(half["routes"], 1))
            ),
            begins.eq(issue & (sub == 0)),
            through.eq(issue & last.all()),
            address.eq(
                row_base
                + Mux(merges, Cat(sub[0], col), Mux(spreads, col >> 1, col))
                + Mux(sub[1], command.o_row, 0)
            ),
        ]  # fmt: skip
        with m.If(through):
            m.d.sync += active.eq(0)
        with m.If(self.command.valid & self.command.ready):
            given = self.command.payload
            m.d.sync += [
                active.eq(1), command.eq(given), row_base.eq(given.o), image_base.eq(given.o),
                sub.eq(0), col.eq(0), row.eq(0), image.eq(0),
            ]  # fmt: skip
        with m.Elif(issue):
            m.d.sync += sub.eq(Mux(last[0], 0, sub + 1))
            with m.If(last[0]):
                m.d.sync += col.eq(Mux(last[1], 0, col + 1))
            with m.If(last[:2].all()):
                down = Mux(merges, command.o_row << 1, Mux(spreads & ~row[0], 0, command.o_row))
                m.d.sync += [row.eq(Mux(last[2], 0, row + 1)), row_base.eq(row_base + down)]
            with m.If(last[:3].all()):
                following = image_base + command.o_image
                m.d.sync += [
                    image.eq(image + 1), image_base.eq(following), row_base.eq(following),
                ]  # fmt: skip

        mark = Signal(data.StructLayout({
            "valid": 1, "last": 1, "place": 2, "pool": 1, "backward": 1, "relu": 1, "routed": 1,
        }))  # fmt: skip
        m.d.sync += [
            mark.valid.eq(issue),
            mark.last.eq(last[0]),
            mark.place.eq(Mux(spreads, Cat(col[0], row[0]), 0)),
            *(mark[name].eq(command[name]) for name in ("pool", "backward", "relu", "routed")),
        ]
        for name, ends in (
            ("sums", through & command.done),
            ("routes", through & command.done & follows),
        ):
            read, emptied = getattr(self, f"{name}_read"), getattr(self, f"{name}_emptied")
            m.d.sync += [
                read.address.eq(address), read.half.eq(half[name]), emptied.eq(ends << half[name]),
            ]  # fmt: skip
            m.d.comb += read.enable.eq(mark.valid)
            with m.If(ends):
                m.d.sync += half[name].eq(~half[name])
        return mark

    def _rounded(self, m):
        """The vector that was read, as operands, and how many cycles that takes."""
        wide, values = self.arithmetic.accumulator, []
        for lane in range(self.lanes):
            unit = m.submodules[f"narrow{lane}"] = self.arithmetic.narrow()
            word = self.sums_read.data.word_select(lane, wide.as_shape().width)
            m.d.comb += [unit.i.eq(wide(word)), unit.enable.eq(1)]
            values.append(unit.o)
        return Cat(values), unit.latency

    def _largest(self, m, places):
        """Of each lane the largest of four values, and a bit for where it is. Takes two comparisons' time."""
        fmt, best, where = self.arithmetic.operand, [], []
        for lane in range(self.lanes):

            def larger(a, b, name, lane=lane):
                unit = m.submodules[f"{name}{lane}"] = self.arithmetic.maximum()
                m.d.comb += [unit.a.eq(a), unit.b.eq(b), unit.enable.eq(1)]
                return unit

            values = [fmt(place.word_select(lane, fmt.width)) for place in places]
            top, bottom = larger(*values[:2], "top"), larger(*values[2:], "bottom")
            both = larger(top.o, bottom.o, "both")
            columns = [
                delayed(m, unit.second, both.latency, f"{name}_column{lane}")[-1]
                for unit, name in ((top, "top"), (bottom, "bottom"))
            ]
            best.append(both.o)
            where.append(1 << Cat(Mux(both.second, columns[1], columns[0]), both.second))
        return Cat(best), Cat(bits[:PLACES] for bits in where), 2 * both.latency
