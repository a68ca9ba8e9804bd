"""What one sample does to the weights: the arithmetic of a training step, compiled.

Every number here is an integer code carried in float64. Sums stay below ``2**53``, where float64
holds every integer and BLAS therefore adds exactly, in whatever order it likes; scaling by a power
of two is exact anyway. :class:`~streamtrain.golden.Golden` refuses plans that could need more bits.

All buffers lie in one array, the *arena*, at the offsets of :data:`STAGE`. Maps are stored with
channels innermost, so that

- a map is a matrix ``(pixels, channels)``, and read as a vector it is in the order in which the
  inputs of a linear layer arrive;
- the window of a pixel is K runs of ``K * N`` neighbouring numbers, and ``windows`` gathers all of
  them in a matrix ``(pixels, K * K * N)``;
- weights are a matrix ``(K * K * N, M)``, and the three phases are products of matrices:

  ====  ============================  ===================================================
  FP    ``z = windows @ w + b``
  BP    ``dwindows = dz @ w.T``       each window's error, added where the window came from
  WU    ``dw = windows.T @ dz``       ``db = sum of dz over the pixels``
  ====  ============================  ===================================================

All compiled code is in this file: numba's cache notices changes in the file of the function that
Python calls, and in no other.
"""

from math import exp, log

import numpy as np

from streamtrain.jit import njit

__all__ = [
    "COMMAND",
    "CROSS_ENTROPY",
    "FLOAT",
    "NEAREST",
    "NEAREST_EVEN",
    "SITES",
    "SQUARED_ERROR",
    "SQUARED_HINGE",
    "STAGE",
    "STOCHASTIC",
    "TRUNCATE",
    "refresh_operands",
    "run_samples",
]

# Commands (streamtrain.host.Op); what is neither is EVALUATE.
INFER, TRAIN = 0, 2

# How a number is rounded (streamtrain.numeric.Round). FLOAT is the float twin's: not at all.
FLOAT, TRUNCATE, NEAREST, NEAREST_EVEN, STOCHASTIC = range(5)

# Where a stage rounds: columns of its random states and of its counts of saturated numbers.
SITES = ("output", "errors", "weights", "velocity")  # which has no random state of its own
OUTPUT, ERRORS, WEIGHTS, VELOCITY = range(4)

LOG2_E = 5909  # log2(e), 12 fractional bits
LN_2 = 2839  # ln(2), 12 fractional bits
CROSS_ENTROPY, SQUARED_ERROR, SQUARED_HINGE = range(3)  # streamtrain.network's losses

STAGE = np.dtype([
    # As in streamtrain.pipeline.Stage.
    *[(field, np.int64) for field in ("n", "m", "rows", "cols", "kernel", "pad")],
    *[(field, np.int64) for field in ("out_rows", "out_cols", "pool", "relu", "bias", "back")],
    *[(field, np.int64) for field in ("trainable", "takes_errors")],
    *[(field, np.int64) for field in ("pm", "pn", "pk")],
    # Rounding: how, and how many bits are dropped. A learning step drops the update shifts; in a
    # mini-batch of several samples, the batch shifts are dropped from each sample's running sum.
    *[(field, np.int64) for field in ("output_round", "errors_round", "weights_round")],
    *[(field, np.int64) for field in ("output_shift", "errors_shift", "operand_shift")],
    *[(field, np.int64) for field in ("weight_update_shift", "bias_update_shift")],
    *[(field, np.int64) for field in ("weight_batch_shift", "bias_batch_shift")],
    # What the optimiser adds: how many there is, and zeros below the codes. Clipping: zeros below the
    # limit's code; -1 without. A velocity's shift is what it drops of a gradient; 0 without momentum.
    *[(field, np.int64) for field in ("terms", "momentum_shift", "decay_shift", "velocity_shift")],
    *[(field, np.int64) for field in ("weight_clip_shift", "bias_clip_shift")],
    ("output_frac", np.int64),
    ("bias_frac", np.int64),  # left shift of the bias, to the fractional bits of w * x
    ("errors_lanes", np.int64),  # errors that are rounded with one random state
    # Smallest and largest code of each format; infinite in the float twin.
    *[(field, np.float64) for field in ("output_low", "output_high", "errors_low", "errors_high")],
    *[
        (field, np.float64)
        for field in ("stored_low", "stored_high", "operand_low", "operand_high")
    ],
    *[(field, np.float64) for field in ("velocity_low", "velocity_high")],
    # Where the buffers begin in the arena. Operands lie where the stored weights lie if they are
    # the same numbers.
    ("x", np.int64),  # input map with its border of zeros, (rows + 2 pad, cols + 2 pad, n)
    ("windows", np.int64),  # (pixels, k k n)
    ("w", np.int64),  # operand: weights (k k n, m)
    ("b", np.int64),  # operand: biases (m)
    ("w_stored", np.int64),
    ("b_stored", np.int64),
    ("z", np.int64),  # (pixels, m)
    ("y", np.int64),  # where the pooled, rectified map goes: the next stage's x, or the scores
    ("y_pad", np.int64),  # and the border of zeros that it has there
    ("gate", np.int64),  # (pooled pixels, m): where in its square y was found; -1 if rectified
    ("dy", np.int64),  # (pooled pixels, m)
    ("dz", np.int64),  # (pixels, m)
    ("dwindows", np.int64),  # (pixels, k k n)
    ("dx", np.int64),  # shaped as x
    ("dw", np.int64),  # (k k n, m)
    ("db", np.int64),  # (m)
    ("w_sum", np.int64),  # running sums of the mini-batch, shaped as dw and db
    ("b_sum", np.int64),
    ("w_velocity", np.int64),  # velocities, and room to round them in, shaped as dw and db
    ("b_velocity", np.int64),
    ("w_moved", np.int64),
    ("b_moved", np.int64),
])

