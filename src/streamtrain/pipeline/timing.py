"""When things happen in a pipeline, in cycles: the rules of the gateware, compiled.

The unit of time is a *unit* of work that a stage's array does without looking up: in FP and BP the
operations of one pixel, in WU those of one word. From the geometry of the maps and the durations of
the units follows everything.

:func:`step` is a training step at batch 1. Nothing competes for an array there: each unit starts when
its operands are there and the one before it is done. So the step is the longest path in a graph whose
arcs are durations. It is therefore convex and rises with each duration, which the search for foldings
relies on.

:func:`flow` is any number of samples in mini-batches. Samples compete for the arrays there, so it is
worked through in order of time, with the arbiter of the gateware. Without competition it finds what
:func:`step` finds.

Times are float64 (whole cycles, but where durations are not). All compiled code is in this file.
"""

from functools import lru_cache
from math import ceil, gcd, prod
from typing import NamedTuple

import numpy as np

from streamtrain.jit import njit
from streamtrain.network import CrossEntropy
from streamtrain.pipeline.array import MultiplierArray, tree_latency
from streamtrain.stream import DISTRIBUTED_DEPTH, WindowStore

__all__ = [
    "DURATIONS",
    "Geometry",
    "durations",
    "flow",
    "geometry",
    "latency",
    "link_durations",
    "relaxed",
    "stage_durations",
    "step",
]

DURATIONS = (
    "fp",  # operations of a pixel in FP
    "bp",  # operations of a pixel in BP
    "wu",  # words of WU
    "word",  # operations of a word that is updated: one for every pixel, and the optimiser's
    "terms",  # the optimiser's for each word
    "bias_terms",  # and for each group of biases
    "biases",  # of all groups; but the first of the first trained stage, which waits for no error
    "fp_group",  # operations until the first channels of a pixel are ready
    "bp_group",
    "fp_latency",  # from the last operation of a pixel until the neighbour can read it
    "bp_latency",
    "bp_share",  # operations of a pixel's errors that leave a vector; 0: in whole groups
    "reads",  # cycles in which a pixel from outside is written into the first stage's memory
    "errors",  # cycles in which errors from the loss are written, if this is the last stage
    "fp_ahead",  # pixels that FP may be ahead of the neighbour's memory; 0: any number
    "bp_ahead",
    "fp_writes",  # cycles in which a pixel is written into the neighbour's memory
    "fp_last",  # of these, for its last channels
    "bp_writes",
    "bp_last",
)
"""What one row of the durations of a plan holds, by column."""

(
    _FP, _BP, _WU, _WORD, _TERMS, _BIAS_TERMS, _BIASES, _FP_GROUP, _BP_GROUP, _FP_LATENCY,
    _BP_LATENCY, _BP_SHARE, _READS,
    _ERRORS, _FP_AHEAD, _BP_AHEAD, _FP_WRITES, _FP_LAST, _BP_WRITES, _BP_LAST,
) = range(len(DURATIONS))  # fmt: skip
_LINK = _FP_WRITES  # from here on, durations depend on the neighbour's folding, too

RESULTS = 32
"""Results of an array that are on their way or wait for the neighbour."""

_MOST_BATCHES = 64  # that a schedule may take until it repeats

# Registers between an operation and what follows it, counted from the cycle after it.
_TO_QUEUE = WindowStore.LATENCY + 1  # operands, sum
_QUEUE = 1
_UPDATE = WindowStore.LATENCY + MultiplierArray.PRODUCT_LATENCY + 2  # until weights can be read
_READ = 2  # until the word that is updated is read, and nobody else can
_TOKEN = 1  # from the end of BP to the first operation of WU
_PASSED = 2  # from the end of FP to the first operation of BP, or of WU
_FREE = 1  # from FP's last operation in a frozen stage until its memory is free, and FP goes on
_OPEN = 1  # from the cycle in which a sample's memory is free to the next operation of FP or WU
_COMMAND = 4  # from a command at the edge to the first operation of FP
_SOFTMAX = 16  # from the last score to the first error, besides one cycle for each class
_SQUARES = 6  # likewise, with nothing besides
_SQUARES_DONE = 21  # from the last score until it takes scores again, or later if errors still leave


