"""Tensors as the bits that a design's streams and memories carry, and back."""

from math import prod

import numpy as np

__all__ = [
    "STATE_BITS",
    "pack_lanes",
    "pack_samples",
    "pack_states",
    "stage_weights",
    "stage_words",
    "unpack_lanes",
    "unpack_states",
    "words32",
]

STATE_BITS = 32
"""Bits of one state of random bits."""


def words32(bits):
    """32-bit words that ``bits`` bits take."""
    return -(-bits // 32)


def pack_lanes(codes, width):
    """Integer codes (count, lanes) as bits, the first lane lowest: uint32 (count, words)."""
    codes = np.asarray(codes, dtype=np.int64)
    count, lanes = codes.shape
    if width in {8, 16, 32} and lanes * width % 32 == 0:
        narrow = codes.astype({8: np.int8, 16: np.int16, 32: np.int32}[width])
        return np.ascontiguousarray(narrow).view(np.uint32).reshape(count, -1)
    bits = (codes[:, :, None] >> np.arange(width)) & 1
    packed = np.packbits(bits.reshape(count, -1).astype(np.uint8), axis=1, bitorder="little")
    whole = np.zeros((count, words32(lanes * width) * 4), dtype=np.uint8)
    whole[:, : packed.shape[1]] = packed
    return whole.view(np.uint32)


def unpack_lanes(words, width, lanes, *, start=0, step=None, is_signed=True):
    """Codes (count, lanes) from bits (count, words): lane n begins at bit ``start + n * step``."""
    step = width if step is None else step
    words = np.ascontiguousarray(words, dtype=np.uint32)
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    where = start + step * np.arange(lanes)[:, None] + np.arange(width)
    values = bits[:, where].astype(np.int64) @ (np.int64(1) << np.arange(width, dtype=np.int64))
    if is_signed:
        values -= (values >> width - 1 & 1) << width
    return values


def pack_samples(stage, x):
    """Samples (count, channels, rows, columns) as the first stage's beats: uint32 (beats, words)."""
    _, lanes, _ = stage.folding
    pixels = np.moveaxis(np.asarray(x), 1, -1)
    return pack_lanes(pixels.reshape(-1, lanes), stage.input.width)


def _stream_order(stage, weight):
    """Weights with input features in the order in which they arrive: (M, N, K * K)."""
    n, m = stage.channels
    channels, rows, cols = stage.flattened
    if rows * cols > 1:
        weight = weight.reshape(m, channels, rows * cols).transpose(0, 2, 1)
    return weight.reshape(m, n, stage.kernel**2)


def stage_words(stage, weight, bias):
    """Weights of a stage as it stores them.

    Parameters
    ----------
    stage : :class:`~streamtrain.pipeline.plan.Stage`
    weight : integer array, (M, N, K, K) or (M, N)
    bias : integer array, (M,), or None

    Returns an array (words, lanes): for each word Pm x Pn x Pk weights, then Pm biases.
    """
    (pm, pn, pk), (m_blocks, n_blocks, taps) = stage.folding, stage.blocks
    blocks = _stream_order(stage, np.asarray(weight)).reshape(m_blocks, pm, n_blocks, pn, taps, pk)
    words = blocks.transpose(0, 2, 4, 1, 3, 5).reshape(stage.words, -1)
    if bias is None:
        return words
    repeated = np.repeat(np.asarray(bias).reshape(m_blocks, pm), n_blocks * taps, axis=0)
    return np.concatenate([words, repeated], axis=1)


def stage_weights(stage, words):
    """Undo :func:`stage_words`. Biases are those of the first word of their block.

    Returns ``(weight, bias)``, the weight shaped (M, N, K, K), or (M, N) for a linear layer.
    """
    (pm, pn, pk), (m_blocks, n_blocks, taps) = stage.folding, stage.blocks
    n, m = stage.channels
    lanes = prod(stage.folding)
    blocks = words[:, :lanes].reshape(m_blocks, n_blocks, taps, pm, pn, pk)
    weight = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(m, n, stage.kernel**2)
    channels, rows, cols = stage.flattened
    if stage.linear:
        if rows * cols > 1:
            weight = weight.reshape(m, rows * cols, channels).transpose(0, 2, 1)
        weight = weight.reshape(m, n)
    else:
        weight = weight.reshape(stage.weight_shape)
    bias = words[:: n_blocks * taps, lanes:].reshape(m) if stage.bias else None
    return weight, bias


def pack_states(plan, states):
    """States of a plan's random bits as the hardware scans them, a bit each cycle: (cycles,).

    The registers are linked in the order of the plan's ``random_sites``; the highest bit of the last one
    comes first.
    """
    names = [f"{stage.name}.{site}" for _, stage, site in plan.random_sites]
    found = np.array([states[name] for name in reversed(names)], np.uint64)
    return (
        found[:, None] >> np.arange(STATE_BITS - 1, -1, -1, dtype=np.uint64) & np.uint64(1)
    ).ravel()


def unpack_states(plan, bits):
    """Undo :func:`pack_states`."""
    names = [f"{stage.name}.{site}" for _, stage, site in plan.random_sites]
    weights = 1 << np.arange(STATE_BITS - 1, -1, -1)
    values = bits.astype(np.int64).reshape(-1, STATE_BITS) @ weights
    return dict(zip(names, values[::-1].tolist(), strict=True))
