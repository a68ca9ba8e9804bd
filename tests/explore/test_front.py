import csv
from dataclasses import replace

import numpy as np
import pytest

from streamtrain.explore.front import Front, limits_by_name, objectives_by_name

# -- A sequence of designs ---------------------------------------------------------------------------


def test_designs_are_what_the_points_say(front):
    assert len(front) == len(front.points) > 5
    for point, design in zip(front.points, front, strict=True):
        assert tuple(design.foldings.values()) == point.foldings
        assert design.dsp == point.dsp
        assert design.estimate().cycles == point.cycles
        assert design.clock_mhz * 1e6 / point.cycles == pytest.approx(point.samples_per_s)
        assert design.board == front.board


def test_positions_and_slices(front):
    assert front[0] == front.design(front.points[0])
    assert front[-1] == list(front)[-1]
    assert front[2:5].points == front.points[2:5]
    assert isinstance(front[2:5], Front)
    with pytest.raises(IndexError):
        front[len(front)]


def test_points_of_designs(varied_front):
    for point in varied_front.points:
        assert varied_front.point(varied_front.design(point)) == point


def test_a_design_of_another_front_is_not_on_it(front, varied_front):
    fast = varied_front.fastest()
    assert fast.clock_mhz != front[0].clock_mhz
    with pytest.raises(ValueError, match=r"^There is no such design on the front:\n"):
        front.point(fast)


def test_variants_differ_in_all_but_the_foldings(varied_front):
    for point, design in zip(varied_front.points, varied_front, strict=True):
        variant = varied_front.variants[point.variant]
        assert design.clock_mhz == variant.clock_mhz
        assert [s.weights for s in design.plan.stages] == [s.weights for s in variant.plan.stages]


def test_front_travels_as_json(varied_front):
    again = Front.from_json(varied_front.to_json())
    assert again == varied_front
    assert again.fastest() == varied_front.fastest()


# -- Choosing ----------------------------------------------------------------------------------------


def test_fastest_within_each_budget(long_front):
    for dsp in range(6, 220, 7):
        fitting = [point for point in long_front.points if point.dsp <= dsp]
        if not fitting:
            continue
        best = max(point.samples_per_s for point in fitting)
        found = long_front.point(long_front.fastest(dsp=dsp))
        assert found.dsp <= dsp
        assert found.samples_per_s == best


@pytest.mark.parametrize("by", ["dsp", "bram36", "lut", "latency_us", "bram", "latency"])
def test_smallest_that_is_fast_enough(long_front, by):
    name = {"bram": "bram36", "latency": "latency_us"}.get(by, by)
    for target in (500, 5_000, 20_000, 30_000):
        fast = [point for point in long_front.points if point.samples_per_s >= target]
        found = long_front.point(long_front.smallest(by, samples_per_s=target))
        assert found.samples_per_s >= target
        assert getattr(found, name) == min(getattr(point, name) for point in fast)


def test_ties_go_to_the_smaller_design(front):
    first = front.points[0]
    for worse in ({"dsp": first.dsp + 1}, {"bram36": first.bram36 + 0.5}, {"lut": first.lut + 1}):
        larger = replace(first, foldings=front.points[1].foldings, **worse)
        both = replace(front, points=(larger, first))
        assert both.point(both.fastest()) == first
        assert both.point(both.smallest("latency_us")) == first


def test_limits_are_kept_to_the_point(front):
    point = front.points[3]
    exactly = {"dsp": point.dsp, "samples_per_s": point.samples_per_s}
    assert point in front.within(**exactly).points
    assert point not in front.within(**exactly | {"dsp": point.dsp - 1}).points
    faster = exactly | {"samples_per_s": np.nextafter(point.samples_per_s, np.inf)}
    assert point not in front.within(**faster).points


def test_limits_add_up(front):
    part = front.within(dsp=20, samples_per_s=1000).within(dsp=15, samples_per_s=900, bram=10)
    assert part.constraints == {"dsp": 15, "samples_per_s": 1000, "bram36": 10}
    assert part.points == front.within(dsp=15, samples_per_s=1000, bram36=10).points


