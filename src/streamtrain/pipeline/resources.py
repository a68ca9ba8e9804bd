"""What a plan takes of an FPGA: DSP slices, block RAM, LUTs and flip-flops, layer by layer.

Multipliers and memories are known exactly: one DSP slice for each multiplier, and what
:mod:`streamtrain.pipeline.memories` says for each memory. Flip-flops are counted from the registers
that the gateware declares. LUTs are counted as the bits of each kind of gates, times
:data:`LUTS_PER_BIT`, which is fitted to synthesised designs.

A design is the sum of three kinds of parts, so that a search can put it together from parts that it has
already seen: :func:`stage_usage` depends on one stage's folding, :func:`link_usage` on those of two
neighbours, :func:`shell_usage` on none.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import ceil, gcd, prod

from streamtrain.host.device import Op
from streamtrain.numeric import Round
from streamtrain.pipeline.memories import map_memory
from streamtrain.pipeline.plan import ACCUMULATOR_WIDTH, RATE_UNIT, ceil_log2
from streamtrain.pipeline.stage import error_windows, input_windows
from streamtrain.records import Record
from streamtrain.stream import DISTRIBUTED_DEPTH, memory_style

__all__ = ["Usage", "link_usage", "shell_usage", "stage_usage"]

LUTS_PER_BIT = dict.fromkeys(
    ("control", "count", "operand", "shift", "tree", "sum", "update", "turn", "link", "loss"), 1.0
)

_LEAST_PRODUCT = 9  # bits of a product that Yosys takes a DSP slice for
_PRODUCT_LATENCY = 3
_RESULTS = 32
_COMMANDS = 2
_SUM_LUTS = (0, 0, 1, 2, 2.8)  # for each bit, by the number of terms


@dataclass(frozen=True)
class Usage(Record):
    """Resources of a 7-series part. Usages can be added.

    Parameters
    ----------
    dsp : :class:`int`
        DSP slices.
    bram18 : :class:`int`
        Halves of a block RAM, 18 Kbit each.
    lut, ff : :class:`float`
        LUTs, those used as memory included, and flip-flops.
    """

    dsp: int = 0
    bram18: int = 0
    lut: float = 0.0
    ff: float = 0.0

    @property
    def bram36(self):
        """Block RAMs of 36 Kbit; a half counts 0.5."""
        return self.bram18 / 2

    def __add__(self, other):
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.dsp + other.dsp, self.bram18 + other.bram18, self.lut + other.lut, self.ff + other.ff
        )


class _Tally:
    """Counts what components are made of.

    Attributes
    ----------
    gates : dict
        Bits of gates, by the keys of :data:`LUTS_PER_BIT`.
    memories : list of (name, lane width, lanes, depth, copies, :class:`Mapping`)
    dsp, bram18, lutram, ff : :class:`int`
    """

    def __init__(self):
        self.gates = dict.fromkeys(LUTS_PER_BIT, 0)
        self.memories = []
        self.dsp = self.bram18 = self.lutram = self.ff = 0

    def memory(self, name, width, depth, *, lanes=1, copies=1, ports=None, single_port=False):
        mapping = _mapping(width, depth, lanes, ports, single_port)
        self.memories.append((name, width, lanes, depth, copies, mapping))
        self.bram18 += copies * mapping.bram18
        self.lutram += copies * mapping.lut
        self.ff += copies * mapping.ff
        if mapping.ways > 1:
            self.gates["turn"] += copies * lanes * width * _choice(mapping.ways)

    def queue(self, name, width, depth):
        """A :class:`~streamtrain.stream.Queue`."""
        self.memory(name, width, depth)
        bits = 2 * ceil_log2(depth) + ceil_log2(depth + 1)
        self.ff += bits + 1
        self.gates["count"] += bits

    def cursor(self, shape):
        """A :class:`~streamtrain.stream.Cursor`."""
        places = ceil_log2(shape.places[0]) + ceil_log2(shape.places[1])
        banks = ceil_log2(shape.bank_rows) + ceil_log2(shape.bank_cols)
        bases = _stepping(shape.depth, shape.slot_stride)
        if shape.places[0] > 1:
            bases += _stepping(shape.slot_stride, shape.row_stride)
        if shape.places[1] > 1:
            bases += _stepping(shape.slot_stride, shape.col_stride)
        self.ff += places + banks + bases
        self.gates["count"] += places + banks + bases

    def windows(self, name, width, shape):
        """A :class:`~streamtrain.stream.WindowStore` for elements of ``width`` bits."""
        rows, cols = shape.squares
        banks = shape.bank_rows * shape.bank_cols
        groups = shape.kernel**2 // shape.taps
        self.memory(f"{name}.bank", width, shape.depth, lanes=shape.lanes, copies=banks)
        counters = (
            ceil_log2(shape.slots + 1)
            + _stepping(shape.depth, shape.slot_stride)
            + ceil_log2(shape.blocks)
            + 2 * ceil_log2(shape.square)
            + ceil_log2(rows)
            + ceil_log2(cols)
            + ceil_log2(shape.bank_rows)
            + ceil_log2(shape.bank_cols)
        )
        if rows > 1:
            counters += _stepping(shape.slot_stride, shape.row_stride * shape.square)
        if cols > 1:
            counters += _stepping(shape.slot_stride, shape.col_stride * shape.square)
        bank_bits = ceil_log2(shape.bank_rows) + ceil_log2(shape.bank_cols)
        place = bank_bits + (2 * shape.kernel if shape.rows * shape.cols > 1 else 0)
        word = width * shape.lanes
        self.ff += counters + 3 + 2 * (place + ceil_log2(groups))
        self.ff += banks * word + shape.taps * word
        dimensions = (shape.bank_rows > 1) + (shape.bank_cols > 1)
        self.gates["count"] += counters + ceil_log2(shape.depth) * (1 + bool(bank_bits))
        self.gates["turn"] += dimensions * shape.taps * word * _choice(shape.kernel)

    def usage(self):
        lut = self.lutram + sum(LUTS_PER_BIT[kind] * bits for kind, bits in self.gates.items())
        return Usage(self.dsp, self.bram18, lut, self.ff)


@lru_cache(maxsize=1 << 16)
def _mapping(width, depth, lanes, ports, single_port):
    block = not single_port and memory_style(depth)["ram_style"] == "block"
    return map_memory(width, depth, block=block, lanes=lanes, ports=ports, single_port=single_port)


def _choice(ways):
    """LUTs that choose one bit out of several."""
    return 0 if ways < 2 else 1 if ways <= 4 else 2 * ceil((ways - 4) / 3)


def _stepping(size, step):
    """Bits of a counter to ``size`` that change, if it counts in steps of ``step``."""
    return max(0, ceil_log2(size) - ((step & -step).bit_length() - 1))


def _shifter(width, shifts):
    """LUTs of a shift of ``width`` bits to the left by 0 to ``shifts``."""
    return sum(
        _choice(min(bit, width - 1, shifts, width + shifts - 1 - bit) + 1)
        for bit in range(width + shifts)
    )


# -- A stage ---------------------------------------------------------------------------------------


def stage_usage(plan, stage):
    """What one stage takes: its windows, weights, array and sequencers.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stage : :class:`~streamtrain.pipeline.plan.Stage`
        One of the plan's, or one that differs from it in its folding.

    Returns a :class:`Usage`. It depends on no other stage's folding.
    """
    return _stage(plan, stage).usage()


def _before(plan, stage):
    """The stage before: one's errors are computed in the other's format."""
    for before, after in pairwise(plan.stages):
        if after.name == stage.name:
            return before
    return None


def _stage(plan, stage):
    tally = _Tally()
    shifts = plan.rate_shifts
    before = _before(plan, stage) if stage.back else None
    x, dz = input_windows(plan, stage), error_windows(plan, stage)
    name = stage.name
    tally.windows(f"{name}.inputs", stage.input.width, x)
    tally.windows(f"{name}.errors", stage.errors.width, dz)
    latencies = _array(tally, stage, shifts)
    _weights(tally, plan, stage, shifts)
    _sequencers(tally, plan, stage, x, dz, shifts, latencies)
    train = 1 if stage.relu or stage.pool > 1 else 0  # goes with the outputs, if someone asks for it
    _results(tally, f"{name}.outputs", stage, stage, train)
    if before:
        _results(tally, f"{name}.input_errors", stage, before, 0)
    return tally


def _tree(tally, count, terms, width):
    """``count`` trees of adders. Returns their results' width, and registers in a row."""
    levels = 0
    while terms > 1:
        groups, rest = divmod(terms, 4)
        tally.gates["tree"] += count * groups * _SUM_LUTS[4] * (width + 2)
        tally.ff += count * groups * (width + 2)
        if rest:
            wider = width + ceil_log2(rest)
            tally.gates["tree"] += count * _SUM_LUTS[rest] * wider
            tally.ff += count * wider
        width += 2 if groups else ceil_log2(rest)
        terms = groups + bool(rest)
        levels += 1
    return width, levels


