from dataclasses import replace

import numpy as np
import pytest

import streamtrain as st
from streamtrain.network import Network, Weights

NET = Network((1, 4, 4), [st.Conv2d(2, 3), st.Flatten(), st.Linear(3, bias=False)])
VALUES = NET.initial_weights(5)


def test_training_starts_with_the_networks_weights():
    net = replace(NET, weights=VALUES)
    for name, array in net.initial_weights().items():
        np.testing.assert_array_equal(array, VALUES[name])
    random = net.initial_weights(0)["conv1.weight"]
    np.testing.assert_array_equal(random, NET.initial_weights(0)["conv1.weight"])
    trainer = st.plan(net, multipliers=10).golden()
    codes = trainer.plan.encode_weights(VALUES)
    for name, array in trainer.state_dict().items():
        np.testing.assert_array_equal(array, codes[name])


def test_weights_travel_as_json():
    net = replace(NET, weights=VALUES)
    again = Network.from_json(net.to_json())
    assert again == net
    assert hash(again) == hash(net)
    assert again != replace(NET, weights=NET.initial_weights(6))
    assert len(repr(net)) < 1000
    design = st.plan(net, multipliers=10)
    assert st.Design.from_json(design.to_json()) == design


def test_copies_are_the_callers():
    net = replace(NET, weights=VALUES)
    net.initial_weights()["conv1.weight"][:] = 0
    np.testing.assert_array_equal(net.initial_weights()["conv1.weight"], VALUES["conv1.weight"])


def changed(name, value):
    return {**VALUES, name: value}


@pytest.mark.parametrize(
    "weights, error, message",
    [
        ([1.0], TypeError, r"^Weights must be a dictionary of arrays, not \[1.0\]$"),
        ({}, ValueError, r"^Weights lack conv1.weight \(2, 1, 3, 3\)$"),
        (changed("conv1.bias", np.zeros(3)), ValueError, r"^Weights have conv1.bias of \(3,\), but it must be \(2,\)$"),
        (changed("linear1.bias", np.zeros(3)), ValueError, r"^Weights have linear1.bias, but the network has conv1.weight, conv1.bias, linear1.weight$"),
        (changed("conv1.bias", np.array([0, np.nan])), ValueError, r"^conv1.bias is nan at \(1,\), but must be finite$"),
    ],
)  # fmt: skip
def test_other_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        replace(NET, weights=weights)


@pytest.mark.parametrize(
    "names, shapes, data, message",
    [
        (("a",), ((1,),), "?", "base64 of float64 numbers"),
        (("a",), ((1,),), "AAAA", "base64 of float64 numbers"),
        (("a",), ((2,),), "AAAAAAAAAAA=", "Weights hold 1 numbers, but their shapes 2"),
        (("a", "a"), ((1,), (0,)), "AAAAAAAAAAA=", "each name once"),
        (("a",), (), "", "one shape for each name"),
    ],
)
def test_damaged_descriptions_are_refused(names, shapes, data, message):
    with pytest.raises(ValueError, match=message):
        Weights(names, shapes, data)


def test_formats_hold_the_weights():
    net = replace(NET, weights=changed("linear1.weight", np.full((3, 32), 100_000.0)))
    with pytest.raises(
        ValueError, match=r"^linear1.weight reaches from 1e\+05 .*scale the model's weights down$"
    ):
        st.plan(net, multipliers=10)
