"""The whole IP, compiled: packets and registers against the golden model, and against misuse."""

from dataclasses import replace

import numpy as np
import pytest

import streamtrain as st
from streamtrain.bus.axi import OKAY, SLVERR
from streamtrain.bus.window import seeded_states
from streamtrain.host.bus_device import BusDevice, BusError
from streamtrain.host.trainer import Trainer, training_commands
from streamtrain.numeric import Round
from streamtrain.simulate import SimulatedBus, count_cycles

pytestmark = pytest.mark.xdist_group("tiny simulations")

LAYERS = [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(3)]
FOLDINGS = {"conv1": (2, 1, 9), "linear1": (3, 2, 1)}
PLAIN = st.plan(
    st.Network((1, 6, 6), LAYERS, optimizer=st.SGD(2**-5)), foldings=FOLDINGS, max_batch=4
)
FULL = st.plan(
    st.Network(
        (1, 6, 6),
        LAYERS,
        optimizer=st.SGD(2**-5, momentum=0.75, weight_decay=2**-6, clip=0.5),
    ),
    foldings=FOLDINGS,
    numbers=st.Numbers(round_weights=Round.STOCHASTIC),
    max_batch=4,
)


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, 1, 6, 6)), rng.integers(0, 3, count)


def connected(design, **options):
    bus = SimulatedBus(design.plan, **options)
    return Trainer(design.plan, BusDevice(design.plan, bus))


def assert_equal_state(one, other):
    for mine, its in (
        (one.state_dict(), other.state_dict()),
        (one.optimizer_state(), other.optimizer_state()),
    ):
        assert mine.keys() == its.keys()
        for name, codes in mine.items():
            np.testing.assert_array_equal(codes, its[name], err_msg=name)
    assert one.device.read_random() == other.device.read_random()


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("design", [PLAIN, FULL], ids=["plain", "all terms"])
def test_training_equals_golden(design, stall):
    x, y = samples(41)
    trainer, golden = connected(design, stall=stall), design.golden()
    trainer.load_state_dict(golden.state_dict())
    for batch, lr, frozen in ((1, None, ()), (3, 2**-6, ()), (4, None, ("conv1",)), (1, 2**-6, ())):
        options = {"batch_size": batch, "lr": lr, "frozen": frozen, "progress": False}
        mine, its = trainer.fit(x, y, **options), golden.fit(x, y, **options)
        np.testing.assert_array_equal(mine.losses, its.losses)
        np.testing.assert_array_equal(mine.correct, its.correct)
    assert_equal_state(trainer, golden)
    assert trainer.evaluate(x, y, progress=False) == golden.evaluate(x, y, progress=False)
    np.testing.assert_array_equal(trainer.predict(x), golden.predict(x))
    assert trainer.saturations() == golden.saturations()
    counters = trainer.device.counters()
    assert counters["samples"] == 6 * len(x)
    assert counters["dropped"] == 0


def test_counters_are_those_of_the_samples():
    x, y = samples(20)
    trainer = connected(PLAIN)
    history = trainer.fit(x, y, progress=False)
    counters = trainer.device.counters()
    assert counters["samples"] == 20
    assert counters["correct"] == history.correct.sum()
    assert counters["loss"] == round(history.losses.sum() * 4096)
    assert 0 < counters["starved"] < counters["cycles"]
    trainer.predict(x)  # labels do not matter, so nothing is right or wrong
    assert trainer.device.counters()["correct"] == counters["correct"]
    trainer.device.reset()
    assert trainer.device.counters()["samples"] == 0


def test_a_checkpoint_goes_through_the_buses(tmp_path):
    x, y = samples(12)
    trainer, golden = connected(FULL), FULL.golden()
    trainer.load_state_dict(golden.state_dict())
    trainer.fit(x, y, batch_size=3, progress=False)
    trainer.save(tmp_path / "half.st")
    golden.load(tmp_path / "half.st")
    assert_equal_state(trainer, golden)
    trainer.fit(x, y, batch_size=3, progress=False)
    golden.fit(x, y, batch_size=3, progress=False)
    assert_equal_state(trainer, golden)


def test_seed_fills_the_random_bits():
    trainer = connected(FULL)
    trainer.device.write("SEED", seed=0x12345678)
    assert trainer.device.read_random() == seeded_states(FULL.plan, 0x12345678)
    assert trainer.device.read("SEED") == 0x12345678
    with pytest.raises(BusError, match="refuses 0x00000000 at address 0x04c"):
        trainer.device.bus.write(0x04C, 0)
    with pytest.raises(ValueError, match=r"^SEED\.seed takes 1 to 4294967295, not 0$"):
        trainer.device.write("SEED", seed=0)