def _array(tally, stage, shifts):
    """The multiplier array. Returns the latencies of forward and backward sums."""
    pm, pn, pk = stage.folding
    lanes = pm * pn * pk
    wide = max(stage.input.width + shifts, stage.errors.width)
    narrow = max(stage.weights.width, stage.errors.width)
    if wide + narrow >= _LEAST_PRODUCT:
        tally.dsp += lanes
    tally.gates["shift"] += pn * pk * _shifter(stage.input.width, shifts)
    tally.gates["operand"] += lanes * (narrow + (wide if stage.back else 0))
    width = stage.weights.width + (
        max(stage.input.width, stage.errors.width) if stage.back else stage.input.width
    )
    summed, taps = _tree(tally, pm * pn, pk, width)
    _, forward = _tree(tally, pm, pn, summed)
    backward = 0
    if stage.back:
        _, backward = _tree(tally, pn, pm, summed)
    registers = _PRODUCT_LATENCY + taps + max(forward, backward)
    tally.ff += 5 + registers
    return _PRODUCT_LATENCY + taps + forward, _PRODUCT_LATENCY + taps + backward


def _weights(tally, plan, stage, shifts):
    """The weight store."""
    pm, pn, pk = stage.folding
    lanes = pm * pn * pk
    stored, operand = stage.stored.width, stage.weights.width
    wide = stage.stored != stage.weights
    width = stored + (operand if wide else 0)
    name = f"{stage.name}.weights"
    accumulates = plan.max_batch > 1
    spatial = ceil_log2(stage.pixels)
    gradient = min(
        ACCUMULATOR_WIDTH, stage.input.width + shifts + stage.errors.width + spatial
    )
    bias_drop = plan.bias_shift(stage)
    kinds = [("", lanes, stage.words, gradient, stage.input.frac + bias_drop)]
    if stage.bias:
        kinds.append(("bias_", pm, stage.blocks[0], stage.errors.width + shifts + spatial, bias_drop))
    tally.memory(f"{name}.words", width, stage.words, lanes=lanes)
    if stage.bias:
        ports = ((width - operand, width), (0, stored))
        tally.memory(f"{name}.biases", width, stage.blocks[0], lanes=pm, ports=ports)
    line = 5 + ceil_log2(stage.words) + ceil_log2(stage.blocks[0])  # fresh is not looked at, or long
    tally.ff += 2 + 32 + line * (4 if accumulates else 3)
    tally.gates["control"] += 32 + 2 * ceil_log2(stage.words)
    if stage.round_weights is Round.STOCHASTIC:
        _lfsr(tally)
    for prefix, count, depth, bits, drop in kinds:
        if accumulates:
            kept = max(1, bits - plan.batch_shift(drop)) + ceil_log2(plan.max_batch)
            tally.memory(f"{name}.{prefix}sums", kept, depth, lanes=count)
            tally.ff += count * 2 * kept
            tally.gates["update"] += count * kept
            bits = kept + plan.batch_shift(drop)
        rounded = max(2, bits - drop + 1)
        adders = max(rounded, stored) + 1
        if stage.round_weights is not Round.NEAREST:
            adders += bits
        tally.ff += count * (2 * stored + 1)
        tally.gates["update"] += count * (adders + stored + 3)
        if wide:
            tally.ff += count * operand if not prefix else 0
            tally.gates["update"] += count * (2 * operand + 2)


