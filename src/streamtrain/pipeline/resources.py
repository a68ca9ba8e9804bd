"""What a plan takes of an FPGA: DSP slices, block RAM, LUTs and flip-flops, layer by layer.

Multipliers and memories are known exactly: :func:`multiplier_dsp` and :func:`loss_dsp`, and for each memory
what :mod:`streamtrain.pipeline.memories` says. Flip-flops are counted from the registers that the
gateware declares. LUTs are counted by what they are for, and weighed with
:data:`~streamtrain.pipeline.tally.LUT_WEIGHTS`, which are fitted to synthesised designs.

A design is the sum of parts, so that a search can put it together from what it has already seen:
:func:`stage_usage` depends on the folding of one stage, :func:`link_usage` on those of two neighbours,
:func:`shell_usage` on none.
"""

from dataclasses import replace
from itertools import pairwise
from math import gcd

from amaranth.lib import data

from streamtrain.host.device import Op
from streamtrain.host.packing import STATE_BITS
from streamtrain.network import CrossEntropy, SquaredHinge
from streamtrain.numeric import Round
from streamtrain.pipeline.array import MultiplierArray, operand_widths, shifts_products
from streamtrain.pipeline.layouts import scan_width, stored_width, update_fields
from streamtrain.pipeline.numbers import DSP_WIDTHS, dsp_slices
from streamtrain.pipeline.optimizer import (
    CLIP_BITS,
    clip_frac,
    gradient_frac,
    held_words,
    update_terms,
)
from streamtrain.pipeline.plan import ACCUMULATOR_WIDTH, RATE_UNIT, Plan, ceil_log2
from streamtrain.pipeline.squares import square_sum_width
from streamtrain.pipeline.stage import error_windows, input_windows
from streamtrain.pipeline.tally import LUT_WEIGHTS, Tally, choice, place_bits, shifter, stepping
from streamtrain.stream import DISTRIBUTED_DEPTH
from streamtrain.usage import LayerUsage, MemoryUsage, ResourceEstimate, Usage, device_resources

__all__ = [
    "estimate_resources",
    "link_usage",
    "loss_dsp",
    "lut_counts",
    "multiplier_dsp",
    "shell_usage",
    "stage_usage",
]

_REST = "loss and control"
_LEAST_PRODUCT = 9  # bits of a product for which Yosys takes a DSP slice

# These add to the bits that they drop. The others add a carry, which takes no gates.
_ADDING = (Round.NEAREST_EVEN, Round.STOCHASTIC)

# What the gateware's components keep to themselves.
_RESULTS = 32  # that a stage's queues have room for
_COMMANDS = 2
_TABLE = 1024  # words of the loss's two tables


