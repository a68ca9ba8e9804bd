"""Estimates beside simulation and synthesis, on nets that compile in seconds."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import numpy as np
import pytest
from test_workers import IN_PROC, gone

import streamtrain as st
from streamtrain import cache, simulate
from streamtrain.build import synthesise
from streamtrain.cache import CacheWarning, cache_dir
from streamtrain.design import Design
from streamtrain.explore import evidence as module
from streamtrain.explore import workers
from streamtrain.explore.evidence import FIGURES, SHARED, TOTAL, Evidence, Finding, confirm
from streamtrain.pipeline.generate import generate_verilog
from streamtrain.simulate import HangError, SimulatedDevice, StepCycles, steady_samples

pytestmark = pytest.mark.xdist_group("tiny simulations")

# The first design is that of tests/simulate: its model is compiled once for all.
NETWORK = st.Network(
    (1, 6, 6),
    [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(3)],
    optimizer=st.SGD(2**-5),
)


def planned(conv, linear):
    return st.plan(NETWORK, foldings={"conv1": conv, "linear1": linear}, max_batch=4)


LARGE, SMALL = planned((2, 1, 9), (3, 2, 1)), planned((1, 1, 3), (1, 2, 1))
DESIGNS = (LARGE, SMALL)


@pytest.fixture
def unmeasured(monkeypatch, tmp_path):
    """A cache with all compiled models, but without evidence."""
    for name in ("models", "verilog", "synthesis"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / name).symlink_to(cache_dir(name))
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def here():
    """An executor in this process, so that what is replaced here is replaced there."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def counted(monkeypatch, unmeasured):
    """Simulation that takes no time; the batch sizes and multipliers it was asked for."""
    asked = []

    def count(plan, batch, *, jobs):
        asked.append((plan.multipliers, batch))
        updated = tuple(range(10, 10 + len(plan.stages)))
        return StepCycles(batch, 8, 1000.0 + plan.multipliers / batch, 0, updated)

    monkeypatch.setattr(simulate, "count_cycles", count)
    return asked


def figures(evidence):
    return [finding.found for finding in evidence.findings]


# -- What is found is right ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 4])
def test_cycles_are_those_of_a_long_run(batch, unmeasured):
    evidence = confirm(DESIGNS, "simulate", batch=batch, progress=False)
    assert not evidence.failed
    for design, finding in zip(DESIGNS, evidence.findings, strict=True):
        assert finding.design == design
        x, commands, _ = steady_samples(design.plan, 40, batch)
        results, updates = SimulatedDevice(design.plan).run_timed(x, commands)
        ends = results.cycles[batch - 1 :: batch]
        cycles = float(np.diff(ends)[3:].mean()) / batch
        errors = ends - design.network.classes  # the first one of each sample that ends a batch
        (after,) = np.unique((updates - errors[:, None])[3:-1], axis=0)
        assert finding.found == {
            TOTAL: {"cycles": cycles},
            **{name: {"updated": n} for name, n in zip(design.foldings, after, strict=True)},
        }
        assert finding.estimated[TOTAL] == {"cycles": design.estimate(batch).cycles}
        assert finding.error("cycles") == design.estimate(batch).cycles / cycles - 1


def test_resources_of_a_layer_are_those_of_its_gates_alone(here, unmeasured):
    (finding,) = confirm([SMALL], "synthesise", executor=here, progress=False).findings
    verilog = generate_verilog(SMALL.plan)
    whole, _ = synthesise(verilog, "streamtrain")
    found = finding.found
    assert list(found) == [TOTAL, "conv1", "linear1", SHARED]
    for figure in FIGURES["synthesise"]:
        assert found[TOTAL][figure] == getattr(whole, figure)
        assert sum(found[part][figure] for part in found if part != TOTAL) == found[TOTAL][figure]
    assert found["conv1"]["dsp"] == 3 and found["linear1"]["dsp"] == 2 and found[SHARED]["dsp"] == 1
    # The stage as a design of its own: Yosys then knows nothing of what its neighbours leave unused, and
    # spends more LUTs, but for some that its mapper finds by chance.
    alone, _ = synthesise(verilog.replace(r"\streamtrain.conv1 ", "alone "), "alone")
    stage = whole.parts["conv1"]
    assert (stage.dsp, stage.bram36, stage.ff) == (alone.dsp, alone.bram36, alone.ff)
    assert 0.88 * alone.lut <= stage.lut <= 1.02 * alone.lut


