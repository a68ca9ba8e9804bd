"""An AXI DMA in simple mode, as PG021 describes it, in front of the compiled model of a trainer."""

import numpy as np

RUN, RESET = 1, 4
HALTED, IDLE, INTERNAL, DECODE = 1, 2, 1 << 4, 1 << 6
NOTHING = np.zeros(0, np.uint8)


class RegisterWindow:
    """The trainer's registers as an array of words."""

    def __init__(self, bus):
        self.bus = bus

    def __getitem__(self, index):
        return np.uint32(self.bus.read(4 * index))

    def __setitem__(self, index, value):
        assert 0 <= value < 1 << 32
        self.bus.write(4 * index, value)


class Memory:
    """A buffer behind a cache: what one side writes, the other sees after `give` or `take` only."""

    def __init__(self, size, address=0x1_1000_0000):
        self.array = np.full(size, 0xAA, np.uint8)
        self.behind = np.full(size, 0x55, np.uint8)
        self.address = address
        self.closed = False

    def give(self, size, start=0):
        assert 0 <= start <= start + size <= len(self.array)
        self.behind[start : start + size] = self.array[start : start + size]

    def take(self, size, start=0):
        assert 0 <= start <= start + size <= len(self.array)
        self.array[start : start + size] = self.behind[start : start + size]

    def close(self):
        self.closed = True


class Channel:
    def __init__(self):
        self.control, self.status, self.address, self.length = 0, HALTED, 0, 0
        self.left = None  # bytes of a transfer that is under way

    def reset(self):
        self.__init__()


class DmaModel:
    """Its registers as an array of words, and ways to let it fail."""

    def __init__(self, bus, buffer):
        self.bus, self.buffer = bus, buffer
        self.mm2s, self.s2mm = Channel(), Channel()
        self.fifo = []  # words that came without being asked for, (bytes, last)
        self.faults = {}  # status bits that the next transfer of a channel ends with
        self.silent = False  # results get lost on their way
        self.limit = None  # bytes that are sent before everything stops, up to a reset
        self.stuck = False  # no clock
        self.wait = 500  # cycles that pass while the host looks at the status

    def _channel(self, index):
        return (self.mm2s, 4 * index) if 4 * index < 0x30 else (self.s2mm, 4 * index - 0x30)

    def __getitem__(self, index):
        channel, register = self._channel(index)
        if register == 0x04:
            self._advance()
        return np.uint32(
            {
                0x00: channel.control,
                0x04: channel.status,
                0x18: channel.address & 0xFFFFFFFF,
                0x1C: channel.address >> 32,
                0x28: channel.length,
            }[register]
        )

    def __setitem__(self, index, value):
        assert 0 <= value < 1 << 32
        channel, register = self._channel(index)
        if register == 0x00 and value & RESET:
            for one in (self.mm2s, self.s2mm):
                one.reset()
            self.fifo.clear()
            self.limit = None
            self.mm2s.control = RESET if self.stuck else 0
        elif register == 0x00:
            channel.control = value
            if value & RUN:
                channel.status &= ~HALTED
        elif register == 0x18:
            channel.address = channel.address >> 32 << 32 | value
        elif register == 0x1C:
            channel.address = channel.address & 0xFFFFFFFF | value << 32
        elif register == 0x28 and not channel.status & HALTED and value:
            assert value < 1 << 26
            channel.length = channel.left = value
            channel.status &= ~IDLE
            offset = channel.address - self.buffer.address
            if not 0 <= offset <= offset + value <= len(self.buffer.behind):
                self._end(channel, DECODE)
            if channel in self.faults:
                self._end(channel, self.faults.pop(channel))
            self._advance()

    def _end(self, channel, error):
        channel.status |= error | HALTED
        channel.left = None

    def _advance(self):
        sent, receives = self.mm2s, self.s2mm
        size = self.bus.format.size
        data = NOTHING
        if sent.left:
            start = sent.address - self.buffer.address + sent.length - sent.left
            data = self.buffer.behind[start : start + sent.left]
            if self.limit is not None:
                data = data[: self.limit // size * size]
        words = len(data) // size
        room = 0 if receives.left is None else receives.left // size
        last = np.zeros(words, np.uint8)
        if words and len(data) == sent.left:
            last[-1] = 1
        keep = np.full(words, (1 << size) - 1, np.uint64)
        (came, ends, _), accepted = self.bus.transfer(
            data, keep, last, max(0, room - len(self.fifo)), patience=20_000 if words else self.wait
        )
        if sent.left:
            sent.left -= accepted * size
            if self.limit is not None:
                self.limit -= accepted * size
            if not sent.left:
                sent.left = None
                sent.status |= IDLE
        if not self.silent:
            self.fifo += zip(came, ends.tolist(), strict=True)
        while self.fifo and receives.left:
            word, end = self.fifo.pop(0)
            start = receives.address - self.buffer.address + receives.length - receives.left
            self.buffer.behind[start : start + size] = word
            receives.left -= size
            if end:
                receives.length -= receives.left
                receives.left = None
                receives.status |= IDLE
            elif not receives.left:
                self._end(receives, INTERNAL)
