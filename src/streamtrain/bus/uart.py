"""The trainer's buses over a serial line, for boards whose host is a cable.

A line has no back-pressure: the host keeps at most two samples unanswered, which is what the trainer
has room for. All numbers are little-endian.

From the host:

- ``R`` address (2 bytes), count (2 bytes): read a register so many times. The answer is ``r``, the words,
  and the response: 0, or 2 if any was refused.
- ``W`` address, count, words (4 bytes each): write them to a register. The answer is ``w`` and the response.
- ``S`` length (4 bytes), bytes: words of ``s_axis``; TLAST is 1 on the last one. ``s``: the same, but TLAST is 0.

To the host, besides answers:

- ``M`` word: a word of ``m_axis`` whose TLAST is 1; ``m`` word: one whose TLAST is 0.
- ``x``: a byte was lost, or is no command. All that follows is ignored up to a break.

A break (low for longer than a byte) ends whatever was begun; a packet that was under way is ended by a
word with TLAST.
"""

from enum import IntEnum
from operator import index

from amaranth import Cat, Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import AxiLite, AxiStream
from streamtrain.stream import Queue, connect

__all__ = ["Letter", "UartBridge", "UartReceiver", "UartTransmitter"]

_BITS = 10  # of a byte on the line: start, eight, stop


class Letter(IntEnum):
    """What a frame begins with."""

    READ = ord("R")
    WRITE = ord("W")
    SEND = ord("s")
    SEND_LAST = ord("S")
    FOUND = ord("r")
    WRITTEN = ord("w")
    RESULT = ord("m")
    RESULT_LAST = ord("M")
    LOST = ord("x")


def _check_divisor(divisor):
    divisor = index(divisor)
    if divisor < 4:
        raise ValueError(f"A bit must take at least 4 clock cycles, not {divisor}: take a lower baud rate")
    return divisor


