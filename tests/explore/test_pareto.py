from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamtrain.explore.pareto import non_dominated


def brute_force(rows):
    """Row by row, as the definition says it."""

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    rows = [tuple(row) for row in rows]
    return [
        not any(dominates(other, row) for other in rows) and row not in rows[:position]
        for position, row in enumerate(rows)
    ]


shapes = st.tuples(st.integers(0, 40), st.integers(1, 5))


@given(arrays(np.int64, shapes, elements=st.integers(0, 6)))
def test_equals_the_definition(rows):
    assert non_dominated(rows).tolist() == brute_force(rows)


@given(arrays(float, shapes, elements=st.floats(allow_nan=False)))
def test_equals_the_definition_for_any_number(rows):
    assert non_dominated(rows).tolist() == brute_force(rows)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("levels", [3, 1000])
def test_halves_are_merged(objectives, levels):
    rows = np.random.default_rng(objectives).integers(0, levels, (700, objectives))
    assert non_dominated(rows).tolist() == brute_force(rows)


def test_a_front_is_kept_whole():
    x = np.arange(1000.0)
    on_front = np.stack([x, -x, np.zeros_like(x)], axis=1)
    assert non_dominated(on_front).all()
    behind = np.stack([x, -x, np.ones_like(x)], axis=1)
    assert not non_dominated(np.concatenate([on_front, behind]))[1000:].any()


def test_of_equal_rows_the_first_is_marked():
    assert non_dominated([[2, 2], [1, 3], [1, 3], [2, 2]]).tolist() == [True, True, False, False]


@pytest.mark.parametrize("worst", [np.inf, -np.inf])
def test_infinite_values_are_values(worst):
    assert non_dominated([[worst, 1.0], [worst, 0.0]]).tolist() == [False, True]


def test_takes_a_hundred_thousand_rows_in_seconds():
    direction = np.abs(np.random.default_rng(1).normal(size=(100_000, 3)))
    sphere = 1 - direction / np.linalg.norm(direction, axis=1, keepdims=True)
    started = perf_counter()
    assert non_dominated(sphere).all()
    assert perf_counter() - started < 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], r"^Values must have shape \(rows, objectives\), not \(2,\)$"),
        (np.zeros((3, 0)), r"^Values must have shape \(rows, objectives\), not \(3, 0\)$"),
        ([[1.0, np.nan]], r"^Values must be comparable, but some are NaN$"),
    ],
)
def test_rejects_what_has_no_order(values, message):
    with pytest.raises(ValueError, match=message):
        non_dominated(values)
