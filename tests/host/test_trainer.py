import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.host.device import Op
from streamtrain.host.results import History
from streamtrain.host.trainer import Trainer


@pytest.fixture
def trainer(plan, device):
    return Trainer(plan, device)


@pytest.fixture
def golden(plan):
    return Trainer(plan, Golden(plan))


# -- fit: what the device is given --------------------------------------------------------------------


def test_fit_trains_on_all_samples_in_order(trainer, device, samples):
    x, y = samples
    history = trainer.fit(x, y, epochs=2)
    np.testing.assert_array_equal(device.x, trainer.plan.stages[0].input.encode([*x, *x]))
    assert device.commands("op") == [Op.TRAIN] * 42
    assert device.commands("label") == [*y, *y]
    assert device.commands("update") == [1] * 42
    np.testing.assert_array_equal(history.losses, np.arange(42))
    np.testing.assert_array_equal(history.correct, np.array([*y, *y]) == 1)
    np.testing.assert_array_equal(history.cycles, np.arange(1, 43) * 100 + 7)
    assert history.cycles_per_sample == 100
    assert history.epochs == 2


def test_mini_batches_end_with_an_update_and_so_does_an_epoch(trainer, device, samples):
    trainer.fit(*samples, epochs=2, batch_size=8)
    epoch = [0] * 7 + [1] + [0] * 7 + [1] + [0] * 4 + [1]
    assert device.commands("update") == epoch * 2
    assert all(commands.update[-1] == 1 for commands in device.runs)
    whole, rest = trainer.plan.rate_code(2**-4, 8), trainer.plan.rate_code(2**-4, 5)
    rates = list(zip(device.commands("mantissa"), device.commands("shift"), strict=True))
    assert rates == ([whole] * 16 + [rest] * 5) * 2


def test_a_batch_larger_than_the_samples_is_their_mean(trainer, device, samples):
    x, y = samples
    trainer.fit(x[:3], y[:3], batch_size=8)
    assert device.commands("update") == [0, 0, 1]
    assert (device.runs[0].mantissa[0], device.runs[0].shift[0]) == trainer.plan.rate_code(2**-4, 3)


def test_learning_rate_can_change_from_call_to_call(trainer, device, samples):
    trainer.fit(*samples, lr=2**-5)
    trainer.fit(*samples, lr=2**-6)
    codes = [trainer.plan.rate_code(lr) for lr in (2**-5, 2**-6)]
    rates = list(zip(device.commands("mantissa"), device.commands("shift"), strict=True))
    assert rates == [codes[0]] * 21 + [codes[1]] * 21


def test_shuffling_gives_each_epoch_an_order_that_the_seed_decides(plan, device, samples):
    def labels(seed):
        device.runs.clear()
        Trainer(plan, device).fit(np.zeros((21, 2, 4, 6)), y, 2, shuffle=True, seed=seed)
        return device.commands("label")

    y = samples[1]
    first = labels(1)
    assert first == labels(1) != labels(2)
    assert sorted(first[:21]) == sorted(first[21:]) == sorted(y.tolist())
    assert first[:21] != first[21:]


def test_uint8_is_scaled_by_255(trainer, device):
    x = np.arange(3 * 48, dtype=np.uint8).reshape(3, 2, 4, 6)
    trainer.fit(x, [0, 1, 2])
    np.testing.assert_array_equal(device.x, trainer.plan.stages[0].input.encode(x / 255))


def test_floats_saturate(trainer, device):
    trainer.predict(np.full((1, 2, 4, 6), -1e9))
    assert np.all(device.x[0] == trainer.plan.stages[0].input.codes[0])


def test_chunks_grow_while_they_are_quick(trainer, device):
    trainer.predict(np.zeros((1000, 2, 4, 6)))
    sizes = [len(commands) for commands in device.runs]
    assert sizes[:4] == [1, 4, 16, 64]
    assert sum(sizes) == 1000


def test_fit_without_a_clock_has_no_cycles(plan, device, samples):
    device.clock = False
    history = Trainer(plan, device).fit(*samples)
    assert history.cycles is None
    assert history.cycles_per_sample is None


# -- fit: watching and stopping -------------------------------------------------------------------------


def test_callback_sees_the_history_grow(trainer, samples):
    seen = []
    history = trainer.fit(*samples, callback=seen.append)
    lengths = [len(part) for part in seen]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == 21
    np.testing.assert_array_equal(seen[0].losses, history.losses[: lengths[0]])
    assert all(isinstance(part, History) for part in seen)


def test_callback_can_stop(trainer, device, samples):
    def stop(history):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(*samples, batch_size=4, callback=stop)
    assert device.trained == 4


