"""Cycles of a training step, counted in simulated RTL."""

from contextlib import closing
from dataclasses import dataclass
from operator import index

import numpy as np

from streamtrain.host.trainer import encode_samples, training_commands
from streamtrain.records import Record
from streamtrain.simulate.device import SimulatedDevice

__all__ = ["StepCycles", "count_cycles", "cycles_per_sample", "steady_samples"]

_SETTLE = 4  # samples, at least, before the first one that is counted
_COUNTED = 8  # samples, at least, that are counted: two mini-batches or more


@dataclass(frozen=True)
class StepCycles(Record):
    """What a training step takes in the steady state, samples following one another without a pause.

    Parameters
    ----------
    batch : :class:`int`
        Samples between two updates.
    samples : :class:`int`
        How many were counted.
    cycles : :class:`float`
        From one sample's result to the next one's; with a mini-batch the mean over its samples,
        including the wait for the update.
    spread : :class:`int`
        By how many cycles the longest mini-batch (at batch 1: sample) was longer than the shortest.
    updated : tuple of :class:`int`
        For each stage, cycles from the first error of a sample that ends a mini-batch, as it leaves
        the loss, until the stage may multiply the next sample with its new weights; 0 for a frozen one.
    """

    batch: int
    samples: int
    cycles: float
    spread: int
    updated: tuple


def steady_samples(plan, steps, batch=1, *, settle=1, x=None, y=None):
    """Samples to train with, to count the cycles of.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    steps : :class:`int`
        Samples to count, rounded up to whole mini-batches.
    batch : :class:`int`
        Samples between two updates.
    settle : :class:`int`
        Samples that come before, which fill the pipeline; rounded up to whole mini-batches.
    x, y : arrays, optional
        Samples and labels as :meth:`~streamtrain.host.trainer.Trainer.fit` takes them, used again
        from the start when there are too few. By default random ones: cycles do not depend on them.

    Returns their codes, the commands, and how many of them settle.
    """
    first = batch * -(-settle // batch)
    count = first + batch * -(-steps // batch)
    if x is None:
        rng = np.random.default_rng(0)
        x = rng.random((count, *plan.network.input_shape))
        y = rng.integers(0, plan.network.classes, count)
    which = np.arange(count) % len(x)
    return encode_samples(plan, x[which]), training_commands(plan, y[which], batch), first


def cycles_per_sample(ends, settle):
    """Mean cycles of the samples after those that settle.

    Parameters
    ----------
    ends : integer array (samples,)
        Cycle of each result.
    settle : :class:`int`
        As :func:`steady_samples` returns it.
    """
    return int(ends[-1] - ends[settle - 1]) / (len(ends) - settle)


def count_cycles(plan, batch=1, *, jobs=None, report=lambda text: None):
    """Compile a design, train it for a few steps, and count.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    batch : :class:`int`
        Samples between two updates.
    jobs : :class:`int`, optional
        Processes that compile at once; as many as there are cores without.
    report : callable
        Gets a line of text as each step of compiling begins.

    Returns :class:`StepCycles`.

    Raises
    ------
    ValueError
        If ``batch`` is less than 1 or more than the plan's ``max_batch``.
    CompileError
        If a tool is missing or fails.
    HangError
        If the hardware stops.
    """
    batch = index(batch)
    if batch < 1:
        raise ValueError(f"Batch must be at least 1, not {batch!r}")
    counted = max(_COUNTED, 2 * batch)
    x, commands, settle = steady_samples(plan, counted, batch, settle=_SETTLE)
    with closing(SimulatedDevice(plan, jobs=jobs, report=report)) as device:
        results, updates = device.run_timed(x, commands)
    ends = results.cycles[batch - 1 :: batch]  # of mini-batches
    paces = np.diff(ends[settle // batch - 1 :])
    # The first error comes as many cycles before the result as there are errors. Not the last
    # mini-batch: nothing follows it.
    updated = updates[-2] - (ends[-2] - plan.network.classes)
    updated *= [stage.trainable for stage in plan.stages]
    return StepCycles(
        batch=batch,
        samples=len(x) - settle,
        cycles=cycles_per_sample(results.cycles, settle),
        spread=int(paces.max() - paces.min()),
        updated=tuple(updated.tolist()),
    )
