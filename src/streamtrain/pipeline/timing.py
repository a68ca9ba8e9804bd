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
_OPEN = 1  # from the cycle in which a sample's memory is free to the next operation of FP or WU
_COMMAND = 5  # from a command at the edge to the first operation of FP
_LOSS = 28  # from the last score to the first error, besides one cycle for each class


class Geometry(NamedTuple):
    """Which pixels wait for which: what does not depend on foldings.

    Arrays have a row for each stage, padded to the largest map.

    Parameters
    ----------
    outputs, inputs, sent : integer arrays (stages,)
        Pixels that FP computes, that BP computes, and whose errors BP sends to the stage before
        (more than it computes if a vector was a map).
    pooled : integer array (stages,)
        Pixels that leave the stage.
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
    fp_needs: np.ndarray
    bp_needs: np.ndarray
    wu_needs: np.ndarray
    corner: np.ndarray
    channels: np.ndarray

    @property
    def classes(self):
        """Outputs of the last stage."""
        return int(self.channels[-1, 1])


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
    outputs, inputs, sent, given = np.zeros((4, len(maps)), np.int64)
    for at, (rows, cols, out_rows, out_cols, kernel, pad, pool, _) in enumerate(maps):
        pooled = (out_rows // pool, out_cols // pool)
        outputs[at], inputs[at] = out_rows * out_cols, rows * cols
        given[at] = prod(pooled)
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
    return Geometry(outputs, inputs, sent, given, fp_needs, bp_needs, wu_needs, corner, channels)


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
    vector = share > 0
    group, last = table[..., _BP_GROUP], table[..., _BP_LAST]
    table[..., _BP_GROUP] = np.where(vector, np.minimum(group, share), group)
    table[..., _BP_LAST] = np.where(vector, 1, last)
    return table


@njit(cache=True)
def _bp_pixel(geo, table, s, pixel):
    """What BP takes for the errors of a pixel that stage ``s`` sends to the one before.

    Returns operations after those of the pixel before it, those until its first group can leave,
    and cycles in which its last group is written.
    """
    row = table[s]
    if geo.sent[s] <= geo.inputs[s]:
        return row[_BP], row[_BP_GROUP], row[_BP_LAST]
    # A vector that was a map: a group's errors may be several pixels', or a part of one's.
    first = row[_BP_GROUP] if pixel == 0 else 0.0
    if row[_BP_SHARE] > 0:
        return row[_BP_SHARE], first, row[_BP_LAST]
    size = geo.channels[s - 1, 1]
    lanes = round(geo.channels[s, 0] * row[_BP_GROUP] / row[_BP])
    before, groups = ceil(pixel * size / lanes), ceil((pixel + 1) * size / lanes)
    part = (pixel + 1) * size / lanes - (groups - 1)  # of the last group
    return (groups - before) * row[_BP_GROUP], first, ceil(row[_BP_LAST] * part)


@njit(cache=True)
def _bp_needs(geo, s, pixel):
    """The error that the errors of a pixel wait for."""
    return 0 if geo.sent[s] > geo.inputs[s] else geo.bp_needs[s, pixel]


# -- A step ----------------------------------------------------------------------------------------


@njit(cache=True)
def _backward(geo, table, dz, updated):
    """BP and WU of a sample.

    ``dz`` (stages, pixels) takes the times at which errors can be read; that of the last stage is
    given. ``updated`` (stages,) takes those at which WU lets FP go on.
    """
    for s in range(len(geo.outputs) - 1, 0, -1):
        latency, writes = table[s, _BP_LATENCY], table[s, _BP_WRITES]
        ahead = int(table[s, _BP_AHEAD])
        time, written = -np.inf, -np.inf
        for p in range(geo.sent[s]):
            operations, group, last = _bp_pixel(geo, table, s, p)
            begin = max(dz[s, _bp_needs(geo, s, p)], time)
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
    # The first stage's first word follows the errors.
    time = -np.inf
    operation = table[0, _WORD] / geo.outputs[0]
    for p in range(geo.outputs[0]):
        time = max(time, dz[0, geo.wu_needs[0, p]]) + operation
    updated[0] = time + (table[0, _WU] - 1) * table[0, _WORD] + _UPDATE


@njit(cache=True)
def _forward(geo, table, start, room, x):
    """FP of a sample. Returns when the loss has its last score.

    ``start`` (stages,) is when FP may begin, ``room`` (stages + 1,) when there is memory for the
    sample, in front of the loss always. ``x`` (stages + 1, pixels) takes the times at which inputs
    can be read; those of the first stage are given.
    """
    stages = len(geo.outputs)
    for s in range(stages):
        fp, group, latency = table[s, _FP], table[s, _FP_GROUP], table[s, _FP_LATENCY]
        writes, last = table[s, _FP_WRITES], table[s, _FP_LAST]
        ahead = int(table[s, _FP_AHEAD])
        time, written = start[s], room[s + 1]
        for p in range(geo.outputs[s]):
            begin = max(time, x[s, geo.fp_needs[s, p]])
            q = geo.corner[s, p]
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
    return x[stages, geo.pooled[stages - 1] - 1]


@njit(cache=True)
def _step(geo, tables, in_flight, extra, updates):
    stages, size = geo.fp_needs.shape
    classes = geo.channels[stages - 1, 1]
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
        next, and to the cycle in which each stage's FP may go on.
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


class _Run(NamedTuple):
    """What is known while samples are followed. Times that are not known yet are infinite.

    Parameters
    ----------
    batch, in_flight : :class:`int`
    extra : :class:`float`
        Cycles that an update takes longer.
    x, dz : arrays (stages + 1, samples, pixels) and (stages, samples, pixels)
        When inputs and errors can be read; behind the last stage, when the loss has the scores.
        Of an input that there is no memory for yet, when it could be.
    x_written, dz_written : arrays (stages + 1,) and (stages,)
        When the last of them was written.
    room : integer array (stages + 1,)
        Samples that there is or was memory for.
    fp_done, bp_done, released : arrays (stages, samples)
        When phases have ended, and when the memory that a sample was in is free.
    fp_at, bp_at, wu_at : integer arrays (stages, 2)
        Sample and unit that come next.
    fp_left : array (stages,)
        Operations of the pixel that FP works on.
    free, word_end : arrays (stages,)
        When the array has worked off what it was given, and the last word of WU in it.
    """

    batch: int
    in_flight: int
    extra: float
    x: np.ndarray
    dz: np.ndarray
    x_written: np.ndarray
    dz_written: np.ndarray
    room: np.ndarray
    fp_done: np.ndarray
    bp_done: np.ndarray
    released: np.ndarray
    fp_at: np.ndarray
    bp_at: np.ndarray
    wu_at: np.ndarray
    fp_left: np.ndarray
    free: np.ndarray
    word_end: np.ndarray


@njit(cache=True)
def _flow(geo, table, in_flight, batch, samples, extra):
    """When the loss has each sample's last score, and when each sample's memory is free again."""
    stages, size = geo.fp_needs.shape
    run = _Run(
        batch,
        in_flight,
        extra,
        np.full((stages + 1, samples, size), np.inf),
        np.full((stages, samples, size), np.inf),
        np.full(stages + 1, -np.inf),
        np.full(stages, -np.inf),
        np.zeros(stages + 1, np.int64),
        np.full((stages, samples), np.inf),
        np.full((stages, samples), np.inf),
        np.full((stages, samples), np.inf),
        np.zeros((stages, 2), np.int64),
        np.zeros((stages, 2), np.int64),
        np.zeros((stages, 2), np.int64),
        table[:, _FP].copy(),
        np.zeros(stages),
        np.full(stages, -np.inf),
    )
    run.x_written[0] = 0.0
    run.room[stages] = samples
    for s in range(stages):
        for k in range(min(in_flight, samples)):
            _admit(geo, table, run, s, k)
    while True:
        # The next unit is the one that can begin first; in one array BP before FP before WU.
        s, phase, when = -1, _FP, np.inf
        for t in range(stages):
            bp = max(_bp_ready(geo, table, run, t), run.free[t])
            fp = max(_fp_ready(geo, table, run, t), run.free[t])
            wu = max(_wu_ready(geo, run, t), run.free[t])
            first = min(bp, fp, wu)
            if first < when:
                s, when = t, first
                phase = _BP if bp == first else _FP if fp == first else _WU
        if s < 0:
            return run.x[stages, :, 0], run.released
        if phase == _WU:
            _wu_unit(geo, table, run, s, when)
        elif phase == _BP:
            _bp_unit(geo, table, run, s, when + _lost(table, run, s, when))
        else:
            _fp_unit(geo, table, run, s, when, _lost(table, run, s, when))


@njit(cache=True)
def _bp_ready(geo, table, run, s):
    """When BP can begin its next pixel."""
    k, p = run.bp_at[s]
    if s == 0 or k == run.fp_done.shape[1]:
        return np.inf
    ready = max(run.dz[s, k, _bp_needs(geo, s, p)], run.fp_done[s, k] + 1)
    ahead = int(table[s, _BP_AHEAD])
    if 0 < ahead <= p:
        ready = max(ready, run.dz[s - 1, k, p - ahead] - _bp_pixel(geo, table, s, p)[0])
    return ready


@njit(cache=True)
def _fp_ready(geo, table, run, s):
    """When FP can begin its next pixel, or go on with it."""
    k, p = run.fp_at[s]
    if k >= min(run.room[s], run.fp_done.shape[1]) or _inside_first_word(geo, run, s):
        return np.inf
    ready = run.x[s, k, geo.fp_needs[s, p]]
    if p == 0 and k > 0:
        ready = max(ready, run.fp_done[s, k - 1] + 1)
        if k % run.batch == 0:
            ready = max(ready, run.released[s, k - 1] + _OPEN)
    q, ahead = geo.corner[s, p], int(table[s, _FP_AHEAD])
    behind = k * geo.pooled[s] + q - ahead  # of all samples' pixels, the one to be read before
    if q >= 0 and ahead > 0 and behind >= 0:
        sample, pixel = divmod(behind, geo.pooled[s])
        read = run.x[s + 1, sample, pixel] if sample < run.room[s + 1] else np.inf
        ready = max(ready, read - table[s, _FP])
    return ready


@njit(cache=True)
def _inside_first_word(geo, run, s):
    """Whether the first stage's first word of WU has begun: FP and BP wait for its end."""
    return s == 0 and 0 < run.wu_at[s, 1] < geo.outputs[s]


