"""What a plan of the unified core costs in cycles."""

from dataclasses import dataclass

from streamtrain.checks import checked_integer
from streamtrain.records import Record
from streamtrain.tables import Shown
from streamtrain.unified.kernel import KernelPlan
from streamtrain.unified.timing import KernelTiming, ProgramCycles

__all__ = ["KernelEstimate", "estimate_kernel"]

_PHASES = ("FP", "BP", "WU")
_BUSIEST = {
    "array": "the array is the busiest part", "reads": "reads of memory are the busiest part",
    "writes": "writes to memory are the busiest part",
}  # fmt: skip


@dataclass(frozen=True)
class KernelEstimate(Shown, Record):
    """What a plan of the unified core costs in cycles.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    batch : :class:`int`
        Samples of a mini-batch.
    step, prediction : :class:`~streamtrain.unified.timing.ProgramCycles`
        Of a training step on a mini-batch, and of its scores alone.
    latency : :class:`int`
        Cycles of the scores of a single sample.
    """

    plan: KernelPlan
    batch: int
    step: ProgramCycles
    prediction: ProgramCycles
    latency: int

    @property
    def cycles(self):
        """Cycles of a sample while training: its share of a mini-batch's."""
        return self.step.total / self.batch

    @property
    def bound_cycles(self):
        """Cycles of a sample if every multiplier worked in every cycle."""
        return self.plan.bound_cycles

    @property
    def utilisation(self):
        """Part of all multipliers' cycles in which they work."""
        return self.bound_cycles / self.cycles

    def table(self):
        """Header and rows: cycles of each layer's phases on a mini-batch, each of them alone."""
        timing, compiler = _timing(self.plan), self.plan.compiler.variant(self.batch)
        phases, rows = set(compiler.phases), []
        for layer in self.plan.array.layers:
            cycles = [
                timing.cycles(compiler.single(phase, layer.name)).total
                if (phase, layer.name) in phases
                else ""
                for phase in _PHASES
            ]
            rows.append((layer.name, *cycles))
        return ("layer", *_PHASES), rows

    def _summary(self):
        return (
            f"{self.step.total:,} cycles for a mini-batch of {self.batch}, {self.cycles:,.0f} for a sample: "
            f"{self.utilisation:.0%} of the multipliers' cycles; {_BUSIEST[self.step.binds]}. Phases above are timed one by "
            f"one; in a step they overlap. "
            f"{self.prediction.total:,} cycles for its scores alone, {self.latency:,} for those of one sample"
        )


def _timing(plan):
    return KernelTiming(
        plan.arithmetic, plan.array.lanes, plan.network.classes, data_bits=plan.data_bits
    )


def estimate_kernel(plan, batch=None):
    """Cycles of a training step: a :class:`KernelEstimate`.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    batch : :class:`int`, optional
        Samples of a mini-batch; as many as the plan takes without.

    Raises
    ------
    TypeError
        If ``batch`` is no integer.
    ValueError
        If the mini-batch is empty, or larger than planned.
    """
    batch = plan.max_batch if batch is None else checked_integer("Batch", batch)
    if not 1 <= batch <= plan.max_batch:
        raise ValueError(f"Batch must be 1 to {plan.max_batch}, as planned, not {batch}")
    timing, compiler = _timing(plan), plan.compiler.variant(batch)
    single = plan.compiler.variant(1).evaluation()
    return KernelEstimate(
        plan, batch, timing.cycles(compiler.step()), timing.cycles(compiler.evaluation()),
        timing.cycles(single).total,
    )  # fmt: skip
