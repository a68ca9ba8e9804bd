"""Compiling, running, and finding faults, on a network that compiles in seconds."""

from dataclasses import replace

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.host.device import Op
from streamtrain.host.trainer import training_commands
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline import generate
from streamtrain.pipeline.generate import generate_verilog
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.stage import TrainingStage
from streamtrain.pipeline.weights import WeightStore
from streamtrain.simulate import (
    CompileError,
    HangError,
    SimulatedDevice,
    SimulatedTrainer,
    compare,
    compiled,
    verify,
)

pytestmark = pytest.mark.xdist_group("tiny simulations")

NETWORK = st.Network(
    (1, 6, 6),
    [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(3)],
    optimizer=st.SGD(2**-5),
)
FOLDINGS = {"conv1": (2, 1, 9), "linear1": (3, 2, 1)}
PLAN = lower(NETWORK, FOLDINGS, in_flight=2, max_batch=4)


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2048, (count, 1, 6, 6)), rng.integers(0, 3, count)


@pytest.fixture(scope="module")
def device():
    return SimulatedDevice(PLAN)


def test_weights_come_back_as_they_were_written(device):
    rng = np.random.default_rng(3)
    codes = PLAN.stages[0].stored.codes
    weights = {
        name: rng.integers(codes[0], codes[-1] + 1, value.shape)
        for name, value in device.read_weights().items()
    }
    device.write_weights(weights)
    read = device.read_weights()
    assert read.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(read[name], value)


def test_modes_mix_between_samples(device):
    """Samples to train with, to evaluate and to infer follow one another without a pause."""
    x, y = samples(60)
    train = training_commands(PLAN, y, 4)
    op = np.random.default_rng(1).choice([Op.INFER, Op.EVALUATE, Op.TRAIN], 60)
    trained = np.cumsum(op == Op.TRAIN)
    update = ((op == Op.TRAIN) & (trained % 3 == 0)).astype(int)
    commands = replace(train, op=op, update=update)
    golden = Golden(PLAN)
    device.reset()
    device.write_weights(golden.read_weights())
    assert compare(device, x[:40], commands[:40], golden=golden).bit_exact
    results, expected = (
        runner.run(x[40:], commands[40:]) for runner in (device, golden)
    )
    np.testing.assert_array_equal(results.loss, expected.loss)
    assert not results.loss[op[40:] == Op.INFER].any()


def test_learning_rate_and_batch_change_between_samples(device):
    x, y = samples(24, seed=5)
    golden = Golden(PLAN)
    golden.write_weights(device.read_weights())
    for begin, batch, lr in ((0, 1, 2**-5), (6, 3, 2**-3), (12, 4, 0.011), (20, 2, 2**-9)):
        part = slice(begin, begin + 6 if batch < 4 else begin + 8)
        commands = training_commands(PLAN, y[part], batch, lr)
        assert compare(device, x[part], commands, golden=golden).bit_exact


def test_saturations_are_counted_alike(device):
    x, y = samples(20)
    x = np.full_like(x, PLAN.stages[0].input.codes[-1])
    golden = Golden(PLAN)
    wild = {name: np.full_like(codes, 30000) for name, codes in golden.read_weights().items()}
    device.reset()
    for runner in (device, golden):
        runner.write_weights(wild)
        runner.run(x, training_commands(PLAN, y, 4))
    assert device.saturations() == golden.saturations()
    assert device.saturations()["conv1"]["output"] > 0


@pytest.mark.parametrize(
    "numbers",
    [
        Numbers(
            weights=Fixed(8, 5),
            master=Fixed(24, 21),
            activations=Fixed(8, 3),
            errors=Fixed(16, 13),
        ),
        Numbers(
            weights=Fixed(18, 15),
            activations=Fixed(18, 13),
            logits=Fixed(18, 10),
            errors=Fixed(18, 15),
            round_activations=Round.STOCHASTIC,
            round_errors=Round.STOCHASTIC,
            round_weights=Round.STOCHASTIC,
        ),
        Numbers(
            weights=Fixed(12, 9),
            activations=Fixed(12, 8),
            round_activations=Round.TRUNCATE,
            round_errors=Round.NEAREST_EVEN,
            round_weights=Round.NEAREST_EVEN,
        ),
    ],
    ids=["8 bits, 24-bit master", "18 bits, stochastic", "12 bits, nearest even"],
)
def test_other_formats_are_bit_exact_too(numbers):
    plan = lower(NETWORK, {"conv1": (1, 1, 3), "linear1": (1, 6, 1)}, numbers, max_batch=2)
    x, y = samples(40)
    x %= numbers.activations.codes[-1]
    device = SimulatedDevice(plan, stall=0.2)
    golden = Golden(plan)
    for batch in (1, 2):
        result = compare(device, x, training_commands(plan, y, batch), golden=golden)
        assert result.bit_exact, str(result)
    assert device.saturations() == golden.saturations()


