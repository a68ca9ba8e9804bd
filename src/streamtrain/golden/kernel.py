"""The unified core's golden model as a device."""

import numpy as np

from streamtrain.golden.unified import UnifiedGolden
from streamtrain.host.kernel_device import KernelDevice
from streamtrain.unified.plan import tiled

__all__ = ["GoldenKernel"]


class GoldenKernel(KernelDevice):
    """Train a plan of the unified core in software: a :class:`~streamtrain.host.device.Device`.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    """

    def __init__(self, plan):
        super().__init__(plan)
        self.model = UnifiedGolden(plan.array, plan.arithmetic)

    def train(self, x, labels, rate):
        arithmetic = self.plan.arithmetic
        scores = self.model.train(arithmetic.decode(x), labels, np.asarray(rate))
        return arithmetic.encode(scores)

    def scores(self, x):
        arithmetic = self.plan.arithmetic
        return arithmetic.encode(self.model.forward(arithmetic.decode(x)))

    def trace(self, x, labels, rate):
        """What a step computes: codes of outputs and of errors, (images, tiles, rows, columns, lanes), by layer.

        Outputs are pooled ones; errors are those of outputs before pooling, the last layer's first.
        """
        model, layers = self.model, self.plan.array.layers
        decoded = self.plan.arithmetic.decode(x)
        scores, inputs, routes, normalized = model._forward(decoded, training=True)
        shapes = {
            layer.name: (len(x), layer.tiles[0], *layer.pooled, layer.lanes) for layer in layers
        }
        following = [inputs[layer.name] for layer in layers[1:]]
        last = tiled(scores[:, :, None, None], self.plan.array.lanes)
        outputs = dict(zip(shapes, [*following, last], strict=True))
        error, errors = model._loss(scores, labels), {}
        for layer in reversed(layers):
            errors[layer.name] = error
            if not layer.back:
                break
            mine = inputs[layer.name]
            if layer.norm:
                rows = normalized[layer.name]
                registers = model._channels(layer, "back", rows, mine, error, np.asarray(rate))
                error = model._normalized_back(layer, registers, mine, error, routes)
            else:
                error = model._back(layer, error, mine, routes)
        encode = self._codes
        return (
            {name: encode(maps).reshape(shapes[name]) for name, maps in outputs.items()},
            {name: encode(maps) for name, maps in errors.items()},
        )

    def _codes(self, numbers):
        return self.plan.arithmetic.encode(self.model.numbers.real_operands(numbers)).astype(np.int64)

    def write_layer(self, layer, blocks, biases):
        self.model.weights[layer.name][...] = blocks
        self.model.biases[layer.name][...] = biases

    def write_channels(self, layer, rows):
        self.model.channels[layer.name] = rows

    def read_channels(self, layer):
        return self.model.channels[layer.name]

    def read_layer(self, layer):
        return self.model.weights[layer.name], self.model.biases[layer.name]