def estimate_resources(plan, device=None):
    """Estimate what a plan takes of an FPGA.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    device : optional
        What it is for: a mapping with what there is of ``dsp``, ``bram36``, ``lut`` and ``ff`` (or of some of
        them), or an object with such a mapping as ``resources`` and a ``name``, like
        :class:`~streamtrain.explore.devices.Fpga`.

    Returns
    -------
    :class:`ResourceEstimate`

    Raises
    ------
    TypeError
        If ``plan`` is no plan.
    ValueError
        If the device has an unknown resource, or less than 1 of one.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"Plan must be a Plan, not {plan!r}")
    available = device_resources(device)
    foldings = {stage.name: stage.folding for stage in plan.stages}
    layers, memories = [], []
    for layer, tallies in _parts(plan):
        usages = (tally.usage() for tally in tallies)
        layers.append(LayerUsage(layer, foldings.get(layer), sum(usages, Usage())))
        for tally in tallies:
            memories += [_row(layer, *memory) for memory in tally.memories]
    return ResourceEstimate(
        tuple(layers), tuple(memories), getattr(device, "name", None), available
    )


def _row(layer, name, width, lanes, depth, copies, mapping):
    return MemoryUsage(
        layer,
        name,
        width * lanes,
        depth,
        copies,
        mapping.primitive,
        copies * mapping.count,
        copies * mapping.bram18,
        copies * mapping.lut,
    )


def stage_usage(plan, stage):
    """What one stage takes: windows, weights, multiplier array and sequencers.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stage : :class:`~streamtrain.pipeline.plan.Stage`
        One of the plan's, or one that differs from it in its folding.

    Returns a :class:`Usage`. It depends on no other stage's folding.

    Raises :exc:`ValueError` for a stage of another plan.
    """
    return _stage(plan, stage).usage()


def link_usage(plan, before, after):
    """What is between two stages: pool, rectifier, changes of lanes, and what errors need of them.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    before, after : :class:`~streamtrain.pipeline.plan.Stage`
        As :func:`stage_usage` takes them. ``after`` is None behind the last stage: the loss takes
        one score at a time.

    Returns a :class:`Usage`. It depends on no other stage's folding.
    """
    return _link(plan, before, after).usage()


def shell_usage(plan):
    """What no folding changes: the loss, and the queues of commands and tokens.

    Returns a :class:`Usage`.
    """
    return _shell(plan).usage()


def lut_counts(plan):
    """LUTs of a plan before they are weighed: a dict by the keys of :data:`LUT_WEIGHTS`.

    LUTs used as memory are under ``"memory"``.
    """
    parts = [part for _, own in _parts(plan) for part in own]
    counts = {kind: sum(part.luts[kind] for part in parts) for kind in LUT_WEIGHTS}
    return {"memory": sum(part.lutram for part in parts), **counts}


def _parts(plan):
    """Name and tallies of each layer, and of the rest."""
    following = [*plan.stages[1:], None]
    layers = [
        (stage.name, (_stage(plan, stage), _link(plan, stage, after)))
        for stage, after in zip(plan.stages, following, strict=True)
    ]
    return [*layers, (_REST, (_shell(plan),))]


# -- A stage ---------------------------------------------------------------------------------------


def _stage(plan, stage):
    tally = Tally()
    shifts = plan.rate_shifts
    x, dz = input_windows(plan, stage), error_windows(plan, stage)
    tally.windows(f"{stage.name}.inputs", stage.input.width, x)
    if stage.takes_errors:
        tally.windows(f"{stage.name}.errors", stage.errors.width, dz)
    if stage.trainable:
        _weights(tally, plan, stage, shifts)
    else:
        _frozen_weights(tally, plan, stage)
    latencies = _array(tally, plan, stage, shifts, update_terms(plan, stage))
    _sequencers(tally, plan, stage, x, dz, shifts, latencies)
    pm, pn, _ = stage.folding
    # Goes with outputs if there is someone to ask.
    train = 1 if stage.takes_errors and (stage.relu or stage.pool > 1) else 0
    shift = stage.input.frac + stage.weights.frac - stage.output.frac
    _results(tally, stage, "outputs", pm, shift, stage.output, stage.round_output, train)
    if stage.back:
        before = _before(plan, stage)
        shift = stage.errors.frac + stage.weights.frac - before.errors.frac
        _results(tally, stage, "input_errors", pn, shift, before.errors, before.round_errors, 0)
    return tally


def _before(plan, stage):
    """The stage before: one computes the other's errors, in the other's format."""
    for before, after in pairwise(plan.stages):
        if after.name == stage.name:
            return before
    names = ", ".join(own.name for own in plan.stages)
    raise ValueError(f"{stage.name} is no stage of the plan, whose stages are {names}")


def multiplier_dsp(plan, stage):
    """DSP slices of one of a stage's multipliers, unless it is tiny: a wide one takes several."""
    wide, _ = operand_widths(stage, plan.rate_shifts, update_terms(plan, stage), plan.operand_bits)
    return dsp_slices(wide, plan.operand_bits)


def loss_dsp(plan):
    """DSP slices of the loss, which multiplies errors by the learning rate."""
    return dsp_slices(DSP_WIDTHS[0], plan.operand_bits)


