"""What `connect` takes, and what a connected trainer does besides a trainer's verbs."""

import numpy as np
import pytest
from hardware import DESIGN, NET, assert_same_state, assert_trains_alike, samples

import streamtrain as st
from streamtrain.host.bus_device import BusDevice
from streamtrain.host.connect import load_plan
from streamtrain.numeric import Round
from streamtrain.simulate.bus import SimulatedBus

FULL = st.plan(
    st.Network(
        NET.input_shape,
        NET.layers,
        optimizer=st.SGD(lr=2**-4, momentum=0.5, weight_decay=2**-6, clip=0.5),
    ),
    foldings=DESIGN.foldings,
    numbers=st.Numbers(round_weights=Round.STOCHASTIC),
    max_batch=4,
)


def test_the_simulation_of_the_whole_ip_trains_as_the_golden_model_does():
    trainer = st.connect(DESIGN, "simulation")
    assert_trains_alike(trainer, DESIGN.golden())
    assert trainer.counters()["samples"] == 4 * 13
    trainer.close()


def test_all_that_training_starts_with_is_written():
    """Also where another host has trained before."""
    bus = SimulatedBus(FULL.plan)
    first = st.connect(FULL, bus)
    first.fit(*samples(7), progress=False)
    assert_trains_alike(st.connect(FULL, bus), FULL.golden())


def test_weights_may_be_kept():
    bus, golden = SimulatedBus(FULL.plan), FULL.golden()
    x, y = samples(7)
    st.connect(FULL, bus).fit(x, y, batch_size=2, progress=False)
    golden.fit(x, y, batch_size=2, progress=False)
    second = st.connect(FULL, bus, weights="keep")
    assert second.samples_seen == 0
    assert_same_state(second, golden)


def test_a_checkpoint_moves_to_hardware_and_back(tmp_path):
    golden, trainer = FULL.golden(), st.connect(FULL, "simulation")
    x, y = samples(9)
    golden.fit(x, y, progress=False)
    golden.save(tmp_path / "one")
    trainer.load(tmp_path / "one")
    for one in (golden, trainer):
        one.fit(x, y, batch_size=4, progress=False)
    trainer.save(tmp_path / "two")
    back = FULL.golden()
    back.load(tmp_path / "two")
    assert_same_state(back, golden)
    assert back.saturations() == golden.saturations()


def test_a_step_says_its_cycles():
    """Of samples on their own, which the hardware starts with when they are whole."""
    trainer = st.connect(DESIGN, "simulation")
    x, y = samples(4)
    alone = [trainer.step(x[:1], y[:1]).cycles for _ in range(3)]
    assert alone == pytest.approx([DESIGN.estimate().cycles] * 3, rel=0.1)
    assert trainer.step(x, y).cycles > 1.5 * alone[0]


@pytest.mark.parametrize("record", [DESIGN, DESIGN.plan], ids=["design", "plan"])
def test_designs_come_from_files(tmp_path, record):
    assert load_plan(record) == DESIGN.plan
    file = tmp_path / "mine.json"
    file.write_text(record.to_json())
    assert load_plan(file) == load_plan(str(file)) == DESIGN.plan


def test_designs_come_from_the_folder_of_a_build(tmp_path):
    (tmp_path / "design.json").write_text(DESIGN.to_json())
    assert load_plan(tmp_path) == DESIGN.plan
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver/plan.json").write_text(FULL.plan.to_json())
    assert load_plan(tmp_path) == FULL.plan


def test_a_file_may_hold_something_else(tmp_path):
    with pytest.raises(ValueError, match=r"has no plan\.json; is it the folder of a build\?$"):
        load_plan(tmp_path)
    file = tmp_path / "net.json"
    file.write_text(NET.to_json())
    with pytest.raises(ValueError, match=r"net\.json holds a Network, not a Plan or a Design$"):
        st.connect(file, "simulation")
    with pytest.raises(
        FileNotFoundError, match=r"^There is no .*none\.json: name the folder that a"
    ):
        st.connect(tmp_path / "none.json", "simulation")
    with pytest.raises(TypeError, match=r"^design must be a Design, a Plan or a path, not 7$"):
        st.connect(7, "simulation")


@pytest.mark.parametrize("to", ["", "simulate", "uio:", "jtag:0", 7, None])
def test_unknown_ways_are_answered_with_those_there_are(to):
    with pytest.raises(
        (TypeError, ValueError),
        match=r'^to must be "simulation", "pynq:FILE\.bit", .*, or a Bus, not',
    ):
        st.connect(DESIGN, to)


@pytest.mark.parametrize(
    "to, message",
    [
        ("simulation:fast", 'to must be "simulation", not "simulation:fast"'),
        ("pynq", 'to must name the bitstream, such as "pynq:trainer.bit", not "pynq"'),
        ("uart", 'to must name the port, such as "uart:/dev/ttyUSB0", not "uart"'),
    ],
)
def test_ways_are_whole(to, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        st.connect(DESIGN, to)


def test_weights_are_initial_or_kept():
    with pytest.raises(
        ValueError,
        match=r'^weights must be "initial" or "keep", not "mine"$'.replace('"mine"', "'mine'"),
    ):
        st.connect(DESIGN, "simulation", weights="mine")


def test_a_closed_trainer_says_so():
    bus = SimulatedBus(DESIGN.plan)
    with st.connect(DESIGN, bus) as trainer:
        trainer.predict(samples(1)[0])
    trainer.close()
    with pytest.raises(st.BusError, match=r"^The trainer was closed; connect anew$"):
        trainer.predict(samples(1)[0])


def test_values_that_would_be_refused_are_not_written():
    """Where the processor itself writes, a refusal would end the process."""
    bus = SimulatedBus(DESIGN.plan)
    device = BusDevice(DESIGN.plan, bus)
    for register, fields, text in (
        ("BATCH", {"samples": 5}, "BATCH.samples takes 1 to 4, not 5"),
        ("PACKET", {"samples": 0}, "PACKET.samples takes 1 to 65535, not 0"),
        ("CONTROL", {"mode": 3}, "CONTROL.mode takes 0 to 2, not 3"),
    ):
        with pytest.raises(ValueError, match=f"^{text}$"):
            device.write(register, **fields)
    assert device.read("EVENTS") == 0


def test_results_of_other_samples_are_told():
    bus = SimulatedBus(DESIGN.plan)
    trainer = st.connect(DESIGN, bus)
    exchange = bus.exchange
    bus.exchange = lambda packet, size: np.roll(
        exchange(packet, size), trainer.device.format.result_bytes
    )
    with pytest.raises(
        st.BusError, match=r"^Results came that are of other samples\. The trainer was reset"
    ):
        trainer.device.run(np.zeros((3, 1, 4, 4), int), labelled([0, 1, 2]))


def labelled(labels):
    from streamtrain.host.trainer import training_commands

    return training_commands(DESIGN.plan, np.array(labels), 1)
