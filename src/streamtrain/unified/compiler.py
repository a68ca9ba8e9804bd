"""What makes a program of a plan: where everything lies in memory, and a record for each thing to be done.

A layer is one tile here, with all its channels and all images of a mini-batch at once: the buffers have to be as
large. (Tiles of some rows and channels are to come, and with them nets that do not fit.)

Maps lie in memory image after image; an image is tiles of channels, each with its rows and columns of vectors. Layers
read and write them in that order, which is the order in the buffers, too.
"""

from dataclasses import dataclass, field
from math import prod

from streamtrain.unified.buffers import Depths
from streamtrain.unified.loader import Target
from streamtrain.unified.outputs import PLACES
from streamtrain.unified.program import RECORD_BITS, Kind, pack_record, record_layouts
from streamtrain.unified.sequencer import Fold

__all__ = ["Compiler", "Region"]

_BLOCK = 8  # records that are fetched at once


@dataclass
class Region:
    """Part of the memory.

    Parameters
    ----------
    address : :class:`int`
        In bytes.
    words : :class:`int`
        In a chunk.
    beats : :class:`int`
        Of a chunk, which begins with a beat.
    chunks : :class:`int`
    stride : :class:`int`
        Bytes from one chunk to the next.
    written : :class:`int`
        Writes of the program after which it is what it should be.
    """

    address: int
    words: int
    beats: int
    chunks: int
    stride: int
    written: int = 0

    @property
    def end(self):
        return self.address + self.chunks * self.stride