class Geometry(NamedTuple):
    """Which pixels wait for which: what does not depend on foldings.

    Arrays have a row for each stage, padded to the largest map.

    Parameters
    ----------
    outputs, inputs, sent : integer arrays (stages,)
        Pixels that FP computes, that BP computes, and whose errors BP sends to the stage before
        (more than it computes if a vector was a map).
    vectors : integer array (stages,)
        For a vector that was a map, the part of it that was one pixel; 0 otherwise.
    pooled : integer array (stages,)
        Pixels that leave the stage.
    fp_needs, bp_needs, wu_needs : integer arrays (stages, pixels)
        The last input of an output, the last error of an input error, and the error of an output.
    corner : integer array (stages, pixels)
        The pooled pixel that an output completes, or -1.
    channels : integer array (stages, 2)
        Of the inputs, and of the outputs.
    loss : integer array (2,)
        Cycles from the last score to the first error, and from this to the next sample's scores.
    trained : integer array (stages,)
        Which stages update their weights, as 0 or 1.
    first : :class:`int`
        The first of these. Stages before it only compute FP.
    """

    outputs: np.ndarray
    inputs: np.ndarray
    sent: np.ndarray
    vectors: np.ndarray
    pooled: np.ndarray
    fp_needs: np.ndarray
    bp_needs: np.ndarray
    wu_needs: np.ndarray
    corner: np.ndarray
    channels: np.ndarray
    loss: np.ndarray
    trained: np.ndarray
    first: int


