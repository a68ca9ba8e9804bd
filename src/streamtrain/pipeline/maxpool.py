"""Max-pooling, forward and backward."""

from operator import index

from amaranth import Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.layouts import forward_layout
from streamtrain.stream import fork, join

__all__ = ["MaxPool", "MaxUnpool"]


class MaxPool(wiring.Component):
    """Largest of each 2x2 square in each lane, and where it was.

    Of equal values the first in raster order counts, as in PyTorch.

    Parameters
    ----------
    fmt : :class:`Fixed`
    lanes : :class:`int`
        Channels side by side.
    rows, cols : :class:`int`
        The map; both even.
    blocks : :class:`int`
        Groups of ``lanes`` channels.
    records : :class:`bool`
        Whether errors come back, and ``route`` is needed.

    Members
    -------
    i, o : :py:`In(...)`, :py:`Out(stream.Signature(forward_layout(fmt, lanes)))`
        Pixels in raster order, channels innermost.
    route : :py:`Out(stream.Signature(ArrayLayout(2, lanes)))`
        For samples that are trained with: the place of the largest, 0 to 3 in raster order. Only with
        ``records``.

    Timing
    ------
    One payload per cycle in; ``o`` follows the last of a square combinationally. What it is compared
    with has been read when the payload before it was taken.
    """

    def __init__(self, fmt, *, lanes, rows, cols, blocks, records=True):
        self.fmt = fmt
        self.lanes, self.rows, self.cols = index(lanes), index(rows), index(cols)
        self.blocks = index(blocks)
        self.records = records
        if self.rows % 2 or self.cols % 2 or min(self.rows, self.cols) < 2:
            raise ValueError(f"MaxPool needs even rows and columns, not {rows!r}x{cols!r}")
        members = {
            "i": In(stream.Signature(forward_layout(fmt, self.lanes))),
            "o": Out(stream.Signature(forward_layout(fmt, self.lanes))),
        }
        if records:
            members["route"] = Out(stream.Signature(data.ArrayLayout(2, self.lanes)))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        # The squares of one row of squares are in work at a time.
        lane_width = self.fmt.width + (2 if self.records else 0)
        depth = self.cols // 2 * self.blocks
        m.submodules.best = memory = Memory(
            shape=unsigned(self.lanes * lane_width),
            depth=depth,
            init=[],
            attrs={"ram_style": "distributed"},  # read in the cycle in which it is written
        )
        write, read = memory.write_port(), memory.read_port(domain="comb")
        kept = Signal.like(read.data, reset_less=True)  # of the square that comes next
        block = Signal(range(self.blocks))
        col, row = Signal(range(self.cols)), Signal(range(2))
        base, address = Signal(range(depth)), Signal(range(depth))  # of the square, of its block
        following = Signal.like(address)
        stays = Const(1) if depth == 1 else ~col[0] if self.blocks == 1 else Const(0)
        corner = row & col[0]
        train = Signal()  # as with the payload before: a corner is not a sample's first
        branches = [(self.o, 1)] + ([(self.route, train)] if self.records else [])
        forked = fork(m, self.i.valid & corner, branches)
        accept = self.i.valid & self.i.ready
        m.d.comb += [
            read.addr.eq(following),
            write.addr.eq(address),
            write.en.eq(accept),
            self.i.ready.eq(~corner | forked),
            self.o.payload.train.eq(train),
        ]
        for lane in range(self.lanes):
            low = lane * lane_width
            largest = kept[low : low + self.fmt.width].as_signed()
            x = self.i.payload.data[lane]
            better = ((row == 0) & (col[0] == 0)) | (x > largest)
            best = self.o.payload.data[lane]
            m.d.comb += [
                best.eq(Mux(better, x, largest)),
                write.data[low : low + self.fmt.width].eq(best),
            ]
            if self.records:
                place = kept[low + self.fmt.width : low + lane_width]
                best_place = self.route.payload[lane]
                m.d.comb += [
                    best_place.eq(Mux(better, row << 1 | col[0], place)),
                    write.data[low + self.fmt.width : low + lane_width].eq(best_place),
                ]
        m.d.comb += following.eq(address + 1)
        with m.If(block == self.blocks - 1):
            with m.If(col == self.cols - 1):
                m.d.comb += following.eq(0)
            with m.Elif(~col[0]):
                m.d.comb += following.eq(base)
        with m.If(accept):
            m.d.sync += [
                train.eq(self.i.payload.train),
                kept.eq(Mux(stays, write.data, read.data)),
                block.eq(block + 1),
                address.eq(following),
            ]
            with m.If(block == self.blocks - 1):
                m.d.sync += [block.eq(0), col.eq(col + 1)]
                with m.If(col[0]):
                    m.d.sync += base.eq(following)
                with m.If(col == self.cols - 1):
                    m.d.sync += [col.eq(0), row.eq(row + 1)]
        return m


class MaxUnpool(wiring.Component):
    """Send each error back to the place of the largest value; 0 to the other three.

    Parameters
    ----------
    fmt : :class:`Fixed`
    lanes : :class:`int`

    Members
    -------
    i : :py:`In(stream.Signature(ArrayLayout(fmt, lanes)))`
        Errors of the squares.
    route : :py:`In(stream.Signature(ArrayLayout(2, lanes)))`
    o : :py:`Out(stream.Signature(ArrayLayout(fmt, lanes)))`
        Errors of each square's four places, in raster order.

    Timing
    ------
    One payload per cycle out.
    """

    def __init__(self, fmt, lanes):
        self.fmt = fmt
        self.lanes = index(lanes)
        super().__init__({
            "i": In(stream.Signature(data.ArrayLayout(fmt, self.lanes))),
            "route": In(stream.Signature(data.ArrayLayout(2, self.lanes))),
            "o": Out(stream.Signature(data.ArrayLayout(fmt, self.lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        place = Signal(2)
        join(m, self.o, self.i, self.route, done=place == 3)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += place.eq(place + 1)
        for lane in range(self.lanes):
            here = self.route.payload[lane] == place
            m.d.comb += self.o.payload[lane].eq(Mux(here, self.i.payload[lane], 0))
        return m
