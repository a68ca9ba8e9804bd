# amaranth: UnusedElaboratable=no
"""The unified core behind the front door: the verbs of a user, and what a user may get wrong."""

from contextlib import closing

import numpy as np
import pytest

import streamtrain as st
from streamtrain.host.trainer import encode_samples, training_commands
from streamtrain.simulate import SimulatedKernel, compare_kernels
from streamtrain.simulate.memory import MemoryTiming

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.xdist_group("memory simulations")


def network(**options):
    return st.Network(
        (2, 6, 6),
        [st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(4)],
        **options,
    )


def design(numbers="fixed<16,6>", **options):
    options = {"core": "unified", "lanes": 4, "max_batch": 3, **options}
    return st.plan(network(), numbers=numbers, **options)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    return rng.random((11, 2, 6, 6)), rng.integers(0, 4, 11)


@pytest.fixture(scope="module")
def simulated():
    with closing(design().simulate(progress=False)) as trainer:
        yield trainer


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    return all((a[name] == b[name]).all() for name in a)


# -- The verbs ------------------------------------------------------------------------------------


def test_simulation_and_golden_model_give_the_same(data, simulated):
    golden = design().golden()
    simulated.load_state_dict(golden.state_dict())
    wanted, found = (
        trainer.fit(*data, epochs=2, batch_size=3, lr=2**-4, shuffle=True, progress=False)
        for trainer in (golden, simulated)
    )
    np.testing.assert_array_equal(wanted.losses, found.losses)
    np.testing.assert_array_equal(wanted.correct, found.correct)
    assert same_state(golden, simulated)
    assert golden.evaluate(*data) == simulated.evaluate(*data)
    np.testing.assert_array_equal(golden.predict(data[0]), simulated.predict(data[0]))
    assert wanted.cycles is None
    assert (np.diff(found.cycles) > 0).all()


def test_cycles_of_steps_add_up_and_are_those_of_the_estimate(data, simulated):
    x, y = data
    before = simulated.device.cycle
    steps = [simulated.step(x[:3], y[:3]).cycles for _ in range(2)]
    assert sum(steps) == simulated.device.cycle - before
    estimated = design().estimate()
    assert steps[1] == pytest.approx(estimated.step.total, rel=0.15)
    assert estimated.cycles == estimated.step.total / 3
    before = simulated.device.cycle
    simulated.predict(x[:3])
    found = simulated.device.cycle - before
    assert found == pytest.approx(estimated.prediction.total, rel=0.15)


def test_checkpoint_goes_on_in_simulation(data, simulated, tmp_path):
    golden, path = design().golden(), tmp_path / "state"
    golden.fit(*data, batch_size=3, progress=False)
    golden.save(path)
    simulated.load(path)
    assert simulated.samples_seen == 11
    for trainer in (golden, simulated):
        trainer.fit(*data, batch_size=3, progress=False)
    assert same_state(golden, simulated)


def test_interrupted_training_goes_on_from_its_checkpoint(data, tmp_path):
    whole, part = design().golden(), design().golden()
    whole.fit(*data, epochs=2, batch_size=3, progress=False)

    def stop(history):
        if len(history) >= 6:
            raise KeyboardInterrupt

    options = {"epochs": 2, "batch_size": 3, "checkpoint": tmp_path / "c", "every": 3}
    with pytest.raises(KeyboardInterrupt):
        part.fit(*data, progress=False, callback=stop, **options)
    again = design().golden()
    again.fit(*data, progress=False, **options)
    assert same_state(whole, again)


@pytest.mark.parametrize(("numbers", "kind"), [("fp32", np.float32), ("bf16", np.float32)])
def test_weights_in_floating_point_are_numbers(numbers, kind):
    trainer = design(numbers).golden()
    state = trainer.state_dict()
    assert all(tensor.dtype == kind for tensor in state.values())
    initial = network().initial_weights()
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor, initial[name].astype(np.float32))
    doubled = {name: 2 * tensor for name, tensor in state.items()}
    trainer.load_state_dict(doubled)
    np.testing.assert_array_equal(trainer.state_dict()["conv1.weight"], doubled["conv1.weight"])
    with pytest.raises(TypeError, match="must be float32, as weights are stored in fp32"):
        trainer.load_state_dict(initial)
    trainer.load_state_dict(trainer.plan.encode_weights(initial))


def test_losses_are_those_of_pytorch(data):
    x, y = data
    trainer = design("fp32", max_batch=11).golden()
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(54, 4),
    )  # fmt: skip
    st.to_torch(trainer, module)
    with torch.no_grad():
        scores = module(torch.tensor(x, dtype=torch.float32))
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(y)).item()
    step = trainer.step(x, y)
    assert step.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_array_equal(step.predicted, scores.argmax(axis=1))


