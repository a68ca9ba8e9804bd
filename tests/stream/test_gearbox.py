# amaranth: UnusedElaboratable=no

import random

import pytest

from streamtrain.simulate.bench import run_stream, run_streams
from streamtrain.stream import Gearbox

SHAPES = [  # bits of a unit, units in, units out, units of a packet
    (8, 1, 1, 1),
    (8, 1, 1, 5),
    (8, 4, 1, 4),
    (8, 4, 1, 6),
    (8, 4, 1, 9),
    (8, 1, 4, 8),
    (8, 4, 3, 9),
    (8, 3, 4, 12),
    (8, 3, 4, 4),
    (8, 4, 6, 6),
    (8, 4, 6, 30),
    (8, 8, 3, 21),
    (16, 2, 5, 15),
    (1, 7, 5, 20),
    (3, 2, 9, 9),
    (8, 64, 1, 100),
]
PACKETS = 5


def words(shape):
    """Packets as words in, whose last one is filled up with noise, and as words out."""
    unit, units_in, units_out, packet = shape
    rng = random.Random(str(shape))
    given, expected = [], []
    for _ in range(PACKETS):
        units = [rng.getrandbits(unit) for _ in range(packet)]
        filled = units + [rng.getrandbits(unit) for _ in range(-packet % units_in)]
        given += [joined(filled[n : n + units_in], unit) for n in range(0, packet, units_in)]
        expected += [joined(units[n : n + units_out], unit) for n in range(0, packet, units_out)]
    return given, expected


def joined(units, bits):
    return sum(unit << bits * place for place, unit in enumerate(units))


@pytest.mark.parametrize("stall", [0.0, 0.5, {"i": 0.7}, {"o": 0.7}])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_units_stay_in_order(shape, stall):
    given, expected = words(shape)
    assert run_stream(Gearbox(*shape), given, len(expected), stall=stall) == expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_side_with_fewer_units_moves_every_cycle(shape):
    _, units_in, units_out, _ = shape
    given, expected = words(shape)
    run = run_streams(Gearbox(*shape), {"i": given}, {"o": len(expected)})
    side = "i" if units_in <= units_out else "o"
    first = run.times[side][0]
    assert run.times[side] == [first + n for n in range(len(run.times[side]))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_word_is_offered_after_its_last_unit(shape):
    _, units_in, units_out, packet = shape
    given, expected = words(shape)
    run = run_streams(Gearbox(*shape), {"i": given}, {"o": len(expected)})
    per_packet = -(-packet // units_in)
    for number, time in enumerate(run.times["o"]):
        whole, place = divmod(number, packet // units_out)
        last = whole * per_packet + ((place + 1) * units_out - 1) // units_in
        before = run.times["o"][number - 1] if number else -1
        assert time == max(run.times["i"][last] + 1, before + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 1, 1), r"^Units of 0 bits, 1 and 1 of them: each must be at least 1$"),
        ((8, 0, 1, 1), r"^Units of 8 bits, 0 and 1 of them: each must be at least 1$"),
        ((8, 1, -1, 1), r"^Units of 8 bits, 1 and -1 of them: each must be at least 1$"),
        ((8, 4, 3, 8), r"^Packets must be words of 3 units, but have 8 units$"),
        ((8, 4, 3, 0), r"^Packets must be words of 3 units, but have 0 units$"),
    ],
)
def test_rejects_what_has_no_words(arguments, message):
    with pytest.raises(ValueError, match=message):
        Gearbox(*arguments)