def geometry(stages, loss):
    """The :class:`Geometry` of a sequence of :class:`~streamtrain.pipeline.plan.Stage`, and a loss."""
    return _geometry(
        isinstance(loss, CrossEntropy),
        tuple(
            (
                stage.rows, stage.cols, stage.out_rows, stage.out_cols,
                stage.kernel, stage.pad, stage.pool, stage.channels, stage.trainable,
            )
            for stage in stages
        ),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _geometry(softmax, maps):
    size = max(max(rows * cols, out_rows * out_cols) for rows, cols, out_rows, out_cols, *_ in maps)
    fp_needs, bp_needs, wu_needs, corner = np.zeros((4, len(maps), size), np.int64)
    corner[:] = -1
    outputs, inputs, sent, vectors, given = np.zeros((5, len(maps)), np.int64)
    channels = np.array([entry[-2] for entry in maps], np.int64)
    trained = np.array([entry[-1] for entry in maps], np.int64)
    for at, (rows, cols, out_rows, out_cols, kernel, pad, pool, _, _) in enumerate(maps):
        pooled = (out_rows // pool, out_cols // pool)
        outputs[at], inputs[at] = out_rows * out_cols, rows * cols
        given[at] = prod(pooled)
        sent[at] = given[at - 1] if at else 0
        fp_needs[at, : outputs[at]] = _needs((out_rows, out_cols), kernel - 1 - pad, (rows, cols))
        bp_needs[at, : inputs[at]] = _needs((rows, cols), pad, pooled, pool)
        wu_needs[at, : outputs[at]] = _needs((out_rows, out_cols), 0, pooled, pool)
        if sent[at] > inputs[at]:  # complete with the last pixel of the map; errors are of one
            vectors[at] = channels[at - 1, 1]
            fp_needs[at, 0] = sent[at] - 1
        row = (np.arange(pooled[0]) + 1) * pool - 1
        col = (np.arange(pooled[1]) + 1) * pool - 1
        corner[at, (row[:, None] * out_cols + col).ravel()] = np.arange(prod(pooled))
    classes = channels[-1, 1]
    first = classes + _SOFTMAX if softmax else _SQUARES
    again = classes + 1 if softmax else max(classes + 1, _SQUARES_DONE - first)
    loss = np.array([first, again])
    return Geometry(
        outputs, inputs, sent, vectors, given, fp_needs, bp_needs, wu_needs, corner, channels, loss,
        trained, int(trained.argmax()),
    )  # fmt: skip


def _needs(places, reach, given, square=1):
    """For each place of a map, the last pixel of the ``given`` map that it waits for.

    The window reaches ``reach`` rows and columns ahead, in a map of which each given pixel covers a
    ``square``.
    """
    row = np.minimum((np.arange(places[0]) + reach) // square, given[0] - 1)
    col = np.minimum((np.arange(places[1]) + reach) // square, given[1] - 1)
    return (row[:, None] * given[1] + col).ravel()


def durations(stages):
    """Durations of a plan's units, a float array (stages, :data:`DURATIONS`)."""
    table = np.empty((len(stages), len(DURATIONS)))
    for row, stage, before, after in zip(
        table, stages, [None, *stages[:-1]], [*stages[1:], None], strict=True
    ):
        row[:_LINK] = stage_durations(stage, before)
        row[_FP_WRITES:_BP_WRITES] = link_durations(stage, after)[0]
        row[_BP_WRITES:] = link_durations(before, stage)[1] if before else (0, 0)
    return table


def stage_durations(stage, before):
    """The durations that depend on this stage's folding alone."""
    pm, pn, pk = stage.folding
    m_blocks, n_blocks, _ = stage.blocks
    taps = _TO_QUEUE + MultiplierArray.PRODUCT_LATENCY + tree_latency(pk)
    pooled, copies = stage.pool > 1, stage.pool**2
    # Behind a pool there is a queue for a row of squares.
    square = min(stage.pooled[1] * m_blocks, DISTRIBUTED_DEPTH) // m_blocks if pooled else 0
    size = before.channels[1] if before and stage.linear else stage.channels[0]
    return (
        stage.words,
        stage.words,
        stage.words,
        stage.pixels + stage.terms,
        stage.terms,
        stage.terms * stage.bias,
        stage.terms * stage.bias * (m_blocks - (not stage.back)),
        stage.words / m_blocks,
        stage.words / n_blocks,
        taps + tree_latency(pn) + _QUEUE * (1 + pooled),
        taps + tree_latency(pm) + _QUEUE * 2,
        0,
        n_blocks,
        max(stage.channels[1], pm + copies * (m_blocks - 1)) + copies - 1,
        square + RESULTS // m_blocks // stage.pool**2,
        RESULTS * pn // size,
    )


def link_durations(stage, after):
    """Cycles in which a pixel is written into the next stage's memory, and its errors into this one's.

    Returns two pairs, of all channels of a pixel and of the last group. ``after`` is None for the
    loss, which takes one class at a time.
    """
    (_, channels), (given, _, _) = stage.channels, stage.folding
    forward, last = _writes(channels, given, after.folding[1] if after else 1)
    # What waits in a queue leaves it group by group.
    forward = max(forward, channels // given), last
    if after is None:
        return forward, (0, 0)
    taken, copies = after.folding[1], stage.pool**2
    writes, last = _writes(channels, taken, given)
    # Lanes change in front of the pool, which sends each group to all places of its squares.
    writes = max(writes, copies * channels // given)
    return forward, (
        writes,
        max(last + copies - 1, copies * ceil(taken / given)),
    )


def _writes(channels, given, taken):
    """Cycles of a pixel's channels and of one group: ``given`` at once, ``taken`` at once."""
    if taken % given == 0:
        return ceil(channels / taken), 1
    common = gcd(given, taken)  # all that moves in a cycle if neither divides the other
    return channels // common, given // common


def relaxed(geo, table):
    """Durations that are no longer than those of a table, and with which steps are convex in them.

    Nobody waits for a full queue, and a vector's errors leave evenly.
    """
    table = table.copy()
    table[..., [_FP_AHEAD, _BP_AHEAD]] = 0
    share = table[..., _BP] * geo.vectors / geo.channels[:, 0]
    table[..., _BP_SHARE] = share
    vector = share > 0
    group, last = table[..., _BP_GROUP], table[..., _BP_LAST]
    table[..., _BP_GROUP] = np.where(vector, np.minimum(group, share), group)
    table[..., _BP_LAST] = np.where(vector, 1, last)
    return table


@njit(cache=True)
def _bp_pixel(row, size, channels, pixel):
    """What BP takes for the errors of a pixel: a pixel that it sends to the stage before.

    ``size`` of the vector's ``channels`` are this pixel's; 0 if it computes a map.

    Returns operations after those of the pixel before it, those until its first group can leave,
    and cycles in which its last group is written.
    """
    if size == 0:
        return row[_BP], row[_BP_GROUP], row[_BP_LAST]
    # A group's errors may be several pixels', or a part of one's.
    first = row[_BP_GROUP] if pixel == 0 else 0.0
    if row[_BP_SHARE] > 0:
        return row[_BP_SHARE], first, row[_BP_LAST]
    lanes = round(channels * row[_BP_GROUP] / row[_BP])
    before, groups = ceil(pixel * size / lanes), ceil((pixel + 1) * size / lanes)
    rest = (pixel + 1) * size - (groups - 1) * lanes  # of the last group's channels
    return (groups - before) * row[_BP_GROUP], first, ceil(row[_BP_LAST] * rest / lanes)


# -- A step ----------------------------------------------------------------------------------------


@njit(cache=True)
def _backward(geo, table, dz, updated):
    """BP and WU of a sample.

    ``dz`` (stages, pixels) takes the times at which errors can be read; that of the last stage is
    given. ``updated`` (stages,) takes those at which WU lets FP go on, ``-inf`` where there is none.
    """
    sent, vectors, channels, needs = geo.sent, geo.vectors, geo.channels, geo.bp_needs
    first = geo.first
    updated[:] = -np.inf
    for s in range(len(sent) - 1, first, -1):
        latency, writes = table[s, _BP_LATENCY], table[s, _BP_WRITES]
        ahead = int(table[s, _BP_AHEAD])
        time, written = -np.inf, -np.inf
        for p in range(sent[s]):
            operations, group, last = _bp_pixel(table[s], vectors[s], channels[s, 0], p)
            begin = max(dz[s, needs[s, p]], time)
            if 0 < ahead <= p:
                begin = max(begin, dz[s - 1, p - ahead] - operations)
            time = begin + operations
            written = max(
                written + writes,
                time + latency + last,
                begin + group + latency + writes,
            )
            dz[s - 1, p] = written
        if geo.trained[s]:
            words = table[s, _WU] * table[s, _WORD] + table[s, _BIASES]
            updated[s] = time + _TOKEN + words + _UPDATE
    # The first word of the first stage that is trained follows the errors.
    time = -np.inf
    pixels, needs = geo.outputs[first], geo.wu_needs
    operation = table[first, _WORD] / (pixels + table[first, _TERMS])
    for p in range(pixels):
        time = max(time, dz[first, needs[first, p]]) + operation
    time += table[first, _TERMS] * operation
    words = (table[first, _WU] - 1) * table[first, _WORD] + table[first, _BIASES]
    updated[first] = time + words + _UPDATE


@njit(cache=True)
def _forward_stage(geo, table, s, start, room, x):
    """FP of a sample in one stage, from ``x[s]`` to ``x[s + 1]``. Returns when it is done."""
    needs, corner = geo.fp_needs, geo.corner
    fp, group, latency = table[s, _FP], table[s, _FP_GROUP], table[s, _FP_LATENCY]
    writes, last = table[s, _FP_WRITES], table[s, _FP_LAST]
    ahead = int(table[s, _FP_AHEAD])
    time, written = start, room
    for p in range(geo.outputs[s]):
        begin = max(time, x[s, needs[s, p]])
        q = corner[s, p]
        if 0 < ahead <= q:
            begin = max(begin, x[s + 1, q - ahead] - fp)
        time = begin + fp
        if q >= 0:
            written = max(
                written + writes,
                time + latency + last,
                begin + group + latency + writes,
            )
            x[s + 1, q] = written
    return time


@njit(cache=True)
def _forward(geo, table, start, room, x):
    """FP of a sample. Returns when the loss has its last score.

    ``start`` (stages,) is when FP may begin, ``room`` (stages + 1,) when there is memory for the
    sample, in front of the loss always. ``x`` (stages + 1, pixels) takes the times at which inputs
    can be read; those of the first stage are given.
    """
    stages = len(geo.outputs)
    for s in range(stages):
        _forward_stage(geo, table, s, start[s], room[s + 1], x)
    return x[stages, geo.pooled[stages - 1] - 1]


@njit(cache=True)
def _pace(geo, table, s, in_flight, x):
    """Cycles from one sample to the next in a stage that computes nothing but FP.

    With memory for one sample, its inputs come when FP of the sample before is done; otherwise they
    are there. ``x`` (stages + 1, pixels) is overwritten.
    """
    busy = max(geo.outputs[s] * table[s, _FP] + _FREE, geo.pooled[s] * table[s, _FP_WRITES])
    if s == 0:
        busy = max(busy, geo.inputs[0] * table[0, _READS])
    if in_flight > 1:
        return busy
    if s == 0:
        for p in range(geo.inputs[0]):
            x[0, p] = (p + 1) * table[0, _READS]
    else:
        x[s - 1] = -np.inf
        _forward_stage(geo, table, s - 1, -np.inf, 0.0, x)
    time = -np.inf
    for p in range(geo.outputs[s]):
        time = max(time, x[s, geo.fp_needs[s, p]]) + table[s, _FP]
    return max(busy, time + _FREE)


@njit(cache=True)
def _step(geo, tables, in_flight, extra, updates):
    stages, size = geo.fp_needs.shape
    dz = np.empty((stages, size))
    x = np.empty((stages + 1, size))
    room = np.full(stages + 1, -np.inf)
    cycles = np.empty(len(tables))
    for row in range(len(tables)):
        table, updated = tables[row], updates[row]
        dz[stages - 1, 0] = table[stages - 1, _ERRORS] + _QUEUE
        _backward(geo, table, dz, updated)
        updated += extra
        x[0] = -np.inf
        if in_flight == 1:  # the next sample comes when there is memory for it
            room[:stages] = updated - _OPEN
            for p in range(geo.inputs[0]):
                x[0, p] = room[0] + (p + 1) * table[0, _READS]
        cycles[row] = _forward(geo, table, updated, room, x) + geo.loss[0]
        for s in range(geo.first):  # what only computes FP does so for samples to come
            cycles[row] = max(cycles[row], _pace(geo, table, s, in_flight, x))
    return cycles


def step(geo, tables, *, in_flight=2, accumulates=False):
    """Cycles of a training step at batch 1.

    Parameters
    ----------
    geo : :class:`Geometry`
    tables : array (designs, stages, :data:`DURATIONS`)
    in_flight : :class:`int`
    accumulates : :class:`bool`
        Whether an update takes a cycle more: the design accumulates mini-batches, or clips gradients.

    Returns
    -------
    (cycles, updated)
        Arrays (designs,) and (designs, stages): from the first error of a sample to that of the
        next, and to the cycle in which each stage's FP may go on; ``-inf`` for a frozen stage, whose
        FP does not wait.
    """
    updates = np.empty(tables.shape[:2])
    return _step(geo, tables, in_flight, float(accumulates), updates), updates


@njit(cache=True)
def _latency(geo, tables):
    stages, size = geo.fp_needs.shape
    start, room = np.full(stages, float(_COMMAND)), np.full(stages + 1, -np.inf)
    x = np.empty((stages + 1, size))
    cycles = np.empty(len(tables))
    for row in range(len(tables)):
        for p in range(size):
            x[0, p] = (p + 1) * tables[row, 0, _READS]
        cycles[row] = _forward(geo, tables[row], start, room, x)
    return cycles


def latency(geo, tables):
    """Cycles from a sample's first pixel to its class, with all else idle: an array (designs,)."""
    return _latency(geo, tables)


# -- Mini-batches ----------------------------------------------------------------------------------


@njit(cache=True)
def _flow(geo, table, in_flight, batch, samples, extra, decays):
    """When the loss has each sample's last score, a stage is done with its FP, and its memory is free again.

    Units are begun in order of time. A time that is not known yet is infinite.
    """
    (
        outputs, inputs, sent, vectors, pooled, fp_needs, bp_needs, wu_needs, corner, channels, loss,
        trained, first,
    ) = geo  # fmt: skip
    stages, size = fp_needs.shape
    # When inputs and errors can be read. Stage number `stages` is the loss, which takes scores. Of
    # an input that there is no memory for yet, when it could be.
    x = np.full((stages + 1, samples, size), np.inf)
    dz = np.full((stages, samples, size), np.inf)
    x_written, dz_written = np.full(stages + 1, -np.inf), np.full(stages, -np.inf)  # the last one
    room = np.full(stages + 1, samples)  # samples that there is or was memory for
    fp_done, bp_done = np.full((stages, samples), np.inf), np.full((stages, samples), np.inf)
    released = np.full((stages, samples), np.inf)  # the memory that a sample was in
    # The sample and the unit that comes next. Units of WU are words, but of the first word of the
    # first stage that is trained they are operations.
    fp_sample, fp_unit = np.zeros(stages, np.int64), np.zeros(stages, np.int64)
    bp_sample, bp_unit = np.zeros(stages, np.int64), np.zeros(stages, np.int64)
    wu_sample, wu_unit = np.zeros(stages, np.int64), np.zeros(stages, np.int64)
    fp_left = table[:, _FP].copy()  # operations of the pixel that BP interrupts
    free = np.zeros(stages)  # when the array has worked off what it was given
    word_end = np.full(stages, -np.inf)  # of the last word of WU in it
    ready = np.full((stages, 3), np.inf)  # when BP, FP and WU can begin their next unit

    def write(s, k, pixel, earliest):
        """Write an input of stage ``s``, or, if there is no room for it yet, remember it."""
        if k < room[s]:
            begin = x_written[s]
            if pixel == 0 and s < stages and k >= in_flight:
                begin = max(begin, released[s, k - in_flight])
            earliest = max(
                earliest, begin + (table[s - 1, _FP_WRITES] if s > 0 else table[0, _READS])
            )
            x_written[s] = earliest
        x[s, k, pixel] = earliest

    def admit(s, k):
        """There is room for a sample, now or at a time that is known."""
        room[s] = k + 1
        if s == 0:
            for p in range(inputs[0]):
                write(0, k, p, -np.inf)
        else:
            for q in range(pooled[s - 1]):
                if x[s, k, q] == np.inf:
                    break
                write(s, k, q, x[s, k, q])

    def bp_ready(s):
        k, p = bp_sample[s], bp_unit[s]
        if s <= first or k == samples or fp_done[s, k] == np.inf:
            return np.inf
        when = max(dz[s, k, bp_needs[s, p]], fp_done[s, k] + _PASSED)
        if p == 0 and k > 0:
            when = max(when, bp_done[s, k - 1] + 1)
        ahead = int(table[s, _BP_AHEAD])
        if 0 < ahead <= p:
            operations, _, _ = _bp_pixel(table[s], vectors[s], channels[s, 0], p)
            when = max(when, dz[s - 1, k, p - ahead] - operations)
        return when

    def fp_ready(s):
        k, p = fp_sample[s], fp_unit[s]
        if k >= min(room[s], samples) or (s == first and 0 < wu_unit[s] < outputs[s]):
            return np.inf
        when = x[s, k, fp_needs[s, p]]
        if p == 0 and k > 0:
            when = max(when, fp_done[s, k - 1] + 1)
            if k % batch == 0 and trained[s]:
                when = max(when, released[s, k - 1] + _OPEN)
            if k >= in_flight and s > first and not trained[s]:
                when = max(when, bp_done[s, k - in_flight] + 2)
        q, ahead = corner[s, p], int(table[s, _FP_AHEAD])
        if q >= 0 and 0 < ahead <= k * pooled[s] + q:
            sample, pixel = divmod(k * pooled[s] + q - ahead, pooled[s])
            read = x[s + 1, sample, pixel] if sample < room[s + 1] else np.inf
            when = max(when, read - table[s, _FP])
        return when

    def wu_ready(s):
        k, unit = wu_sample[s], wu_unit[s]
        if k == samples or not trained[s]:
            return np.inf
        when = fp_done[s, k] + _PASSED if s == first else bp_done[s, k] + _TOKEN
        if k > 0 and unit == 0:
            when = max(when, released[s, k - 1] + _OPEN)
        if s == first and unit == 0 and k % batch == batch - 1:
            when += table[s, _BIAS_TERMS]
        if s == first and unit < outputs[s]:
            # The first word follows the errors if no FP may yet come: the weights are updated, or
            # the last sample that there is room for is past it. Otherwise it waits for all errors.
            following, last = dz[s, k, wu_needs[s, unit]], k + in_flight - 1
            if k % batch < batch - 1:
                same = last // batch == k // batch
                following = max(following, fp_done[s, last] + _PASSED) if same else np.inf
            when = max(when, min(following, dz[s, k, wu_needs[s, outputs[s] - 1]]))
        return when

    def lost(s, when):
        """Cycles that FP and BP lose because the words before them are read for their update."""
        cycles, read = 0, word_end[s] + _READ + extra
        while cycles < table[s, _WU] and read >= when and not decays:
            # After an update, nobody is there who could lose any.
            cycles, read = cycles + 1, read - (table[s, _WORD] - table[s, _TERMS])
        word_end[s] = -np.inf
        return cycles

    room[:stages] = 0
    x_written[0] = 0.0
    for s in range(stages):
        for k in range(min(in_flight, samples)):
            admit(s, k)
    changed = (0, stages)
    while True:
        for s in range(changed[0], changed[1]):
            ready[s] = bp_ready(s), fp_ready(s), wu_ready(s)
        # The next unit is the one that can begin first; in one array BP before FP before WU.
        s, phase, when = -1, 0, np.inf
        for t in range(stages):
            for number in range(3):
                begin = max(ready[t, number], free[t])
                if begin < when:
                    s, phase, when = t, number, begin
        if s < 0:
            return x[stages, :, 0], fp_done, released
        changed = (max(s - 1, 0), min(s + 2, stages))

        if phase == 0:
            k, p = bp_sample[s], bp_unit[s]
            begin = when + lost(s, when)
            operations, group, last = _bp_pixel(table[s], vectors[s], channels[s, 0], p)
            latency, writes = table[s, _BP_LATENCY], table[s, _BP_WRITES]
            free[s] = begin + operations
            dz_written[s - 1] = max(
                dz_written[s - 1] + writes,
                free[s] + latency + last,
                begin + group + latency + writes,
            )
            dz[s - 1, k, p] = dz_written[s - 1]
            bp_unit[s] += 1
            if bp_unit[s] == sent[s]:
                bp_sample[s], bp_unit[s] = k + 1, 0
                bp_done[s, k] = free[s]
        elif phase == 1:
            # BP interrupts FP after any operation: FP goes on until an error may come.
            part, waiting = fp_left[s], bp_sample[s]
            if s > first and waiting < fp_sample[s]:
                coming = dz[s, waiting, bp_needs[s, bp_unit[s]]]
                if coming == np.inf and s + 1 < stages:
                    coming = when + table[s + 1, _BP_LATENCY]
                part = min(part, max(1.0, coming - when))
            free[s] = when + lost(s, when) + part
            fp_left[s] -= part
            if fp_left[s] > 0:
                continue
            k, p = fp_sample[s], fp_unit[s]
            fp, group, latency = table[s, _FP], table[s, _FP_GROUP], table[s, _FP_LATENCY]
            fp_left[s] = fp
            q = corner[s, p]
            if q >= 0:
                all_writes = free[s] - fp + group + latency + table[s, _FP_WRITES]
                write(s + 1, k, q, max(free[s] + latency + table[s, _FP_LAST], all_writes))
            fp_unit[s] += 1
            if fp_unit[s] == outputs[s]:
                fp_sample[s], fp_unit[s] = k + 1, 0
                fp_done[s, k] = free[s]
                if not trained[s]:
                    released[s, k] = free[s] + _FREE
                    if k + in_flight < samples:
                        admit(s, k + in_flight)
                if s + 1 == stages:
                    first_error = x[stages, k, 0] + loss[0]
                    dz[s, k, 0] = first_error + table[s, _ERRORS] + _QUEUE
                    x_written[stages] = first_error + loss[1]  # it takes scores again
        else:
            k, unit = wu_sample[s], wu_unit[s]
            steps = outputs[s] if s == first else 1  # that the first word takes
            pixels = table[s, _WORD] - table[s, _TERMS]
            free[s] = when + pixels / (steps if unit < steps else 1)
            if k % batch == batch - 1:  # it updates the weights
                if unit >= steps - 1:
                    free[s] += table[s, _TERMS]
                word = unit - (steps - 1)
                if (word > 0 or s > first) and word % round(table[s, _FP_GROUP]) == 0:
                    free[s] += table[s, _BIAS_TERMS]
            wu_unit[s] += 1
            if unit < steps - 1:
                continue
            word_end[s] = free[s]
            if wu_unit[s] == steps - 1 + round(table[s, _WU]):
                wu_sample[s], wu_unit[s] = k + 1, 0
                released[s, k] = free[s] + _UPDATE - _OPEN + extra
                if k + in_flight < samples:
                    admit(s, k + in_flight)


def flow(geo, table, *, batch, in_flight=2, accumulates=True, decays=False):
    """Cycles per sample in mini-batches of ``batch`` that follow one another.

    What counts is how long they take once the schedule repeats, in the mean of what it repeats: a stage
    that is frozen waits for no update, and beside it shorter and longer mini-batches may take turns.

    Parameters
    ----------
    geo : :class:`Geometry`
    table : array (stages, :data:`DURATIONS`)
    batch, in_flight : :class:`int`
    accumulates : :class:`bool`
        As for :func:`step`.
    decays : :class:`bool`
        Whether there is weight decay: then FP and BP lose no cycles to updates.

    Returns
    -------
    (cycles, updated)
        As :func:`step` for one design; ``updated`` counts from the first error of a batch's last
        sample.
    """
    # The last mini-batches have none behind them that a frozen stage could work on: they do not count.
    alone = 0 if geo.trained.all() else ceil(in_flight / batch)
    batches = 3 + ceil(geo.first * in_flight / batch) + alone
    pace = None
    while pace is None:
        scored, fp_done, released = _flow(
            geo, table, in_flight, batch, batches * batch, float(accumulates), decays
        )
        times = np.concatenate([scored[None], fp_done, released])[:, : (batches - alone) * batch]
        pace = _pace_of_period(times, batch)
        if batches >= _MOST_BATCHES:
            half = (batches - alone) // 2 * batch
            pace = pace or (times[0, -1] - times[0, -1 - half]) / half
        batches *= 2
    first_error = scored[-1] + geo.loss[0]
    updated = np.where(geo.trained, released[:, -1] + _OPEN - first_error, -np.inf)
    return pace, updated


def _pace_of_period(times, batch):
    """Cycles per sample of what ``times`` (events, samples) repeat at their end; None if nothing.

    The first event is the loss; the others count from it.
    """
    ends = times[0, batch - 1 :: batch]
    since = times.reshape(len(times), -1, batch) - ends[:, None]
    for period in range(1, len(ends) // 2 + 1):
        if np.allclose(since[:, -period:], since[:, -2 * period : -period], rtol=0, atol=1e-6):
            return (ends[-1] - ends[-1 - period]) / period / batch
    return None
