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

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd, prod

import numpy as np
from numba import njit

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
    "word",  # operations of a word: one for every pixel
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
    _FP, _BP, _WU, _WORD, _FP_GROUP, _BP_GROUP, _FP_LATENCY, _BP_LATENCY, _BP_SHARE, _READS,
    _ERRORS, _FP_AHEAD, _BP_AHEAD, _FP_WRITES, _FP_LAST, _BP_WRITES, _BP_LAST,
) = range(len(DURATIONS))  # fmt: skip
_LINK = _FP_WRITES  # from here on, durations depend on the neighbour's folding, too

RESULTS = 32
"""Results of an array that are on their way or wait for the neighbour."""

# Registers between an operation and what follows it, counted from the cycle after it.
_TO_QUEUE = WindowStore.LATENCY + 1  # operands, sum
_QUEUE = 2
_UPDATE = WindowStore.LATENCY + MultiplierArray.PRODUCT_LATENCY + 2  # until weights can be read
_READ = 2  # until the word that is updated is read, and nobody else can
_TOKEN = 2  # from the end of BP to the first operation of WU
_COMMAND = 5  # from a command at the edge to the first operation of FP
_LOSS = 28  # from the last score to the first error, besides one cycle for each class


@dataclass(frozen=True, eq=False)
class Geometry:
    """Which pixels wait for which: what does not depend on foldings.

    Arrays have a row for each stage, padded to the largest map.

    Parameters
    ----------
    outputs, inputs, sent : integer arrays (stages,)
        Pixels that FP computes, that BP computes, and whose errors BP sends to the stage before
        (more than it computes if a vector was a map).
    pooled, cols : integer arrays (stages,)
        Pixels that leave the stage, and columns of that map.
    fp_needs, bp_needs, wu_needs : integer arrays (stages, pixels)
        The last input of an output, the last error of an input error, and the error of an output.
    corner : integer array (stages, pixels)
        The pooled pixel that an output completes, or -1.
    channels : integer array (stages, 2)
        Of the inputs, and of the outputs.
    """

    outputs: np.ndarray
    inputs: np.ndarray
    sent: np.ndarray
    pooled: np.ndarray
    cols: np.ndarray
    fp_needs: np.ndarray
    bp_needs: np.ndarray
    wu_needs: np.ndarray
    corner: np.ndarray
    channels: np.ndarray

    @property
    def classes(self):
        """Outputs of the last stage."""
        return int(self.channels[-1, 1])

    @property
    def arrays(self):
        """All of them, as the compiled functions take them."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def geometry(stages):
    """The :class:`Geometry` of a sequence of :class:`~streamtrain.pipeline.plan.Stage`."""
    return _geometry(
        tuple(
            (
                stage.rows, stage.cols, stage.out_rows, stage.out_cols,
                stage.kernel, stage.pad, stage.pool, stage.channels,
            )
            for stage in stages
        )
    )  # fmt: skip


@lru_cache(maxsize=64)
def _geometry(maps):
    size = max(max(rows * cols, out_rows * out_cols) for rows, cols, out_rows, out_cols, *_ in maps)
    fp_needs, bp_needs, wu_needs, corner = np.zeros((4, len(maps), size), np.int64)
    corner[:] = -1
    outputs, inputs, sent, given, given_cols = np.zeros((5, len(maps)), np.int64)
    for at, (rows, cols, out_rows, out_cols, kernel, pad, pool, _) in enumerate(maps):
        pooled = (out_rows // pool, out_cols // pool)
        outputs[at], inputs[at] = out_rows * out_cols, rows * cols
        given[at], given_cols[at] = prod(pooled), pooled[1]
        sent[at] = given[at - 1] if at else 0
        fp_needs[at, : outputs[at]] = _needs((out_rows, out_cols), kernel - 1 - pad, (rows, cols))
        bp_needs[at, : inputs[at]] = _needs((rows, cols), pad, pooled, pool)
        wu_needs[at, : outputs[at]] = _needs((out_rows, out_cols), 0, pooled, pool)
        if sent[at] > inputs[at]:  # a vector is complete with the last pixel of the map it was
            fp_needs[at, 0] = sent[at] - 1
        row = (np.arange(pooled[0]) + 1) * pool - 1
        col = (np.arange(pooled[1]) + 1) * pool - 1
        corner[at, (row[:, None] * out_cols + col).ravel()] = np.arange(prod(pooled))
    channels = np.array([entry[-1] for entry in maps], np.int64)
    return Geometry(
        outputs, inputs, sent, given, given_cols, fp_needs, bp_needs, wu_needs, corner, channels
    )


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
        stage.pixels,
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
    if after is None:
        return _writes(channels, given, 1), (0, 0)
    taken, copies = after.folding[1], stage.pool**2
    writes, last = _writes(channels, taken, given)
    # Lanes change in front of the pool, which sends each group to all places of its squares.
    writes = max(writes, copies * channels // given)
    return _writes(channels, given, taken), (writes, max(last + copies - 1, copies * ceil(taken / given)))


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
    size = np.append(0, geo.channels[:-1, 1]) * (geo.sent > geo.inputs)
    share = table[..., _BP] * size / geo.channels[:, 0]
    table[..., _BP_SHARE] = share
    table[..., _BP_GROUP] = np.where(
        share > 0, np.minimum(table[..., _BP_GROUP], share), table[..., _BP_GROUP]
    )
    table[..., _BP_LAST] = np.where(share > 0, 1, table[..., _BP_LAST])
    return table


@njit(cache=True)
def _bp_operations(row, size, channels, pixel):
    """What a pixel's errors take: operations after those of the pixel before it, those until its
    first group can leave, and cycles in which the last group is written.

    ``size`` of the ``channels`` are this pixel's; 0 for all of them.
    """
    if size == 0:
        return row[_BP], row[_BP_GROUP], row[_BP_LAST]
    first = row[_BP_GROUP] if pixel == 0 else 0.0
    if row[_BP_SHARE] > 0:
        return row[_BP_SHARE], first, row[_BP_LAST]
    lanes = round(channels * row[_BP_GROUP] / row[_BP])
    before, groups = ceil(pixel * size / lanes), ceil((pixel + 1) * size / lanes)
    part = (pixel + 1) * size / lanes - (groups - 1)  # of the last group that is this pixel's
    return (groups - before) * row[_BP_GROUP], first, ceil(row[_BP_LAST] * part)


@njit(cache=True)
def _backward(geo, table, dz, updated):
    """BP and WU of a sample.

    ``dz`` (stages, pixels) is room for the times at which errors can be read; that of the last
    stage is given. ``updated`` (stages,) becomes the time at which WU lets FP go on.
    """
    outputs, inputs, sent, _, _, _, bp_needs, wu_needs, _, channels = geo
    for s in range(len(outputs) - 1, 0, -1):
        latency, writes = table[s, _BP_LATENCY], table[s, _BP_WRITES]
        ahead = int(table[s, _BP_AHEAD])
        vector = sent[s] > inputs[s]
        size = channels[s - 1, 1] if vector else 0
        time, written = -np.inf, -np.inf
        for p in range(sent[s]):
            operations, group, last = _bp_operations(table[s], size, channels[s, 0], p)
            begin = max(dz[s, 0 if vector else bp_needs[s, p]], time)
            if 0 < ahead <= p:
                begin = max(begin, dz[s - 1, p - ahead] - operations)
            time = begin + operations
            written = max(
                written + writes,
                time + latency + last,
                begin + group + latency + writes,
            )
            dz[s - 1, p] = written
        updated[s] = time + _TOKEN + table[s, _WU] * table[s, _WORD] + _UPDATE
    time = -np.inf  # the first word follows the errors
    operation = table[0, _WORD] / outputs[0]
    for p in range(outputs[0]):
        time = max(time, dz[0, wu_needs[0, p]]) + operation
    updated[0] = time + (table[0, _WU] - 1) * table[0, _WORD] + _UPDATE


@njit(cache=True)
def _forward(geo, table, start, room, x):
    """FP of a sample. Returns when the loss has its last score.

    ``start`` (stages,) is when weights are ready, ``room`` (stages,) when the sample can be stored.
    ``x`` (stages + 1, pixels) is room for the times at which inputs can be read; those of the first
    stage are given.
    """
    outputs, _, _, pooled, _, fp_needs, _, _, corner, _ = geo
    stages = len(outputs)
    for s in range(stages):
        fp, group, latency = table[s, _FP], table[s, _FP_GROUP], table[s, _FP_LATENCY]
        writes, last = table[s, _FP_WRITES], table[s, _FP_LAST]
        ahead = int(table[s, _FP_AHEAD])
        time, written = start[s], room[s + 1]
        for p in range(outputs[s]):
            begin = max(time, x[s, fp_needs[s, p]])
            q = corner[s, p]
            if q >= 0:
                if 0 < ahead <= q:
                    begin = max(begin, x[s + 1, q - ahead] - fp)
            time = begin + fp
            if q >= 0:
                written = max(
                    written + writes, time + latency + last, begin + group + latency + writes
                )
                x[s + 1, q] = written
    return x[stages, pooled[stages - 1] - 1]


@njit(cache=True)
def _step(geo, tables, in_flight, extra, updates):
    outputs, inputs, fp_needs, channels = geo[0], geo[1], geo[5], geo[9]
    stages, size = fp_needs.shape
    classes = channels[stages - 1, 1]
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
        if in_flight == 1:
            room[:stages] = updated - 1
            for p in range(inputs[0]):
                x[0, p] = updated[0] - 1 + (p + 1) * table[0, _READS]
        cycles[row] = _forward(geo, table, updated, room, x) + classes + _LOSS
    return cycles


def step(geo, tables, *, in_flight=2, accumulates=False):
    """Cycles of a training step at batch 1.

    Parameters
    ----------
    geo : :class:`Geometry`
    tables : array (designs, stages, :data:`DURATIONS`)
    in_flight : :class:`int`
    accumulates : :class:`bool`
        Whether the design can accumulate mini-batches: an update takes a cycle more.

    Returns
    -------
    (cycles, updated)
        Arrays (designs,) and (designs, stages): from the first error of a sample to that of the
        next, and to the end of each stage's update.
    """
    updates = np.empty(tables.shape[:2])
    return _step(geo.arrays, tables, in_flight, float(accumulates), updates), updates


@njit(cache=True)
def _latency(geo, tables):
    stages, size = geo[5].shape
    idle = np.full(stages + 1, -np.inf)
    x = np.empty((stages + 1, size))
    cycles = np.empty(len(tables))
    for row in range(len(tables)):
        table = tables[row]
        for p in range(size):
            x[0, p] = (p + 1) * table[0, _READS]
        cycles[row] = _forward(geo, table, idle, idle, x) + geo[9][stages - 1, 1] + _LOSS
    return cycles


def latency(geo, tables):
    """Cycles from a sample's first pixel to its class, with all else idle: an array (designs,)."""
    return _latency(geo.arrays, tables)


