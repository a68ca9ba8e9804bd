"""The choice of lanes and buffers for a device: what trains fastest by the model of cycles."""

from dataclasses import replace
from functools import lru_cache
from math import inf, isqrt

from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import BuffersTooSmallError, Compiler
from streamtrain.unified.estimate import estimate_kernel
from streamtrain.unified.kernel import KernelPlan, check_data_bits, check_lanes
from streamtrain.unified.plan import lower
from streamtrain.unified.resources import buffer_memory, core_resources, estimate_resources
from streamtrain.unified.timing import KernelTiming

__all__ = [
    "choose_depths", "halvings", "least_depths", "least_resources", "misfit", "plan_kernel", "possible_lanes",
]  # fmt: skip

_LEAST_LOSS = 0.002  # of a step's cycles, for which a buffer is not halved
_FEW, _SEVERAL = 2, 4  # images of two programs: what one takes besides is how long each image takes
_DEEP = 1024  # words of a buffer that takes no LUTs
_SHARE = (
    0.75  # of a part's LUTs and BRAM36 that are taken without asking: a full part does not route
)


@lru_cache(maxsize=64)
def least_depths(plan, arithmetic, *, data_bits):
    """The smallest buffers in which each layer can be computed at all.

    Returns :class:`~streamtrain.unified.buffers.Depths`.
    """
    depths = Depths(1, 1, 1, plan.lanes, 1, 2)
    while True:
        try:
            Compiler(plan, arithmetic, 1, depths, data_bits=data_bits).step()
        except BuffersTooSmallError as error:
            depths = depths._replace(**error.needed)
        else:
            return depths


