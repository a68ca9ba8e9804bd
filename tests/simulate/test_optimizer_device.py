"""Momentum, weight decay and clipping in compiled RTL: a network that compiles in seconds."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.host.trainer import Trainer, encode_samples, training_commands
from streamtrain.pipeline.plan import lower
from streamtrain.simulate import SimulatedDevice, compare

pytestmark = pytest.mark.xdist_group("simulation with momentum")

NETWORK = st.Network(
    (1, 4, 4),
    [st.Conv2d(2, 3), st.MaxPool2d(2), st.Flatten(), st.Linear(3)],
    optimizer=st.SGD(2**-4, momentum=0.9, weight_decay=0.01, clip=0.5),
)
PLAN = lower(NETWORK, {"conv1": (1, 1, 3), "linear1": (3, 2, 1)}, in_flight=2, max_batch=4)


@pytest.fixture(scope="module")
def device():
    return SimulatedDevice(PLAN, stall=0.1)


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    return rng.random((24, 1, 4, 4)), rng.integers(0, 3, 24)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, codes in expected.items():
        np.testing.assert_array_equal(found[name], codes)


def test_rtl_goes_on_where_golden_stopped(device, samples):
    golden = Trainer(PLAN, Golden(PLAN))
    simulated = Trainer(PLAN, device)
    golden.fit(*samples, lr=st.StepLR(2**-4, 8, 0.5))
    simulated.load_state_dict(golden.state_dict())
    simulated.load_optimizer_state(golden.optimizer_state())
    same(simulated.optimizer_state(), golden.optimizer_state())
    for trainer in (golden, simulated):
        trainer.fit(*samples, batch_size=3, momentum=0.5, clip=0.25)
    same(simulated.state_dict(), golden.state_dict())
    same(simulated.optimizer_state(), golden.optimizer_state())
    assert simulated.saturations()["conv1"].keys() == golden.saturations()["conv1"].keys()


def test_weights_are_written_without_velocities(device, samples):
    trainer = Trainer(PLAN, device)
    trainer.fit(*samples)
    before = trainer.optimizer_state()
    trainer.load_state_dict({name: codes + 1 for name, codes in trainer.state_dict().items()})
    same(trainer.optimizer_state(), before)
    assert any(codes.any() for codes in before.values())


def test_a_wrong_velocity_is_noticed(device, samples):
    x, y = samples
    codes = encode_samples(PLAN, x)
    commands = training_commands(PLAN, y, 1)
    assert compare(device, codes, commands).bit_exact
    golden = Golden(PLAN)
    state = {name: codes.copy() for name, codes in device.read_optimizer().items()}
    state["linear1.weight.velocity"][2, 5] ^= 1 << 12
    golden.write_weights(device.read_weights())
    golden.write_optimizer(state)
    result = compare(device, codes, commands, golden=golden)
    assert (result.bit_exact, result.steps) == (False, 0)
