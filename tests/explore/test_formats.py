"""Ranges of a training in floating point, and the formats that are tried after it."""

from dataclasses import replace

import numpy as np
import pytest

import streamtrain as st
from streamtrain.explore import formats
from streamtrain.explore.devices import load_board
from streamtrain.explore.formats import candidates
from streamtrain.explore.ranges import Tally, TensorRange, observe
from streamtrain.pipeline.resources import estimate_resources

NET = st.Network(
    (2, 6, 6),
    [st.Conv2d(3, 3), st.ReLU(), st.MaxPool2d(2), st.Conv2d(4, 1, bias=False), st.Flatten(), st.Linear(3)],
    optimizer=st.SGD(lr=2**-5),
)  # fmt: skip


@pytest.fixture
def samples():
    """Images of which the brightest third tells the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 80)
    x = rng.random((80, 2, 6, 6)) * 0.5
    for label in range(3):
        x[y == label, :, 2 * label : 2 * label + 2] += 0.5
    return x, y


@pytest.fixture
def design():
    return st.plan(NET, multipliers=8, max_batch=3)


def tensor(ranges, layer, kind):
    return next(own for own in ranges if (own.layer, own.tensor) == (layer, kind))


# -- Ranges -----------------------------------------------------------------------------------------------


def test_ranges_of_known_numbers():
    tally = Tally()
    tally.add(np.array([[0, 1, -1.5], [0, 0.25, 3]]))
    tally.add(np.array([-6.0]))
    own = tally.range("conv1", "errors")
    assert (own.lowest, own.highest, own.largest, own.zeros) == (-6, 3, 6, 2)
    assert own.octaves == {-2: 0.2, 0: 0.4, 1: 0.2, 2: 0.2}
    assert own.percentile(20) == pytest.approx(0.25, rel=0.1)
    assert own.percentile(100) == 6
    assert own.integer_bits() == 4  # -8 to 8
    assert own.integer_bits(80) == 3
    assert own.integer_bits(20) == 0  # up to 0.27: less than a half


def test_ranges_of_nothing_but_zeros():
    own = TensorRange("conv1", "errors", 0.0, 0.0, 5, np.zeros(800, np.int64))
    assert own.octaves == {}
    assert own.percentile(50) == 0
    assert own.integer_bits() == 1


def test_first_look_is_what_autograd_says(design, samples):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, y = samples
    _, ranges = observe(design, x, y, observed=1, progress=False)
    weights = {
        name: torch.tensor(value, requires_grad=True)
        for name, value in NET.initial_weights().items()
    }
    first = design.plan.stages[0].input
    z1 = functional.conv2d(
        torch.tensor(first.decode(first.encode(x[:1]))), weights["conv1.weight"],
        weights["conv1.bias"], padding=1,
    )  # fmt: skip
    a1 = functional.max_pool2d(z1.relu(), 2)
    z2 = functional.conv2d(a1, weights["conv2.weight"])
    z3 = functional.linear(z2.flatten(1), weights["linear1.weight"], weights["linear1.bias"])
    for z in (z1, z2, z3):
        z.retain_grad()
    functional.cross_entropy(z3, torch.tensor(y[:1])).backward()
    mantissa = design.plan.rate_code(2**-5)[0] / 128
    expected = {
        ("conv1", "errors"): z1.grad * mantissa,
        ("conv2", "errors"): z2.grad * mantissa,
        ("linear1", "errors"): z3.grad * mantissa,
        ("conv1", "activations"): a1.detach(),
        ("conv2", "activations"): z2.detach(),
        ("linear1", "logits"): z3.detach(),
    }
    for layer in ("conv1", "conv2", "linear1"):
        own = [value for name, value in weights.items() if name.startswith(layer)]
        expected[layer, "weights"] = torch.cat([value.detach().ravel() for value in own])
        expected[layer, "gradients"] = torch.cat([value.grad.ravel() for value in own])
    assert {(own.layer, own.tensor) for own in ranges} == {*expected, ("input", "activations")}
    for name, values in expected.items():
        own = tensor(ranges, *name)
        assert own.lowest == pytest.approx(values.min().item(), rel=1e-6, abs=1e-12), name
        assert own.highest == pytest.approx(values.max().item(), rel=1e-6, abs=1e-12), name
        assert own.counts.sum() + own.zeros == values.numel(), name


@pytest.mark.parametrize("batch_size, epochs, observed", [(1, 2, 7), (3, 2, 500), (3, 3, 10)])
def test_looks_change_nothing(design, samples, batch_size, epochs, observed):
    options = {"epochs": epochs, "batch_size": batch_size, "lr": 0.02, "progress": False}
    history, _ = observe(design, *samples, **options, observed=observed)
    undisturbed = design.golden(exact=False).fit(*samples, **options)
    np.testing.assert_array_equal(history.losses, undisturbed.losses)
    np.testing.assert_array_equal(history.correct, undisturbed.correct)


def test_input_is_seen_whole(design):
    x = np.zeros((4, 2, 6, 6), np.uint8)
    x[3, 0, 0, 0] = 255
    _, ranges = observe(design, x, np.zeros(4, int), observed=1, progress=False)
    assert tensor(ranges, "input", "activations").highest == 1


# -- Candidates -------------------------------------------------------------------------------------------


def known(**largest):
    """Ranges in which each kind of tensor has ones, and its largest number once in a million."""
    counts = np.zeros(800, np.int64)
    counts[60 * 8] = 10**6
    return [TensorRange("conv1", kind, -value, value, 0, counts) for kind, value in largest.items()]


def test_candidates_have_the_bits_that_the_ranges_need(design):
    found = candidates(known(weights=1.4, activations=14.9, logits=29, errors=2.2), design)
    wide = found["16/16/16"]
    assert [str(getattr(wide, name)) for name in ("weights", "activations", "logits", "errors")] == [
        "fixed<16,3>", "fixed<16,5>", "fixed<16,8>", "fixed<16,3>",
    ]  # fmt: skip
    narrow = found["8/8/10 + 20"]
    assert str(narrow.activations) == "fixed<8,2>"  # of nearly all numbers, which are 1
    assert str(narrow.master) == "fixed<20,3>"
    assert found["12/12/16 stochastic"].round_weights is st.Round.STOCHASTIC


@pytest.mark.parametrize("lr", [2**-3, 2**-7])
@pytest.mark.parametrize("largest", [0.01, 1, 60])
def test_all_candidates_can_be_trained_with(largest, lr):
    net = st.Network(NET.input_shape, NET.layers, optimizer=st.SGD(lr=lr))
    design = st.plan(net, multipliers=8)
    ranges = known(weights=largest, activations=largest, logits=largest, errors=max(largest, 0.9))
    found = candidates(ranges, design)
    assert len(found) >= 6
    for numbers in found.values():
        st.plan(net, multipliers=8, numbers=numbers).golden()


# -- The study --------------------------------------------------------------------------------------------


@pytest.fixture
def study(samples):
    return st.study_formats(NET, *samples, epochs=3, multipliers=8, seeds=2, progress=False)


def test_trials_are_what_golden_gives(study, samples):
    x, y = samples
    assert len(study.trials) >= 8
    for trial in study.trials[::4]:
        saturated = {"output": 0, "errors": 0, "weights": 0}
        for seed in range(2):
            design = st.plan(replace(NET, seed=seed), multipliers=8, numbers=trial.numbers)
            trainer = design.golden()
            history = trainer.fit(x, y, epochs=3, progress=False)
            assert trial.losses[seed] == history.losses[180:].mean()
            assert trial.accuracies[seed] == history.correct[180:].mean()
            for sites in trainer.saturations().values():
                saturated = {site: saturated[site] + sites[site] for site in sites}
        assert trial.loss == pytest.approx(sum(trial.losses) / 2)
        assert trial.saturated == saturated
        assert trial.usage == estimate_resources(design.plan, load_board("pynq_z2").device).total
    for seed in range(2):
        net = replace(NET, seed=seed)
        twin = st.plan(net, multipliers=8, numbers=study.trials[0].numbers).golden(exact=False)
        history = twin.fit(x, y, epochs=3, progress=False)
        # Its samples are a little rounder.
        assert study.losses[seed] == pytest.approx(history.losses[180:].mean(), rel=1e-2)


def test_best_is_the_smallest_that_is_good_enough(study):
    most = 1.05 * study.loss
    good = [trial for trial in study.trials if trial.loss <= most]
    assert good
    assert sorted(trial.name for trial in study.good) == sorted(trial.name for trial in good)
    device = load_board("pynq_z2").device
    for trial in good:
        parts = (trial.usage.dsp / device.dsp, trial.usage.bram36 / device.bram36)
        assert trial.share == pytest.approx((sum(parts) + trial.usage.lut / device.lut) / 3)
    assert min(trial.share for trial in good) == study.good[0].share
    assert study.best is study.good[0]
    assert st.plan(NET, multipliers=8, numbers=study.best.numbers).plan.stages[0].weights == (
        study.best.numbers.weights
    )


def test_shows_itself(study):
    header, rows = study.table()
    assert header[:2] == ("formats", "loss")
    assert rows[0][0] == "float"
    assert [row[0] for row in rows[1:]] == [trial.name for trial in study.trials]
    assert [row[0] for row in rows if row[-1] == "best"] == [study.best.name]
    text = str(study)
    assert f"Best: {study.best.name}. weights {study.best.numbers.weights}" in text
    assert max(map(len, text.splitlines()[: len(rows) + 2])) <= 116
    assert study._repr_html_().count("<table>") == 2
    kinds = [row[0] for row in study.range_table()[1]]
    assert kinds == sorted(
        kinds, key=["weights", "activations", "logits", "errors", "gradients"].index
    )


def test_plot(study, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    axes = study.plot(tmp_path / "formats.svg")
    assert axes[0].get_title() == f"weights: {study.best.numbers.weights}" + (
        f", master {study.best.numbers.master}" if study.best.numbers.master else ""
    )
    assert study.best.name in (tmp_path / "formats.svg").read_text()
    pyplot.close("all")


def test_formats_of_ones_own(samples):
    chosen = {
        "coarse": st.Numbers(weights="fixed<3,2>", activations="fixed<16,5>"),
        "impossible": st.Numbers(weights="fixed<8,3>", master="fixed<32,3>"),
    }
    study = st.study_formats(NET, *samples, multipliers=8, formats=chosen, progress=False)
    coarse, impossible = study.trials
    assert coarse.loss > 1.1 * study.loss
    assert "stored weights fixed<32,3> are finer than" in impossible.reason
    assert study.good == ()
    with pytest.raises(
        ValueError, match=r"is within 5.0% of floating .* nearest, coarse, has \+\d"
    ):
        _ = study.best
    assert "the nearest, coarse" in str(study)
    assert "finer than" in str(study)


def test_formats_that_cannot_learn_so_slowly_are_told(samples):
    x, y = (255 * samples[0] / samples[0].max()).astype(np.uint8), samples[1]
    # Less room for a shift of the products.
    wide = st.Numbers(weights="fixed<18,3>", activations="fixed<18,5>", errors="fixed<18,3>")
    study = st.study_formats(
        NET, x, y, multipliers=8, lr=1e-5, formats={"wide": wide}, progress=False
    )
    (trial,) = study.trials
    assert trial.reason.startswith("Learning rate 1e-05 over a batch of 1 is 1e-05 a sample")


def test_ctrl_c_keeps_what_is_done(samples, monkeypatch):
    attempt, names = formats._try, []

    def interrupted(name, *rest):
        names.append(name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return attempt(name, *rest)

    monkeypatch.setattr(formats, "_try", interrupted)
    study = st.study_formats(NET, *samples, multipliers=8, tolerance=9, progress=False)
    assert [trial.name for trial in study.trials] == names[:2]
    assert study.stopped >= 5
    assert f"Stopped: {study.stopped} candidates were not tried." in str(study)
    assert study.best in study.trials


def test_samples_beyond_the_usual_range(samples):
    x, y = samples
    study = st.study_formats(
        NET, 100 * x, y, multipliers=8, lr=2**-12, formats={}, observed=5, progress=False
    )
    assert tensor(study.ranges, "input", "activations").highest == 100 * x.max()
    with pytest.raises(ValueError, match=r"^No candidate can be trained with: none was tried$"):
        _ = study.best


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"tolerance": -1}, ValueError, r"^tolerance must be at least 0, not -1$"),
        ({"lr": "fast"}, TypeError, r"^lr must be a number, not 'fast'$"),
        ({"seeds": 0}, ValueError, r"^seeds must be at least 1, not 0$"),
        ({"observed": 0}, ValueError, r"^observed must be at least 1, not 0$"),
        ({"epochs": 0}, ValueError, r"^epochs must be at least 1, not 0$"),
        ({"formats": {"a": "fixed<8,3>"}}, TypeError, r"^Formats must be Numbers, but 'a' is "),
        ({"y": np.full(80, 3)}, ValueError, r"^Label of sample 0 is 3, but"),
        ({"x": np.zeros((80, 6, 6))}, ValueError, r"^Samples must be \(samples, 2, 6, 6\), not"),
    ],
)  # fmt: skip
def test_rejects(samples, arguments, error, message):
    x, y = samples
    with pytest.raises(error, match=message):
        st.study_formats(NET, **{"x": x, "y": y, "progress": False, **arguments})
