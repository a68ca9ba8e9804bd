"""How far one training step of the golden model is from real arithmetic, and how far it may be.

A bound has two parts. Numbers that are rounded before anything is computed with them (weights, the
sample, and for the gradients what the forward pass has put out) are known, so their effect is computed
in real numbers. Each rounding after that is off by at most half a unit of its format (a whole one
where numbers are truncated or rounded at random). How far outputs' roundings move the scores follows
from the scores' derivatives; how far errors' roundings move the gradients, from the norms of the layers'
matrices. ``docs/numbers.md`` derives it. Norms are Euclidean.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from streamtrain.golden.model import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.network import CrossEntropy
from streamtrain.numeric import Round
from streamtrain.pipeline.plan import RATE_UNIT
from streamtrain.tables import Shown

__all__ = ["StepRounding", "rounding_of_step"]

# The hardware's softmax (streamtrain.golden.kernels): fractional bits and factors of its tables.
_EXPONENT_UNIT = 2.0**-10
_POWER_UNIT = 2.0**-15
_LOG2_E = 5909 / 4096
_RECIPROCAL_UNIT = 2.0**-16  # of a class, relative


@dataclass(frozen=True)
class StepRounding(Shown):
    """One training step in formats and in real numbers.

    Parameters
    ----------
    scores : array (classes,)
        In real numbers, as the model's own weights give them.
    gradients : dict of arrays
        Of the loss, in real numbers, by the weights' names.
    distances, bounds : dicts of :class:`float`
        By ``"scores"`` and the weights' names: the norm of the difference between the golden model
        and real numbers, and what it may be at most.
    """

    scores: np.ndarray
    gradients: dict
    distances: dict
    bounds: dict

    @property
    def within(self):
        """Whether all distances are within their bounds."""
        return all(self.distances[name] <= bound for name, bound in self.bounds.items())

    def table(self):
        """Header and rows: tensor, its norm in real numbers, distance, bound."""
        real = {"scores": self.scores, **self.gradients}
        rows = [
            (name, float(np.linalg.norm(real[name])), self.distances[name], bound)
            for name, bound in self.bounds.items()
        ]
        return ("tensor", "norm", "distance", "at most"), rows


def rounding_of_step(plan, x, label):
    """Take one training step, from the network's first weights, in formats and in real numbers.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    x : float array (channels, rows, columns)
        One sample.
    label : :class:`int`

    Returns :class:`StepRounding`. The hardware's gradient is its change of the stored weights,
    divided by the learning rate.

    Raises
    ------
    ValueError
        If the loss is not cross-entropy, or a number was saturated: formats that are too narrow are
        no rounding.
    """
    network = plan.network
    if not isinstance(network.loss, CrossEntropy):
        raise ValueError(f"The bound is for CrossEntropy, not {type(network.loss).__name__}")
    x = np.asarray(x, np.float64)
    weights = network.initial_weights()
    real_inputs, real_gates, real_scores = _forward(plan, weights, x)
    real = _backward(plan, weights, real_inputs, real_gates, real_scores, label)

    run = _Run(plan, x, label)
    exact_inputs, exact_gates, scores = _forward(plan, run.weights, run.inputs[0])
    gates = _decided(plan, run.weights, run)
    exact = _backward(plan, run.weights, run.inputs, gates, run.scores, label)

    rounding = _score_rounding(plan, run, exact_inputs, exact_gates, scores)
    bounds = {"scores": np.linalg.norm(rounding) + np.linalg.norm(scores - real_scores)}
    distances = {"scores": np.linalg.norm(run.scores - real_scores)}
    limits = _gradient_rounding(plan, run.weights, run)
    for name, gradient in real.items():
        bounds[name] = limits[name] + np.linalg.norm(exact[name] - gradient)
        distances[name] = np.linalg.norm(run.gradients[name] - gradient)
    return StepRounding(
        scores=real_scores,
        gradients=real,
        distances={name: float(distance) for name, distance in distances.items()},
        bounds={name: float(bound) for name, bound in bounds.items()},
    )


class _Run:
    """The golden model's step: what came of it, in real units and PyTorch's order."""

    def __init__(self, plan, x, label):
        golden = Golden(plan)
        codes = golden.read_weights()
        before = plan.decode_weights(codes)
        mantissa, shift = plan.rate_code(plan.network.optimizer.lr)
        look = Commands(*(np.array([value]) for value in (Op.INFER, 0, 0, 0, 0)))
        train = Commands(*(np.array([value]) for value in (Op.TRAIN, label, 1, mantissa, shift)))
        x = plan.stages[0].input.encode(x)
        scores = golden.run(x[np.newaxis], look).scores[0]
        trace = golden.trace(x, train)
        for stage, sites in golden.saturations().items():
            for site, count in sites.items():
                if count:
                    raise ValueError(f"{stage} saturated {count} of its {site}; take wider formats")
        after = plan.decode_weights(golden.read_weights())

        self.scores = plan.stages[-1].output.decode(scores)
        self.scale = mantissa / RATE_UNIT  # of all errors
        self.rate = self.scale * 2.0 ** (shift - plan.rate_exponent)
        self.gradients = {name: (before[name] - after[name]) / self.rate for name in before}
        self.weights = {}  # as they are multiplied
        formats = {stage.name: stage.weights for stage in plan.stages}
        for name, real in before.items():
            fmt = formats[name.partition(".")[0]]
            self.weights[name] = fmt.decode(fmt.encode(real))
        self.dz = [stage.errors.decode(trace[stage.name]["dz"]) for stage in plan.stages]
        self.inputs = []
        for stage in plan.stages:
            x = stage.input.decode(trace[stage.name]["x"])
            if stage.linear:  # from the order of arrival
                channels, rows, cols = stage.flattened
                x = x.reshape(rows, cols, channels).transpose(2, 0, 1).reshape(-1, 1, 1)
            self.inputs.append(x)


# -- The same step in real numbers --------------------------------------------------------------


def _tensors(stage, weights):
    """Weights (M, N, K, K) and biases."""
    weight = weights[f"{stage.name}.weight"]
    weight = weight.reshape(*weight.shape, 1, 1) if stage.linear else weight
    return weight, weights.get(f"{stage.name}.bias", 0.0)


def _windows(stage, x):
    """(pixels, N * K * K): what each output's weights are multiplied with."""
    pad, k = stage.pad, stage.kernel
    grown = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(grown, (k, k), axis=(1, 2))
    windows = windows[:, : stage.out_rows, : stage.out_cols]
    return windows.transpose(1, 2, 0, 3, 4).reshape(stage.pixels, -1)