@pytest.mark.parametrize("chunk", [1, 2])
def test_interrupt_waits_for_the_chunk(trainer, device, samples, chunk):
    def interrupt():
        if len(device.runs) == chunk:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    device.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*samples, batch_size=4)
    assert len(device.runs) == chunk
    assert device.commands("update")[-1] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_second_interrupt_does_not_wait(trainer, device, samples):
    reached = []

    def interrupt():
        signal.raise_signal(signal.SIGINT)
        reached.append("first")
        signal.raise_signal(signal.SIGINT)
        reached.append("second")

    device.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*samples)
    assert reached == ["first"]


def test_interrupt_of_the_last_chunk_is_not_lost(trainer, device, samples):
    device.during = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.step(samples[0][:2], samples[1][:2])
    assert device.trained == 2


def test_fit_works_outside_the_main_thread(trainer, device, samples):
    thread = threading.Thread(target=trainer.fit, args=samples)
    thread.start()
    thread.join()
    assert device.trained == 21


def test_progress_shows_speed_loss_and_accuracy(trainer, samples, capsys, monkeypatch):
    monkeypatch.setattr("streamtrain.host.progress._PATIENCE_SECONDS", 0)
    trainer.fit(samples[0], np.ones(21, int))
    trainer.predict(samples[0])
    out, err = capsys.readouterr()
    assert out == ""
    assert "training" in err
    assert "samples/s  loss 10.000  acc. 100.0%" in err
    assert "predicting" in err


@pytest.mark.parametrize("patience, progress", [(0, False), (60, True)])
def test_progress_stays_away(trainer, samples, capsys, monkeypatch, patience, progress):
    monkeypatch.setattr("streamtrain.host.progress._PATIENCE_SECONDS", patience)
    trainer.fit(*samples, progress=progress)
    assert capsys.readouterr() == ("", "")


# -- step, evaluate, predict ----------------------------------------------------------------------------


def test_step_is_one_mini_batch(trainer, device, samples):
    x, y = samples
    assert trainer.step(x[:1], y[:1]).cycles == 100
    step = trainer.step(x[:4], y[:4], lr=2**-5)
    assert device.commands("update") == [1, 0, 0, 0, 1]
    code = trainer.plan.rate_code(2**-5, 4)
    assert (device.runs[1].mantissa[0], device.runs[1].shift[0]) == code
    assert step.loss == np.mean([1, 2, 3, 4])
    assert step.predicted.tolist() == [1] * 4
    assert step.cycles == 400


def test_step_without_a_clock_has_no_cycles(trainer, device, samples):
    device.clock = False
    assert trainer.step(samples[0][:1], samples[1][:1]).cycles is None


def test_evaluate_counts(trainer, device, samples):
    x, _ = samples
    result = trainer.evaluate(x, [1] * 7 + [0] * 14)
    assert (result.loss, result.accuracy, result.count) == (10, 7 / 21, 21)
    assert device.commands("op") == [Op.EVALUATE] * 21
    assert device.trained == 0


def test_predict_asks_for_classes_only(trainer, device, samples):
    assert trainer.predict(samples[0]).tolist() == [1] * 21
    assert device.commands("op") == [Op.INFER] * 21


