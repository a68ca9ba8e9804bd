import csv
import json
import re

import pytest
from fronts import make_front

from streamtrain.build import BuildError, command, search
from streamtrain.build.flow import SEARCH_STEP, STEPS
from streamtrain.build.search import Search
from streamtrain.description import load_description
from streamtrain.design import Design
from streamtrain.explore.front import Front

NETWORK = """\
from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
network = Network((1, 8, 8), [Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(10)])
"""


@pytest.fixture
def searched(monkeypatch, simulated):
    """What a build calls ``explore`` with; designs of the front it gets simulate in no time."""
    calls = []

    def explore(network, board, **arguments):
        calls.append((network, board, arguments))
        return make_front(network, board=board).within(**arguments["constraints"])

    monkeypatch.setattr(search, "explore", explore)
    return calls


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


@pytest.fixture
def front(net):
    return make_front(load_description(net))


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    return status, out, error


def build(capsys, net, *options):
    """Build, and give back the summary and what was printed on standard error."""
    pytest.importorskip("sklearn")
    out = net.parent / "out"
    status, _, error = run(
        capsys, net, *options, "--out", out, "--samples", 50, "--steps", 3, "--json"
    )
    assert status == 0, error
    return json.loads((out / "report" / "summary.json").read_text()), error


# -- Which design is built ---------------------------------------------------------------------------


def test_fastest_within_a_budget_is_built(capsys, searched, net, front):
    summary, error = build(capsys, net, "--dsp", 30)
    ((network, board, arguments),) = searched
    assert (network, board) == (front.network, "pynq_z2")
    assert arguments["objectives"] == ("samples_per_s", "dsp", "bram36")
    assert arguments["constraints"] == {}  # the front is searched as a whole
    design = front.fastest(dsp=30)
    assert Design.from_json((net.parent / "out" / "design.json").read_text()) == design
    point = front.point(design)
    chosen = summary["search"]["chosen"]
    assert chosen["position"] == front.points.index(point)
    assert (chosen["dsp"], chosen["cycles"]) == (point.dsp, point.cycles)
    assert summary["search"]["asked"] == "the most samples/s, with at most 30 DSP"
    assert summary["search"]["designs"] == len(front)
    assert summary["basis"]["search.chosen"].startswith("estimated")
    steps = [
        line.split()[0] for line in error.splitlines() if line.split()[0] in {"explore", *STEPS}
    ]
    assert steps == [SEARCH_STEP, *STEPS]
    assert "knee" in error  # the front is shown


def test_smallest_that_is_fast_enough_is_built(capsys, searched, net, front):
    target = front.points[4].samples_per_s - 1
    summary, _ = build(capsys, net, "--samples-per-second", target)
    smallest = front.point(front.smallest(samples_per_s=target))
    assert summary["search"]["chosen"]["dsp"] == smallest.dsp
    assert summary["search"]["asked"].startswith("the fewest DSP slices, with at least")


def test_objective_says_what_is_best(capsys, searched, net, front):
    target = front.points[4].samples_per_s
    options = ["--samples-per-second", repr(target), "--objective", "bram36", "--board", "zedboard"]
    summary, _ = build(capsys, net, *options)
    found = front.point(front.smallest("bram36", samples_per_s=target))
    assert summary["search"]["chosen"]["bram36"] == found.bram36
    assert summary["board"] == searched[0][1] == "zedboard"


def test_pareto_alone_builds_the_fastest(capsys, searched, net, front):
    summary, _ = build(capsys, net, "--pareto")
    assert summary["search"]["chosen"]["position"] == 0
    assert summary["search"]["asked"] == "the most samples/s"


def test_limits_on_other_figures_go_to_the_search(capsys, searched, net):
    summary, _ = build(capsys, net, "--lut", 6000, "--latency-us", 50, "--dsp", 40)
    assert searched[0][2]["constraints"] == {"latency_us": 50, "lut": 6000}
    assert summary["search"]["chosen"]["lut"] <= 6000
    assert summary["search"]["asked"].startswith("the fewest DSP slices")  # a speed was asked for


@pytest.mark.parametrize("objective", ["lut", "latency_us"])
def test_another_objective_is_searched_besides(capsys, searched, net, objective):
    build(capsys, net, "--objective", objective)
    assert searched[0][2]["objectives"] == ("samples_per_s", "dsp", "bram36", objective)


def test_without_a_search_there_is_none(capsys, planned, net):
    pytest.importorskip("sklearn")
    summary, error = build(capsys, net)
    assert "search" not in summary
    assert "search.chosen" not in summary["basis"]
    assert not any(line.startswith(SEARCH_STEP) for line in error.splitlines())
    assert not (net.parent / "out" / "report" / "pareto.html").exists()


# -- What it leaves ----------------------------------------------------------------------------------


