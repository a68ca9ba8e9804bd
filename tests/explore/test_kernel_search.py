"""The unified core's front, against all designs of its space one by one; and the choice between cores."""

import csv

import pytest

import streamtrain as st
from streamtrain.explore.devices import load_board
from streamtrain.explore.front import OBJECTIVES, Front
from streamtrain.unified.kernel import KernelPlan, kernel_arithmetic
from streamtrain.unified.plan import lower
from streamtrain.unified.planner import halvings

NET = st.Network(
    (2, 6, 6), [st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(4)]
)
FORMATS, CLOCKS, BATCH = ("bf16", "fixed<16,8>"), (80, 100), 3
ALL = tuple(OBJECTIVES)


def search(**options):
    options = {"core": "unified", "numbers": list(FORMATS), "max_batch": BATCH, **options}
    return st.explore(NET, "pynq_z2", progress=False, **options)


@pytest.fixture(scope="module")
def front():
    return search(objectives=ALL, clock_mhz=list(CLOCKS))


def every_design():
    """Figures of every design that the documentation promises to look at."""
    device = load_board("pynq_z2").device
    for name in FORMATS:
        numbers = kernel_arithmetic(name)
        for lanes in range(2, 16, 2):
            try:
                array = lower(NET, lanes)
                way = list(halvings(array, numbers, BATCH, 0, data_bits=64))
            except ValueError:
                continue
            for clock in CLOCKS:
                for depths, _, _ in way:
                    try:
                        plan = KernelPlan(array, numbers, BATCH, depths)
                        design = st.UnifiedDesign(plan, "pynq_z2", clock)
                    except ValueError:
                        continue
                    used, estimate = design.resources().total, design.estimate()
                    if used.bram36 > device.bram36 or used.lut > device.lut or used.ff > device.ff:
                        continue
                    yield (
                        clock * 1e6 / estimate.cycles, estimate.latency / clock,
                        used.dsp, used.bram36, round(used.lut),
                    )  # fmt: skip


def beats(a, b):
    """Whether figures are no worse in all and better in some; the first one is a speed."""
    a, b = (-a[0], *a[1:]), (-b[0], *b[1:])
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def test_front_is_that_of_all_designs(front):
    designs = set(every_design())
    best = {own for own in designs if not any(beats(other, own) for other in designs)}
    assert len(best) > 3
    assert {tuple(getattr(point, name) for name in ALL) for point in front.points} == best
    assert {variant.plan.array.lanes for variant in front.variants} == {2, 4, 6, 8, 10, 12}


def test_points_are_what_their_designs_say(front):
    for design in front:
        point = front.point(design)
        assert isinstance(design, st.UnifiedDesign)
        assert point.cycles == design.estimate().cycles
        assert point.latency_us == design.estimate().latency / design.clock_mhz
        assert point.dsp == design.resources().total.dsp
        assert design.plan.max_batch == front.batch == BATCH


def test_verbs_are_those_of_any_front(front, tmp_path):
    assert front.fastest().clock_mhz == 100
    assert front.smallest("lut") == front.design(min(front.points, key=lambda point: point.lut))
    assert front.knee() in list(front)
    assert front.fastest(dsp=30).lanes == 4
    assert not front.within(dsp=3)
    assert Front.from_json(front.to_json()) == front
    assert len({str(text) for text in front.variant_texts()}) == len(front.variants)
    header, rows = front.table()
    assert header[-6:] == front.points[0].depths._fields
    assert tuple(rows[0][-6:]) == front.points[0].depths
    front.to_csv(tmp_path / "front.csv")
    with open(tmp_path / "front.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert int(row["weights"]) == front.points[0].depths.weights
    front.to_html(tmp_path / "front.html")
    assert '"part":"buffer"' in (tmp_path / "front.html").read_text()


def test_an_empty_front_says_why():
    assert search(constraints={"dsp": 3}).reason.startswith("No design of ")
    front = st.explore(NET, "xc7z020", core="unified", progress=False, lanes=4, numbers="bf16")
    assert not front
    assert "keeps weights and maps in DRAM, and xc7z020 has none" in front.reason
    rectified = search_of(NORMED, lanes=[4], numbers="fixed<16,8>")
    assert "with 4 lanes of fixed<16,8>" in rectified.reason
    assert "norm1 normalizes with floating-point numbers" in rectified.reason


def search_of(network, **options):
    return st.explore(network, "pynq_z2", core="unified", progress=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"core": "both"}, "core must be one of streaming, unified, auto, not 'both'"),
        ({"in_flight": 2}, 'in_flight is for core="streaming", not for "unified"'),
        ({"search": "nsga2"}, 'search is for core="streaming", not for "unified"'),
        ({"evidence": "simulate"}, 'evidence is for core="streaming"'),
        ({"core": "streaming", "lanes": 4}, 'lanes is for core="unified", not for "streaming"'),
        ({"core": "auto", "lanes": 4}, 'lanes is for core="unified", not for "auto"'),
        ({"numbers": st.Numbers()}, "formats of the unified core are names such as 'bf16'"),
        ({"core": "streaming", "numbers": "bf16"}, "formats of the streaming core are st.Numbers; there are none in .*--core unified"),
        ({"numbers": 16}, "numbers must be one or a list of them, not 16"),
        ({"lanes": [4, 7], "numbers": "bf16"}, "lanes must be a multiple of 2, .* not 7"),
        ({"data_bits": [64, 128]}, r"data_bits must be an integer, not \[64, 128\]"),
    ],
)
def test_what_cannot_be_searched_is_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        search(**options)


# -- Which core ------------------------------------------------------------------------------------

SMALL = st.Network((1, 4, 4), [st.Conv2d(4, 3), st.ReLU(), st.Flatten(), st.Linear(4)])
NORMED = st.Network(
    (2, 6, 6), [st.Conv2d(8, 3), st.BatchNorm2d(), st.ReLU(), st.Flatten(), st.Linear(4)]
)
"""A network that only the unified core computes."""


def test_auto_is_the_faster_core():
    chosen = st.plan(SMALL, "zcu102", core="auto")
    speeds = {}
    for core in ("streaming", "unified"):
        own = st.plan(SMALL, "zcu102", core=core)
        speeds[type(own)] = own.clock_mhz / own.estimate().cycles
    assert type(chosen) is max(speeds, key=speeds.get)
    fronts = [
        st.explore(SMALL, "zcu102", core=core, progress=False, objectives=["samples_per_s"])
        for core in ("auto", "streaming", "unified")
    ]
    fastest = [front.points[0].samples_per_s for front in fronts]
    assert fastest[0] == max(fastest[1:])


def test_auto_is_the_core_that_can():
    assert isinstance(st.plan(NORMED, "zcu102", core="auto", numbers="bf16"), st.UnifiedDesign)
    assert isinstance(st.plan(SMALL, "xc7z020", core="auto"), st.Design)  # without DRAM
    front = st.explore(NORMED, "zcu102", core="auto", numbers="bf16", progress=False)
    assert isinstance(front.fastest(), st.UnifiedDesign)


def test_where_neither_core_fits_both_say_why():
    with pytest.raises(
        ValueError,
        match=r"No core .* the streaming core: .*BatchNorm2d.*; the unified core: .*DRAM",
    ):
        st.plan(NORMED, "xc7z020", core="auto")
    with pytest.raises(
        ValueError, match=r"The auto core takes no lanes; it takes numbers, max_batch"
    ):
        st.plan(NORMED, "zcu102", core="auto", lanes=4)