def test_golden_learns(golden, plan):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 300)
    x = np.zeros((300, 2, 4, 6))
    x[np.arange(300), y % 2, y // 2] = 1  # a class is a row of one channel
    before = golden.evaluate(x, y)
    history = golden.fit(x, y, epochs=3, batch_size=2, shuffle=True)
    after = golden.evaluate(x, y)
    assert history.losses[-100:].mean() < history.losses[:100].mean() / 2
    assert after.loss < before.loss / 2
    assert after.accuracy == (golden.predict(x) == y).mean() > 0.9
    assert len(history) == 900


def test_steps_and_one_fit_are_the_same_training(plan, samples):
    x, y = samples
    one, other = Trainer(plan, Golden(plan)), Trainer(plan, Golden(plan))
    history = one.fit(x, y, batch_size=4)
    steps = [other.step(x[at : at + 4], y[at : at + 4]) for at in range(0, 21, 4)]
    assert steps[0].loss == history.losses[:4].mean()
    for name, codes in one.state_dict().items():
        np.testing.assert_array_equal(codes, other.state_dict()[name])


# -- state ----------------------------------------------------------------------------------------------


def test_state_goes_from_trainer_to_trainer(golden, plan, samples):
    golden.fit(*samples)
    state = golden.state_dict()
    assert {name: (codes.shape, codes.dtype.str) for name, codes in state.items()} == {
        "conv1.weight": ((4, 2, 3, 3), "<i8"),
        "conv1.bias": ((4,), "<i8"),
        "linear1.weight": ((5, 24), "<i8"),
    }
    other = Trainer(plan, Golden(plan))
    other.load_state_dict({name: codes.astype(np.int16) for name, codes in state.items()})
    assert other.evaluate(*samples) == golden.evaluate(*samples)


def test_state_is_a_copy(trainer, device):
    trainer.state_dict()["conv1.bias"][:] = 7
    assert not trainer.device.weights["conv1.bias"].any()
    state = trainer.state_dict()
    trainer.load_state_dict(state)
    state["conv1.bias"][:] = 7
    assert not trainer.device.weights["conv1.bias"].any()


def test_extreme_codes_are_loaded(trainer):
    state = trainer.state_dict()
    state["conv1.bias"][:2] = -(2**15), 2**15 - 1
    trainer.load_state_dict(state)
    assert trainer.state_dict()["conv1.bias"].tolist() == [-(2**15), 2**15 - 1, 0, 0]


def test_state_of_a_float_twin_is_real(plan, samples):
    twin = Trainer(plan, Golden(plan, exact=False))
    twin.fit(*samples)
    state = twin.state_dict()
    assert state["conv1.weight"].dtype == np.float64
    other = Trainer(plan, Golden(plan, exact=False))
    other.load_state_dict(state)
    assert other.evaluate(*samples) == twin.evaluate(*samples)


@pytest.mark.parametrize(
    "name, codes, error, message",
    [
        ("conv2.weight", [0], ValueError, r"State has conv2.weight, but the network has conv1.weight, conv1.bias, linear1.weight"),
        ("linear1.weight", None, ValueError, r"State lacks linear1.weight \(5, 24\)"),
        ("conv1.bias", [0] * 3, ValueError, r"State has conv1.bias of \(3,\), but the network's is \(4,\)"),
        ("linear1.weight", np.zeros((24, 5), int), ValueError, r"State has linear1.weight of \(24, 5\)"),
        ("conv1.bias", [0.5] * 4, TypeError, r"State must be integer codes, but conv1.bias is float64; plan.encode_weights makes"),
        ("conv1.bias", [True] * 4, TypeError, r"conv1.bias is bool"),
        ("conv1.bias", [0, 0, 32768, 0], ValueError, r"State has code 32768 in conv1.bias at \(2,\), but fixed<16,3> has -32768 to 32767"),
        ("conv1.bias", [0, -32769, 0, 0], ValueError, r"State has code -32769 in conv1.bias at \(1,\)"),
    ],
)  # fmt: skip
def test_wrong_state_changes_nothing(trainer, device, name, codes, error, message):
    state = trainer.state_dict()
    before = trainer.state_dict()
    state["conv1.weight"] += 1
    if codes is None:
        del state[name]
    else:
        state[name] = np.asarray(codes)
    with pytest.raises(error, match=message):
        trainer.load_state_dict(state)
    for name, codes in trainer.state_dict().items():
        np.testing.assert_array_equal(codes, before[name])


def test_saturations_are_the_devices(trainer, device):
    assert trainer.saturations() == device.saturations()


# -- misuse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["fit", "step", "evaluate", "predict"])
@pytest.mark.parametrize(
    "x, error, message",
    [
        (np.zeros((2, 4, 6)), ValueError, r"^Samples must be \(samples, 2, 4, 6\), not \(2, 4, 6\)$"),
        (np.zeros((3, 4, 6, 2)), ValueError, r"^Samples must be \(samples, 2, 4, 6\), not \(3, 4, 6, 2\)$"),
        (np.float64(1), ValueError, r"^Samples must be \(samples, 2, 4, 6\), not \(\)$"),
        (np.zeros((0, 2, 4, 6)), ValueError, r"^There are no samples$"),
        (np.zeros((3, 2, 4, 6), int), TypeError, r"^Samples must be floats, or uint8 \(divided by 255\), not int64$"),
    ],
)  # fmt: skip
def test_rejects_samples(trainer, device, verb, x, error, message):
    labels = () if verb == "predict" else ([0] * (len(x) if x.ndim else 1),)
    with pytest.raises(error, match=message):
        getattr(trainer, verb)(x, *labels)
    assert not device.runs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rejects_what_is_no_number(trainer, device, samples, value):
    x, y = samples
    x[3, 1, 0, 5] = value
    message = rf"^Sample 3 has {value} at \(1, 0, 5\), but samples must be finite$"
    with pytest.raises(ValueError, match=message):
        trainer.fit(x, y)
    assert not device.runs


@pytest.mark.parametrize(
    "y, error, message",
    [
        ([0, 1, 5], ValueError, r"^Label of sample 2 is 5, but the network's classes are 0 to 4$"),
        ([0, -1, 0], ValueError, r"^Label of sample 1 is -1, but the network's classes are 0 to 4$"),
        ([0, 1], ValueError, r"one class index for each of 3 samples, \(3,\), not \(2,\)$"),
        (np.eye(3, 5), ValueError, r"\(3,\), not \(3, 5\)$"),
        ([0.0, 1.0, 2.0], TypeError, r"^Labels must be integers, not float64$"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["fit", "step", "evaluate"])
def test_rejects_labels(trainer, device, verb, y, error, message):
    with pytest.raises(error, match=message):
        getattr(trainer, verb)(np.zeros((3, 2, 4, 6)), y)
    assert not device.runs


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"epochs": 0}, ValueError, r"^epochs must be at least 1, not 0$"),
        ({"epochs": 1.5}, TypeError, r"^epochs must be an integer, not 1.5$"),
        ({"batch_size": 0}, ValueError, r"^batch_size must be at least 1, not 0$"),
        ({"batch_size": 16}, ValueError, r"^Mini-batch has 16 samples, but the design takes 8; plan it with max_batch=16$"),
        ({"lr": "fast"}, TypeError, r"^lr must be a number, not 'fast'$"),
        ({"lr": 0}, ValueError, r"^Learning rate 0 over a batch of 1 is 0 a sample"),
        ({"lr": 1e6}, ValueError, r"this design takes .* to "),
        ({"lr": float("nan")}, ValueError, r"^Learning rate nan"),
    ],
)  # fmt: skip
def test_rejects_arguments(trainer, device, samples, arguments, error, message):
    with pytest.raises(error, match=message):
        trainer.fit(*samples, **arguments)
    assert not device.runs