@njit(cache=True)
def _flow(geo, table, in_flight, batch, samples, extra):
    """When each sample's last score is there, and its memory free. See :func:`flow`."""
    outputs, inputs, sent, pooled, _, fp_needs, bp_needs, wu_needs, corner, channels = geo
    stages, size = fp_needs.shape
    classes = channels[stages - 1, 1]
    never = np.inf
    x = np.full((stages, samples, size), never)  # when inputs can be read
    dz = np.full((stages, samples, size), never)  # when errors can be read
    x_written, dz_written = np.full(stages + 1, -never), np.full(stages, -never)
    fp_done = np.full((stages, samples), never)
    bp_done = np.full((stages, samples), never)
    released = np.full((stages, samples), never)  # a sample's memory is free
    scored = np.full(samples, never)
    loss_free = -never
    free = np.zeros(stages)  # when the array is
    # The sample and the unit that is next in each phase: pixels in FP and BP, words in WU.
    fp_sample, fp_unit = np.zeros(stages, np.int64), np.zeros(stages, np.int64)
    bp_sample, bp_unit = np.zeros(stages, np.int64), np.zeros(stages, np.int64)
    wu_sample, wu_unit = np.zeros(stages, np.int64), np.zeros(stages, np.int64)
    fp_left = table[:, _FP].copy()  # operations of the pixel that BP interrupted
    followed = 0  # operations of the first stage's first word of WU that are done
    word_end = np.full(stages, -never)
    roomy = np.full(stages, min(in_flight, samples))  # samples that there has been memory for
    accepted, accepted_end = 0, 0.0
    reads = table[0, _READS]

    while True:
        while accepted < samples and (
            accepted < in_flight or released[0, accepted - in_flight] < never
        ):
            begin = accepted_end
            if accepted >= in_flight:
                begin = max(begin, released[0, accepted - in_flight])
            for p in range(inputs[0]):
                x[0, accepted, p] = begin + (p + 1) * reads
            accepted_end = begin + inputs[0] * reads
            accepted += 1

        # The next unit is the one that can begin first; in one array BP before FP before WU.
        s, when, phase = -1, never, 0
        for t in range(stages):
            bp_ready = fp_ready = wu_ready = never
            k, p = bp_sample[t], bp_unit[t]
            if t > 0 and k < samples and fp_done[t, k] < never:
                vector = sent[t] > inputs[t]
                bp_ready = max(dz[t, k, 0 if vector else bp_needs[t, p]], fp_done[t, k] + 1)
                ahead = int(table[t, _BP_AHEAD])
                if 0 < ahead <= p:
                    width = channels[t - 1, 1] if vector else 0
                    operations, _, _ = _bp_operations(table[t], width, channels[t, 0], p)
                    bp_ready = max(bp_ready, dz[t - 1, k, p - ahead] - operations)
            k, p = fp_sample[t], fp_unit[t]
            if k < roomy[t] and (t > 0 or followed == 0):
                fp_ready = x[t, k, fp_needs[t, p]]
                if p == 0 and k > 0:
                    fp_ready = max(fp_ready, fp_done[t, k - 1] + 1)
                    if k % batch == 0:
                        fp_ready = max(fp_ready, released[t, k - 1] + 1)
                q = corner[t, p]
                ahead = int(table[t, _FP_AHEAD])
                if q >= 0 and t + 1 < stages and 0 < ahead <= k * pooled[t] + q:
                    taken, pixel = divmod(k * pooled[t] + q - ahead, pooled[t])
                    read = x[t + 1, taken, pixel] if taken < roomy[t + 1] else never
                    fp_ready = max(fp_ready, read - table[t, _FP])
            k, p = wu_sample[t], wu_unit[t]
            if k < samples:
                wu_ready = (bp_done[t, k] if t > 0 else fp_done[t, k]) + _TOKEN
                if k > 0 and p == 0:
                    wu_ready = max(wu_ready, released[t, k - 1] + 1)
                if t == 0 and p == 0:
                    # The first word waits for all errors, or follows them if no FP may yet come.
                    no_more, last = never, k + in_flight - 1  # the last one that there is room for
                    if k % batch == batch - 1:
                        no_more = fp_done[0, k] + _TOKEN
                    elif last // batch == k // batch:
                        no_more = fp_done[0, last] + _TOKEN
                    following = max(dz[0, k, wu_needs[0, followed]], no_more)
                    wu_ready = max(wu_ready, min(dz[0, k, wu_needs[0, outputs[0] - 1]], following))
            bp_ready, fp_ready = max(bp_ready, free[t]), max(fp_ready, free[t])
            wu_ready = max(wu_ready, free[t])
            first = min(bp_ready, fp_ready, wu_ready)
            if first < when:
                s, when = t, first
                phase = _BP if bp_ready == first else _FP if fp_ready == first else _WU
        if s < 0:
            return scored, released

        if phase == _WU:
            k = wu_sample[s]
            if s == 0 and wu_unit[0] == 0:
                followed += 1
                free[0] = when + 1
                if followed < outputs[0]:
                    continue
                followed = 0
            else:
                free[s] = when + table[s, _WORD]
            word_end[s] = free[s]
            wu_unit[s] += 1
            if wu_unit[s] == round(table[s, _WU]):
                wu_unit[s] = 0
                wu_sample[s] += 1
                released[s, k] = free[s] + _UPDATE - 1 + extra
                k += in_flight
                if k < samples:
                    roomy[s] += 1
                    if s > 0:  # what has waited for it is written
                        written = max(x_written[s], released[s, k - in_flight])
                        writes = table[s - 1, _FP_WRITES]
                        for q in range(pooled[s - 1]):
                            if x[s, k, q] == never:
                                break
                            written = max(written + writes, x[s, k, q])
                            x[s, k, q] = written
                            x_written[s] = written
            continue

        # FP and BP lose the cycles in which the words before them are read for their update.
        begin = when
        while word_end[s] + _READ + extra >= when and word_end[s] > when - 3 * outputs[s]:
            begin += 1
            word_end[s] -= outputs[s]
        word_end[s] = -never

        if phase == _BP:
            k, p = bp_sample[s], bp_unit[s]
            latency, writes = table[s, _BP_LATENCY], table[s, _BP_WRITES]
            width = channels[s - 1, 1] if sent[s] > inputs[s] else 0
            operations, group, last = _bp_operations(table[s], width, channels[s, 0], p)
            free[s] = begin + operations
            dz_written[s - 1] = max(
                dz_written[s - 1] + writes,
                free[s] + latency + last,
                begin + group + latency + writes,
            )
            dz[s - 1, k, p] = dz_written[s - 1]
            bp_unit[s] += 1
            if bp_unit[s] == sent[s]:
                bp_unit[s] = 0
                bp_sample[s] += 1
                bp_done[s, k] = free[s]
            continue

        # BP interrupts FP after any operation: FP goes on until an error may come.
        k, p = fp_sample[s], fp_unit[s]
        part = fp_left[s]
        waiting = bp_sample[s]
        if s > 0 and waiting < samples and fp_done[s, waiting] < never:
            vector = sent[s] > inputs[s]
            coming = dz[s, waiting, 0 if vector else bp_needs[s, bp_unit[s]]]
            if coming == never and s + 1 < stages:
                coming = when + table[s + 1, _BP_LATENCY]
            part = min(part, max(1.0, coming - when))
        free[s] = begin + part
        fp_left[s] -= part
        if fp_left[s] > 0:
            continue
        fp, group, latency = table[s, _FP], table[s, _FP_GROUP], table[s, _FP_LATENCY]
        fp_left[s] = fp
        q = corner[s, p]
        if q >= 0:
            writes, last = table[s, _FP_WRITES], table[s, _FP_LAST]
            written = x_written[s + 1] + writes
            if s + 1 < stages and k >= roomy[s + 1]:
                written = -never
            elif q == 0 and s + 1 < stages and k >= in_flight:
                written = max(written, released[s + 1, k - in_flight] + writes)
            written = max(
                written, free[s] + latency + last, free[s] - fp + group + latency + writes
            )
            if s + 1 == stages or k < roomy[s + 1]:
                x_written[s + 1] = written
            if s + 1 < stages:
                x[s + 1, k, q] = written
            elif q == pooled[s] - 1:
                scored[k] = max(written, loss_free + classes)
                first_error = scored[k] + classes + _LOSS
                dz[s, k, 0] = first_error + table[s, _ERRORS] + _QUEUE
                loss_free = first_error + classes + 1
        fp_unit[s] += 1
        if fp_unit[s] == outputs[s]:
            fp_unit[s] = 0
            fp_sample[s] += 1
            fp_done[s, k] = free[s]


def flow(geo, table, *, batch, in_flight=2, accumulates=True):
    """Cycles per sample in mini-batches of ``batch`` that follow one another.

    The second of two is what counts: those that follow take as long.

    Parameters
    ----------
    geo : :class:`Geometry`
    table : array (stages, :data:`DURATIONS`)
    batch, in_flight : :class:`int`
    accumulates : :class:`bool`
        As for :func:`step`.

    Returns
    -------
    (cycles, updated)
        As :func:`step` for one design; of the last sample of a batch.
    """
    scored, released = _flow(
        geo.arrays, table, in_flight, batch, 2 * batch, float(accumulates)
    )
    first_error = scored[-1] + geo.classes + _LOSS
    return (scored[-1] - scored[-1 - batch]) / batch, released[:, -1] + 1 - first_error