COMMAND = np.dtype([
    *[(field, np.int64) for field in ("op", "label", "update", "mantissa", "shift")],
    *[(field, np.int64) for field in ("momentum", "decay", "clip")],
    ("frozen", np.int64),  # stages that keep their weights, as bits
])


@njit
def _matrix(arena, start, rows, cols):
    return arena[start : start + rows * cols].reshape(rows, cols)


@njit
def _map_row(arena, start, row, cols, channels, pad):
    """One row of a map, without the border of ``pad`` zeros around the map."""
    start += ((row + pad) * (cols + 2 * pad) + pad) * channels
    return arena[start : start + cols * channels]


# Rounding.


@njit
def _round(v, mode):
    """An integer near ``v``. For STOCHASTIC, random bits were added before."""
    if mode == FLOAT:
        return v
    if mode == NEAREST:
        return np.floor(v + 0.5)
    if mode == NEAREST_EVEN:
        return np.rint(v)
    return np.floor(v)


@njit
def _advance(state):
    """The state of streamtrain.numeric.Lfsr that follows ``state``."""
    for _ in range(16):
        bit = (state >> 31) ^ (state >> 21) ^ (state >> 1) ^ state
        state = (state << 1 | bit & 1) & 0xFFFFFFFF
    return state


@njit
def _lane_bits(state, lane, bits):
    """streamtrain.numeric.lane_bits: the state, rotated by the lane's own distance."""
    turn = (lane * 11) % 32
    return (state << turn | state >> 32 - turn) & ((1 << bits) - 1)


