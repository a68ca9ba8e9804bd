"""A trainer on a board with PYNQ.

Where PYNQ is installed, importing this binds a driver to the IP, so that an overlay has the verbs of a trainer::

    import streamtrain.host.pynq
    from pynq import Overlay

    trainer = Overlay("trainer.bit").trainer
    trainer.fit(x, y)
"""

from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from streamtrain.bus.table import release
from streamtrain.host.bus_device import BusError
from streamtrain.host.connect import ConnectedKernelTrainer, ConnectedTrainer, load_plan
from streamtrain.host.dma import DmaBus
from streamtrain.host.shared_memory import SharedMemoryBus, shared_bytes

__all__ = ["IP_NAME", "UNIFIED_VLNV", "VLNV", "driver", "load_bus", "load_memory_bus"]

_VERSION = "{}.{}".format(*release(version("streamtrain")))

VLNV = f"streamtrain.org:ip:streamtrain:{_VERSION}"
"""Vendor, library, name and version of the IP."""

UNIFIED_VLNV = f"streamtrain.org:ip:streamtrain_unified:{_VERSION}"
"""That of the unified core."""

IP_NAME = "trainer"
"""What it is called in a block design of ours."""

_DMA_NAME, _DMA_TYPE = "dma", "xilinx.com:ip:axi_dma:"
_BUFFER_BYTES = 1 << 22


class _Buffer:
    """Memory of :func:`pynq.allocate` as a :class:`~streamtrain.host.dma.DmaBuffer`."""

    def __init__(self, pynq, device, size=_BUFFER_BYTES):
        self._memory = pynq.allocate((size,), np.uint8, target=device)
        self.array = self._memory.view(np.ndarray)
        self.address = self._memory.device_address

    def give(self, size, start=0):
        self._memory[start : start + size].flush()

    def take(self, size, start=0):
        self._memory[start : start + size].invalidate()

    def close(self):
        self._memory.freebuffer()


def _pynq():
    try:
        return import_module("pynq")
    except ImportError:
        raise ImportError(
            "PYNQ is not installed; it comes with the boards' SD card images (pynq.io)"
        ) from None


def _bus(pynq, control, ip_dict, device):
    """The bus to a trainer whose registers are ``control``."""
    names = [name for name, ip in ip_dict.items() if ip["type"].startswith(_DMA_TYPE)]
    if _DMA_NAME in names:
        names = [_DMA_NAME]
    if len(names) != 1:
        raise BusError(
            f"The overlay should have one AXI DMA, or one that is called {_DMA_NAME!r}, "
            f"but it has {', '.join(names) or 'none'}"
        )
    found = ip_dict[names[0]]
    dma = pynq.MMIO(found["phys_addr"], found["addr_range"], device=device)
    return DmaBus(control, dma.array, _Buffer(pynq, device))


def _memory_bus(pynq, plan, control, device):
    """The bus to a unified core whose registers are ``control``."""
    return SharedMemoryBus(control, _Buffer(pynq, device, shared_bytes(plan)))


def _load(pynq, path, vlnv):
    """Load a bitstream. Returns the overlay and the registers of its only IP of this kind, of any version."""
    overlay = pynq.Overlay(str(path))
    kind = vlnv.rpartition(":")[0]
    names = [name for name, ip in overlay.ip_dict.items() if ip["type"].rpartition(":")[0] == kind]
    if len(names) != 1:
        raise BusError(f"{path} should have one trainer ({kind}), but it has {len(names)}")
    found = overlay.ip_dict[names[0]]
    control = pynq.MMIO(found["phys_addr"], found["addr_range"], device=overlay.device)
    return overlay, control.array


def load_memory_bus(path, plan):
    """Load a bitstream with a unified core, and allocate its memory.

    Parameters
    ----------
    path : path
        Of the .bit file; the .hwh file has to be beside it.
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
        Which says how much memory.

    Returns a :class:`~streamtrain.host.shared_memory.SharedMemoryBus`.

    Raises
    ------
    ImportError
        If PYNQ is not installed.
    BusError
        If the bitstream has no unified core, or its memory is where the core does not reach it.
    """
    pynq = _pynq()
    overlay, control = _load(pynq, path, UNIFIED_VLNV)
    return _memory_bus(pynq, plan, control, overlay.device)


def load_bus(path):
    """Load a bitstream.

    Parameters
    ----------
    path : path
        Of the .bit file; the .hwh file has to be beside it.

    Returns a :class:`~streamtrain.host.dma.DmaBus`.

    Raises
    ------
    ImportError
        If PYNQ is not installed.
    BusError
        If the bitstream has no trainer, or none with a DMA.
    """
    pynq = _pynq()
    overlay, control = _load(pynq, path, VLNV)
    return _bus(pynq, control, overlay.ip_dict, overlay.device)


@cache
def driver():
    """The class that PYNQ's overlays take for a trainer. Raises :exc:`ImportError` without PYNQ."""
    pynq = _pynq()

    class TrainerDriver(pynq.DefaultIP):
        """A trainer in an overlay, with the verbs of :class:`~streamtrain.Trainer`.

        The build's plan.json has to be beside the bitstream.

        Attributes
        ----------
        trainer : :class:`~streamtrain.host.connect.ConnectedTrainer` or :class:`~streamtrain.host.connect.ConnectedKernelTrainer`
        """

        bindto = (VLNV, UNIFIED_VLNV)

        def __init__(self, description):
            super().__init__(description)
            plan, control = load_plan(Path(self.device.bitfile_name).parent), self.mmio.array
            if description["type"] == UNIFIED_VLNV:
                bus = _memory_bus(pynq, plan, control, self.device)
                self.trainer = ConnectedKernelTrainer(plan, bus)
            else:
                bus = _bus(pynq, control, self.device.ip_dict, self.device)
                self.trainer = ConnectedTrainer(plan, bus)

        def __getattr__(self, name):
            if name == "trainer":  # it could not be made
                raise AttributeError(name)
            return getattr(self.trainer, name)

        def __dir__(self):
            return sorted({*super().__dir__(), *dir(self.trainer)})

    return TrainerDriver


if find_spec("pynq"):
    driver()
