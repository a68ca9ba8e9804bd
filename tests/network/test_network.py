from dataclasses import replace

import numpy as np
import pytest

from streamtrain.network import (
    SGD,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    Network,
    ReLU,
    ShapeError,
    network_text,
)

LAYERS = [Conv2d(8, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(10)]
NET = Network((1, 28, 28), LAYERS, optimizer=SGD(lr=2**-6))


def test_layers_are_named_by_kind_and_number():
    net = Network(
        (1, 8, 8),
        [Conv2d(4, 3), ReLU(), Conv2d(4, 3, name="middle"), ReLU(), Conv2d(4, 3), Flatten(), Linear(2)],
    )  # fmt: skip
    assert [layer.name for layer in net.layers] == [
        "conv1", "relu1", "middle", "relu2", "conv3", "flatten1", "linear1",
    ]  # fmt: skip


def test_shapes_flow_through():
    assert NET.shapes == ((1, 28, 28), (8, 28, 28), (8, 28, 28), (8, 14, 14), (1568,), (10,))
    assert NET.classes == 10
    assert NET.input_of("linear1") == (1568,)
    with pytest.raises(KeyError):
        NET.input_of("linear2")


def test_training_macs_are_three_passes_without_the_first_error():
    conv, linear = 28 * 28 * 8 * 9, 1568 * 10
    assert NET.macs == {"conv1": conv, "linear1": linear}
    assert NET.training_macs == 2 * conv + 3 * linear


@pytest.mark.parametrize(
    "filters, shape, macs",
    [
        ([8, 16, 32], (1, 28, 28), 1.476e6),  # M, S and 1X of the design notes
        ([8, 16, 32, 64], (3, 32, 32), 3.104e6),
    ],
)
def test_macs_of_known_networks(filters, shape, macs):
    layers = [layer for m in filters for layer in (Conv2d(m, 3), ReLU(), MaxPool2d())]
    net = Network(shape, [*layers, Flatten(), Linear(10)])
    assert net.training_macs == pytest.approx(macs, rel=1e-3)


def test_networks_are_records():
    again = Network.from_json(NET.to_json())
    assert again == NET
    assert hash(again) == hash(NET)
    assert again.shapes == NET.shapes
    assert again != replace(NET, seed=1)
    assert replace(NET, input_shape=(1, 32, 32)).shapes[-2] == (8 * 16 * 16,)


def test_sizes_may_be_numpy_integers():
    net = Network(np.array([1, 28, 28]), LAYERS, optimizer=SGD(lr=2**-6), seed=np.int64(0))
    assert net == NET
    assert Network.from_json(net.to_json()) == NET


def test_initial_weights_are_reproducible_and_he():
    weights = NET.initial_weights()
    assert {name: value.shape for name, value in weights.items()} == {
        "conv1.weight": (8, 1, 3, 3),
        "conv1.bias": (8,),
        "linear1.weight": (10, 1568),
        "linear1.bias": (10,),
    }
    assert weights["linear1.weight"].std() == pytest.approx(np.sqrt(2 / 1568), rel=0.02)
    assert not weights["conv1.bias"].any()
    for seed, same in ((0, True), (1, False)):
        other = NET.initial_weights(seed)["conv1.weight"]
        assert np.array_equal(other, weights["conv1.weight"]) is same
    seeded = replace(NET, seed=1).initial_weights()
    np.testing.assert_array_equal(seeded["conv1.weight"], NET.initial_weights(1)["conv1.weight"])


def test_a_layer_without_bias_has_none():
    net = Network((3, 1, 1), [Flatten(), Linear(2, bias=False)])
    assert list(net.initial_weights()) == ["linear1.weight"]


def test_table_counts_weights_and_macs():
    header, rows = NET.table()
    assert header == ("layer", "kind", "output", "weights", "MACs")
    assert rows[0] == ("input", "", "1x28x28", "", "")
    assert rows[1] == ("conv1", "Conv2d", "8x28x28", 80, 56448)
    assert rows[2] == ("relu1", "ReLU", "8x28x28", "", "")
    assert rows[5] == ("linear1", "Linear", "10", 15690, 15680)
    assert "15,690" in NET._repr_html_()


@pytest.mark.parametrize(
    "shape, layers, error, message",
    [
        ((1, 28), LAYERS, ValueError, r"^Input shape must be \(channels, rows, columns\), each at least 1, not \(1, 28\)$"),
        ((0, 28, 28), LAYERS, ValueError, r"each at least 1, not \(0, 28, 28\)$"),
        (28, LAYERS, TypeError, r"^Input shape must be three integers, not 28$"),
        ((1, 28, 2.5), LAYERS, TypeError, r"^Input shape must be three integers"),
        ((1, 28, 28), [], ValueError, r"^A network needs at least one layer$"),
        ((1, 28, 28), [Conv2d], TypeError, r"^Layer 0 must be a layer such as Conv2d, not <class"),
        ((1, 28, 28), [Conv2d(8, 3, name="a b"), *LAYERS], ValueError, r"^Layer name must be an identifier, not 'a b'$"),
        ((1, 28, 28), [Conv2d(8, 3, name=3), *LAYERS], ValueError, r"^Layer name must be an identifier, not 3$"),
        ((1, 28, 28), [Conv2d(8, 3, name="relu1"), *LAYERS], ValueError, r"^Two layers are named 'relu1'$"),
        ((1, 28, 28), [Flatten()], ValueError, r"no Conv2d or Linear layer, so nothing to train$"),
        ((1, 28, 28), [Flatten(), Linear(1)], ValueError, r"^The last layer \(linear1\) gives 1 score; cross-entropy needs at least 2 classes$"),
        ((1, 28, 28), [Conv2d(8, 3)], ShapeError, r"^The last layer \(conv1\) gives a map \(8, 28, 28\), .* add Flatten \(6272 classes\) or Linear$"),
        ((1, 28, 28), [Linear(10)], ShapeError, r"^linear1 takes a vector, but gets \(1, 28, 28\); put Flatten before it$"),
        ((1, 3, 3), [*LAYERS[:3], MaxPool2d(), Flatten(), Linear(2)], ShapeError, r"^pool2: a 1x1 map is smaller than the 2x2 pool"),
        ((1, 2, 2), [Conv2d(8, 3, "valid"), Flatten()], ShapeError, r"^conv1: a 3x3 kernel does not fit a 2x2 map"),
    ],
)  # fmt: skip
def test_rejects_what_makes_no_sense(shape, layers, error, message):
    with pytest.raises(error, match=message):
        Network(shape, layers)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"loss": "cross-entropy"}, r"^Loss must be CrossEntropy\(\), MSELoss\(\) or SquaredHinge\(\), not 'cross-e"),
        ({"loss": MSELoss}, r"^Loss must be .*, not <class '.*\.MSELoss'>$"),
        ({"optimizer": 0.01}, r"^Optimizer must be SGD\(lr\), not 0.01$"),
        ({"seed": "x"}, r"integer"),
    ],
)  # fmt: skip
def test_rejects_arguments(arguments, message):
    with pytest.raises(TypeError, match=message):
        Network((1, 28, 28), LAYERS, **arguments)


