"""What users call: `st.explore`."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import streamtrain as st
from streamtrain.explore import search as module
from streamtrain.explore.search import explore

NET = st.Network((1, 6, 6), [st.Conv2d(4, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(4)])


def quiet(network=NET, board="pynq_z2", **options):
    return explore(network, board, progress=False, **options)


def test_points_are_what_their_designs_are_estimated_at():
    front = quiet()
    assert len(front) > 10
    for point, design in zip(front.points[::7], front[::7], strict=True):
        cost = design.estimate()
        assert (point.cycles, point.latency_cycles) == (cost.cycles, cost.latency)
        assert point.dsp == design.dsp
        assert point.samples_per_s == pytest.approx(100e6 / cost.cycles)
    speeds = [point.samples_per_s for point in front.points]
    assert speeds == sorted(speeds, reverse=True)


def test_no_point_exceeds_the_board_or_what_was_asked_for():
    front = quiet(board="xc7z010", constraints={"dsp": 30, "samples_per_s": 50_000, "latency_us": 8})
    assert front.points
    for point in front.points:
        assert point.dsp <= 30
        assert point.samples_per_s >= 50_000
        assert point.latency_us <= 8
        assert point.lut <= 17_600


def test_formats_and_clocks_are_searched_when_they_are_lists():
    narrow = st.Numbers(weights="fixed<12,2>", activations="fixed<12,4>", errors="fixed<12,2>")
    front = quiet(numbers=[st.Numbers(), narrow], clock_mhz=[50, 100], objectives=["samples_per_s", "lut"])
    assert len(front.variants) == 4
    single = [
        quiet(numbers=numbers, clock_mhz=clock, objectives=["samples_per_s", "lut"])
        for numbers in (st.Numbers(), narrow)
        for clock in (50, 100)
    ]
    values = np.array([(-p.samples_per_s, p.lut) for one in single for p in one.points])
    best = {tuple(v) for v in values if not ((values <= v).all(1) & (values < v).any(1)).any()}
    assert {(-p.samples_per_s, p.lut) for p in front.points} == best


def test_multipliers_are_those_of_the_board():
    front = quiet(board="ulx3s_25f")
    assert {variant.plan.operand_bits for variant in front.variants} == {18}
    assert front.points
    for number, point in enumerate(front.points):
        assert point.dsp == front[number].dsp == front[number].multipliers + 2


def test_memory_kinds_are_searched_when_they_are_listed():
    front = quiet(lutram_depth=[16, 256], objectives=["bram36", "lut"])
    kinds = {front.variants[point.variant].plan.lutram_depth for point in front.points}
    assert kinds == {16, 256}  # fewer block RAMs, or fewer LUTs
    assert front.smallest("bram36").plan.lutram_depth == 256


@pytest.mark.parametrize(
    "board, constraints, reason",
    [
        ("xc7z010", {"dsp": 1}, r"at least 3 DSP together, of which \w+ takes 1; there are 1$"),
        ("xc7z010", {"samples_per_s": 1e9}, r"at least 1,000,000,000 samples/s is asked for, but the best "),
        ("xc7z010", {"latency_us": 0.01}, r"but the best within its resources is a latency of [\d.]+ µs$"),
        # One contradicts the other: 4 DSP slices are never so fast.
        (
            "xc7z010", {"samples_per_s": 2e5, "dsp": 4},
            r"at least 200,000 samples/s is asked for, but the best within its resources is [\d,]+ samples/s$",
        ),
    ],
)
def test_says_why_nothing_fits(board, constraints, reason):
    front = quiet(board=board, constraints=constraints)
    assert len(front) == 0
    assert front.reason.startswith(f"Nothing fits {board}: ")
    with pytest.raises(ValueError, match=reason):
        front.fastest()


def test_names_the_memory_that_does_not_fit():
    wide = st.Network((64, 4, 4), [st.Flatten(), st.Linear(512), st.ReLU(), st.Linear(10)])
    front = quiet(wide, "xc7z010")
    assert len(front) == 0
    found = re.search(r"linear1's weights alone need ([\d,.]+) BRAM36; there are 60$", front.reason)
    need = float(found[1].replace(",", ""))
    # 1,024 inputs for 512 features, 16 bits each; a block RAM has 36 x 1,024 bits.
    assert 1024 * 512 * 16 / 36_864 <= need <= 1.2 * 1024 * 512 * 16 / 36_864


def test_the_genetic_search_finds_no_better_designs():
    pytest.importorskip("pymoo")
    exact, genetic = quiet(), quiet(search="nsga2", evaluations=600)
    assert genetic.evaluated >= 600
    values = exact.figures("samples_per_s", "dsp", "bram36")
    for own in genetic.figures("samples_per_s", "dsp", "bram36"):
        assert (values <= own).all(axis=1).any()
    again = quiet(search="nsga2", evaluations=600)
    assert again.points == genetic.points


def test_the_genetic_search_takes_mini_batches():
    pytest.importorskip("pymoo")
    front = quiet(search="nsga2", evaluations=200, batch=4)
    design = front.fastest()
    assert front.points[0].cycles == design.estimate(4).cycles
    with pytest.raises(ValueError, match=r'^The exact search is for batch 1, not 4: .*search="nsga2"'):
        quiet(batch=4)


def test_evidence_is_gathered_for_chosen_points(monkeypatch, capsys):
    asked = []

    def confirm(designs, evidence, **options):
        asked.append((designs, evidence, options["executor"]))
        return "what was found"

    monkeypatch.setattr(module, "confirm", confirm)
    with ThreadPoolExecutor(1) as executor:
        front = quiet(evidence="simulate", executor=executor)
    ((designs, evidence, own),) = asked
    assert designs[0] == front.fastest()
    assert front.smallest() in designs and front.knee() in designs
    assert (evidence, own) == ("simulate", executor)
    assert "what was found" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"objectives": ["speed"]}, ValueError, r"^There is no objective 'speed'"),
        ({"constraints": {"watts": 3}}, ValueError, r"^There is no limit 'watts'"),
        ({"search": "random"}, ValueError, r'^Search must be "exact" or "nsga2", not \'random\'$'),
        ({"batch": 0}, ValueError, r"^Batch must be at least 1, not 0$"),
        ({"evidence": "hope"}, ValueError, r"^Evidence must be one of simulate, synthesise, not 'hope'$"),
        ({"clock_mhz": -5}, ValueError, r"^clock_mhz must be positive, not -5$"),
        ({"numbers": 16}, TypeError, r"^numbers must be one or a list of them, not 16$"),
        ({"network": "net"}, TypeError, r"^Network must be a Network, not 'net'$"),
        ({"board": "xc7z011"}, ValueError, r"^There is no board 'xc7z011'; did you mean "),
    ],
)
def test_rejects_what_it_cannot_search(options, error, text):
    with pytest.raises(error, match=text):
        quiet(**options)