@njit(cache=True)
def _wu_ready(geo, run, s):
    """When WU can begin its next word; in the first stage's first word, do its next operation."""
    k, unit = run.wu_at[s]
    if k == run.fp_done.shape[1]:
        return np.inf
    ready = (run.bp_done if s > 0 else run.fp_done)[s, k] + _TOKEN
    if k > 0 and unit == 0:
        ready = max(ready, run.released[s, k - 1] + _OPEN)
    if s > 0 or unit >= geo.outputs[s]:
        return ready
    # It follows the errors if no FP may yet come, and waits for all of them otherwise.
    following = run.dz[s, k, geo.wu_needs[s, unit]]
    last = k + run.in_flight - 1  # the last sample that there is room for
    if k % run.batch < run.batch - 1:
        if last // run.batch > k // run.batch:
            following = np.inf
        else:
            following = max(following, run.fp_done[s, last] + _TOKEN)
    return max(ready, min(following, run.dz[s, k, geo.wu_needs[s, geo.outputs[s] - 1]]))


@njit(cache=True)
def _lost(table, run, s, when):
    """Cycles that FP and BP lose because the words before them are read for their update."""
    lost = 0
    while (
        lost < table[s, _WU]
        and run.word_end[s] - lost * table[s, _WORD] + _READ + run.extra >= when
    ):
        lost += 1
    run.word_end[s] = -np.inf
    return lost


