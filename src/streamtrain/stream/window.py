"""Sliding windows over a stored map, in any order and at full rate.

A line buffer gives each window once, in raster order, after some rows of delay. Training needs a
sample's windows again for the weight gradient, and small maps cannot afford the delay. So the map
is kept, and interleaved over K x K memories in such a way that any K x K window can be read in
one cycle: the pixel (r, c) lives in memory (r mod K, c mod K), and the taps of a window, wherever
it is, lie in different memories. What remains is to turn them into place.
"""

from dataclasses import dataclass

from amaranth import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.stream.queue import DISTRIBUTED_DEPTH, memory_style

__all__ = ["Cursor", "WindowShape", "WindowStore"]


@dataclass(frozen=True)
class WindowShape:
    """Which windows are read from which map, and how it is stored.

    Parameters
    ----------
    rows, cols : :class:`int`
        The map.
    places : (rows, columns)
        Windows: window (r, c) begins at pixel (r - pad, c - pad). Taps outside of the map are 0.
    kernel, pad : :class:`int`
    taps : :class:`int`
        Taps read together: 1, a row of ``kernel``, or all ``kernel**2``.
    lanes : :class:`int`
        Channels side by side.
    blocks : :class:`int`
        Groups of ``lanes`` channels.
    slots : :class:`int`
        Maps kept.
    square : :class:`int`
        Pixels arrive in raster order if 1, in squares of this size (squares in raster order) if
        more.
    lutram_depth : :class:`int`
        Memories up to this many words live in LUT RAM, deeper ones in block RAM.

    Raises
    ------
    ValueError
        If ``taps`` is none of the three, ``pad`` is no less than the kernel, or squares do not fill
        the map.
    """

    rows: int
    cols: int
    places: tuple
    kernel: int
    pad: int
    taps: int
    lanes: int
    blocks: int
    slots: int
    square: int = 1
    lutram_depth: int = DISTRIBUTED_DEPTH

    def __post_init__(self):
        kernel = self.kernel
        if self.taps not in {1, kernel, kernel**2}:
            raise ValueError(
                f"Taps must be 1, {kernel} (a kernel row) or {kernel**2} (all), not {self.taps!r}"
            )
        if not 0 <= self.pad < kernel:
            raise ValueError(f"Padding must be 0 to {kernel - 1}, not {self.pad!r}")
        if self.rows % self.square or self.cols % self.square:
            raise ValueError(
                f"Squares of {self.square}x{self.square} do not fill a {self.rows}x{self.cols} map"
            )

    @property
    def bank_rows(self):
        """Memories that the rows are interleaved over."""
        return self.kernel if self.taps == self.kernel**2 else 1

    @property
    def bank_cols(self):
        """Memories that the columns are interleaved over."""
        return self.kernel if self.taps > 1 else 1

    # A memory's address is slot + row + column + block, each a multiple of the next one's range. Rows and
    # columns are stored `pad` further down and right, so that window (0, 0) begins at (0, 0).

    @property
    def col_stride(self):
        return self.blocks

    @property
    def row_stride(self):
        return -(-(self.pad + self.cols) // self.bank_cols) * self.col_stride

    @property
    def slot_stride(self):
        return -(-(self.pad + self.rows) // self.bank_rows) * self.row_stride

    @property
    def depth(self):
        """Words in each memory."""
        return self.slots * self.slot_stride

    @property
    def reaches_end(self):
        """Whether the last window needs the map's last pixel; else it may be read before all is there."""
        return all(
            last + self.kernel - 1 - self.pad >= size
            for last, size in zip(self.places, (self.rows, self.cols), strict=True)
        )

    def needs_first(self, size):
        """The row, or column, of squares that the first window waits for, in a map of that size."""
        return min(self.kernel - 1 - self.pad, size - 1) // self.square

    @property
    def squares(self):
        """(rows, columns) of the squares in which pixels arrive."""
        return (self.rows // self.square, self.cols // self.square)

    @property
    def at(self):
        """Layout of a window's place, as :class:`Cursor` gives it."""
        return data.StructLayout({
            "address": range(self.depth),
            "bank_row": range(self.bank_rows),
            "bank_col": range(self.bank_cols),
            "row_inside": unsigned(self.kernel),
            "col_inside": unsigned(self.kernel),
        })


class Cursor(wiring.Component):
    """Walk over the windows of a map in raster order.

    Parameters
    ----------
    shape : :class:`WindowShape`

    Members
    -------
    step : :py:`In(1)`
        Go to the next window; from the last one to the first.
    slot_step : :py:`In(1)`
        Go to the next map. Only at the first window, or together with the step to it.
    at : :py:`Out(shape.at)`
    last : :py:`Out(1)`
        This is the last window.
    need_row, need_col : :py:`Out(...)`
        The square whose arrival completes this window.
    next_row, next_col : :py:`Out(...)`
        The one whose arrival completes the window after it.

    Timing
    ------
    Outputs change on the cycle after ``step``.
    """

    def __init__(self, shape):
        self.shape = shape
        rows, cols = shape.squares
        super().__init__({
            "step": In(1),
            "slot_step": In(1),
            "at": Out(shape.at),
            "last": Out(1),
            "need_row": Out(range(rows), init=shape.needs_first(shape.rows)),
            "need_col": Out(range(cols), init=shape.needs_first(shape.cols)),
            "next_row": Out(range(rows)),
            "next_col": Out(range(cols)),
        })

    def elaborate(self, platform):
        m = Module()
        shape = self.shape
        slot = Signal(range(shape.depth))
        with m.If(self.slot_step):
            m.d.sync += slot.eq(slot + shape.slot_stride)
            with m.If(slot == (shape.slots - 1) * shape.slot_stride):
                m.d.sync += slot.eq(0)

        axes = []
        for name, size, places, banks, stride, need in (
            ("row", shape.rows, shape.places[0], shape.bank_rows, shape.row_stride, self.need_row),
            ("col", shape.cols, shape.places[1], shape.bank_cols, shape.col_stride, self.need_col),
        ):
            place = Signal(range(places), name=name)
            bank = Signal(range(banks), name=f"{name}_bank")
            base = Signal(range(shape.slot_stride), name=f"{name}_base")
            last = Signal(init=places == 1, name=f"{name}_last")
            forward = Signal(name=f"{name}_forward")
            # The window's last tap inside of the map decides whether it has arrived. Whoever waits
            # for that decides on much in the same cycle: it is in a register, as is `last`.
            reach = shape.kernel - 1 - shape.pad
            first_need = shape.needs_first(size)
            final = Signal(range(size), name=f"{name}_final")  # of the next place
            following = Signal.like(need, name=f"{name}_following")
            end = place + (1 + reach)
            m.d.comb += [
                final.eq(Mux(end < size, end, size - 1)),
                following.eq(Mux(last, first_need, final // shape.square)),
            ]
            with m.If(forward):
                m.d.sync += need.eq(following)
                with m.If(last):
                    m.d.sync += [place.eq(0), bank.eq(0), base.eq(0)]
                    m.d.sync += last.eq(places == 1)
                with m.Else():
                    m.d.sync += [place.eq(place + 1), last.eq(place == places - 2)]
                    with m.If(bank == banks - 1):
                        m.d.sync += [bank.eq(0), base.eq(base + stride)]
                    with m.Else():
                        m.d.sync += bank.eq(bank + 1)
            inside = [
                (place + tap >= shape.pad) & (place + tap < size + shape.pad)
                for tap in range(shape.kernel)
            ]
            axes.append((forward, last, bank, base, Cat(inside), following))

        (row, last_row, row_bank, row_base, row_inside, row_following) = axes[0]
        (col, last_col, col_bank, col_base, col_inside, col_following) = axes[1]
        m.d.comb += [
            self.next_col.eq(col_following),
            self.next_row.eq(Mux(last_col, row_following, self.need_row)),
            col.eq(self.step),
            row.eq(self.step & last_col),
            self.last.eq(last_row & last_col),
            self.at.address.eq(slot + row_base + col_base),
            self.at.bank_row.eq(row_bank),
            self.at.bank_col.eq(col_bank),
            self.at.row_inside.eq(row_inside),
            self.at.col_inside.eq(col_inside),
        ]
        return m


class WindowStore(wiring.Component):
    """Keep maps as they arrive, and read windows of them.

    Parameters
    ----------
    fmt : :class:`Fixed`
        Format of an element.
    shape : :class:`WindowShape`

    Members
    -------
    i : :py:`In(stream.Signature(ArrayLayout(fmt, lanes)))`
        Maps, square by square, in each square block by block, in each block pixel by pixel.
    release : :py:`In(1)`
        The oldest map is no longer needed.
    row, col : :py:`Out(...)`
        The square that arrives next; those before it can be read.
    forward : :py:`Out(1)`
        That square's last element is being accepted.
    final : :py:`Out(1)`
        It is the map's last square.
    complete : :py:`Out(1)`
        A map's last element is being accepted.
    en : :py:`In(1)`
    at : :py:`In(shape.at)`
    block, tap : :py:`In(...)`
        Group of channels; group of ``shape.taps`` taps.
    taps : :py:`Out(ArrayLayout(ArrayLayout(fmt, shape.taps), lanes))`
        The window's taps, in raster order in each channel.

    Timing
    ------
    One word per cycle is accepted while a map is free. ``taps`` follows ``en``, ``at``, ``block``
    and ``tap`` by :attr:`LATENCY` cycles, and stays until the next ``en`` arrives there.
    """

    LATENCY = 3

    def __init__(self, fmt, shape):
        self.fmt = fmt
        self.shape = shape
        rows, cols = shape.squares
        super().__init__({
            "i": In(stream.Signature(data.ArrayLayout(fmt, shape.lanes))),
            "release": In(1),
            "row": Out(range(rows)),
            "col": Out(range(cols)),
            "forward": Out(1),
            "final": Out(1),
            "complete": Out(1),
            "en": In(1),
            "at": In(shape.at),
            "block": In(range(shape.blocks)),
            "tap": In(range(shape.kernel**2 // shape.taps)),
            "taps": Out(data.ArrayLayout(data.ArrayLayout(fmt, shape.taps), shape.lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        shape = self.shape
        width = shape.lanes * self.fmt.width
        banks = {}
        for bank_row in range(shape.bank_rows):
            for bank_col in range(shape.bank_cols):
                memory = Memory(
                    shape=unsigned(width),
                    depth=shape.depth,
                    init=[],
                    attrs=memory_style(shape.depth, shape.lutram_depth),
                )
                m.submodules[f"bank{bank_row}{bank_col}"] = memory
                banks[bank_row, bank_col] = (memory.write_port(), memory.read_port())
        self._write(m, {place: write for place, (write, _) in banks.items()})
        self._read(m, {place: read for place, (_, read) in banks.items()})
        return m

    def _write(self, m, banks):
        shape = self.shape
        square = shape.square
        rows, cols = shape.squares
        used = Signal(range(shape.slots + 1))
        begun = Signal()  # a map has begun to arrive
        space = Signal(init=1)  # what comes next has a place: in a map that has begun, or a free one
        full = Signal()  # from the next cycle on, no map is free
        slot = Signal(range(shape.depth))
        block = Signal(range(shape.blocks))
        inner_row, inner_col = Signal(range(square)), Signal(range(square))
        accept = Signal()
        m.d.comb += [
            self.i.ready.eq(space),
            accept.eq(self.i.valid & space),
            full.eq(used + (accept & ~begun) - self.release == shape.slots),
        ]
        m.d.sync += [
            used.eq(used + (accept & ~begun) - self.release),
            space.eq(~full | Mux(accept, ~self.complete, begun)),
        ]
        with m.If(accept):
            m.d.sync += begun.eq(~self.complete)

        # Each axis keeps bank and base address of the square's first pixel.
        places = []
        for name, count, n_banks, stride, inner in (
            ("row", rows, shape.bank_rows, shape.row_stride, inner_row),
            ("col", cols, shape.bank_cols, shape.col_stride, inner_col),
        ):
            position = self.row if name == "row" else self.col
            home = (shape.pad % n_banks, shape.pad // n_banks * stride)
            bank = Signal(range(n_banks), name=f"{name}_bank", init=home[0])
            base = Signal(range(shape.slot_stride), name=f"{name}_base", init=home[1])
            forward, last = Signal(name=f"{name}_forward"), Signal(name=f"{name}_last", init=count == 1)

            def ahead(steps, bank=bank, base=base, n_banks=n_banks, stride=stride):
                """Bank and base some pixels further on."""
                whole, part = divmod(steps, n_banks)
                wrap = bank + part >= n_banks
                return (
                    Mux(wrap, bank + part - n_banks, bank + part),
                    base + Mux(wrap, (whole + 1) * stride, whole * stride),
                )

            with m.If(forward):
                next_bank, next_base = ahead(square)
                m.d.sync += [
                    last.eq(Mux(last, count == 1, position == count - 2)),
                    position.eq(Mux(last, 0, position + 1)),
                    bank.eq(Mux(last, home[0], next_bank)),
                    base.eq(Mux(last, home[1], next_base)),
                ]
            here = [ahead(step) for step in range(square)]
            here_bank = Signal(range(n_banks), name=f"{name}_here_bank")
            here_base = Signal(range(shape.slot_stride), name=f"{name}_here_base")
            m.d.comb += [
                here_bank.eq(Array(place[0] for place in here)[inner]),
                here_base.eq(Array(place[1] for place in here)[inner]),
            ]
            places.append((forward, last, here_bank, here_base))

        (row_forward, row_last, row_bank, row_base) = places[0]
        (col_forward, col_last, col_bank, col_base) = places[1]
        block_last = block == shape.blocks - 1
        # Whether this is a square's last element; like `row_last` and `col_last` in a register, since
        # `accept` comes late in a cycle.
        square_last = Signal(init=square == 1 and shape.blocks == 1)
        if square > 1:
            next_last = block_last & (inner_row == square - 1) & (inner_col == square - 2)
        else:
            next_last = (block == shape.blocks - 2) | (shape.blocks == 1)
        m.d.comb += [
            col_forward.eq(accept & square_last),
            row_forward.eq(col_forward & col_last),
            self.forward.eq(col_forward),
            self.final.eq(row_last & col_last),
            self.complete.eq(col_forward & self.final),
        ]
        with m.If(accept):
            m.d.sync += [square_last.eq(next_last), inner_col.eq(inner_col + 1)]
            with m.If(inner_col == square - 1):
                m.d.sync += [inner_col.eq(0), inner_row.eq(inner_row + 1)]
                with m.If(inner_row == square - 1):
                    m.d.sync += [inner_row.eq(0), block.eq(block + 1)]
                    with m.If(block_last):
                        m.d.sync += block.eq(0)
        with m.If(self.complete):
            m.d.sync += slot.eq(slot + shape.slot_stride)
            with m.If(slot == (shape.slots - 1) * shape.slot_stride):
                m.d.sync += slot.eq(0)

        address = Signal(range(shape.depth))
        m.d.comb += address.eq(slot + row_base + col_base + block)
        for (bank_row, bank_col), port in banks.items():
            m.d.comb += [
                port.addr.eq(address),
                port.data.eq(self.i.payload),
                port.en.eq(accept & (row_bank == bank_row) & (col_bank == bank_col)),
            ]

    def _read(self, m, banks):
        shape = self.shape
        kernel, taps = shape.kernel, shape.taps
        # Taps that the memories do not spread are addressed: those of a row, or single ones.
        groups = kernel**2 // taps
        down = [tap * taps // kernel for tap in range(groups)]
        right = [tap * taps % kernel for tap in range(groups)]
        offset = [
            (0 if shape.bank_rows > 1 else down[tap] * shape.row_stride)
            + (0 if shape.bank_cols > 1 else right[tap] * shape.col_stride)
            for tap in range(groups)
        ]
        address = Signal(range(shape.depth))
        m.d.comb += address.eq(self.at.address + self.block + Array(offset)[self.tap])
        for (bank_row, bank_col), port in banks.items():
            # A memory that comes before the window's first one holds the next row or column.
            below = Mux(self.at.bank_row > bank_row, shape.row_stride, 0)
            beside = Mux(self.at.bank_col > bank_col, shape.col_stride, 0)
            m.d.comb += [port.en.eq(self.en), port.addr.eq(address + below + beside)]

        # The memories' words, the turn into place and the mask: one register each.
        place = [Signal(shape.at, name=f"at{n}", reset_less=True) for n in range(2)]
        tap = [Signal.like(self.tap, name=f"tap{n}", reset_less=True) for n in range(2)]
        en = [Signal(name=f"en{n}") for n in range(2)]
        m.d.sync += [en[0].eq(self.en), en[1].eq(en[0])]
        with m.If(self.en):
            m.d.sync += [place[0].eq(self.at), tap[0].eq(self.tap)]
        words = {}
        with m.If(en[0]):
            m.d.sync += [place[1].eq(place[0]), tap[1].eq(tap[0])]
            for bank, port in banks.items():
                words[bank] = Signal.like(port.data, name=f"word{bank[0]}{bank[1]}", reset_less=True)
                m.d.sync += words[bank].eq(port.data)

        def turned(choices, by):
            return choices[0] if len(choices) == 1 else Array(choices)[by]

        straight = {}
        for row in range(shape.bank_rows):
            for col in range(shape.bank_cols):
                word = Signal(len(words[row, col]), name=f"turned{row}{col}")
                m.d.comb += word.eq(
                    turned(
                        [words[(row + turn) % shape.bank_rows, col] for turn in range(shape.bank_rows)],
                        place[1].bank_row,
                    )
                )
                straight[row, col] = word
        row_inside = Signal(kernel)
        col_inside = Signal(kernel)
        m.d.comb += [
            row_inside.eq(place[1].row_inside),
            col_inside.eq(place[1].col_inside),
        ]
        if shape.bank_rows == 1:
            m.d.comb += row_inside.eq(Array(place[1].row_inside[r] for r in down)[tap[1]])
        if shape.bank_cols == 1:
            m.d.comb += col_inside.eq(Array(place[1].col_inside[c] for c in right)[tap[1]])
        bits = self.fmt.width
        for number in range(taps):
            row, col = divmod(number, kernel) if taps > 1 else (0, 0)
            word = Signal(len(straight[0, 0]), name=f"tap_word{number}")
            turns = [straight[row, (col + turn) % shape.bank_cols] for turn in range(shape.bank_cols)]
            m.d.comb += word.eq(turned(turns, place[1].bank_col))
            inside = row_inside[row] & col_inside[col]
            for lane in range(shape.lanes):
                held = Signal(bits, name=f"tap{lane}_{number}", reset_less=True)
                element = word[lane * bits : (lane + 1) * bits]
                with m.If(en[1]):
                    m.d.sync += held.eq(Mux(inside, element, Const(0, bits)))
                m.d.comb += self.taps[lane][number].eq(held)
