# amaranth: UnusedElaboratable=no

from math import gcd

import numpy as np
import pytest

from streamtrain.numeric import Fixed
from streamtrain.simulate.bench import run_stream, run_streams
from streamtrain.stream import Resize

Q4_4 = Fixed(8, 4)
LANES = [(1, 1), (3, 3), (1, 4), (4, 1), (2, 6), (6, 2), (4, 6), (6, 4), (2, 3), (5, 3)]


def elements(lanes_in, lanes_out, groups=6):
    count = groups * lanes_in * lanes_out
    return np.random.default_rng(count).integers(-128, 128, count)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("lanes_in, lanes_out", LANES)
def test_elements_stay_in_order(lanes_in, lanes_out, stall):
    x = elements(lanes_in, lanes_out)
    dut = Resize(Q4_4, lanes_in, lanes_out)
    y = run_stream(dut, x.reshape(-1, lanes_in), len(x) // lanes_out, stall=stall)
    np.testing.assert_array_equal(y, x.reshape(-1, lanes_out))


def test_extreme_codes_keep_their_sign():
    lanes = [[-128, 127, -1], [0, -128, 127]]
    assert run_stream(Resize(Q4_4, 3, 2), lanes, 3) == [[-128, 127], [-1, 0], [-128, 127]]


@pytest.mark.parametrize("lanes_in, lanes_out", LANES)
def test_the_smaller_size_moves_every_cycle(lanes_in, lanes_out):
    # If neither size divides the other, elements pass in groups of their greatest common divisor.
    x = elements(lanes_in, lanes_out)
    cycles = len(x) // gcd(lanes_in, lanes_out)
    counts = {"o": len(x) // lanes_out}
    run = run_streams(Resize(Q4_4, lanes_in, lanes_out), {"i": x.reshape(-1, lanes_in)}, counts)
    assert run.cycles == cycles


@pytest.mark.parametrize("lanes", [(0, 1), (1, 0), (-2, 4)])
def test_rejects_no_lanes(lanes):
    with pytest.raises(
        ValueError, match=rf"^Lanes must be at least 1, not {lanes[0]} and {lanes[1]}$"
    ):
        Resize(Q4_4, *lanes)
