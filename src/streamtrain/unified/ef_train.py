"""EF-Train's published model of cycles and resources, to compare this core with.

Source: Tang, Zhang, Zhou, Hu, "EF-Train: Enable Efficient On-device CNN Training on FPGA Through Data
Reshaping for Online Adaptation or Personalization", ACM TODAES 27(5), 2022 (arXiv 2202.10935), whose
symbols the functions keep. It is a model of *their* accelerator; that of this project's is in
:mod:`streamtrain.unified.timing`.
"""

from dataclasses import dataclass

__all__ = ["EfArray", "EfLayer", "EfTiling"]


@dataclass(frozen=True)
class EfLayer:
    """A convolution as EF-Train writes it, [M, N, R, C, K, S]; fully connected if all but M, N are 1.

    Parameters
    ----------
    m, n : :class:`int`
        Output and input channels.
    rows, columns : :class:`int`
        Of the output map.
    kernel, stride : :class:`int`
    """

    m: int
    n: int
    rows: int
    columns: int
    kernel: int
    stride: int = 1

    def backward(self, rows, columns):
        """The layer whose forward pass is this one's BP: channels change roles, the map is the input's.

        Their figures take it with a stride of one.
        """
        return EfLayer(self.n, self.m, rows, columns, self.kernel, 1)


@dataclass(frozen=True)
class EfTiling:
    """Rows and columns of a tile, and output channels whose weights stay on chip for a mini-batch."""

    rows: int
    columns: int
    m_on: int


@dataclass(frozen=True)
class EfArray:
    """Their array and its memory.

    Parameters
    ----------
    tm, tn : :class:`int`
        Multiply-accumulators: output channels by input channels.
    words_per_beat : :class:`int`
        Words that each stream of the memory moves in a cycle, p.
    start : :class:`int`
        Cycles to start a transfer, t_start.
    """

    tm: int = 16
    tn: int = 16
    words_per_beat: int = 4
    start: int = 400

    def forward_cycles(self, layer, tiling, images):
        """Cycles of FP for a mini-batch of ``images``."""
        first_out = self._groups(layer, tiling)
        return sum(self._forward(layer, tiling, images, channels) for channels in first_out)

    def backward_cycles(self, layer, tiling, images):
        """Cycles of BP, for a layer as :meth:`EfLayer.backward` turns it."""
        return sum(
            self._backward(layer, tiling, images, channels)
            for channels in self._groups(layer, tiling)
        )

    def update_cycles(self, layer, tiling, images):
        """Cycles of WU, the update itself included."""
        return sum(
            self._update(layer, tiling, images, channels)
            for channels in self._groups(layer, tiling)
        )

    @staticmethod
    def _groups(layer, tiling):
        """Output channels of each group that keeps its weights on chip; the last may be smaller."""
        return [min(tiling.m_on, layer.m - first) for first in range(0, layer.m, tiling.m_on)]

    def _beats(self, words):
        return _up(words, self.words_per_beat)

    def _compute(self, layer, tiling):
        return tiling.rows * tiling.columns * layer.kernel**2

    def _load_inputs(self, layer, tiling):
        window_rows = (tiling.rows - 1) * layer.stride + layer.kernel
        window_columns = (tiling.columns - 1) * layer.stride + layer.kernel
        return self.start + self._beats(min(layer.n, self.tn)) * window_rows * window_columns

    def _map_tile(self, tiling):
        return self._beats(self.tm) * tiling.rows * tiling.columns

    def _weight_tile(self, layer):
        return self._beats(self.tm * self.tn) * layer.kernel**2

    def _passes(self, layer, tiling, weights):
        """Latencies of an output tile: last and others, without and with its weights to be loaded."""
        compute, inputs = self._compute(layer, tiling), self._load_inputs(layer, tiling)
        store = max(compute, self._map_tile(tiling))
        others = _up(layer.n, self.tn) - 1
        kept = others * max(inputs, compute) + inputs
        loaded = others * max(inputs, weights, compute) + inputs
        return kept + compute, kept + store, loaded + compute, loaded + store

    def _image(self, layer, tiling, channels, last, other):
        """An image whose weights are on chip, Lat3."""
        tiles = _up(channels, self.tm) * _up(layer.rows, tiling.rows)
        return (tiles - 1) * other + last + self._map_tile(tiling) + self.start

    def _forward(self, layer, tiling, images, channels):
        last, other, loaded_last, loaded_other = self._passes(
            layer, tiling, self._weight_tile(layer)
        )
        tiles, bands = _up(channels, self.tm), _up(layer.rows, tiling.rows)
        first = tiles * (bands - 1) * other + (tiles - 1) * loaded_other + loaded_last
        first += self._map_tile(tiling) + self.start
        return (images - 1) * self._image(layer, tiling, channels, last, other) + first

    def _backward(self, layer, tiling, images, channels):
        weights = self._beats(channels * self.tn) * layer.kernel**2 + self.start
        last, other, loaded_last, _ = self._passes(layer, tiling, weights)
        return (images - 1) * self._image(layer, tiling, channels, last, other) + self._image(
            layer, tiling, channels, loaded_last, other
        )

    def _update(self, layer, tiling, images, channels):
        compute, inputs = self._compute(layer, tiling), self._load_inputs(layer, tiling)
        out = self._weight_tile(layer)
        load = max(inputs, self.start + self._map_tile(tiling))
        tiles_m, tiles_n = _up(channels, self.tm), _up(layer.n, self.tn)
        if tiling.rows < layer.rows:
            bands = (_up(layer.rows, tiling.rows) - 1) * max(load, compute) + load
            last, other = bands + compute, bands + max(compute, out)
            tiles = tiles_m * tiles_n
            return ((images - 1) * tiles + 1) * last + (tiles - 1) * other + out
        step = max(inputs, compute)
        image = (tiles_n - 1) * step + load + compute
        updated = (tiles_n - 1) * (step + out) + load + compute + out
        return tiles_m * ((images - 1) * image + updated)


def _up(value, step):
    return -(-value // step)