def halvings(plan, arithmetic, images, bram36, *, data_bits, memory=None):
    """Go from buffers for whole layers to smaller ones.

    The buffer is halved that saves the most BRAM36 for the cycles it costs, until they fit, and then as long as that
    costs less than a five-hundredth of the cycles, and no LUTs: those of a shallow buffer.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.plan.UnifiedPlan`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    images : :class:`int`
        Of a mini-batch.
    bram36 : :class:`float`
        What buffers may take; with 0, all ways are gone to their end.
    data_bits : :class:`int`
        Of the memory.
    memory : :class:`~streamtrain.simulate.memory.MemoryTiming`, optional

    Yields
    ------
    (:class:`~streamtrain.unified.buffers.Depths`, BRAM36, cycles)
        Cycles of a step, as those of small mini-batches let expect.
    """
    timing = KernelTiming(
        arithmetic, plan.lanes, plan.layers[-1].m, data_bits=data_bits, memory=memory
    )
    whole = Compiler(plan, arithmetic, min(images, _SEVERAL), data_bits=data_bits)
    groups = plan.lanes // whole.fold.group if whole.fold else 1
    least = least_depths(plan, arithmetic, data_bits=data_bits)

    known = {}  # cycles of programs, which are the same with many depths

    def cycles(depths):
        def step(count):
            compiler = Compiler(plan, arithmetic, count, depths, data_bits=data_bits)
            which = count, *compiler.tilings().values()
            if which not in known:
                known[which] = timing.cycles(compiler.step()).total
            return known[which]

        few, several = (step(min(images, count)) for count in (_FEW, _SEVERAL))
        return few + max(0, images - _FEW) * (several - few) / (_SEVERAL - _FEW)

    def taken(depths):
        return buffer_memory(depths, arithmetic, plan.lanes, groups)

    best = Depths(*(1 << (depth - 1).bit_length() for depth in whole.depths))
    now = cycles(best)
    while True:
        takes, luts = taken(best)
        yield best, takes, now
        found = []
        for name, depth in best._asdict().items():
            depths = best._replace(**{name: max(depth // 2, getattr(least, name))})
            less, others = taken(depths)
            if less < takes and (takes > bram36 or others <= luts):
                after = cycles(depths)
                if takes > bram36 or after <= (1 + _LEAST_LOSS) * now:
                    found.append(((after - now) / (takes - less), after, depths))
        if not found:
            return
        _, now, best = min(found)


@lru_cache(maxsize=64)
def choose_depths(plan, arithmetic, images, bram36, *, data_bits, memory=None):
    """Buffers with which a training step takes few cycles: the last ones of :func:`halvings`.

    Parameters are those of :func:`halvings`. Returns :class:`~streamtrain.unified.buffers.Depths`.

    Raises
    ------
    ValueError
        If even the smallest ones take more.
    """
    *_, (depths, taken, _) = halvings(
        plan, arithmetic, images, bram36, data_bits=data_bits, memory=memory
    )
    if taken > bram36:
        raise ValueError(
            f"Buffers of {plan.lanes} lanes take at least {taken:g} BRAM36 ({depths}); there are "
            f"{bram36:g}; use fewer lanes, or operands of fewer bits"
        )
    return depths


def possible_lanes(arithmetic, device, data_bits):
    """Lanes of arrays that a device has DSP slices for, the fewest first."""
    dsp = arithmetic.multiplier_dsp(device.family)
    return list(range(_fewest_lanes(data_bits), isqrt(device.dsp // dsp) + 1, data_bits // 32))


def _fewest_lanes(data_bits):
    return max(2, data_bits // 32)


def misfit(estimate):
    """What a device lacks for an estimate of resources, in words; None if it fits with some LUTs left free."""
    if estimate.used["lut"] <= _SHARE:
        return estimate.problem
    return (
        f"it needs {estimate.total.lut:,.0f} LUT, most of them for the {estimate.most_of('lut')}, which is more "
        f"than {_SHARE:.0%} of the {estimate.available['lut']:,} of {estimate.device}"
    )


def plan_kernel(
    network, arithmetic, max_batch, device, *, lanes=None, depths=None, report=lambda text: None, **options
):
    """Plan a network for the unified core on a device.

    Without ``lanes``, they are those with which a training step takes the fewest cycles, of all that leave a quarter of
    the device's LUTs free. Without ``depths``, buffers are those of :func:`choose_depths` for three
    quarters of its block RAM.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    max_batch : :class:`int`
    device : :class:`~streamtrain.explore.devices.Fpga`
    lanes : :class:`int`, optional
    depths : :class:`~streamtrain.unified.buffers.Depths`, optional
    report : callable
        Gets a line of text as each number of lanes is tried.
    options
        Others of :class:`~streamtrain.unified.kernel.KernelPlan`.

    Returns a :class:`~streamtrain.unified.kernel.KernelPlan`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the core cannot compute the network, or nothing fits; the message says what is lacking.
    """
    data_bits = options.get("data_bits", KernelPlan.data_bits)
    check_data_bits(data_bits)
    if lanes is not None:
        check_lanes(lanes, data_bits)

    def planned(own):
        report(f"buffers for {own} x {own} multipliers")
        plan = KernelPlan(lower(network, own), arithmetic, max_batch, depths, **options)
        if depths is not None:
            return plan
        chosen = choose_depths(
            plan.array, arithmetic, plan.max_batch, _SHARE * device.bram36, data_bits=data_bits
        )
        return replace(plan, depths=chosen)

    if lanes is not None:
        return planned(lanes)
    choices = possible_lanes(arithmetic, device, data_bits)
    if not choices:
        raise ValueError(
            f"{device.name} has too few DSP slices for any array with data_bits={data_bits}: the smallest has "
            f"{_fewest_lanes(data_bits)} lanes"
        )
    best, least, problems = None, inf, {}  # problems by lanes; those of the fewest are told
    for works, own in sorted((lower(network, own).array_cycles, own) for own in choices):
        if works >= least:
            break  # its array works for too long, and so do those of all others
        problem = misfit(least_resources(arithmetic, own, data_bits, device))
        if problem is None:
            try:
                plan = planned(own)
            except ValueError as error:
                problems[own] = str(error)
                continue
            problem = misfit(estimate_resources(plan, device))
        if problem is not None:
            problems[own] = f"even with {own} lanes, {problem}"
            continue
        cycles = estimate_kernel(plan).cycles
        if cycles < least:
            best, least = plan, cycles
    if best is None:
        raise ValueError(problems[choices[0]])
    return best


def least_resources(arithmetic, lanes, data_bits, device):
    """The least that a core with so many lanes takes of DSP slices and LUTs, whatever its buffers are."""
    depths = Depths(*(_DEEP for _ in Depths._fields))
    estimate = core_resources(arithmetic, lanes, depths, 1, data_bits=data_bits, device=device)
    return replace(estimate, available={name: estimate.available[name] for name in ("dsp", "lut")})
