import importlib
import sys

import pytest
from axi_dma import DmaModel, Memory, RegisterWindow
from fake_pynq import fake_pynq
from hardware import DESIGN, assert_trains_alike

from streamtrain.host import pynq as st_pynq
from streamtrain.host.bus_device import BusError
from streamtrain.host.connect import connect
from streamtrain.simulate.bus import SimulatedBus


class Board:
    def __init__(self):
        self.trainer = SimulatedBus(DESIGN.plan)
        self.memory = Memory(1 << 16)
        self.windows = {
            "trainer": RegisterWindow(self.trainer),
            "dma": DmaModel(self.trainer, self.memory),
        }


def blocks(**others):
    return {
        "trainer": {"phys_addr": 0x40000000, "addr_range": 4096, "type": st_pynq.VLNV},
        "dma": {
            "phys_addr": 0x41E00000,
            "addr_range": 65536,
            "type": "xilinx.com:ip:axi_dma:7.1",
        },
        "timer": {
            "phys_addr": 0x42800000,
            "addr_range": 65536,
            "type": "xilinx.com:ip:axi_timer:2.0",
        },
        **others,
    }


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def install(monkeypatch, board):
    """Install PYNQ, for an overlay with these blocks."""

    def put(ip_dict):
        pynq = fake_pynq(board, ip_dict)
        monkeypatch.setitem(sys.modules, "pynq", pynq)
        st_pynq.driver.cache_clear()
        return pynq

    yield put
    st_pynq.driver.cache_clear()


def test_a_bitstream_is_loaded_and_trains_as_the_golden_model_does(install, board):
    install(blocks())
    with connect(DESIGN, "pynq:trainer.bit") as trainer:
        assert_trains_alike(trainer, DESIGN.golden())
    assert board.memory.closed


def test_an_overlay_has_the_verbs_of_a_trainer(install, tmp_path):
    pynq = install(blocks())
    st_pynq.driver()
    (tmp_path / "plan.json").write_text(DESIGN.plan.to_json())
    trainer = pynq.Overlay(str(tmp_path / "trainer.bit")).trainer
    assert isinstance(trainer, pynq.DefaultIP)
    assert {"fit", "evaluate", "mmio"} <= set(dir(trainer))
    assert_trains_alike(trainer.trainer, DESIGN.golden())
    assert trainer.samples_seen == 26
    with pytest.raises(AttributeError, match="'ConnectedTrainer' object has no attribute 'train'"):
        trainer.train()


def test_an_overlay_needs_its_plan(install, tmp_path):
    pynq = install(blocks())
    st_pynq.driver()
    with pytest.raises(ValueError, match=r"has no plan\.json; is it the folder of a build\?$"):
        assert not pynq.Overlay(str(tmp_path / "trainer.bit")).trainer


def test_importing_binds_the_driver_where_pynq_is(install, monkeypatch, tmp_path):
    pynq = install(blocks())
    pynq.__spec__ = importlib.machinery.ModuleSpec("pynq", None)
    importlib.reload(st_pynq)
    (tmp_path / "plan.json").write_text(DESIGN.plan.to_json())
    assert type(pynq.Overlay(str(tmp_path / "x.bit")).trainer).__name__ == "TrainerDriver"
    monkeypatch.delitem(sys.modules, "pynq")
    importlib.reload(st_pynq)


def test_two_dmas_need_a_name(install):
    other = {"phys_addr": 0x41E10000, "addr_range": 65536, "type": "xilinx.com:ip:axi_dma:7.1"}
    found = blocks(video_dma=other, audio_dma=other)
    install(found)
    connect(DESIGN, "pynq:trainer.bit").close()
    del found["dma"]
    with pytest.raises(
        BusError, match=r"one that is called 'dma', but it has video_dma, audio_dma$"
    ):
        connect(DESIGN, "pynq:trainer.bit")


def test_a_bitstream_without_trainer_is_told(install):
    found = blocks()
    del found["trainer"]
    install(found)
    with pytest.raises(
        BusError,
        match=r"^other\.bit should have one trainer \(streamtrain\.org:ip:streamtrain\), but it has 0$",
    ):
        connect(DESIGN, "pynq:other.bit")


def test_pynq_has_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(
        ImportError, match=r"^PYNQ is not installed; it comes with the boards' SD card images"
    ):
        connect(DESIGN, "pynq:trainer.bit")
