from dataclasses import FrozenInstanceError

import pytest

from streamtrain.network import (
    SGD,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    Loss,
    MaxPool2d,
    MSELoss,
    ReLU,
    ShapeError,
    SquaredHinge,
)


@pytest.mark.parametrize(
    "layer, shape, out",
    [
        (Conv2d(8, 3), (1, 28, 28), (8, 28, 28)),
        (Conv2d(8, 5), (1, 28, 20), (8, 28, 20)),
        (Conv2d(8, 1), (4, 1, 1), (8, 1, 1)),
        (Conv2d(8, 3, padding="valid"), (1, 28, 28), (8, 26, 26)),
        (Conv2d(8, 5, padding="valid"), (1, 5, 6), (8, 1, 2)),
        (Conv2d(8, 3, padding=2), (1, 28, 28), (8, 30, 30)),
        (Conv2d(8, 5, padding=1), (1, 3, 3), (8, 1, 1)),
        (Conv2d(96, 11, "valid", stride=4), (3, 227, 227), (96, 55, 55)),
        (Conv2d(8, 3, stride=2), (1, 28, 27), (8, 14, 14)),
        (BatchNorm2d(), (3, 4, 5), (3, 4, 5)),
        (ReLU(), (3, 4, 5), (3, 4, 5)),
        (ReLU(), (7,), (7,)),
        (MaxPool2d(2), (3, 4, 6), (3, 2, 3)),
        (MaxPool2d(2), (3, 7, 3), (3, 3, 1)),
        (Flatten(), (3, 4, 5), (60,)),
        (Linear(10), (60,), (10,)),
    ],
)
def test_output_shapes(layer, shape, out):
    assert layer.output_shape(shape) == out


def test_shapes_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    for kernel in (1, 3, 5, 11):
        for padding in ("same", "valid", *range(kernel)):
            for stride in range(1, min(kernel, 4) + 1):
                half = kernel // 2 if stride > 1 and padding == "same" else padding
                theirs = torch.nn.Conv2d(2, 4, kernel, stride, half)
                for rows, cols in ((11, 12), (14, 11)):
                    want = theirs(torch.zeros(1, 2, rows, cols)).shape[1:]
                    ours = Conv2d(4, kernel, padding, stride=stride)
                    assert ours.output_shape((2, rows, cols)) == tuple(want)


@pytest.mark.parametrize(
    "layer, shape, weights",
    [
        (Conv2d(8, 3), (2, 28, 28), (8, 2, 3, 3)),
        (Linear(10), (60,), (10, 60)),
        (ReLU(), (60,), None),
        (MaxPool2d(), (1, 2, 2), None),
        (BatchNorm2d(), (3, 2, 2), None),
        (Flatten(), (1, 2, 2), None),
    ],
)
def test_weight_shapes(layer, shape, weights):
    assert layer.weight_shape(shape) == weights


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(8, 3, 1, False, "a", stride=2),
        BatchNorm2d(1e-3, 0, "b"),
        ReLU(),
        MaxPool2d(),
        Flatten(),
        Linear(10),
    ],
)
def test_layers_are_records(layer):
    assert type(layer).from_json(layer.to_json()) == layer
    assert len({layer, type(layer).from_json(layer.to_json())}) == 1
    with pytest.raises(FrozenInstanceError):
        layer.name = "b"


