"""Sums of what a convolution stores, for the batch norm behind it, while it is stored."""

from operator import index

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.golden.passes import PARTIALS
from streamtrain.numeric.floating import FP32
from streamtrain.pipeline.gates import delayed

__all__ = ["StoredSums", "sums_layout"]


def sums_layout():
    """What is known of a stored map, of which the sums are wanted.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    wanted                they are
    tile, tiles           the first of its tiles of channels, and how many each image has
    pixel                 number of the first pixel in its image, modulo the partial sums
    fresh                 it begins with the first pixel that these sums take
    ====================  ==========================================================================
    """
    return data.StructLayout({
        "wanted": 1, "tile": 10, "tiles": 10, "pixel": range(PARTIALS), "fresh": 1,
    })  # fmt: skip


class StoredSums(wiring.Component):
    """Partial sums of vectors and of their squares, lane by lane, as golden ``channel_sums`` has them.

    A vector takes as many cycles as beats of memory, so a part of the lanes has adders.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.FloatArithmetic`
    lanes : :class:`int`
    tiles : :class:`int`
        Of channels.
    data_bits : :class:`int`
        Of a beat.

    Attributes
    ----------
    cycles : :class:`int`
        That a vector takes.

    Members
    -------
    valid : :py:`In(1)`
        A vector comes: again in ``cycles`` cycles, at the soonest.
    vector : :py:`In(lanes * arithmetic.operand.width)`
    tile, pixel : :py:`In(...)`
        Where it belongs: which sums.
    fresh : :py:`In(1)`
        The sum begins with it.
    quiet : :py:`Out(1)`
        All sums are what they should be. The same sum may come again after so many others as there are partial
        sums, or when it is quiet.
    row, lane, of_tile : :py:`In(...)`
        What is read, while no vector comes: row of sums, or of squares behind them.
    word : :py:`Out(32)`
        It, one cycle later.

    Timing
    ------
    It is quiet ``cycles`` plus 15 cycles after the last vector.
    """

    def __init__(self, arithmetic, lanes, tiles, *, data_bits):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.tiles = index(tiles)
        self.data_bits = index(data_bits)
        width = self.lanes * arithmetic.operand.width
        self.cycles = -(-width // self.data_bits)
        super().__init__({
            "valid": In(1),
            "vector": In(width),
            "tile": In(range(max(2, self.tiles))),
            "pixel": In(range(PARTIALS)),
            "fresh": In(1),
            "quiet": Out(1),
            "row": In(range(2 * PARTIALS)),
            "lane": In(range(self.lanes)),
            "of_tile": In(range(max(2, self.tiles))),
            "word": Out(FP32.width),
        })

    def elaborate(self, platform):
        m = Module()
        units, operand = -(-self.lanes // self.cycles), self.arithmetic.operand
        part = Signal(range(max(2, self.cycles)))
        vector, active = Signal.like(self.vector), Signal()
        mark = data.StructLayout({
            "valid": 1, "fresh": 1, "tile": len(self.tile), "pixel": len(self.pixel), "part": len(part),
        })  # fmt: skip
        now, taken = Signal(mark), Signal(mark)

        # A vector is held while its parts go to the adders.
        last = part == self.cycles - 1
        with m.If(active):
            m.d.sync += part.eq(Mux(last, 0, part + 1))
            with m.If(last):
                m.d.sync += active.eq(0)
        with m.If(self.valid):
            m.d.sync += [
                active.eq(1), vector.eq(self.vector), taken.fresh.eq(self.fresh),
                taken.tile.eq(self.tile), taken.pixel.eq(self.pixel),
            ]  # fmt: skip
        m.d.comb += [
            now.eq(taken.as_value()),
            now.valid.eq(active),
            now.part.eq(part),
        ]
        words = vector.word_select(part, units * operand.width)

        multipliers = [self.arithmetic.multiplier() for _ in range(units)]
        latency, add = multipliers[0].latency, self.arithmetic.adder().latency
        line = delayed(m, now.as_value(), latency + add, "mark")
        reads, adds, ends = (
            data.View(mark, line[at]) for at in (latency - 1, latency, latency + add)
        )
        results = []
        for name in ("sums", "squares"):
            memory = m.submodules[name] = Memory(
                shape=unsigned(units * FP32.width),
                depth=self.tiles * PARTIALS * self.cycles,
                init=[],
            )
            results.append((name, memory.read_port(), memory.write_port()))
        looks = Signal()
        m.d.comb += looks.eq(~reads.valid)

        def place(tile, pixel, beat):
            return (tile * PARTIALS + pixel) * self.cycles + beat

        for name, read, write in results:
            found = []
            for unit in range(units):
                word = operand(words.word_select(unit, operand.width))
                adder = m.submodules[f"{name}_adder{unit}"] = self.arithmetic.adder()
                if name == "sums":
                    term = m.submodules[f"widen{unit}"] = self.arithmetic.widen()
                    m.d.comb += term.i.eq(word)
                else:
                    term = m.submodules[f"multiplier{unit}"] = multipliers[unit]
                    m.d.comb += [term.a.eq(word), term.b.eq(word)]
                value = delayed(m, term.o, latency - term.latency, f"{name}_term{unit}_")[-1]
                before = read.data.word_select(unit, FP32.width)
                m.d.comb += [
                    term.enable.eq(1),
                    adder.enable.eq(1),
                    adder.a.eq(value),
                    adder.b.eq(Mux(adds.fresh, 0, before)),
                ]
                found.append(adder.o)
            m.d.comb += [
                read.addr.eq(
                    Mux(
                        looks,
                        place(self.of_tile, self.row[: len(self.pixel)], self.lane // units),
                        place(reads.tile, reads.pixel, reads.part),
                    )
                ),
                write.addr.eq(place(ends.tile, ends.pixel, ends.part)),
                write.data.eq(Cat(found)),
                write.en.eq(ends.valid),
            ]
        unit = Signal(range(max(2, units)))
        squares = Signal()
        m.d.sync += [unit.eq(self.lane % units), squares.eq(self.row[-1])]
        m.d.comb += self.word.eq(
            Mux(squares, results[1][1].data, results[0][1].data).word_select(unit, FP32.width)
        )
        under_way = Cat(data.View(mark, value).valid for value in line)
        m.d.comb += self.quiet.eq(~under_way.any())
        return m
