"""The plan of the unified core: a network as layers of one array, in lanes and passes.

The array multiplies a vector of ``lanes`` inputs with ``lanes x lanes`` weights in a cycle. A *pass* is
one setting of its weights, with which it goes over all pixels of a tile. What the lanes of a pass hold:

- as a rule ``lanes`` channels, at one tap of the kernel: a layer takes a pass for each tile of input
  channels and each tap;
- in a first layer with few channels, several taps side by side, as many as there are groups of
  channels in the lanes: three channels of a colour image take a group of four lanes, and 16 lanes hold
  four taps at once. EF-Train leaves 13 of 16 lanes idle here.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from streamtrain.network.layers import BatchNorm2d
from streamtrain.numeric import FloatArithmetic
from streamtrain.records import Record

__all__ = ["KernelLayer", "Passes", "UnifiedPlan", "lower", "tiled"]


class Passes(NamedTuple):
    """What each lane of each pass of a forward computation holds.

    Parameters
    ----------
    tile : integer array (passes,)
        Of input channels.
    row, column : integer arrays (passes, lanes)
        Tap of the kernel.
    lane : integer array (lanes,)
        Of the input vector.
    exists : boolean array (passes, lanes)
        Whether the kernel has such a tap; the input counts as zero if not.
    """

    tile: np.ndarray
    row: np.ndarray
    column: np.ndarray
    lane: np.ndarray
    exists: np.ndarray


@dataclass(frozen=True)
class KernelLayer(Record):
    """A layer with weights and what follows it, as the array computes it.

    A linear layer is a 1x1 convolution on a 1x1 map. Its inputs are counted as they lie in memory:
    tile of channels, row, column, lane. Batch normalization is a 1x1 convolution, too, in which each channel has a
    weight for itself alone: so each tile of channels is computed of itself.

    Parameters
    ----------
    name : :class:`str`
    n, m : :class:`int`
        Input and output channels.
    flattened : (channels, rows, columns)
        What a linear layer's input was before Flatten; ``(n, 1, 1)`` without.
    rows, columns : :class:`int`
        Of the input map.
    kernel, stride, pad : :class:`int`
    out_rows, out_columns : :class:`int`
        Of the outputs that are used, before pooling: a pool drops the last one of an odd number.
    pool : :class:`int`
        2 if pairs of rows and columns are pooled; 1 if not.
    relu, bias : :class:`bool`
    back : :class:`bool`
        Whether the errors of its inputs are wanted.
    trainable : :class:`bool`
    lanes : :class:`int`
        Of the array.
    norm : :class:`~streamtrain.network.BatchNorm2d`, optional
        If this is one.
    """

    name: str
    n: int
    m: int
    flattened: tuple
    rows: int
    columns: int
    kernel: int
    stride: int
    pad: int
    out_rows: int
    out_columns: int
    pool: int
    relu: bool
    bias: bool
    back: bool
    trainable: bool
    lanes: int
    norm: BatchNorm2d | None = None

    @property
    def linear(self):
        return self.flattened != (self.n, 1, 1) or (self.rows, self.columns, self.kernel) == (
            1,
            1,
            1,
        )

    @property
    def pooled(self):
        """(rows, columns) of the map that leaves the layer."""
        return self.out_rows // self.pool, self.out_columns // self.pool

    @property
    def group(self):
        """Lanes that one tap takes, and words of an input's pixel in memory: all, or a part that is enough for few channels.

        Only layers whose input errors nobody wants can have several groups: BP would have to add up
        what different taps of a vector are worth.
        """
        if self.back or self.linear or self.kernel == 1:
            return self.lanes
        enough = range(self.n, self.lanes)
        return next((group for group in enough if self.lanes % group == 0), self.lanes)

    @property
    def tiles(self):
        """Tiles of (output, input) channels; of a linear layer, each pixel of its input is one."""
        channels, rows, columns = self.flattened
        return _up(self.m, self.lanes), _up(channels, self.lanes) * rows * columns

    @property
    def input_tiles(self):
        """Tiles of channels that an input is made of in memory."""
        return 1 if self.group < self.lanes else self.tiles[1]

    @property
    def array_cycles(self):
        """Cycles of one sample's training step in which the array works, at least; what a batch norm takes is left out."""
        if self.norm:
            return 0
        outs, ins = self.tiles
        forward = outs * len(self.passes.tile) * self.out_rows * self.out_columns
        pixels = (self.rows // self.stride) * (self.columns // self.stride)
        back = outs * ins * self.kernel**2 * pixels
        return (1 + self.trainable) * forward + self.back * back

    @cached_property
    def passes(self):
        """The :class:`Passes` of FP and WU, in order."""
        lanes, taps = np.arange(self.lanes), self.kernel**2
        groups = self.lanes // self.group
        channel = lanes % self.group
        if groups > 1:
            count = _up(taps, groups)
            tile = np.zeros(count, np.int64)
            tap = np.arange(count)[:, None] * groups + lanes // self.group
        else:
            tile, tap = (a.ravel() for a in np.indices((self.tiles[1], taps)))
            tap = np.repeat(tap[:, None], self.lanes, axis=1)
        exists, tap = tap < taps, np.minimum(tap, taps - 1)
        return Passes(tile, tap // self.kernel, tap % self.kernel, channel, exists)

    @property
    def _channels(self):
        """Channel of each (tile, lane), in PyTorch's order of a flattened map; n where there is none."""
        channels, rows, columns = self.flattened
        found = np.arange(_up(channels, self.lanes) * self.lanes).reshape(-1, 1, self.lanes)
        pixel = np.arange(rows * columns)[:, None]
        found = np.where(found < channels, found * rows * columns + pixel, self.n)
        return found.reshape(-1, self.lanes)

    def pack(self, weight):
        """Weights (M, N, K, K) or (M, N) as blocks (output tiles, passes, lanes out, lanes in).

        Lanes without a channel hold zeros.
        """
        weight = np.asarray(weight).reshape(self.m, self.n, self.kernel, self.kernel)
        blocks = np.zeros((self.tiles[0] * self.lanes, *self.passes.row.shape), weight.dtype)
        places, used = self._places
        blocks[: self.m, used] = weight[places]
        blocks = blocks.reshape(self.tiles[0], self.lanes, *self.passes.row.shape)
        return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))

    def unpack(self, blocks):
        """The weights (M, N, K, K) of blocks that :meth:`pack` made."""
        weight = np.zeros((self.m, self.n, self.kernel, self.kernel), blocks.dtype)
        rows = blocks.transpose(0, 2, 1, 3).reshape(-1, *self.passes.row.shape)
        places, used = self._places
        weight[places] = rows[: self.m, used]
        return weight

    @property
    def _places(self):
        """Index of a weight tensor (M, N, K, K) for all lanes of passes that hold a weight; and which do."""
        passes = self.passes
        if self.group < self.lanes:
            channel = np.broadcast_to(passes.lane, passes.row.shape)
        else:
            channel = self._channels[passes.tile]
        used = passes.exists & (channel < self.n)
        return (slice(None), channel[used], passes.row[used], passes.column[used]), used


