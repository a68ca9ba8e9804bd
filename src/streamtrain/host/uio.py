"""A trainer on a board with Linux: registers through UIO, memory through u-dma-buf."""

import mmap
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from streamtrain.host.bus_device import BusError
from streamtrain.host.dma import DmaBus
from streamtrain.host.shared_memory import SharedMemoryBus

__all__ = ["BUFFER_BYTES", "NAME", "UioBuffer", "open_uio", "open_uio_memory", "uio_overlay"]

NAME = "streamtrain"
"""What the device tree calls the trainer; the DMA is NAME-dma, and the buffer NAME-buffer."""

BUFFER_BYTES = 1 << 22
"""Memory for samples and results, if nobody says."""

_SYNC_BOTH_WAYS = 0
_SHARED, _FIRST_SHARED, _LEVEL_HIGH = (
    0,
    32,
    4,
)  # as the GIC's device tree binding numbers interrupts


class UioBuffer:
    """Memory of u-dma-buf as a :class:`~streamtrain.host.dma.DmaBuffer`.

    Parameters
    ----------
    name : :class:`str`
        Of the device.
    root : path
        Where ``sys`` and ``dev`` are.

    Raises
    ------
    BusError
        If there is no such device, or it may not be used.
    """

    def __init__(self, name, root="/"):
        folder = Path(root, "sys/class/u-dma-buf", name)
        if not folder.is_dir():
            raise BusError(
                f"There is no {folder}: load the module u-dma-buf, and the device tree overlay"
            )
        with _explained(folder):
            self.address = int((folder / "phys_addr").read_text(), 0)
            size = int((folder / "size").read_text(), 0)
            (folder / "sync_offset").write_text("0")
            (folder / "sync_direction").write_text(str(_SYNC_BOTH_WAYS))
            self._files = {
                what: os.open(folder / what, os.O_WRONLY)
                for what in ("sync_offset", "sync_size", "sync_for_device", "sync_for_cpu")
            }
            self._start = 0
        # Cached; the calls below keep processor and DMA in step.
        self.array = _mapped(Path(root, "dev", name), size, os.O_RDWR).view(np.uint8)

    def give(self, size, start=0):
        """See :class:`~streamtrain.host.dma.DmaBuffer`."""
        self._range(size, start)
        self._write("sync_for_device", 1)

    def take(self, size, start=0):
        """See :class:`~streamtrain.host.dma.DmaBuffer`."""
        self._range(size, start)
        self._write("sync_for_cpu", 1)

    def _range(self, size, start):
        if start != self._start:
            self._write("sync_offset", start)
            self._start = start
        self._write("sync_size", size)

    def _write(self, what, number):
        os.pwrite(self._files[what], f"{number}\n".encode(), 0)

    def close(self):
        """See :class:`~streamtrain.host.dma.DmaBuffer`."""
        for file in self._files.values():
            os.close(file)


def open_uio(name=NAME, root="/"):
    """The bus to a trainer, by the names of the device tree.

    Parameters
    ----------
    name : :class:`str`
        Of the trainer's node.
    root : path
        Where ``sys`` and ``dev`` are.

    Returns a :class:`~streamtrain.host.dma.DmaBus`.

    Raises
    ------
    BusError
        If a device is not there, or may not be used.
    """
    control, dma = _registers(name, root), _registers(f"{name}-dma", root)
    return DmaBus(control, dma, UioBuffer(f"{name}-buffer", root))


def open_uio_memory(name=NAME, root="/"):
    """The bus to a unified core, by the names of the device tree.

    Parameters
    ----------
    name : :class:`str`
        Of the core's node.
    root : path
        Where ``sys`` and ``dev`` are.

    Returns a :class:`~streamtrain.host.shared_memory.SharedMemoryBus`.

    Raises
    ------
    BusError
        If a device is not there, or may not be used.
    """
    return SharedMemoryBus(_registers(name, root), UioBuffer(f"{name}-buffer", root))


