"""The exact front against all designs of small nets, looked at one by one."""

from itertools import product

import numpy as np
import pytest

from streamtrain.explore import heads, slices
from streamtrain.explore.cuts import Cuts
from streamtrain.explore.exact import exact_front
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.space import FIGURES, Space
from streamtrain.network import SGD, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.resources import estimate_resources
from streamtrain.pipeline.schedule import estimate

NETS = {
    "pool": Network((1, 6, 6), (Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(4))),
    "odd": Network(
        (2, 5, 7),
        (Conv2d(6, 3, padding="valid"), ReLU(), Conv2d(4, 1), ReLU(), Flatten(), Linear(3)),
    ),
    "linear": Network((12, 1, 1), (Flatten(), Linear(8), ReLU(), Linear(6))),
    "deep": Network(
        (1, 8, 8),
        (
            Conv2d(4, 3), ReLU(), MaxPool2d(2), Conv2d(6, 3), ReLU(), MaxPool2d(2), Flatten(),
            Linear(3),
        ),
    ),
    "optimiser": Network(
        (1, 4, 4),
        (Conv2d(4, 3), ReLU(), Flatten(), Linear(3)),
        optimizer=SGD(momentum=0.9, weight_decay=0.01, clip=1.0),
    ),
}  # fmt: skip

NETS["frozen front"] = NETS["odd"].freeze("conv1", "conv2")
NETS["frozen middle"] = NETS["odd"].freeze("conv2")

OBJECTIVES = [
    ("cycles",),
    ("cycles", "dsp"),
    ("cycles", "dsp", "bram18"),
    ("latency", "dsp"),
    ("cycles", "latency", "lut"),
    ("cycles", "bram18"),
    ("bram18", "lut"),
    ("dsp", "bram18"),
    ("cycles", "latency", "dsp", "bram18", "lut"),
]


def space(name, in_flight=2):
    return Space(lower(NETS[name], lambda *layer: (1, 1, 1), in_flight=in_flight))


@pytest.fixture(scope="module")
def every_design():
    """Figures of all designs of a space, by net and samples in flight; found when they are asked for."""
    known = {}

    def of(name, in_flight):
        if (name, in_flight) not in known:
            own = space(name, in_flight)
            designs = np.array(list(product(*(range(len(f)) for f in own.foldings))))
            known[name, in_flight] = own.figures(designs)
        return known[name, in_flight]

    return of


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_finds_what_brute_force_finds(name, in_flight, objectives, limited, every_design):
    figures = every_design(name, in_flight)
    limits = {}
    if limited:
        limits = {
            "dsp": 40,
            "bram18": float(np.percentile(figures[:, FIGURES.index("bram18")], 40)),
            "lut": float(np.percentile(figures[:, FIGURES.index("lut")], 50)),
            "cycles": float(np.percentile(figures[:, FIGURES.index("cycles")], 60)),
        }
        for figure, limit in limits.items():
            figures = figures[figures[:, FIGURES.index(figure)] <= limit]
    columns = [FIGURES.index(name) for name in objectives]
    wanted = figures[:, columns]
    wanted = set(map(tuple, wanted[non_dominated(wanted)]))
    own = space(name, in_flight)
    designs, found, _ = exact_front(own, objectives, limits)
    assert set(map(tuple, found[:, columns])) == wanted
    assert len(found) == len(wanted)  # of designs that are alike, one
    np.testing.assert_array_equal(own.figures(designs), found)


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("most", [0, 10, 100])
@pytest.mark.parametrize("name", ["odd", "deep", "optimiser", "frozen front", "frozen middle"])
def test_finds_it_in_small_portions(name, most, in_flight, every_design, monkeypatch):
    """With few designs of the first stages, or none, that are tried together; and little room for others."""
    monkeypatch.setattr(heads, "_HEADS", most)
    monkeypatch.setattr(slices, "_ROOM", 20)
    monkeypatch.setattr(slices, "_BYTES", 2**12)
    monkeypatch.setattr(slices, "_BLOCK", 3)
    monkeypatch.setattr(slices, "_LEVELS", (20, 5))
    columns = [FIGURES.index(figure) for figure in ("cycles", "dsp", "bram18")]
    wanted = every_design(name, in_flight)[:, columns]
    wanted = set(map(tuple, wanted[non_dominated(wanted)]))
    _, found, _ = exact_front(space(name, in_flight), ("cycles", "dsp", "bram18"), {})
    assert set(map(tuple, found[:, columns])) == wanted


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_no_cut_is_above_the_cycles_of_any_design(name, in_flight, every_design):
    own = space(name, in_flight)
    designs = np.array(list(product(*(range(len(f)) for f in own.foldings))))
    cuts = Cuts(own)
    some = np.random.default_rng(0).permutation(len(designs))[:20]
    budgets = [(dsp, bram) for dsp in (10, 40, 100) for bram in (4, np.inf)]
    mixed = [cut for _, cut in cuts.mixed(np.full(4, np.inf), budgets)]
    said = cuts.values(cuts.of_designs(designs[some]) + mixed, designs)
    cycles = every_design(name, in_flight)[:, FIGURES.index("cycles")]
    assert (said.max(axis=1) <= cycles + 1e-6).all()


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_figures_are_those_of_the_plan(name, in_flight):
    own = space(name, in_flight)
    rng = np.random.default_rng(1)
    designs = np.stack([rng.integers(0, len(f), 20) for f in own.foldings], axis=1)
    for design, figures in zip(designs, own.figures(designs), strict=True):
        plan = own.folded(design)
        cost, total = estimate(plan), estimate_resources(plan).total
        cycles, latency, dsp, bram18, lut, ff = figures
        assert (cycles, latency) == (cost.cycles, cost.latency)
        assert (dsp, bram18) == (total.dsp, total.bram18)
        assert (lut, ff) == (round(total.lut), round(total.ff))


def test_a_limit_that_nothing_keeps_gives_no_design():
    designs, figures, _ = exact_front(space("pool"), ("cycles", "dsp"), {"cycles": 10})
    assert designs.shape == (0, 2)
    assert figures.shape == (0, len(FIGURES))


def test_the_same_space_gives_the_same_front():
    first, second = (exact_front(space("deep"), ("cycles", "dsp"), {}) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])


def test_tells_how_far_it_is():
    told = []
    exact_front(space("deep"), ("cycles", "dsp", "bram18"), {}, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
