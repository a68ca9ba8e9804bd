"""The benchmark of accuracy, on a net that takes no time."""

import json

import accuracy
import numpy as np
import pytest


@pytest.fixture
def protocol(tiny, monkeypatch):
    monkeypatch.setattr(accuracy, "PROTOCOLS", {"T": accuracy.Protocol(2, "centred", 100, 0.5)})


def test_compares_fixed_point_with_its_float_twin(protocol, tmp_path, capsys):
    file = tmp_path / "accuracy.json"
    assert accuracy.main(["--seeds", "2", "--json", str(file)]) == 0
    (result,) = json.loads(file.read_text())
    assert (result["epochs"], result["inputs"], result["shuffle"]) == (2, "centred", True)
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    losses = [run["fixed"]["online_loss"] for run in result["runs"]]
    assert losses[0] != losses[1]
    assert result["mean"]["fixed"]["online_loss"] == pytest.approx(np.mean(losses))
    assert result["difference"]["loss_part"] == pytest.approx(0, abs=0.05)
    out = capsys.readouterr().out
    assert "pixels -1 to 1" in out
    assert "40 images, 2 epoch(s), a new random order in each; 10 test images" in out
    assert out.endswith("within the limits\n")


def test_fails_outside_the_limits(protocol, monkeypatch, capsys):
    limits = accuracy.Protocol(1, "unit", 100, 1e-9)
    monkeypatch.setattr(accuracy, "PROTOCOLS", {"T": limits})
    assert accuracy.main(["--seeds", "1"]) == 1
    assert "OUTSIDE the limits" in capsys.readouterr().out


def test_the_same_seeds_give_the_same_figures(tiny):
    one, other = (accuracy.compare(tiny, epochs=1, seeds=1)["runs"] for _ in range(2))
    assert one == other


def test_order_of_the_files(tiny):
    shuffled, ordered = (
        accuracy.compare(tiny, epochs=1, seeds=1, shuffle=shuffle)["runs"][0]["float"]
        for shuffle in (True, False)
    )
    assert shuffled != ordered


@pytest.mark.parametrize(
    ("inputs", "low", "high"), [("unit", 0, 255), ("centred", -1, 1), ("standard", None, None)]
)
def test_ranges_of_pixels(inputs, low, high):
    pixels = np.array([0, 64, 255], np.uint8)
    scaled = accuracy.INPUTS[inputs][1](pixels, pixels)
    if inputs == "standard":
        assert scaled.mean() == pytest.approx(0)
        assert scaled.std() == pytest.approx(1)
    else:
        assert (scaled.min(), scaled.max()) == (low, high)
