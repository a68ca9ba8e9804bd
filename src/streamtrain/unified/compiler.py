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
from typing import NamedTuple

from streamtrain.golden.channels import PROGRAMS, ROWS
from streamtrain.golden.passes import PARTIALS
from streamtrain.unified.buffers import PLACES, Depths
from streamtrain.unified.channels import READ_ROWS, written_rows
from streamtrain.unified.core import core_configuration
from streamtrain.unified.loader import Target
from streamtrain.unified.order import loads_ahead
from streamtrain.unified.phases import (
    Backward,
    Forward,
    Held,
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
from streamtrain.unified.regions import Region, padded, ranges
from streamtrain.unified.sequencer import Fold

__all__ = ["BuffersTooSmallError", "Compiler", "Program"]

_PASS = 4  # pixels of a pass, in lanes: what a tile has besides its operations is little then


class _Tiling(NamedTuple):
    """How FP or BP of a layer is cut into tiles.

    Parameters
    ----------
    keeps : :class:`bool`
        All weights of a group stay for the mini-batch; else those of some inputs come with them.
    group : :class:`int`
        Tiles of outputs whose weights are there.
    rows, tiles : :class:`int`
        Rows of outputs, and tiles of inputs, that are there.
    at_once : :class:`int`
        Tiles of outputs whose sums are.
    images : :class:`int`
    """

    keeps: bool
    group: int
    rows: int
    tiles: int
    at_once: int
    images: int


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
    owners : list of (:class:`str`, :class:`str`)
        Of each record, the phase and the name of the layer that it belongs to.
    """

    layouts: dict
    beat_bytes: int
    records: list = field(default_factory=list)
    writes: int = 0
    owners: list = field(default_factory=list)
    owner: tuple = ("", "")

    def add(self, kind, **fields):
        self.records.append((kind, fields))
        self.owners.append(self.owner)

    def end(self):
        """Bring the records in the order in which they are to be fetched."""
        self.add(Kind.END, writes=self.writes)
        order = loads_ahead(self.records)
        self.records = [self.records[number] for number in order]
        self.owners = [self.owners[number] for number in order]
        return self

    @property
    def size(self):
        """Bytes of its :meth:`image`: whole blocks, and behind the end one more, for it is fetched ahead."""
        return (-(-len(self.records) // BLOCK) + 1) * BLOCK * RECORD_BITS // 8

    def image(self):
        """The program as bytes."""
        joined = b"".join(pack_record(self.layouts, *record) for record in self.records)
        return joined.ljust(self.size, b"\0")

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
        ``outputs`` are pooled ones; ``errors`` are those of outputs before pooling. ``routes`` are masks, with a bit
        for each value, where there is no pool.
    channels, sums : dict of :class:`Region` by layer
        Of batch norms, for each tile: the channels' registers, and blocks with a and c on their diagonals; partial
        sums over a mini-batch.
    normalized : :class:`int`
        Tiles of channels of the largest batch norm; 0 without.
    sets : list of (dict, dict, dict) of :class:`Region` by layer
        Weights, biases and channels of each set. ``weights``, ``biases`` and ``channels`` are those that are read.
    targets : :class:`Region`
        The classes of a mini-batch, as masks: the bit of a class's lane is set.
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
            places = PLACES if layer.pool > 1 else 1
            self.routes[name] = self._region(outs, *layer.pooled, places * lanes, images)
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
        self.targets = self._region(outs, 1, 1, lanes, images)
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
        bits = padded(bits, 8 * self.beat_bytes)
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

    def tilings(self):
        """How each phase of a training step is cut into tiles: all that its program depends on the buffers in."""
        found = {}
        for phase, name in self.phases:
            work = self._phase(phase, name, training=True)
            found[phase, name] = (self._update_tiling if phase == "WU" else self._tiling)(work)
        return found

    def _phase(self, phase, name, training):
        layer = next(layer for layer in self.plan.layers if layer.name == name)
        if phase == "FP" and not layer.norm:
            return Forward(self, layer, scored=training and layer is self.plan.layers[-1])
        plain, normalizing = {
            "FP": (Forward, NormForward), "BP": (Backward, NormBackward), "WU": (Update, NormUpdate),
        }[phase]  # fmt: skip
        return (normalizing if layer.norm else plain)(self, layer)

    def _program(self, phases, training=True):
        program = self._begin()
        for phase, name in phases:
            program.owner = phase, name
            work = self._phase(phase, name, training)
            layer = work.layer
            if layer.norm and phase == "FP":
                self._channels(program, layer, "train" if training else "evaluate")
            (self._update if phase == "WU" else self._sums)(program, work)
            if layer.norm and phase == "WU":
                self._channels(program, layer, "back")
        return program.end()

    def _channels(self, program, layer, name):
        """Run a program on the channels of a batch norm, tile after tile."""
        one, lanes = range(1), self.plan.lanes
        channels, sums = self.channels_now[layer.name], self.sums[layer.name]
        new = self.new_channels[layer.name] if name == "train" else channels
        for number in range(layer.tiles[0]):
            tile = range(number, number + 1)
            read = [(channels, range(ROWS))] + [(sums, range(sums.rows))] * (name == "back")
            for region, rows in read:
                program.add(
                    Kind.LOAD, target=Target.MASTERS, **region.loaded_beats(one, tile, rows), last=0,
                    after=region.written[0],
                )  # fmt: skip
            written = new.part(one, tile, range(written_rows(lanes)))
            command = {
                "program": list(PROGRAMS).index(name), "tile": number,
                "partials": min(PARTIALS, layer.rows * layer.columns),
            }  # fmt: skip
            self.store(program, new, one, written, normalize=1, channels=command)
        self.channels_now[layer.name] = new

    def _begin(self):
        for regions in (
            self.outputs, self.routes, self.errors, self.sums, self.weights, self.biases, self.channels,
            self.new_weights, self.new_biases, self.new_channels,
        ):  # fmt: skip
            for region in regions.values():
                region.written = [0] * len(region.written)
        self.channels_now = dict(self.channels)  # registers of batch norms, as they are now
        program = Program(self.layouts, self.beat_bytes)
        program.add(Kind.BEGIN, **begin_fields(self.configuration))
        return program

    # -- loads and stores --------------------------------------------------------------------------

    def load(self, program, target, region, images, tiles, rows, last=1, to=0):
        """Load part of a region, once its images have been written."""
        for some in region.spans(images, tiles):
            part = region.loaded(some, tiles, rows)
            program.add(
                Kind.LOAD, target=target, **part, last=last and some.stop == images.stop, to=to,
                after=max(region.written[image] for image in some),
            )  # fmt: skip
            to += part["rows"] * part["words"]

    def store(self, program, region, images, chunks, **fields):
        """Store chunks of a region, of these images."""
        program.writes += chunks["chunks"]
        region.wrote(images, program.writes)
        program.add(Kind.STORE, **chunks, **fields)

    # -- FP and BP ---------------------------------------------------------------------------------

    def _sums(self, program, phase):
        """All tiles of FP or BP of a layer."""
        tiling = self._tiling(phase)
        for own in ranges(phase.outs, tiling.group):
            parts = phase.parts(own, tiling.tiles)
            held = Held(own, range(parts[0].start, parts[-1].stop))
            if tiling.keeps:
                phase.load_weights(program, held)
            spots = [
                (images, rows)
                for images in ranges(self.images, tiling.images)
                for rows in ranges(phase.rows, tiling.rows)
            ]
            subs = [
                range(own.start + s.start, own.start + s.stop)
                for s in ranges(len(own), tiling.at_once)
            ]
            for spot in spots:
                for sub in subs:
                    for part in parts:
                        if not tiling.keeps:
                            held = Held(own, part)
                            phase.load_weights(program, held)
                        # All inputs stay for the next outputs, too; or they come again for each.
                        if len(parts) > 1 or sub is subs[0]:
                            phase.load(program, *spot, part)
                        commands = phase.commands(*spot, held, sub, part)
                        for command in commands:
                            last = command is commands[-1]
                            complete = last and part is parts[-1]
                            ends = complete and sub is subs[-1] and spot is spots[-1]
                            program.add(
                                Kind.COMPUTE, **command, first=part is parts[0],
                                done_x=last and (len(parts) > 1 or sub is subs[-1]),
                                done_weights=ends if tiling.keeps else last,
                                done=complete,
                            )  # fmt: skip
                    phase.store(program, *spot, sub)

    def _tiling(self, phase):
        """The :class:`_Tiling` of FP or BP of a layer that takes the least time."""
        depths = self.depths
        row_sizes = _row_sizes(phase.rows, phase.row_step)
        found = [
            (rows, min(phase.needed, depths.x // phase.read_area(rows)))
            for rows in row_sizes
            if depths.x >= phase.read_area(rows) and phase.area(rows) <= depths.sums
        ]
        if not found:
            least = min(row_sizes)
            raise BuffersTooSmallError(
                f"{phase.title} needs {phase.read_area(least)} vectors of inputs and "
                f"{phase.area(least)} sums at once; the buffers have {depths.x} and {depths.sums}",
                x=max(depths.x, phase.read_area(least)), sums=max(depths.sums, phase.area(least)),
            )  # fmt: skip
        held = depths.weights // phase.per_tile
        if not held:
            raise BuffersTooSmallError(
                f"{phase.title} needs {phase.per_tile} rows of weights at once; the buffer has {depths.weights}",
                weights=phase.per_tile,
            )
        # As many rows as possible; but rather fewer, if all inputs are there then, and wait for all weights.
        choices = [
            *self._keeping(phase, *next((f for f in found if f[1] == phase.needed), found[0]), held),
            *self._passing(phase, *found[0], held),
        ]
        if not choices:
            raise self._scores_too_large(phase)
        return min(choices, key=lambda tiling: self._cycles(phase, tiling))

    def _scores_too_large(self, phase):
        least = {
            "sums": phase.least * phase.area(phase.rows), "weights": phase.least * phase.per_tile,
            "tiles": phase.least,
        }  # fmt: skip
        return BuffersTooSmallError(
            f"{phase.title} needs room for all {phase.least} tiles of scores at once: {least['sums']} sums, "
            f"{least['weights']} rows of weights and {least['tiles']} vectors of biases; the buffers have "
            f"{self.depths.sums}, {self.depths.weights} and {self.depths.tiles}",
            **{name: max(depth, getattr(self.depths, name)) for name, depth in least.items()},
        )

    def _keeping(self, phase, rows, tiles, held):
        """The tiling in which weights of a group of outputs are kept for the mini-batch, if there is one."""
        group, area = min(phase.most, held // phase.needed), phase.area(rows)
        at_once = min(group, self.depths.sums // area)
        if at_once < phase.least:
            return []
        images = 1
        if rows == phase.rows:
            images = min(
                self._images(area), self.depths.x // (tiles * phase.read_area(rows)),
                self.depths.sums // (at_once * area),
            )  # fmt: skip
        return [_Tiling(True, group, rows, tiles, at_once, images)]

    def _passing(self, phase, rows, tiles, held):
        """Tilings whose weights come again for each tile of images and rows: with more outputs, or more images."""
        depths, area, read = self.depths, phase.area(rows), phase.read_area(rows)
        for group in range(phase.least, 1 + min(phase.most, held, depths.sums // area)):
            images = 1
            if rows == phase.rows:
                images = min(self.images, depths.sums // (group * area), depths.x // read)
            some = min(tiles, held // group, depths.x // (images * read))
            yield _Tiling(False, group, rows, some, group, images)

    def _cycles(self, phase, tiling):
        """Cycles of FP or BP of a layer, as it is tiled: the most of its loads and passes; and those of its loads."""
        operand, accumulator = self.arithmetic.operand.width, self.arithmetic.accumulator.width
        weights = phase.needed * phase.outs * phase.per_tile
        spots = -(-self.images // tiling.images) * -(-phase.rows // tiling.rows)
        again = -(-phase.outs // tiling.group)
        if tiling.tiles < phase.needed:
            again *= -(-tiling.group // tiling.at_once)
        inputs = phase.needed * phase.read_area(tiling.rows) * tiling.images * spots * again
        loaded = inputs * operand + weights * accumulator * (1 if tiling.keeps else spots)
        passes = weights // self.plan.lanes * self.images * phase.pixels
        loaded = loaded * self.plan.lanes // (8 * self.beat_bytes)
        return max(loaded, passes), loaded

    def _images(self, area):
        """Images of a tile: so many that a pass is long enough for the weights of the next one, and no more.

        What is smaller is loaded and stored while another tile is computed.
        """
        return min(self.images, -(-_PASS * self.plan.lanes // area))

    # -- WU ----------------------------------------------------------------------------------------

    def _update(self, program, phase):
        """All tiles of WU of a layer, and the update of its weights."""
        layer = phase.layer
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
        layer, depths = phase.layer, self.depths
        blocks, columns = phase.blocks, layer.out_columns  # blocks of a tile of inputs
        if depths.gradients < blocks:
            raise BuffersTooSmallError(
                f"WU of {layer.name} needs {blocks} blocks of gradients at once; the buffer has "
                f"{depths.gradients}",
                gradients=blocks,
            )
        if depths.tiles < phase.biases:
            raise BuffersTooSmallError(
                f"WU of {layer.name} needs {phase.biases} vectors of biases' gradients at once; the buffer has "
                f"{depths.tiles}",
                tiles=phase.biases,
            )
        found = {}  # tilings, and the vectors that they load
        for rows in _even_sizes(layer.out_rows):
            read = phase.read_area(rows)
            for ins in _even_sizes(phase.needed):
                outs = min(
                    phase.most, depths.gradients // (blocks * ins), depths.tiles // phase.biases,
                    depths.e // (rows * columns),
                )  # fmt: skip
                if outs and ins * read <= depths.x:
                    inputs = phase.needed * read * -(-layer.out_rows // rows)
                    errors = layer.tiles[0] * layer.out_rows * columns
                    loaded = -(-layer.tiles[0] // outs) * inputs + -(-phase.needed // ins) * errors
                    found[outs, ins, rows] = loaded
        if not found:
            raise BuffersTooSmallError(
                f"WU of {layer.name} needs {phase.read_area(1)} vectors of inputs and "
                f"{columns} errors at once; the buffers have {depths.x} and {depths.e}",
                x=max(depths.x, phase.read_area(1)), e=max(depths.e, columns),
            )  # fmt: skip
        outs, ins, rows = min(found, key=found.get)
        images = 1
        if rows == layer.out_rows:
            area = rows * columns
            images = min(
                self._images(area), depths.x // (ins * phase.read_area(rows)),
                depths.e // (outs * area),
            )  # fmt: skip
        return outs, ins, rows, images


def _even_sizes(count):
    """Sizes of parts of so many that are as alike as can be, the largest first."""
    return dict.fromkeys(-(-count // parts) for parts in range(1, count + 1))


def _row_sizes(rows, step):
    """Rows that a tile may have, the most first."""
    return [size for size in range(rows, 0, -1) if size % step == 0]
