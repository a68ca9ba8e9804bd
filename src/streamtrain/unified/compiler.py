"""What makes a program of a plan: where everything lies in memory, and a record for each thing to be done.

Maps lie in memory image after image; an image is tiles of channels, each with its rows and columns of
vectors. A layer is computed in tiles that fit the buffers: of images, of rows, and of tiles of channels. All
rows and several images go into one if they fit; else it is one image, and as many rows as do.

====  =====================  ==========================================  ==============================
      kept on chip           from the outside: loops                     what is loaded for each tile
====  =====================  ==========================================  ==============================
FP    weights of some        those groups; images and rows; output       inputs: all channels, or some
      output channels        channels; input channels if not all fit     after others
BP    weights of some        the same, inputs and outputs exchanged      errors, and routes to store by
      input channels
WU    gradients of some      those groups; images and rows               inputs and errors
      blocks
====  =====================  ==========================================  ==============================

Batch norms are computed tile of channels by tile. Sums of y and y * y are taken while y is stored; before BP, WU
gives those of dy and dy * y. Of them, the channel processor makes what FP and BP multiply with.
"""

from copy import copy
from dataclasses import dataclass, field

from streamtrain.golden.channels import PROGRAMS, ROWS, Register
from streamtrain.golden.passes import PARTIALS
from streamtrain.unified.buffers import PLACES, Depths
from streamtrain.unified.channels import READ_ROWS, written_rows
from streamtrain.unified.core import core_configuration
from streamtrain.unified.loader import Target
from streamtrain.unified.program import (
    BLOCK,
    RECORD_BITS,
    Kind,
    begin_fields,
    pack_record,
    record_layouts,
)
from streamtrain.unified.sequencer import Fold

__all__ = ["BuffersTooSmallError", "Compiler", "Program", "Region"]

_PASS = 4  # pixels of a pass, in lanes: what a tile has besides its operations is little then


