"""Cycles of a training step, on a network that compiles in seconds."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.host.trainer import training_commands
from streamtrain.pipeline.plan import lower
from streamtrain.simulate import (
    HangError,
    SimulatedDevice,
    count_cycles,
    cycles_per_sample,
    steady_samples,
)

pytestmark = pytest.mark.xdist_group("tiny simulations")

# As in test_simulation.py, so that there is one model to compile.
NETWORK = st.Network(
    (1, 6, 6),
    [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(3)],
    optimizer=st.SGD(2**-5),
)
PLAN = lower(NETWORK, {"conv1": (2, 1, 9), "linear1": (3, 2, 1)}, in_flight=2, max_batch=4)


@pytest.fixture(scope="module")
def device():
    return SimulatedDevice(PLAN)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_few_samples_tell_what_many_take(device, batch):
    counted = count_cycles(PLAN, batch)
    x, commands, settle = steady_samples(PLAN, 60, batch)
    assert (len(x), settle) == (60 + batch, batch)
    ends = device.run(x, commands).cycles
    assert counted.batch == batch
    assert counted.samples >= 8 and counted.samples % batch == 0
    assert counted.cycles == np.diff(ends[batch - 1 :: batch])[5:].mean() / batch
    assert counted.spread == 0  # the steady state


def test_updates_are_seen_when_the_last_weight_has_changed(device):
    """Looked at through another window: the cycle in which an element of the memory changes."""
    x, y = np.full((1, 1, 6, 6), 1000), np.array([1])
    commands = training_commands(PLAN, y, 1)
    weights = PLAN.encode_weights(NETWORK.initial_weights())

    def again(run, **options):
        device.reset()
        device.write_weights(weights)
        begin = device.cycle
        return begin, run(x, commands, **options)

    begin, (results, updates) = again(device.run_timed)
    assert updates.shape == (1, 2)
    assert (updates[0] > results.cycles[0]).all()
    lags = []
    for number, memory in enumerate(device.memories):
        if memory.what == "words":
            changes = [
                again(device.last_change, memory=number, address=address, lane=lane)[1]
                for address in range(memory.depth)
                for lane in range(PLAN.stages[memory.stage].multipliers)
            ]
            last = max(change for change in changes if change is not None)
            lags.append(int(updates[0, memory.stage] - begin - last))
    assert lags == [lags[0]] * 2  # the same registers in each stage
    assert 0 <= lags[0] <= 4


def test_missing_updates_are_a_hang(device, monkeypatch):
    x, commands, _ = steady_samples(PLAN, 4)
    monkeypatch.setattr(device, "_samples", lambda x, commands, updates: ("no results", None))
    with pytest.raises(HangError, match=r"^Stages updated their weights \[0, 0\] times, not \[5, 5\]$"):
        device.run_timed(x, commands)


def test_samples_are_used_again_when_there_are_too_few():
    x = np.arange(3 * 36).reshape(3, 1, 6, 6) / 108
    codes, commands, settle = steady_samples(PLAN, 5, 4, settle=5, x=x, y=np.array([0, 1, 2]))
    assert (len(codes), settle) == (16, 8)
    np.testing.assert_array_equal(commands.label, np.arange(16) % 3)
    np.testing.assert_array_equal(commands.update, np.arange(16) % 4 == 3)
    np.testing.assert_array_equal(codes[3:6], codes[:3])


def test_cycles_are_a_mean_over_what_is_counted():
    assert cycles_per_sample(np.array([90, 100, 107, 114, 122]), 2) == pytest.approx(22 / 3)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (0, ValueError, r"^Batch must be at least 1, not 0$"),
        (5, ValueError, r"^Mini-batch has 5 samples, but the design takes 4"),
        (1.5, TypeError, "float"),
    ],
)
def test_refuses_other_batches(batch, error, message):
    with pytest.raises(error, match=message):
        count_cycles(PLAN, batch)
