"""The unified core's order of sums: against PyTorch in float64, and exactly where order cannot matter."""

import numpy as np
import pytest

from streamtrain.golden import passes
from streamtrain.numeric import Fixed
from streamtrain.unified.plan import KernelLayer

torch = pytest.importorskip("torch")


def layer(n, m, size, kernel, *, stride=1, pad=0, lanes=8, back=True, flattened=None):
    rows, columns = (size, size) if isinstance(size, int) else size
    return KernelLayer(
        name="layer", n=n, m=m, flattened=flattened or (n, 1, 1), rows=rows, columns=columns,
        kernel=kernel, stride=stride, pad=pad, out_rows=(rows + 2 * pad - kernel) // stride + 1,
        out_columns=(columns + 2 * pad - kernel) // stride + 1, pool=1, relu=False, bias=True,
        back=back, trainable=True, lanes=lanes,
    )  # fmt: skip


LAYERS = {
    "same": layer(8, 8, 6, 3, pad=1),
    "tiles": layer(20, 11, (5, 7), 3, pad=1),
    "5x5": layer(9, 3, 7, 5, pad=2),
    "valid": layer(4, 8, 6, 3),
    "1x1": layer(17, 9, 4, 1),
    "stride 2": layer(8, 9, (7, 8), 3, stride=2, pad=1),
    "stride 4, 11x11": layer(3, 8, 23, 11, stride=4, lanes=16, back=False),
    "colour": layer(3, 10, 6, 3, pad=1, lanes=16, back=False),
    "grey": layer(1, 5, 6, 3, pad=1, back=False),
    "odd lanes": layer(7, 13, 5, 3, pad=1, lanes=6),
    "linear": layer(45, 10, 1, 1, flattened=(5, 3, 3)),
    "linear of a vector": layer(21, 10, 1, 1),
}


def tiled(maps, lanes):
    """Maps (images, channels, rows, columns) in tiles of channels, lanes innermost."""
    images, channels, rows, columns = maps.shape
    tiles = -(-channels // lanes)
    padded = np.zeros((images, tiles * lanes, rows, columns), maps.dtype)
    padded[:, :channels] = maps
    parts = padded.reshape(images, tiles, lanes, rows, columns)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 4, 2))


def untiled(maps, channels):
    images, tiles, rows, columns, lanes = maps.shape
    return maps.transpose(0, 1, 4, 2, 3).reshape(images, tiles * lanes, rows, columns)[:, :channels]


def computed(own, x, weight, bias, errors):
    """z, dw, db and, where wanted, dx by the array's passes, shaped as PyTorch has them."""
    lanes, dtype = own.lanes, x.dtype
    numbers = passes.FLOAT if dtype == np.float32 else passes.fixed(Fixed(48, 0))
    images, flat = len(x), own.flattened != (own.n, 1, 1)
    if flat:
        mine = tiled(x.reshape(images, *own.flattened), lanes).reshape(images, -1, 1, 1, lanes)
    else:
        mine = tiled(x, own.group)
    outs = own.tiles[0]
    padded = np.zeros(outs * lanes, dtype)
    padded[: own.m] = bias
    blocks, e = own.pack(weight), tiled(errors, lanes)
    z = np.zeros((images, outs, own.out_rows, own.out_columns, lanes), dtype)
    step = own.stride, own.pad, numbers
    passes.forward(mine, blocks, padded.reshape(outs, lanes), *own.passes, *step, z)
    dw, db = np.zeros_like(blocks), np.zeros((outs, lanes), dtype)
    passes.gradients(mine, e, *own.passes, *step, dtype.type(1), dw, db)
    found = [untiled(z, own.m), own.unpack(dw), db.ravel()[: own.m]]
    if own.back:
        dx = np.zeros_like(mine)
        passes.back_propagate(e, blocks, own.kernel, *step, dx)
        if flat:
            channels, *pixels = own.flattened
            dx = untiled(dx.reshape(images, -1, *pixels, lanes), channels).reshape(x.shape)
        else:
            dx = untiled(dx, own.n)
        found.append(dx)
    return found


def reference(own, x, weight, bias, errors):
    """The same by PyTorch's autograd in float64."""
    x, weight, bias = (
        torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, weight, bias)
    )
    z = torch.nn.functional.conv2d(x, weight, bias, own.stride, own.pad)
    z.backward(torch.tensor(errors.astype(np.float64)))
    found = [z, weight.grad, bias.grad] + [x.grad] * own.back
    return [tensor.detach().numpy() for tensor in found]


def data(own, draw, images=2):
    x = draw((images, own.n, own.rows, own.columns))
    weight, bias = draw((own.m, own.n, own.kernel, own.kernel)), draw((own.m,))
    return x, weight, bias, draw((images, own.m, own.out_rows, own.out_columns))


@pytest.mark.parametrize("name", LAYERS)
def test_exactly_where_order_does_not_matter(name):
    own, rng = LAYERS[name], np.random.default_rng(1)
    for dtype in (np.int64, np.float32):
        given = data(own, lambda shape, dtype=dtype: rng.integers(-9, 10, shape).astype(dtype))
        for got, want in zip(computed(own, *given), reference(own, *given), strict=True):
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", LAYERS)
def test_within_what_rounding_adds_up_to(name):
    """A sum of n products is off by at most about n roundings of what its terms add up to.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1: gamma_n.
    """
    own, rng = LAYERS[name], np.random.default_rng(2)
    given = data(own, lambda shape: rng.normal(size=shape).astype(np.float32))
    sizes = reference(own, *map(np.abs, given))
    terms = (
        own.n * own.kernel**2 + 1,
        2 * own.out_rows * own.out_columns,
        2 * own.out_rows * own.out_columns,
        own.m * own.kernel**2,
    )
    for got, want, size, n in zip(
        computed(own, *given), reference(own, *given), sizes, terms, strict=False
    ):
        gamma = (n + 1) * 2.0**-24 / (1 - (n + 1) * 2.0**-24)
        assert (abs(got - want) <= gamma * size).all()


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_hold_every_weight_once(name):
    own = LAYERS[name]
    weight = np.arange(1, own.m * own.n * own.kernel**2 + 1).reshape(
        own.m, own.n, own.kernel, own.kernel
    )
    blocks = own.pack(weight)
    np.testing.assert_array_equal(own.unpack(blocks), weight)
    np.testing.assert_array_equal(np.sort(blocks[blocks != 0]), weight.ravel())


def test_taps_of_a_colour_image_lie_side_by_side():
    own = LAYERS["stride 4, 11x11"]
    assert own.group == 4
    assert len(own.passes.tile) == 31  # 121 taps, four at once; one by one, they would be 121


def test_subnormal_products_are_zeros():
    own = layer(1, 1, 1, 1, lanes=4)
    smallest = np.float32(2**-126)
    x, weight = np.full((1, 1, 1, 1), smallest), np.full((1, 1, 1, 1), np.float32(-0.5))
    z, *_ = computed(own, x, weight, np.float32([-0.0]), np.zeros((1, 1, 1, 1), np.float32))
    assert z.ravel()[0] == 0
    z, *_ = computed(
        own, x, weight, smallest * np.float32([1.5]), np.zeros((1, 1, 1, 1), np.float32)
    )
    assert z.ravel()[0] == smallest * np.float32(1.5)