@dataclass
class Region:
    """Maps in memory, or weights: *tiles* that are alike, a number of them for each image.

    Parameters
    ----------
    address : :class:`int`
        In bytes.
    tiles, rows, columns : :class:`int`
        Tiles of an image, and words of a tile.
    bits : :class:`int`
        Of a word.
    beat_bytes : :class:`int`
        Each tile begins with a beat.
    written : list of :class:`int`
        Writes of the program after which each image is what it should be.
    """

    address: int
    tiles: int
    rows: int
    columns: int
    bits: int
    beat_bytes: int
    written: list

    @property
    def stride(self):
        """Bytes from one tile to the next."""
        return self._beats(self.rows) * self.beat_bytes

    def _beats(self, rows):
        return -(-rows * self.columns * self.bits // (8 * self.beat_bytes))

    def wrote(self, images, writes):
        """So many writes have been asked for when these images are complete, or are as far as they are."""
        for image in images:
            self.written[image] = writes

    def begins_with_beat(self, row):
        return row * self.columns * self.bits % (8 * self.beat_bytes) == 0

    def part(self, images, tiles, rows):
        """Chunks of memory as loads and stores have them; each argument is a :class:`range`."""
        assert len(images) == 1 or len(tiles) == self.tiles, "not at equal distances"
        assert self.begins_with_beat(rows.start), "not at a beat"
        first = images.start * self.tiles + tiles.start
        offset = rows.start * self.columns * self.bits // 8
        return {
            "address": self.address + first * self.stride + offset,
            "beats": self._beats(len(rows)), "chunks": len(images) * len(tiles),
            "stride": self.stride, "words": len(rows) * self.columns,
        }  # fmt: skip


@dataclass
class Program:
    """Records in order, and how many writes they ask for.

    Parameters
    ----------
    layouts : dict
        Of the fields, by :class:`~streamtrain.unified.program.Kind`.
    beat_bytes : :class:`int`
    records : list of (:class:`~streamtrain.unified.program.Kind`, dict)
        With the fields that are not zero.
    writes : :class:`int`
    phases : list of (:class:`int`, :class:`str`, :class:`str`)
        Number of the record that a phase of a layer begins with, the phase, and the layer's name.
    """

    layouts: dict
    beat_bytes: int
    records: list = field(default_factory=list)
    writes: int = 0
    phases: list = field(default_factory=list)

    def add(self, kind, **fields):
        self.records.append((kind, fields))

    def end(self):
        self.add(Kind.END, writes=self.writes)
        return self

    def image(self):
        """The program as bytes, in whole blocks; behind the end is one more, for it is fetched ahead."""
        size = BLOCK * RECORD_BITS // 8
        joined = b"".join(pack_record(self.layouts, *record) for record in self.records)
        return joined.ljust((-(-len(joined) // size) + 1) * size, b"\0")

    def find(self, address, *, write, loads, writes):
        """Number of the record that a burst belongs to, after so many loads and writes; None if it is of none.

        Parameters
        ----------
        address : :class:`int`
            Of the burst.
        write : :class:`bool`
        loads, writes : :class:`int`
            Those that were through.
        """
        done = 0
        for number, (kind, fields) in enumerate(self.records):
            if kind is Kind.STORE:
                done += fields["chunks"] * (2 if "routes_address" in fields else 1)
                if write and done > writes:
                    return number
            elif kind is Kind.LOAD and not write:
                first, size = fields["address"], fields["beats"] * self.beat_bytes
                chunk, within = divmod(address - first, max(1, fields["stride"]))
                loads -= 1
                if loads < 0 and 0 <= chunk < fields["chunks"] and within < size:
                    return number
        return None

    def phase(self, number):
        """(phase, name of the layer) that a record belongs to."""
        return next(
            (phase, name) for first, phase, name in reversed(self.phases) if first <= number
        )


def _parts(count, size):
    """Ranges of up to ``size`` that cover ``range(count)``."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


class BuffersTooSmallError(ValueError):
    """A layer does not fit the buffers; ``needed`` has the least :class:`Depths` of some of them."""

    def __init__(self, text, **needed):
        super().__init__(text)
        self.needed = needed


class Compiler:
    """Lay out a plan in memory, and write the programs of a step.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.plan.UnifiedPlan`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    images : :class:`int`
        Of a mini-batch.
    depths : :class:`~streamtrain.unified.buffers.Depths`, optional
        Of the buffers; as large as whole layers and mini-batches are without.
    data_bits, address_bits : :class:`int`
        Of the memory.
    base : :class:`int`
        First address.
    weight_sets : :class:`int`
        With 2, a step reads the weights of one set and writes those of the other: one that is cut short leaves
        those of the step before as they are. With 1, weights are updated where they lie.

    Attributes
    ----------
    depths : :class:`~streamtrain.unified.buffers.Depths`
    fold : :class:`~streamtrain.unified.sequencer.Fold` or None
    inputs, outputs, routes, errors, weights, biases : dict of :class:`Region` by layer
        ``outputs`` are pooled ones; ``errors`` are those of outputs before pooling.
    channels, sums : dict of :class:`Region` by layer
        Of batch norms, for each tile: the channels' registers, and blocks with a and c on their diagonals; partial
        sums over a mini-batch.
    normalized : :class:`int`
        Tiles of channels of the largest batch norm; 0 without.
    sets : list of (dict, dict, dict) of :class:`Region` by layer
        Weights, biases and channels of each set. ``weights``, ``biases`` and ``channels`` are those that are read.
    targets : :class:`Region`
        The classes of a mini-batch, as routes: the first bit of a class's lane is set.
    configuration : :class:`str`
        What the core must be generated from.
    programs : :class:`int`
        Where programs may be put, behind all regions.

    Raises
    ------
    ValueError
        If a layer does not fit the buffers, however small its tiles are, or has to be computed in floating
        point and is not.
    """

    def __init__(
        self, plan, arithmetic, images, depths=None, *, data_bits, address_bits=32, base=0,
        weight_sets=1,
    ):
        plan.check(arithmetic)
        self.plan, self.arithmetic, self.images = plan, arithmetic, images
        self.beat_bytes = data_bits // 8
        self.layouts = record_layouts(address_bits)
        self.depths = depths or self._whole_layers()
        first = plan.layers[0]
        self.fold = None
        if first.group < plan.lanes:
            self.fold = Fold(first.group, first.kernel, first.columns)
        self.inputs, self.outputs, self.routes, self.errors = {}, {}, {}, {}
        self.sets, self.sums = [({}, {}, {}) for _ in range(weight_sets)], {}
        self._end = base
        operands, row, lanes = plan.lanes * arithmetic.operand.width, plan.lanes * 32, plan.lanes
        for number, layer in enumerate(plan.layers):
            name, (outs, _) = layer.name, layer.tiles
            if number:
                self.inputs[name] = self.outputs[plan.layers[number - 1].name]
            else:
                vector = layer.group * arithmetic.operand.width
                size = layer.input_tiles, layer.rows, layer.columns
                self.inputs[name] = self._region(*size, vector, images)
            self.outputs[name] = self._region(outs, *layer.pooled, operands, images)
            self.routes[name] = self._region(outs, *layer.pooled, PLACES * lanes, images)
            size = outs, layer.out_rows, layer.out_columns
            self.errors[name] = self._region(*size, operands, images)
            if layer.norm:
                for *_, channels in self.sets:
                    channels[name] = self._region(outs, written_rows(lanes), 1, row, 1)
                self.sums[name] = self._region(outs, READ_ROWS - ROWS, 1, row, 1)
                continue
            # A tile is what belongs to a tile of output channels; a row, one of input channels.
            passes = len(layer.passes.tile)
            inputs = self.inputs[name].tiles
            for weights, biases, _ in self.sets:
                weights[name] = self._region(outs, inputs, passes // inputs * lanes, row, 1)
                biases[name] = self._region(1, outs, 1, row, 1)
        self.normalized = max((layer.tiles[0] for layer in plan.layers if layer.norm), default=0)
        self.configuration = core_configuration(
            arithmetic, plan.lanes, self.depths, plan.layers[-1].m, self.fold, self.normalized, data_bits,
            address_bits,
        )  # fmt: skip
        self.targets = self._region(1, 1, 1, PLACES * lanes, images)
        self.programs = self._end
        self._use(0)

    def _use(self, read):
        """Read the weights of one set, and write those of the next."""
        self.weights, self.biases, self.channels = self.sets[read]
        after = self.sets[(read + 1) % len(self.sets)]
        self.new_weights, self.new_biases, self.new_channels = after

    def variant(self, images, read=0):
        """A compiler for the same memory: of programs for so many images, with the weights of one set."""
        other = copy(self)
        other.images = images
        other._use(read)
        return other

    def _region(self, tiles, rows, columns, bits, images):
        region = Region(self._end, tiles, rows, columns, bits, self.beat_bytes, [0] * images)
        end = region.address + images * tiles * region.stride
        self._end = -(-end // 4096) * 4096
        return region

    def _whole_layers(self):
        """Buffers for each layer as one tile."""
        layers, images = self.plan.layers, self.images
        inputs = [layer.input_tiles * layer.rows * layer.columns * images for layer in layers]
        outputs = [layer.tiles[0] * layer.out_rows * layer.out_columns * images for layer in layers]
        blocks = [layer.tiles[0] * len(layer.passes.tile) for layer in layers]
        pairs = [2 * layer.rows * layer.columns for layer in layers if layer.norm]
        partials = PARTIALS if pairs else 1
        return Depths(
            x=max(*inputs, *outputs, *pairs),
            e=max(outputs),
            sums=max(*inputs, *outputs),
            weights=max(2, *blocks) * self.plan.lanes,
            gradients=max(partials, *blocks),
            tiles=max(2, partials, *(layer.tiles[0] for layer in layers)),
        )

    @property
    def phases(self):
        """Those of a training step in order: (phase, name of a layer)."""
        forward = [("FP", layer.name) for layer in self.plan.layers]
        backward = []
        for layer in reversed(self.plan.layers):
            own = [("BP", layer.name)] * layer.back + [("WU", layer.name)] * layer.trainable
            backward += own[::-1] if layer.norm else own  # of which the errors need the sums
            if not layer.back:
                break
        return forward + backward

    def evaluation(self):
        """The :class:`Program` that computes scores of a mini-batch."""
        return self._program([("FP", layer.name) for layer in self.plan.layers], training=False)

    def step(self):
        """The :class:`Program` of a training step."""
        return self._program(self.phases)

    def single(self, phase, name):
        """The :class:`Program` of one phase of a layer: to find out how long it takes."""
        return self._program([(phase, name)])

    def _program(self, phases, training=True):
        program = self._begin()
        layers = {layer.name: layer for layer in self.plan.layers}
        for phase, name in phases:
            program.phases.append((len(program.records), phase, name))
            layer = layers[name]
            if phase == "FP" and layer.norm:
                self._channels(program, layer, "train" if training else "evaluate")
                self._sums(program, _NormForward(self, layer))
            elif phase == "FP":
                last = layer is self.plan.layers[-1]
                self._sums(program, _Forward(self, layer, scored=training and last))
            elif phase == "BP":
                self._sums(program, (_NormBackward if layer.norm else _Backward)(self, layer))
            elif layer.norm:
                self._update(program, layer, _NormUpdate(self, layer))
                self._channels(program, layer, "back")
            else:
                self._update(program, layer, _Update(self, layer))
        return program.end()

    def _channels(self, program, layer, name):
        """Run a program on the channels of a batch norm, tile after tile."""
        one, lanes = range(1), self.plan.lanes
        channels, sums = self.held[layer.name], self.sums[layer.name]
        new = self.new_channels[layer.name] if name == "train" else channels
        for number in range(layer.tiles[0]):
            tile = range(number, number + 1)
            read = [(channels, range(ROWS))] + [(sums, range(sums.rows))] * (name == "back")
            for region, rows in read:
                part = region.part(one, tile, rows)
                program.add(
                    Kind.LOAD, target=Target.MASTERS, **part | {"words": part["beats"]},
                    last=0, after=region.written[0],
                )  # fmt: skip
            written = new.part(one, tile, range(written_rows(lanes)))
            command = {
                "program": list(PROGRAMS).index(name), "tile": number,
                "partials": min(PARTIALS, layer.rows * layer.columns),
            }  # fmt: skip
            self.store(program, new, one, written, normalize=1, channels=command)
        self.held[layer.name] = new

    def _begin(self):
        for regions in (
            self.outputs, self.routes, self.errors, self.sums, self.weights, self.biases, self.channels,
            self.new_weights, self.new_biases, self.new_channels,
        ):  # fmt: skip
            for region in regions.values():
                region.written = [0] * len(region.written)
        self.held = dict(self.channels)  # registers of batch norms, as they are now
        program = Program(self.layouts, self.beat_bytes)
        program.add(Kind.BEGIN, **begin_fields(self.configuration))
        return program

    # -- loads and stores --------------------------------------------------------------------------

    def load(self, program, target, region, images, tiles, rows, last=1, to=0):
        """Load part of a region, once its images have been written."""
        program.add(
            Kind.LOAD, target=target, **region.part(images, tiles, rows), last=last, to=to,
            after=max(region.written[image] for image in images),
        )  # fmt: skip

    def store(self, program, region, images, chunks, **fields):
        """Store chunks of a region, of these images."""
        program.writes += chunks["chunks"]
        region.wrote(images, program.writes)
        program.add(Kind.STORE, **chunks, **fields)

    # -- FP and BP ---------------------------------------------------------------------------------

    def _sums(self, program, phase):
        """All tiles of FP or BP of a layer."""
        group, rows, tiles, at_once, images = self._tiling(phase)
        for own in _parts(phase.outs, group):
            phase.load_weights(program, own)
            spots = [(i, r) for i in _parts(self.images, images) for r in _parts(phase.rows, rows)]
            subs = [
                range(own.start + s.start, own.start + s.stop) for s in _parts(len(own), at_once)
            ]
            parts = phase.parts(own, tiles)
            for spot in spots:
                for sub in subs:
                    for part in parts:
                        # All inputs stay for the next outputs, too; or they come again for each.
                        if len(parts) > 1 or sub is subs[0]:
                            phase.load(program, *spot, part)
                        commands = phase.commands(*spot, own, sub, part)
                        for command in commands:
                            last = command is commands[-1]
                            complete = last and part is parts[-1]
                            program.add(
                                Kind.COMPUTE, **command, first=part is parts[0],
                                done_x=last and (len(parts) > 1 or sub is subs[-1]),
                                done_weights=complete and sub is subs[-1] and spot is spots[-1],
                                done=complete,
                            )  # fmt: skip
                    phase.store(program, *spot, sub)

    def _tiling(self, phase):
        """Outputs whose weights are kept, rows, input tiles, outputs at once, and images of a tile."""
        depths, source = self.depths, phase.source
        group = min(phase.most, depths.weights // phase.weights)
        if not group:
            raise BuffersTooSmallError(
                f"{phase.title} needs {phase.weights} rows of weights at once; the buffer has {depths.weights}",
                weights=phase.weights,
            )
        found = [
            (rows, tiles)
            for rows in _row_sizes(phase.rows, phase.row_step)
            for tiles in [min(phase.needed, depths.x // phase.read_area(rows))]
            if tiles and phase.area(rows) <= depths.sums and phase.aligned(rows)
        ]
        if not found:
            least = min(filter(phase.aligned, _row_sizes(phase.rows, phase.row_step)))
            raise BuffersTooSmallError(
                f"{phase.title} needs {phase.read_area(least)} vectors of inputs and "
                f"{phase.area(least)} sums at once; the buffers have {depths.x} and {depths.sums}",
                x=max(depths.x, phase.read_area(least)), sums=max(depths.sums, phase.area(least)),
            )  # fmt: skip
        # As many rows as possible; but rather fewer, if then all inputs are there at once.
        rows, tiles = next((f for f in found if f[1] == phase.needed), found[0])
        at_once = min(group, depths.sums // phase.area(rows))
        images = 1
        if rows == phase.rows and tiles == phase.needed == source.tiles and at_once == phase.outs:
            images = min(
                self._images(phase.area(rows)),
                depths.x // (tiles * phase.read_area(rows)),
                depths.sums // (phase.outs * phase.area(rows)),
            )
        return group, rows, tiles, at_once, images

    def _images(self, area):
        """Images of a tile: so many that a pass is long enough for the weights of the next one, and no more.

        What is smaller is loaded and stored while another tile is computed.
        """
        return min(self.images, -(-_PASS * self.plan.lanes // area))

    # -- WU ----------------------------------------------------------------------------------------

    def _update(self, program, layer, phase):
        """All tiles of WU of a layer, and the update of its weights."""
        outs, ins, rows, images = self._update_tiling(phase)
        for out in _parts(layer.tiles[0], outs):
            for part in phase.parts(out, ins):
                spots = [
                    (i, r)
                    for i in _parts(self.images, images)
                    for r in _parts(layer.out_rows, rows)
                ]
                for spot in spots:
                    phase.load(program, *spot, out, part)
                    commands = phase.commands(*spot, out, part)
                    for command in commands:
                        last = command is commands[-1]
                        program.add(
                            Kind.COMPUTE, **command, update=1, first=spot is spots[0],
                            biased=phase.biased(part), done_x=last, done_e=last,
                            done=last and spot is spots[-1],
                        )  # fmt: skip
                phase.store(program, out, part)

    def _update_tiling(self, phase):
        """Tiles of outputs and of inputs whose gradients are kept, rows and images of a tile."""
        layer, depths, source = phase.layer, self.depths, phase.source
        blocks = phase.blocks  # of a tile of inputs
        ins = min(phase.needed, depths.gradients // blocks)
        if not ins:
            raise BuffersTooSmallError(
                f"WU of {layer.name} needs {blocks} blocks of gradients at once; the buffer has "
                f"{depths.gradients}",
                gradients=blocks,
            )
        outs = min(phase.most, depths.gradients // (blocks * ins), depths.tiles // phase.biases)
        if not outs:
            raise BuffersTooSmallError(
                f"WU of {layer.name} needs {phase.biases} vectors of biases' gradients at once; the buffer has "
                f"{depths.tiles}",
                tiles=phase.biases,
            )
        found = [
            (rows, tiles, many)
            for rows in _row_sizes(layer.out_rows, 1)
            for tiles in [min(ins, depths.x // phase.read_area(rows))]
            for many in [min(outs, depths.e // (rows * layer.out_columns))]
            if tiles and many
        ]
        if not found:
            raise BuffersTooSmallError(
                f"WU of {layer.name} needs {phase.read_area(1)} vectors of inputs and "
                f"{layer.out_columns} errors at once; the buffers have {depths.x} and {depths.e}",
                x=max(depths.x, phase.read_area(1)), e=max(depths.e, layer.out_columns),
            )  # fmt: skip
        rows, ins, outs = next((f for f in found if f[1:] == (ins, outs)), found[0])
        images = 1
        if (rows, ins, outs) == (layer.out_rows, source.tiles, layer.tiles[0]):
            area = outs * rows * layer.out_columns
            images = min(
                self._images(rows * layer.out_columns),
                depths.x // (ins * phase.read_area(rows)),
                depths.e // area,
            )
        return outs, ins, rows, images


def _row_sizes(rows, step):
    """Rows that a tile may have, the most first."""
    return [size for size in range(rows, 0, -1) if size % step == 0]


class _Phase:
    """What tiles of a phase read, compute and write.

    Attributes
    ----------
    source : :class:`Region`
        Maps that vectors for the lanes are read from.
    units : :class:`int`
        Tiles of channels, as passes count them, in one of the source's: of a linear layer's input, each
        pixel is one.
    needed : :class:`int`
        Tiles of the source that an output is made of.
    most : :class:`int`
        Tiles that may be computed at once.
    """

    def __init__(self, compiler, layer):
        self.compiler, self.layer = compiler, layer
        self.lanes = compiler.plan.lanes
        self.inputs = compiler.inputs[layer.name]
        self.units = self.inputs.rows * self.inputs.columns if layer.linear else 1

    @property
    def needed(self):
        return self.source.tiles

    def parts(self, own, size):
        """Tiles of the source, up to ``size`` at once, of which these tiles are made."""
        return _parts(self.source.tiles, size)

    def window_rows(self, rows):
        """Rows of the input map that some rows of outputs read, from a beat on."""
        layer, inputs = self.layer, self.inputs
        if layer.linear:
            return range(inputs.rows)
        first = max(0, rows.start * layer.stride - layer.pad)
        while not inputs.begins_with_beat(first):
            first -= 1
        last = (rows.stop - 1) * layer.stride - layer.pad + layer.kernel
        return range(first, min(layer.rows, last))

    def input_area(self, rows):
        """Vectors of a tile of inputs that any so many rows of outputs read, at most."""
        layer = self.layer
        if layer.linear:
            return self.units
        starts = range(0, layer.out_rows, rows)
        parts = (range(r, min(r + rows, layer.out_rows)) for r in starts)
        return max(len(self.window_rows(part)) for part in parts) * layer.columns

    def window(self, images, rows, tiles, step):
        """Loops over outputs' pixels; ``step`` from one block of weights to the next."""
        layer, columns = self.layer, self.layer.columns
        reads = self.window_rows(rows)
        held = len(reads) * columns if not layer.linear else 1
        folded = layer.group < self.lanes
        taps = 1 if folded else layer.kernel
        end = (layer.out_columns - 1) * layer.stride
        below = layer.stride * columns
        image = len(tiles) * self.units * held
        row = rows.start * layer.stride - layer.pad
        first = 0 if layer.linear else reads.start
        return {
            "folded": folded, "tiles": len(tiles) * self.units, "taps_row": taps,
            "taps_col": len(layer.passes.tile) if folded else taps,
            "images": len(images), "rows": len(rows), "cols": layer.out_columns,
            "map_rows": layer.rows, "map_cols": columns, "step": layer.stride,
            "x_row": below - end, "x_image": image - (len(rows) - 1) * below - end,
            "tap": (row - first) * columns - layer.pad, "tap_row": columns - layer.kernel + 1,
            "tap_tile": held - (layer.kernel - 1) * (columns + 1),
            "row": row, "col": -layer.pad,
            "block_col": step, "block_row": step, "block_tile": step, "o_col": 1, "o_row": 1,
        }  # fmt: skip

    @property
    def x_target(self):
        return Target.GROUPS if self.layer.group < self.lanes else Target.X


class _Forward(_Phase):
    """FP; ``scored``: the errors of its outputs, too."""

    def __init__(self, compiler, layer, scored=False):
        super().__init__(compiler, layer)
        self.scored = scored
        self.title = f"FP of {layer.name}"
        self.source, self.outs = self.inputs, layer.tiles[0]
        self.most = min(self.outs, compiler.depths.tiles)
        self.rows, self.row_step = layer.out_rows, layer.pool
        self.passes = len(layer.passes.tile)
        self.weights = self.passes * self.lanes
        self.routed = layer.relu or layer.pool > 1

    def area(self, rows):
        return rows * self.layer.out_columns

    def read_area(self, rows):
        return self.input_area(rows)

    def aligned(self, rows):
        routes = self.compiler.routes[self.layer.name]
        return (
            rows == self.rows or not self.routed or routes.begins_with_beat(rows // self.layer.pool)
        )

    def load_weights(self, program, group):
        compiler, name, one = self.compiler, self.layer.name, range(1)
        norm = compiler.plan.norm_of(self.layer)
        if norm:
            rows = range(Register.SHIFT, Register.SHIFT + 1)
            shifts = compiler.held[norm.name]
            compiler.load(program, Target.BIASES, shifts, one, group, rows, last=0)
        else:
            compiler.load(program, Target.BIASES, compiler.biases[name], one, one, group, last=0)
        weights = compiler.weights[name]
        compiler.load(program, Target.WEIGHTS, weights, one, group, range(weights.rows))

    def load(self, program, images, rows, part):
        self.compiler.load(
            program, self.x_target, self.source, images, part, self.window_rows(rows)
        )

    def commands(self, images, rows, group, sub, part):
        area, per_tile = self.area(len(rows)), self.passes // self.source.tiles
        window = self.window(images, rows, part, self.lanes)
        return [
            window | {
                "block": ((out - group.start) * self.passes + part.start * per_tile) * self.lanes,
                "o": (out - sub.start) * area, "o_image": (len(sub) - 1) * area + 1,
                "bias": out - group.start, "biased": 1,
            }
            for out in sub
        ]  # fmt: skip

    def store(self, program, images, rows, sub):
        compiler, layer = self.compiler, self.layer
        pool, columns = layer.pool, layer.out_columns
        pooled = range(rows.start // pool, rows.stop // pool)
        outputs = {
            "images": len(images) * len(sub), "rows": len(pooled), "cols": columns // pool,
            "pool": pool > 1, "relu": layer.relu, "routed": self.routed, "o_row": columns,
            "o_image": self.area(len(rows)), "done": not self.scored,
        }  # fmt: skip
        region, routes, places = compiler.outputs[layer.name], compiler.routes[layer.name], {}
        if self.routed:
            part = routes.part(images, sub, pooled)
            places = {f"routes_{name}": part[name] for name in ("address", "beats", "stride")}
            program.writes += part["chunks"]
        chunks = region.part(images, sub, pooled)
        if compiler.plan.norm_of(layer):
            first = rows.start * columns
            places["sums"] = {
                "wanted": 1, "tile": sub.start, "tiles": len(sub), "pixel": first % PARTIALS,
                "fresh": images.start == 0 and first < PARTIALS,
            }  # fmt: skip
        compiler.store(program, region, images, chunks, map=outputs, **places)
        routes.wrote(images, program.writes)
        if self.scored:
            compiler.load(program, Target.ROUTES, compiler.targets, images, range(1), range(1))
            errors = outputs | {"relu": 0, "routed": 0, "scored": 1, "done": 1}
            region = compiler.errors[layer.name]
            compiler.store(program, region, images, region.part(images, sub, rows), map=errors)


class _Backward(_Phase):
    """BP: errors of the inputs, taken back to before the pool of the layer before.

    Where the stride is more than one, the input's pixels that the same taps reach go together.
    """

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.before = compiler.plan.before(layer)
        self.title = f"BP of {layer.name}"
        self.source = compiler.errors[layer.name]
        self.outs = self.most = self.inputs.tiles
        self.rows, self.row_step = layer.rows, 1
        self.per_tile = self.units * layer.kernel**2 * self.lanes
        self.weights = layer.tiles[0] * self.per_tile
        self.routed = self.before.relu or self.before.pool > 1

    def area(self, rows):
        return self.units if self.layer.linear else rows * self.layer.columns

    def _error_rows(self, rows):
        """Rows of errors that some rows of the input reach; one that they do not, if there is none."""
        layer = self.layer
        first = -(-(rows.start + layer.pad - layer.kernel + 1) // layer.stride)
        last = (rows.stop - 1 + layer.pad) // layer.stride
        first = min(max(0, first), layer.out_rows - 1)
        return range(first, max(first, min(layer.out_rows - 1, last)) + 1)

    def read_area(self, rows):
        starts = range(0, self.rows, rows)
        parts = (range(r, min(r + rows, self.rows)) for r in starts)
        return max(len(self._error_rows(part)) for part in parts) * self.layer.out_columns

    def aligned(self, rows):
        routes = self.compiler.routes[self.before.name]
        return rows == self.rows or not self.routed or routes.begins_with_beat(rows)

    def load_weights(self, program, group):
        weights, outs = self.compiler.weights[self.layer.name], range(self.layer.tiles[0])
        self.compiler.load(program, Target.WEIGHTS, weights, range(1), outs, group)

    def load(self, program, images, rows, part):
        self.compiler.load(program, Target.X, self.source, images, part, self._error_rows(rows))

    def commands(self, images, rows, group, sub, part):
        stride = self.layer.stride
        # In a tile with fewer rows or columns than the stride, some taps reach no pixel.
        first_rows = range(rows.start, min(rows.start + stride, rows.stop))
        first_cols = range(min(stride, self.layer.columns))
        return [
            self._reached(images, rows, group, sub, part, tile, unit, r, c)
            for tile in sub
            for unit in range(self.units)
            for r in first_rows
            for c in first_cols
        ]

    def _reached(self, images, rows, group, sub, part, tile, unit, first, c):
        """Loops over the pixels (first, c), (first, c + stride) and so on of a tile of inputs."""
        layer, lanes = self.layer, self.lanes
        stride, kernel, columns = layer.stride, layer.kernel, layer.out_columns
        errors = self._error_rows(rows)
        count, cols = -(-(rows.stop - first) // stride), -(-(layer.columns - c) // stride)
        down = [k for k in reversed(range(kernel)) if (first + layer.pad - k) % stride == 0]
        across = [k for k in reversed(range(kernel)) if (c + layer.pad - k) % stride == 0]
        row, col = (first + layer.pad - down[0]) // stride, (c + layer.pad - across[0]) // stride
        held, area = len(errors) * columns, self.area(len(rows))
        turned = stride * (len(across) - 1)
        block = part.start * len(group) * self.per_tile + (tile - group.start) * self.per_tile
        block += (unit * kernel**2 + down[0] * kernel + across[0]) * lanes
        wide = 1 if layer.linear else area  # from one unit to the next
        return {
            "tiles": len(part), "taps_row": len(down), "taps_col": len(across),
            "images": len(images), "rows": count, "cols": cols,
            "map_rows": layer.out_rows, "map_cols": columns, "step": 1,
            "x_row": columns - cols + 1,
            "x_image": len(part) * held - (count - 1) * columns - cols + 1,
            "tap": (row - errors.start) * columns + col, "tap_row": columns - len(across) + 1,
            "tap_tile": held - (len(down) - 1) * columns - len(across) + 1,
            "row": row, "col": col, "block": block,
            "block_col": -stride * lanes, "block_row": (turned - stride * kernel) * lanes,
            "block_tile": len(group) * self.per_tile
            + (stride * kernel * (len(down) - 1) + turned) * lanes,
            "o": (tile - sub.start) * area + unit * wide + (first - rows.start) * layer.columns + c,
            "o_col": stride, "o_row": stride * layer.columns - stride * (cols - 1),
            "o_image": len(sub) * area - stride * layer.columns * (count - 1) - stride * (cols - 1),
            "transposed": 1,
        }  # fmt: skip

    def store(self, program, images, rows, sub):
        compiler, before = self.compiler, self.before
        pool = before.pool
        if self.layer.linear:
            rows = range(before.pooled[0])
        columns = before.out_columns // pool
        if self.routed:
            compiler.load(program, Target.ROUTES, compiler.routes[before.name], images, sub, rows)
        full = range(rows.start * pool, rows.stop * pool)
        outputs = {
            "images": len(images) * len(sub), "rows": len(full), "cols": before.out_columns,
            "pool": pool > 1, "backward": 1, "routed": self.routed, "o_row": columns,
            "o_image": len(rows) * columns, "done": 1,
        }  # fmt: skip
        region = compiler.errors[before.name]
        compiler.store(program, region, images, region.part(images, sub, full), map=outputs)


class _Update(_Phase):
    """WU: gradients of blocks of weights, and the update of those."""

    biases = 1  # vectors of their gradients that an output has

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.source = self.inputs
        self.most = layer.tiles[0]
        self.blocks = len(layer.passes.tile) // self.inputs.tiles

    def biased(self, part):
        """Whether gradients of biases are added up with those of these inputs' weights."""
        return part.start == 0

    def read_area(self, rows):
        return self.input_area(rows)

    def load(self, program, images, rows, outs, part):
        compiler = self.compiler
        compiler.load(program, self.x_target, self.source, images, part, self.window_rows(rows))
        compiler.load(program, Target.E, compiler.errors[self.layer.name], images, outs, rows)

    def commands(self, images, rows, outs, part):
        area = len(rows) * self.layer.out_columns
        window = self.window(images, rows, part, 1)
        return [
            window | {
                "block": number * len(part) * self.blocks, "o": number * area,
                "o_image": (len(outs) - 1) * area + 1, "bias": number,
            }
            for number in range(len(outs))
        ]  # fmt: skip

    def store(self, program, outs, part):
        compiler, name, one = self.compiler, self.layer.name, range(1)
        parts = [(compiler.weights, compiler.new_weights, (one, outs, part))]
        if self.layer.bias and not compiler.plan.norm_of(self.layer) and part.start == 0:
            parts.append((compiler.biases, compiler.new_biases, (one, one, outs)))
        for number, (old, new, which) in enumerate(parts):
            # Of the same weights, there are none under way: each is written once in a program.
            masters = old[name].part(*which)
            masters["words"] = masters["beats"]
            program.add(Kind.LOAD, target=Target.MASTERS, **masters, last=0, after=0)
            update = {
                "biases": number, "done": number == len(parts) - 1,
                "count": len(outs) * (1 if number else len(part) * self.blocks),
            }  # fmt: skip
            region = new[name]
            compiler.store(program, region, one, region.part(*which), update=1, weights=update)


class _Norm(_Phase):
    """A phase of a batch norm: tiles of channels by themselves."""

    needed = most = 1

    def parts(self, own, size):
        return [own]

    def _load_channels(self, program, tile, bias, blocks):
        """Load a register of a tile as biases, and the first blocks as weights."""
        compiler, one = self.compiler, range(1)
        region = compiler.held[self.layer.name]
        compiler.load(program, Target.BIASES, region, one, tile, range(bias, bias + 1), last=0)
        rows = range(ROWS, ROWS + blocks * self.lanes)
        compiler.load(program, Target.WEIGHTS, region, one, tile, rows)


class _NormForward(_Norm, _Forward):
    """FP: a * y + b."""

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.most, self.passes, self.weights = 1, 1, self.lanes

    def load_weights(self, program, group):
        self._load_channels(program, group, Register.B, 1)

    def commands(self, images, rows, group, sub, part):
        return [
            command | {"block": 0} for command in super().commands(images, rows, group, sub, part)
        ]


class _NormBackward(_Norm, _Backward):
    """BP: a * dy + c * y + d. Errors and inputs lie in the buffer one after the other."""

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.most, self.weights = 1, 2 * self.lanes

    def read_area(self, rows):
        return 2 * self.input_area(rows)

    def load_weights(self, program, group):
        self._load_channels(program, group, Register.D, 2)

    def load(self, program, images, rows, part):
        rows = self.window_rows(rows)
        area = len(images) * len(rows) * self.layer.columns
        self.compiler.load(program, Target.X, self.source, images, part, rows, last=0)
        self.compiler.load(program, Target.X, self.inputs, images, part, rows, to=area)

    def commands(self, images, rows, group, sub, part):
        area = len(images) * len(self.window_rows(rows)) * self.layer.columns
        window = self.window(images, rows, part, self.lanes)
        return [window | {"tiles": 2, "tap_tile": area, "o_image": 1, "biased": 1}]


class _NormUpdate(_Norm, _Update):
    """WU: partial sums of errors, and of products with inputs on the diagonals of blocks.

    Pixels of all rows follow one another, as many in a round as there are partial sums. So each is
    added to when the adder is done with it.
    """

    biases = PARTIALS

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.most, self.blocks = 1, PARTIALS

    def biased(self, part):
        return True

    def commands(self, images, rows, outs, part):
        columns, reads = self.layer.columns, self.window_rows(rows)
        pixels = len(rows) * columns
        before = (
            rows.start * columns % PARTIALS
        )  # partial sums that the last row has used, of a round
        rounds = -(-(before + pixels) // PARTIALS)
        end = (rounds - 1) * PARTIALS
        return [
            {
                "paired": 1, "tiles": 1, "taps_row": 1, "taps_col": PARTIALS, "images": len(images), "rows": 1,
                "cols": rounds, "map_rows": 1, "map_cols": pixels, "step": PARTIALS,
                "x_image": len(reads) * columns - end, "tap": (rows.start - reads.start) * columns - before,
                "col": -before, "block_col": 1, "o_col": PARTIALS, "o_image": pixels - end,
            }
        ]  # fmt: skip

    def store(self, program, outs, part):
        compiler, one = self.compiler, range(1)
        region = compiler.sums[self.layer.name]
        for is_bias, rows in ((1, range(PARTIALS)), (0, range(PARTIALS, 2 * PARTIALS))):
            update = {"biases": is_bias, "plain": 1, "count": PARTIALS, "done": not is_bias}
            chunks = region.part(one, outs, rows)
            compiler.store(program, region, one, chunks, update=1, weights=update)