class UartReceiver(wiring.Component):
    """Bytes from a serial line: 8 bits, no parity, 1 stop bit.

    Parameters
    ----------
    divisor : :class:`int`
        Clock cycles in a bit, at least 4.

    Members
    -------
    rx : :py:`In(1)`
        The line; it need not be in step with the clock.
    byte, valid : :py:`Out(8)`, :py:`Out(1)`
        A byte has come: for one cycle.
    bad : :py:`Out(1)`
        What came was no byte: for one cycle.
    broken : :py:`Out(1)`
        The line has been low for longer than a byte takes, and still is.

    Timing
    ------
    A byte is valid in the middle of its stop bit.
    """

    def __init__(self, divisor):
        self.divisor = _check_divisor(divisor)
        super().__init__({
            "rx": In(1, init=1),
            "byte": Out(8),
            "valid": Out(1),
            "bad": Out(1),
            "broken": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules += FFSynchronizer(self.rx, line, init=1)
        left = Signal(range(_BITS + 1))  # bits of a byte that are still to come
        timer = Signal(range(self.divisor))
        low = Signal(range(_BITS * self.divisor + 2 * self.divisor))  # for how long
        with m.If(line):
            m.d.sync += low.eq(0)
        with m.Elif(~self.broken):
            m.d.sync += low.eq(low + 1)
        m.d.comb += self.broken.eq(low == (_BITS + 1) * self.divisor)

        with m.If(left == 0), m.If(~line & (low == 0)):  # it has just fallen
            m.d.sync += [left.eq(_BITS), timer.eq(self.divisor // 2 - 1)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self.divisor - 1), left.eq(left - 1)]
            with m.If((left == _BITS) & line):  # no start bit: noise
                m.d.sync += left.eq(0)
            with m.Elif(left == 1):
                m.d.comb += [self.valid.eq(line), self.bad.eq(~line)]
            with m.Else():
                m.d.sync += self.byte.eq(Cat(self.byte[1:], line))
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a serial line: 8 bits, no parity, 1 stop bit.

    Parameters
    ----------
    divisor : :class:`int`
        Clock cycles in a bit, at least 4.

    Members
    -------
    i : :py:`In(stream.Signature(unsigned(8)))`
    tx : :py:`Out(1)`

    Timing
    ------
    A byte in ``10 * divisor`` cycles.
    """

    def __init__(self, divisor):
        self.divisor = _check_divisor(divisor)
        super().__init__({"i": In(stream.Signature(unsigned(8))), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        bits = Signal(_BITS, init=-1)
        left = Signal(range(_BITS + 1))
        timer = Signal(range(self.divisor))
        m.d.comb += [self.i.ready.eq((left == 0) | (left == 1) & (timer == 0)), self.tx.eq(bits[0])]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [
                bits.eq(Cat(bits[1:], 1)),
                left.eq(left - 1),
                timer.eq(self.divisor - 1),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                bits.eq(Cat(0, self.i.payload, 1)),
                left.eq(_BITS),
                timer.eq(self.divisor - 1),
            ]
        return m


class _Asking(wiring.Component):
    """Work off the frames that come from the host."""

    def __init__(self, size, address_bits):
        self.size = size
        super().__init__({
            "i": In(stream.Signature(unsigned(8))),
            "bus": Out(AxiLite(address_bits)),
            "axis": Out(AxiStream(size)),
            "answer": Out(stream.Signature(data.StructLayout({"byte": 8, "last": 1}))),
            "stuck": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        bus, axis, answer = self.bus, self.axis, self.answer
        letter = Signal(8)
        head = Signal(32)  # address and count; or a length
        count, place = head[16:], Signal(range(max(4, self.size)))
        word = Signal(32)
        refused = Signal()
        byte = self.i.payload
        taken, wanted = Signal(), Signal()
        # Bytes come seldom: each is taken the cycle after it is found to be wanted.
        m.d.sync += taken.eq(self.i.valid & wanted & ~taken)
        m.d.comb += self.i.ready.eq(taken)
        words = Signal(8 * self.size)

        def collect(target, size):
            """Shift a byte in from above; true when it was the last one."""
            m.d.comb += wanted.eq(1)
            with m.If(taken):
                m.d.sync += [target.eq(Cat(target[8:], byte)), place.eq(place + 1)]
                with m.If(place == size - 1):
                    m.d.sync += place.eq(0)
            return taken & (place == size - 1)

        def reply(value, state, last=0):
            m.d.comb += [answer.valid.eq(1), answer.payload.byte.eq(value), answer.payload.last.eq(last)]
            with m.If(answer.ready):
                m.next = state

        m.d.comb += [
            bus.bready.eq(1),
            bus.rready.eq(1),
            bus.awaddr.eq(head),
            bus.araddr.eq(head),
            bus.wdata.eq(word),
            bus.wstrb.eq(0xF),
            axis.tdata.eq(words),
            axis.tkeep.eq((1 << self.size) - 1),
            axis.tlast.eq((letter == Letter.SEND_LAST) & (head == self.size)),
        ]
        with m.FSM():
            with m.State("letter"):
                m.d.comb += wanted.eq(1)
                m.d.sync += refused.eq(0)
                with m.If(taken):
                    m.d.sync += letter.eq(byte)
                    m.next = "stuck"
                    asked = (Letter.READ, Letter.WRITE, Letter.SEND, Letter.SEND_LAST)
                    with m.If(Cat(byte == known for known in asked).any()):
                        m.next = "head"
            with m.State("head"), m.If(collect(head, 4)), m.Switch(letter):
                with m.Case(Letter.READ):
                    m.next = "found"
                with m.Case(Letter.WRITE):
                    m.next = "more to write"
                with m.Default():
                    m.next = "more to send"

            with m.State("found"):
                reply(Letter.FOUND, "more to read")
            with m.State("more to read"):
                with m.If(count == 0):
                    reply(Mux(refused, 2, 0), "letter", last=1)
                with m.Else():
                    m.d.comb += bus.arvalid.eq(1)
                    with m.If(bus.arready):
                        m.next = "read"
            with m.State("read"), m.If(bus.rvalid):
                m.d.sync += [word.eq(bus.rdata), refused.eq(refused | (bus.rresp != 0))]
                m.next = "word"
            with m.State("word"):
                m.d.comb += [answer.valid.eq(1), answer.payload.byte.eq(word)]
                with m.If(answer.ready):
                    m.d.sync += [word.eq(word >> 8), place.eq(place + 1)]
                    with m.If(place == 3):
                        m.d.sync += [place.eq(0), count.eq(count - 1)]
                        m.next = "more to read"

            with m.State("more to write"):
                with m.If(count == 0):
                    m.next = "written"
                with m.Else(), m.If(collect(word, 4)):
                    m.next = "write"
            with m.State("write"):
                m.d.comb += [bus.awvalid.eq(1), bus.wvalid.eq(1)]  # taken together
                with m.If(bus.awready & bus.wready):
                    m.next = "response"
            with m.State("response"), m.If(bus.bvalid):
                m.d.sync += [refused.eq(refused | (bus.bresp != 0)), count.eq(count - 1)]
                m.next = "more to write"
            with m.State("written"):
                reply(Letter.WRITTEN, "refused")
            with m.State("refused"):
                reply(Mux(refused, 2, 0), "letter", last=1)

            with m.State("more to send"):
                with m.If(head == 0):
                    m.next = "letter"
                with m.Elif(head < self.size):
                    m.next = "stuck"
                with m.Else(), m.If(collect(words, self.size)):
                    m.next = "send"
            with m.State("send"):
                m.d.comb += axis.tvalid.eq(1)
                with m.If(axis.tready):
                    m.d.sync += head.eq(head - self.size)
                    m.next = "more to send"

            with m.State("stuck"):
                m.d.comb += self.stuck.eq(1)
        return m


class UartBridge(wiring.Component):
    """Speak for a host that is at the other end of a serial line: see the top of this module.

    Parameters
    ----------
    size : :class:`int`
        Bytes of TDATA.
    address_bits : :class:`int`
    divisor : :class:`int`
        Clock cycles in a bit, at least 4.

    Members
    -------
    rx, tx : :py:`In(1)`, :py:`Out(1)`
    bus : :py:`Out(AxiLite(address_bits))`
    samples : :py:`Out(AxiStream(size))`
    results : :py:`In(AxiStream(size))`

    Timing
    ------
    The line is what takes time: 10 bits for a byte.
    """

    def __init__(self, size, address_bits, divisor):
        self.size, self.address_bits = index(size), index(address_bits)
        self.divisor = _check_divisor(divisor)
        super().__init__({
            "rx": In(1, init=1),
            "tx": Out(1, init=1),
            "bus": Out(AxiLite(self.address_bits)),
            "samples": Out(AxiStream(self.size)),
            "results": In(AxiStream(self.size)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        # What waits while a register is accessed, or a sample is not taken at once.
        waiting = Queue(unsigned(8), 16, head=True)
        asking = _Asking(self.size, self.address_bits)
        lost, told = Signal(), Signal()
        anew = ResetInserter(receiver.broken | lost)
        m.submodules.waiting = anew(waiting)
        m.submodules.asking = anew(asking)
        answering = Queue(asking.answer.payload.shape(), 1, head=True)
        m.submodules.answering = anew(answering)
        connect(m, asking.answer, answering.i)
        connect(m, waiting.o, asking.i)
        wiring.connect(m, asking.bus, wiring.flipped(self.bus))
        m.d.comb += [waiting.i.valid.eq(receiver.valid), waiting.i.payload.eq(receiver.byte)]

        with m.If(receiver.bad | receiver.valid & ~waiting.i.ready | asking.stuck):
            m.d.sync += lost.eq(1)
        with m.If(receiver.broken):
            m.d.sync += [lost.eq(0), told.eq(0)]

        # A packet that a break cuts off is ended here.
        inside, ending = Signal(), Signal()
        with m.If(receiver.broken & inside):
            m.d.sync += ending.eq(1)
        word = data.StructLayout({"tdata": 8 * self.size, "tkeep": self.size, "tlast": 1})
        sending = Queue(word, 1, head=True)
        m.submodules.sending = anew(sending)  # a word that nobody has taken is forgotten, too
        source, samples, out = asking.axis, self.samples, sending.o
        m.d.comb += [
            sending.i.valid.eq(source.tvalid),
            sending.i.payload.tdata.eq(source.tdata),
            sending.i.payload.tkeep.eq(source.tkeep),
            sending.i.payload.tlast.eq(source.tlast),
            source.tready.eq(sending.i.ready),
            samples.tvalid.eq(out.valid | ending),
            samples.tdata.eq(out.payload.tdata),
            samples.tkeep.eq((1 << self.size) - 1),
            samples.tlast.eq(out.payload.tlast | ending),
            out.ready.eq(samples.tready & ~ending),
        ]
        with m.If(samples.tvalid & samples.tready):
            m.d.sync += [inside.eq(~samples.tlast), ending.eq(0)]

        m.submodules.coming = coming = Queue(word, 1, head=True)
        results, answer, line = coming.o, answering.o, transmitter.i
        m.d.comb += [
            coming.i.valid.eq(self.results.tvalid),
            *(coming.i.payload[name].eq(getattr(self.results, name)) for name, _ in word),
            self.results.tready.eq(coming.i.ready),
        ]
        place = Signal(range(self.size))
        with m.FSM():
            with m.State("between"):
                with m.If(lost & ~told):
                    m.d.comb += [line.valid.eq(1), line.payload.eq(Letter.LOST)]
                    with m.If(line.ready):
                        m.d.sync += told.eq(1)
                with m.Elif(answer.valid):
                    m.next = "answer"
                with m.Elif(results.valid):
                    letter = Mux(results.payload.tlast, Letter.RESULT_LAST, Letter.RESULT)
                    m.d.comb += [line.valid.eq(1), line.payload.eq(letter)]
                    with m.If(line.ready):
                        m.next = "result"
            with m.State("answer"):  # whole, or up to what ended it
                m.d.comb += [
                    line.valid.eq(answer.valid),
                    line.payload.eq(answer.payload.byte),
                    answer.ready.eq(line.ready),
                ]
                with m.If(answer.valid & answer.ready & answer.payload.last | lost | receiver.broken):
                    m.next = "between"
            with m.State("result"):
                m.d.comb += [
                    line.valid.eq(1),
                    line.payload.eq(results.payload.tdata.word_select(place, 8)),
                ]
                with m.If(line.ready):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == self.size - 1):
                        m.d.sync += place.eq(0)
                        m.d.comb += results.ready.eq(1)
                        m.next = "between"
        return m
