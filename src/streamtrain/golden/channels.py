"""What batch normalization computes for each channel, bit for bit: a program of a few dozen operations.

The sums over a mini-batch are the array's work, and so is normalization itself, as ``a * y + b``. What is between
the two is done here, for one channel as for all others: ``a`` and ``b`` of sums, and what the backward pass
needs. :class:`~streamtrain.unified.channels.ChannelProcessor` runs the same programs in gates.

All numbers are FP32. A channel has 64 registers; the first :data:`ROWS` of them are in memory, too.

A variance is the mean of squares less the square of the mean, which costs digits where the mean is far from
zero. So the convolution takes off the running mean: it is part of its bias, ``SHIFT``, and y has a mean
near to zero, wherever it was.
"""

from enum import IntEnum

import numpy as np

from streamtrain.golden.passes import PARTIALS
from streamtrain.numeric.add import add_codes
from streamtrain.numeric.floating import FP32
from streamtrain.numeric.multiply import multiply_codes

__all__ = [
    "CONSTANTS", "MAGIC", "PROGRAMS", "ROWS", "Op", "Register", "constants", "registers", "run",
    "tensors", "with_constants",
]  # fmt: skip


class Register(IntEnum):
    """Registers of a channel by name. Beyond them are numbers that all channels share."""

    GAMMA = 0
    BETA = 1
    RUNNING_MEAN = 2
    RUNNING_VAR = 3
    MEAN = 4
    """Of a mini-batch, less the running one."""
    DEVIATION = 5
    """One over the standard deviation, that is."""
    PER_PIXEL = 6
    """One over the number of pixels in a mini-batch."""
    EPS = 7
    KEEP = 8
    """What remains of running statistics: one less the momentum."""
    MOMENTUM = 9
    UNBIASED = 10
    """Momentum, times pixels over pixels less one."""
    OFFSET = 11
    """Bias of the convolution: normalization takes it off again, so it is not trained."""
    SHIFT = 12
    """``OFFSET``, less the running mean."""
    B = 13
    D = 14
    SUM = 15
    """Of y, or of dy: the first of as many as there are partial sums; then it is all."""
    PRODUCTS = SUM + PARTIALS
    """Of y * y, or of dy * y, likewise."""
    A = PRODUCTS + PARTIALS
    C = A + 1
    T = A + 2
    U = A + 3
    HALF = 64
    THREE_HALVES = 65
    RATE = 66


R = Register

ROWS = R.D + 1
"""Registers that are in memory: those before ``SUM``."""

_TENSORS = {
    R.GAMMA: "weight", R.BETA: "bias", R.RUNNING_MEAN: "running_mean",
    R.RUNNING_VAR: "running_var",
}  # fmt: skip

CONSTANTS = {R.HALF: 0.5, R.THREE_HALVES: 1.5}

MAGIC = 0x5F3759DF
"""What the code of a number, halved, is taken from: about the code of one over its root.

It is off by up to 3.5 %; after three steps of Newton's method, by no more than they round.

Source: Lomont, "Fast inverse square root", 2003.
"""


class Op(IntEnum):
    """An operation on registers a and b."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    POSITIVE = 3
    """a, or zero if that is larger."""
    ROOT = 4
    """About one over the root of a."""


def _added_up(first):
    """Partial sums become one: neighbours, their sums, and so on."""
    program, step = [], 1
    while step < PARTIALS:
        for at in range(first, first + PARTIALS, 2 * step):
            program.append((Op.ADD, at, at, at + step))
        step *= 2
    return program


def _scaling(variance):
    """One over the standard deviation, and a."""
    program = [
        (Op.ADD, R.T, variance, R.EPS),
        (Op.MULTIPLY, R.U, R.T, R.HALF),
        (Op.ROOT, R.DEVIATION, R.T, R.T),
    ]
    for _ in range(3):
        program += [
            (Op.MULTIPLY, R.T, R.DEVIATION, R.DEVIATION),
            (Op.MULTIPLY, R.T, R.T, R.U),
            (Op.SUBTRACT, R.T, R.THREE_HALVES, R.T),
            (Op.MULTIPLY, R.DEVIATION, R.DEVIATION, R.T),
        ]
    return [
        *program,
        (Op.MULTIPLY, R.A, R.GAMMA, R.DEVIATION),
    ]


PROGRAMS = {
    # Sums of y and y * y: statistics of the mini-batch.
    "train": (
        *_added_up(R.SUM),
        *_added_up(R.PRODUCTS),
        (Op.MULTIPLY, R.MEAN, R.SUM, R.PER_PIXEL),
        (Op.MULTIPLY, R.T, R.PRODUCTS, R.PER_PIXEL),
        (Op.MULTIPLY, R.U, R.MEAN, R.MEAN),
        (Op.SUBTRACT, R.T, R.T, R.U),
        (Op.POSITIVE, R.C, R.T, R.T),
        (Op.MULTIPLY, R.T, R.MEAN, R.MOMENTUM),
        (Op.ADD, R.RUNNING_MEAN, R.RUNNING_MEAN, R.T),
        (Op.SUBTRACT, R.SHIFT, R.OFFSET, R.RUNNING_MEAN),
        (Op.MULTIPLY, R.RUNNING_VAR, R.RUNNING_VAR, R.KEEP),
        (Op.MULTIPLY, R.T, R.C, R.UNBIASED),
        (Op.ADD, R.RUNNING_VAR, R.RUNNING_VAR, R.T),
        *_scaling(R.C),
        (Op.MULTIPLY, R.T, R.MEAN, R.A),
        (Op.SUBTRACT, R.B, R.BETA, R.T),
    ),
    # The running statistics: of y, the mean is zero.
    "evaluate": (
        *_scaling(R.RUNNING_VAR),
        (Op.SUBTRACT, R.T, R.A, R.A),
        (Op.ADD, R.B, R.BETA, R.T),
    ),
    # Sums of dy and dy * y: dx = a * dy + c * y + d, and new gamma and beta.
    "back": (
        *_added_up(R.SUM),
        *_added_up(R.PRODUCTS),
        (Op.MULTIPLY, R.T, R.MEAN, R.SUM),
        (Op.SUBTRACT, R.T, R.PRODUCTS, R.T),
        (Op.MULTIPLY, R.T, R.T, R.DEVIATION),  # dgamma
        (Op.MULTIPLY, R.A, R.GAMMA, R.DEVIATION),
        (Op.MULTIPLY, R.U, R.A, R.PER_PIXEL),
        (Op.MULTIPLY, R.C, R.U, R.DEVIATION),
        (Op.MULTIPLY, R.C, R.C, R.T),  # minus c
        (Op.MULTIPLY, R.D, R.C, R.MEAN),
        (Op.MULTIPLY, R.U, R.U, R.SUM),
        (Op.SUBTRACT, R.D, R.D, R.U),
        (Op.SUBTRACT, R.U, R.C, R.C),
        (Op.SUBTRACT, R.C, R.U, R.C),
        (Op.MULTIPLY, R.T, R.T, R.RATE),
        (Op.ADD, R.GAMMA, R.GAMMA, R.T),
        (Op.MULTIPLY, R.T, R.SUM, R.RATE),
        (Op.ADD, R.BETA, R.BETA, R.T),
    ),
}  # fmt: skip
"""Programs by name: (operation, to, a, b) one after the other.

