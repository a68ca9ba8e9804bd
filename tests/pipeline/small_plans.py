"""Plans that are small enough for Amaranth's simulator."""

from streamtrain.network import (
    SGD,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    Network,
    ReLU,
    SquaredHinge,
)
from streamtrain.numeric import Fixed
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

SOFTMAX = CrossEntropy()

TINY = Network(
    (1, 6, 6),
    (Conv2d(2, kernel=3), ReLU(), MaxPool2d(), Flatten(), Linear(3)),
    optimizer=SGD(2**-3),
)
FOLDINGS = {"conv1": (2, 1, 9), "linear1": (1, 6, 1)}


def tiny(numbers=None, **options):
    return lower(TINY, FOLDINGS, numbers, **options)


def mixed_formats(loss=SOFTMAX, frozen=()):
    """Stages whose formats, rounding and lanes all differ."""
    net = Network(
        (2, 4, 5),
        (
            Conv2d(6, kernel=3, padding="valid"),
            ReLU(),
            Conv2d(4, kernel=1, bias=False),
            MaxPool2d(),
            Flatten(),
            Linear(3),
            ReLU(),
            Linear(2),
        ),
        loss=loss,
        optimizer=SGD(2**-2),
    ).freeze(*frozen)
    stochastic = {"round_activations": "stochastic", "round_errors": "stochastic"}
    overrides = {
        "conv1": Numbers(
            weights=Fixed(9, 7), activations=Fixed(12, 8), errors=Fixed(10, 10), **stochastic
        ),
        "conv2": Numbers(
            weights=Fixed(8, 6),
            master=Fixed(14, 11),
            activations=Fixed(9, 5),
            errors=Fixed(11, 12),
            round_weights="stochastic",
        ),
        "linear1": Numbers(
            weights=Fixed(7, 5), activations=Fixed(8, 4), errors=Fixed(9, 9), **stochastic
        ),
        "linear2": Numbers(
            weights=Fixed(10, 7), logits=Fixed(10, 6), errors=Fixed(12, 9), **stochastic
        ),
    }
    foldings = {"conv1": (3, 2, 3), "conv2": (2, 2, 1), "linear1": (3, 2, 1), "linear2": (2, 3, 1)}
    return lower(net, foldings, Numbers(activations=Fixed(8, 6)), overrides, in_flight=2)


def only_linear():
    net = Network((2, 1, 2), (Flatten(), Linear(3)))
    return lower(net, {"linear1": (1, 2, 1)}, in_flight=2)


def squared_error(**options):
    """Scores of 18 bits, one too wide for the multiplier that squares them."""
    net = Network((4, 1, 1), (Flatten(), Linear(6), ReLU(), Linear(5)), loss=MSELoss())
    foldings = {"linear1": (1, 2, 1), "linear2": (5, 1, 1)}
    return lower(net, foldings, Numbers(logits=Fixed(18, 12)), **options)


def only_convolutions():
    """Scores are a 1x1 map, after pool and ReLU."""
    net = Network((1, 3, 3), (Conv2d(2, kernel=3, padding=1), MaxPool2d(), ReLU(), Flatten()))
    return lower(net, {"conv1": (1, 1, 3)})


def partly_frozen(*names, numbers=None, overrides=None, **options):
    """Convolutions with and without a pool, and two linear layers; the ones named are frozen."""
    net = Network(
        (1, 4, 4),
        (
            Conv2d(2, kernel=3),
            ReLU(),
            MaxPool2d(),
            Conv2d(4, kernel=1),
            ReLU(),
            Flatten(),
            Linear(4),
            ReLU(),
            Linear(2),
        ),
        optimizer=SGD(2**-3),
    ).freeze(*names)
    foldings = {"conv1": (2, 1, 9), "conv2": (2, 2, 1), "linear1": (2, 4, 1), "linear2": (1, 2, 1)}
    return lower(net, foldings, numbers, overrides, **options)


PLANS = {
    "one in flight": tiny(),
    "two in flight": tiny(in_flight=2),
    "mixed formats": mixed_formats(),
    "only linear": only_linear(),
    "only convolutions": only_convolutions(),
    "squared error": squared_error(in_flight=2),
    "squared hinge": mixed_formats(SquaredHinge()),
    "narrow multipliers": tiny(in_flight=2, operand_bits=18),
}
