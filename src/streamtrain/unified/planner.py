"""The choice of buffers for a device: as large as pays, by the model of cycles."""

from streamtrain.pipeline.memories import map_memory
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import BuffersTooSmallError, Compiler
from streamtrain.unified.timing import KernelTiming

__all__ = ["buffer_bram36", "buffers_bram36", "choose_depths", "least_depths"]

_LEAST_LOSS = 0.002  # of a step's cycles, for which a buffer is not halved
_FEW, _SEVERAL = 2, 4  # images of two programs: what one takes besides is how long each image takes


def buffers_bram36(depths, arithmetic, lanes):
    """BRAM36 of each double buffer, by name, both halves; a deep and narrow one is made of other shapes than a wide one.

    Parameters
    ----------
    depths : :class:`~streamtrain.unified.buffers.Depths`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes : :class:`int`
    """
    sizes = depths.sizes(arithmetic, lanes).items()
    return {name: map_memory(*size, block=True).bram18 for name, size in sizes}


def buffer_bram36(depths, arithmetic, lanes):
    """BRAM36 of all double buffers: the sum of :func:`buffers_bram36`."""
    return sum(buffers_bram36(depths, arithmetic, lanes).values())


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


def choose_depths(plan, arithmetic, images, bram36, *, data_bits, memory=None, report=None):
    """Buffers with which a training step takes few cycles.

    They begin as large as whole layers are. The buffer is halved that saves the most BRAM36 for the cycles it costs,
    until they fit, and then as long as that costs less than a five-hundredth of the cycles.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.plan.UnifiedPlan`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    images : :class:`int`
        Of a mini-batch.
    bram36 : :class:`float`
        What buffers may take.
    data_bits : :class:`int`
        Of the memory.
    memory : :class:`~streamtrain.simulate.memory.MemoryTiming`, optional
    report : callable, optional
        Is given depths, BRAM36 and cycles of each choice.

    Returns :class:`~streamtrain.unified.buffers.Depths`.

    Raises
    ------
    ValueError
        If even the smallest ones take more.
    """
    timing = KernelTiming(
        arithmetic, plan.lanes, plan.layers[-1].m, data_bits=data_bits, memory=memory
    )
    most = Compiler(plan, arithmetic, min(images, _SEVERAL), data_bits=data_bits).depths

    def cycles(depths):
        def step(count):
            return timing.cycles(
                Compiler(plan, arithmetic, count, depths, data_bits=data_bits).step()
            ).total

        few, several = (step(min(images, count)) for count in (_FEW, _SEVERAL))
        return few + max(0, images - _FEW) * (several - few) / (_SEVERAL - _FEW)

    def taken(depths):
        return buffer_bram36(depths, arithmetic, plan.lanes)

    least = least_depths(plan, arithmetic, data_bits=data_bits)
    if taken(least) > bram36:
        raise ValueError(
            f"Buffers of {plan.lanes} lanes take at least {taken(least):g} BRAM36 ({least}); there are "
            f"{bram36:g}; use fewer lanes, or operands of fewer bits"
        )
    best = Depths(*(1 << (depth - 1).bit_length() for depth in most))
    now = cycles(best)
    while True:
        if report is not None:
            report(best, taken(best), now)
        found = []
        for name, depth in best._asdict().items():
            depths = best._replace(**{name: max(depth // 2, getattr(least, name))})
            saved = taken(best) - taken(depths)
            if saved > 0:
                after = cycles(depths)
                if taken(best) > bram36 or after <= (1 + _LEAST_LOSS) * now:
                    found.append(((after - now) / saved, after, depths))
        if not found:
            return best
        _, now, best = min(found)