def test_parts_belong_to_the_layer_that_they_are_named_for():
    layers = ["conv1", "conv1_b", "linear1"]
    parts = {"conv1": "conv1", "conv1_pool_record": "conv1", "conv1_b_lanes": "conv1_b"}
    parts |= {"linear1_tokens": SHARED, "conv10": SHARED, "loss": SHARED, "": SHARED}
    assert {part: module._layer(part, layers) for part in parts} == parts


# -- What is shown ---------------------------------------------------------------------------------


def made_up(*totals):
    """Evidence with these (estimated, found) cycles; None is a failure."""
    findings = []
    for total in totals:
        estimated = {TOTAL: {"cycles": (total or (0,))[0]}, "conv1": {"updated": 90}}
        found = {TOTAL: {"cycles": total[1]}, "conv1": {"updated": 100}} if total else {}
        problem = "" if total else "HangError: stuck\nsince cycle 7"
        findings.append(Finding(LARGE, estimated, found, problem))
    return Evidence("simulate", 4, tuple(findings))


def test_a_table_has_estimate_evidence_and_error_of_each_layer():
    evidence = made_up((1010, 1000.0), None, (990, 1010.5))
    header, rows = evidence.table()
    assert header == (
        "design", "layer", "folding", "est. cycles", "cycles", "error",
        "est. updated after", "updated after", "error",
    )  # fmt: skip
    assert rows == [
        (0, TOTAL, "", 1010, 1000, "+1.0%", "", "", ""),
        (0, "conv1", "2x1x9", "", "", "", 90, 100, "-10.0%"),
        (1, "failed", "", "", "", "", "", "", ""),
        (2, TOTAL, "", 990, "1,010.5", "-2.0%", "", "", ""),
        (2, "conv1", "2x1x9", "", "", "", 90, 100, "-10.0%"),
    ]
    assert str(evidence).splitlines()[-2:] == [
        "2 designs simulated with mini-batches of 4; estimates are off by (median) "
        "cycles 1.5%, at worst 2.0%",
        "design 1 failed: HangError: stuck",
    ]
    html = evidence._repr_html_()
    assert html.count("<tr>") == 6 and "HangError: stuck</p>" in html


def test_the_worst_and_the_failed_are_named():
    evidence = made_up((1010, 1000.0), None, (990, 1010.5))
    assert evidence.worst is evidence.findings[2]
    assert evidence.failed == (evidence.findings[1],)
    assert evidence.errors("cycles") == pytest.approx((0.01, 990 / 1010.5 - 1))
    assert made_up(None).worst is None
    assert made_up().worst is None
    assert str(made_up()).count("\n") == 1


def test_nothing_where_something_was_expected_is_infinitely_wrong():
    finding = Finding(LARGE, {TOTAL: {"dsp": 1, "lut": 0}}, {TOTAL: {"dsp": 0, "lut": 0}})
    assert (finding.error("dsp"), finding.error("lut")) == (float("inf"), 0)


def test_csv_has_every_figure(tmp_path):
    evidence = made_up((1010, 1000.0), None)
    evidence.to_csv(tmp_path / "evidence.csv")
    with open(tmp_path / "evidence.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["design"], row["layer"], row["figure"]) for row in rows] == [
        ("0", TOTAL, "cycles"), ("0", "conv1", "updated"), ("1", "", ""),
    ]  # fmt: skip
    assert float(rows[0]["error"]) == pytest.approx(evidence.findings[0].error("cycles"))
    assert rows[1]["simulated"] == "100"
    assert rows[2]["problem"] == evidence.findings[1].problem