@dataclass
class _Program:
    """Records in order, and how many writes they ask for."""

    layouts: dict
    records: list = field(default_factory=list)
    writes: int = 0

    def add(self, kind, **fields):
        self.records.append(pack_record(self.layouts, kind, fields))

    def image(self):
        """The program as bytes, with its end, in whole blocks."""
        self.add(Kind.END, writes=self.writes)
        size = _BLOCK * RECORD_BITS // 8
        joined = b"".join(self.records)
        return joined.ljust(-(-len(joined) // size) * size, b"\0")


class Compiler:
    """Lay out a plan in memory, and write the programs of a step.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.plan.UnifiedPlan`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    images : :class:`int`
        Of a mini-batch.
    data_bits, address_bits : :class:`int`
        Of the memory.
    base : :class:`int`
        First address.

    Attributes
    ----------
    depths : :class:`~streamtrain.unified.buffers.Depths`
    fold : :class:`~streamtrain.unified.sequencer.Fold` or None
    inputs, outputs, routes, errors, weights, biases : dict of :class:`Region` by layer
        ``outputs`` are pooled ones; ``errors`` are those of outputs before pooling.
    targets : :class:`Region`
        The classes of a mini-batch, as routes: the first bit of a class's lane is set.
    programs : :class:`int`
        Where programs may be put, behind all regions.
    """

    def __init__(self, plan, arithmetic, images, *, data_bits, address_bits=32, base=0):
        self.plan, self.arithmetic, self.images = plan, arithmetic, images
        self.beat_bytes = data_bits // 8
        self.layouts = record_layouts(arithmetic, address_bits)
        self.depths = self._depths()
        first = plan.layers[0]
        self.fold = None
        if first.group < plan.lanes:
            self.fold = Fold(first.group, first.kernel, first.columns)
        self.inputs, self.outputs, self.routes, self.errors = {}, {}, {}, {}
        self.weights, self.biases = {}, {}
        self._end = base
        operands, row = plan.lanes * arithmetic.operand.width, plan.lanes * 32
        for number, layer in enumerate(plan.layers):
            if number:
                self.inputs[layer.name] = self.outputs[plan.layers[number - 1].name]
            else:
                words = layer.input_tiles * layer.rows * layer.columns
                self.inputs[layer.name] = self._region(
                    words, layer.group * arithmetic.operand.width, images
                )
            pooled = layer.tiles[0] * prod(layer.pooled)
            pixels = layer.tiles[0] * layer.out_rows * layer.out_columns
            self.outputs[layer.name] = self._region(pooled, operands, images)
            self.routes[layer.name] = self._region(pooled, PLACES * plan.lanes, images)
            self.errors[layer.name] = self._region(pixels, operands, images)
            blocks = layer.tiles[0] * len(layer.passes.tile)
            self.weights[layer.name] = self._region(blocks * plan.lanes, row, 1)
            self.biases[layer.name] = self._region(layer.tiles[0], row, 1)
        self.targets = self._region(1, PLACES * plan.lanes, images)
        self.programs = self._end

    def _region(self, words, bits, chunks):
        beats = -(-words * bits // (8 * self.beat_bytes))
        region = Region(self._end, words, beats, chunks, beats * self.beat_bytes)
        self._end = -(-region.end // 4096) * 4096
        return region

    def _depths(self):
        """Buffers for each layer as one tile."""
        layers, images = self.plan.layers, self.images
        inputs = [layer.input_tiles * layer.rows * layer.columns * images for layer in layers]
        outputs = [layer.tiles[0] * layer.out_rows * layer.out_columns * images for layer in layers]
        blocks = [layer.tiles[0] * len(layer.passes.tile) for layer in layers]
        return Depths(
            x=max(*inputs, *outputs),
            e=max(outputs),
            sums=max(*inputs, *outputs),
            weights=max(blocks) * self.plan.lanes,
            gradients=max(blocks),
            tiles=max(2, *(layer.tiles[0] for layer in layers)),
        )

    def evaluation(self):
        """The program that computes scores of a mini-batch, as bytes."""
        program = self._begin()
        for layer in self.plan.layers:
            self._forward(program, layer)
        return program.image()

    def step(self):
        """The program of a training step, as bytes."""
        program, (*others, last) = self._begin(), self.plan.layers
        for layer in others:
            self._forward(program, layer)
        self._forward(program, last, scored=True)
        for layer in reversed(self.plan.layers):
            if layer.back:
                self._backward(program, layer)
            if layer.trainable:
                self._update(program, layer)
            if not layer.back:
                break
        return program.image()

    def _begin(self):
        for regions in (self.outputs, self.routes, self.errors, self.weights, self.biases):
            for region in regions.values():
                region.written = 0
        return _Program(self.layouts)

    # -- one layer ---------------------------------------------------------------------------------

    def _forward(self, program, layer, scored=False):
        """FP; if it is ``scored``, the errors of its outputs, too."""
        self._load_weights(program, layer)
        self._load(program, self._x(layer), self.inputs[layer.name], self.images)
        count, pixels = len(layer.passes.tile), layer.out_rows * layer.out_columns
        for out in range(layer.tiles[0]):
            last = out == layer.tiles[0] - 1
            program.add(
                Kind.COMPUTE, **self._window(layer, self.plan.lanes),
                block=out * count * self.plan.lanes, o=out * pixels, bias=out,
                first=1, biased=1, done_x=last, done_weights=last, done=last,
            )  # fmt: skip
        pool, rows = layer.pool, layer.tiles[0] * layer.out_rows
        routed = layer.relu or pool > 1
        outputs = {
            "images": self.images, "rows": rows // pool, "cols": layer.out_columns // pool,
            "pool": pool > 1, "relu": layer.relu, "routed": routed, "o_row": layer.out_columns,
            "o_image": rows * layer.out_columns, "done": not scored,
        }  # fmt: skip
        self._store(
            program, outputs, self.outputs[layer.name], self.routes[layer.name] if routed else None
        )
        if scored:
            self._load(program, Target.ROUTES, self.targets, self.images)
            errors = outputs | {"relu": 0, "routed": 0, "scored": 1, "done": 1}
            self._store(program, errors, self.errors[layer.name], None)

    def _backward(self, program, layer):
        """BP: errors of the inputs, taken back to before the pool of the layer before.

        Where the stride is more than one, the input's pixels that the same taps reach go together.
        """
        before = self.plan.layers[self.plan.layers.index(layer) - 1]
        self._load_weights(program, layer)
        self._load(program, Target.X, self.errors[layer.name], self.images)
        parts = [
            (tile, r, c)
            for tile in range(layer.tiles[1])
            for r in range(layer.stride)
            for c in range(layer.stride)
        ]
        for part in parts:
            last = part == parts[-1]
            program.add(
                Kind.COMPUTE, **self._reached(layer, *part), transposed=1, first=1,
                done_x=last, done_weights=last, done=last,
            )  # fmt: skip
        routed, pool = before.relu or before.pool > 1, before.pool
        if routed:
            self._load(program, Target.ROUTES, self.routes[before.name], self.images)
        rows = before.tiles[0] * before.out_rows
        columns = before.out_columns // pool
        outputs = {
            "images": self.images, "rows": rows, "cols": before.out_columns, "pool": pool > 1,
            "backward": 1, "routed": routed, "o_row": columns, "o_image": rows // pool * columns,
            "done": 1,
        }  # fmt: skip
        self._store(program, outputs, self.errors[before.name], None)

    def _update(self, program, layer):
        count, pixels = len(layer.passes.tile), layer.out_rows * layer.out_columns
        self._load(program, self._x(layer), self.inputs[layer.name], self.images)
        self._load(program, Target.E, self.errors[layer.name], self.images)
        for out in range(layer.tiles[0]):
            last = out == layer.tiles[0] - 1
            program.add(
                Kind.COMPUTE, **self._window(layer, 1), update=1, block=out * count, o=out * pixels,
                bias=out, first=1, biased=1, done_x=last, done_e=last, done=last,
            )  # fmt: skip
        weights, biases = self.weights[layer.name], self.biases[layer.name]
        parts = [(weights, 0, layer.tiles[0] * count)]
        if layer.bias:
            parts.append((biases, 1, layer.tiles[0]))
        for region, is_bias, number in parts:
            self._load(program, Target.MASTERS, region, 1, words=region.beats)
            program.writes += 1
            region.written = program.writes
            program.add(
                Kind.STORE, update=1, address=region.address, beats=region.beats, chunks=1,
                weights={"biases": is_bias, "count": number, "done": region is parts[-1][0]},
            )  # fmt: skip

    # -- parts of them -----------------------------------------------------------------------------

    def _x(self, layer):
        return Target.GROUPS if layer.group < self.plan.lanes else Target.X

    def _load(self, program, target, region, chunks, words=None, last=1):
        program.add(
            Kind.LOAD, target=target, address=region.address, beats=region.beats, chunks=chunks,
            stride=region.stride, words=words or region.words, last=last, after=region.written,
        )  # fmt: skip

    def _load_weights(self, program, layer):
        self._load(program, Target.BIASES, self.biases[layer.name], 1, last=0)
        self._load(program, Target.WEIGHTS, self.weights[layer.name], 1)

    def _store(self, program, outputs, region, routes):
        program.writes += self.images * (1 if routes is None else 2)
        region.written = program.writes
        places = {}
        if routes is not None:
            routes.written = program.writes
            places = {
                "routes_address": routes.address, "routes_beats": routes.beats,
                "routes_stride": routes.stride,
            }  # fmt: skip
        program.add(
            Kind.STORE, map=outputs, address=region.address, beats=region.beats,
            chunks=self.images, stride=region.stride, words=region.words, **places,
        )  # fmt: skip

    def _window(self, layer, step):
        """Loops of FP and WU over the outputs' pixels; ``step`` from one block to the next."""
        size, stride, columns = layer.rows * layer.columns, layer.stride, layer.columns
        folded = layer.group < self.plan.lanes
        taps = 1 if folded else layer.kernel
        end = (layer.out_columns - 1) * stride
        image = layer.input_tiles * size
        out = layer.tiles[0] * layer.out_rows * layer.out_columns
        return {
            "folded": folded, "tiles": layer.input_tiles, "taps_row": taps,
            "taps_col": len(layer.passes.tile) if folded else taps,
            "images": self.images, "rows": layer.out_rows, "cols": layer.out_columns,
            "map_rows": layer.rows, "map_cols": columns, "step": stride,
            "x_row": stride * columns - end,
            "x_image": image - (layer.out_rows - 1) * stride * columns - end,
            "tap": -layer.pad * columns - layer.pad, "tap_row": columns - layer.kernel + 1,
            "tap_tile": size - (layer.kernel - 1) * (columns + 1),
            "row": -layer.pad, "col": -layer.pad,
            "block_col": step, "block_row": step, "block_tile": step,
            "o_col": 1, "o_row": 1, "o_image": out - layer.out_rows * layer.out_columns + 1,
        }  # fmt: skip

    def _reached(self, layer, tile, r, c):
        """Loops of BP over the input's pixels (r, c), (r, c + stride) and so on of a tile of channels."""
        stride, kernel, lanes = layer.stride, layer.kernel, self.plan.lanes
        outs, columns = layer.out_rows * layer.out_columns, layer.out_columns
        rows, cols = -(-(layer.rows - r) // stride), -(-(layer.columns - c) // stride)
        down = [k for k in reversed(range(kernel)) if (r + layer.pad - k) % stride == 0]
        across = [k for k in reversed(range(kernel)) if (c + layer.pad - k) % stride == 0]
        row, col = (r + layer.pad - down[0]) // stride, (c + layer.pad - across[0]) // stride
        size, image = layer.rows * layer.columns, layer.input_tiles * layer.rows * layer.columns
        end = stride * layer.columns * (rows - 1) + stride * (cols - 1)
        turned = stride * (len(across) - 1)
        return {
            "tiles": layer.tiles[0], "taps_row": len(down), "taps_col": len(across),
            "images": self.images, "rows": rows, "cols": cols,
            "map_rows": layer.out_rows, "map_cols": columns, "step": 1,
            "x_row": columns - cols + 1,
            "x_image": layer.tiles[0] * outs - (rows - 1) * columns - cols + 1,
            "tap": row * columns + col, "tap_row": columns - len(across) + 1,
            "tap_tile": outs - (len(down) - 1) * columns - len(across) + 1,
            "row": row, "col": col,
            "block": (tile * kernel**2 + down[0] * kernel + across[0]) * lanes,
            "block_col": -stride * lanes, "block_row": (turned - stride * kernel) * lanes,
            "block_tile": (
                len(layer.passes.tile) + stride * kernel * (len(down) - 1) + turned
            ) * lanes,
            "o": tile * size + r * layer.columns + c, "o_col": stride,
            "o_row": stride * layer.columns - stride * (cols - 1), "o_image": image - end,
        }  # fmt: skip
