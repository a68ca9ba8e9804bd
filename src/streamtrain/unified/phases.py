"""What tiles of each phase of a layer read, compute and write: loads, commands and stores."""

from itertools import product
from typing import NamedTuple

from streamtrain.golden.channels import ROWS, Register
from streamtrain.golden.passes import PARTIALS
from streamtrain.unified.loader import Target
from streamtrain.unified.program import Kind
from streamtrain.unified.regions import ranges

__all__ = ["Backward", "Forward", "Held", "NormBackward", "NormForward", "NormUpdate", "Update"]


class Held(NamedTuple):
    """Weights that are in the buffer: those of some tiles of outputs, for some tiles of what they are made of."""

    outs: range
    ins: range


class Phase:
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
    per_tile, pixels : :class:`int`
        In FP and BP, rows of weights of one of those, for one tile of outputs; pixels of a pass, on average.
    most, least : :class:`int`
        Tiles that may be computed at once, and that must be.
    """

    least = 1

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
        return ranges(self.source.tiles, size)

    def window_rows(self, rows):
        """Rows of the input map that some rows of outputs read."""
        layer = self.layer
        if layer.linear:
            return range(self.inputs.rows)
        first = max(0, rows.start * layer.stride - layer.pad)
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

    def span(self, images, rows, sub, some, done):
        """Fields of a store of some images of a tile; with ``done``, the last of them are the tile's last."""
        first = (some.start - images.start) * len(sub) * self.area(len(rows))
        return {
            "images": len(some) * len(sub), "o": first, "done": done and some.stop == images.stop,
        }  # fmt: skip

    @property
    def x_target(self):
        return Target.GROUPS if self.layer.group < self.lanes else Target.X