def test_network_in_a_line():
    layers = [
        Conv2d(4, 5), ReLU(), MaxPool2d(), Conv2d(8, 3), Conv2d(8, 1), Flatten(), Linear(9),
        Linear(2),
    ]  # fmt: skip
    assert network_text(Network((3, 8, 8), layers)) == "4k5P-8-8k1-FC9-FC2 on 3x8x8"
    layers[:1] = [Conv2d(4, 7, stride=2), BatchNorm2d()]
    assert network_text(Network((3, 8, 8), layers)) == "4k7s2NP-8-8k1-FC9-FC2 on 3x8x8"


def test_batch_norms_start_as_pytorchs_do():
    net = Network((3, 8, 8), [Conv2d(4, 3, bias=False), BatchNorm2d(), Flatten(), Linear(2)])
    weights = net.initial_weights()
    assert list(weights)[1:5] == [f"norm1.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        np.testing.assert_array_equal(weights[f"norm1.{name}"], np.full(4, value))
    assert replace(net, weights=weights).initial_weights().keys() == weights.keys()
    assert net.table()[1][2] == ("norm1", "BatchNorm2d", "4x8x8", 8, "")
    assert net.macs == {"conv1": 4 * 27 * 64, "linear1": 512}


def chain():
    layers = [Conv2d(4, 3), ReLU(), Conv2d(6, 3, name="middle"), Flatten(), Linear(3)]
    return Network((2, 4, 4), layers)


def test_frozen_layers_are_left_out_of_a_step():
    net = chain()
    first, middle, last = net.macs.values()
    assert net.frozen == ()
    assert net.training_macs == 2 * first + 3 * middle + 3 * last
    assert net.freeze("conv1").training_macs == first + 2 * middle + 3 * last
    assert net.freeze("conv1", "middle").training_macs == first + middle + 2 * last
    assert net.freeze("middle", "linear1").training_macs == 2 * first + 2 * middle + 2 * last
    assert net.freeze("conv1").freeze("middle") == net.freeze("middle", "conv1")
    assert net.freeze("middle").frozen == ("middle",)
    assert ("middle", "Conv2d, frozen") in [row[:2] for row in net.freeze("middle").table()[1]]
    assert Network.from_json(net.freeze("middle").to_json()) == net.freeze("middle")
    assert Network(net.input_shape, [Conv2d(4, 3, trainable=False), *net.layers[1:]]).frozen == ("conv1",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["conv2"],
            r"^No layer with weights is named 'conv2' \(did you mean 'conv1'\?\); there are conv1, "
            r"middle, linear1$",
        ),
        (["relu1"], r"^No layer with weights is named 'relu1'.*; there are conv1, middle, linear1$"),
        (
            ["conv1", "middle", "linear1"],
            r"^All layers with weights \(conv1, middle, linear1\) are frozen, so nothing is left to "
            r"train; leave one of them trainable",
        ),
    ],
)
def test_rejects_what_cannot_be_frozen(names, message):
    with pytest.raises(ValueError, match=message):
        chain().freeze(*names)


def test_trainable_is_true_or_false():
    with pytest.raises(TypeError, match=r"^Linear trainable must be True or False, not 1$"):
        Linear(3, trainable=1)