@dataclass(frozen=True)
class UnifiedPlan(Record):
    """A network on the array.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    layers : tuple of :class:`KernelLayer`
    lanes : :class:`int`
    """

    network: Record
    layers: tuple
    lanes: int

    @property
    def array_cycles(self):
        """Cycles of one sample's training step in which the array works, at least."""
        return sum(layer.array_cycles for layer in self.layers)

    def check(self, arithmetic):
        """Raise :exc:`ValueError` if layers cannot be computed in an arithmetic."""
        for layer in self.layers:
            if layer.norm and not isinstance(arithmetic, FloatArithmetic):
                raise ValueError(
                    f"{layer.name} normalizes with floating-point numbers, not {arithmetic.name}; use fp32, bf16 or "
                    f"fp16, or leave it out"
                )

    def before(self, layer):
        """The layer whose outputs a layer reads."""
        return self.layers[self.layers.index(layer) - 1]

    def norm_of(self, layer):
        """The batch norm that reads a layer's outputs, or None."""
        following = self.layers[self.layers.index(layer) + 1 :]
        return following[0] if following and following[0].norm else None


def lower(network, lanes=16):
    """Turn a network into a :class:`UnifiedPlan` for an array of ``lanes x lanes``.

    Raises :exc:`ValueError` if the network has layers in an order that the array cannot run.
    """
    groups = []
    for layer, shape in zip(network.layers, network.shapes, strict=False):
        if layer.stem == "norm" and not (
            groups and groups[-1][0].stem == "conv" and not groups[-1][2]
        ):
            raise ValueError(f"{layer.name} must come directly behind a Conv2d")
        if layer.stem in ("conv", "linear", "norm"):
            groups.append([layer, shape, []])
        elif groups:
            groups[-1][2].append(layer)
        elif layer.stem != "flatten":
            raise ValueError(
                f"{layer.name} comes before any Conv2d or Linear; the array begins with one of them"
            )
    layers, before = [], network.input_shape
    for layer, shape, followers in groups:
        layers.append(_lowered(layer, shape, followers, before, layers, lanes))
        before = (layers[-1].m, *layers[-1].pooled)
    if prod(layers[-1].pooled) != 1:
        raise ValueError(
            f"{layers[-1].name} gives scores for each of {prod(layers[-1].pooled)} pixels; the array's loss takes "
            f"one pixel"
        )
    if layers[-1].relu or layers[-1].pool > 1:
        raise ValueError(
            f"{layers[-1].name} is the last layer with weights, and its outputs must be the scores; leave out "
            f"what follows it"
        )
    return UnifiedPlan(network, tuple(layers), lanes)


