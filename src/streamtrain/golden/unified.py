"""The golden model of the unified core: what a training step does to its weights, bit for bit."""

import numpy as np

from streamtrain.golden import channels, passes
from streamtrain.golden.channels import ROWS, Register
from streamtrain.golden.softmax import PROBABILITY_BITS, SCORE, probabilities
from streamtrain.numeric import FloatArithmetic, Round, requantize_codes
from streamtrain.numeric.floating import FP32
from streamtrain.unified.plan import tiled

__all__ = ["UnifiedGolden", "pooled", "unpooled"]


class UnifiedGolden:
    """Train a :class:`~streamtrain.unified.plan.UnifiedPlan` in software, a mini-batch at a time.

    Weights are kept as accumulators, and narrowed to operands when they are multiplied. An update is
    ``w + (-rate * dw)``, where ``dw`` is the sum over the mini-batch: the rate is the learning rate divided by
    its size.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.plan.UnifiedPlan`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`

    Attributes
    ----------
    weights, biases : dict of arrays by layer
        As :meth:`~streamtrain.unified.plan.KernelLayer.pack` makes them: float32 numbers, or codes of the
        accumulator.
    channels : dict of arrays by layer
        Of batch norms: the registers of their channels, (rows, tiles * lanes), that are in memory.
    """

    def __init__(self, plan, arithmetic):
        plan.check(arithmetic)
        self.plan = plan
        self.arithmetic = arithmetic
        self.numbers = _Numbers(arithmetic)
        initial = plan.network.initial_weights()
        self.weights, self.biases, self.channels = {}, {}, {}
        for layer in plan.layers:
            if layer.norm:
                self.channels[layer.name] = channels.registers(plan, layer, initial)
                continue
            weight = self.numbers.accumulators(initial[f"{layer.name}.weight"])
            self.weights[layer.name] = layer.pack(weight)
            bias = np.zeros((layer.tiles[0] * layer.lanes,), weight.dtype)
            if layer.bias:
                bias[: layer.m] = self.numbers.accumulators(initial[f"{layer.name}.bias"])
            self.biases[layer.name] = bias.reshape(layer.tiles[0], layer.lanes)

    def read_weights(self):
        """Weights and biases by PyTorch's names, in its shapes, as real numbers."""
        found = {}
        for layer in self.plan.layers:
            if layer.norm:
                rows = self.channels[layer.name]
                found |= {
                    name: FP32.decode(codes)
                    for name, codes in channels.tensors(self.plan, layer, rows).items()
                }
                continue
            weight = self.numbers.real(layer.unpack(self.weights[layer.name]))
            shape = (layer.m, layer.n) if layer.linear else weight.shape
            found[f"{layer.name}.weight"] = weight.reshape(shape)
            if layer.bias and not self.plan.norm_of(layer):
                found[f"{layer.name}.bias"] = self.numbers.real(
                    self.biases[layer.name].ravel()[: layer.m]
                )
        return found

    def registers(self, name, images):
        """Registers of a batch norm's channels as they must be in memory for mini-batches of so many images."""
        (layer,) = (layer for layer in self.plan.layers if layer.name == name)
        return channels.with_constants(layer, self.channels[name], images)

    def forward(self, x):
        """Scores (samples, classes) of real-valued samples (samples, channels, rows, columns).

        Batch norms use their running statistics.
        """
        return self.numbers.real_operands(self._forward(x)[0])

    def step(self, x, labels, lr):
        """Train with a mini-batch. Returns the scores that it had before."""
        return self.train(x, labels, self.numbers.rate(lr / len(x)))

    def train(self, x, labels, rate):
        """Train with a mini-batch; ``rate`` is a code of what gradients are multiplied with."""
        scores, inputs, routes, normalized = self._forward(x, training=True)
        errors = self._loss(scores, labels)
        for layer in reversed(self.plan.layers):
            mine = inputs[layer.name]
            if layer.norm:
                registers = self._channels(
                    layer, "back", normalized[layer.name], mine, errors, rate
                )
                self.channels[layer.name] = registers[:ROWS]
                if not layer.back:
                    break
                errors = self._normalized_back(layer, registers, mine, errors, routes)
                continue
            down = self._back(layer, errors, mine, routes) if layer.back else None
            if layer.trainable:
                self._update(layer, mine, errors, rate)
            if down is None:
                break
            errors = down
        return self.numbers.real_operands(scores)

    def _forward(self, x, training=False):
        """Scores, and for each layer its inputs, and where its outputs went through pool and ReLU.

        Last, the registers of batch norms' channels, with the statistics of the mini-batch in training.
        """
        layer, inputs, routes, normalized = self.plan.layers[0], {}, {}, {}
        maps = tiled(self.numbers.operands(x), layer.group)
        if layer.linear:
            maps = tiled(self.numbers.operands(x).reshape(len(x), -1, 1, 1), layer.lanes)
        for layer in self.plan.layers:
            inputs[layer.name] = maps = np.ascontiguousarray(
                maps.reshape(len(maps), -1, layer.rows, layer.columns, maps.shape[-1])
            )
            shape = (len(maps), layer.tiles[0], layer.out_rows, layer.out_columns, layer.lanes)
            z = np.zeros(shape, self.numbers.dtype)
            if layer.norm:
                rows = self.channels[layer.name]
                registers = self._channels(
                    layer, "train" if training else "evaluate", rows, maps, maps
                )
                normalized[layer.name] = registers[:ROWS]
                self._diagonal(layer, maps, [Register.A], registers, Register.B, z)
                maps, routes[layer.name] = pooled(self.numbers.narrow(z), layer.pool, layer.relu)
                continue
            norm, biases = self.plan.norm_of(layer), self.biases[layer.name]
            if norm:
                shift = self.channels[norm.name][Register.SHIFT]
                biases = FP32.to_float32(shift).reshape(biases.shape)
            passes.forward(
                maps, self.numbers.narrow(self.weights[layer.name]), biases,
                *layer.passes, layer.stride, layer.pad, self.numbers.scalars, z,
            )  # fmt: skip
            maps, routes[layer.name] = pooled(self.numbers.narrow(z), layer.pool, layer.relu)
        return maps.reshape(len(maps), -1)[:, : layer.m], inputs, routes, normalized

    # -- Batch normalization: tile by tile, as the array has it ------------------------------------

    def _channels(self, layer, program, rows, x, errors, rate=0):
        """All registers of a batch norm's channels after a program, with sums of errors and of their products."""
        rows = channels.with_constants(layer, rows, len(x))
        both = np.zeros((2, layer.tiles[0], passes.PARTIALS, layer.lanes), np.float32)
        if program != "evaluate":
            passes.channel_sums(x, errors, self.numbers.scalars, *both)
        codes = FP32.from_float32(both.swapaxes(1, 2)).reshape(2, passes.PARTIALS, -1)
        return channels.run(program, rows, *codes, rate)

    def _diagonal(self, layer, maps, weights, registers, bias, z):
        """Outputs of a 1x1 layer with weights on diagonals: a tile of ``maps`` for each of ``weights``."""
        lanes, outs = layer.lanes, layer.tiles[0]
        values = FP32.to_float32(registers[[*weights, bias]]).reshape(-1, outs, lanes)
        blocks = np.zeros((len(weights), outs, lanes, lanes), np.float32)
        blocks[..., np.arange(lanes), np.arange(lanes)] = self.numbers.narrow(values[:-1])
        for tile in range(outs):
            own = np.ascontiguousarray(maps[:, tile::outs])
            result = np.zeros((len(maps), 1, *z.shape[2:]), z.dtype)
            passes.forward(
                own, np.ascontiguousarray(blocks[:, tile])[None], values[-1, tile][None],
                *_passes(lanes, len(weights)), 1, 0, self.numbers.scalars, result,
            )  # fmt: skip
            z[:, tile] = result[:, 0]

    def _normalized_back(self, layer, registers, x, errors, routes):
        """Errors of a batch norm's inputs: a * dy + c * y + d."""
        dx = np.zeros(x.shape, self.numbers.dtype)
        both = np.concatenate([errors, x], axis=1)
        self._diagonal(layer, both, [Register.A, Register.C], registers, Register.D, dx)
        return unpooled(self.numbers.narrow(dx), routes[self.plan.before(layer).name])

    def _loss(self, scores, labels):
        """Errors of the scores, as a map."""
        found = probabilities(self.numbers.scores(scores))
        found[np.arange(len(found)), labels] -= 1 << PROBABILITY_BITS
        return tiled(self.numbers.errors(found)[:, :, None, None], self.plan.lanes)

    def _back(self, layer, errors, inputs, routes):
        """Errors of the outputs, before pool and ReLU, of the layer before."""
        dx = np.zeros(inputs.shape, self.numbers.dtype)
        passes.back_propagate(
            errors, self.numbers.narrow(self.weights[layer.name]), layer.kernel, layer.stride,
            layer.pad, self.numbers.scalars, dx,
        )  # fmt: skip
        return unpooled(self.numbers.narrow(dx), routes[self.plan.before(layer).name])

    def _update(self, layer, x, errors, rate):
        weights, biases = self.weights[layer.name], self.biases[layer.name]
        dw, db = np.zeros_like(weights), np.zeros_like(biases)
        passes.gradients(
            x, errors, *layer.passes, layer.stride, layer.pad, self.numbers.scalars,
            self.numbers.one, dw, db,
        )  # fmt: skip
        weights[...] = self.numbers.updated(weights, dw, rate)
        if layer.bias and not self.plan.norm_of(layer):
            biases[...] = self.numbers.updated(biases, db, rate)


