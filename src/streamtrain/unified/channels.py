"""What batch normalization computes for each channel between the passes of the array."""

from operator import index

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from streamtrain.golden.channels import CONSTANTS, MAGIC, PROGRAMS, ROWS, Op, Register
from streamtrain.golden.passes import PARTIALS
from streamtrain.numeric.add import FloatAdder
from streamtrain.numeric.floating import FP32
from streamtrain.numeric.multiply import FloatMultiplier
from streamtrain.pipeline.gates import delayed
from streamtrain.unified.pack import Pack
from streamtrain.unified.regroup import Regroup

__all__ = [
    "READ_ROWS", "REGISTERS", "ChannelProcessor", "channels_layout", "program_cycles", "written_rows",
]  # fmt: skip

REGISTERS = 64
"""Of a channel, in the processor."""

_INSTRUCTION = data.StructLayout({
    "op": range(len(Op)), "to": range(REGISTERS), "a": range(2 * REGISTERS),
    "b": range(2 * REGISTERS), "last": 1,
})  # fmt: skip


def channels_layout():
    """What a processor does.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    program               number of one of :data:`~streamtrain.golden.channels.PROGRAMS`
    tile                  of whose stored sums it is (``train``)
    partials              how many there are; a small map has fewer pixels
    ====================  ==========================================================================
    """
    return data.StructLayout({
        "program": range(len(PROGRAMS)), "tile": 10, "partials": range(PARTIALS + 1),
    })  # fmt: skip


READ_ROWS = int(Register.A)
"""Rows that a processor reads: registers, and partial sums."""

_TRAIN, _BACK = (list(PROGRAMS).index(name) for name in ("train", "back"))


def written_rows(lanes):
    """Rows that it writes: registers, and two blocks with a and c on their diagonals."""
    return ROWS + 2 * lanes


def program_cycles(program, lanes):
    """Cycles of a program's operations: each goes through all channels, and ends before the next one reads."""
    return (len(program) + 1) * (max(lanes, FloatAdder.latency + 3) + 1)


