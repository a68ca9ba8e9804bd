"""The designs whose estimated cycles are compared with simulated ones.

The five nets of the benchmarks, and ten random ones; each with the smallest folding there is, foldings in
between, and a large one. All can accumulate mini-batches, so that one compiled model serves both sizes.
"""

import numpy as np
from nets import BOARD, NETS

import streamtrain as st

__all__ = ["BATCHES", "designs", "random_network"]

BATCHES = (1, 16)
RANDOM_NETS = 10

LARGE = {
    # The fastest on the board, as `st.explore(net, BOARD, objectives=["samples_per_s"]).fastest()` finds it.
    "M": ((8, 1, 9), (16, 4, 9), (32, 8, 3), (10, 32, 1)),
    "S": ((8, 3, 9), (8, 8, 9), (16, 8, 3), (8, 8, 9), (5, 16, 1)),
    "C": ((8, 3, 9), (16, 8, 3), (8, 16, 3), (16, 8, 3), (8, 16, 3), (2, 32, 1)),
    "E": ((16, 1, 9), (16, 8, 9), (16, 32, 1), (5, 8, 1)),
    # One of 708 multipliers: a model of the fastest, with 1,752, compiles for very long.
    "X": ((8, 1, 3), (4, 8, 3), (4, 8, 3), (8, 4, 3), (4, 16, 3), (8, 8, 3), (2, 8, 1)),
}
"""Foldings of large designs, by net."""


def random_network(seed):
    """A small network: one to three convolutions of 1x1, 3x3 or 5x5 with odd maps, one or two linear layers."""
    rng = np.random.default_rng(1000 + seed)
    rows, cols = int(rng.integers(6, 17)), int(rng.integers(6, 17))
    shape = (int(rng.choice([1, 2, 3])), rows, cols)
    layers = []
    for _ in range(int(rng.integers(1, 4))):
        kernel, channels = int(rng.choice([1, 3, 3, 3, 5])), int(rng.choice([4, 6, 8, 9, 10, 12, 16]))
        padding = kernel // 2 if rng.random() < 0.6 else 0
        lost = kernel - 1 - 2 * padding
        if min(rows, cols) - lost < 2:
            continue
        layers.append(st.Conv2d(channels, kernel, padding=padding))
        rows, cols = rows - lost, cols - lost
        if rng.random() < 0.8:
            layers.append(st.ReLU())
        if rng.random() < 0.67 and min(rows, cols) >= 4:
            layers.append(st.MaxPool2d(2))
            rows, cols = rows // 2, cols // 2
    if not layers:
        layers.append(st.Conv2d(6, 1))
    layers.append(st.Flatten())
    if rng.random() < 0.5:
        layers += [st.Linear(int(rng.choice([12, 20, 32]))), st.ReLU()]
    layers.append(st.Linear(int(rng.integers(3, 11))))
    return st.Network(shape, layers, optimizer=st.SGD(2**-7))


def designs():
    """All of them, a dict by name such as ``"C, 200"``: the net, and what its foldings are."""
    found = {}
    for name, net in NETS.items():
        network = net.network()
        foldings = dict(zip(network.macs, LARGE[name], strict=True))
        _add(found, name, network, {"smallest": None, "50": 50, "200": 200, "large": foldings})
    for seed in range(RANDOM_NETS):
        network = random_network(seed)
        _add(found, f"random {seed}", network, {"smallest": None, "20": 20, "60": 60, "200": 200})
    return found


def _add(found, name, network, shares):
    for what, share in shares.items():
        given = {"multipliers": share}
        if share is None:
            given = {"foldings": dict.fromkeys(network.macs, (1, 1, 1))}
        elif isinstance(share, dict):
            given = {"foldings": share}
        found[f"{name}, {what}"] = st.plan(network, BOARD, max_batch=max(BATCHES), **given)
