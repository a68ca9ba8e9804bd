"""The comparison of both searches, on a net that is small."""

import json
from types import SimpleNamespace

import pytest

import streamtrain as st

pytest.importorskip("pymoo")

import search


@pytest.fixture
def small(monkeypatch):
    net = st.Network((1, 6, 6), [st.Conv2d(4, 3), st.ReLU(), st.Flatten(), st.Linear(4)])
    monkeypatch.setattr(search, "NETS", {"M": SimpleNamespace(network=lambda: net)})


def test_prints_both_fronts_and_their_hypervolumes(small, tmp_path, capsys):
    kept = tmp_path / "search.json"
    arguments = ["--nets", "M", "--evaluations", "300", "--json", str(kept)]
    assert search.main(arguments) == 0
    (result,) = json.loads(kept.read_text())
    assert 0 < result["nsga2"]["hypervolume"] <= result["exact"]["hypervolume"] <= 1
    assert result["nsga2"]["evaluated"] >= 300
    text = capsys.readouterr().out
    assert f"{result['exact']['hypervolume']:.4f}" in text
    assert f"{result['fastest']['cycles']:,}" in text