def _array(tally, plan, stage, shifts, terms):
    """The multiplier array. Returns the latencies of forward and backward sums."""
    pm, pn, pk = stage.folding
    lanes = stage.multipliers
    options = shifts, terms, plan.operand_bits
    wide, narrow = operand_widths(stage, *options)
    late = shifts_products(stage, *options)
    if terms.count:
        tally.luts["operand"] += pn * pk * wide / 2
    if wide + narrow >= _LEAST_PRODUCT:
        tally.dsp += lanes * dsp_slices(wide, plan.operand_bits)
    else:  # its three registers, and its partial products
        tally.ff += lanes * 3 * (wide + narrow)
        tally.luts["operand"] += lanes * wide * narrow
    if late:  # between product and accumulator, which a slice then cannot have
        product = wide + narrow
        total = max(product, stage.input.width + shifts + stage.errors.width + ceil_log2(stage.pixels))
        tally.ff += 2 * ceil_log2(shifts + 1) + lanes * total
        tally.luts["shift"] += lanes * shifter(product, shifts)
        tally.luts["sum"] += lanes * total
    elif stage.trainable:
        tally.luts["shift"] += pn * pk * shifter(stage.input.width, shifts)
    tally.luts["operand"] += lanes * (narrow * stage.trainable + wide * stage.back)
    operand = max(stage.input.width, stage.errors.width) if stage.back else stage.input.width
    width, taps = tally.tree(pm * pn, pk, stage.weights.width + operand)
    _, forward = tally.tree(pm, pn, width)
    _, backward = tally.tree(pn, pm, width) if stage.back else (width, 0)
    latency = MultiplierArray.PRODUCT_LATENCY + taps
    tally.ff += 3 + 2 * stage.trainable + latency + max(forward, backward)
    return latency + forward, latency + backward


def _weights(tally, plan, stage, shifts):
    """Weights, biases, and their update."""
    stored, operand = stage.stored.width, stage.weights.width
    wide = stage.stored != stage.weights
    width = stored + operand if wide else stored
    name, blocks, pm = f"{stage.name}.weights", stage.blocks[0], stage.folding[0]
    kind = {"lutram_depth": plan.lutram_depth}
    terms, clips = update_terms(plan, stage), plan.network.optimizer.clip is not None
    tally.memory(f"{name}.words", width, stage.words, lanes=stage.multipliers, **kind)
    spatial = ceil_log2(stage.pixels)
    gradient = stage.input.width + stage.errors.width + shifts + spatial
    bias_drop = plan.bias_shift(stage)
    drop = stage.input.frac + bias_drop
    updated = [("sums", stage.multipliers, stage.words, min(ACCUMULATOR_WIDTH, gradient), drop)]
    if stage.bias:
        # For the array, for the update, and for weight decay.
        ports = ((width - operand, width), (0, stored), (width - operand, width))[: 2 + terms.decay]
        tally.memory(f"{name}.biases", width, blocks, lanes=pm, ports=ports, **kind)
        bits = stage.errors.width + shifts + spatial
        if terms.count and not clips:
            bits, bias_drop = bits + stage.input.frac, drop
        updated.append(("bias_sums", pm, blocks, bits, bias_drop))
    tally.ff += stage.multipliers * stored * held_words(plan, stage)
    if wide:
        tally.ff += stage.multipliers * operand
    accumulates = plan.max_batch > 1
    line = 5 + ceil_log2(stage.words) + ceil_log2(blocks)
    tally.ff += 34 + line * (4 if plan.late else 3)
    tally.luts["control"] += 32 + 2 * ceil_log2(stage.words)
    adding = stage.round_weights in _ADDING
    if stage.round_weights is Round.STOCHASTIC:
        tally.random()
    for sums, lanes, depth, bits, drop in updated:
        of_biases = sums != "sums"
        if accumulates:
            below = plan.batch_shift(drop)
            kept = max(1, bits - below) + ceil_log2(plan.max_batch)
            tally.memory(f"{name}.{sums}", kept, depth, lanes=lanes, **kind)
            tally.ff += lanes * (2 * kept + (below if adding else 0))
            tally.luts["update"] += lanes * kept
            bits = kept + below
        if clips:
            bits = _clip(tally, plan, stage, terms, lanes, bits, of_biases=of_biases)
            drop = gradient_frac(plan, stage) - stage.stored.frac if terms.count else drop
        elif terms.count:
            bits = terms.sum_bits(bits)
        if terms.velocity is not None:
            _velocities(tally, plan, stage, terms, lanes, depth, of_biases=of_biases)
        adders = max(bits - drop + 1, stored) + 1 + (drop if adding else 0)
        saturates = stored + 3 + (operand + 3 if wide else 0)
        tally.ff += lanes * (2 * stored + 1)
        tally.luts["update"] += lanes * (adders + saturates)


