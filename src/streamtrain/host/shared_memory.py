"""A unified core beside a processor: its registers in a window, and memory that both of them share."""

from time import monotonic, sleep

import numpy as np

from streamtrain.bus.bursts import PAGE_BYTES
from streamtrain.host.bus_device import BusError
from streamtrain.unified.ip import unified_registers

__all__ = ["SharedMemoryBus", "shared_bytes"]

_ADDRESSES = 1 << 32
_PROGRAMS = (
    3  # sizes of mini-batches that there is room for: whole ones, and what is left of two data sets
)
_PATIENCE_SECONDS = 100.0  # CYCLES counts 43 s at 100 MHz: nothing runs longer than it can tell


def shared_bytes(plan):
    """Bytes of memory for a core and its host: maps, weights and programs of a plan.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    """
    parts = plan.memory_bytes
    needed = parts["maps"] + parts["weights"] + _PROGRAMS * parts["programs"]
    return (
        -(-needed // PAGE_BYTES) + 1
    ) * PAGE_BYTES  # a page more: the buffer may begin within one


class SharedMemoryBus:
    """A :class:`~streamtrain.host.kernel_device.MemoryBus` of registers and of memory that are mapped.

    Parameters
    ----------
    control : uint32 array
        The core's registers.
    buffer : :class:`~streamtrain.host.dma.DmaBuffer`
        Its address may be any; whole pages of it are used.

    Raises
    ------
    BusError
        If the core, whose addresses have 32 bits, cannot reach the buffer.
    """

    def __init__(self, control, buffer):
        self._control, self._buffer = control, buffer
        self.base = -(-buffer.address // PAGE_BYTES) * PAGE_BYTES
        self.size = buffer.address + len(buffer.array) - self.base
        if self.base + self.size > _ADDRESSES:
            raise BusError(
                f"The buffer is at {buffer.address:#x}, and the core's addresses end at {_ADDRESSES - 1:#x}: "
                f"reserve memory below 4 GB (on Linux, a reserved-memory node of the device tree)"
            )
        table = unified_registers()
        self._status, self._busy = table["STATUS"].address, table["STATUS"]["busy"].mask

    def read(self, address):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`."""
        return int(self._control[address >> 2])

    def write(self, address, value):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`."""
        self._control[address >> 2] = value

    def load(self, address, size):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`."""
        start = address - self._buffer.address
        self._buffer.take(size, start)
        return np.array(self._buffer.array[start : start + size])

    def store(self, address, content):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`."""
        start = address - self._buffer.address
        self._buffer.array[start : start + len(content)] = content
        # Besides caches, this puts the writes to memory in front of those to registers.
        self._buffer.give(len(content), start)

    def wait(self):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`. It polls, as nobody else waits for the interrupt."""
        pause, late = 0.0, monotonic() + _PATIENCE_SECONDS
        while self.read(self._status) & self._busy:
            if monotonic() > late:
                raise BusError(
                    f"A program has not ended for {_PATIENCE_SECONDS:g} s; check that the core is clocked, and that its "
                    f"memory port is connected"
                )
            sleep(pause)
            pause = min(0.001, pause + 0.00001)

    def close(self):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`. It waits for a program that still runs."""
        self.wait()  # before the memory is another one's
        self._buffer.close()
