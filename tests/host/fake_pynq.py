"""What PYNQ documents of itself, as far as a trainer needs it, in front of models."""

from pathlib import Path
from types import ModuleType

import numpy as np


class Buffer(np.ndarray):
    """What `allocate` gives; slices of it can be flushed, too."""

    def __array_finalize__(self, other):
        self.memory = getattr(other, "memory", None)

    device_address = property(lambda self: self.memory.address)

    @property
    def offset(self):
        """Where a slice begins."""
        mine, whole = (a.__array_interface__["data"][0] for a in (self, self.memory.array))
        return mine - whole

    def flush(self):
        self.memory.give(self.nbytes, self.offset)

    def invalidate(self):
        self.memory.take(self.nbytes, self.offset)

    def freebuffer(self):
        self.memory.close()


def fake_pynq(board, ip_dict):
    """The module ``pynq`` for one board, whose registers and DMA are at the addresses of ``ip_dict``."""
    pynq = ModuleType("pynq")
    drivers = {}

    class Device:
        bitfile_name = None

    device = Device()
    device.ip_dict = ip_dict

    class RegisterIP(type):
        def __init__(cls, name, bases, attributes):
            for vlnv in attributes.get("bindto", ()):
                drivers[vlnv] = cls
            super().__init__(name, bases, attributes)

    class MMIO:
        def __init__(self, base_addr, length=4, device=None):
            (name,) = (name for name, ip in ip_dict.items() if ip["phys_addr"] == base_addr)
            assert length == ip_dict[name]["addr_range"]
            self.array = board.windows[name]

    class DefaultIP(metaclass=RegisterIP):
        def __init__(self, description):
            self.device = description["device"]
            self.mmio = MMIO(description["phys_addr"], description["addr_range"])

    class Overlay:
        def __init__(self, bitfile_name):
            self.device, self.ip_dict = device, ip_dict
            device.bitfile_name = str(Path(bitfile_name).absolute())

        def __getattr__(self, name):
            description = {**self.ip_dict[name], "device": device}
            return drivers.get(description["type"], DefaultIP)(description)

    def allocate(shape, dtype, target=None):
        assert target is device
        memory = board.memory
        if memory.array.shape != shape:
            memory.array = np.resize(memory.array, shape).astype(dtype)
            memory.behind = memory.array.copy()
        found = memory.array.view(Buffer)
        found.memory = memory
        return found

    pynq.MMIO, pynq.DefaultIP, pynq.Overlay, pynq.allocate = MMIO, DefaultIP, Overlay, allocate
    return pynq