def _frozen_weights(tally, plan, stage):
    """Weights and biases that no gradient changes."""
    width, blocks, pm = stage.stored.width, stage.blocks[0], stage.folding[0]
    kind = {"lutram_depth": plan.lutram_depth}
    lanes = stage.multipliers
    tally.memory(f"{stage.name}.weights.words", width, stage.words, lanes=lanes, **kind)
    if stage.bias:
        tally.memory(f"{stage.name}.weights.biases", width, blocks, lanes=pm, **kind)
        lanes += pm
    tally.ff += 1 + stage.bias + lanes * width
    tally.luts["update"] += lanes * width
    tally.luts["control"] += ceil_log2(stage.words) + ceil_log2(blocks)


def _clip(tally, plan, stage, terms, lanes, bits, *, of_biases):
    """Gradients are compared with a limit, and what the optimiser has is added. Returns their bits."""
    frac = gradient_frac(plan, stage) - (stage.input.frac if of_biases else 0)
    if plan.max_batch == 1:
        rounded = terms.count == 0 and stage.round_weights not in _ADDING
        tally.ff += lanes * (bits - (frac - stage.stored.frac - 1 if rounded else 0))
    tally.luts["update"] += lanes * (8 + max(CLIP_BITS, bits - frac + clip_frac(plan)))
    if terms.count:
        bits = max(bits + (stage.input.frac if of_biases else 0), terms.sum_bits(0)) + 1
        tally.ff += lanes * (bits + (terms.sum_bits(0) if of_biases else 0))
        tally.luts["update"] += lanes * bits
    return bits


def _velocities(tally, plan, stage, terms, lanes, depth, *, of_biases):
    """Velocities, and how they are rounded from gradients."""
    width = terms.velocity.width
    name = "bias_velocities" if of_biases else "velocities"
    tally.memory(
        f"{stage.name}.weights.{name}", width, depth, lanes=lanes, lutram_depth=plan.lutram_depth
    )
    adding = stage.round_weights in _ADDING
    tally.ff += lanes * (width + 1 + (0 if of_biases else width))
    adders = width + (terms.velocity_shift if adding else 0)
    tally.luts["update"] += lanes * (adders + width + 3)


