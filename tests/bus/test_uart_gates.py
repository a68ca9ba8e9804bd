# amaranth: UnusedElaboratable=no
"""The serial line: bytes, frames, and what becomes of a damaged one."""

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from streamtrain.bus.register_file import RegisterFile
from streamtrain.bus.registers import Field, Register, RegisterMap
from streamtrain.bus.uart import UartBridge, UartReceiver, UartTransmitter

DIVISOR = 5
TABLE = RegisterMap(
    "few",
    "",
    (
        Register("FACT", 0, "", (Field("fact", 0, 32, "", "ro", reset=0x12345678, constant=True),)),
        Register("KEPT", 4, "", (Field("kept", 0, 32, ""),)),
    ),
)


class Mirror(wiring.Component):
    """A bridge with two registers, whose stream comes back."""

    rx: In(1, init=1)
    tx: Out(1, init=1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = UartBridge(4, TABLE.address_bits, DIVISOR)
        m.submodules.registers = registers = RegisterFile(TABLE)
        wiring.connect(m, bridge.bus, registers.bus)
        wiring.connect(m, bridge.samples, bridge.results)
        m.d.comb += [bridge.rx.eq(self.rx), self.tx.eq(bridge.tx)]
        return m


class Line:
    """The host's end."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.heard = ctx, dut, bytearray()

    async def low(self, bits):
        self.ctx.set(self.dut.rx, 0)
        await self.ctx.tick().repeat(bits * DIVISOR)
        self.ctx.set(self.dut.rx, 1)
        await self.ctx.tick().repeat(DIVISOR)

    async def send(self, data):
        for byte in data:
            for bit in (0, *(byte >> place & 1 for place in range(8)), 1):
                self.ctx.set(self.dut.rx, bit)
                await self.ctx.tick().repeat(DIVISOR)

    async def answer(self, data=b""):
        """What comes until the line has been still for the time of three bytes."""
        await self.send(data)
        await self.ctx.tick().repeat(DIVISOR * 30)
        count = -1
        while count != len(self.heard):
            count = len(self.heard)
            await self.ctx.tick().repeat(DIVISOR * 30)
        heard, self.heard = bytes(self.heard), bytearray()
        return heard

    async def listen(self, ctx):
        while True:
            while ctx.get(self.dut.tx):
                await ctx.tick()
            await ctx.tick().repeat(DIVISOR // 2)
            byte = 0
            for place in range(8):
                await ctx.tick().repeat(DIVISOR)
                byte |= ctx.get(self.dut.tx) << place
            await ctx.tick().repeat(DIVISOR)
            assert ctx.get(self.dut.tx), "a byte has no stop bit"
            self.heard.append(byte)


def talk(test):
    """Run ``test(line)`` on a mirror."""
    dut = Mirror()
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    line = Line(None, dut)

    async def bench(ctx):
        line.ctx = ctx
        await test(line)

    simulator.add_testbench(line.listen, background=True)
    simulator.add_testbench(bench)
    simulator.run()


def read(address, count=1):
    return b"R" + address.to_bytes(2, "little") + count.to_bytes(2, "little")


def write(address, *words):
    words = b"".join(word.to_bytes(4, "little") for word in words)
    return b"W" + address.to_bytes(2, "little") + (len(words) // 4).to_bytes(2, "little") + words


def send(data, last=True):
    return (b"S" if last else b"s") + len(data).to_bytes(4, "little") + data


def test_registers_are_read_and_written():
    async def test(line):
        assert await line.answer(read(0, 2)) == b"r" + 2 * b"\x78\x56\x34\x12" + b"\0"
        assert await line.answer(write(4, 1, 0xCAFEF00D)) == b"w\0"
        assert await line.answer(read(4)) == b"r\x0d\xf0\xfe\xca\0"
        assert await line.answer(read(0, 0)) == b"r\0"
        assert await line.answer(write(4)) == b"w\0"

    talk(test)


def test_refusals_come_back():
    async def test(line):
        assert await line.answer(write(0, 1)) == b"w\x02"
        assert await line.answer(read(8)) == b"r\0\0\0\0\x02"
        assert await line.answer(read(0)) == b"r\x78\x56\x34\x12\0"

    talk(test)


def test_words_go_through_with_their_last_one():
    async def test(line):
        assert await line.answer(send(b"abcdefgh")) == b"mabcdMefgh"
        assert await line.answer(send(b"abcd", last=False)) == b"mabcd"
        assert await line.answer(send(b"")) == b""
        assert await line.answer(send(b"1234") + read(0)) == b"M1234r\x78\x56\x34\x12\0"

    talk(test)


@pytest.mark.parametrize("wrong", [b"?", send(b"abc"), b"\0"])
def test_what_is_no_frame_is_told_once_and_ends_with_a_break(wrong):
    async def test(line):
        assert await line.answer(wrong) == b"x"
        assert await line.answer(read(0)) == b""
        await line.low(14)
        await line.answer()
        assert await line.answer(read(0)) == b"r\x78\x56\x34\x12\0"

    talk(test)


def test_a_break_ends_what_was_begun():
    async def test(line):
        assert await line.answer(send(b"abcdefgh")[:9]) == b"mabcd"  # one of two words
        await line.low(14)
        heard = await line.answer()
        assert heard[-5:-4] == b"M"  # the packet's end, whatever is in it
        await line.send(write(4, 7)[:7])  # half of a frame
        await line.low(14)
        await line.answer()
        assert await line.answer(read(4)) == b"r\0\0\0\0\0"

    talk(test)


def test_a_byte_without_stop_bit_is_lost():
    async def test(line):
        await line.low(10)
        assert await line.answer() == b"x"

    talk(test)


@pytest.mark.parametrize("unit", [UartReceiver, UartTransmitter, lambda divisor: UartBridge(4, 12, divisor)])
def test_too_fast_a_line_is_refused(unit):
    with pytest.raises(
        ValueError, match=r"^A bit must take at least 4 clock cycles, not 3: take a lower baud rate$"
    ):
        unit(3)
