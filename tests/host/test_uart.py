import sys

import numpy as np
import pytest
from bridge import Bridge, Port, Terminal
from hardware import DESIGN, assert_same_state, assert_trains_alike, samples

from streamtrain.host import uart
from streamtrain.host.bus_device import BusError
from streamtrain.host.connect import connect
from streamtrain.host.uart import UartBus
from streamtrain.simulate.bus import SimulatedBus


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(uart, "_QUIET_SECONDS", 0.005)
    monkeypatch.setattr(uart, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(uart, "_PATIENCE_SECONDS", 0.1)


@pytest.fixture
def bridge():
    return Bridge(SimulatedBus(DESIGN.plan))


@pytest.fixture
def port(bridge):
    return Port(bridge)


def test_trains_as_the_golden_model_does(bridge, port):
    assert_trains_alike(connect(DESIGN, UartBus(port)), DESIGN.golden())
    assert bridge.most == 2


def test_pyserial_trains_as_the_golden_model_does(bridge):
    terminal = Terminal(bridge)
    with connect(DESIGN, f"uart:{terminal.name}:115200") as trainer:
        assert_trains_alike(trainer, DESIGN.golden())
    terminal.close()


def test_a_port_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BusError, match=r"^Cannot open \S+none at 1,000,000 baud: "):
        connect(DESIGN, f"uart:{tmp_path / 'none'}")


def test_pyserial_has_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(ImportError, match=r'pip install "streamtrain\[uart\]"$'):
        UartBus("COM3")


def test_refusals_are_told(port):
    bus = UartBus(port)
    with pytest.raises(BusError, match=r"^The trainer refuses that address 0xff0 is read now$"):
        bus.read(0xFF0)
    with pytest.raises(BusError, match=r"^The trainer refuses 0x00000007 at address 0x000$"):
        bus.write(0, 7)
    with pytest.raises(BusError, match=r"^The trainer refuses 3 words at address 0x0c4$"):
        bus.write_all(0xC4, np.arange(3))


def test_many_words_go_in_portions(port, monkeypatch):
    monkeypatch.setattr(uart, "_WORDS", 3)
    bus = UartBus(port)
    np.testing.assert_array_equal(bus.read_all(0, 8), [0x5354524D] * 8)
    bus.write_all(0x034, np.array([1, 2, 3, 4]))
    assert bus.read(0x034) == 4


@pytest.mark.parametrize("byte", [0, 2, 5, 9, 40])
def test_a_byte_that_gets_lost_on_its_way_is_told_and_forgotten(bridge, port, byte):
    trainer = connect(DESIGN, UartBus(port))
    x, y = samples(5)
    trainer.evaluate(x, y, progress=False)
    bridge.lose = 60 + byte
    with pytest.raises(
        BusError, match=r"^port: .*\. (The trainer reports: .* )?The trainer was reset"
    ):
        trainer.evaluate(x, y, progress=False)
    assert trainer.evaluate(x, y, progress=False) == DESIGN.golden().evaluate(x, y, progress=False)


@pytest.mark.parametrize("byte", [0, 1, 7, 19])
def test_an_answer_that_loses_a_byte_is_told(port, byte):
    trainer = connect(DESIGN, UartBus(port))
    x, y = samples(5)

    def lossy(text):
        if text[:1] not in {b"m", b"M"}:
            return text
        port.mangle = lambda text: text
        return text[:byte] + text[byte + 1 :]

    port.mangle = lossy
    with pytest.raises(
        BusError,
        match=r"^port: (0x.. came where '.' should be; a byte was lost|waited 0.1 s .* 19 of 20 bytes)",
    ):
        trainer.evaluate(x, y, progress=False)
    assert_trains_alike(trainer, DESIGN.golden())


def test_an_x_is_told(bridge, port):
    bus = UartBus(port)
    bridge.put(b"?")
    with pytest.raises(
        BusError, match=r"^port: the trainer has lost a byte, or got one that begins no command$"
    ):
        bus.read(0)
    bus.flush()
    assert bus.read(0) == 0x5354524D


def test_an_x_in_the_middle_of_an_answer_is_told(port):
    port.mangle = lambda text: text and text[:3] + b"x"
    with pytest.raises(BusError, match=r"^port: the trainer has lost a byte"):
        UartBus(port).read(0)


def test_an_x_instead_of_a_response_is_told(port):
    port.mangle = lambda text: text and text[:5] + b"x"
    with pytest.raises(BusError, match=r"^port: the trainer has lost a byte"):
        UartBus(port).read(0)


def test_silence_is_told(port):
    port.mangle = lambda text: text[:2]
    with pytest.raises(
        BusError,
        match=r"^port: waited 0.1 s for an answer, and 2 of 6 bytes came; check cable, bitstream and baud rate$",
    ):
        UartBus(port).read(0)


def test_results_that_nobody_asked_for_are_told(bridge, port):
    bus = UartBus(port)
    bridge.answers = b"m1234"
    with pytest.raises(
        BusError, match=r"^port: results came that belong to nothing that was sent$"
    ):
        bus.read(0)


def test_noise_is_told(port):
    port.mangle = lambda text: bytes(byte ^ 0x55 for byte in text)
    with pytest.raises(BusError, match=r"^port: 0x27 came where 'r' should be; .*baud rate"):
        connect(DESIGN, UartBus(port))


def test_a_line_that_never_falls_silent_is_told(port):
    port.mangle = lambda text: b"noise"
    uart._QUIET_SECONDS = 0.05
    with pytest.raises(BusError, match=r"^port does not fall silent after a break"):
        UartBus(port).flush()


def test_a_cable_that_is_pulled_is_told(port):
    bus = UartBus(port)

    def gone(text):
        raise OSError("device disconnected")

    port.write = gone
    with pytest.raises(BusError, match=r"^port: device disconnected$"):
        bus.read(0)


@pytest.mark.parametrize("size", [7, 26, 60])
def test_a_host_that_was_killed_within_a_packet_is_forgotten(bridge, port, size):
    first = connect(DESIGN, UartBus(port))
    _, y = samples(3)
    first.device._set(commands(first, y), 1)
    packed = first.device.format.pack(np.zeros((3, 1, 4, 4), int), y)
    text = b"".join(
        b"s" + len(sample).to_bytes(4, "little") + sample.tobytes() for sample in packed
    )
    bridge.put(text[:size])
    second = connect(DESIGN, UartBus(Port(bridge)), weights="keep")
    assert_same_state(second, DESIGN.golden())
    assert_trains_alike(second, DESIGN.golden())


def commands(trainer, y):
    from streamtrain.host.trainer import _look

    return _look(1, y)


def test_closing_stops_the_trainer_and_gives_the_port_back(bridge, port):
    with connect(DESIGN, UartBus(port)):
        pass
    assert port.closed
    assert bridge.bus.read(0x020) == 0