Source: the gradients of Ioffe and Szegedy, "Batch normalization", ICML 2015, section 3, sorted by dy and y.
"""


def constants(pixels, eps, momentum):
    """Codes of those registers that no program changes.

    Parameters
    ----------
    pixels : :class:`int`
        Of a channel in a mini-batch.
    eps, momentum : :class:`float`
        :class:`~streamtrain.network.BatchNorm2d`'s.
    """
    real = {
        R.PER_PIXEL: 1 / pixels, R.EPS: eps, R.KEEP: 1 - momentum, R.MOMENTUM: momentum,
        R.UNBIASED: momentum * pixels / max(1, pixels - 1),
    }  # fmt: skip
    return {register: FP32.encode(value) for register, value in real.items()}


def registers(plan, layer, weights):
    """Registers of a batch norm's channels, (ROWS, tiles * lanes) as codes, but for its constants.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.plan.UnifiedPlan`
    layer : :class:`~streamtrain.unified.plan.KernelLayer`
    weights : dict of arrays
        Real numbers by PyTorch's names.
    """
    rows = np.zeros((ROWS, layer.tiles[0] * layer.lanes), np.uint32)
    for register, name in _TENSORS.items():
        rows[register, : layer.m] = FP32.encode(weights[f"{layer.name}.{name}"])
    offset = weights.get(f"{plan.before(layer).name}.bias", np.zeros(layer.m))
    rows[R.OFFSET, : layer.m] = FP32.encode(offset)
    minus = rows[R.RUNNING_MEAN] ^ np.uint32(1 << 31)
    rows[R.SHIFT] = add_codes(rows[R.OFFSET], minus, FP32)
    return rows


def tensors(plan, layer, rows):
    """Codes of what :func:`registers` was given, by name."""
    found = {
        f"{layer.name}.{name}": rows[register, : layer.m] for register, name in _TENSORS.items()
    }
    if plan.before(layer).bias:
        found[f"{plan.before(layer).name}.bias"] = rows[R.OFFSET, : layer.m]
    return found


def with_constants(layer, rows, images):
    """Registers for mini-batches of so many images."""
    rows, pixels = rows.copy(), images * layer.rows * layer.columns
    for register, code in constants(pixels, layer.norm.eps, layer.norm.momentum).items():
        rows[register] = code
    return rows


def run(name, rows, sums, products, rate=0):
    """Run a program. Returns all registers, (64, channels) as codes.

    Parameters
    ----------
    name : :class:`str`
        Of :data:`PROGRAMS`.
    rows : integer array (ROWS, channels)
        Registers from memory.
    sums, products : integer arrays (PARTIALS, channels)
        Codes of partial sums.
    rate : :class:`int`
        Code of what gradients are multiplied with.
    """
    registers = np.zeros((64, rows.shape[1]), np.uint32)
    registers[: R.A] = np.concatenate([rows, sums, products])
    shared = {register: FP32.encode(value) for register, value in CONSTANTS.items()}
    shared[R.RATE] = np.uint32(rate)
    for op, to, *sources in PROGRAMS[name]:
        a, b = (
            registers[s] if s < len(registers) else np.broadcast_to(shared[s], rows.shape[1:])
            for s in sources
        )
        registers[to] = _computed(op, a, b)
    return registers


def _computed(op, a, b):
    if op is Op.MULTIPLY:
        return multiply_codes(a, b, FP32, FP32)
    if op is Op.POSITIVE:
        return np.where(a >> 31, np.uint32(0), a)
    if op is Op.ROOT:
        return np.uint32(MAGIC) - (a >> np.uint32(1))
    return add_codes(a, b ^ np.uint32(op is Op.SUBTRACT) << np.uint32(31), FP32)