def _lowered(layer, shape, followers, before, layers, lanes):
    pools = [follower for follower in followers if follower.stem == "pool"]
    if len(pools) > 1:
        raise ValueError(
            f"{pools[1].name} pools what {pools[0].name} pooled; put a Conv2d between them"
        )
    if layer.stem == "norm":
        m, out_rows, out_columns = n, rows, columns = shape
        kernel, stride, pad, flattened = 1, 1, 0, (n, 1, 1)
        if pools and (rows % 2 or columns % 2):
            raise ValueError(
                f"{pools[0].name} leaves out pixels of {layer.name}, whose map has {rows}x{columns}; a map that is "
                f"normalized and pooled needs even numbers of rows and columns"
            )
    elif layer.stem == "conv":
        n, rows, columns = shape
        m, out_rows, out_columns = layer.output_shape(shape)
        kernel, stride, pad, flattened = layer.kernel, layer.stride, layer.pad, (n, 1, 1)
    else:
        (n,), m = shape, layer.features
        rows = columns = out_rows = out_columns = kernel = stride = 1
        # What the host sends is packed as the array likes it; what a layer puts out lies as it is.
        pad, flattened = 0, before if layers and prod(before) == n else (n, 1, 1)
    pool = 2 if pools else 1
    return KernelLayer(
        name=layer.name,
        n=n,
        m=m,
        flattened=flattened,
        rows=rows,
        columns=columns,
        kernel=kernel,
        stride=stride,
        pad=pad,
        out_rows=out_rows // pool * pool,
        out_columns=out_columns // pool * pool,
        pool=pool,
        relu=any(follower.stem == "relu" for follower in followers),
        bias=layer.stem == "norm" or layer.bias,
        back=any(before.trainable for before in layers),
        trainable=layer.stem == "norm" or layer.trainable,
        lanes=lanes,
        norm=layer if layer.stem == "norm" else None,
    )


def tiled(maps, lanes):
    """Maps (images, channels, rows, columns) as (images, tiles, rows, columns, lanes); the rest is zero."""
    images, channels, rows, columns = maps.shape
    tiles = -(-channels // lanes)
    padded = np.zeros((images, tiles * lanes, rows, columns), maps.dtype)
    padded[:, :channels] = maps
    parts = padded.reshape(images, tiles, lanes, rows, columns)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 4, 2))


def _up(value, step):
    return -(-value // step)