def _registers(name, root):
    """The registers of a UIO device as an array of words."""
    names = {}
    for device in sorted(Path(root, "sys/class/uio").glob("uio*")):
        names[(device / "name").read_text().strip()] = device
    if name not in names:
        there = ", ".join(names)
        raise BusError(
            f"There is no UIO device {name!r}{f', but {there}' if there else ', nor any other'}; "
            f"load the device tree overlay, and uio_pdrv_genirq with of_id=generic-uio"
        )
    size = int((names[name] / "maps/map0/size").read_text(), 0)
    # O_SYNC, lest accesses stay in a cache.
    return _mapped(Path(root, "dev", names[name].name), size, os.O_RDWR | os.O_SYNC)


def _mapped(path, size, flags):
    """A device's memory as an array of words; it stays mapped for as long as the array lives."""
    with _explained(path):
        file = os.open(path, flags)
        try:
            return np.frombuffer(mmap.mmap(file, size), np.uint32)
        finally:
            os.close(file)


@contextmanager
def _explained(path):
    try:
        yield
    except OSError as error:
        raise BusError(
            f"Cannot use {path}: {error.strerror}; try as root, or with a udev rule"
        ) from None


def uio_overlay(
    control_address,
    dma_address=None,
    *,
    firmware="streamtrain.bit.bin",
    name=NAME,
    control_bytes=0x1000,
    dma_bytes=0x1_0000,
    buffer_bytes=BUFFER_BYTES,
    region="/fpga-full",
    address_cells=1,
    interrupt=None,
    controller="intc",
):
    """A device tree overlay that loads a bitstream and makes it usable from Linux.

    To install it, with the bitstream as ``bootgen`` or ``fpgautil`` want it, and u-dma-buf's module there::

        dtc -@ -I dts -O dtb -o streamtrain.dtbo streamtrain.dts
        cp streamtrain.bit.bin streamtrain.dtbo /lib/firmware/
        modprobe uio_pdrv_genirq of_id=generic-uio
        modprobe u-dma-buf
        fpgautil -b /lib/firmware/streamtrain.bit.bin -o /lib/firmware/streamtrain.dtbo

    Parameters
    ----------
    control_address : :class:`int`
        Of the trainer's registers, as in the block design.
    dma_address : :class:`int`, optional
        Of the DMA's registers; the unified core has no DMA.
    firmware : :class:`str`
        Name of the bitstream in ``/lib/firmware``.
    name : :class:`str`
        What :func:`open_uio` finds the trainer by.
    control_bytes, dma_bytes : :class:`int`
        Sizes of the two windows.
    buffer_bytes : :class:`int`
        Memory for samples and results; of the unified core, what
        :func:`~streamtrain.host.shared_memory.shared_bytes` says.
    region : :class:`str`
        Path of the FPGA's node; its ``ranges`` are in the device trees that come with Linux.
    address_cells : :class:`int`
        1 for Zynq-7000, 2 for Zynq UltraScale+.
    interrupt : :class:`int`, optional
        Number of the trainer's interrupt at the GIC, for programs that wait for it; :func:`open_uio` does
        not.
    controller : :class:`str`
        Label of the GIC in the system's device tree: ``"intc"`` for Zynq-7000, ``"gic"`` for Zynq UltraScale+.

    Returns :class:`str`: device tree source.
    """

    def cells(number):
        return (
            f"0x{number >> 32:x} 0x{number & 0xFFFFFFFF:x}"
            if address_cells == 2
            else f"0x{number:x}"
        )

    def node(label, address, size, more=""):
        return f"""
            {label}@{address:x} {{
                compatible = "generic-uio";
                reg = <{cells(address)} {cells(size)}>;{more}
            }};
"""

    dma = "" if dma_address is None else node(f"{name}-dma", dma_address, dma_bytes)
    raised = (
        ""
        if interrupt is None
        else f"""
                interrupt-parent = <&{controller}>;
                interrupts = <{_SHARED} {interrupt - _FIRST_SHARED} {_LEVEL_HIGH}>;"""
    )

    return f"""/dts-v1/;
/plugin/;

/ {{
    fragment@0 {{
        target-path = "{region}";
        __overlay__ {{
            #address-cells = <{address_cells}>;
            #size-cells = <{address_cells}>;
            firmware-name = "{firmware}";
{node(name, control_address, control_bytes, raised)}{dma}
            {name}-buffer {{
                compatible = "ikwzm,u-dma-buf";
                device-name = "{name}-buffer";
                size = <0x{buffer_bytes:x}>;
            }};
        }};
    }};
}};
"""