def test_losses_and_optimisers_are_records():
    assert SGD.from_json(SGD(lr=0.01).to_json()) == SGD(0.01) != SGD()
    full = SGD(0.01, momentum=0.9, weight_decay=1e-4, clip=1)
    assert SGD.from_json(full.to_json()) == full
    assert (SGD().terms, full.terms) == ((), ("momentum", "weight_decay"))
    assert CrossEntropy.from_json(CrossEntropy().to_json()) == CrossEntropy()
    assert Loss.from_json(SquaredHinge().to_json()) == SquaredHinge() != MSELoss()


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Conv2d(0, 3), ValueError, r"^Conv2d channels must be at least 1, not 0$"),
        (lambda: Conv2d(8.0, 3), TypeError, r"^Conv2d channels must be an integer, not 8.0$"),
        (lambda: Conv2d(8, 2), ValueError, r"^Conv2d kernel must be 1, 3, 5, 7, 9 or 11, not 2$"),
        (lambda: Conv2d(8, 13), ValueError, r"^Conv2d kernel must be 1, 3, 5, 7, 9 or 11, not 13$"),
        (lambda: Conv2d(8, 3, stride=4), ValueError, r"^Conv2d stride must be at most the kernel \(3\), not 4$"),
        (lambda: Conv2d(8, 3, stride=0), ValueError, r"^Conv2d stride must be at least 1, not 0$"),
        (lambda: Conv2d(8, 3, stride=(2, 2)), TypeError, r"^Conv2d stride must be an integer, not \(2, 2\)$"),
        (lambda: Conv2d(8, (3, 3)), TypeError, r"^Conv2d kernel must be an integer, not \(3, 3\)$"),
        (lambda: Conv2d(8, 3, padding="full"), ValueError, r'^Conv2d padding must be "same", "valid" or a number, not \'full\'$'),
        (lambda: Conv2d(8, 3, padding=3), ValueError, r"^Conv2d padding must be less than the kernel \(3\), not 3$"),
        (lambda: Conv2d(8, 3, padding=-1), ValueError, r"^Conv2d padding must be at least 0, not -1$"),
        (lambda: Conv2d(8, 3, padding=0.5), TypeError, r"^Conv2d padding must be an integer, not 0.5$"),
        (lambda: MaxPool2d(3), ValueError, r"^MaxPool2d kernel must be 2, not 3$"),
        (lambda: BatchNorm2d(0), ValueError, r"^BatchNorm2d eps must be more than 0, not 0.0$"),
        (lambda: BatchNorm2d(momentum=2), ValueError, r"^BatchNorm2d momentum must be 0 to 1, not 2.0$"),
        (lambda: BatchNorm2d(momentum=None), TypeError, r"^BatchNorm2d momentum must be a number, not None$"),
        (lambda: Linear(0), ValueError, r"^Linear features must be at least 1, not 0$"),
        (lambda: Linear("10"), TypeError, r"^Linear features must be an integer, not '10'$"),
        (lambda: SGD(0), ValueError, r"^SGD lr must be between 0 and 1, not 0$"),
        (lambda: SGD(1), ValueError, r"^SGD lr must be between 0 and 1, not 1$"),
        (lambda: SGD(float("nan")), ValueError, r"^SGD lr must be between 0 and 1, not nan$"),
        (lambda: SGD("fast"), TypeError, r"^SGD lr must be a number, not 'fast'$"),
        (lambda: SGD(momentum=1), ValueError, r"^SGD momentum must be at least 0 and below 1, not 1$"),
        (lambda: SGD(momentum=True), TypeError, r"^SGD momentum must be a number, not True$"),
        (lambda: SGD(weight_decay=-1), ValueError, r"^SGD weight_decay must be 0 or more, not -1$"),
        (lambda: SGD(clip=0), ValueError, r"^SGD clip must be more than 0, or None, not 0$"),
    ],
)  # fmt: skip
def test_rejects_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (Conv2d(8, 3, padding="valid", name="c"), (1, 2, 9), r"^c: a 3x3 kernel does not fit a 2x9 map padded to 2x9; use a kernel of 1 or padding 'same'$"),
        (Conv2d(8, 5, padding="valid", name="c"), (1, 9, 4), r"use a kernel of 3 or padding 'same'$"),
        (Conv2d(8, 5, padding=1, name="c"), (1, 2, 2), r"does not fit a 2x2 map padded to 4x4; use a kernel of 3"),
        (Conv2d(8, 3, name="c"), (60,), r"^c takes a map \(channels, rows, columns\), but gets \(60,\); put it before Flatten, or use Linear$"),
        (MaxPool2d(name="p"), (8, 1, 5), r"^p: a 1x5 map is smaller than the 2x2 pool; drop this layer, or pad"),
        (MaxPool2d(name="p"), (60,), r"^p takes a map"),
        (BatchNorm2d(name="n"), (60,), r"^n takes a map"),
        (Flatten(name="f"), (60,), r"^f takes a map"),
        (Linear(10, name="l"), (8, 2, 2), r"^l takes a vector, but gets \(8, 2, 2\); put Flatten before it$"),
    ],
)  # fmt: skip
def test_rejects_shapes(layer, shape, message):
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(shape)