def test_rejects_a_step_larger_than_the_design_takes(trainer, samples):
    with pytest.raises(ValueError, match=r"^Mini-batch has 21 samples, but the design takes 8"):
        trainer.step(*samples)


def test_a_rate_out_of_range_for_the_last_batch_trains_nothing(trainer, device, samples):
    _, high = trainer.plan.rate_range
    with pytest.raises(ValueError, match="over a batch of 1 is"):
        trainer.fit(samples[0][:9], samples[1][:9], batch_size=8, lr=high * 4)
    assert not device.runs


def test_real_weights_become_codes_and_back():
    network = st.Network((1, 4, 4), [st.Conv2d(2, 3), st.Flatten(), st.Linear(3)])
    design = st.plan(network, multipliers=20)
    real = network.initial_weights(seed=5)
    trainer = design.golden()
    trainer.load_state_dict(design.plan.encode_weights(real))
    back = design.plan.decode_weights(trainer.state_dict())
    for name, values in real.items():
        np.testing.assert_allclose(back[name], values, atol=2**-14)


def test_layers_can_be_frozen_from_call_to_call(trainer, device, samples):
    x, y = samples
    trainer.fit(x, y, frozen=["linear1"])
    assert device.commands("frozen") == [0b10] * 21
    trainer.step(x[:4], y[:4], frozen=("conv1",))
    trainer.step(x[:4], y[:4])
    assert device.commands("frozen")[21:] == [0b01] * 4 + [0] * 4


@pytest.mark.parametrize(
    ("frozen", "error", "message"),
    [
        ("conv1", TypeError, r"^frozen must be a sequence of layer names, such as \['conv1'\]"),
        (
            ["conv3"],
            ValueError,
            r"^No layer with weights is named 'conv3' \(did you mean 'conv1'\?\)",
        ),
        (
            ["linear1", "conv1"],
            ValueError,
            r"^With conv1, linear1 frozen, no layer is left to train",
        ),
    ],
)
def test_rejects_what_cannot_be_frozen(trainer, device, samples, frozen, error, message):
    with pytest.raises(error, match=message):
        trainer.fit(*samples, frozen=frozen)
    assert not device.runs


def test_cycles_of_a_sample_do_not_depend_on_the_chunks(trainer, device, samples):
    """A device that is idle for 12 cycles before each chunk, as a pipeline is that has run empty."""
    x, y = samples
    run, chunks = device.run, []

    def run_after_a_pause(codes, commands):
        results = run(codes, commands)
        chunks.append(len(codes))
        return replace(results, cycles=results.cycles + 12 * len(chunks))

    device.run = run_after_a_pause
    history = trainer.fit(x, y, epochs=3, batch_size=3)
    assert len(chunks) > 1
    assert history.cycles_per_sample == 100
    assert history.cycles[-1] - history.cycles[0] > 100 * (len(history) - 1)
