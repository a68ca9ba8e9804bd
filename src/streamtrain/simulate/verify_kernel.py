"""Run the unified core's golden model and its RTL side by side, and say where they first differ."""

from contextlib import closing

import numpy as np

from streamtrain.golden.kernel import GoldenKernel
from streamtrain.host.kernel_device import unpack_tiles
from streamtrain.host.progress import ProgressBar
from streamtrain.host.trainer import encode_samples, training_commands
from streamtrain.numeric import Fixed
from streamtrain.simulate.kernel import SimulatedKernel
from streamtrain.simulate.memory import MemoryTiming
from streamtrain.simulate.verify import Difference, Verification

__all__ = ["compare_kernels", "verify_kernel"]


def verify_kernel(
    plan, steps=10, *, x=None, y=None, batch_size=None, lr=None, memory=MemoryTiming(), seed=0,
    progress=True,
):  # fmt: skip
    """Train golden model and RTL side by side, from the same weights on the same samples.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    steps : :class:`int`
        Mini-batches.
    x, y : arrays, optional
        Samples and labels as :meth:`~streamtrain.host.trainer.Trainer.fit` takes them, used again from the
        start when there are too few. By default random pixels and labels.
    batch_size : :class:`int`, optional
        As many as the plan takes without.
    lr : :class:`float` or callable, optional
        As :meth:`~streamtrain.host.trainer.Trainer.fit` takes it.
    memory : :class:`~streamtrain.simulate.MemoryTiming`
        How fast the memory is.
    seed : :class:`int`
        Of samples and stalls.
    progress : :class:`bool`

    Returns a :class:`~streamtrain.simulate.Verification`, whose steps are mini-batches.
    """
    rng = np.random.default_rng(seed)
    batch = plan.max_batch if batch_size is None else batch_size
    count = steps * batch
    if x is None:
        x = rng.random((min(count, 1000), *plan.network.input_shape))
        y = rng.integers(0, plan.network.classes, len(x))
    which = np.arange(count) % len(x)
    codes, labels = encode_samples(plan, np.asarray(x))[which], np.asarray(y)[which]
    commands = training_commands(plan, labels, batch, lr)
    with (
        closing(SimulatedKernel(plan, memory=memory, seed=seed + 1)) as device,
        ProgressBar("verifying", count, enabled=progress) as bar,
    ):
        return compare_kernels(
            device, codes, commands, report=lambda done: bar.update(done, "")
        )


def compare_kernels(device, x, commands, *, report=lambda done: None):
    """Compare RTL with the golden model after every mini-batch.

    Parameters
    ----------
    device : :class:`~streamtrain.simulate.SimulatedKernel`
    x : integer array, (samples, channels, rows, columns)
        Codes.
    commands : :class:`~streamtrain.host.device.Commands`
        All of them train.
    report : callable
        Gets the number of samples compared so far.

    Returns a :class:`~streamtrain.simulate.Verification`, whose steps are mini-batches.
    """
    golden = GoldenKernel(device.plan)
    before = device.read_weights()
    golden.write_weights(before)
    began, first, ends = device.cycle, 0, np.flatnonzero(commands.update) + 1
    for step, end in enumerate(ends.tolist()):
        part = slice(first, end)
        wanted, found = golden.run(x[part], commands[part]), device.run(x[part], commands[part])
        after = golden.read_weights()
        wrong = (wanted.scores != found.scores).any() or _first(after, device.read_weights())
        if wrong:
            golden.write_weights(before)
            difference = _locate(device, golden, x[part], commands[part], after, step)
            return Verification(step, difference, (device.cycle - began) / (step + 1))
        before, first = after, end
        report(end)
    return Verification(len(ends), None, (device.cycle - began) / len(ends))


def _first(wanted, found):
    """Name and index of the first number that differs; None if all are equal. NaN is NaN."""
    for name, tensor in wanted.items():
        differs = tensor != found[name]
        if tensor.dtype.kind == "f":
            differs &= ~(np.isnan(tensor) & np.isnan(found[name]))
        if differs.any():
            return name, tuple(int(i) for i in np.argwhere(differs)[0])
    return None


def _locate(device, golden, x, commands, after, step):
    """Compare all that the last step left in memory, in the order in which it was computed."""
    plan, compiler = device.plan, device.plan.compiler
    outputs, errors = golden.trace(x, commands.label, commands.mantissa[0])
    for phase, kind, regions, maps in (
        ("FP", "outputs", compiler.outputs, outputs),
        ("BP", "errors", compiler.errors, errors),
    ):
        for layer, wanted in maps.items():
            found = _map(device, regions[layer], wanted.shape)
            differs = np.argwhere(wanted != found)
            if len(differs):
                image, tile, row, column, lane = at = tuple(int(i) for i in differs[0])
                element = (image, tile * plan.array.lanes + lane, row, column)
                owner = layer
                if phase == "BP":  # by which layer they are computed
                    names = list(outputs)
                    owner = (*names, "loss")[names.index(layer) + 1]
                return Difference(
                    step, owner, "loss" if owner == "loss" else phase, f"{layer}.{kind}", element,
                    int(wanted[at]), int(found[at]), None,
                )  # fmt: skip
    found = device.read_weights()
    name, element = _first(after, found)
    layer = name.partition(".")[0]
    wanted, got = after[name][element].item(), found[name][element].item()
    return Difference(step, layer, "WU", name, element, wanted, got, None)


def _map(device, region, shape):
    """Codes of a map in memory: (images, tiles, rows, columns, lanes)."""
    fmt, (images, tiles, *_, lanes) = device.plan.arithmetic.operand, shape
    content = device.bus.load(region.address, images * tiles * region.stride)
    signed = isinstance(fmt, Fixed)
    return unpack_tiles(region, content, lanes, fmt.width, signed=signed).reshape(shape)