def _sums(stage, weight, bias, x):
    """FP."""
    z = _windows(stage, x) @ weight.reshape(len(weight), -1).T
    return (z + bias).T.reshape(-1, stage.out_rows, stage.out_cols)


def _input_errors(stage, weight, dz):
    """BP, of several errors (errors, M, out_rows, out_cols) at once."""
    pad, rows, cols = stage.pad, stage.out_rows, stage.out_cols
    size = (stage.rows + 2 * pad, stage.cols + 2 * pad)
    dx = np.zeros((weight.shape[1], len(dz), *size))
    for i in range(stage.kernel):
        for j in range(stage.kernel):
            dx[:, :, i : i + rows, j : j + cols] += np.tensordot(weight[:, :, i, j], dz, (0, 1))
    return dx[:, :, pad : pad + stage.rows, pad : pad + stage.cols].swapaxes(0, 1)


def _squares(stage, z):
    """(M, pooled rows, pooled cols, places)."""
    p, (rows, cols) = stage.pool, stage.pooled
    return (
        z.reshape(len(z), rows, p, cols, p).transpose(0, 1, 3, 2, 4).reshape(-1, rows, cols, p * p)
    )


def _unpooled(stage, gates, dy):
    """The errors of the sums: ``dy`` (errors, M, ...) at the gates' places, 0 elsewhere."""
    p, (rows, cols) = stage.pool, stage.pooled
    dz = np.where(np.arange(p * p) == gates[..., np.newaxis], dy[..., np.newaxis], 0.0)
    dz = dz.reshape(len(dy), -1, rows, cols, p, p).transpose(0, 1, 2, 4, 3, 5)
    return dz.reshape(len(dy), -1, stage.out_rows, stage.out_cols)


