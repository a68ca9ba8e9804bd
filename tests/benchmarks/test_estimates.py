"""The error tables: their figures without a synthesis, and a small one with it."""

import json
from types import SimpleNamespace

import estimates
import pytest

from streamtrain.pipeline.resources import estimate_resources, lut_counts
from streamtrain.pipeline.tally import LUT_WEIGHTS

SMALL = [sample for sample in estimates.VALIDATION if 2 <= sample.plan().multipliers <= 12][:4]


def test_estimates_are_near_what_is_synthesised():
    results = [estimates.measure(sample) for sample in SMALL]
    assert len(results) == 4
    for result in results:
        for resource in estimates.EXACT:
            assert result["estimated"][resource] == result["synthesised"][resource], result["net"]
        for resource in ("lut", "ff"):
            assert abs(estimates.error(result, resource)) <= estimates.WORST, result["net"]
    assert estimates.good(results)


def test_no_validation_net_is_one_of_calibration():
    nets = {name: {sample.net for sample in own} for name, own in estimates.SETS.items()}
    assert len(nets["calibration"]) == len(estimates.CALIBRATION)
    assert len(nets["validation"]) == len(estimates.VALIDATION) >= 30
    assert not nets["calibration"] & nets["validation"]


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Two designs in each set, a page, and what a synthesis gives: estimates that are off by ``errors``."""
    sets = {name: own[:2] for name, own in estimates.SETS.items()}
    monkeypatch.setattr(estimates, "SETS", sets)
    monkeypatch.setattr(estimates, "CALIBRATION", sets["calibration"])
    errors = {"dsp": 0, "bram36": 0, "lut": 0.05, "ff": -0.02}

    def synthesised(plan):
        total = estimate_resources(plan).total
        figures = {name: getattr(total, name) / (1 + part) for name, part in errors.items()}
        return SimpleNamespace(**figures)

    monkeypatch.setattr(estimates, "_synthesised", synthesised)
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- resources: made by benchmarks/estimates.py -->\nstale\n<!-- resources: end -->\nafter\n"
    )
    return SimpleNamespace(errors=errors, page=page, folder=tmp_path)


def test_errors_are_parts_of_the_synthesis(few, capsys):
    file = few.folder / "figures.json"
    assert estimates.main(["resources", "--page", str(few.page), "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    for result in results["validation"]:
        for resource, part in few.errors.items():
            assert estimates.error(result, resource) == pytest.approx(part, abs=1e-3)
    _, rows = estimates.summary(results["validation"])
    assert [row[1] for row in rows[:2]] == ["2 of 2"] * 2
    assert [row[2:] for row in rows[2:]] == [("5.0%", "5.0%"), ("2.0%", "2.0%")]
    assert "+5.0%" in capsys.readouterr().out


def test_the_page_gets_the_tables(few):
    estimates.main(["resources", "--page", str(few.page)])
    text = few.page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert text.count("\n| net |") == 2
    assert all(f"| {sample.net} |" in text for own in estimates.SETS.values() for sample in own)
    estimates.main(["resources", "--page", str(few.page)])
    assert few.page.read_text() == text


@pytest.mark.parametrize("resource", ["dsp", "bram36", "lut", "ff"])
def test_fails_if_an_estimate_is_off(few, resource):
    few.errors[resource] = 0.25
    assert estimates.main(["resources", "--page", str(few.page)]) == 1


def test_refuses_a_page_without_the_section(few):
    few.page.write_text("nothing")
    with pytest.raises(
        ValueError, match=r"page\.md has no section between <!-- resources: made by"
    ):
        estimates.main(["resources", "--page", str(few.page)])


def test_the_fit_finds_what_a_lut_of_each_kind_takes(monkeypatch):
    weights = dict(
        zip(LUT_WEIGHTS, [0.9, 1.1, 1.2, 0.95, 1, 1.05, 1.1, 0.9, 1, 1.2, 1.1], strict=True)
    )

    def synthesised(plan):
        counts = lut_counts(plan)
        return SimpleNamespace(lut=sum(weights.get(kind, 1) * n for kind, n in counts.items()))

    monkeypatch.setattr(estimates, "_synthesised", synthesised)
    monkeypatch.setattr(estimates, "PRIOR", 1e-6)
    fitted = estimates.fit(estimates.CALIBRATION)
    assert fitted == pytest.approx(weights, rel=0.01)


def test_fit_prints_the_table_of_the_source(few, capsys):
    assert estimates.main(["resources", "--fit"]) == 0
    printed = eval("{" + capsys.readouterr().out + "}")
    assert printed.keys() == LUT_WEIGHTS.keys()
    assert min(printed.values()) >= 0


def test_a_sample_is_what_its_text_says():
    plan = estimates.Sample(
        (2, 9, 9), "4k3vnRP-6k1-FC5", "2x1x3 3x2x1 5x1x1", "8 of 20", "stochastic", 3, 4
    ).plan()
    conv, wide, linear = plan.stages
    assert (conv.pad, conv.bias, conv.relu, conv.pool, conv.folding) == (
        0,
        False,
        True,
        2,
        (2, 1, 3),
    )
    assert (wide.kernel, wide.bias, wide.relu, wide.pool) == (1, True, False, 1)
    assert (linear.linear, linear.channels[1]) == (True, 5)
    assert (conv.stored.width, conv.weights.width) == (20, 8)
    assert (plan.in_flight, plan.max_batch) == (3, 4)
