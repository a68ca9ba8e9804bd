"""Plans with samples and results of all shapes."""

from small_plans import mixed_formats, only_linear, squared_error, tiny

from streamtrain.bus import PacketFormat
from streamtrain.network import SGD, Flatten, Linear, Network
from streamtrain.numeric import Fixed
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

__all__ = ["FORMATS", "everything", "many_classes", "name_of"]


def narrow():
    """Pixels of 5 bits, an odd number of them, and scores of 18 bits."""
    net = Network((1, 3, 3), (Flatten(), Linear(3)))
    numbers = Numbers(activations=Fixed(5, 3), logits=Fixed(18, 12))
    return lower(net, {"linear1": (1, 3, 1)}, numbers)


def many_classes(classes):
    net = Network((1, 1, 1), (Flatten(), Linear(classes)))
    return lower(net, {"linear1": (1, 1, 1)})


def everything():
    """All that an optimiser can have, mini-batches and random bits."""
    net = Network(
        (2, 1, 2),
        (Flatten(), Linear(3)),
        optimizer=SGD(2**-4, momentum=0.5, weight_decay=2**-6, clip=1.0),
    )
    numbers = Numbers(weights=Fixed(8, 6), round_weights="stochastic")
    return lower(net, {"linear1": (1, 2, 1)}, numbers, max_batch=5)


PLANS = {
    "tiny": tiny(),  # 36 pixels, one lane
    "mixed formats": mixed_formats(),  # two lanes, two classes
    "only linear": only_linear(),
    "squared error": squared_error(),  # five scores
    "narrow": narrow(),
}

FORMATS = [PacketFormat(plan, size) for plan in PLANS.values() for size in (1, 2, 4, 8)]


def name_of(fmt):
    name = next(name for name, plan in PLANS.items() if plan is fmt.plan)
    return f"{name}, {fmt.size} bytes"