def test_mini_batches_may_be_given_in_parts():
    x, y = samples(8)
    trainer, golden = connected(PLAIN), PLAIN.golden()
    trainer.load_state_dict(golden.state_dict())
    commands = training_commands(PLAIN.plan, y, 4, None, ())
    codes = PLAIN.plan.stages[0].input.encode(x)
    for device in (trainer.device, golden.device):
        for part in (slice(0, 3), slice(3, 6), slice(6, 8)):
            device.run(codes[part], commands[part])
    assert_equal_state(trainer, golden)
    endless = replace(commands, update=np.zeros(8, int))
    with pytest.raises(ValueError, match=r"^A mini-batch has 8 samples, but the design takes 4; "):
        trainer.device.run(codes, endless)


def test_a_stream_that_keeps_up_costs_no_cycle():
    x, _ = samples(40)
    trainer = connected(PLAIN)
    device = trainer.device
    device.write("PACKET", samples=len(x))
    device.write("CONTROL", run=1, mode=2)
    packed = device.format.pack(PLAIN.plan.stages[0].input.encode(x), np.zeros(len(x), int))
    words = packed.reshape(-1, 4)
    (_, _, cycles), _ = device.bus.transfer(
        words,
        np.full(len(words), 0xF),
        np.arange(len(words)) == len(words) - 1,
        len(x) * device.format.result_words,
    )
    steps = np.diff(cycles[:: device.format.result_words])[5:]
    assert steps.mean() <= 1.03 * count_cycles(PLAIN.plan).cycles


@pytest.fixture
def bus():
    return SimulatedBus(PLAIN.plan)


def test_what_is_not_there_is_refused_and_changes_nothing(bus):
    device = BusDevice(PLAIN.plan, bus)
    trainer = Trainer(PLAIN.plan, device)
    before = trainer.state_dict()
    for address, value in (
        (0x000, 1),  # read only
        (0x0FC, 1),  # no register
        (0x034, 5),  # a batch that is too large
        (0x034, 0),
        (0x020, 6),  # mode 3
        (0x038, 200),  # a mantissa above one
        (0x0C0, 2),  # layer 2 of two
        (0x0C0, 1 << 8),  # velocities without momentum
        (0x0C4, 7),  # the window is closed
    ):
        assert bus.access(address, value)[0] == SLVERR, hex(address)
    assert bus.access(0x0C4)[0] == SLVERR
    assert bus.access(0x034, 2, strobe=0)[0] == OKAY
    assert device.read("BATCH") == 1
    assert device.read("EVENTS", "refused") == 1
    after = trainer.state_dict()
    assert all((after[name] == codes).all() for name, codes in before.items())


def test_a_bad_packet_is_reported_and_trains_nothing(bus):
    device = BusDevice(PLAIN.plan, bus)
    trainer, (x, y) = Trainer(PLAIN.plan, device), samples(4)
    before = trainer.state_dict()
    device.write("CONTROL", run=1, mode=2)
    packed = device.format.pack(PLAIN.plan.stages[0].input.encode(x[:1]), y[:1])
    words = packed.reshape(-1, 4)
    count = len(words)
    last = np.arange(count) == count - 1
    whole = np.full(count, 0xF)

    def give(data, keep, last, event):
        bus.transfer(data, keep, last, 0, patience=50)
        assert device.read("EVENTS", event) == 1
        device.write("EVENTS", **{event: 1})

    give(words[:-1], whole[1:], last[1:], "short")
    bus.transfer(words, whole, 0 * last, 0, patience=50)
    assert device.read("STATUS", "receiving") == 1
    give(words[:1], whole[:1], [1], "long")
    holes = whole.copy()
    holes[3] = 0x7
    give(words, holes, last, "keep")
    unknown = words.copy()
    unknown[0] = [3, 0, 0, 0]
    give(unknown, whole, last, "label")
    assert device.counters()["dropped"] == 4
    assert device.counters()["samples"] == 0
    after = trainer.state_dict()
    assert all((after[name] == codes).all() for name, codes in before.items())
    golden = PLAIN.golden()
    golden.load_state_dict(after)
    np.testing.assert_array_equal(
        trainer.fit(x, y, progress=False).losses, golden.fit(x, y, progress=False).losses
    )