def test_scores_that_are_no_numbers_have_a_loss_that_is_none():
    trainer = design("fp16", max_batch=11).golden()
    weights = {name: np.full_like(w, 3e38) for name, w in trainer.state_dict().items()}
    trainer.load_state_dict(weights)
    x = np.ones((2, 2, 6, 6))
    assert np.isnan(trainer.step(x, [0, 1]).loss)
    assert np.isnan(trainer.evaluate(x, [0, 1], progress=False).loss)


def test_checkpoints_are_of_one_core_and_its_order_of_sums(tmp_path, data):
    path = tmp_path / "state"
    design().golden().save(path)
    with pytest.raises(st.CheckpointError, match="conv1: lanes 8, checkpoint has 4"):
        design(lanes=8).golden().load(path)
    with pytest.raises(st.CheckpointError, match="the network: core streaming, checkpoint has unified"):
        st.plan(network(), multipliers=40).golden().load(path)


# -- The design -----------------------------------------------------------------------------------


def test_design_says_what_it_is_and_travels_as_json():
    made = design("bf16", board="zcu102", base=1 << 20, data_bits=128, clock_mhz=150)
    assert st.UnifiedDesign.from_json(made.to_json()) == made
    assert made.network == network()
    assert (made.multipliers, made.clock_mhz, made.board) == (16, 150.0, "zcu102")
    assert made.bound_cycles == network().training_macs / 16
    assert "4 x 4 multipliers of bf16 on zcu102 at 150 MHz" in str(made)
    assert "2 -&gt; 6" in made._repr_html_()
    header, rows = made.table()
    assert rows[0] == ("conv1", "2 -> 6", "6x6", "3x3", 10, 114)
    assert len(header) == len(rows[0])
    assert "conv1" in str(made.estimate(2))


def test_verify_compares_golden_model_and_hardware():
    found = design().verify(2, memory=MemoryTiming(stall=0.2), progress=False)
    assert found.bit_exact and found.steps == 2