def test_a_limit_of_none_is_none(front):
    assert front.within(dsp=None) == front
    assert front.fastest(dsp=None, lut=None) == front.fastest()


def test_the_nearest_point_is_named(front):
    small = min(front.points, key=lambda point: point.dsp)
    with pytest.raises(ValueError) as caught:
        front.fastest(dsp=1)
    assert str(caught.value) == (
        f"No design of {len(front)} has at most 1 DSP; the nearest has {small.dsp} DSP"
    )
    fast = front.points[0]
    with pytest.raises(ValueError, match=rf"the nearest has {fast.samples_per_s:,.0f} samples/s$"):
        front.smallest(samples_per_s=1e9)
    both = r"at least 1,000,000,000 samples/s and at most 0.001 µs latency; the nearest has .* µs"
    with pytest.raises(ValueError, match=both):
        front.smallest(samples_per_s=1e9, latency=1e-3)


def test_an_empty_front_has_a_reason(empty_front):
    reason = "2 layers with weights take a DSP slice each, and the loss 1; dsp is 2"
    for choose in (empty_front.fastest, empty_front.smallest, empty_front.knee):
        with pytest.raises(ValueError) as caught:
            choose()
        assert str(caught.value) == reason
    assert list(empty_front) == []
    assert empty_front.within(dsp=1).reason == reason
    assert reason in str(empty_front)
    assert reason in empty_front._repr_html_()


# -- The knee ----------------------------------------------------------------------------------------


def at(front, rows, objectives=("samples_per_s", "dsp", "bram36")):
    """The front with points at these samples/s, DSP and BRAM36."""
    template = front.points[0]
    points = [
        replace(template, samples_per_s=float(s), dsp=d, bram36=b, latency_us=1e6 / s)
        for s, d, b in rows
    ]
    return replace(front, points=tuple(points), objectives=objectives)


def test_knee_of_a_bent_line(front):
    bent = at(front, [(1000, 100, 1), (900, 20, 1), (500, 15, 1), (100, 10, 1)])
    assert bent._knee() == 1
    assert bent.knee() == bent.design(bent.points[1])


def test_knee_looks_at_the_two_figures_only(front):
    rows = [(1000, 100, 9), (900, 20, 9), (500, 60, 1), (100, 10, 8)]  # the third saves block RAM
    assert at(front, rows)._knee() == 1
    # Against block RAM it would be the third.
    assert at(front, rows, ("samples_per_s", "bram36"))._knee() == 2


def test_knee_among_equals_is_the_smaller(front):
    assert at(front, [(9, 3, 1), (8, 2, 5), (8, 2, 4), (1, 1, 1)])._knee() == 2


@pytest.mark.parametrize("objectives", [("latency_us", "dsp"), ("dsp", "latency_us", "bram")])
def test_knee_of_latency(front, objectives):
    rows = [(1000, 100, 1), (300, 20, 1), (200, 19, 1), (100, 18, 1)]
    assert at(front, rows, objectives)._knee() == 1


@pytest.mark.parametrize("objectives", [("dsp", "bram36"), ("dsp",), ("samples_per_s",)])
def test_knee_without_speed_or_resource(front, objectives):
    (design,) = at(front, [(10, 5, 5)], objectives)
    assert at(front, [(10, 5, 5)], objectives).knee() == design


def test_knee_of_few(front):
    assert at(front, [(9, 5, 1)])._knee() == 0
    assert at(front, [(9, 5, 1), (1, 1, 1)])._knee() == 1  # of two ends, the smaller


# -- Showing -----------------------------------------------------------------------------------------


def test_table_has_every_figure(front):
    header, rows = front.table()
    assert header[:7] == ("samples/s", "latency, µs", "cycles", "DSP", "BRAM36", "LUT", "FF")
    assert header[7:] == ("conv1", "linear1")
    point = front.points[2]
    assert rows[2][:4] == (point.samples_per_s, point.latency_us, point.cycles, point.dsp)
    assert rows[2][7:] == tuple("x".join(map(str, folding)) for folding in point.foldings)