def test_evidence_travels_as_json():
    evidence = made_up((1010, 1000.0), None)
    assert Evidence.from_json(evidence.to_json()) == evidence


# -- The cache -------------------------------------------------------------------------------------


def test_nothing_is_found_twice(counted, here):
    same = Design(LARGE.plan, LARGE.board, 50.0)  # at another clock
    first = confirm([LARGE, SMALL, same], executor=here, progress=False)
    assert sorted(counted) == [(5, 1), (24, 1)]
    assert first.findings[2].found == first.findings[0].found
    assert confirm([LARGE, SMALL, same], executor=here, progress=False) == first
    assert len(counted) == 2
    confirm([LARGE], batch=2, executor=here, progress=False)
    assert counted[2:] == [(24, 2)]


@pytest.mark.parametrize("what", ["verilator", "harness"])
def test_other_tools_find_anew(what, counted, here, monkeypatch):
    confirm([LARGE], executor=here, progress=False)
    if what == "verilator":
        monkeypatch.setattr(module, "version", lambda name: "6.0")
    else:
        monkeypatch.setitem(module._DECIDING, "simulate", ("simulate/harness.cpp",))
    module._tools.cache_clear()
    try:
        confirm([LARGE], executor=here, progress=False)
    finally:
        module._tools.cache_clear()
    assert len(counted) == 2


def test_a_full_disk_is_one_warning_and_loses_nothing(counted, here, monkeypatch):
    def write(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "write_atomic", write)
    with pytest.warns(CacheWarning) as warned:
        evidence = confirm(DESIGNS, executor=here, progress=False)
    assert [finding.found[TOTAL]["cycles"] for finding in evidence.findings] == [1024, 1005]
    assert len(warned) == 1
    assert str(warned[0].message).startswith(f"Results cannot be kept in {cache_dir('evidence')} (")
    assert warned[0].filename == __file__


def test_a_model_that_cannot_be_kept_is_simulated(here, monkeypatch, tmp_path):
    """Nothing at all is kept, and nothing is missing."""
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path))

    def write(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "write_atomic", write)
    with pytest.warns(CacheWarning, match="No space left on device"):
        evidence = confirm([SMALL], executor=here, progress=False)
    assert evidence.findings[0].found[TOTAL]["cycles"] > 300
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# -- What goes wrong -------------------------------------------------------------------------------


def test_a_design_that_fails_is_a_row(counted, here, monkeypatch):
    count = simulate.count_cycles

    def stuck(plan, batch, *, jobs):
        if plan == LARGE.plan:
            raise HangError("The hardware made no progress for 10 cycles, in cycle 12")
        return count(plan, batch, jobs=jobs)

    monkeypatch.setattr(simulate, "count_cycles", stuck)
    evidence = confirm(DESIGNS, executor=here, progress=False)
    assert evidence.failed == evidence.findings[:1]
    assert evidence.failed[0].problem == (
        "HangError: The hardware made no progress for 10 cycles, in cycle 12"
    )
    assert evidence.findings[1].found
    monkeypatch.setattr(simulate, "count_cycles", count)  # the reason is gone
    assert not confirm(DESIGNS, executor=here, progress=False).failed
    assert sorted(counted) == [(5, 1), (24, 1)]