def test_front_is_in_report_and_manifest(capsys, searched, net, front):
    build(capsys, net, "--dsp", 30)
    out = net.parent / "out"
    with open(out / "report" / "pareto.csv", newline="", encoding="utf-8") as file:
        assert [row["dsp"] for row in csv.DictReader(file)] == [str(p.dsp) for p in front.points]
    assert (out / "report" / "pareto.html").read_text().startswith("<!DOCTYPE html>")
    manifest = json.loads((out / "manifest.json").read_text())
    assert {"report/pareto.csv", "report/pareto.html"} <= manifest["files"].keys()
    assert manifest["configuration"]["search"] == "the most samples/s, with at most 30 DSP"
    report = (out / "report" / "report.html").read_text()
    position = front.points.index(front.point(front.fastest(dsp=30)))
    assert f'href="pareto.html#{position}"' in report  # the page opens with that design
    assert "compared designs by samples/s, DSP, BRAM36, and found" in report
    assert "the most samples/s, with at most 30 DSP." in report


def test_report_has_the_errors_of_the_estimates(capsys, searched, net, front):
    build(capsys, net, "--pareto")
    report = (net.parent / "out" / "report" / "report.html").read_text()
    cycles = front.points[0].cycles
    assert f"{cycles / 500 - 1:+.1%}" in report  # the stand-in takes 500 cycles a step
    assert f"{front.points[0].dsp / 12 - 1:+.1%}" in report  # and synthesis finds 12 DSP slices


# -- What cannot be built ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dsp", "2"], r"No design of \d+ has at most 2 DSP; the nearest has \d+ DSP"),
        (["--samples-per-second", "1e9"], r"at least 1,000,000,000 samples/s; the nearest has"),
        (["--latency-us", "0.001"], r"has at most 0.001 µs latency; the nearest has"),
        (["--dsp", "9", "--multipliers", "9"], r"--multipliers plans one design, and --dsp searches"),
        (["--pareto", "--multipliers", "9"], r"plans one design, and --pareto searches many"),
        (["--dsp", "-1"], r"dsp must be positive, not -1"),
        (["--pareto", "--board", "pink"], r"There is no board 'pink'"),
        (["--pareto", "--data", "mnist:nowhere"], r"nowhere is no directory"),
    ],
)  # fmt: skip
def test_bad_input_has_status_2_and_leaves_nothing(capsys, searched, net, options, message):
    pytest.importorskip("sklearn")
    status, out, error = run(capsys, net, *options, "--out", net.parent / "out", "--quiet")
    assert (status, out) == (2, "")
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not list(net.parent.glob("out*"))


def test_an_infeasible_search_says_why(capsys, monkeypatch, searched, net, front):
    pytest.importorskip("sklearn")
    reason = "conv1's weights alone need 161 BRAM36; XC7Z010 has 60"

    def explore(network, board, **_):
        return Front(network, board, 1, ("dsp",), {}, front.variants, (), reason=reason)

    monkeypatch.setattr(search, "explore", explore)
    status, _, error = run(capsys, net, "--pareto", "--out", net.parent / "out", "--quiet")
    assert (status, error) == (2, f"streamtrain.build: {reason}\n")
    assert not (net.parent / "out").exists()


def test_data_are_checked_before_the_search(capsys, searched, tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "net.py"
    path.write_text(NETWORK.replace("(1, 8, 8)", "(1, 6, 6)"))
    status, _, error = run(capsys, path, "--pareto", "--out", tmp_path / "out", "--quiet")
    assert status == 2
    assert "takes images of (1, 6, 6), but digits has (1, 8, 8)" in error
    assert not searched


def test_a_search_that_breaks_leaves_nothing(capsys, monkeypatch, searched, net):
    pytest.importorskip("sklearn")

    def fail(*_, **__):
        raise BuildError("no more", step="explore")

    monkeypatch.setattr(search, "explore", fail)
    status, _, error = run(capsys, net, "--pareto", "--out", net.parent / "out", "--quiet")
    assert status == 1
    assert error.startswith("streamtrain.build: explore failed: no more (log: ")
    assert not (net.parent / "out").exists()


@pytest.mark.parametrize(
    "option", ["--dsp=9", "--samples-per-second=9", "--objective=dsp", "--pareto"]
)
def test_a_design_has_its_own_foldings(capsys, front, tmp_path, option):
    path = tmp_path / "design.json"
    path.write_text(front[0].to_json())
    status, _, error = run(capsys, path, option, "--out", tmp_path / "out", "--quiet")
    assert status == 2
    assert "describes a design, which has its own foldings: leave out " in error
    assert option.partition("=")[0] in error


def test_search_needs_known_names(front):
    with pytest.raises(ValueError, match=r"^There is no limit 'power'"):
        Search(front.network, "pynq_z2", {"power": 3})
    with pytest.raises(ValueError, match=r"^There is no objective 'power'"):
        Search(front.network, "pynq_z2", {}, "power")