@njit(cache=True)
def _bp_unit(geo, table, run, s, begin):
    k, p = run.bp_at[s]
    latency, writes = table[s, _BP_LATENCY], table[s, _BP_WRITES]
    operations, group, last = _bp_pixel(geo, table, s, p)
    end = begin + operations
    run.dz_written[s - 1] = max(
        run.dz_written[s - 1] + writes,
        end + latency + last,
        begin + group + latency + writes,
    )
    run.dz[s - 1, k, p] = run.dz_written[s - 1]
    run.free[s] = end
    run.bp_at[s, 1] += 1
    if run.bp_at[s, 1] == geo.sent[s]:
        run.bp_at[s] = k + 1, 0
        run.bp_done[s, k] = end


@njit(cache=True)
def _fp_unit(geo, table, run, s, when, lost):
    # BP interrupts FP after any operation: FP goes on until an error may come.
    part, waiting = run.fp_left[s], run.bp_at[s, 0]
    if s > 0 and waiting < run.fp_at[s, 0]:
        coming = run.dz[s, waiting, _bp_needs(geo, s, run.bp_at[s, 1])]
        if coming == np.inf and s + 1 < len(geo.outputs):
            coming = when + table[s + 1, _BP_LATENCY]
        part = min(part, max(1.0, coming - when))
    end = when + lost + part
    run.free[s] = end
    run.fp_left[s] -= part
    if run.fp_left[s] > 0:
        return
    fp, group, latency = table[s, _FP], table[s, _FP_GROUP], table[s, _FP_LATENCY]
    run.fp_left[s] = fp
    k, p = run.fp_at[s]
    q = geo.corner[s, p]
    if q >= 0:
        last = end + latency + table[s, _FP_LAST]
        _write(table, run, s + 1, k, q, max(last, end - fp + group + latency + table[s, _FP_WRITES]))
    run.fp_at[s, 1] += 1
    if run.fp_at[s, 1] == geo.outputs[s]:
        run.fp_at[s] = k + 1, 0
        run.fp_done[s, k] = end
        if s + 1 == len(geo.outputs):
            classes = geo.channels[s, 1]
            first_error = run.x[s + 1, k, q] + classes + _LOSS
            run.dz[s, k, 0] = first_error + table[s, _ERRORS] + _QUEUE
            run.x_written[s + 1] = first_error + classes + 1  # the loss takes scores again