class Forward(Phase):
    """FP; ``scored``: the errors of its outputs, too."""

    def __init__(self, compiler, layer, scored=False):
        super().__init__(compiler, layer)
        self.scored = scored
        self.title = f"FP of {layer.name}"
        self.source, self.outs = self.inputs, layer.tiles[0]
        self.most = min(self.outs, compiler.depths.tiles)
        self.least = self.outs if scored else 1  # softmax takes all scores of a sample
        self.rows, self.row_step = layer.out_rows, layer.pool
        self.per_tile = len(layer.passes.tile) // self.inputs.tiles * self.lanes
        self.pixels = layer.out_rows * layer.out_columns
        self.routed = layer.relu or layer.pool > 1

    def area(self, rows):
        return rows * self.layer.out_columns

    def read_area(self, rows):
        return self.input_area(rows)

    def load_weights(self, program, held):
        compiler, name, one = self.compiler, self.layer.name, range(1)
        if held.ins.start == 0:
            self._load_biases(program, held.outs)
        compiler.load(program, Target.WEIGHTS, compiler.weights[name], one, *held)

    def _load_biases(self, program, outs):
        compiler, one = self.compiler, range(1)
        region, place = compiler.biases[self.layer.name], (one, outs)
        if norm := compiler.plan.norm_of(self.layer):
            shift = range(Register.SHIFT, Register.SHIFT + 1)
            region, place = compiler.channels_now[norm.name], (outs, shift)
        compiler.load(program, Target.BIASES, region, one, *place, last=0)

    def load(self, program, images, rows, part):
        self.compiler.load(
            program, self.x_target, self.source, images, part, self.window_rows(rows)
        )

    def commands(self, images, rows, held, sub, part):
        area, first = self.area(len(rows)), part.start - held.ins.start
        window = self.window(images, rows, part, self.lanes)
        return [
            window | {
                "block": ((out - held.outs.start) * len(held.ins) + first) * self.per_tile,
                "o": (out - sub.start) * area, "o_image": (len(sub) - 1) * area + 1,
                "bias": out - held.outs.start, "biased": 1,
            }
            for out in sub
        ]  # fmt: skip

    def store(self, program, images, rows, sub):
        compiler, layer, columns = self.compiler, self.layer, self.layer.out_columns
        pool = layer.pool
        pooled = range(rows.start // pool, rows.stop // pool)
        outputs = {
            "rows": len(pooled), "cols": columns // pool, "pool": pool > 1, "relu": layer.relu,
            "routed": self.routed, "o_row": columns, "o_image": self.area(len(rows)),
        }  # fmt: skip
        region, routes, places = compiler.outputs[layer.name], compiler.routes[layer.name], {}
        first = rows.start * columns
        for some in region.spans(images, sub):
            if compiler.plan.norm_of(layer):
                places["sums"] = {
                    "wanted": 1, "tile": sub.start, "tiles": len(sub), "pixel": first % PARTIALS,
                    "fresh": some.start == 0 and first < PARTIALS,
                }  # fmt: skip
            if self.routed:
                part = routes.part(some, sub, pooled)
                places |= {f"routes_{name}": part[name] for name in ("address", "beats", "stride")}
                program.writes += part["chunks"]
            mine = outputs | self.span(images, rows, sub, some, done=not self.scored)
            chunks = region.part(some, sub, pooled)
            compiler.store(program, region, some, chunks, map=mine, **places)
            routes.wrote(some, program.writes)
        if self.scored:
            compiler.load(program, Target.MASKS, compiler.targets, images, sub, range(1))
            errors = outputs | {"relu": 0, "routed": 0, "scored": 1}
            errors |= self.span(images, rows, sub, images, done=True)
            region = compiler.errors[layer.name]
            compiler.store(program, region, images, region.part(images, sub, rows), map=errors)


class Backward(Phase):
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
        self.pixels = layer.rows * layer.columns // layer.stride**2
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

    def load_weights(self, program, held):
        weights = self.compiler.weights[self.layer.name]
        self.compiler.load(program, Target.WEIGHTS, weights, range(1), held.ins, held.outs)

    def load(self, program, images, rows, part):
        self.compiler.load(program, Target.X, self.source, images, part, self._error_rows(rows))

    def commands(self, images, rows, held, sub, part):
        stride = self.layer.stride
        # In a tile with fewer rows or columns than the stride, some taps reach no pixel.
        reached = [
            self._reached(images, rows, held, sub, part, r, c)
            for r in range(rows.start, min(rows.start + stride, rows.stop))
            for c in range(min(stride, self.layer.columns))
        ]
        area = self.area(len(rows))
        wide = 1 if self.layer.linear else area  # from one unit to the next
        found = []
        for number, unit in product(range(len(sub)), range(self.units)):
            block = (sub.start + number - held.outs.start) * self.per_tile
            block += unit * self.layer.kernel**2 * self.lanes
            o = number * area + unit * wide
            found += [own | {"block": own["block"] + block, "o": own["o"] + o} for own in reached]
        return found

    def _reached(self, images, rows, held, sub, part, first, c):
        """Loops over the pixels (first, c), (first, c + stride) and so on of the first tile of inputs."""
        layer, lanes = self.layer, self.lanes
        stride, kernel, columns = layer.stride, layer.kernel, layer.out_columns
        errors = self._error_rows(rows)
        count, cols = -(-(rows.stop - first) // stride), -(-(layer.columns - c) // stride)
        down = [k for k in reversed(range(kernel)) if (first + layer.pad - k) % stride == 0]
        across = [k for k in reversed(range(kernel)) if (c + layer.pad - k) % stride == 0]
        row, col = (first + layer.pad - down[0]) // stride, (c + layer.pad - across[0]) // stride
        read, area = len(errors) * columns, self.area(len(rows))
        turned = stride * (len(across) - 1)
        group = len(held.outs) * self.per_tile  # rows of a tile of errors
        block = (part.start - held.ins.start) * group + (down[0] * kernel + across[0]) * lanes
        return {
            "tiles": len(part), "taps_row": len(down), "taps_col": len(across),
            "images": len(images), "rows": count, "cols": cols,
            "map_rows": layer.out_rows, "map_cols": columns, "step": 1,
            "x_row": columns - cols + 1,
            "x_image": len(part) * read - (count - 1) * columns - cols + 1,
            "tap": (row - errors.start) * columns + col, "tap_row": columns - len(across) + 1,
            "tap_tile": read - (len(down) - 1) * columns - len(across) + 1,
            "row": row, "col": col, "block": block,
            "block_col": -stride * lanes, "block_row": (turned - stride * kernel) * lanes,
            "block_tile": group + (stride * kernel * (len(down) - 1) + turned) * lanes,
            "o": (first - rows.start) * layer.columns + c,
            "o_col": stride, "o_row": stride * layer.columns - stride * (cols - 1),
            "o_image": len(sub) * area - stride * layer.columns * (count - 1) - stride * (cols - 1),
            "transposed": 1,
        }  # fmt: skip

    def store(self, program, images, rows, sub):
        compiler, before, pool = self.compiler, self.before, self.before.pool
        if self.layer.linear:
            rows = range(before.pooled[0])
        columns = before.out_columns // pool
        if self.routed:
            target = Target.ROUTES if pool > 1 else Target.MASKS
            compiler.load(program, target, compiler.routes[before.name], images, sub, rows)
        full = range(rows.start * pool, rows.stop * pool)
        outputs = {
            "rows": len(full), "cols": before.out_columns, "pool": pool > 1, "backward": 1,
            "routed": self.routed, "o_row": columns, "o_image": len(rows) * columns,
        }  # fmt: skip
        region = compiler.errors[before.name]
        for some in region.spans(images, sub):
            mine = outputs | self.span(images, rows, sub, some, done=True)
            compiler.store(program, region, some, region.part(some, sub, full), map=mine)


class Update(Phase):
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
            masters = old[name].loaded_beats(*which)
            program.add(Kind.LOAD, target=Target.MASTERS, **masters, last=0, after=0)
            update = {
                "biases": number, "done": number == len(parts) - 1,
                "count": len(outs) * (1 if number else len(part) * self.blocks),
            }  # fmt: skip
            region = new[name]
            compiler.store(program, region, one, region.part(*which), update=1, weights=update)


class Norm(Phase):
    """A phase of a batch norm: tiles of channels by themselves."""

    needed = most = 1

    def parts(self, own, size):
        return [own]

    def _load_channels(self, program, tile, bias, blocks):
        """Load a register of a tile as biases, and the first blocks as weights."""
        compiler, one = self.compiler, range(1)
        region = compiler.channels_now[self.layer.name]
        compiler.load(program, Target.BIASES, region, one, tile, range(bias, bias + 1), last=0)
        rows = range(ROWS, ROWS + blocks * self.lanes)
        compiler.load(program, Target.WEIGHTS, region, one, tile, rows)


class NormForward(Norm, Forward):
    """FP: a * y + b."""

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.most, self.per_tile = 1, self.lanes

    def load_weights(self, program, held):
        self._load_channels(program, held.outs, Register.B, 1)


class NormBackward(Norm, Backward):
    """BP: a * dy + c * y + d. Errors and inputs lie in the buffer one after the other."""

    def __init__(self, compiler, layer):
        super().__init__(compiler, layer)
        self.most, self.per_tile = 1, 2 * self.lanes

    def read_area(self, rows):
        return 2 * self.input_area(rows)

    def load_weights(self, program, held):
        self._load_channels(program, held.outs, Register.D, 2)

    def load(self, program, images, rows, part):
        rows = self.window_rows(rows)
        area = len(images) * len(rows) * self.layer.columns
        self.compiler.load(program, Target.X, self.source, images, part, rows, last=0)
        self.compiler.load(program, Target.X, self.inputs, images, part, rows, to=area)

    def commands(self, images, rows, held, sub, part):
        area = len(images) * len(self.window_rows(rows)) * self.layer.columns
        window = self.window(images, rows, part, self.lanes)
        return [window | {"tiles": 2, "tap_tile": area, "o_image": 1, "biased": 1}]


class NormUpdate(Norm, Update):
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
