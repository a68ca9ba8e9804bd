import shutil
import subprocess

import numpy as np
import pytest
from axi_dma import DmaModel, Memory, RegisterWindow
from hardware import DESIGN, assert_trains_alike

from streamtrain.host import uio
from streamtrain.host.bus_device import BusError
from streamtrain.host.connect import connect
from streamtrain.host.uio import UioBuffer, open_uio, uio_overlay
from streamtrain.simulate.bus import SimulatedBus


@pytest.fixture
def root(tmp_path):
    """The files of a board on which everything is installed."""
    names = {"uio0": "other", "uio1": "streamtrain-dma", "uio2": "streamtrain"}
    for device, name in names.items():
        folder = tmp_path / "sys/class/uio" / device
        (folder / "maps/map0").mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "maps/map0/size").write_text("0x1000\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / device).write_bytes(bytes(0x1000))
    folder = tmp_path / "sys/class/u-dma-buf/streamtrain-buffer"
    folder.mkdir(parents=True)
    (folder / "phys_addr").write_text("0x1f100000\n")
    (folder / "size").write_text("65536\n")
    for name in ("sync_offset", "sync_size", "sync_direction", "sync_for_cpu", "sync_for_device"):
        (folder / name).write_text("")
    (tmp_path / "dev/streamtrain-buffer").write_bytes(bytes(65536))
    return tmp_path


def test_windows_are_those_of_the_devices(root):
    """Registers are found by name, and written where they are mapped."""
    words = np.arange(1024, dtype="<u4")
    (root / "dev/uio2").write_bytes(words.tobytes())
    bus = open_uio(root=root)
    assert bus.read(0x100) == 0x40
    bus.write(0x104, 0xDEADBEEF)
    assert (root / "dev/uio2").read_bytes()[0x104:0x108] == bytes.fromhex("efbeadde")
    with pytest.raises(BusError, match="does not come out of its reset"):  # no DMA takes it back
        bus.flush()
    assert (root / "dev/uio1").read_bytes()[:4] == b"\x04\0\0\0"
    assert (root / "dev/uio0").read_bytes() == bytes(0x1000)
    assert bus.capacity == 65536 - 64


def test_the_buffer_is_synchronised(root):
    folder = root / "sys/class/u-dma-buf/streamtrain-buffer"
    buffer = UioBuffer("streamtrain-buffer", root)
    assert buffer.address == 0x1F100000
    buffer.array[3] = 7
    assert (root / "dev/streamtrain-buffer").read_bytes()[:5] == b"\0\0\0\x07\0"
    first = {name: (folder / name).read_text() for name in ("sync_offset", "sync_direction")}
    assert first == {"sync_offset": "0", "sync_direction": "0"}
    buffer.give(640)
    assert (folder / "sync_size").read_text().splitlines()[0] == "640"
    assert (folder / "sync_for_device").read_text() == "1\n"
    assert (folder / "sync_for_cpu").read_text() == ""
    buffer.take(320)
    assert (folder / "sync_size").read_text().splitlines()[0] == "320"
    assert (folder / "sync_for_cpu").read_text() == "1\n"
    assert (folder / "sync_offset").read_text() == "0"
    buffer.give(640, 4096)
    assert (folder / "sync_offset").read_text() == "4096\n"
    assert (folder / "sync_size").read_text().splitlines()[0] == "640"
    buffer.close()


def test_trains_as_the_golden_model_does(root, monkeypatch):
    """With models where the files of the board are only files."""
    trainer, memory = SimulatedBus(DESIGN.plan), Memory(65536, 0x1F100000)

    class Buffer(UioBuffer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            memory.array = self.array

        def give(self, size, start=0):
            super().give(size, start)
            memory.give(size, start)

        def take(self, size, start=0):
            super().take(size, start)
            memory.take(size, start)

    windows = {"board": RegisterWindow(trainer), "board-dma": DmaModel(trainer, memory)}
    monkeypatch.setattr(uio, "_registers", lambda name, root: windows[name])
    monkeypatch.setattr(uio, "UioBuffer", lambda name, at: Buffer("streamtrain-buffer", root))
    with connect(DESIGN, "uio:board") as board:
        assert_trains_alike(board, DESIGN.golden())


def test_a_device_that_is_not_there_is_told(root):
    with pytest.raises(
        BusError,
        match=r"^There is no UIO device 'mine', but other, streamtrain-dma, streamtrain; load the device tree",
    ):
        open_uio("mine", root)
    shutil.rmtree(root / "sys/class/u-dma-buf")
    with pytest.raises(
        BusError, match=r"^There is no \S+/streamtrain-buffer: load the module u-dma-buf"
    ):
        open_uio(root=root)


def test_a_board_without_uio_is_told(tmp_path):
    with pytest.raises(
        BusError, match=r"^There is no UIO device 'streamtrain', nor any other; load"
    ):
        open_uio(root=tmp_path)


def test_a_device_that_may_not_be_used_is_told(root):
    (root / "dev/uio2").unlink()
    with pytest.raises(
        BusError, match=r"^Cannot use \S+/dev/uio2: No such file or directory; try as root"
    ):
        open_uio(root=root)


def test_the_overlay_names_what_is_looked_for():
    text = uio_overlay(0x40000000, 0x41E00000, firmware="digits.bit.bin")
    assert 'firmware-name = "digits.bit.bin";' in text
    for node, reg in {
        "streamtrain@40000000": "<0x40000000 0x1000>",
        "streamtrain-dma@41e00000": "<0x41e00000 0x10000>",
    }.items():
        assert (
            f'{node} {{\n                compatible = "generic-uio";\n                reg = {reg};'
            in text
        )
    assert 'device-name = "streamtrain-buffer";\n                size = <0x400000>;' in text
    assert text.count("{") == text.count("}")


def test_the_overlay_of_a_core_without_a_dma_has_its_memory():
    text = uio_overlay(0x43C00000, buffer_bytes=0x12345000)
    assert "streamtrain@43c00000 {" in text and "-dma@" not in text
    assert "size = <0x12345000>;" in text
    assert text.count("{") == text.count("}")


def test_the_overlay_of_a_64_bit_processor_has_long_addresses():
    text = uio_overlay(0x4_0000_0000, 0xA0010000, address_cells=2, name="mine")
    assert "reg = <0x4 0x0 0x0 0x1000>;" in text
    assert "reg = <0x0 0xa0010000 0x0 0x10000>;" in text
    assert "#address-cells = <2>;" in text


@pytest.mark.skipif(not shutil.which("dtc"), reason="no device tree compiler")
@pytest.mark.parametrize("cells", [1, 2])
def test_the_overlay_compiles(tmp_path, cells):
    source = tmp_path / "trainer.dts"
    source.write_text(uio_overlay(0x40000000, 0x41E00000, address_cells=cells))
    command = ["dtc", "-@", "-I", "dts", "-O", "dtb", "-o", tmp_path / "trainer.dtbo", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
