"""The serial line's host in front of the trainer's gates: every bit of every byte is simulated."""

import re

import numpy as np
import pytest
from bridge import Bridge, Terminal
from hardware import DESIGN, assert_same_state, assert_trains_alike, samples

import streamtrain as st
from streamtrain.data import load_digits
from streamtrain.host import uart
from streamtrain.host.bus_device import BusError
from streamtrain.host.uart import UartBus
from streamtrain.simulate import SimulatedBus, SimulatedLine

pytestmark = pytest.mark.xdist_group("uart line")  # which compiles once

DIGITS = st.plan(
    st.Network(
        (1, 8, 8), [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(10)]
    ),
    foldings={"conv1": (2, 1, 1), "linear1": (2, 1, 1)},
    max_batch=4,
)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(uart, "_QUIET_SECONDS", 0.005)
    monkeypatch.setattr(uart, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(uart, "_PATIENCE_SECONDS", 0.05)


@pytest.fixture
def line():
    line = SimulatedLine(DESIGN.plan)
    yield line
    line.close()


def damage(line, number, damaged):
    """What happens to the byte of that number that the host sends from now on."""
    write = line.write

    def lossy(text):
        nonlocal number
        if 0 <= number < len(text):
            text = text[:number] + damaged(text[number]) + text[number + 1 :]
            number = -1
        elif number >= 0:
            number -= len(text)
        write(text)

    line.write = lossy


# -- Right ------------------------------------------------------------------------------------------


def test_digits_are_trained_with_as_the_golden_model_does():
    digits = load_digits()
    line = SimulatedLine(DIGITS.plan)
    with st.connect(DIGITS, UartBus(line)) as trainer:
        assert_trains_alike(trainer, DIGITS.golden(), digits.train_x[:6], digits.train_y[:6])
        assert trainer.counters()["dropped"] == 0
    assert line.bad == 0


@pytest.mark.parametrize("host_bit", [7.8, 8.2])
def test_a_clock_that_is_off_by_a_fortieth_trains_alike(host_bit):
    line = SimulatedLine(DESIGN.plan, host_bit=host_bit)
    with st.connect(DESIGN, UartBus(line)) as trainer:
        assert_trains_alike(trainer, DESIGN.golden(), *samples(4))
    assert line.bad == 0


def test_pyserial_trains_as_the_golden_model_does(line):
    terminal = Terminal(Ends(line))
    with st.connect(DESIGN, f"uart:{terminal.name}:115200") as trainer:
        assert_trains_alike(trainer, DESIGN.golden(), *samples(4))
    terminal.close()


class Ends:
    """A line as :class:`~bridge.Terminal` takes it."""

    def __init__(self, line):
        self.line = line

    def put(self, text):
        self.line.write(text)

    def get(self):
        return self.line.read(self.line.in_waiting)


def test_the_bridge_in_python_answers_as_the_gates_do(line):
    """That model is what the other tests of the host have at their line's other end."""
    model, rng = Bridge(SimulatedBus(DESIGN.plan)), np.random.default_rng(1)
    size = model.bus.format.sample_bytes
    sample = model.bus.format.pack(np.ones((1, 1, 4, 4), int), [2]).tobytes()
    assert len(sample) == size
    frames = [
        b"R\0\0\x01\0", b"R\0\0\0\0", b"R\0\0\x03\0", b"R\xf0\x0f\x02\0", b"W\x24\0\x01\0\0\0\0\0",
        b"W\x34\0\x02\0\x01\0\0\0\x02\0\0\0", b"W\x34\0\x01\0\0\0\0\0", b"W\x34\0\0\0", b"R\x34\0\x01\0",
        b"W\x20\0\x01\0\x05\0\0\0", b"S" + size.to_bytes(4, "little") + sample,
        b"S" + (size - 4).to_bytes(4, "little") + sample[4:], b"S\0\0\0\0", b"R\x28\0\x01\0", b"R\x80\0\x01\0",
    ]  # fmt: skip
    for number in (9, *rng.integers(0, len(frames), 60)):
        for end in (line, model):
            end.write(frames[number]) if end is line else end.put(frames[number])
        model.bus.wait(5_000)  # the time that bytes take on their way
        heard, expected = line.read(line.in_waiting), model.get() + model.get()
        assert heard == expected, frames[number]


# -- Disturbed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_noise_before_the_host_comes_is_forgotten(line, seed):
    rng = np.random.default_rng(seed)
    line.write(rng.bytes(40))
    line.pull(0.3)
    line.pull(rng.integers(2, 40))
    with st.connect(DESIGN, UartBus(line)) as trainer:
        assert_trains_alike(trainer, DESIGN.golden(), *samples(3))


def test_a_spike_on_the_idle_line_is_no_byte(line):
    expected = DESIGN.golden().evaluate(*samples(2), progress=False)
    with st.connect(DESIGN, UartBus(line)) as trainer:
        for bits in (0.1, 0.25):
            line.pull(bits)
            assert trainer.evaluate(*samples(2), progress=False) == expected


KINDS = {
    "lost": lambda byte: b"",
    "doubled": lambda byte: bytes([byte, byte]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [3, 9, 12, 40, 60, 90, 150, 210, 229])
def test_a_byte_too_few_or_too_many_is_told_and_forgotten(line, number, kind):
    x, y = samples(5)
    trainer = st.connect(DESIGN, UartBus(line))
    trainer.fit(x, y, progress=False)
    damage(line, number, KINDS[kind])
    with pytest.raises(
        BusError,
        match=r"^the simulated line: .*\. (The trainer reports: .* )?The trainer was reset",
    ):
        trainer.fit(x, y, progress=False)
        trainer.state_dict()  # a byte too many in the last command is seen with the next
    del line.write
    again = st.connect(DESIGN, UartBus(line))
    assert_trains_alike(again, DESIGN.golden(), x, y)


@pytest.mark.parametrize("number", [0, 9, 10, 14, 105, 106, 110])
def test_a_byte_that_changes_its_meaning_is_told(line, number, monkeypatch):
    """Letters, lengths and labels of frames; nothing vouches for pixels."""
    # Which byte is which must not depend on how busy this machine is.
    monkeypatch.setattr("streamtrain.host.trainer._CHUNK_SECONDS", 1e6)
    x, y = samples(5)
    trainer = st.connect(DESIGN, UartBus(line))
    trainer.fit(x, y, progress=False)
    damage(line, number, lambda byte: bytes([byte ^ 0x41]))
    with pytest.raises(BusError, match=r"The trainer was reset"):
        trainer.fit(x, y, progress=False)
    del line.write
    assert_trains_alike(st.connect(DESIGN, UartBus(line)), DESIGN.golden(), x, y)


@pytest.mark.parametrize("size", [1, 3, 5, 8, 26, 60, 85])
def test_a_host_that_was_killed_within_a_message_is_forgotten(line, size):
    first = st.connect(DESIGN, UartBus(line))
    x, y = samples(3)
    first.fit(x, y, progress=False)
    learnt, golden = first.state_dict(), DESIGN.golden()
    golden.fit(x, y, progress=False)
    packed = first.device.format.pack(np.zeros((3, 1, 4, 4), int), y)
    first.device.write("PACKET", samples=3)
    first.device.write("CONTROL", run=1, mode=1)  # evaluate: nothing is learnt by whole samples
    frames = (b"s" + len(one).to_bytes(4, "little") + one.tobytes() for one in packed)
    line.write(b"".join(frames)[:size])
    second = st.connect(DESIGN, UartBus(line), weights="keep")
    for name, codes in second.state_dict().items():
        np.testing.assert_array_equal(codes, learnt[name])
    assert_same_state(second, golden)
    assert_trains_alike(second, golden, x, y)


def test_a_break_within_an_answer_leaves_the_line_usable(line):
    bus = UartBus(line)
    line.write(b"R\0\0\x40\0")
    bus.flush()
    assert bus.read(0) == 0x5354524D


def test_results_that_end_too_early_say_that_a_sample_was_dropped(line):
    """A label that is no class ends the packet, and TLAST tells the host at once."""
    x, y = samples(5)
    trainer = st.connect(DESIGN, UartBus(line))
    trainer.fit(x, y, progress=False)
    damage(line, 110, lambda byte: bytes([200]))
    with pytest.raises(
        BusError,
        match=r"results end before those of all samples came: a sample was dropped\. "
        r"The trainer reports: A label was no class",
    ):
        trainer.fit(x, y, progress=False)


# -- Misused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host_bit", [4, 16])
def test_another_baud_rate_is_told(host_bit):
    line = SimulatedLine(DESIGN.plan, host_bit=host_bit)
    with pytest.raises(BusError, match=r"^the simulated line: .*baud rate|does not fall silent"):
        st.connect(DESIGN, UartBus(line))


def test_another_design_is_told(line):
    with pytest.raises(BusError, match=r"^The trainer at the bus was made from another design"):
        st.connect(DIGITS, UartBus(line))


def test_a_sample_for_a_trainer_that_does_not_run_is_told(line):
    """There is no room for it, and no byte gets lost in silence."""
    trainer = st.connect(DESIGN, UartBus(line))
    trainer.device.write("CONTROL", run=0)
    sample = bytes(trainer.device.format.sample_bytes)
    line.write(b"S" + len(sample).to_bytes(4, "little") + sample)
    with pytest.raises(BusError, match=r"^the simulated line: the trainer has lost a byte"):
        trainer.device.bus.read(0)
    assert_trains_alike(st.connect(DESIGN, UartBus(line)), DESIGN.golden(), *samples(3))


def test_a_host_bit_that_is_too_short_is_refused():
    with pytest.raises(
        ValueError, match=r"^A bit of the host must take at least 4 clock cycles, not 3$"
    ):
        SimulatedLine(DESIGN.plan, host_bit=3)


def test_waveforms_show_the_line(tmp_path):
    line = SimulatedLine(DESIGN.plan, trace=tmp_path / "line.vcd")
    assert UartBus(line).read(0) == 0x5354524D
    line.close()
    text = (tmp_path / "line.vcd").read_text()
    assert re.search(r"\$var wire\s+1 \S+ rx ", text) and re.search(r"\$var wire\s+1 \S+ tx ", text)
