import numpy as np
import pytest
from axi_dma import HALTED, INTERNAL, DmaModel, Memory, RegisterWindow
from hardware import DESIGN, NET, assert_same_state, assert_trains_alike, samples

import streamtrain as st
from streamtrain.host import dma as dma_module
from streamtrain.host.bus_device import BusError
from streamtrain.host.connect import connect
from streamtrain.host.dma import DmaBus
from streamtrain.simulate.bus import SimulatedBus


class Board:
    """A trainer behind a DMA; hosts may come and go."""

    def __init__(self, size=1 << 16, **options):
        self.trainer = SimulatedBus(DESIGN.plan, **options)
        self.memory = Memory(size)
        self.dma = DmaModel(self.trainer, self.memory)

    def bus(self):
        return DmaBus(RegisterWindow(self.trainer), self.dma, self.memory)

    def connect(self, **options):
        return connect(DESIGN, self.bus(), **options)


@pytest.mark.parametrize("size", [1 << 16, 256])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_trains_as_the_golden_model_does(size, stall):
    """With room for all samples, and with so little that many packets are needed."""
    assert_trains_alike(Board(size, stall=stall).connect(), DESIGN.golden())


def test_wide_streams_train_alike():
    board = Board(size=16)
    board.memory = Memory(1 << 12)
    board.dma = DmaModel(board.trainer, board.memory)
    assert_trains_alike(board.connect(), DESIGN.golden())


def test_a_buffer_has_to_hold_a_sample():
    with pytest.raises(
        BusError,
        match=r"^A sample and its result take 52 bytes, but the bus has room for 32; give it a larger buffer$",
    ):
        Board(96).connect()


@pytest.mark.parametrize("channel", ["mm2s", "s2mm"])
@pytest.mark.parametrize(
    "bit, why", [(4, "internal error"), (5, "memory answered"), (6, "no memory at")]
)
def test_errors_are_told_and_gone_after_a_reset(channel, bit, why):
    board = Board()
    trainer = board.connect()
    x, y = samples(4)
    board.dma.faults[getattr(board.dma, channel)] = 1 << bit
    with pytest.raises(
        BusError, match=rf"^The DMA's {channel.upper()} has failed: .*{why}.*trainer was reset"
    ):
        trainer.evaluate(x, y, progress=False)
    assert trainer.evaluate(x, y, progress=False) == DESIGN.golden().evaluate(x, y, progress=False)


def test_a_halted_dma_is_told():
    board = Board()
    trainer = board.connect()
    board.dma.faults[board.dma.s2mm] = HALTED
    with pytest.raises(BusError, match=r"^The DMA's S2MM has halted"):
        trainer.predict(samples(1)[0], progress=False)


def test_results_that_get_lost_end_the_wait(monkeypatch):
    monkeypatch.setattr(dma_module, "_PATIENCE_SECONDS", 0.1)
    board = Board()
    trainer = board.connect()
    x, y = samples(4)
    board.dma.silent = True
    with pytest.raises(
        BusError,
        match=r"^No sample was worked off for 0.1 s, and the DMA's S2MM did not finish\. The trainer was reset",
    ):
        trainer.fit(x, y, progress=False)
    board.dma.silent = False
    again = board.connect()
    assert_trains_alike(again, DESIGN.golden())


def test_training_does_not_go_on_as_if_nothing_had_been():
    board = Board()
    trainer = board.connect()
    board.dma.faults[board.dma.s2mm] = INTERNAL
    with pytest.raises(BusError, match=r"connect anew, and load a checkpoint or weights$"):
        trainer.fit(*samples(4), progress=False)
    with pytest.raises(RuntimeError, match="interrupted within a mini-batch"):
        trainer.save("never.ckpt")


