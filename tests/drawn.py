"""Designs drawn at random, for hypothesis: networks, foldings, formats, and how they are trained."""

from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

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
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

__all__ = ["foldings", "networks", "numbers", "plans", "trained_networks"]


@st.composite
def networks(draw):
    """Small ones: up to two convolutions, with or without pools, and up to two linear layers."""
    shape = draw(st.tuples(*(st.integers(1, most) for most in (3, 6, 6))))
    layers, (_, rows, cols) = [], shape
    for _ in range(draw(st.integers(0, 2))):
        kernel = draw(st.sampled_from([1, 3]))
        pad = draw(st.integers(0, kernel - 1))
        rows, cols = (size + 2 * pad - kernel + 1 for size in (rows, cols))
        assume(min(rows, cols) > 0)
        layers += [Conv2d(draw(st.sampled_from([1, 2, 3, 4, 6, 12])), kernel, padding=pad), ReLU()]
        if min(rows, cols) > 1 and draw(st.booleans()):
            layers.append(MaxPool2d())
            rows, cols = rows // 2, cols // 2
    layers.append(Flatten())
    if draw(st.booleans()):
        layers += [Linear(draw(st.integers(1, 6))), ReLU()]
    return Network(shape, (*layers, Linear(draw(st.integers(2, 6)))))


@st.composite
def trained_networks(draw):
    """:func:`networks` with biases or without, with ReLU or without, some layers frozen, and any loss and
    optimiser."""
    net = draw(networks())
    weighted = [layer.name for layer in net.layers if layer.stem in ("conv", "linear")]
    frozen = draw(st.sets(st.sampled_from(weighted), max_size=len(weighted) - 1))
    layers = []
    for layer in net.layers:
        if layer.stem == "relu" and draw(st.booleans()):
            continue
        if layer.stem in ("conv", "linear"):
            layer = replace(layer, bias=draw(st.booleans()), trainable=layer.name not in frozen)
        layers.append(replace(layer, name=None))
    rate = draw(st.integers(65, 128)) / 128 * 2.0 ** -draw(st.integers(1, 5))
    optimizer = SGD(
        rate,
        momentum=draw(st.sampled_from([0, 0.5, 0.9, 0.99])),
        weight_decay=draw(st.sampled_from([0, 1e-2, 0.1])),
        clip=draw(st.sampled_from([None, 0.05, 1.0])),
    )
    seed = draw(st.integers(0, 99))
    loss = draw(st.sampled_from([CrossEntropy(), MSELoss(), SquaredHinge()]))
    return Network(net.input_shape, layers, loss=loss, optimizer=optimizer, seed=seed)


@st.composite
def numbers(draw):
    """Formats of any width, and any rounding."""

    def fmt(width, whole):
        width = draw(st.integers(*width))
        return Fixed(width, width - draw(st.integers(*whole)))

    weights = fmt((6, 18), (1, 3))
    finer = draw(st.integers(0, 8))
    rounding = st.sampled_from(Round)
    return Numbers(
        weights=weights,
        master=Fixed(weights.width + finer, weights.frac + finer) if finer else None,
        activations=fmt((6, 18), (2, 5)),
        logits=fmt((8, 18), (4, 7)),
        errors=fmt((8, 18), (1, 3)),
        round_activations=draw(rounding),
        round_errors=draw(rounding),
        round_weights=draw(rounding),
    )


@st.composite
def foldings(draw, network):
    """Any foldings, as :func:`lower` takes them."""
    found = {}
    for stage in lower(network, lambda *layer: (1, 1, 1)).stages:
        (n, m), k = stage.channels, stage.kernel
        lanes = [
            st.sampled_from([d for d in range(1, size + 1) if size % d == 0]) for size in (m, n)
        ]
        found[stage.name] = draw(st.tuples(*lanes, st.sampled_from([1, k, k * k])))
    return found


@st.composite
def plans(draw, count=1, **options):
    """Plans of one network, with a folding each."""
    net = draw(networks())
    found = [lower(net, draw(foldings(net)), **options) for _ in range(count)]
    return found[0] if count == 1 else found
