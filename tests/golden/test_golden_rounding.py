"""The golden model stays within the derived bound, and what is wrong does not."""

import numpy as np
import pytest

from streamtrain.golden import Golden, rounding
from streamtrain.golden.rounding import rounding_of_step
from streamtrain.network import (
    SGD,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    Network,
    ReLU,
)
from streamtrain.numeric import Round
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

LAYERS = [
    Conv2d(4, 3), ReLU(), MaxPool2d(), Conv2d(5, 3, padding="valid", bias=False), ReLU(), Conv2d(4, 1),
    Flatten(), Linear(6), ReLU(), Linear(3),
]  # fmt: skip


def plan(numbers=None, seed=1, **options):
    network = Network((2, 7, 8), LAYERS, optimizer=SGD(2**-4), seed=seed, **options)
    return lower(network, lambda *layer: (1, 1, 1), numbers)


def sample(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (2, 7, 8))


@pytest.mark.parametrize("mode", Round)
@pytest.mark.parametrize("seed", range(4))
def test_steps_are_within_the_bound(mode, seed):
    numbers = Numbers(round_activations=mode, round_errors=mode, round_weights=mode)
    step = rounding_of_step(plan(numbers, seed), sample(seed), seed % 3)
    assert step.within, f"\n{step}"
    assert list(step.gradients) == list(plan().network.initial_weights())


def test_coarse_formats_are_within_theirs():
    numbers = Numbers(
        weights="fixed<8,3>", master="fixed<16,3>", activations="fixed<9,5>", logits="fixed<9,5>",
        errors="fixed<10,3>",
    )  # fmt: skip
    for seed in range(8):
        step = rounding_of_step(plan(numbers, seed), sample(seed), 0)
        assert step.within, f"\n{step}"
        assert step.distances["scores"] > 0.001


def test_finer_formats_have_a_smaller_bound():
    fine = Numbers(weights="fixed<18,3>", activations="fixed<18,5>", errors="fixed<18,3>")
    coarse, finer = (
        rounding_of_step(plan(numbers), sample(0), 0).bounds for numbers in (None, fine)
    )
    assert all(finer[name] < coarse[name] for name in coarse)


@pytest.mark.parametrize("name", ["conv1.weight", "conv2.weight", "linear2.bias"])
def test_a_wrong_gradient_is_beyond_the_bound(name, monkeypatch):
    class Wrong(Golden):
        def trace(self, x, command):
            before = self.read_weights()
            trace = super().trace(x, command)
            weights = self.read_weights()
            weights[name] += 2 * (weights[name] - before[name])  # three times the step
            self.write_weights(weights)
            return trace

    monkeypatch.setattr(rounding, "Golden", Wrong)
    step = rounding_of_step(plan(), sample(0), 0)
    assert [key for key in step.bounds if step.distances[key] > step.bounds[key]] == [name]


def test_wrong_scores_are_beyond_the_bound(monkeypatch):
    class Wrong(Golden):
        def run(self, x, commands):
            results = super().run(x, commands)
            results.scores[:] = results.scores[:, ::-1]
            return results

    monkeypatch.setattr(rounding, "Golden", Wrong)
    step = rounding_of_step(plan(), sample(0), 0)
    assert step.distances["scores"] > step.bounds["scores"]


def test_table():
    step = rounding_of_step(plan(), sample(0), 0)
    header, rows = step.table()
    assert header == ("tensor", "norm", "distance", "at most")
    assert rows[0][0] == "scores"
    assert str(step).splitlines()[0].split() == ["tensor", "norm", "distance", "at", "most"]
    assert "<table>" in step._repr_html_()


def test_misuse():
    with pytest.raises(ValueError, match=r"^The bound is for CrossEntropy, not MSELoss$"):
        rounding_of_step(plan(loss=MSELoss()), sample(0), 0)
    with pytest.raises(
        ValueError, match=r"^conv1 saturated \d+ of its output; take wider formats$"
    ):
        rounding_of_step(plan(Numbers(activations="fixed<16,1>")), sample(0) * 0.9, 0)
