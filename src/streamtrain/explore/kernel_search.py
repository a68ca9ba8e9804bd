"""Search the unified core's designs: lanes, buffers, formats and clocks."""

from dataclasses import replace
from time import perf_counter

import numpy as np

from streamtrain.explore.front import OBJECTIVES, Front
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.points import KernelPoint, KernelVariant
from streamtrain.host.progress import ProgressBar
from streamtrain.unified.estimate import estimate_kernel
from streamtrain.unified.kernel import (
    KernelPlan,
    check_data_bits,
    check_lanes,
    kernel_arithmetic,
)
from streamtrain.unified.plan import lower
from streamtrain.unified.planner import halvings, least_resources, possible_lanes
from streamtrain.unified.resources import estimate_resources

__all__ = ["kernel_front"]


def kernel_front(
    network,
    target,
    board,
    objectives,
    constraints,
    batch,
    numbers,
    clocks,
    lanes,
    data_bits,
    progress,
):
    """The front of the unified core: what :func:`~streamtrain.explore.search.explore` gives for it.

    For each format and number of lanes, :func:`~streamtrain.unified.planner.halvings` goes from buffers for whole
    layers to the smallest ones; the front is of all designs on these ways that fit the device.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    target : :class:`~streamtrain.explore.devices.Board`
    board : :class:`str`
        As designs name it.
    objectives, constraints
        Checked ones.
    batch : :class:`int`
        Samples of a mini-batch.
    numbers, clocks, lanes : sequence
        What is tried of each; without lanes, all that the device has DSP slices for.
    data_bits : :class:`int`
    progress : :class:`bool`

    Returns a :class:`~streamtrain.explore.front.Front`.
    """
    began = perf_counter()
    device = target.device
    check_data_bits(data_bits)
    for own in lanes or ():
        check_lanes(own, data_bits)
    pairs = [
        (arithmetic, own)
        for arithmetic in map(kernel_arithmetic, numbers)
        for own in lanes or possible_lanes(arithmetic, device, data_bits)
    ]
    variants, points, reasons, evaluated = [], [], [], 0
    with ProgressBar("searching", len(pairs), enabled=progress) as bar:
        for number, (arithmetic, own) in enumerate(pairs):
            name = f"{own} lanes of {arithmetic.name}"
            bar.update(number, name)
            try:
                plan = KernelPlan(lower(network, own), arithmetic, batch, data_bits=data_bits)
                found, count = _ways(plan, device)
            except ValueError as error:
                reasons.append(f"with {name}, {error}")
                continue
            evaluated += count
            if isinstance(found, str):
                reasons.append(f"with {name}, {found}")
                continue
            for clock in clocks:
                points += [_point(len(variants), clock, *one) for one in found]
                variants.append(KernelVariant(plan, clock))
        bar.update(len(pairs), "")
    if not pairs:
        reasons.append("it has too few DSP slices for any array")
    front = Front(
        network=network,
        board=board,
        batch=batch,
        objectives=objectives,
        constraints={},
        variants=variants,
        points=points,
        search="halving",
        evaluated=evaluated,
    )
    if not points:
        front = replace(front, reason=f"Nothing fits {target.name}: {'; '.join(reasons)}")
    front = _best(front.within(**constraints)) if constraints else _best(front)
    return replace(front, constraints=constraints, seconds=perf_counter() - began)


def _ways(plan, device):
    """(depths, estimate, usage) of all buffers on the way that fit, or what the smallest lack; and how many there are."""
    least = least_resources(plan.arithmetic, plan.array.lanes, plan.data_bits, device)
    if not least.fits:
        return least.problem, 1
    found, count = [], 0
    for depths, _, _ in halvings(
        plan.array, plan.arithmetic, plan.max_batch, 0, data_bits=plan.data_bits
    ):
        count += 1
        one = replace(plan, depths=depths)
        resources = estimate_resources(one, device)
        if resources.fits:
            found.append((depths, estimate_kernel(one), resources.total))
    return found or resources.problem, count


def _point(variant, clock, depths, estimate, usage):
    return KernelPoint(
        variant=variant,
        cycles=estimate.cycles,
        latency_cycles=estimate.latency,
        samples_per_s=clock * 1e6 / estimate.cycles,
        latency_us=estimate.latency / clock,
        dsp=usage.dsp,
        bram36=usage.bram36,
        lut=round(usage.lut),
        ff=usage.ff,
        depths=depths,
    )


def _best(front):
    """The part of a front that no other point beats, and that the board has DRAM for."""
    points, reason = list(front.points), front.reason
    while points:
        values = [[OBJECTIVES[n] * getattr(point, n) for n in front.objectives] for point in points]
        kept = [p for p, keep in zip(points, non_dominated(np.array(values)), strict=True) if keep]
        reasons = {point: _refusal(front, point) for point in kept}
        if not any(reasons.values()):
            kept.sort(key=lambda point: (-point.samples_per_s, point.dsp, point.bram36, point.lut))
            return replace(front, points=tuple(kept))
        points = [point for point in points if not reasons.get(point)]
        reason = next(filter(None, reasons.values()))
    return replace(front, points=(), reason=reason)


def _refusal(front, point):
    """Why there is no design of a point; empty if there is one."""
    try:
        front.design(point)
    except ValueError as error:
        return str(error)
    return ""