def results_of(bus, device, packets, count):
    """Send words with TLAST where ``packets`` end, and return (labels, TLAST) of the results' last words."""
    words = np.concatenate(packets)
    last = np.zeros(len(words), int)
    last[np.cumsum([len(packet) for packet in packets]) - 1] = 1
    (data, ends, _), _ = bus.transfer(
        words, np.full(len(words), 0xF), last, count * device.format.result_words
    )
    _, labels = device.format.unpack(data)
    ends = ends.reshape(count, -1)
    assert not ends[:, :-1].any()
    return labels.tolist(), ends[:, -1].tolist()


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_each_packet_of_which_something_counts_has_one_packet_of_results(stall):
    """TLAST is on the last result of a packet, wherever it was cut, and by what."""
    bus = SimulatedBus(PLAIN.plan, stall=stall)
    device, (x, _) = BusDevice(PLAIN.plan, bus), samples(4)
    device.write("PACKET", samples=4)
    device.write("CONTROL", run=1, mode=2)
    labels = [0, 1, 2, 1]
    packed = device.format.pack(PLAIN.plan.stages[0].input.encode(x), labels).reshape(4, -1, 4)
    one, two, three, four = packed
    unknown = three.copy()
    unknown[0] = [3, 0, 0, 0]
    whole = [one, two, three, four]
    packets = {
        "whole": (whole, 4),
        "ended in the third": ([one, two, three[:5]], 2),
        "ended behind the third": ([one, two, three], 2),
        "ended in the first": ([one[:5]], 0),
        "a label that is no class": ([one, two, unknown, four], 2),
        "no end behind the fourth": ([*whole, one], 3),
        "whole again": (whole, 4),
    }
    found, ends = results_of(
        bus,
        device,
        [np.concatenate(parts) for parts, _ in packets.values()],
        sum(count for _, count in packets.values()),
    )
    expected = [
        (labels[n], n == count - 1) for _, count in packets.values() for n in range(count)
    ]
    assert list(zip(found, ends, strict=True)) == expected
    assert device.counters()["dropped"] == 5


def test_the_last_word_of_a_result_waits_for_the_next_sample_and_not_for_longer(bus):
    device, (x, _) = BusDevice(PLAIN.plan, bus), samples(2)
    words, size = device.format.result_words, device.format.sample_bytes // 4
    device.write("PACKET", samples=2)
    device.write("CONTROL", run=1, mode=2)
    packed = device.format.pack(PLAIN.plan.stages[0].input.encode(x), [0, 1]).reshape(-1, 4)
    keep = np.full(size, 0xF)
    (_, ends, _), _ = bus.transfer(packed[:size], keep, np.zeros(size), words)
    assert len(ends) == words - 1
    assert device.read("STATUS", "busy") == 0  # it is trained with, and the window may open
    device.read_weights()
    blocked = device.counters()["blocked"]
    (_, ends, _), _ = bus.transfer(packed[size:], keep, np.arange(size) == size - 1, 1 + words)
    assert ends.tolist() == [0] * words + [1]
    assert device.counters()["blocked"] == blocked


def test_a_reset_ends_the_packet_of_results_that_was_begun(bus):
    device, (x, y) = BusDevice(PLAIN.plan, bus), samples(2)
    trainer = Trainer(PLAIN.plan, device)
    words, size = device.format.result_words, device.format.sample_bytes // 4
    device.write("PACKET", samples=2)
    device.write("CONTROL", run=1, mode=0)
    packed = device.format.pack(PLAIN.plan.stages[0].input.encode(x), [0, 1]).reshape(-1, 4)
    bus.transfer(packed[:size], np.full(size, 0xF), np.zeros(size), 1)
    device.write("CONTROL", run=1, mode=0, reset=1)
    nothing = np.zeros(0, int)
    (_, ends, _), _ = bus.transfer(nothing, nothing, nothing, words)
    assert ends.tolist() == [0] * (words - 2) + [1]
    device.reset()
    golden = PLAIN.golden()
    golden.load_state_dict(trainer.state_dict())
    assert trainer.evaluate(x, y, progress=False) == golden.evaluate(x, y, progress=False)


def test_interrupt_says_when_all_is_done(bus):
    device = BusDevice(PLAIN.plan, bus)
    x, y = samples(1)
    device.write("INTERRUPTS", done=1)
    assert not bus.irq
    Trainer(PLAIN.plan, device).fit(x, y, progress=False)
    bus.wait(500)
    assert bus.irq
    device.write("EVENTS", done=1)
    assert not bus.irq


def test_reset_in_mid_sample(bus):
    device = BusDevice(PLAIN.plan, bus)
    trainer, (x, y) = Trainer(PLAIN.plan, device), samples(3)
    device.write("CONTROL", run=1, mode=2)
    packed = device.format.pack(PLAIN.plan.stages[0].input.encode(x[:1]), y[:1]).reshape(-1, 4)
    bus.transfer(packed[:5], np.full(5, 0xF), np.zeros(5), 0)
    device.write("CONTROL", reset=1, clear=1)
    assert device.read("STATUS", "receiving") == 1  # the rest of the packet is yet to come
    bus.transfer(packed[5:], np.full(len(packed) - 5, 0xF), np.arange(len(packed) - 5) == len(packed) - 6, 0)
    assert device.read("STATUS", "receiving") == 0
    assert device.counters()["dropped"] == 0  # it was counted before
    golden = PLAIN.golden()
    golden.load_state_dict(trainer.state_dict())
    trainer.fit(x, y, progress=False)
    golden.fit(x, y, progress=False)
    assert_equal_state(trainer, golden)


def test_another_design_is_refused(bus):
    other = st.plan(PLAIN.network, foldings={"conv1": (1, 1, 9), "linear1": (3, 2, 1)})
    with pytest.raises(BusError, match=r"made from another design: its hash is [0-9a-f]{16}"):
        BusDevice(other.plan, bus)