def _passed(stage, gates, z):
    """Of the sums, those that the gates let through; 0 where there are none."""
    there = np.take_along_axis(_squares(stage, z), np.maximum(gates, 0)[..., np.newaxis], -1)[
        ..., 0
    ]
    return np.where(gates >= 0, there, 0.0)


def _forward(plan, weights, x):
    """Inputs and gates of all stages, and the scores. A gate is a place in a square; -1: rectified."""
    inputs, gates = [], []
    for stage in plan.stages:
        x = x.reshape(-1, 1, 1) if stage.linear else x
        inputs.append(x)
        squares = _squares(stage, _sums(stage, *_tensors(stage, weights), x))
        x, places = squares.max(axis=-1), squares.argmax(axis=-1)
        if stage.relu:
            places = np.where(x > 0, places, -1)
            x = np.maximum(x, 0)
        gates.append(places)
    return inputs, gates, x.ravel()


def _backward(plan, weights, inputs, gates, scores, label):
    """Gradients of the loss, by the weights' names."""
    dy = np.exp(scores - scores.max())
    dy /= dy.sum()
    dy[label] -= 1
    gradients = {}
    for i in reversed(range(len(plan.stages))):
        stage = plan.stages[i]
        (dz,) = _unpooled(stage, gates[i], dy.reshape(1, *gates[i].shape))
        dw = dz.reshape(len(dz), -1) @ _windows(stage, inputs[i])
        name = f"{stage.name}.weight"
        gradients[name] = dw.reshape(weights[name].shape)
        if stage.bias:
            gradients[f"{stage.name}.bias"] = dz.sum(axis=(1, 2))
        if i:
            (dy,) = _input_errors(stage, _tensors(stage, weights)[0], dz[np.newaxis])
    return {name: gradients[name] for name in weights}


# -- The bound --------------------------------------------------------------------------------------


def _unit(fmt, mode):
    """Most that one rounding is off."""
    part = 0.5 if mode in (Round.NEAREST, Round.NEAREST_EVEN) else 1.0
    return part * 2.0**-fmt.frac


def _gain(stage, weight):
    """Most by which the layer's sums stretch a difference: the norm of its matrix, or more.

    A convolution is part of a circular one on a map as large as the padded one, whose norm is the
    largest of its frequencies' (Sedghi et al., "The singular values of convolutional layers", ICLR
    2019).
    """
    if stage.kernel == 1:
        return np.linalg.norm(weight[:, :, 0, 0], 2)
    size = (stage.rows + 2 * stage.pad, stage.cols + 2 * stage.pad)
    frequencies = np.fft.rfft2(weight, size).transpose(2, 3, 0, 1)
    return np.linalg.norm(frequencies, 2, axis=(2, 3)).max()


def _softmax_bound(scores):
    """How far the hardware's softmax may be from the exact one of the same scores."""
    behind = scores.max() - scores
    exponent = _EXPONENT_UNIT / 2 + behind * abs(_LOG2_E - np.log2(np.e))
    powers = np.exp(-behind)
    off = powers * (2.0**exponent - 1) + 1.5 * _POWER_UNIT  # the table's rounding, and a shift's
    total = powers.sum()
    probabilities = (powers + off) / total
    division = np.linalg.norm(probabilities) * len(scores) * _RECIPROCAL_UNIT
    return (np.linalg.norm(off) + np.linalg.norm(probabilities) * off.sum()) / total + division


