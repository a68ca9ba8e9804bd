"""The designs whose estimated cycles are compared with simulated ones.

The five nets of the benchmarks and sixteen random ones, with foldings from the smallest there is to the
fastest that the board holds. They were once chosen at random, or by :func:`streamtrain.plan` for a number of
multipliers; here they are written down, so that they stay the same. All can accumulate mini-batches, so that
one compiled model serves both sizes.
"""

from nets import BOARD, NETS

import streamtrain as st

__all__ = ["BATCHES", "designs"]

BATCHES = (1, 16)

SHARES = {
    "M": {
        "50": ((2, 1, 3), (2, 4, 3), (1, 2, 9), (1, 2, 1)),
        "fastest": ((8, 1, 9), (16, 4, 9), (32, 8, 3), (10, 32, 1)),
    },
    "S": {
        "50": ((1, 1, 9), (2, 2, 3), (2, 2, 3), (4, 4, 1), (1, 1, 1)),
        "fastest": ((8, 3, 9), (8, 8, 9), (16, 8, 3), (8, 8, 9), (5, 16, 1)),
    },
    "C": {
        "50": ((8, 1, 1), (2, 2, 3), (1, 1, 9), (2, 2, 3), (2, 4, 1), (1, 1, 1)),
        "fastest": ((8, 3, 9), (16, 8, 3), (8, 16, 3), (16, 8, 3), (8, 16, 3), (2, 32, 1)),
    },
    "E": {
        "50": ((2, 1, 3), (1, 4, 9), (1, 7, 1), (1, 1, 1)),
        "fastest": ((16, 1, 9), (16, 8, 9), (16, 32, 1), (5, 8, 1)),
    },
    "X": {
        "50": ((1, 1, 3), (2, 2, 3), (1, 2, 3), (1, 1, 9), (1, 2, 3), (2, 2, 3), (1, 2, 1)),
    },
}  # fmt: skip
"""Foldings of the benchmarks' nets, besides those that the benchmarks use: for about 50 multipliers, and the
fastest with the board's DSP slices and block RAM. Their LUTs were estimated lower when they were found."""

