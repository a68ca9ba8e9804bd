"""A trainer behind memory: its registers in one window, an AXI DMA's in another, and a buffer for both."""

from time import monotonic, sleep
from typing import Protocol

import numpy as np

from streamtrain.host.bus_device import SAMPLES, BusError

__all__ = ["LENGTH_BITS", "DmaBuffer", "DmaBus"]

LENGTH_BITS = 26
"""Bits of the DMA's length registers."""

# Registers of a channel of AXI DMA in simple mode (AMD PG021), from the channel's base.
_CONTROL, _STATUS, _ADDRESS, _ADDRESS_HIGH, _LENGTH = 0x00, 0x04, 0x18, 0x1C, 0x28
_MM2S, _S2MM = 0x00, 0x30
_RUN, _RESET = 1 << 0, 1 << 2  # of CONTROL
_HALTED, _IDLE, _SCATTER_GATHER = 1 << 0, 1 << 1, 1 << 3  # of STATUS
_ERRORS = {
    1 << 4: "internal error: more came than it was to take",
    1 << 5: "the memory answered with an error",
    1 << 6: "there is no memory at the buffer's address; connect the DMA to the processor's memory",
}

_ALIGNMENT = 64  # of what is sent and what is received: a line of the cache, and the widest stream
_PATIENCE_SECONDS = 10.0  # in which no sample is worked off
_RESET_SECONDS = 1.0
_DRAIN_SECONDS = 0.001  # in which all that the trainer has ready comes out


class DmaBuffer(Protocol):
    """Memory that processor and DMA share.

    Attributes
    ----------
    array : uint8 array
        As the processor sees it.
    address : :class:`int`
        As the DMA sees it, a multiple of 64.
    """

    array: np.ndarray
    address: int

    def give(self, size: int, start: int = 0) -> None:
        """Make the DMA see ``size`` bytes from ``start`` on as they are now."""
        ...

    def take(self, size: int, start: int = 0) -> None:
        """Make the processor see them as the DMA has left them."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class _Channel:
    """One direction of the DMA."""

    def __init__(self, name, registers, base):
        self.name = name
        self._registers = registers
        self._base = base

    def __getitem__(self, register):
        return int(self._registers[(self._base + register) >> 2])

    def __setitem__(self, register, value):
        self._registers[(self._base + register) >> 2] = value

    def start(self, address, size):
        self[_CONTROL] = _RUN
        self[_ADDRESS] = address & 0xFFFFFFFF
        if address >> 32:
            self[_ADDRESS_HIGH] = address >> 32
        self[_LENGTH] = size  # this is what starts it

    def finished(self):
        """Whether the transfer has ended. Raises :exc:`BusError` if it has failed."""
        status = self[_STATUS]
        for bit, what in _ERRORS.items():
            if status & bit:
                raise BusError(f"The DMA's {self.name} has failed: {what} (DMASR 0x{status:08x})")
        if status & _HALTED:
            raise BusError(f"The DMA's {self.name} has halted (DMASR 0x{status:08x})")
        return bool(status & _IDLE)


class DmaBus:
    """Registers and packets of a trainer through memory; see :class:`~streamtrain.host.bus_device.Bus`.

    Parameters
    ----------
    control : uint32 array
        The trainer's registers.
    dma : uint32 array
        Those of an AXI DMA in simple mode, whose lengths have 26 bits: MM2S sends samples, S2MM receives
        results.
    buffer : :class:`DmaBuffer`
    close : callable
        Called by :meth:`close`, after the buffer was given back.

    Raises
    ------
    BusError
        If the DMA is another one, or does not work.
    """

    def __init__(self, control, dma, buffer, *, close=lambda: None):
        self._control, self._dma, self._buffer, self._close = control, dma, buffer, close
        if buffer.address % _ALIGNMENT:
            raise BusError(
                f"The buffer's address must be a multiple of {_ALIGNMENT}, not 0x{buffer.address:x}"
            )
        self.capacity = min(len(buffer.array), 1 << LENGTH_BITS) - _ALIGNMENT
        self._send = _Channel("MM2S", dma, _MM2S)
        self._receive = _Channel("S2MM", dma, _S2MM)
        if (self._send[_STATUS] | self._receive[_STATUS]) & _SCATTER_GATHER:
            raise BusError("The DMA is built for scatter/gather; build it without, for simple mode")

    def read(self, address):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        return int(self._control[address >> 2])

    def write(self, address, value):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        self._control[address >> 2] = value

    def read_all(self, address, count):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        return np.array([self._control[address >> 2] for _ in range(count)], np.uint32)

    def write_all(self, address, values):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        for value in values.tolist():
            self._control[address >> 2] = value

    def exchange(self, packet, size):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        answer = -(-len(packet) // _ALIGNMENT) * _ALIGNMENT  # where it begins
        buffer = self._buffer
        buffer.array[: len(packet)] = packet
        # Besides caches, this puts the writes to memory in front of those to the DMA.
        buffer.give(answer + size)
        channels = [self._send]
        if size:
            self._receive.start(buffer.address + answer, size)
            channels.append(self._receive)
        self._send.start(buffer.address, len(packet))
        self._wait(channels)
        if not size:
            return np.zeros(0, np.uint8)
        if (received := self._receive[_LENGTH]) != size:
            raise BusError(f"{received} bytes of results came, not {size}")
        buffer.take(answer + size)
        return np.array(buffer.array[answer : answer + size])

    def _wait(self, channels):
        """Wait until both channels have done their work, for as long as samples are worked off."""
        pause, seen, late = 0.0, None, 0.0
        while unfinished := [channel.name for channel in channels if not channel.finished()]:
            now = monotonic()
            if (samples := self.read(SAMPLES)) != seen:
                seen, late = samples, now + _PATIENCE_SECONDS
            if now > late:
                raise BusError(
                    f"No sample was worked off for {_PATIENCE_SECONDS:g} s, and the DMA's "
                    f"{' and '.join(unfinished)} did not finish"
                )
            sleep(pause)
            pause = min(0.001, pause + 0.00001)

    def flush(self):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        self._reset()
        self._receive.start(self._buffer.address, self.capacity)
        sleep(_DRAIN_SECONDS)
        self._reset()

    def _reset(self):
        """Reset both channels; either's bit does that."""
        self._send[_CONTROL] = _RESET
        late = monotonic() + _RESET_SECONDS
        while self._send[_CONTROL] & _RESET:
            if monotonic() > late:
                raise BusError(
                    "The DMA does not come out of its reset: check its address, and that the bitstream "
                    "is loaded and clocked"
                )

    def pause(self, seconds):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        sleep(seconds)

    def close(self):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        self._reset()  # before the memory is another one's
        self._buffer.close()
        self._close()