@pytest.mark.parametrize("words", [1, 3, 7, 10])
def test_a_host_that_was_killed_within_a_packet_is_forgotten(words, monkeypatch):
    """Whole samples are learnt, the rest is dropped, and the next host finds nothing of it."""
    board = Board()
    first = board.connect()
    x, y = samples(4)
    monkeypatch.setattr(dma_module, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(first.device, "_recovered", lambda: "")  # it is dead
    board.dma.limit = 4 * words
    with pytest.raises(BusError):
        first.fit(x, y, progress=False)
    second = board.connect(weights="keep")
    golden = DESIGN.golden()
    whole = 4 * words // second.device.format.sample_bytes
    if whole:
        golden.fit(x[:whole], y[:whole], progress=False)
    assert_same_state(second, golden)
    assert second.counters()["samples"] == 0
    x, y = samples(3, seed=2)
    np.testing.assert_array_equal(
        second.fit(x, y, progress=False).losses, golden.fit(x, y, progress=False).losses
    )


def test_results_that_nobody_took_are_dropped():
    board = Board()
    first = board.connect()
    x, y = samples(3)
    first.evaluate(x, y, progress=False)
    packed = first.device.format.pack(np.zeros((3, 1, 4, 4), int), np.zeros(3, int))
    first.device.bus.exchange(packed.ravel(), 0)  # its results stay inside
    assert_trains_alike(board.connect(), DESIGN.golden())


def test_samples_whose_results_nobody_took_are_learnt():
    """All of them, and each update as a whole."""
    board = Board()
    first = board.connect()
    x, y = samples(8)
    first.step(x[:4], y[:4])  # what follows has its settings
    first.device.write("PACKET", samples=4)
    codes = DESIGN.plan.stages[0].input.encode(x[4:])
    first.device.bus.exchange(first.device.format.pack(codes, y[4:]).ravel(), 0)
    board.dma.wait = 5  # so that some are still inside when the next host comes
    golden = DESIGN.golden()
    golden.step(x[:4], y[:4])
    golden.step(x[4:], y[4:])
    assert_same_state(board.connect(weights="keep"), golden)


def test_a_window_that_was_left_open_is_closed():
    board = Board()
    first = board.connect()
    first.device.write("WINDOW", layer=0, target=0, write=0)
    first.device._wait("STATUS", "window_open", 1, "the window")
    assert_trains_alike(board.connect(), DESIGN.golden())


def test_ctrl_c_within_the_window_closes_it():
    board = Board()
    trainer = board.connect()

    def interrupted(address, count):
        board.trainer.read(address)
        raise KeyboardInterrupt

    trainer.device.bus.read_all = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.state_dict()
    del trainer.device.bus.read_all
    assert_trains_alike(trainer, DESIGN.golden())


def test_another_design_is_refused():
    board = Board()
    other = st.plan(NET, foldings={"conv1": (2, 1, 3), "linear1": (1, 2, 1)}, max_batch=4)
    with pytest.raises(
        BusError, match=r"^The trainer at the bus was made from another design: its hash is "
    ):
        connect(other, board.bus())


def test_a_bus_without_trainer_is_told():
    board = Board()
    bus = DmaBus(np.zeros(1024, np.uint32), board.dma, board.memory)
    with pytest.raises(BusError, match=r"the register ID reads 0x00000000, not 0x5354524d"):
        connect(DESIGN, bus)


def test_a_dma_that_is_not_clocked_is_told(monkeypatch):
    monkeypatch.setattr(dma_module, "_RESET_SECONDS", 0.05)
    board = Board()
    board.dma.stuck = True
    with pytest.raises(BusError, match=r"^The DMA does not come out of its reset"):
        board.connect()


def test_scatter_gather_is_refused():
    board = Board()
    board.dma.mm2s.status |= 8
    with pytest.raises(BusError, match=r"^The DMA is built for scatter/gather"):
        board.bus()


def test_a_buffer_is_aligned():
    board = Board()
    board.memory.address += 32
    with pytest.raises(
        BusError, match=r"^The buffer's address must be a multiple of 64, not 0x110000020$"
    ):
        board.bus()


def test_closing_stops_the_dma_before_the_memory_goes():
    board = Board()
    closed = []
    bus = DmaBus(
        RegisterWindow(board.trainer), board.dma, board.memory, close=lambda: closed.append(1)
    )
    with connect(DESIGN, bus):
        pass
    assert board.memory.closed and closed == [1]
    assert board.trainer.read(0x020) == 0
    assert board.dma.mm2s.status == board.dma.s2mm.status == HALTED
