"""What the golden model refuses, and what it says."""

import numpy as np
import pytest

from streamtrain.golden import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.numeric import Fixed
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

NETWORK = Network((2, 4, 6), [Conv2d(4, 3), ReLU(), MaxPool2d(), Flatten(), Linear(3)])


def make_plan(numbers=None, network=NETWORK, **arguments):
    return lower(network, lambda name, channels, kernel: (1, 1, 1), numbers, **arguments)


def make_commands(count, **fields):
    commands = {"op": Op.TRAIN, "label": 0, "update": 1, "mantissa": 128, "shift": 0}
    commands.update(fields)
    return Commands(**{key: np.broadcast_to(value, count) for key, value in commands.items()})


X = np.zeros((2, 2, 4, 6), int)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[0], ValueError, r"^Samples must have shape \(samples, 2, 4, 6\), not \(2, 4, 6\)$"),
        (
            X[:, :1],
            ValueError,
            r"^Samples must have shape \(samples, 2, 4, 6\), not \(2, 1, 4, 6\)$",
        ),
        (X / 2, TypeError, r"^Sample must hold integer codes, not float64; see Fixed.encode$"),
        (
            X + 32768,
            ValueError,
            r"^Sample has code 32768 at \(0, 0, 0, 0\), outside fixed<16,5>: -32768 to 32767$",
        ),
    ],
)
def test_rejects_samples(x, error, message):
    with pytest.raises(error, match=message):
        Golden(make_plan()).run(x, make_commands(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op": [2, 3]}, r"^Command 1 has op 3; it must be 0 to 2$"),
        ({"label": [0, 3]}, r"^Command 1 has label 3; it must be 0 to 2$"),
        ({"label": [-1, 0]}, r"^Command 0 has label -1; it must be 0 to 2$"),
        ({"op": Op.EVALUATE, "label": 3}, r"^Command 0 has label 3; it must be 0 to 2$"),
        ({"update": [1, 2]}, r"^Command 1 has update 2; it must be 0 to 1$"),
        ({"mantissa": 129}, r"^Command 0 has mantissa 129; it must be 0 to 128$"),
        ({"shift": 8}, r"^Command 0 has shift 8; it must be 0 to 7$"),
        (
            {"update": [1, 0]},
            r"^A command trains without an update, but this plan has max_batch=1: every sample "
            r"updates the weights$",
        ),
    ],
)
def test_rejects_commands(fields, message):
    with pytest.raises(ValueError, match=message):
        Golden(make_plan()).run(X, make_commands(2, **fields))


def test_ignores_what_a_command_does_not_use():
    golden = Golden(make_plan())
    golden.run(X, make_commands(2, op=Op.INFER, label=7, update=3, mantissa=999, shift=99))
    golden.run(X, make_commands(2, op=Op.EVALUATE, update=0, mantissa=999, shift=99))


def test_rejects_commands_of_another_kind():
    golden = Golden(make_plan())
    with pytest.raises(TypeError, match=r"^Commands must be Commands, not None$"):
        golden.run(X, None)
    with pytest.raises(TypeError, match=r"^Commands' label must be integers, not float64$"):
        golden.run(X, make_commands(2, label=0.5))
    with pytest.raises(
        ValueError,
        match=r"^Commands' op must have one value for each of 2 samples, but its shape is \(3,\)$",
    ):
        golden.run(X, make_commands(3))


def test_rejects_mini_batches_longer_than_planned():
    golden = Golden(make_plan(max_batch=3))
    golden.run(X, make_commands(2, update=0))
    message = r"^A mini-batch has 4 samples; this plan has max_batch=3$"
    with pytest.raises(ValueError, match=message):
        golden.run(X, make_commands(2, update=[0, 1]))
    golden.run(X, make_commands(2, update=[1, 0]))