@njit(cache=True)
def _wu_unit(geo, table, run, s, begin):
    k, unit = run.wu_at[s]
    steps = geo.outputs[s] if s == 0 else 1  # in which the first word is done
    run.wu_at[s, 1] += 1
    if unit < steps and s == 0:
        run.free[s] = begin + table[s, _WORD] / steps
    else:
        run.free[s] = begin + table[s, _WORD]
    if unit < steps - 1:
        return
    run.word_end[s] = run.free[s]
    if unit == steps - 2 + round(table[s, _WU]):
        run.wu_at[s] = k + 1, 0
        run.released[s, k] = run.free[s] + _UPDATE - _OPEN + run.extra
        if k + run.in_flight < run.fp_done.shape[1]:
            _admit(geo, table, run, s, k + run.in_flight)


@njit(cache=True)
def _admit(geo, table, run, s, k):
    """From a time that is known now, a sample may be written into a stage's memory."""
    run.room[s] = k + 1
    if s > 0:
        for q in range(geo.pooled[s - 1]):  # results that have waited for it
            if run.x[s, k, q] == np.inf:
                return
            _write(table, run, s, k, q, run.x[s, k, q])
    else:
        for p in range(geo.inputs[0]):
            _write(table, run, 0, k, p, -np.inf)


@njit(cache=True)
def _write(table, run, s, k, pixel, ready):
    """Write a pixel into a stage's memory, no earlier than it is ``ready``, if there is room."""
    if k < run.room[s]:
        begin = run.x_written[s]
        if pixel == 0 and k >= run.in_flight and s < len(run.released):
            begin = max(begin, run.released[s, k - run.in_flight])
        ready = max(ready, begin + (table[s - 1, _FP_WRITES] if s > 0 else table[0, _READS]))
        run.x_written[s] = ready
    run.x[s, k, pixel] = ready


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
        As :func:`step` for one design; ``updated`` counts from the first error of a batch's last
        sample.
    """
    scored, released = _flow(geo, table, in_flight, batch, 2 * batch, float(accumulates))
    first_error = scored[-1] + geo.classes + _LOSS
    return (scored[-1] - scored[-1 - batch]) / batch, released[:, -1] + _OPEN - first_error
