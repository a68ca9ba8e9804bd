import os
from pathlib import Path
from random import Random

import pytest

FOLDER = Path(os.environ.get("STREAMTRAIN_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture
def published():
    """Folder with the data sets as they are published."""
    if not FOLDER.is_dir():
        pytest.skip(f"no data sets in {FOLDER} (STREAMTRAIN_DATA names another folder)")
    return FOLDER


def pytest_addoption(parser):
    parser.addoption(
        "--fresh",
        type=int,
        metavar="N",
        help="draw N times new random designs, instead of the same ones as always",
    )

    parser.addoption(
        "--sequences",
        type=int,
        metavar="N",
        default=5,
        help="play N random sequences of faults on the digits design in cocotb",
    )


def pytest_generate_tests(metafunc):
    """``draw_seed``: of random designs; a design is found again by the seed in its test's name."""
    if "draw_seed" in metafunc.fixturenames:
        fresh = metafunc.config.getoption("--fresh")
        # All workers of one run must draw the same.
        draw = Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
        seeds = range(5) if fresh is None else [draw.randrange(10**9) for _ in range(fresh)]
        metafunc.parametrize("draw_seed", seeds)