def _score_rounding(plan, run, inputs, gates, scores):
    """How far roundings of outputs may have moved each score from those of real arithmetic.

    ``inputs``, ``gates`` and ``scores`` are those of real arithmetic on the same weights. Where the
    golden model takes another branch of a ReLU or a pool, the difference that makes is known; ``branch``
    carries it to the scores. A rounding's way to them is linear: ``reach`` is its factor.
    """
    branch = np.zeros_like(inputs[0])
    following = [*inputs[1:], scores]
    for i, stage in enumerate(plan.stages):
        weight, bias = _tensors(stage, run.weights)
        sums = _sums(stage, weight, bias, run.inputs[i])
        squares = _squares(stage, sums).max(axis=-1)
        output = np.maximum(squares, 0) if stage.relu else squares
        along = _sums(stage, weight, bias, inputs[i])
        residue = (
            output - following[i].reshape(output.shape) - _passed(stage, gates[i], sums - along)
        )
        branch = branch.reshape(inputs[i].shape)
        branch = _passed(stage, gates[i], _sums(stage, weight, 0.0, branch)) + residue
    last = plan.stages[-1]
    moved = abs(branch.ravel()) + _unit(last.output, last.round_output)
    reach = np.eye(len(scores))
    for i in reversed(range(1, len(plan.stages))):
        stage, before = plan.stages[i], plan.stages[i - 1]
        dz = _unpooled(stage, gates[i], reach.reshape(len(scores), *gates[i].shape))
        reach = _input_errors(stage, _tensors(stage, run.weights)[0], dz)
        unit = _unit(before.output, before.round_output)
        moved += unit * abs(reach).reshape(len(scores), -1).sum(axis=1)
    return moved


def _gradient_rounding(plan, weights, run):
    """How far roundings of errors and weights may move the gradients, by the weights' names."""
    limits = {}
    last = plan.stages[-1]
    unit = _unit(last.errors, last.round_errors) / run.scale
    moved = _softmax_bound(run.scores) + unit * sqrt(len(run.scores))
    for i in reversed(range(len(plan.stages))):
        stage = plan.stages[i]
        unit = _unit(stage.stored, stage.round_weights) / run.rate
        weight, _ = _tensors(stage, weights)
        gain = np.linalg.norm(_windows(stage, run.inputs[i]), 2)
        limits[f"{stage.name}.weight"] = gain * moved + unit * sqrt(weight.size)
        if stage.bias:
            limits[f"{stage.name}.bias"] = sqrt(stage.pixels) * moved + unit * sqrt(len(weight))
        if i:
            before = plan.stages[i - 1]
            unit = _unit(before.errors, before.round_errors) / run.scale
            moved = _gain(stage, weight) * moved + unit * sqrt(run.inputs[i].size)
    return limits


def _decided(plan, weights, run):
    """The golden model's gates, as far as rounding the sums of its own inputs can decide them.

    Any other gate is the one of the exact sums, so that a wrong decision shows as a distance.
    """
    gates = []
    following = [*run.inputs[1:], run.scores]
    for stage, x, y, dz in zip(plan.stages, run.inputs, following, run.dz, strict=True):
        squares = _squares(stage, _sums(stage, *_tensors(stage, weights), x))
        top, exact = squares.max(axis=-1), squares.argmax(axis=-1)
        unit = _unit(stage.output, stage.round_output)
        passed = _squares(stage, dz)
        place = np.where(passed.any(axis=-1), abs(passed).argmax(axis=-1), exact)
        there = np.take_along_axis(squares, place[..., np.newaxis], -1)[..., 0]
        place = np.where(there >= top - 2 * unit, place, exact)
        if stage.relu:
            on = np.where(abs(top) <= unit, y.reshape(top.shape) > 0, top > 0)
            place = np.where(on, place, -1)
        gates.append(place)
    return gates