def _lfsr(tally):
    tally.ff += 32
    tally.gates["count"] += 64


def _sequencers(tally, plan, stage, x, dz, shifts, latencies):
    """What decides which operation comes next, and takes it through the array."""
    pm, _, _ = stage.folding
    m_blocks, n_blocks, tap_groups = stage.blocks
    back = stage.back
    word, block = ceil_log2(stage.words), ceil_log2(m_blocks)
    level = ceil_log2(plan.in_flight + 1)
    shift = ceil_log2(shifts + 1)
    for queue in ("wu_tokens", "bp_tokens")[: 1 + back]:
        tally.queue(f"{stage.name}.{queue}", 2 + shift, plan.in_flight)
    tally.cursor(x)  # FP's
    tally.cursor(x)  # WU's, and of the errors that go with them
    if back:
        tally.cursor(dz)
        tally.cursor(replace(dz, places=(stage.out_rows, stage.out_cols)))
    else:
        tally.cursor(dz)
    nest = ceil_log2(tap_groups) + ceil_log2(n_blocks) + block
    counters = (2 + back) * nest + 3 * word + 2 * level + 6 * (1 + back)
    counters += ceil_log2(n_blocks * tap_groups) + block
    if back:
        counters += _stepping(stage.words, n_blocks * tap_groups) + _stepping(stage.words, tap_groups)
    counters += ceil_log2(stage.multipliers + (pm if stage.bias else 0))
    forward, backward = latencies
    last = max(forward, backward) if back else forward
    line = 5 * word + block * max(5, forward + 3) + 5 + 4
    line += 2 * (5 + forward) + 5 + last + 4 + last
    line += (5 + backward) if back else 0
    reads = sum(
        ceil_log2(shape.depth)
        + ceil_log2(shape.bank_rows)
        + ceil_log2(shape.bank_cols)
        + 2 * shape.kernel * (shape.rows * shape.cols > 1)
        + ceil_log2(shape.blocks)
        + ceil_log2(shape.kernel**2 // shape.taps)
        for shape in (x, dz)
    )
    tally.ff += counters + line + reads + 5 + 2 + shift + 8 + 10
    tally.gates["count"] += counters
    tally.gates["control"] += 60 + 20 * back + 3 * word + reads
    if stage.bias:
        width = stage.errors.width + shifts
        total = width + ceil_log2(stage.pixels)
        tally.ff += pm * (2 * width + total) + 4
        tally.gates["shift"] += pm * _shifter(stage.errors.width, shifts)
        tally.gates["sum"] += pm * total


def _results(tally, name, stage, target, extra):
    """Sums, rounded to ``target``'s format, and their queue."""
    pm, pn, _ = stage.folding
    if target is stage:
        lanes, fmt, mode = pm, stage.output, stage.round_output
        drop = stage.input.frac + stage.weights.frac - fmt.frac
    else:
        lanes, fmt, mode = pn, target.errors, target.round_errors
        drop = stage.errors.frac + stage.weights.frac - fmt.frac
    width = max(stage.sum_width, drop + 1)
    rounding = width if mode in (Round.NEAREST_EVEN, Round.STOCHASTIC) and drop > 0 else 0
    saturates = fmt.width + 3 if width - drop > fmt.width else 0
    tally.queue(name, lanes * fmt.width + extra, _RESULTS)
    tally.ff += lanes * width + 32
    tally.gates["sum"] += lanes * (width + rounding + saturates + 1)
    tally.gates["control"] += 32
    if mode is Round.STOCHASTIC and drop > 0:
        _lfsr(tally)


# -- Between stages --------------------------------------------------------------------------------


def link_usage(plan, before, after):
    """What is between two neighbours: pool, rectifier, changes of lanes, and what errors need of them.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    before, after : :class:`~streamtrain.pipeline.plan.Stage`
        As :func:`stage_usage` takes them. ``after`` is None behind the last stage: the loss takes one
        score at a time.

    Returns a :class:`Usage`. It depends on no other stage's folding.
    """
    return _link(plan, before, after).usage()


def _link(plan, before, after):
    tally = _Tally()
    name, lanes, output, errors = before.name, before.folding[0], before.output, before.errors
    following = 1 if after is None else after.folding[1]
    rows, cols = before.pooled
    beats = rows * cols * before.blocks[0]
    if before.pool > 1:
        depth = before.out_cols // before.pool * before.blocks[0]
        tally.memory(f"{name}_pool.best", output.width + 2, depth, lanes=lanes, single_port=True)
        tally.queue(f"{name}_pool_record", 2 * lanes, beats * plan.in_flight)
        burst = min(cols * before.blocks[0], DISTRIBUTED_DEPTH)
        queue = "relu" if before.relu else "pool"
        tally.queue(f"{name}_{queue}_queue", lanes * output.width, burst)
        counters = ceil_log2(before.blocks[0]) + ceil_log2(before.out_cols) + 3 + ceil_log2(depth)
        tally.ff += counters + 4
        tally.gates["count"] += counters
        tally.gates["link"] += lanes * (2 * output.width + 4)
    if before.relu:
        tally.queue(f"{name}_relu_record", lanes, beats * plan.in_flight)
        tally.ff += 2
        tally.gates["link"] += lanes * (output.width + 4)
    if before.relu or before.pool > 1:
        tally.gates["link"] += lanes * errors.width
    tally.queue(f"{name}_lanes_grad_queue", lanes * errors.width, 2)
    _resize(tally, output.width, lanes, following)
    _resize(tally, errors.width, following, lanes)
    return tally


def _resize(tally, width, lanes_in, lanes_out):
    """A :class:`~streamtrain.stream.Resize`."""
    common = gcd(lanes_in, lanes_out)
    split, gather = lanes_in // common, lanes_out // common
    tally.ff += ceil_log2(split) + ceil_log2(gather) + common * width * (gather - 1)
    tally.gates["link"] += common * width * _choice(split) + 2 * (ceil_log2(split) + ceil_log2(gather))


# -- The rest --------------------------------------------------------------------------------------


def shell_usage(plan):
    """What no folding changes: the loss, and the queues of commands and tokens.

    Returns a :class:`Usage`.
    """
    return _shell(plan).usage()


def _shell(plan):
    tally = _Tally()
    stages = plan.stages
    op, classes = ceil_log2(max(Op) + 1), plan.network.classes
    label, mantissa = ceil_log2(classes), ceil_log2(RATE_UNIT + 1)
    shift = ceil_log2(plan.rate_shifts + 1)
    command = op + label + 1 + mantissa + shift + ceil_log2(len(stages))
    tally.queue("commands", command, _COMMANDS)
    for stage in stages:
        tally.queue(f"{stage.name}_tokens", 4 + shift, plan.in_flight + 1)
    tally.queue("loss_tokens", op + label + mantissa, plan.in_flight + len(stages))
    stored = max(stage.stored.width for stage in stages)
    tally.ff += 2 + ceil_log2(len(stages)) + len(stages) + 1
    tally.gates["control"] += 20 + stored * _choice(len(stages)) + 4 * len(stages)
    _loss(tally, plan)
    return tally


def _loss(tally, plan):
    scores, errors = plan.stages[-1].output, plan.stages[-1].errors
    classes = plan.network.classes
    tally.dsp += 1
    tally.memory("loss.exp_table", 16, 1024)
    tally.memory("loss.log_table", 12, 1024)
    tally.ff += classes * (scores.width + 16) + 12 * scores.width + 230
    tally.gates["loss"] += 300 + 12 * scores.width + 5 * classes
    if plan.stages[-1].round_errors is Round.STOCHASTIC:
        _lfsr(tally)