def _passes(lanes, tiles):
    """Passes of a 1x1 layer with so many tiles of inputs."""
    taps = np.zeros((tiles, lanes), np.int64)
    return np.arange(tiles), taps, taps, np.arange(lanes), np.ones((tiles, lanes), bool)


class _Numbers:
    """An arithmetic's numbers as the compiled passes take them: float32, or int64 codes."""

    def __init__(self, arithmetic):
        self.arithmetic = arithmetic
        self.floating = isinstance(arithmetic, FloatArithmetic)
        self.dtype = np.dtype(np.float32 if self.floating else np.int64)
        self.scalars = passes.FLOAT if self.floating else passes.fixed(arithmetic.accumulator)
        shift = 0 if self.floating else arithmetic.accumulator.frac - arithmetic.operand.frac
        self.one = self.dtype.type(1 << shift)

    def _numbers(self, fmt, codes):
        return fmt.to_float32(codes) if self.floating else np.asarray(codes, np.int64)

    def operands(self, real):
        fmt = self.arithmetic.operand
        return self._numbers(fmt, fmt.encode(real))

    def accumulators(self, real):
        fmt = self.arithmetic.accumulator
        return self._numbers(fmt, fmt.encode(real))

    def real(self, accumulators):
        return self._real(self.arithmetic.accumulator, accumulators)

    def real_operands(self, operands):
        return self._real(self.arithmetic.operand, operands)

    def _real(self, fmt, numbers):
        return numbers.astype(np.float64) if self.floating else fmt.decode(numbers)

    def narrow(self, accumulators):
        if not self.floating:
            return self.arithmetic.narrow_codes(accumulators)
        codes = self.arithmetic.accumulator.from_float32(accumulators)
        return self._numbers(self.arithmetic.operand, self.arithmetic.narrow_codes(codes))

    def scores(self, operands):
        """Operands as codes of :data:`~streamtrain.golden.softmax.SCORE`; NaN is zero."""
        real = np.nan_to_num(self.real_operands(operands), posinf=np.inf, neginf=-np.inf)
        return SCORE.encode(real)

    def errors(self, codes):
        """Operands of codes with the fractional bits of a probability."""
        if self.floating:
            return self.operands(np.ldexp(codes.astype(np.float64), -PROBABILITY_BITS))
        shift = PROBABILITY_BITS - self.arithmetic.operand.frac
        return requantize_codes(codes, shift, self.arithmetic.operand, Round.NEAREST)[0]

    def rate(self, real):
        """Code of what gradients are multiplied with."""
        return self.arithmetic.rate.encode(-real)

    def updated(self, weights, gradients, rate):
        """Weights plus ``rate`` times their gradients, both rounded."""
        wide, codes = self.arithmetic.accumulator, np.asarray
        if self.floating:
            codes = wide.from_float32
        step = self.arithmetic.scale(codes(gradients), rate)
        return self._numbers(wide, self.arithmetic.add(codes(weights), step))


def pooled(maps, size, relu):
    """Pool squares of ``size`` and rectify.

    Returns the maps, and the *routes*: for each place of a square, whether the output came from there.
    Of equal values the first one counts, row by row; what ReLU holds back has no route.
    """
    squares = [maps[:, :, r::size, c::size] for r in range(size) for c in range(size)]
    best, at = squares[0], np.zeros(squares[0].shape, np.int8)
    for number, square in enumerate(squares[1:], 1):
        better = square > best
        best, at = np.where(better, square, best), np.where(better, number, at)
    passes_on = best > 0 if relu else np.ones(best.shape, bool)
    routes = np.stack([(at == number) & passes_on for number in range(len(squares))])
    return np.where(passes_on, best, best.dtype.type(0)), routes


def unpooled(errors, routes):
    """Send errors back along the routes that :func:`pooled` found; elsewhere is zero."""
    size = int(len(routes) ** 0.5)
    errors = errors.reshape(routes.shape[1:])
    images, tiles, rows, columns, lanes = errors.shape
    maps = np.zeros((images, tiles, rows * size, columns * size, lanes), errors.dtype)
    for number, route in enumerate(routes):
        maps[:, :, number // size :: size, number % size :: size] = np.where(route, errors, 0)
    return maps
