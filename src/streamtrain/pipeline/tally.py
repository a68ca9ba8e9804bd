"""Counts of what components are made of, and the LUTs that Yosys takes for them.

Components that several parts of a design have, such as queues and windows, are counted here;
:mod:`streamtrain.pipeline.resources` says what each part has.
"""

from streamtrain.host.packing import STATE_BITS
from streamtrain.pipeline.memories import map_memory
from streamtrain.pipeline.plan import ceil_log2
from streamtrain.stream import DISTRIBUTED_DEPTH, memory_style
from streamtrain.usage import Usage

__all__ = ["LUT_WEIGHTS", "Tally", "choice", "place_bits", "shifter", "stepping"]

# Made by `python benchmarks/estimates.py resources --fit`.
LUT_WEIGHTS = {
    "control": 0.957,  # sequencers
    "count": 1.048,  # counters
    "address": 1.112,  # addresses of pixels
    "operand": 1.082,  # choice of the multipliers' operands
    "shift": 0.910,  # the learning rate's shift
    "tree": 1.038,  # sums of products
    "sum": 1.178,  # sums over time, and their rounding
    "update": 1.185,  # weights that change
    "turn": 0.987,  # windows, turned into place
    "link": 1.038,  # what is between stages
    "loss": 1.029,  # the loss
}
"""LUTs that Yosys takes for each one that is counted here, by what it is for."""

_TERMS = 4  # that a tree adds before a register

# LUTs for each bit of a sum, by the number of terms.
_SUM = {1: 0, 2: 1, 3: 2, 4: 2.8}
# LUTs for each bit of a window's taps, by the kernel and whether rows are turned, not only columns.
_TURN = {(3, False): 1, (3, True): 3, (5, False): 2, (5, True): 5.2}