class ChannelProcessor(wiring.Component):
    """Runs a program of :mod:`streamtrain.golden.channels` on a tile of channels.

    Rows of ``lanes`` words come in: registers, and for ``back`` the sums of a mini-batch behind them; for ``train``,
    those are in :class:`~streamtrain.unified.stored_sums.StoredSums`. Registers go out, and a and c as blocks of
    weights.

    Parameters
    ----------
    lanes : :class:`int`
        Channels, and words of a row.
    data_bits : :class:`int`
        Of a beat.

    Members
    -------
    command : :py:`In(stream.Signature(channels_layout()))`
    rate : :py:`In(FP32)`
        What gradients are multiplied with. It stays while there are commands.
    i : :py:`In(stream.Signature(unsigned(data_bits)))`
        The rows.
    row, lane : :py:`Out(...)`
        A stored sum; ``word`` is it, one cycle later.
    word : :py:`In(32)`
    o : :py:`Out(stream.Signature(unsigned(data_bits)))`
        :func:`written_rows` rows.

    Timing
    ------
    A word in each cycle, in and out, and between them :func:`program_cycles`.
    """

    def __init__(self, lanes, *, data_bits):
        self.lanes = index(lanes)
        self.data_bits = index(data_bits)
        beats = stream.Signature(unsigned(self.data_bits))
        super().__init__({
            "command": In(stream.Signature(channels_layout())),
            "rate": In(FP32),
            "i": In(beats),
            "o": Out(beats),
            "row": Out(range(2 * PARTIALS)),
            "lane": Out(range(self.lanes)),
            "word": In(FP32.width),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.regroup = regroup = Regroup(self.data_bits, [FP32.width])
        m.submodules.pack = pack = Pack(FP32.width, self.data_bits)
        connect(m, flipped(self.i), regroup.i)
        connect(m, pack.o, flipped(self.o))
        m.submodules.registers = registers = Memory(
            shape=unsigned(FP32.width), depth=REGISTERS << (self.lanes - 1).bit_length(), init=[]
        )
        ports, write = [registers.read_port() for _ in "ab"], registers.write_port()

        def place(lane, register):
            return Cat(lane, register)[: len(write.addr)]

        row, lane = Signal(range(max(READ_ROWS, self.lanes) + 1)), Signal(range(self.lanes))
        block, there = Signal(2), Signal()  # 0: registers; then blocks of weights
        end = lane == self.lanes - 1
        word = pack.i.payload.word
        running, draining = Signal(), Signal()
        late = Signal(data.StructLayout({"row": len(row), "lane": len(lane), "valid": 1}))
        through, drained = self._run(m, running, draining, ports, write, place)
        with m.FSM():
            with m.State("load"):
                m.d.comb += [
                    regroup.o.ready.eq(self.command.valid),
                    write.addr.eq(place(lane, row)),
                    write.data.eq(regroup.o.payload),
                    write.en.eq(regroup.o.valid & self.command.valid),
                ]
                back = self.command.payload.program == _BACK
                with m.If(regroup.o.valid & self.command.valid):
                    m.d.sync += lane.eq(Mux(end, 0, lane + 1))
                    with m.If(end):
                        m.d.sync += row.eq(row + 1)
                        with m.If(row == Mux(back, READ_ROWS, ROWS) - 1):
                            m.d.sync += row.eq(0)
                            with m.If(self.command.payload.program == _TRAIN):
                                m.next = "sums"
                            with m.Else():
                                m.next = "run"
            with m.State("sums"):
                m.d.comb += [
                    self.row.eq(row),
                    self.lane.eq(lane),
                    write.addr.eq(place(late.lane, late.row + ROWS)),
                    write.data.eq(
                        Mux(
                            late.row[: len(self.row) - 1] < self.command.payload.partials,
                            self.word,
                            0,
                        )
                    ),
                    write.en.eq(late.valid),
                ]
                m.d.sync += [
                    late.row.eq(row),
                    late.lane.eq(lane),
                    late.valid.eq(row < 2 * PARTIALS),
                ]
                with m.If(row < 2 * PARTIALS):
                    m.d.sync += [lane.eq(Mux(end, 0, lane + 1)), row.eq(row + end)]
                with m.Else():
                    m.d.sync += [row.eq(0), late.valid.eq(0)]
                    m.next = "run"
            with m.State("run"):
                m.d.comb += running.eq(1)
                with m.If(through):
                    m.next = "drain"
            with m.State("drain"):
                m.d.comb += draining.eq(1)
                with m.If(drained):
                    m.next = "send"
            with m.State("send"):
                following = Signal.like(row), Signal.like(lane), Signal.like(block)
                moves, row_end = pack.i.ready & there, Signal()
                m.d.comb += [
                    pack.i.valid.eq(there),
                    word.eq(Mux((block == 0) | (lane == row), ports[0].data, 0)),
                    row_end.eq(row == Mux(block == 0, ROWS, self.lanes) - 1),
                    *(a.eq(b) for a, b in zip(following, (row, lane, block), strict=True)),
                ]
                with m.If(moves):
                    m.d.comb += following[1].eq(Mux(end, 0, lane + 1))
                    with m.If(end):
                        m.d.comb += following[0].eq(Mux(row_end, 0, row + 1))
                        with m.If(row_end):
                            m.d.comb += following[2].eq(block + 1)
                at = Mux(following[2] == 0, following[1], following[0][: len(lane)])
                register = Mux(
                    following[2] == 0, following[0], Mux(following[2] == 1, Register.A, Register.C)
                )
                m.d.comb += ports[0].addr.eq(place(at, register))
                m.d.sync += [
                    row.eq(following[0]), lane.eq(following[1]), block.eq(following[2]), there.eq(1),
                ]  # fmt: skip
                with m.If(moves & end & row_end & (block == 2)):
                    m.d.comb += self.command.ready.eq(1)
                    m.d.sync += [there.eq(0), block.eq(0)]
                    m.next = "load"
        return m

    def _run(self, m, running, draining, ports, write, place):
        """Go through a program. Returns when it is through, and when the last result is written."""
        starts, instructions = [], []
        for program in PROGRAMS.values():
            starts.append(len(instructions))
            for number, (op, to, a, b) in enumerate(program, 1):
                fields = {"op": op, "to": to, "a": a, "b": b, "last": number == len(program)}
                instructions.append(_INSTRUCTION.const(fields).as_bits())
        m.submodules.instructions = memory = Memory(
            shape=unsigned(_INSTRUCTION.size), depth=len(instructions), init=instructions
        )
        fetch = memory.read_port()
        adder = m.submodules.adder = FloatAdder(FP32)
        multiplier = m.submodules.multiplier = FloatMultiplier(FP32, FP32)
        period = (
            max(self.lanes, adder.latency + 3) + 1
        )  # the next operation may read what this one writes
        cycle, number, begun = Signal(range(period)), Signal(range(len(instructions))), Signal()
        now = data.View(_INSTRUCTION, fetch.data)
        lane, last = Signal(range(self.lanes)), cycle == period - 1
        start = Signal.like(number)
        with m.Switch(self.command.payload.program):
            for program, first in enumerate(starts):
                with m.Case(program):
                    m.d.comb += start.eq(first)
        m.d.comb += [fetch.addr.eq(number), lane.eq(cycle - 1)]
        with m.If(running):
            m.d.sync += [begun.eq(1), cycle.eq(Mux(last | ~begun, 0, cycle + 1))]
            with m.If(~begun):
                m.d.sync += number.eq(start)
            with m.Elif(last):
                m.d.sync += number.eq(number + 1)
            for port, source in zip(ports, (now.a, now.b), strict=True):
                m.d.comb += port.addr.eq(place(lane, source))
        through = begun & last & now.last
        with m.If(running & through):
            m.d.sync += [begun.eq(0), cycle.eq(0)]
        with m.If(draining):
            m.d.sync += cycle.eq(Mux(last, 0, cycle + 1))

        # A cycle later, its operands are there.
        issue = running & begun & (cycle != 0) & (cycle <= self.lanes)
        mark = data.StructLayout({"valid": 1, "op": range(len(Op)), "at": len(write.addr)})
        issued, sources = Signal(mark), Signal(data.ArrayLayout(range(2 * REGISTERS), 2))
        m.d.sync += [
            issued.valid.eq(issue),
            issued.op.eq(now.op),
            issued.at.eq(place(lane, now.to)),
            sources[0].eq(now.a),
            sources[1].eq(now.b),
        ]
        a, b = Signal(FP32.width), Signal(FP32.width)
        for operand, port, source in zip((a, b), ports, sources, strict=True):
            with m.Switch(source):
                for register, value in CONSTANTS.items():
                    with m.Case(register):
                        m.d.comb += operand.eq(int(FP32.encode(value)))
                with m.Case(Register.RATE):
                    m.d.comb += operand.eq(self.rate)
                with m.Default():
                    m.d.comb += operand.eq(port.data)
        m.d.comb += [
            adder.enable.eq(1),
            adder.a.eq(a),
            adder.b.eq(Cat(b[:-1], b[-1] ^ (issued.op == Op.SUBTRACT))),
            multiplier.enable.eq(1),
            multiplier.a.eq(a),
            multiplier.b.eq(b),
        ]
        latency = adder.latency
        simple = Mux(issued.op == Op.POSITIVE, Mux(a[-1], 0, a), (MAGIC - (a >> 1))[: FP32.width])
        simple = delayed(m, simple, latency, "simple")[-1]
        product = delayed(m, multiplier.o, latency - multiplier.latency, "product")[-1]
        done = data.View(mark, delayed(m, issued.as_value(), latency, "issued")[-1])
        with m.If(running | draining):
            m.d.comb += [write.addr.eq(done.at), write.en.eq(done.valid), write.data.eq(simple)]
            with m.If(done.op == Op.MULTIPLY):
                m.d.comb += write.data.eq(product)
            with m.Elif((done.op == Op.ADD) | (done.op == Op.SUBTRACT)):
                m.d.comb += write.data.eq(adder.o)
        return through, last
