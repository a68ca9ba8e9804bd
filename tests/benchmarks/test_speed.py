"""The benchmark of speed, on a net that takes no time."""

import json
import os

import nets
import numpy as np
import pytest
import speed
import torch

SHORT = ["--rounds", "2", "--seconds", "0.01", "--batch", "4"]


@pytest.fixture
def simulated(monkeypatch, clocked):
    monkeypatch.setattr(speed, "SimulatedDevice", clocked)
    return clocked


def run(tmp_path, *arguments):
    file = tmp_path / "speed.json"
    assert speed.main([*SHORT, "--json", str(file), *arguments]) == 0
    return json.loads(file.read_text())


def test_prints_a_line_for_each_batch_size(tiny, simulated, tmp_path, capsys):
    document = run(tmp_path, "--steps", "10")
    (net,) = document["nets"]
    alone, together = net["batches"]["1"], net["batches"]["4"]
    assert alone["simulated_cycles"] == 900
    assert alone["simulated_samples"] == 10
    assert together["simulated_cycles"] == 675
    assert together["simulated_samples"] == 12
    assert together["saving"] == pytest.approx(0.25)
    assert alone["utilisation"] == pytest.approx(net["bound_cycles"] / 900)
    assert alone["estimate_error"] == pytest.approx(alone["estimated_cycles"] / 900 - 1)
    assert alone["compile_seconds"] >= 0
    assert net["goals"] == {"cycles": 900, "saving": 0.1, "golden_per_torch": 1.5}
    assert document["machine"]["torch"] == torch.__version__

    lines = capsys.readouterr().out.splitlines()
    (first,) = (line.split() for line in lines if line.startswith("T  ") and " M " in line)
    assert first[:3] == ["T", str(net["multipliers"]), f"{net['training_macs'] / 1e6:.3f}"]
    assert first[5:8] == ["1", "900", "900"]
    assert max(map(len, lines)) <= 140


def test_software_takes_turns(tiny, tmp_path):
    (net,) = run(tmp_path, "--no-simulate")["nets"]
    rounds = net["rounds"]
    assert {name: len(paces) for name, paces in rounds.items()} == {
        "golden": 2,
        "torch": 2,
        "torch_fused": 2,
    }
    ratios = np.divide(rounds["golden"], rounds["torch"])
    assert net["golden_per_torch"] == pytest.approx(np.median(ratios))
    assert "simulated_cycles" not in net["batches"]["1"]


def test_threads_of_torch_are_as_before(tiny, tmp_path):
    before = torch.get_num_threads()
    run(tmp_path, "--no-simulate")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("messages", [(), ("compiled model found in the cache",)])
def test_models_from_the_cache_have_no_compile_time(tiny, simulated, tmp_path, capsys, messages):
    simulated.messages = messages
    (net,) = run(tmp_path)["nets"]
    assert net["batches"]["1"]["compile_seconds"] is None
    assert "cached" in capsys.readouterr().out


def test_fresh_models_come_from_no_cache(tiny, simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path))
    seen = []

    class Looking(simulated):
        def __init__(self, plan, *, report):
            seen.append(os.environ["STREAMTRAIN_CACHE"])
            super().__init__(plan, report=report)

    monkeypatch.setattr(speed, "SimulatedDevice", Looking)
    run(tmp_path, "--fresh")
    assert len(seen) == 2
    assert len(set(seen)) == 1  # both batch sizes run the one model
    assert str(tmp_path) not in seen
    assert os.environ["STREAMTRAIN_CACHE"] == str(tmp_path)
    assert not any(map(os.path.exists, seen))


def test_large_nets_are_simulated_only_when_asked(tiny, simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "TOO_LARGE", ("T",))
    (net,) = run(tmp_path)["nets"]
    assert "simulated_cycles" not in net["batches"]["1"]
    (net,) = run(tmp_path, "--simulate-all")["nets"]
    assert net["batches"]["1"]["simulated_cycles"] == 900


@pytest.mark.parametrize("name", ["M", "E"])
def test_pytorch_trains_the_same_net(name):
    design = nets.NETS[name].design()
    x = np.random.default_rng(0).random((1, *design.network.input_shape))
    golden = design.golden(exact=False).step(x, np.array([3]))
    model = speed.torch_model(design.network)
    scores = model(torch.tensor(x, dtype=torch.float32))
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor([3]))
    assert golden.loss == pytest.approx(loss.item(), rel=0.01)  # the twin's pixels are rounded
