"""A compiled model with registers behind AXI4-Lite, and an interrupt."""

import ctypes
from ctypes import POINTER, c_int, c_uint32, c_uint64

import numpy as np

from streamtrain.bus.axi import OKAY
from streamtrain.host.bus_device import BusError
from streamtrain.simulate.model import RunningModel

__all__ = ["ACCESS", "RegisterModel"]

ACCESS = (c_int, c_uint32, POINTER(c_uint32), c_uint32, c_uint64)
"""Arguments of a harness's ``st_access``, behind those that are its simulation."""

_ACCESS_CYCLES = 1_000  # that a register access may take: more is a hang


class RegisterModel(RunningModel):
    """A :class:`~streamtrain.simulate.model.RunningModel` whose registers can be read and written."""

    _name = "trainer"

    @property
    def _simulation(self):
        """What the harness's functions get first."""
        return (self._model,)

    @property
    def irq(self):
        """Level of the interrupt."""
        return self._library.st_irq(self._model)

    def access(self, address, value=None, strobe=0xF):
        """Read a register, or write ``value``: ``(response, word)``.

        Raises :exc:`BusError` if there is no response.
        """
        word = c_uint32(0 if value is None else int(value) & 0xFFFFFFFF)
        response = self._library.st_access(
            *self._simulation,
            value is not None,
            address,
            ctypes.byref(word),
            strobe,
            _ACCESS_CYCLES,
        )
        if response < 0:
            raise BusError(f"No response from address 0x{address:03x} in {_ACCESS_CYCLES} cycles")
        return response, word.value

    def read(self, address):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        response, word = self.access(address)
        if response != OKAY:
            raise BusError(f"The {self._name} refuses that address 0x{address:03x} is read now")
        return word

    def write(self, address, value):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        response, _ = self.access(address, value)
        if response != OKAY:
            raise BusError(f"The {self._name} refuses 0x{value:08x} at address 0x{address:03x}")

    def read_all(self, address, count):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        return np.array([self.read(address) for _ in range(count)], np.uint32)

    def write_all(self, address, values):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        for value in values.tolist():
            self.write(address, value)