def test_table_tells_variants_apart(varied_front):
    header, rows = varied_front.table()
    assert header[7] == "variant"
    assert set(varied_front.variant_texts()) == {
        f"clock_mhz {clock}, weights {weights}"
        for clock in (100, 150)
        for weights in ("fixed<16,3>", "fixed<18,3>")
    }
    assert rows[0][7] == varied_front.variant_texts()[varied_front.points[0].variant]


def test_long_front_is_cut(long_front):
    lines = str(long_front).splitlines()
    assert len(lines) < 18
    assert sum("knee" in line for line in lines) == 1
    knee = long_front.point(long_front.knee())
    assert f"{long_front.points.index(knee)} " in next(line for line in lines if "knee" in line)
    more = next(line for line in lines if ".to_csv(path)" in line)
    shown = sum(line.lstrip()[:1].isdigit() for line in lines[2:-2])
    assert f"… {len(long_front) - shown} more" in more
    assert f"{len(long_front)} designs of 16P-32P-FC10 on 1x8x8 for pynq_z2, batch 1" in lines[-1]
    assert "<table>" in long_front._repr_html_()


def test_short_front_is_whole(front):
    assert "more" not in str(front[:12])
    assert len(str(front[:12]).splitlines()) == 2 + 12 + 1


def test_csv_has_every_point(varied_front, tmp_path):
    varied_front.to_csv(tmp_path / "front.csv")
    with open(tmp_path / "front.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(varied_front)
    for row, point in zip(rows, varied_front.points, strict=True):
        for name in ("samples_per_s", "latency_us", "cycles", "dsp", "bram36", "lut", "ff"):
            assert row[name] == str(getattr(point, name))
        assert row["clock_mhz"] == str(varied_front.variants[point.variant].clock_mhz)
        assert row["conv1"] == "x".join(map(str, point.foldings[0]))
        assert row["variant_text"].startswith("clock_mhz 1")


# -- Names and limits --------------------------------------------------------------------------------


def test_short_names(front):
    named = replace(front, objectives=("bram", "latency"), constraints={"bram": 3, "lut": None})
    assert named.objectives == ("bram36", "latency_us")
    assert named.constraints == {"bram36": 3}


def test_numbers_of_numpy_become_plain():
    limits = limits_by_name({"dsp": np.int64(9), "latency": np.float32(0.5)})
    assert [type(limit) for limit in limits.values()] == [int, float]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("dsp", TypeError, r"^objectives must be a sequence of names, not 'dsp'$"),
        ([1], TypeError, r"^objectives must be a sequence of names, not \[1\]$"),
        ([], ValueError, r"^There must be an objective; known are samples_per_s, latency_us, dsp"),
        (["dps"], ValueError, r"^There is no objective 'dps'; did you mean dsp\? Known are samples"),
        (["cycles"], ValueError, r"^There is no objective 'cycles'. Known are samples_per_s"),
        (["bram", "bram36"], ValueError, r"^Objective bram36 is named twice$"),
    ],
)  # fmt: skip
def test_rejects_objectives(names, error, message):
    with pytest.raises(error, match=message):
        objectives_by_name(names)


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"power": 3}, ValueError, r"^There is no limit 'power'. Known are samples_per_s, latency_us"),
        ({"luts": 3}, ValueError, r"^There is no limit 'luts'; did you mean lut\?"),
        ({"dsp": "many"}, TypeError, r"^dsp must be a number, not 'many'$"),
        ({"dsp": True}, TypeError, r"^dsp must be a number, not True$"),
        ({"dsp": 0}, ValueError, r"^dsp must be positive, not 0$"),
        ({"lut": float("nan")}, ValueError, r"^lut must be positive, not nan$"),
        ({"bram": 3, "bram36": 4}, ValueError, r"^bram36 has two limits, 3 and 4$"),
    ],
)  # fmt: skip
def test_rejects_limits(front, limits, error, message):
    for reject in (limits_by_name, lambda given: front.within(**given)):
        with pytest.raises(error, match=message):
            reject(limits)


def test_smallest_is_by_a_need(front):
    with pytest.raises(ValueError, match=r"^smallest must be by what a design needs, not by samp"):
        front.smallest("samples_per_s")
