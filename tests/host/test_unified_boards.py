"""The unified core over PYNQ and UIO: the gates in front of models of what boards have."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axi_dma import RegisterWindow
from fake_pynq import fake_pynq
from test_small_board import MISSING

import streamtrain as st
from streamtrain.host import pynq as st_pynq
from streamtrain.host import shared_memory, uio
from streamtrain.host.bus_device import BusError
from streamtrain.host.connect import connect
from streamtrain.host.shared_memory import SharedMemoryBus, shared_bytes
from streamtrain.host.uio import UioBuffer, open_uio_memory
from streamtrain.simulate import SimulatedKernel
from streamtrain.simulate.kernel import simulated_memory
from streamtrain.unified.ip import unified_registers

pytestmark = pytest.mark.xdist_group("memory simulations")

PAGE = 4096
ADDRESS = 0x1F10_0800  # in the midst of a page
NET = st.Network(
    (2, 6, 6), [st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(4)]
)
DESIGN = st.plan(NET, core="unified", numbers="fixed<16,6>", lanes=4, max_batch=3)
PLAN = DESIGN.plan


class Memory:
    """Memory that the simulated core reads and writes, behind a cache of the processor."""

    def __init__(self, size, address=ADDRESS):
        self.address, self.closed = address, False
        self.array = np.full(size, 0xAA, np.uint8)
        first = -(-address // PAGE) * PAGE
        self.skipped = first - address
        self.simulated = simulated_memory(
            replace(PLAN, base=first), size=(size - self.skipped) // PAGE * PAGE
        )

    def _parts(self, size, start):
        """The same bytes of the cache, and behind it."""
        first, end = max(0, start - self.skipped), start - self.skipped + size
        assert start >= 0 and end <= len(self.simulated.contents)
        return self.array[start : start + size], self.simulated.contents[first:end]

    def give(self, size, start=0):
        cached, behind = self._parts(size, start)
        behind[:] = cached

    def take(self, size, start=0):
        cached, behind = self._parts(size, start)
        cached[:] = behind

    def close(self):
        self.closed = True


class Registers(RegisterWindow):
    """Time passes while the processor looks."""

    def __getitem__(self, index):
        self.bus.wait(200)
        return super().__getitem__(index)


def samples(count):
    rng = np.random.default_rng(5)
    return rng.random((count, 2, 6, 6)), rng.integers(0, 4, count)


def assert_trains_alike(trainer):
    golden, (x, y) = DESIGN.golden(), samples(7)  # the last mini-batch is a smaller one
    found, expected = (
        one.fit(x, y, epochs=2, batch_size=3, progress=False) for one in (trainer, golden)
    )
    np.testing.assert_array_equal(found.losses, expected.losses)
    assert trainer.evaluate(x, y, progress=False) == golden.evaluate(x, y, progress=False)
    for name, codes in golden.state_dict().items():
        np.testing.assert_array_equal(trainer.state_dict()[name], codes, err_msg=name)


# -- PYNQ -----------------------------------------------------------------------------------------


class Board:
    """Its memory is as large as is asked for."""

    def __init__(self):
        self.memory, self.windows = None, {}

    def allocate(self, shape):
        self.memory = Memory(*shape)
        self.windows["trainer"].bus = self.memory.simulated


def blocks(**others):
    trainer = {"phys_addr": 0x43C00000, "addr_range": 4096, "type": st_pynq.UNIFIED_VLNV}
    return {"trainer": trainer, **others}


@pytest.fixture
def install(monkeypatch):
    """Install PYNQ, for an overlay with these blocks."""

    def put(ip_dict):
        board = Board()
        board.windows["trainer"] = Registers(None)
        pynq = fake_pynq(board, ip_dict)
        given = pynq.allocate

        def allocate(shape, dtype, target=None):
            board.allocate(shape)
            return given(shape, dtype, target)

        pynq.allocate, pynq.board = allocate, board
        monkeypatch.setitem(sys.modules, "pynq", pynq)
        st_pynq.driver.cache_clear()
        return pynq

    yield put
    st_pynq.driver.cache_clear()


def test_a_bitstream_is_loaded_and_trains_as_the_golden_model_does(install):
    """The programs are compiled for the memory that was allocated, wherever that is."""
    board = install(blocks()).board
    assert PLAN.base == 0
    with connect(DESIGN, "pynq:unified.bit") as trainer:
        assert trainer.plan.base == 0x1F10_1000
        assert len(board.memory.array) == shared_bytes(PLAN)
        assert_trains_alike(trainer)
    assert board.memory.closed


def test_an_overlay_has_the_verbs_of_a_trainer(install, tmp_path):
    pynq = install(blocks())
    st_pynq.driver()
    (tmp_path / "plan.json").write_text(PLAN.to_json())
    trainer = pynq.Overlay(str(tmp_path / "unified.bit")).trainer
    assert {"fit", "evaluate", "mmio"} <= set(dir(trainer))
    assert_trains_alike(trainer.trainer)


def test_the_streaming_core_is_no_unified_one_and_the_other_way_round(install):
    streaming = {**blocks()["trainer"], "type": st_pynq.VLNV}
    install({"trainer": streaming})
    with pytest.raises(BusError, match=r"one trainer \(.*:streamtrain_unified\), but it has 0$"):
        connect(DESIGN, "pynq:other.bit")
    install(blocks())
    other = st.plan(NET, multipliers=10)
    with pytest.raises(BusError, match=r"one trainer \(.*:streamtrain\), but it has 0$"):
        connect(other, "pynq:other.bit")


# -- Linux ----------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """The files of a board on which everything is installed."""
    size = shared_bytes(PLAN)
    device = tmp_path / "sys/class/uio/uio0"
    (device / "maps/map0").mkdir(parents=True)
    (device / "name").write_text("streamtrain\n")
    (device / "maps/map0/size").write_text("0x1000\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/uio0").write_bytes(bytes(0x1000))
    (tmp_path / "dev/streamtrain-buffer").write_bytes(bytes(size))
    folder = tmp_path / "sys/class/u-dma-buf/streamtrain-buffer"
    folder.mkdir(parents=True)
    (folder / "phys_addr").write_text(f"{ADDRESS:#x}\n")
    (folder / "size").write_text(f"{size}\n")
    for name in ("sync_offset", "sync_size", "sync_direction", "sync_for_cpu", "sync_for_device"):
        (folder / name).write_text("")
    return tmp_path


def test_linux_trains_as_the_golden_model_does(root, monkeypatch):
    memory = Memory(shared_bytes(PLAN))

    class Buffer(UioBuffer):
        def __init__(self, name, at):
            super().__init__("streamtrain-buffer", root)
            memory.array = self.array

        def give(self, size, start=0):
            super().give(size, start)
            memory.give(size, start)

        def take(self, size, start=0):
            super().take(size, start)
            memory.take(size, start)

    monkeypatch.setattr(uio, "_registers", lambda name, at: Registers(memory.simulated))
    monkeypatch.setattr(uio, "UioBuffer", Buffer)
    with connect(DESIGN, "uio") as trainer:
        assert trainer.plan.base == 0x1F10_1000
        assert_trains_alike(trainer)


def test_the_bus_has_registers_and_memory_of_the_devices(root):
    bus = open_uio_memory(root=root)
    assert (bus.base, bus.size) == (0x1F10_1000, shared_bytes(PLAN) - 0x800)
    bus.write(0x08, 0x1234)
    assert (root / "dev/uio0").read_bytes()[8:10] == bytes.fromhex("3412")
    bus.store(0x1F10_2000, np.array([1, 2, 3], np.uint8))
    assert (root / "dev/streamtrain-buffer").read_bytes()[0x1800:0x1804] == b"\1\2\3\0"
    folder = root / "sys/class/u-dma-buf/streamtrain-buffer"
    assert (folder / "sync_offset").read_text() == f"{0x1800}\n"
    assert bus.load(0x1F10_2001, 2).tolist() == [2, 3]
    bus.close()


# -- What goes wrong ------------------------------------------------------------------------------


class Buffer:
    def __init__(self, address, size=1 << 20):
        self.address, self.array, self.closed = address, np.zeros(size, np.uint8), False

    def close(self):
        self.closed = True


def test_memory_beyond_the_addresses_of_the_core_is_refused():
    message = r"^The buffer is at 0x10000000000, and the core's addresses end at 0xffffffff: reserve memory below"
    with pytest.raises(BusError, match=message):
        SharedMemoryBus(np.zeros(1024, np.uint32), Buffer(1 << 40))


def test_a_program_that_does_not_end_is_told(monkeypatch):
    monkeypatch.setattr(shared_memory, "_PATIENCE_SECONDS", 0.01)
    control = np.zeros(1024, np.uint32)
    control[1] = 1  # busy
    buffer = Buffer(PAGE)
    bus = SharedMemoryBus(control, buffer)
    with pytest.raises(
        BusError, match=r"^A program has not ended for 0.01 s; check that the core is"
    ):
        bus.close()
    assert not buffer.closed  # the core may still write there


def test_too_little_memory_is_told():
    control = np.zeros(1024, np.uint32)
    for register in unified_registers(PLAN.configuration):
        control[register.address >> 2] = register.reset
    with pytest.raises(
        BusError, match=r"^The design needs memory from 0x1000 to .* from 0x1000 to 0x3000"
    ):
        connect(DESIGN, SharedMemoryBus(control, Buffer(PAGE, 2 * PAGE)))


def test_programs_without_a_place_take_that_of_those_before():
    """Memory for one program at a time gives the same as memory for all."""
    programs = [getattr(PLAN.compiler.variant(3), what)() for what in ("step", "evaluation")]
    room = max(len(program.image()) for program in programs)
    size = -(-(PLAN.compiler.programs + room) // PAGE) * PAGE
    with closing(SimulatedKernel(PLAN, size=size)) as device:
        assert_trains_alike(st.Trainer(PLAN, device))
        assert len(device._programs) < 8


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("uart:/dev/ttyUSB0", {}, "shares with its host, which a serial line does not reach"),
        ("simulation", {"weights": "keep"}, "cannot go on with what memory holds"),
    ],
)
def test_what_the_core_has_not_is_refused(to, options, message):
    with pytest.raises(ValueError, match=message):
        connect(DESIGN, to, **options)


def test_a_bus_of_the_other_core_is_refused():
    class Bus:
        exchange = None

    with pytest.raises(TypeError, match="or a MemoryBus, not"):
        connect(DESIGN, Bus())


def test_simulation_is_a_way_too():
    with connect(DESIGN, "simulation") as trainer:
        assert_trains_alike(trainer)


PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())

import numpy as np
import streamtrain as st
from streamtrain.host import pynq, uio
from streamtrain.host.connect import load_plan
from streamtrain.host.shared_memory import SharedMemoryBus, shared_bytes
from streamtrain.unified.ip import unified_registers

plan = load_plan(sys.argv[1])
control = np.zeros(1024, np.uint32)
for register in unified_registers(plan.configuration):
    control[register.address >> 2] = register.reset

class Buffer:
    address, array = 0x100000, np.zeros(shared_bytes(plan), np.uint8)
    give = take = close = lambda self, *range: None

x, y = np.zeros((9, 2, 6, 6)), np.arange(9) % 3
with st.connect(sys.argv[1], SharedMemoryBus(control, Buffer())) as trainer:
    print(trainer.fit(x, y, batch_size=3, progress=False).accuracy)
assert "tomllib" not in sys.modules  # which Python 3.10 of PYNQ's images does not have
"""


def test_connect_works_without_what_has_no_wheels(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(PLAN.to_json())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"MISSING = {MISSING!r}\n{PROGRAM}", str(plan)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.3333333333333333"
