"""What makes new weights of gradients and old ones, on their way from memory and back."""

from operator import index

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric.floating import delayed
from streamtrain.unified.buffers import READ_LATENCY, ReadPort

__all__ = ["WeightUpdate", "update_layout"]


def update_layout():
    """Blocks of weights, or vectors of biases, that follow one another in memory.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    biases                they are biases
    plain                 floating-point gradients go out as they are, of blocks those on the diagonal; no old weights
                          come in
    first, count          of the blocks of gradients, or vectors of those of biases
    done                  this half of the gradients is not needed any more
    ====================  ==========================================================================
    """
    return data.StructLayout({
        "biases": 1, "plain": 1, "first": 16, "count": 16, "done": 1,
    })  # fmt: skip


class WeightUpdate(wiring.Component):
    """``w + rate * dw``: old weights in, new ones out, beat by beat.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
        With accumulators of 32 bits: words in memory.
    lanes : :class:`int`
    depths : :class:`~streamtrain.unified.buffers.Depths`
    data_bits : :class:`int`
        Of a beat, which holds part of a row, or all of it.

    Members
    -------
    command : :py:`In(stream.Signature(update_layout()))`
    rate : :py:`In(arithmetic.rate)`
        What gradients are multiplied with. It stays while there are commands.
    gradients_full : :py:`In(2)`
        Halves that may be read.
    gradients_read, bias_gradients_read : :py:`Out(ReadPort(...))`
    gradients_emptied : :py:`Out(2)`
    masters : :py:`In(stream.Signature(unsigned(data_bits)))`
        Old weights.
    o : :py:`Out(stream.Signature(unsigned(data_bits)))`

    Timing
    ------
    A beat per cycle; from one block to the next three cycles more.
    """

    def __init__(self, arithmetic, lanes, depths, *, data_bits):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.data_bits = index(data_bits)
        self.sizes = depths.sizes(arithmetic, self.lanes)
        row, width = self.sizes["biases"][0], arithmetic.accumulator.width
        if self.data_bits % width or row % self.data_bits:
            raise ValueError(
                f"Beats must hold whole numbers of {width} bits, and a row of {self.lanes} whole beats; "
                f"{data_bits} bits do not"
            )
        beats = stream.Signature(unsigned(self.data_bits))
        super().__init__({
            "command": In(stream.Signature(update_layout())),
            "rate": In(arithmetic.rate),
            "gradients_full": In(2),
            "gradients_read": Out(ReadPort(*self.sizes["gradients"])),
            "bias_gradients_read": Out(ReadPort(*self.sizes["bias_gradients"])),
            "gradients_emptied": Out(2),
            "masters": In(beats),
            "o": Out(beats),
        })

    def elaborate(self, platform):
        m = Module()
        command, half, word = self.command.payload, Signal(), Signal(16)
        block, row = self.sizes["gradients"][0], self.sizes["biases"][0]
        beat, waits = Signal(range(block // self.data_bits)), Signal(range(READ_LATENCY + 2))
        address = command.first + word
        for port in (self.gradients_read, self.bias_gradients_read):
            m.d.comb += [port.half.eq(half), port.address.eq(address), port.enable.eq(1)]

        enable, moves, given = Signal(), Signal(), Signal()
        last_beat, through = Signal(), Signal()
        vectors = command.biases | command.plain
        beats = Mux(vectors, row // self.data_bits, block // self.data_bits)
        there = self.command.valid & self.gradients_full.bit_select(half, 1)
        m.d.comb += [
            given.eq(self.masters.valid | command.plain),
            moves.eq(there & (waits == READ_LATENCY) & given & enable),
            self.masters.ready.eq(there & (waits == READ_LATENCY) & enable & ~command.plain),
            last_beat.eq(beat == beats - 1),
            through.eq(moves & last_beat & (word == command.count - 1)),
            self.command.ready.eq(through),
            self.gradients_emptied.eq((through & command.done) << half),
        ]
        with m.If(moves):
            m.d.sync += beat.eq(beat + 1)
            with m.If(last_beat):
                m.d.sync += [beat.eq(0), word.eq(Mux(through, 0, word + 1)), waits.eq(0)]
            with m.If(through & command.done):
                m.d.sync += half.eq(~half)
        with m.Elif(there & (waits != READ_LATENCY)):
            m.d.sync += waits.eq(waits + 1)

        found = self.gradients_read.data
        width = self.arithmetic.accumulator.width
        own = Cat(found.word_select(n * (self.lanes + 1), width) for n in range(self.lanes))
        gradients = Mux(
            vectors,
            Mux(command.biases, self.bias_gradients_read.data, own).word_select(
                beat, self.data_bits
            ),
            found.word_select(beat, self.data_bits),
        )
        found, latency = self._units(m, gradients, enable)
        valid = Signal(latency)
        with m.If(enable):
            m.d.sync += valid.eq(Cat(moves, valid))
        m.d.comb += [
            self.o.payload.eq(Cat(found)),
            self.o.valid.eq(valid[-1]),
            enable.eq(~self.o.valid | self.o.ready),
        ]
        return m

    def _units(self, m, gradients, enable):
        """New weights of a beat, and how many cycles they take."""
        wide, found, latency = self.arithmetic.accumulator, [], 0
        one = int(self.arithmetic.rate.encode(1.0))
        for number in range(self.data_bits // wide.width):
            scaler = m.submodules[f"scaler{number}"] = self.arithmetic.scaler()
            adder = m.submodules[f"adder{number}"] = self.arithmetic.adder()
            command = self.command.payload
            old = Mux(command.plain, 0, self.masters.payload.word_select(number, wide.width))
            m.d.comb += [
                scaler.enable.eq(enable),
                scaler.a.eq(wide(gradients.word_select(number, wide.width))),
                scaler.b.eq(self.arithmetic.rate(Mux(command.plain, one, self.rate))),
                adder.enable.eq(enable),
                adder.a.eq(wide(delayed(m, enable, old, scaler.latency, f"old{number}_"))),
                adder.b.eq(scaler.o),
            ]
            found.append(adder.o)
            latency = scaler.latency + adder.latency
        return found, latency