@njit
def _add_random(v, shift, lanes, state):
    """Add random bits to ``v`` (pixels, channels): ``lanes`` channels share a state.

    Returns the state that follows.
    """
    for pixel in range(v.shape[0]):
        for block in range(v.shape[1] // lanes):
            for lane in range(lanes):
                v[pixel, block * lanes + lane] += _lane_bits(state, lane, shift)
            state = _advance(state)
    return state


@njit
def _requantize(v, shift, low, high, mode, lanes, random, site):
    """Round ``v`` (pixels, channels) in place and saturate it; returns how many were saturated."""
    if mode == STOCHASTIC and shift > 0:
        random[site] = _add_random(v, shift, lanes, random[site])
    scale = 2.0**-shift
    flat = v.reshape(v.size)
    saturated = 0
    for i in range(flat.size):
        rounded = _round(flat[i] * scale, mode)
        flat[i] = min(max(rounded, low), high)
        saturated += flat[i] != rounded
    return saturated


# FP: z[m, r, c] = b[m] + sum over n, i, j of w[m, n, i, j] * x[n, r + i - pad, c + j - pad]


@njit
def _gather_windows(s, arena):
    run = s.kernel * s.n
    pitch = (s.cols + 2 * s.pad) * s.n
    for row in range(s.out_rows):
        for i in range(s.kernel):
            at = s.x + (row + i) * pitch
            to = s.windows + (row * s.out_cols * s.kernel + i) * run
            for _ in range(s.out_cols):
                for k in range(run):
                    arena[to + k] = arena[at + k]
                at += s.n
                to += s.kernel * run


@njit
def _pool_and_rectify(s, arena):
    """y = the largest of each square of z (the first one, in raster order), at least 0 after ReLU.

    Comparisons are multiplied with: branches would be mispredicted for every other number.
    """
    cols = s.out_cols // s.pool
    for row in range(s.out_rows // s.pool):
        y = _map_row(arena, s.y, row, cols, s.m, s.y_pad)
        gate = _map_row(arena, s.gate, row, cols, s.m, 0)
        for col in range(cols):
            to = col * s.m
            corner = s.z + (row * s.pool * s.out_cols + col * s.pool) * s.m
            for m in range(s.m):
                y[to + m] = arena[corner + m]
                gate[to + m] = 0.0
            for position in range(1, s.pool * s.pool):
                at = corner + (position // s.pool * s.out_cols + position % s.pool) * s.m
                for m in range(s.m):
                    larger = arena[at + m] > y[to + m]
                    gate[to + m] += larger * (position - gate[to + m])
                    y[to + m] = max(y[to + m], arena[at + m])
        if s.relu:
            for k in range(y.size):
                gate[k] = gate[k] if y[k] > 0 else -1.0
                y[k] = max(y[k], 0.0)


@njit
def _forward(s, arena, random, saturated):
    pixels, taps = s.out_rows * s.out_cols, s.kernel * s.kernel * s.n
    _gather_windows(s, arena)
    z = _matrix(arena, s.z, pixels, s.m)
    np.dot(_matrix(arena, s.windows, pixels, taps), _matrix(arena, s.w, taps, s.m), z)
    if s.bias:
        one = 2.0**s.bias_frac
        for pixel in range(pixels):
            for m in range(s.m):
                z[pixel, m] += arena[s.b + m] * one
    saturated[OUTPUT] += _requantize(
        z, s.output_shift, s.output_low, s.output_high, s.output_round, s.pm, random, OUTPUT
    )
    _pool_and_rectify(s, arena)


# Loss. Softmax cross-entropy takes powers of two from a table.


@njit
def _integer_softmax(scores, frac, powers, e):
    """e[i] = 2**15 * exp(score - largest score), from a table of ``2**(15 - f/1024)``; its sum."""
    top = scores.max()
    total = 0
    for i in range(scores.size):
        behind = np.int64(top - scores[i]) * LOG2_E
        drop = frac + 12 - 10  # keep 10 fractional bits of the exponent
        if drop > 0:
            behind = (behind + (1 << drop - 1)) >> drop
        else:
            behind <<= -drop
        whole = behind >> 10
        e[i] = powers[behind & 1023] >> whole if whole < 16 else 0
        total += e[i]
    return total


@njit
def _integer_loss(total, behind, frac, logarithms):
    """ln(total / 2**15) + behind, with 12 fractional bits: the loss of a class that far behind."""
    whole = 15
    while total >> whole + 1:
        whole += 1
    log2 = (whole - 15 << 12) + logarithms[(total >> whole - 10) & 1023]
    rescaled = behind >> frac - 12 if frac > 12 else behind << 12 - frac
    return (log2 * LN_2 >> 12) + rescaled


@njit
def _cross_entropy(s, scores, label, mantissa, powers, logarithms, one, dy):
    """Put exact errors into ``dy``, ``one`` times the mantissa for 1; returns the loss."""
    frac = s.output_frac
    classes = scores.size
    behind = scores.max() - scores[label]
    if s.errors_round == FLOAT:
        total = 0.0
        for i in range(classes):
            dy[i, 0] = exp((scores[i] - scores.max()) * 2.0**-frac)
            total += dy[i, 0]
        loss = (log(total) + behind * 2.0**-frac) * 2.0**12
        unit = mantissa * one
        for i in range(classes):
            dy[i, 0] *= unit / total
        dy[label, 0] -= unit
    else:
        e = np.empty(classes, np.int64)
        total = _integer_softmax(scores, frac, powers, e)
        loss = float(_integer_loss(total, np.int64(behind), frac, logarithms))
        reciprocal = (1 << 31) // total * mantissa
        for i in range(classes):
            dy[i, 0] = e[i] * reciprocal
        dy[label, 0] -= mantissa << 31
    return loss


@njit
def _squared_loss(s, scores, label, mantissa, hinge, mean, spare, loss_shift, dy):
    """Put exact errors into ``dy``; returns the loss, the mean over the classes of their squares.

    ``mean`` is 2 / classes, ``dy`` that times the mantissa and the distance from the target.
    A square is the distance times itself without its last ``spare`` bits.
    """
    one = 2.0**s.output_frac
    exact = s.errors_round != FLOAT
    real, total = 0.0, 0
    for i in range(scores.size):
        distance = scores[i]
        if i == label:
            distance -= one
        elif hinge:
            distance += one
        if hinge and (distance >= 0 if i == label else distance <= 0):
            distance = 0.0  # beyond its margin
        dy[i, 0] = distance * mean * mantissa
        if exact:
            total += np.int64(distance) * (np.int64(distance) >> spare)
        else:
            real += distance * distance
    if exact:
        return float(min(total * np.int64(mean) >> loss_shift, (1 << 32) - 1))
    return real * mean * 2.0 ** -(loss_shift + spare)


@njit
def _loss(s, arena, scores, op, label, mantissa, rule, random, saturated):
    """Put the error of the scores into ``dy`` if ``op`` is TRAIN; returns the loss."""
    if op == INFER:
        return 0.0
    kind, powers, logarithms, one, spare, loss_shift = rule
    dy = _matrix(arena, s.dy, scores.size, 1)
    if kind == CROSS_ENTROPY:
        loss = _cross_entropy(s, scores, label, mantissa, powers, logarithms, one, dy)
    else:
        hinge = kind == SQUARED_HINGE
        loss = _squared_loss(s, scores, label, mantissa, hinge, one, spare, loss_shift, dy)
    if op == TRAIN:
        saturated[ERRORS] += _requantize(
            dy, s.errors_shift, s.errors_low, s.errors_high, s.errors_round, 1, random, ERRORS
        )
    return loss


# BP: dx[n, h, v] = sum over m, i, j of w[m, n, i, j] * dz[m, h + pad - i, v + pad - j]


@njit
def _unpool(s, arena):
    """dz = dy where y came from, and 0 elsewhere."""
    cols = s.out_cols // s.pool
    for row in range(s.out_rows // s.pool):
        dy = _map_row(arena, s.dy, row, cols, s.m, 0)
        gate = _map_row(arena, s.gate, row, cols, s.m, 0)
        for col in range(cols):
            source = col * s.m
            corner = s.dz + (row * s.pool * s.out_cols + col * s.pool) * s.m
            for position in range(s.pool * s.pool):
                at = corner + (position // s.pool * s.out_cols + position % s.pool) * s.m
                for m in range(s.m):
                    arena[at + m] = (gate[source + m] == position) * dy[source + m]


@njit
def _backward(s, before, arena, random, saturated):
    """Put the error of this stage's input into the ``dy`` of the stage before."""
    pixels, taps = s.out_rows * s.out_cols, s.kernel * s.kernel * s.n
    dz = _matrix(arena, s.dz, pixels, s.m)
    np.dot(dz, _matrix(arena, s.w, taps, s.m).T, _matrix(arena, s.dwindows, pixels, taps))

    run = s.kernel * s.n
    pitch = (s.cols + 2 * s.pad) * s.n
    arena[s.dx : s.dx + (s.rows + 2 * s.pad) * pitch] = 0
    source = s.dwindows
    for row in range(s.out_rows):
        for col in range(s.out_cols):
            for i in range(s.kernel):
                at = s.dx + (row + i) * pitch + col * s.n
                for k in range(run):
                    arena[at + k] += arena[source + k]
                source += run

    for row in range(s.rows):
        _map_row(arena, before.dy, row, s.cols, s.n, 0)[:] = _map_row(
            arena, s.dx, row, s.cols, s.n, s.pad
        )
    saturated[ERRORS] += _requantize(
        _matrix(arena, before.dy, s.rows * s.cols, s.n),
        before.errors_shift,
        before.errors_low,
        before.errors_high,
        before.errors_round,
        before.errors_lanes,
        random,
        ERRORS,
    )


# WU: dw[m, n, i, j] = sum over r, c of dz[m, r, c] * x[n, r + i - pad, c + j - pad]
#     v = momentum * v + rate * (clipped dw + decay * w)
#     w = w - v


@njit
def _add_weight_random(s, arena, dw, db, weight_bits, bias_bits, state):
    """Add random bits to what begins at ``dw`` and ``db``, word after word of weight memory.

    Returns the state that follows.
    """
    for mb in range(s.m // s.pm):
        for nb in range(s.n // s.pn):
            for kb in range(s.kernel * s.kernel // s.pk):
                for pm in range(s.pm):
                    m = mb * s.pm + pm
                    for pn in range(s.pn):
                        for pk in range(s.pk):
                            lane = (pm * s.pn + pn) * s.pk + pk
                            tap = (kb * s.pk + pk) * s.n + nb * s.pn + pn
                            arena[dw + tap * s.m + m] += _lane_bits(state, lane, weight_bits)
                    if s.bias and nb == 0 and kb == 0:
                        lane = s.pm * s.pn * s.pk + pm
                        arena[db + m] += _lane_bits(state, lane, bias_bits)
                state = _advance(state)
    return state


@njit
def _take_in(dw, total, shift, mode, update):
    """Take the mini-batch's running sum into the gradient ``dw``, and keep it if it goes on.

    The sum is kept without its last ``shift`` bits. Returns the largest magnitude in ``dw``.
    """
    keep = FLOAT if mode == FLOAT else TRUNCATE
    scale = 2.0**shift
    largest = 0.0
    for i in range(dw.size):
        dw[i] += total[i] * scale
        largest = max(largest, abs(dw[i]))
        total[i] = 0.0 if update else _round(dw[i] / scale, keep)
    return largest


@njit
def _descend(stored, dw, shift, low, high, mode):
    """stored = saturate(stored - round(dw)); returns how many were saturated."""
    scale = 2.0**-shift
    saturated = 0
    for i in range(stored.size):
        moved = stored[i] - _round(dw[i] * scale, mode)
        stored[i] = min(max(moved, low), high)
        saturated += stored[i] != moved
    return saturated


@njit
def _clip(dw, limit):
    for i in range(dw.size):
        dw[i] = min(max(dw[i], -limit), limit)


@njit
def _add_terms(s, arena, dw, db, momentum, decay):
    """Add to the gradients what the optimiser has for them, on the scale of ``dw``."""
    for m in range(s.m):
        db[m] *= 2.0**s.bias_frac
    momentum = momentum * 2.0**s.momentum_shift
    decay = decay * 2.0**s.decay_shift
    for i in range(dw.size):
        dw[i] += decay * arena[s.w + i]
    for m in range(s.m):
        db[m] += decay * arena[s.b + m]
    if s.velocity_shift:
        for i in range(dw.size):
            dw[i] += momentum * arena[s.w_velocity + i]
        for m in range(s.m):
            db[m] += momentum * arena[s.b_velocity + m]


@njit
def _keep_velocity(s, arena, dw, db, random):
    """Velocities are what weights are changed by, rounded with the low ones of the same random bits.

    Returns how many were saturated.
    """
    mode, shift = s.weights_round, s.velocity_shift
    arena[s.w_moved : s.w_moved + dw.size] = dw
    arena[s.b_moved : s.b_moved + s.m] = db
    if mode == STOCHASTIC:
        _add_weight_random(s, arena, s.w_moved, s.b_moved, shift, shift, random[WEIGHTS])
    scale = 2.0**-shift
    low, high = s.velocity_low, s.velocity_high
    saturated = 0
    for start, moved, size in (
        (s.w_velocity, s.w_moved, dw.size),
        (s.b_velocity, s.b_moved, s.m if s.bias else 0),
    ):
        for i in range(size):
            rounded = _round(arena[moved + i] * scale, mode)
            arena[start + i] = min(max(rounded, low), high)
            saturated += arena[start + i] != rounded
    return saturated


@njit
def _operand(s, stored, operand):
    """What the multipliers see: the stored weights, rounded to their operands' format."""
    mode = FLOAT if s.weights_round == FLOAT else NEAREST
    scale = 2.0**-s.operand_shift
    for i in range(stored.size):
        rounded = _round(stored[i] * scale, mode)
        operand[i] = min(max(rounded, s.operand_low), s.operand_high)


@njit
def _refresh(s, arena):
    weights = s.kernel * s.kernel * s.n * s.m
    if s.w != s.w_stored:
        _operand(s, arena[s.w_stored : s.w_stored + weights], arena[s.w : s.w + weights])
        _operand(s, arena[s.b_stored : s.b_stored + s.m], arena[s.b : s.b + s.m])


@njit
def _update(s, arena, command, batched, random, saturated):
    """Returns the largest magnitude of a mini-batch's running sum."""
    pixels, taps = s.out_rows * s.out_cols, s.kernel * s.kernel * s.n
    update = command.update
    dz = _matrix(arena, s.dz, pixels, s.m) * 2.0**command.shift
    dw = arena[s.dw : s.dw + taps * s.m]
    db = arena[s.db : s.db + s.m]
    np.dot(_matrix(arena, s.windows, pixels, taps).T, dz, dw.reshape(taps, s.m))
    db[:] = 0
    for pixel in range(pixels):
        for m in range(s.m):
            db[m] += dz[pixel, m]

    largest = 0.0
    mode = s.weights_round
    if batched:
        w_sum, b_sum = arena[s.w_sum : s.w_sum + dw.size], arena[s.b_sum : s.b_sum + s.m]
        largest = max(
            _take_in(dw, w_sum, s.weight_batch_shift, mode, update),
            _take_in(db, b_sum, s.bias_batch_shift, mode, update),
        )
    if update:
        if s.weight_clip_shift >= 0:
            _clip(dw, command.clip * 2.0**s.weight_clip_shift)
            _clip(db, command.clip * 2.0**s.bias_clip_shift)
        if s.terms:
            _add_terms(s, arena, dw, db, command.momentum, command.decay)
        if s.velocity_shift:
            saturated[VELOCITY] += _keep_velocity(s, arena, dw, db, random)
        if mode == STOCHASTIC:
            random[WEIGHTS] = _add_weight_random(
                s, arena, s.dw, s.db, s.weight_update_shift, s.bias_update_shift, random[WEIGHTS]
            )
        low, high = s.stored_low, s.stored_high
        stored = arena[s.w_stored : s.w_stored + dw.size]
        saturated[WEIGHTS] += _descend(stored, dw, s.weight_update_shift, low, high, mode)
        if s.bias:
            stored = arena[s.b_stored : s.b_stored + s.m]
            saturated[WEIGHTS] += _descend(stored, db, s.bias_update_shift, low, high, mode)
        _refresh(s, arena)
    return largest


# What Python calls.


@njit(cache=True)
def refresh_operands(stages, arena):
    """Derive the multipliers' operands from the stored weights."""
    for i in range(stages.size):
        _refresh(stages[i], arena)


@njit(cache=True)
def run_samples(
    stages, arena, random, saturated, rule, x, commands, limit, scores, loss, predicted
):
    """Process samples in order.

    Parameters
    ----------
    stages : array of :data:`STAGE`
    arena : float64 array
    random : int64 array, (stages, sites)
        Random states; advanced.
    saturated : int64 array, (stages, sites)
        Counts of saturated numbers; added to.
    rule : (:class:`int`, two int64 arrays, :class:`float`, :class:`int`, :class:`int`)
        The loss: its kind; for cross-entropy, powers and logarithms of two; an error of 1 before it is
        rounded, or ``2 / classes`` as the plan's ``mean_factor`` has it; for squares, bits dropped of one
        factor, and bits that the product of their sum and ``2 / classes`` has more than a loss.
    x : int64 array, (samples, channels, rows, columns)
    commands : array of :data:`COMMAND`
    limit : :class:`float`
        What a mini-batch's running sum of gradients must stay below; 0 where there is none.
    scores, loss, predicted : float64 (samples, classes), float64, int64 arrays
        Filled with the results.

    Returns the sample and the stage whose running sum reached the limit, or (-1, -1).
    """
    first, last = stages[0], stages[stages.size - 1]
    for sample in range(x.shape[0]):
        command = commands[sample]
        for row in range(first.rows):
            to = _map_row(arena, first.x, row, first.cols, first.n, first.pad)
            for col in range(first.cols):
                for n in range(first.n):
                    to[col * first.n + n] = x[sample, n, row, col]
        for i in range(stages.size):
            _forward(stages[i], arena, random[i], saturated[i])

        z = arena[last.y : last.y + last.m]
        scores[sample] = z
        predicted[sample] = np.argmax(z)
        loss[sample] = _loss(
            last,
            arena,
            z,
            command.op,
            command.label,
            command.mantissa,
            rule,
            random[stages.size - 1],
            saturated[stages.size - 1],
        )
        if command.op != TRAIN:
            continue
        for i in range(stages.size - 1, -1, -1):
            s = stages[i]
            if not s.takes_errors:  # nor does any stage before it
                break
            _unpool(s, arena)
            if s.back:
                _backward(s, stages[i - 1], arena, random[i - 1], saturated[i - 1])
            if not s.trainable or command.frozen >> i & 1:
                continue
            largest = _update(s, arena, command, limit > 0, random[i], saturated[i])
            if largest >= limit > 0:
                return sample, i
    return -1, -1