RANDOM = {
    "random 0": ((1, 11, 15), "9k5 R 9k1 R FC10", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((9, 1, 5), (3, 1, 1), (2, 1, 1)),
        "about 40": ((3, 1, 5), (3, 3, 1), (5, 3, 1)),
        "about 200": ((3, 1, 25), (9, 3, 1), (2, 45, 1)),
    }),
    "random 1": ((3, 12, 15), "6k3p0 R P FC4", {
        "smallest": ((1, 1, 1), (1, 1, 1)),
        "random": ((2, 3, 9), (4, 1, 1)),
        "about 40": ((3, 1, 9), (4, 3, 1)),
        "about 200": ((6, 3, 9), (2, 18, 1)),
    }),
    "random 2": ((2, 10, 14), "12k5 R 8k3 FC20 R FC10", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((1, 1, 5), (1, 4, 9), (5, 4, 1), (10, 1, 1)),
        "about 40": ((6, 2, 1), (1, 2, 9), (2, 4, 1), (1, 2, 1)),
        "about 200": ((12, 1, 5), (8, 4, 3), (10, 4, 1), (2, 2, 1)),
    }),
    "random 3": ((1, 8, 12), "9k3p0 R P FC32 R FC8", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((9, 1, 1), (2, 3, 1), (1, 16, 1)),
        "about 40": ((9, 1, 1), (1, 27, 1), (2, 2, 1)),
        "about 200": ((9, 1, 9), (8, 9, 1), (2, 16, 1)),
    }),
    "random 4": ((3, 6, 7), "4k1 R P FC32 R FC9", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((4, 1, 1), (4, 9, 1), (1, 4, 1)),
        "about 40": ((4, 3, 1), (4, 4, 1), (3, 4, 1)),
        "about 200": ((4, 3, 1), (32, 4, 1), (3, 16, 1)),
    }),
    "random 5": ((2, 6, 16), "8k3p0 8k5 R 8k3p0 R FC32 R FC10", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((2, 2, 1), (1, 2, 25), (2, 1, 1), (1, 12, 1), (1, 8, 1)),
        "about 40": ((1, 1, 3), (1, 1, 25), (1, 8, 1), (1, 3, 1), (1, 1, 1)),
        "about 200": ((8, 2, 1), (2, 2, 25), (4, 4, 3), (2, 12, 1), (5, 2, 1)),
    }),
    "random 6": ((2, 9, 8), "8k3 R 9k3 R P FC20 R FC9", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((1, 2, 1), (1, 2, 9), (2, 3, 1), (9, 4, 1)),
        "about 40": ((4, 2, 1), (3, 1, 9), (4, 1, 1), (1, 1, 1)),
        "about 200": ((4, 2, 3), (9, 2, 9), (4, 3, 1), (1, 2, 1)),
    }),
    "random 7": ((1, 6, 13), "10k3 R 16k5 R P 4k1 R FC9", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((1, 1, 9), (1, 1, 1), (4, 8, 1), (9, 3, 1)),
        "about 40": ((2, 1, 1), (16, 2, 1), (1, 2, 1), (1, 4, 1)),
        "about 200": ((2, 1, 3), (16, 2, 5), (2, 8, 1), (3, 6, 1)),
    }),
    "random 8": ((2, 7, 11), "6k3p0 8k5 R P 8k3 R FC6", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "random": ((2, 2, 3), (2, 2, 1), (1, 4, 3), (6, 2, 1)),
        "about 40": ((2, 2, 1), (1, 1, 25), (4, 2, 1), (3, 1, 1)),
        "about 200": ((3, 1, 9), (4, 6, 5), (4, 1, 9), (2, 8, 1)),
    }),
    "random 9": ((3, 6, 12), "4k3 P FC7", {
        "smallest": ((1, 1, 1), (1, 1, 1)),
        "random": ((2, 3, 9), (1, 2, 1)),
        "about 40": ((4, 1, 9), (1, 4, 1)),
        "about 200": ((4, 3, 9), (7, 12, 1)),
    }),
    "random 11": ((3, 15, 12), "6k3p0 R P FC3", {
        "about 20": ((6, 1, 3), (1, 2, 1)),
        "smallest": ((1, 1, 1), (1, 1, 1)),
    }),
    "random 13": ((2, 9, 8), "9k3p0 R FC20 R FC7", {
        "about 20": ((1, 1, 9), (5, 2, 1), (1, 1, 1)),
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    }),
    "random 14": ((1, 13, 6), "4k1 R FC32 R FC7", {
        "about 20": ((1, 1, 1), (4, 4, 1), (1, 2, 1)),
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    }),
    "random 15": ((3, 10, 6), "8k3p0 6k3 R P 16k3 R FC32 R FC10", {
        "about 20": ((1, 1, 3), (2, 4, 1), (2, 2, 1), (2, 2, 1), (1, 1, 1)),
    }),
    "random 16": ((1, 11, 9), "8k3 R P 8k3 R P FC3", {
        "smallest": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        "about 20": ((2, 1, 3), (4, 1, 3), (1, 2, 1)),
    }),
    "random 19": ((2, 14, 6), "4k3 P FC4", {
        "smallest": ((1, 1, 1), (1, 1, 1)),
        "about 20": ((2, 1, 9), (1, 2, 1)),
    }),
}  # fmt: skip
"""Random nets: input shape, layers and foldings. ``9k5`` is a convolution of 9 channels with a 5x5 kernel and
padding "same", ``p0`` behind it another padding; R is ReLU, P a pool, ``FC10`` a linear layer."""


def designs():
    """All of them, a dict of :class:`~streamtrain.design.Design` by name, such as ``"C, fastest"``."""
    found = {}
    for name, net in NETS.items():
        shares = dict(SHARES[name])
        if not isinstance(net.foldings, int):
            shares["as benchmarked"] = net.foldings
        _add(found, name, net.network(), shares)
    for name, (shape, text, shares) in RANDOM.items():
        _add(found, name, _network(shape, text), shares)
    return found


def _add(found, name, network, shares):
    for what, foldings in shares.items():
        own = dict(zip(network.macs, foldings, strict=True))
        found[f"{name}, {what}"] = st.plan(network, BOARD, foldings=own, max_batch=max(BATCHES))


def _network(shape, text):
    layers, flat = [], False
    for word in text.split():
        if word == "R":
            layers.append(st.ReLU())
        elif word == "P":
            layers.append(st.MaxPool2d(2))
        elif word.startswith("FC"):
            layers += [] if flat else [st.Flatten()]
            flat = True
            layers.append(st.Linear(int(word.removeprefix("FC"))))
        else:
            channels, _, rest = word.partition("k")
            kernel, _, padding = rest.partition("p")
            own = int(padding) if padding else "same"
            layers.append(st.Conv2d(int(channels), int(kernel), padding=own))
    return st.Network(shape, layers, optimizer=st.SGD(2**-7))