def _sequencers(tally, plan, stage, x, dz, shifts, latencies):
    """What decides which operation comes next, and goes with it through the array."""
    back, learns, pm = stage.back, stage.trainable, stage.folding[0]
    m_blocks, n_blocks, groups = stage.blocks
    word, block = ceil_log2(stage.words), ceil_log2(m_blocks)
    terms, values = update_terms(plan, stage), _values(plan)
    token = 3 + ceil_log2(shifts + 1) + values if learns else 1
    phases = 1 + learns + back
    tally.cursor(x)
    if learns:
        tally.queue(f"{stage.name}.wu_tokens", token, plan.in_flight, head=True)
        tally.cursor(x)
        tally.cursor(replace(dz, places=(stage.out_rows, stage.out_cols)))
    if back:
        tally.queue(f"{stage.name}.bp_tokens", token, plan.in_flight, head=True)
        tally.cursor(dz)
        rows = stepping(stage.words, n_blocks * groups) + stepping(stage.words, groups)
        tally.counters(rows)
    bits = phases * (ceil_log2(groups) + ceil_log2(n_blocks) + block)
    bits += (2 + learns) * word + ceil_log2(n_blocks * groups) + block  # words; those that the host scans
    bits += ceil_log2(stage.multipliers + (pm if stage.bias else 0))
    bits += (1 + stage.takes_errors) * ceil_log2(plan.in_flight + 1)
    bits += ceil_log2(_RESULTS + 1) * (1 + back)
    tally.counters(bits)
    # Flags ahead of time: a loop's last pass, those of all loops inside, the sample's last operation.
    loops = sum(size > 1 for size in (groups, n_blocks, m_blocks))
    tally.ff += phases * 2 * loops + (1 + back) * (loops > 0)
    tally.ff += 2 * ((n_blocks * groups > 1) + (m_blocks > 1)) + 1 + back
    for shape in [x, dz] if back else [x]:
        tally.ff += sum(ceil_log2(size) for size in shape.squares)
    # What goes along: word, block and bias to the update, the others to where the sums are.
    forward, backward = latencies
    last = max(forward, backward)
    line = (5 if learns else 2) * word + max(5, forward + 3) * block + 9 * learns
    line += 2 * (5 + forward) + 2 * last + 9 + (5 + backward if back else 0)
    windows = [x, dz] if stage.takes_errors else [x]
    reads = sum(
        ceil_log2(shape.depth)
        + place_bits(shape)
        + ceil_log2(shape.blocks)
        + ceil_log2(shape.kernel**2 // shape.taps)
        for shape in windows
    )
    # And the number that the host writes, and tokens that go on a cycle later.
    tally.ff += line + reads + token + 23 + scan_width(plan, stage) + 1 + back + learns
    tally.luts["control"] += 40 + 20 * learns + 20 * back + (2 + learns) * word + reads
    if stage.bias and learns:
        width = stage.errors.width + shifts
        total = width + ceil_log2(stage.pixels)
        if terms.count and plan.network.optimizer.clip is None:
            total = terms.sum_bits(total + stage.input.frac)
        tally.ff += 4 + pm * (2 * width + total)
        tally.luts["shift"] += pm * shifter(stage.errors.width, shifts)
        tally.luts["sum"] += pm * total
    if terms.count:
        tally.ff += 30
        tally.luts["control"] += 20 + (terms.coefficient if terms.count == 2 else 0)
    if terms.count and stage.bias:
        tally.luts["operand"] += pm * stage.weights.width * terms.decay
    if terms.velocity is not None:
        tally.ff += 33  # saturated ones
        tally.luts["control"] += 32 + (stage.bias and pm * terms.velocity.width)


def _values(plan):
    """Bits of what samples tell the optimiser besides the learning rate."""
    fields = data.StructLayout(update_fields(plan))
    return sum(field.width for name, field in fields if name != "velocity")


def _results(tally, stage, name, lanes, shift, fmt, mode, extra):
    """Sums over time, rounded, and the queue behind them; ``extra`` bits go with each result."""
    width = max(stage.sum_width, shift + 1)
    saturates = fmt.width + 3 if width - shift > fmt.width else 0
    adding = shift if shift > 0 and mode in _ADDING else 0
    head = name == "outputs" and stage.pool > 1
    tally.queue(f"{stage.name}.{name}", lanes * fmt.width + extra, _RESULTS, head=head)
    tally.ff += 32 + lanes * width + ceil_log2(lanes + 1)
    tally.luts["sum"] += lanes * (width + 1 + saturates + adding)
    tally.luts["control"] += 32
    if adding and mode is Round.STOCHASTIC:
        tally.random()


# -- Between stages --------------------------------------------------------------------------------


def _link(plan, before, after):
    tally = Tally()
    name, lanes, output, errors = before.name, before.folding[0], before.output, before.errors
    rows, cols = before.pooled
    blocks = before.blocks[0]
    recorded = rows * cols * blocks * plan.in_flight
    kind = {"lutram_depth": plan.lutram_depth, "head": recorded > plan.lutram_depth}
    if before.pool > 1:
        row = cols * blocks
        place = 2 if before.takes_errors else 0
        tally.memory(f"{name}_pool.best", output.width + place, row, lanes=lanes, held=False)
        tally.ff += lanes * (output.width + place)  # what comes next
        if place:
            tally.queue(f"{name}_pool_record", 2 * lanes, recorded, **kind)
        tally.queue(f"{name}_pool_queue", lanes * output.width, min(row, DISTRIBUTED_DEPTH), head=True)
        tally.counters(ceil_log2(blocks) + ceil_log2(before.out_cols) + 2 * ceil_log2(row) + 3)
        tally.ff += 4
        tally.luts["link"] += lanes * (2 * output.width + 2 + place)
    if before.relu:
        tally.ff += 2
        tally.luts["link"] += lanes * (output.width + 4)
    following = 1 if after is None else after.folding[1]
    _resize(tally, output.width, lanes, following)
    if before.takes_errors:
        if before.relu:
            tally.queue(f"{name}_relu_record", lanes, recorded, **kind)
        if before.relu or before.pool > 1:
            tally.luts["link"] += lanes * errors.width
        tally.queue(f"{name}_lanes_grad_queue", lanes * errors.width, 2)
        _resize(tally, errors.width, following, lanes)
    return tally


def _resize(tally, width, lanes_in, lanes_out):
    """A :class:`~streamtrain.stream.Resize`."""
    common = gcd(lanes_in, lanes_out)
    split, gather = lanes_in // common, lanes_out // common
    tally.counters(ceil_log2(split) + ceil_log2(gather))
    tally.ff += common * width * (gather - 1)
    tally.luts["link"] += common * width * choice(split)


# -- The rest --------------------------------------------------------------------------------------


def _shell(plan):
    tally = Tally()
    stages, classes = plan.stages, plan.network.classes
    op, label, mantissa = ceil_log2(max(Op) + 1), ceil_log2(classes), ceil_log2(RATE_UNIT + 1)
    sites = len(plan.random_sites)
    shift, chosen = ceil_log2(plan.rate_shifts + 1), ceil_log2(len(stages) + bool(sites))
    shift += _values(plan) + bool(plan.network.optimizer.momentum)
    tally.queue("commands", op + label + 1 + mantissa + shift + chosen + len(stages), _COMMANDS, head=True)
    for stage in stages:
        tally.queue(
            f"{stage.name}_tokens", 5 + shift if stage.trainable else 3, plan.in_flight + 2
        )
    tally.queue("loss_tokens", op + label + mantissa, plan.in_flight + len(stages) + 1, head=True)
    stored = stored_width(plan)
    tally.ff += 3 + chosen + len(stages)
    tally.luts["control"] += 20 + stored * choice(len(stages)) + 4 * len(stages)
    if sites:  # a RandomScan
        tally.counters(ceil_log2(STATE_BITS * sites + 1))
        tally.ff += 1
        tally.luts["control"] += 8
    tally.dsp += loss_dsp(plan)
    (_softmax if isinstance(plan.network.loss, CrossEntropy) else _squares)(tally, plan)
    if plan.stages[-1].round_errors is Round.STOCHASTIC:
        tally.random()
    return tally


def _softmax(tally, plan):
    """A :class:`~streamtrain.pipeline.softmax.SoftmaxCrossEntropy` in its loss."""
    last, classes = plan.stages[-1], plan.network.classes
    scores = last.output.width
    tally.memory("loss.rule.exp_table", 16, _TABLE)
    tally.memory("loss.rule.log_table", 12, _TABLE)
    tally.ff += classes * (scores + 16) + 5 * scores + last.errors.width + 217
    tally.luts["loss"] += 345 + 12 * scores + 5 * classes


def _squares(tally, plan):
    """A :class:`~streamtrain.pipeline.squares.MeanOfSquares` in its loss."""
    last, classes = plan.stages[-1], plan.network.classes
    scores, errors = last.output.width, last.errors.width
    total = square_sum_width(last.output, classes)
    tally.ff += (classes + 1) * scores + 2 * ceil_log2(classes) + errors + 2 * total + 105
    tally.luts["loss"] += 155 + 2 * total + 4 * scores + errors
    if isinstance(plan.network.loss, SquaredHinge):
        tally.luts["loss"] += scores + 35
    if last.round_errors in _ADDING:
        tally.luts["loss"] += 7 + plan.mean_factor[1] + last.output.frac - last.errors.frac
