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

from streamtrain.golden.channels import PROGRAMS, ROWS
from streamtrain.golden.passes import PARTIALS
from streamtrain.unified.buffers import PLACES, Depths
from streamtrain.unified.channels import READ_ROWS, written_rows
from streamtrain.unified.core import core_configuration
from streamtrain.unified.loader import Target
from streamtrain.unified.phases import (
    Backward,
    Forward,
    NormBackward,
    NormForward,
    NormUpdate,
    Update,
)
from streamtrain.unified.program import (
    BLOCK,
    RECORD_BITS,
    Kind,
    begin_fields,
    pack_record,
    record_layouts,
)
from streamtrain.unified.regions import Region, ranges
from streamtrain.unified.sequencer import Fold

__all__ = ["BuffersTooSmallError", "Compiler", "Program"]

_PASS = 4  # pixels of a pass, in lanes: what a tile has besides its operations is little then


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
                self._sums(program, NormForward(self, layer))
            elif phase == "FP":
                last = layer is self.plan.layers[-1]
                self._sums(program, Forward(self, layer, scored=training and last))
            elif phase == "BP":
                self._sums(program, (NormBackward if layer.norm else Backward)(self, layer))
            elif layer.norm:
                self._update(program, layer, NormUpdate(self, layer))
                self._channels(program, layer, "back")
            else:
                self._update(program, layer, Update(self, layer))
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
        for own in ranges(phase.outs, group):
            phase.load_weights(program, own)
            spots = [(i, r) for i in ranges(self.images, images) for r in ranges(phase.rows, rows)]
            subs = [
                range(own.start + s.start, own.start + s.stop) for s in ranges(len(own), at_once)
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
        for out in ranges(layer.tiles[0], outs):
            for part in phase.parts(out, ins):
                spots = [
                    (i, r)
                    for i in ranges(self.images, images)
                    for r in ranges(layer.out_rows, rows)
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