SCRIPT = dedent("""
    import json, os, signal, sys, time
    from pathlib import Path
    import streamtrain as st
    from streamtrain import simulate
    from streamtrain.explore import evidence, workers

    folder, designs = Path(sys.argv[1]), []

    def note(file, number):
        with open(folder / file, "a") as log:
            log.write(f"{number}\\n")

    # Worker processes run these lines, too: there, simulation takes 0.1 s and leaves a mark. It
    # begins when both workers are known: whoever kills this run knows whose end to wait for.
    if __name__ != "__main__":
        note("pids", os.getpid())

    def count(plan, batch, *, jobs):
        while len((folder / "pids").read_text().split()) < 2:
            time.sleep(0.01)
        note("counted", plan.multipliers)
        if plan.multipliers == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return simulate.StepCycles(batch, 8, float(plan.multipliers), 0, (1, 2))

    simulate.count_cycles = count
    evidence.verilog_key = lambda plan, generate: plan.to_json()
    workers.worker_count = lambda tasks: 2

    if __name__ == "__main__":
        net = st.Network((1, 4, 4), [st.Conv2d(2, 3), st.Flatten(), st.Linear(8)])
        for conv in ((1, 1, 1), (2, 1, 1), (2, 1, 9)):
            for linear in (1, 2, 4, 8):
                foldings = {"conv1": conv, "linear1": (linear, 4, 1)}
                designs.append(st.plan(net, foldings=foldings))
        found = evidence.confirm(designs, progress=False)
        totals = [finding.found.get("(total)", {}).get("cycles") for finding in found.findings]
        print(json.dumps(totals))
        print(*[finding.problem for finding in found.failed])
""")


def script(folder, killer=0):
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder), str(killer)],
        env={**os.environ, "STREAMTRAIN_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    )


MULTIPLIERS = [conv + 4 * linear for conv in (1, 2, 18) for linear in (1, 2, 4, 8)]


def lines(file):
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@IN_PROC
def test_a_killed_run_resumes(tmp_path):
    with script(tmp_path) as process:
        while len(lines(tmp_path / "counted")) < 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    while not all(map(gone, lines(tmp_path / "pids"))):
        time.sleep(0.1)
    first = lines(tmp_path / "counted")
    kept = list((tmp_path / "cache" / "evidence").glob("*.json"))
    assert 4 <= len(kept) < 12
    with script(tmp_path) as process:
        out, _ = process.communicate(timeout=300)
    assert json.loads(out.splitlines()[0]) == MULTIPLIERS
    again = lines(tmp_path / "counted")[len(first) :]
    assert len(again) == 12 - len(kept)  # only what is missing
    assert len(set(first) & set(again)) <= 2  # what two workers had in hand


def test_a_design_that_kills_its_worker_is_named_and_no_other_is_lost(tmp_path):
    with script(tmp_path, killer=MULTIPLIERS[5]) as process:
        out, _ = process.communicate(timeout=300)
    found, problem = out.splitlines()
    assert json.loads(found) == [None if n == 5 else m for n, m in enumerate(MULTIPLIERS)]
    assert problem.startswith(f"its worker died {workers.ATTEMPTS} times: ")


# -- A cluster -------------------------------------------------------------------------------------


@pytest.fixture
def cluster(unmeasured):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_dask_cluster_finds_the_same(cluster):
    evidence = confirm(DESIGNS, executor=cluster.get_executor(), progress=False)
    assert not evidence.failed
    assert figures(evidence) == figures(confirm(DESIGNS, progress=False))


def test_a_dask_worker_that_dies_loses_nothing(cluster, tmp_path):
    calls = tmp_path / "calls"

    def work(number):
        with calls.open("a") as log:
            log.write(f"{number}\n")
        if number == 3 and lines(calls).count(3) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    done = dict(workers.completed(work, range(6), cluster.get_executor()))
    assert done == {number: number for number in range(6)}
    assert lines(calls).count(3) == 2


# -- Misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((DESIGNS, "guess"), {}, ValueError, r"^evidence must be 'simulate' or 'synthesise', not 'guess'$"),
        (([LARGE, 3],), {}, TypeError, r"^designs must be Designs, not 3$"),
        ((LARGE,), {}, TypeError, r"^designs must be several Designs, not one: write \[design\]$"),
        ((DESIGNS,), {"batch": 5}, ValueError, r"^Batch must be 1 to 4, the plan's max_batch, not 5$"),
        ((DESIGNS,), {"executor": 2}, TypeError, r"^executor must be a concurrent\.futures\.Executor"),
    ],
)  # fmt: skip
def test_misuse_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        confirm(*arguments, **options)


def test_no_designs_are_no_evidence():
    assert confirm([]) == Evidence("simulate", 1, ())
