"""A module of PyTorch's, half frozen, adapted in simulated hardware, and handed back as ONNX."""

import json
from functools import partial

import pytest
import torch
import transfer
from torch import nn

import streamtrain as st


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )


def told(result, *arguments, **options):
    """In place of a transfer that takes its time."""
    return result


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.setattr(transfer, "images", lambda net, folder: st.data.load_digits())
    monkeypatch.setattr(transfer, "lenet", small)


def test_onnxruntime_predicts_what_the_hardware_has_learnt(digits, monkeypatch, tmp_path, capsys):
    file = tmp_path / "transfer.json"
    sizes = ["--trained", "700", "--samples", "100", "--tested", "100", "--multipliers", "16"]
    assert transfer.main([*sizes, "--lr", "0.0625", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["frozen"] == ["conv1"]
    assert result["samples"] == 100
    assert result["exact"]
    assert result["different"] == 0
    assert result["onnxruntime"] == result["after"]
    old, new = zip(result["before"], result["after"], strict=True)
    assert old[0] > 0.6, "PyTorch's network knows its digits"
    assert new[0] < 0.1, "it has not seen the others"
    assert new[1] > 0.4, "which the hardware has"
    assert result["cycles"] < result["cycles_own_foldings"] <= result["cycles_same_foldings"]
    out = capsys.readouterr().out
    assert "0 of" in out
    assert "DIFFERENT" not in out

    for worse in ({"exact": False}, {"onnxruntime": result["before"]}):
        monkeypatch.setattr(transfer, "transfer", partial(told, result | worse))
        assert transfer.main([]) == 1
