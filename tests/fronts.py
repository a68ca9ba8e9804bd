"""A front to test with: random foldings, compared by made-up resources and estimated cycles."""

from itertools import product

import numpy as np

from streamtrain.explore.devices import load_board
from streamtrain.explore.front import OBJECTIVES, Front
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.points import Point, Variant
from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.schedule import estimate

NET = Network((1, 4, 4), [Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(4)])


def make_front(network=NET, *, clocks=(100.0,), numbers=(None,), designs=60, seed=0, **fields):
    """A front of random designs. Its objectives are samples/s, DSP and BRAM36."""
    rng = np.random.default_rng(seed)
    variants = tuple(
        Variant(lower(network, lambda *_: (1, 1, 1), own, in_flight=2), clock)
        for own, clock in product(numbers, clocks)
    )
    fields = {"board": "pynq_z2", "batch": 1, "constraints": {}, "evaluated": designs} | fields
    available = load_board(fields["board"]).device.dsp
    points = [point(v, number, rng) for number, v in enumerate(variants) for _ in range(designs)]
    points = [p for p in points if p.dsp <= available]
    objectives = ("samples_per_s", "dsp", "bram36")
    figures = np.array([[OBJECTIVES[n] * getattr(p, n) for n in objectives] for p in points])
    points = [points[at] for at in np.flatnonzero(non_dominated(figures))]
    points.sort(key=lambda p: -p.samples_per_s)
    return Front(network, objectives=objectives, variants=variants, points=tuple(points), **fields)


def point(variant, number, rng):
    foldings = {}
    for stage in variant.plan.stages:
        (n, m), k = stage.channels, stage.kernel
        choices = ([d for d in range(1, 9) if size % d == 0] for size in (m, n))
        foldings[stage.name] = (*(int(rng.choice(c)) for c in choices), int(rng.choice([1, k])))
    plan = lower(variant.plan.network, foldings, in_flight=2)
    found = estimate(plan)
    us = 1 / variant.clock_mhz
    return Point(
        variant=number,
        foldings=tuple(foldings.values()),
        cycles=found.cycles,
        latency_cycles=found.latency,
        samples_per_s=1e6 / (found.cycles * us),
        latency_us=found.latency * us,
        dsp=plan.multipliers + 1,
        bram36=int(rng.integers(2, 40)) / 2,
        lut=200 * plan.multipliers + int(rng.integers(500)),
        ff=120 * plan.multipliers,
    )