def test_refused_samples_change_nothing():
    golden = Golden(make_plan())
    before = golden.read_weights()
    with pytest.raises(ValueError, match="label"):
        golden.run(X + 100, make_commands(2, label=[0, 9]))
    for name, codes in golden.read_weights().items():
        np.testing.assert_array_equal(codes, before[name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"conv1.bias": None}, ValueError, r"^Weights of conv1.bias are missing$"),
        (
            {"conv2.weight": 0},
            ValueError,
            r"^Weights are given for 'conv2.weight'; what the network has is "
            r"conv1.weight, conv1.bias, linear1.weight, linear1.bias$",
        ),
        (
            {"linear1.weight": np.zeros((24, 3), int)},
            ValueError,
            r"^linear1.weight must have shape \(3, 24\), not \(24, 3\)$",
        ),
        (
            {"linear1.bias": np.array([0, -32769, 0])},
            ValueError,
            r"^linear1.bias has code -32769 at \(1,\), outside fixed<16,3>: -32768 to 32767$",
        ),
        (
            {"conv1.bias": np.zeros(4)},
            TypeError,
            r"^conv1.bias must hold integer codes, not float64; see Fixed.encode$",
        ),
    ],
)
def test_rejects_weights(change, error, message):
    golden = Golden(make_plan())
    before = golden.read_weights()
    weights = {**{name: codes + 1 for name, codes in before.items()}, **change}
    with pytest.raises(error, match=message):
        golden.write_weights({name: codes for name, codes in weights.items() if codes is not None})
    for name, codes in golden.read_weights().items():
        np.testing.assert_array_equal(codes, before[name])


def test_twin_rejects_weights_that_are_no_numbers():
    twin = Golden(make_plan(), exact=False)
    weights = twin.read_weights()
    weights["conv1.bias"][1] = np.nan
    with pytest.raises(ValueError, match=r"^conv1.bias must be finite$"):
        twin.write_weights(weights)


def test_rejects_sums_that_float64_cannot_hold():
    network = Network((2, 2, 2), [Conv2d(2, 1), Flatten(), Linear(3)])
    fine = Numbers(activations=Fixed(18, 36), weights=Fixed(18, 16))
    with pytest.raises(
        ValueError,
        match=r"^conv1: the outputs may need 54 bits, but the golden model's sums are exact to 53$",
    ):
        Golden(make_plan(fine, network))


def test_rejects_roundings_with_too_few_random_bits():
    numbers = Numbers(errors=Fixed(16, 5), round_errors="stochastic")
    with pytest.raises(
        ValueError,
        match=r"^linear1: stochastic rounding of the errors drops 33 bits, but there are "
        r"32 random ones$",
    ):
        Golden(make_plan(numbers))


def test_says_where_a_mini_batch_overflows():
    network = Network((1, 64, 64), [Conv2d(1, 1), Flatten(), Linear(2)])
    numbers = Numbers(activations=Fixed(18, 11), errors=Fixed(18, 24))
    golden = Golden(make_plan(numbers, network, max_batch=256))
    # Every pixel of every sample has the largest input and the largest error.
    golden.write_weights({
        "conv1.weight": np.full((1, 1, 1, 1), 1 << 13),
        "conv1.bias": np.zeros(1, int),
        "linear1.weight": np.broadcast_to([[32767], [-32768]], (2, 4096)),
        "linear1.bias": np.zeros(2, int),
    })
    x = np.full((256, 1, 64, 64), 2**17 - 1)
    message = (
        r"^conv1: with sample 1\d\d, the gradients of a mini-batch add up to more than the "
        r"53 bits that the golden model carries; use smaller mini-batches or a lower learning rate$"
    )
    with pytest.raises(OverflowError, match=message):
        golden.run(x, make_commands(256, label=1, update=[0] * 255 + [1]))


def test_the_same_layers_are_frozen_in_all_of_a_mini_batch():
    golden = Golden(make_plan(max_batch=2))
    golden.run(X, make_commands(2, update=[0, 1], frozen=1))
    golden.run(X, make_commands(2, update=[1, 0], frozen=[0, 1]))
    message = r"^Commands have frozen 0b0 in a mini-batch that began otherwise"
    with pytest.raises(ValueError, match=message):
        golden.run(X, make_commands(2, update=[1, 1]))
    with pytest.raises(ValueError, match=r"^Command 0 has frozen 99; it must be 0 to \d+$"):
        golden.run(X, make_commands(2, frozen=99))