class Tally:
    """Counts what components are made of.

    Attributes
    ----------
    luts : dict
        LUTs, by the keys of :data:`LUT_WEIGHTS`.
    memories : list of (name, lane width, lanes, depth, copies, :class:`Mapping`)
    dsp, bram18, lutram, ff : :class:`int`
    """

    def __init__(self):
        self.luts = dict.fromkeys(LUT_WEIGHTS, 0)
        self.memories = []
        self.dsp = self.bram18 = self.lutram = self.ff = 0

    def usage(self):
        lut = self.lutram
        for kind, count in self.luts.items():
            lut += LUT_WEIGHTS[kind] * count
        return Usage(self.dsp, self.bram18, lut, self.ff)

    def memory(
        self,
        name,
        width,
        depth,
        *,
        lanes=1,
        copies=1,
        ports=None,
        single_port=False,
        held=True,
        lutram_depth=DISTRIBUTED_DEPTH,
    ):
        """``copies`` memories of ``lanes`` times ``width`` bits; see :func:`map_memory`."""
        block = not single_port and memory_style(depth, lutram_depth)["ram_style"] == "block"
        mapping = map_memory(
            width, depth, block=block, lanes=lanes, ports=ports, single_port=single_port, held=held
        )
        self.memories.append((name, width, lanes, depth, copies, mapping))
        self.bram18 += copies * mapping.bram18
        self.lutram += copies * mapping.lut
        self.ff += copies * mapping.ff
        self.luts["address"] += copies * lanes * width * choice(mapping.ways)

    def queue(self, name, width, depth, *, head=False, **options):
        """A :class:`~streamtrain.stream.Queue`."""
        if head and depth > options.get("lutram_depth", DISTRIBUTED_DEPTH):
            self.ff += width + 1
        elif head:  # in a register, in front of the others
            self.ff += width
            depth -= 1
            if not depth:
                self.ff += 1
                return
            self.luts["control"] += width + 6  # who goes where
        self.memory(name, width, depth, held=False, **options)
        level = ceil_log2(depth + 1)  # up and down are counters of their own
        pointers = 2 * ceil_log2(depth) + level
        self.ff += pointers + 2
        self.luts["count"] += pointers + level + 1

    def counters(self, bits):
        """Registers that count."""
        self.ff += bits
        self.luts["count"] += bits

    def random(self):
        """An :class:`~streamtrain.numeric.Lfsr`."""
        self.ff += STATE_BITS
        self.luts["count"] += 73

    def cursor(self, shape):
        """A :class:`~streamtrain.stream.Cursor`."""
        rows, cols = shape.places
        bits = ceil_log2(rows) + ceil_log2(cols) + _bank_bits(shape)
        bits += stepping(shape.depth, shape.slot_stride)
        if rows > 1:
            bits += stepping(shape.slot_stride, shape.row_stride)
        if cols > 1:
            bits += stepping(shape.slot_stride, shape.col_stride)
        self.counters(bits)
        adders = (rows > 1) + (cols > 1)
        self.ff += adders  # whether it is the last row, or column
        self.luts["address"] += adders * (ceil_log2(shape.depth) + shape.kernel + 2)

    def windows(self, name, width, shape):
        """A :class:`~streamtrain.stream.WindowStore` for elements of ``width`` bits."""
        rows, cols = shape.squares
        banks = shape.bank_rows * shape.bank_cols
        groups = shape.kernel**2 // shape.taps
        self.memory(
            f"{name}.bank",
            width,
            shape.depth,
            lanes=shape.lanes,
            copies=banks,
            lutram_depth=shape.lutram_depth,
        )
        bits = ceil_log2(shape.slots + 1) + stepping(shape.depth, shape.slot_stride)
        bits += ceil_log2(shape.blocks) + 2 * ceil_log2(shape.square)
        bits += ceil_log2(rows) + ceil_log2(cols) + _bank_bits(shape)
        if rows > 1:
            bits += stepping(shape.slot_stride, shape.square * shape.row_stride)
        if cols > 1:
            bits += stepping(shape.slot_stride, shape.square * shape.col_stride)
        self.counters(bits)
        word = shape.lanes * width
        self.ff += 3 + 2 * (place_bits(shape) + ceil_log2(groups)) + (banks + shape.taps) * word
        adders = 2 * (shape.blocks > 1) + (rows > 1) + (cols > 1) + (groups > 1)
        self.luts["address"] += adders * ceil_log2(shape.depth) + 3 * (banks - 1)
        if banks > 1:
            self.luts["turn"] += shape.taps * word * _TURN[shape.kernel, shape.bank_rows > 1]

    def tree(self, count, terms, width):
        """``count`` trees of adders. Returns the width of their sums, and their registers in a row."""
        levels = 0
        while terms > 1:
            groups, rest = divmod(terms, _TERMS)
            own = [(_TERMS, groups)] * (groups > 0) + [(rest, 1)] * (rest > 0)
            for size, number in own:
                bits = count * number * (width + ceil_log2(size))
                self.luts["tree"] += bits * _SUM[size]
                self.ff += bits
            width += ceil_log2(own[0][0])
            terms = groups + (rest > 0)
            levels += 1
        return width, levels


def choice(ways):
    """LUTs that choose one bit out of several."""
    return -(-(ways - 1) // 3)


def shifter(width, shifts):
    """LUTs of a shift to the left by 0 to ``shifts``: each chooses one of four."""
    return (width + shifts) * -(-ceil_log2(shifts + 1) // 2)


def stepping(size, step):
    """Bits of a counter below ``size`` that ever change, if it counts in steps of ``step``."""
    return max(0, ceil_log2(size) - (step & -step).bit_length() + 1)


def _bank_bits(shape):
    return ceil_log2(shape.bank_rows) + ceil_log2(shape.bank_cols)


def place_bits(shape):
    """Bits that say how a window is turned and masked."""
    return _bank_bits(shape) + (2 * shape.kernel if shape.rows * shape.cols > 1 else 0)
