"""A trainer whose network has momentum: values at run time, and what the optimiser remembers."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.host.trainer import Trainer
from streamtrain.pipeline.optimizer import update_codes
from streamtrain.pipeline.plan import lower

OWN = st.SGD(2**-5, momentum=0.5, weight_decay=0.01, clip=1.0)


def make(optimizer):
    layers = [st.Conv2d(4, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(5, bias=False)]
    net = st.Network((2, 4, 6), layers, optimizer=optimizer)
    return lower(net, lambda *layer: (1, 1, 1), max_batch=8)


@pytest.fixture
def plan():
    return make(OWN)


@pytest.fixture
def trainer(plan, device):
    return Trainer(plan, device)


@pytest.fixture
def golden(plan):
    return Trainer(plan, Golden(plan))


def test_a_schedule_is_asked_for_each_update(trainer, plan, device, samples):
    asked = []

    def schedule(step):
        asked.append(step)
        return 2**-5 / (1 + step)

    trainer.fit(*samples, epochs=2, batch_size=8, lr=schedule)  # of 21 samples
    assert asked == [0, 1, 2, 3, 4, 5]
    rates = list(zip(device.commands("mantissa"), device.commands("shift"), strict=True))
    expected = []
    for step, size in enumerate((8, 8, 5, 8, 8, 5)):
        expected += [plan.rate_code(schedule(step), size)] * size
    assert rates == expected


def test_weight_decay_and_clipping_follow_the_learning_rate(trainer, plan, device, samples):
    x, y = samples
    trainer.fit(x[:2], y[:2], lr=st.StepLR(2**-5, 1, 0.5))
    for field in ("momentum", "decay", "clip"):
        expected = [update_codes(plan, lr)[field] for lr in (2**-5, 2**-6)]
        assert device.commands(field) == expected


def test_values_can_be_given(trainer, plan, device, samples):
    values = {"momentum": 0.9, "weight_decay": 0, "clip": 0.25}
    trainer.fit(*samples, **values)
    trainer.step(samples[0][:1], samples[1][:1], **values)
    codes = update_codes(plan, 2**-5, **values)
    for field, code in codes.items():
        assert device.commands(field) == [code] * 22


def test_velocities_are_state(golden, samples):
    assert not any(codes.any() for codes in golden.optimizer_state().values())
    golden.fit(*samples)
    state, weights = golden.optimizer_state(), golden.state_dict()
    assert [*state] == [f"{name}.velocity" for name in weights]
    assert all(state[f"{name}.velocity"].shape == codes.shape for name, codes in weights.items())
    assert state["conv1.weight.velocity"].any() and state["conv1.bias.velocity"].any()

    other = Trainer(golden.plan, Golden(golden.plan))
    other.load_state_dict(weights)
    other.load_optimizer_state(state)
    for trainer in (golden, other):
        trainer.fit(*samples)
    for name, codes in golden.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], codes)


def test_weights_are_loaded_without_velocities(golden, samples):
    golden.fit(*samples)
    state = golden.optimizer_state()
    golden.load_state_dict({name: codes * 0 for name, codes in golden.state_dict().items()})
    for name, codes in golden.optimizer_state().items():
        np.testing.assert_array_equal(codes, state[name])


def test_without_momentum_nothing_is_remembered(samples):
    plan = make(st.SGD(2**-5))
    trainer = Trainer(plan, Golden(plan))
    trainer.fit(*samples)
    assert trainer.optimizer_state() == {}
    trainer.load_optimizer_state({})
    with pytest.raises(
        ValueError, match=r"^State has conv1\.bias\.velocity, but the network has none$"
    ):
        trainer.load_optimizer_state({"conv1.bias.velocity": np.zeros(4, np.int64)})


def test_a_checkpoint_has_velocities(golden, samples, tmp_path):
    golden.fit(*samples)
    golden.save(tmp_path / "checkpoint")
    other = Trainer(golden.plan, Golden(golden.plan))
    other.load(tmp_path / "checkpoint")
    for trainer in (golden, other):
        trainer.fit(*samples, batch_size=4)
    for read in (Trainer.state_dict, Trainer.optimizer_state):
        for name, codes in read(golden).items():
            np.testing.assert_array_equal(read(other)[name], codes)


def test_layers_that_are_frozen_for_some_samples_keep_their_velocities(golden, samples):
    golden.fit(*samples)
    before = golden.optimizer_state()
    golden.fit(*samples, frozen=["conv1"])
    for name, codes in golden.optimizer_state().items():
        assert (codes == before[name]).all() == name.startswith("conv1")


def test_frozen_layers_have_no_velocities(samples):
    plan = make(OWN)
    network = plan.network.freeze("conv1")
    plan = lower(network, lambda *layer: (1, 1, 1))
    trainer = Trainer(plan, Golden(plan))
    trainer.fit(*samples)
    assert [*trainer.optimizer_state()] == ["linear1.weight.velocity"]
    assert [stage.terms for stage in plan.stages] == [0, 2]


def test_momentum_learns_faster():
    digits = st.data.load_digits()
    layers = [st.Conv2d(8, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(10)]

    def loss(**options):
        net = st.Network((1, 8, 8), layers, optimizer=st.SGD(2**-10, **options))
        plan = lower(net, lambda *layer: (1, 1, 1))
        trainer = Trainer(plan, Golden(plan))
        trainer.fit(digits.train_x, digits.train_y, progress=False)
        return trainer.evaluate(digits.test_x, digits.test_y, progress=False).loss

    assert loss(momentum=0.9) < 0.6 * loss()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"lr": lambda step: "fast"}, TypeError, r"^lr must be a number for update 0, not 'fast'$"),
        ({"lr": lambda step: 2.0**-5 / 10**step}, ValueError, r"^Learning rate 3\.125e-"),
        ({"momentum": 1}, ValueError, r"^Momentum 1 is not 0 to 0\.999"),
        (
            {"clip": float("nan")},
            ValueError,
            r"^Clip nan at a learning rate of 0\.03125 is outside",
        ),
    ],
)
def test_refuses_values(golden, samples, values, error, message):
    before = golden.state_dict()
    with pytest.raises(error, match=message):
        golden.fit(*samples, **values)
    for name, codes in golden.state_dict().items():
        np.testing.assert_array_equal(codes, before[name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"conv1.bias.velocity": None}, ValueError, r"^State lacks conv1\.bias\.velocity \(4,\)$"),
        (
            {"conv1.bias.velocity": np.zeros(3, np.int64)},
            ValueError,
            r"^State has conv1\.bias\.velocity of \(3,\), but the network's is \(4,\)$",
        ),
        (
            {"conv1.bias.velocity": np.full(4, 2**17)},
            ValueError,
            r"^State has code 131072 in conv1\.bias\.velocity at \(0,\), but fixed<18,2> has -131072",
        ),
        ({"conv1.bias.velocity": np.zeros(4)}, TypeError, r"^State must be integer codes, but"),
    ],
)
def test_refuses_other_velocities(golden, change, error, message):
    state = golden.optimizer_state()
    state.update(change)
    state = {name: codes for name, codes in state.items() if codes is not None}
    with pytest.raises(error, match=message):
        golden.load_optimizer_state(state)
