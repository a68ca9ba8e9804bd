"""The half of the error tables that is about cycles, without simulating."""

import json
from types import SimpleNamespace

import estimates
import pytest
from cycle_designs import BATCHES, designs

from streamtrain.explore.evidence import TOTAL


@pytest.fixture(scope="module")
def every():
    return designs()


def test_there_are_enough_designs_from_smallest_to_largest(every):
    assert len(every) >= 60
    networks = {design.network.to_json() for design in every.values()}
    assert len(networks) >= 15
    sizes = sorted(design.multipliers for design in every.values())
    assert sizes[0] <= 3 and sizes[-1] > 1700
    assert all(design.plan.max_batch >= max(BATCHES) for design in every.values())


@pytest.fixture
def found(monkeypatch, every):
    """Three designs, and a simulation that finds ``errors`` off from the estimate, by batch size."""
    few = dict(list(every.items())[-3:])
    errors = {1: 0.004, 16: -0.002}
    monkeypatch.setattr(estimates, "designs", lambda: few)

    def confirm(chosen, evidence, *, batch):
        assert evidence == "simulate"
        return SimpleNamespace(findings=[
            SimpleNamespace(
                problem="",
                estimated={TOTAL: {"cycles": 1000}},
                found={TOTAL: {"cycles": 1000 / (1 + errors[batch])}},
            )
            for _ in chosen
        ])  # fmt: skip

    monkeypatch.setattr(estimates, "confirm", confirm)
    return SimpleNamespace(names=list(few), errors=errors)


def test_writes_the_table_between_its_marks(found, tmp_path, capsys):
    page, kept = tmp_path / "page.md", tmp_path / "cycles.json"
    text = estimates.PAGE.read_text()
    page.write_text(text)
    assert estimates.main(["cycles", "--page", str(page), "--json", str(kept)]) == 0
    written = page.read_text()
    assert "| batch 1 | 3 of 3 | 0.40% | 0.40% |" in written
    assert "| batch 16 | 3 of 3 | 0.20% | 0.20% |" in written
    assert written.partition("## Resources")[2] == text.partition("## Resources")[2]
    assert [one["design"] for one in json.loads(kept.read_text())] == found.names
    assert found.names[0] in capsys.readouterr().out


def test_an_estimate_that_is_too_far_off_is_a_failure(found, tmp_path):
    found.errors[16] = 0.02
    page = tmp_path / "page.md"
    page.write_text(estimates.PAGE.read_text())
    assert estimates.main(["cycles", "--page", str(page)]) == 1


def test_single_designs_leave_the_page_alone(found, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("untouched")
    assert estimates.main(["cycles", "--only", found.names[0], "--page", str(page)]) == 0
    assert page.read_text() == "untouched"
    assert found.names[1] not in capsys.readouterr().out
    assert estimates.main(["cycles", "--only", "nothing"]) == 2
    assert "There is no design 'nothing'" in capsys.readouterr().err