@pytest.mark.parametrize(
    ("what", "phase", "tensor"),
    [("weights", "FP", "conv1.outputs"), ("new weights", "WU", "linear1.weight")],
)
def test_verify_says_where_they_differ(data, what, phase, tensor):
    """A word of memory is changed behind the core's back."""
    x, y = data
    plan = design().plan
    with closing(SimulatedKernel(plan)) as device:
        read, calls = device.read_weights, []

        def corrupt(region, word):
            device.memory.contents.view("<i4")[region.address // 4 + word] += 1 << 15

        def read_weights():
            calls.append(1)
            if what == "new weights" and len(calls) > 1:
                corrupt(plan.compiler.sets[device._set][0]["linear1"], 0)
            found = read()
            if what == "weights" and len(calls) == 1:
                corrupt(plan.compiler.sets[0][0]["conv1"], 0)
            return found

        device.read_weights = read_weights
        commands = training_commands(plan, y[:3], 3)
        found = compare_kernels(device, encode_samples(plan, x[:3]), commands)
    assert not found.bit_exact
    difference = found.difference
    assert (difference.phase, difference.tensor, difference.step) == (phase, tensor, 0)
    assert difference.expected != difference.found


# -- Misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"core": "both"}, 'core must be "streaming", "unified" or "auto", not \'both\''),
        ({"multipliers": 4}, "The unified core takes no multipliers; it takes lanes"),
        ({"core": "streaming"}, "The streaming core takes no lanes; it takes numbers"),
        ({"numbers": st.Numbers()}, "must be a name such as 'bf16'"),
        ({"numbers": "fixed<17,4>"}, "Operands of fixed<17,4> have 17 bits; .* use a format of 8 or 16 bits"),
        ({"numbers": "float<6,9>", "lanes": 7}, "lanes must be a multiple of 2, so that"),
        ({"numbers": "float<5,6>"}, "Operands must have 8, 16 or 32 bits"),
        (
            {"lanes": 12, "data_bits": 256},
            "multiple of 8, so that .* whole words of 256 bits of memory, not 12",
        ),
        ({"lanes": 0}, "lanes must be at least 2, not 0"),
        ({"data_bits": 48}, "data_bits must be 32, 64"),
        ({"base": 100}, "base must be a multiple of 4096 bytes and below 4 GB, not 0x64"),
        ({"base": 1 << 32}, "base must be a multiple of 4096"),
        ({"max_batch": 0}, "max_batch must be 1 to 65,535, as programs count images, not 0"),
        ({"max_batch": 10**5}, "max_batch must be 1 to 65,535"),
        ({"max_batch": 10**9}, "at least .* plan with a smaller max_batch"),
        ({"max_batch": "2"}, "max_batch must be an integer, not '2'"),
        ({"lanes": "8"}, "lanes must be an integer, not '8'"),
        ({"lanes": None, "data_bits": [64]}, r"data_bits must be an integer, not \[64\]"),
        ({"lanes": None, "data_bits": 512}, "xc7z020 has too few DSP slices for any array with data_bits=512: .* 16 lanes"),
        ({"depths": 64}, r"depths must be a tuple of words in half of each buffer, \(x, e, .*\), not 64"),
        ({"weight_sets": 3}, "weight_sets must be 1 or 2"),
        ({"depths": (8, 8, 8, 8, 8, 8)}, "needs .* the buffer"),
        ({"depths": (8, 8)}, "depths must be a tuple"),
        ({"lanes": 32, "numbers": "fp32"}, "need 2,058 DSP slices, but pynq_z2 has 220"),
        ({"board": "xc7z020"}, "keeps weights and maps in DRAM, and xc7z020 has none"),
        (
            {"base": (512 << 20) - 8192},
            r"needs 0.1 MB of DRAM \(maps 0.\d MB, weights 0.\d MB, programs 0.\d MB\) from 0x1fffe000 on, "
            r"but pynq_z2 has 512.0 MB; plan with a smaller max_batch, or with weight_sets=1",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(options, culprit):
    with pytest.raises((ValueError, TypeError), match=culprit):
        design(**options)


def test_what_does_not_fit_dram_is_refused_before_programs_are_made():
    """Gigabytes of weights, or of maps: without the minutes that their programs would take."""
    large = st.Network((512, 32, 32), [st.Flatten(), st.Linear(4096)])
    with pytest.raises(ValueError, match=r"at least 16,386.0 MB of DRAM \(weights 16,384.0 MB, maps 2.0 MB\)"):
        st.plan(large, "zcu102", core="unified", progress=False)
    wide = st.Network((3, 224, 224), [st.Conv2d(64, 3), st.Flatten(), st.Linear(4)])
    with pytest.raises(ValueError, match=r"but pynq_z2 has 512.0 MB; plan with a smaller max_batch"):
        st.plan(wide, core="unified", max_batch=1000, progress=False)


def test_a_design_that_will_not_fit_says_so():
    assert "it will not fit: " in str(design(numbers="bf16", lanes=14))
    assert "it will not fit" not in str(design())


def test_a_diverged_state_is_refused_and_changes_nothing():
    trainer = design(numbers="bf16").golden()
    before = trainer.state_dict()
    state = {name: tensor.copy() for name, tensor in before.items()}
    state["conv1.weight"][1, 0, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"State has conv1.weight with nan at \(1, 0, 2, 1\)"):
        trainer.load_state_dict(state)
    assert all((tensor == before[name]).all() for name, tensor in trainer.state_dict().items())


def test_batch_of_an_estimate_is_a_number():
    with pytest.raises(TypeError, match="Batch must be an integer, not '1'"):
        design().estimate("1")


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"loss": st.MSELoss()}, "The loss is MSELoss, which the unified core cannot compute"),
        ({"optimizer": st.SGD(momentum=0.5)}, "SGD has momentum=0.5, which the unified core cannot"),
        ({"optimizer": st.SGD(weight_decay=0.1)}, "SGD has weight_decay=0.1"),
        ({"optimizer": st.SGD(clip=2.0)}, "SGD has clip=2"),
        ({"optimizer": st.SGD(lr=2**-30)}, "numbers of fixed<16,6>.* take 6e-08 to 1"),
    ],
)
def test_what_the_core_lacks_is_refused(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        st.plan(network(**options), core="unified", numbers="fixed<16,6>", lanes=4)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"momentum": 0.5}, "The unified core has no momentum"),
        ({"weight_decay": 0.5}, "The unified core has no weight decay"),
        ({"clip": 1.0}, "The unified core has no clip"),
        ({"frozen": ["conv1"]}, r"plan network.freeze\('conv1'\)"),
        ({"frozen": ["conv"]}, "No layer with weights is named 'conv'"),
        ({"lr": 5.0}, "Learning rate 5 over a batch of 3"),
        ({"lr": 0.0}, "Learning rate 0 over a batch of 3"),
    ],
)
def test_settings_that_the_core_lacks_are_refused(data, options, culprit):
    trainer, (x, y) = design().golden(), data
    before = trainer.state_dict()
    with pytest.raises(ValueError, match=culprit):
        trainer.step(x[:3], y[:3], **options)
    assert all((tensor == before[name]).all() for name, tensor in trainer.state_dict().items())


def test_a_mini_batch_that_is_too_large_is_refused(data):
    with pytest.raises(ValueError, match=r"has 4 samples, but the design takes 3; .*max_batch=4"):
        design().golden().fit(*data, batch_size=4, progress=False)


def test_memory_that_is_too_small_or_elsewhere_is_refused():
    with pytest.raises(st.BusError, match=r"needs memory from 0x0 to 0x\w+, but there is .* to 0x4000"):
        SimulatedKernel(design().plan, size=0x4000)