@pytest.mark.parametrize("change", [{"lutram_depth": 0}, {"lutram_depth": 256}, {"operand_bits": 18}])
def test_what_a_device_has_changes_neither_results_nor_cycles(device, change):
    plan = replace(PLAN, **change)
    assert generate_verilog(plan) != generate_verilog(PLAN)
    x, y = samples(40)
    commands = training_commands(PLAN, y, 4)
    other = SimulatedDevice(plan)
    took = []
    for runner in (device, other):
        golden = Golden(plan)
        runner.reset()
        runner.write_weights(golden.read_weights())
        assert compare(runner, x[:20], commands[:20], golden=golden).bit_exact
        begin = runner.cycle
        results = runner.run(x[20:], commands[20:])
        np.testing.assert_array_equal(results.loss, golden.run(x[20:], commands[20:]).loss)
        took.append(results.cycles - begin)
    np.testing.assert_array_equal(*took)


def test_trainer_follows_golden():
    x, y = samples(12)
    x = x / 2048
    simulated, golden = (
        SimulatedTrainer(PLAN, progress=False),
        st.Trainer(PLAN, Golden(PLAN)),
    )
    histories = [t.fit(x, y, batch_size=4, progress=False) for t in (simulated, golden)]
    np.testing.assert_array_equal(histories[0].losses, histories[1].losses)
    assert simulated.step(x[:1], y[:1]).cycles > 0
    golden.step(x[:1], y[:1])
    np.testing.assert_array_equal(simulated.predict(x), golden.predict(x))
    for name, codes in golden.state_dict().items():
        np.testing.assert_array_equal(simulated.state_dict()[name], codes)


def test_second_start_finds_the_compiled_model(device):
    texts = []
    SimulatedDevice(PLAN, report=texts.append)
    assert texts == ["compiled model found in the cache"]


def test_a_closed_simulation_says_so(device):
    closed = SimulatedDevice(PLAN)
    closed.close()
    closed.close()
    for use in (closed.reset, closed.read_weights, closed.saturations, lambda: closed.cycle):
        with pytest.raises(RuntimeError, match=r"^The simulation is closed$"):
            use()


def test_waveforms_on_request(tmp_path):
    trainer = SimulatedTrainer(PLAN, trace=tmp_path / "waves.vcd", progress=False)
    x, y = samples(1)
    trainer.step(x / 2048, y)
    trainer.close()
    text = (tmp_path / "waves.vcd").read_text()
    assert "$enddefinitions" in text
    assert "conv1" in text
    assert text.count("\n#") > 100


def _half_a_bit_more(function):
    """``WeightStore._changed`` that rounds up where it should round to nearest."""

    def changed(self, old, gradient, drop, random):
        if self.stage.name == "conv1":
            gradient = (gradient + (1 << drop - 1)).as_signed()
        return function(self, old, gradient, drop, random)

    return changed


def _one_too_many(wanted, stage):
    def faulty(function):
        def results(self, m, *, name, bias, **rest):
            if name == wanted and self.stage.name == stage:
                bias = [first + 5000 for first in bias]
            return function(self, m, name=name, bias=bias, **rest)

        return results

    return faulty


@pytest.mark.parametrize(
    ("owner", "method", "fault", "found"),
    [
        (TrainingStage, "_results", _one_too_many("output", "conv1"), r"conv1 FP, linear1\.x\["),
        (TrainingStage, "_results", _one_too_many("errors", "linear1"), r"linear1 BP, conv1\.dz\["),
        (WeightStore, "_changed", _half_a_bit_more, r"conv1 WU, conv1\.words\["),
    ],
    ids=["FP", "BP", "WU"],
)
def test_names_the_first_wrong_element(owner, method, fault, found, monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path))  # nobody else shall find this model
    generate.generate_verilog.cache_clear()
    monkeypatch.setattr(owner, method, fault(getattr(owner, method)))
    try:
        result = verify(PLAN, 8, progress=False)
    finally:
        generate.generate_verilog.cache_clear()
    assert not result.bit_exact
    assert np.all(result.difference.cycle > 0)
    with pytest.raises(AssertionError, match=rf"step \d+: {found}[\d, ]+\] is -?\d+, not -?\d+, in cycle"):
        raise AssertionError(str(result))


def test_a_wrong_state_is_told_from_a_wrong_step(device):
    golden = Golden(PLAN)
    weights = golden.read_weights()
    device.reset()
    device.write_weights({**weights, "linear1.bias": weights["linear1.bias"] + 100})
    x, y = samples(4)
    result = compare(device, x, training_commands(PLAN, y, 1), golden=golden)
    assert "right when it runs alone" in str(result)


def test_a_missing_sample_is_a_hang_with_a_message(device):
    x, y = samples(2)
    with pytest.raises(HangError, match=r"^The hardware made no progress for \d+ cycles, in cycle"):
        device.run(x[:1], training_commands(PLAN, y, 1))
    device.reset()


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(CompileError, match=r"C\+\+ compiler.*apt install g\+\+"):
        SimulatedDevice(PLAN)


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo 1 && exit\necho 'fatal error: no luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CompileError, match="fatal error: no luck"):
        SimulatedDevice(PLAN)
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_rejects_a_stall_that_never_ends():
    with pytest.raises(ValueError, match=r"^Stall must be a probability below 1, not 1$"):
        SimulatedDevice(PLAN, stall=1)
