"""The benchmarks of continual learning and of formats, on a net that takes no time."""

import json

import continual
import formats
import numpy as np
import pytest

import streamtrain as st


@pytest.fixture
def tasks(tiny, monkeypatch):
    monkeypatch.setattr(continual, "TASKS", {"digits 0": [0], "digits 1 to 2": [1, 2]})


ARGUMENTS = ["--net", "T", "--capacity", "3", "9", "--seeds", "2", "--every", "7"]


def test_both_tasks_are_tested_along_the_stream(tasks, tmp_path, capsys):
    file, figure = tmp_path / "continual.json", tmp_path / "continual.svg"
    pytest.importorskip("matplotlib.pyplot").switch_backend("agg")
    assert continual.main([*ARGUMENTS, "--json", str(file), "--figure", str(figure)]) == 0
    result = json.loads(file.read_text())
    assert [(run["capacity"], run["seed"]) for run in result["runs"]] == [
        (0, 0), (0, 1), (3, 0), (3, 1), (9, 0), (9, 1),
    ]  # fmt: skip
    for run in result["runs"]:
        assert run["change"] in run["samples"]
        assert run["samples"][-1] == result["train_images"] == 40
        assert np.shape(run["accuracy"]) == (len(run["samples"]), 2)
    assert "replay of 9" in figure.read_text()
    out = capsys.readouterr().out
    assert "40 images, 10 test images; mean and half the range of 2 seed(s)" in out
    assert "no replay" in out


def test_the_same_seed_gives_the_same_figures(tasks, tiny):
    data = continual.images(tiny)
    one, same, other = (continual.drift(tiny, data, 5, seed, 10) for seed in (1, 1, 2))
    assert one == same
    assert one != other


class Hardware(st.Trainer):
    """Golden model in place of a simulation; ``wrong`` spoils a weight of what it is given."""

    wrong = False

    def load_state_dict(self, weights):
        weights["conv1.bias"][0] += self.wrong
        super().load_state_dict(weights)

    def close(self):
        self.device = None


@pytest.mark.parametrize("wrong", [False, True])
def test_hardware_must_be_bit_exact(tasks, clocked, monkeypatch, capsys, wrong):
    def simulate(design):
        return Hardware(design.plan, clocked(design.plan, report=lambda text: None))

    monkeypatch.setattr(st.Design, "simulate", simulate)
    monkeypatch.setattr(Hardware, "wrong", wrong)
    assert continual.main([*ARGUMENTS, "--seeds", "1", "--rtl", "8"]) == int(wrong)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("8 new and as many replayed samples behind the change")
    assert ("DIFFERENT" if wrong else "bit-exact") in last


def test_formats(tiny, capsys):
    assert formats.main(["--net", "T", "--tolerance", "9"]) == 0
    out = capsys.readouterr().out
    assert "T: 2P-FC4-FC3, learning rate 0.03125, batch 1" in out
    assert "gradients" in out
    assert "Best: " in out
    assert formats.main(["--net", "T", "--tolerance", "0", "--samples", "1"]) in {0, 1}
