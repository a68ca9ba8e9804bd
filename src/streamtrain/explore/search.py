"""Search all foldings of a network for those that no other one beats."""

from dataclasses import replace
from itertools import product
from math import ceil, floor
from operator import index
from time import perf_counter

import numpy as np

from streamtrain.explore.devices import load_board
from streamtrain.explore.evidence import EVIDENCE, confirm
from streamtrain.explore.exact import exact_front
from streamtrain.explore.front import (
    OBJECTIVES,
    Front,
    limits_by_name,
    limits_text,
    objectives_by_name,
)
from streamtrain.explore.nsga2 import genetic_front
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.points import Point, Variant
from streamtrain.explore.space import FIGURES, RESOURCES, Space
from streamtrain.host.progress import ProgressBar
from streamtrain.network import Network
from streamtrain.numeric import FixedArithmetic, FloatArithmetic
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.resources import estimate_resources

__all__ = ["CORES", "explore", "shortfall"]

CORES = ("streaming", "unified", "auto")
"""What may be searched."""

_NO_FORMAT = "formats of the {core} core are {kind}; there are none in {numbers}"
_FIGURES = {"samples_per_s": "cycles", "latency_us": "latency", "bram36": "bram18"}
_NAMES = {"dsp": "DSP", "bram18": "BRAM36", "lut": "LUT", "ff": "FF"}
_STEPS = 1000  # of the progress bar


def explore(
    network,
    board="pynq_z2",
    *,
    core="streaming",
    objectives=("samples_per_s", "dsp", "bram36"),
    constraints=None,
    batch=1,
    numbers=None,
    clock_mhz=None,
    in_flight=None,
    lutram_depth=None,
    max_batch=None,
    lanes=None,
    data_bits=None,
    search="exact",
    evaluations=10_000,
    seed=1,
    evidence=None,
    executor=None,
    progress=True,
):
    """Find the Pareto front of a network's designs on a board: those that no other one beats.

    The streaming core's space holds every folding of every layer (divisors of its channels, and one tap, a row or
    all taps of its kernel). The front is exact with regard to the estimates of cycles and resources: see
    ``docs/explore.md`` for how, and ``docs/estimates.md`` for their errors. The unified core's space holds, for
    each format and number of lanes, the buffers that its planner goes through on its way from whole layers to the
    smallest ones; it is searched completely.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    board : :class:`str` or :class:`pathlib.Path`
        A known board or device, or a file. No design exceeds its resources.
    core : :class:`str`
        ``"streaming"``, ``"unified"``, or ``"auto"``: that whose fastest design trains more samples per second.
    objectives : sequence of :class:`str`
        Any of ``samples_per_s``, ``latency_us``, ``dsp``, ``bram36``, ``lut``.
    constraints : dict of numbers by name, optional
        ``samples_per_s`` at least; ``latency_us``, ``cycles``, ``dsp``, ``bram36``, ``lut``, ``ff`` at most.
    batch : :class:`int`
        Samples between two updates. On the streaming core, mini-batches are not convex: they take
        ``search="nsga2"``.
    numbers : :class:`~streamtrain.pipeline.numbers.Numbers`, or a list of them, optional
        Formats. Those of the unified core are arithmetics, or names such as ``"bf16"``; ``"fp32"`` without. With
        ``core="auto"`` there may be some of each kind.
    clock_mhz : :class:`float`, or a list of them, optional
        Clock of the core; the board's default without.
    in_flight : :class:`int`, or a list of them, optional
        Samples that each layer of the streaming core has room for; 2 without.
    lutram_depth : :class:`int`, or a list of them, optional
        Words up to which a memory of the streaming core is LUT RAM, 64 without; deeper ones are block RAM.
    max_batch : :class:`int`, optional
        Largest mini-batch that the hardware can accumulate; ``batch`` without. Figures of the unified core are
        for mini-batches of it.
    lanes : :class:`int`, or a list of them, optional
        Of the unified core; all that the board has DSP slices for without.
    data_bits : :class:`int`, optional
        Bits of a word of DRAM for the unified core, 64 without.
    search : :class:`str`
        ``"exact"``, or ``"nsga2"`` for the genetic algorithm (needs pymoo).
    evaluations, seed : :class:`int`
        Of the genetic algorithm.
    evidence : :class:`str`, optional
        ``"simulate"`` or ``"synthesise"`` to confirm the fastest design, the knee and the smallest one
        with :func:`~streamtrain.explore.evidence.confirm`, and print what it finds.
    executor : :class:`concurrent.futures.Executor`, optional
        What evidence runs on.
    progress : :class:`bool`

    Returns
    -------
    :class:`~streamtrain.explore.front.Front`
        Each combination of formats, clocks, memory kinds and samples in flight is one of its variants; of the unified
        core, of formats, lanes and clocks. If nothing fits it is empty, and says why.

    Raises
    ------
    TypeError, ValueError
        If an argument is unknown or of the wrong kind.
    ImportError
        If the genetic algorithm is asked for, and pymoo is missing.
    """
    if not isinstance(network, Network):
        raise TypeError(f"Network must be a Network, not {network!r}")
    if core not in CORES:
        raise ValueError(f"core must be one of {', '.join(CORES)}, not {core!r}")
    objectives = objectives_by_name(objectives)
    constraints = limits_by_name(constraints or {})
    batch = index(batch)
    if batch < 1:
        raise ValueError(f"Batch must be at least 1, not {batch!r}")
    if search not in {"exact", "nsga2"}:
        raise ValueError(f'Search must be "exact" or "nsga2", not {search!r}')
    if search == "exact" and batch > 1 and core != "unified":
        raise ValueError(
            f'The exact search is for batch 1, not {batch}: samples of a mini-batch compete for the '
            f'arrays, which no bound describes. Take search="nsga2" (--search nsga2), or batch=1'
        )
    if evidence is not None and evidence not in EVIDENCE:
        raise ValueError(f"Evidence must be one of {', '.join(EVIDENCE)}, not {evidence!r}")
    target = load_board(board)
    own = {
        "streaming": {
            "in_flight": in_flight, "lutram_depth": lutram_depth, "evidence": evidence, "executor": executor,
            "search": None if search == "exact" else search,
        },
        "unified": {"lanes": lanes, "data_bits": data_bits},
    }  # fmt: skip
    for other, arguments in own.items():
        given = [name for name, value in arguments.items() if value is not None]
        if core == "auto":  # there is no other way to search mini-batches of the streaming core
            given = [name for name in given if name != "search"]
        if given and core != other:
            raise ValueError(f'{given[0]} is for core="{other}", not for "{core}"')
    searched = {
        "network": network, "target": target, "objectives": objectives, "constraints": constraints,
        "board": str(board) if str(board).endswith(".toml") else target.name, "progress": progress,
    }  # fmt: skip
    numbers = _several(numbers, (Numbers, str, FixedArithmetic, FloatArithmetic), "numbers")
    clocks = [
        target.clock_mhz if clock is None else clock
        for clock in _several(clock_mhz, (int, float), "clock_mhz")
    ]
    for clock in clocks:
        if not 0 < clock < float("inf"):
            raise ValueError(f"clock_mhz must be positive, not {clock!r}")

    def streaming():
        own = [one for one in numbers if one is None or isinstance(one, Numbers)]
        if not own:
            hint = "; names such as 'bf16' are for core=\"unified\" (--core unified)"
            raise ValueError(_NO_FORMAT.format(core="streaming", kind="st.Numbers", numbers=numbers) + hint)
        variants = _variants(network, target, own, clocks, in_flight, lutram_depth, max_batch or batch)
        return _streaming_front(
            variants=variants, batch=batch, search=search, evaluations=evaluations, seed=seed, **searched
        )

    def unified():
        from streamtrain.explore.kernel_search import kernel_front  # late: it brings the simulator

        own = ["fp32" if one is None else one for one in numbers if not isinstance(one, Numbers)]
        if not own:
            kind = "names such as 'bf16', or arithmetics"
            raise ValueError(_NO_FORMAT.format(core="unified", kind=kind, numbers=numbers))
        return kernel_front(
            batch=index(max_batch or batch), numbers=own, clocks=list(map(float, clocks)),
            lanes=None if lanes is None else _several(lanes, int, "lanes"),
            data_bits=64 if data_bits is None else data_bits, **searched,
        )  # fmt: skip

    if core == "auto":
        return _faster(network, target, {"streaming": streaming, "unified": unified})
    front = streaming() if core == "streaming" else unified()
    if evidence is not None and front:
        chosen = list(dict.fromkeys([front.fastest(), front.knee(), front.smallest()]))
        print(confirm(chosen, evidence, batch=batch, executor=executor, progress=progress))
    return front


def _faster(network, target, searches):
    """The front with the fastest design; an empty one says what each core lacks."""
    fronts, reasons = [], []
    for core, search in searches.items():
        try:
            fronts.append(search())
        except ValueError as error:
            reasons.append(f"{core} core: {error}")
        else:
            if not fronts[-1]:
                reasons.append(f"{core} core: {fronts[-1].reason}")
    if not fronts:
        raise ValueError(f"No core trains this network on {target.name}; {'; '.join(reasons)}")
    best = max(fronts, key=lambda front: front.points[0].samples_per_s if front else 0)
    return best if best else replace(best, reason="; ".join(reasons))


def _streaming_front(
    network, target, board, objectives, constraints, variants, batch, search, evaluations, seed, progress
):
    """The front of the streaming core."""
    began = perf_counter()
    points, reasons, evaluated = [], [], 0
    with ProgressBar("searching", _STEPS * len(variants), enabled=progress) as bar:
        for number, variant in enumerate(variants):
            space = Space(variant.plan)
            limits = _limits(constraints, target.device, variant)

            def tell(part, number=number):
                done = round(_STEPS * (number + part))
                bar.update(done, f"variant {number + 1} of {len(variants)}" if len(variants) > 1 else "")

            reason = _too_small(space, limits)
            if reason is None:
                names = [_FIGURES.get(name, name) for name in objectives]
                if search == "exact":
                    found = exact_front(space, names, limits, progress=tell)
                else:
                    found = genetic_front(
                        space, names, limits, batch=batch, evaluations=evaluations, seed=seed,
                        progress=tell,
                    )  # fmt: skip
                designs, figures, count = found
                evaluated += count
                points += _points(space, number, variant, designs, figures)
                if not len(designs):
                    reason = _too_slow(space, limits, constraints, variant, search)
            reasons.append(reason)
            tell(1.0)
    values = [[OBJECTIVES[name] * getattr(point, name) for name in objectives] for point in points]
    kept = non_dominated(np.array(values)) if points else []
    points = [point for point, keep in zip(points, kept, strict=True) if keep]
    points.sort(key=lambda point: (-point.samples_per_s, point.dsp, point.bram36, point.lut))
    return Front(
        network=network,
        board=board,
        batch=batch,
        objectives=objectives,
        constraints=constraints,
        variants=variants,
        points=points,
        reason="" if points else f"Nothing fits {target.name}: {reasons[0]}",
        search=search,
        seconds=perf_counter() - began,
        evaluated=evaluated,
    )


def shortfall(network, board="pynq_z2"):
    """What a board lacks for any design of a network, with the layer to blame; empty if nothing.

    It is found without a search, from the least that each layer takes of a resource. So where it is
    empty, a search may still find that no design has enough of all resources at once.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    board : :class:`str` or :class:`pathlib.Path`

    Raises
    ------
    ValueError
        If the board is unknown, or the pipeline cannot run the network.
    """
    target = load_board(board)
    (variant,) = _variants(network, target, [None], [target.clock_mhz], None, None, 1)
    return _too_small(Space(variant.plan), _limits({}, target.device, variant)) or ""


def _several(value, kinds, name):
    """A value, or a list of them, as a list."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    for one in values:
        if one is not None and (not isinstance(one, kinds) or isinstance(one, bool)):
            raise TypeError(f"{name} must be one or a list of them, not {one!r}")
    if not values:
        raise ValueError(f"{name} must not be empty")
    return values


def _variants(network, target, numbers, clocks, in_flight, lutram_depth, max_batch):
    choices = product(
        numbers,
        _several(2 if in_flight is None else in_flight, int, "in_flight"),
        _several(64 if lutram_depth is None else lutram_depth, int, "lutram_depth"),
        clocks,
    )
    variants = []
    for formats, slots, depth, clock in choices:
        plan = lower(
            network, lambda *layer: (1, 1, 1), formats, in_flight=slots, max_batch=max_batch,
            lutram_depth=depth, operand_bits=target.device.dsp_widths[0],
        )  # fmt: skip
        variants.append(Variant(plan, float(clock)))
    return variants


def _limits(constraints, device, variant):
    """What a design's figures may be at most: the board's resources, and what was asked for."""
    limits = {name: device.resources[name] for name in ("dsp", "lut", "ff")}
    limits["bram18"] = floor(2 * device.bram36)
    for name, limit in constraints.items():
        if name == "samples_per_s":
            limit = floor(variant.clock_mhz * 1e6 / limit)
        elif name == "latency_us":
            limit = floor(variant.clock_mhz * limit)
        elif name == "bram36":
            limit = floor(2 * limit)
        figure = _FIGURES.get(name, name)
        limits[figure] = min(limit, limits.get(figure, np.inf))
    return limits


def _points(space, number, variant, designs, figures):
    rate = variant.clock_mhz * 1e6
    for design, own in zip(designs, figures, strict=True):
        cycles, latency, dsp, bram18, lut, ff = own
        yield Point(
            variant=number,
            foldings=space.named(design),
            cycles=int(cycles),
            latency_cycles=int(latency),
            samples_per_s=float(rate / cycles),
            latency_us=float(latency / variant.clock_mhz),
            dsp=int(dsp),
            bram36=float(bram18 / 2),
            lut=int(lut),
            ff=int(ff),
        )


# -- Why nothing fits ------------------------------------------------------------------------------


def _too_small(space, limits):
    """What a resource lacks even for the design that takes the least of it; None if nothing.

    Of a stage those foldings are looked at that leave enough of the other resources.
    """
    most = np.array([limits[resource] for resource in RESOURCES])
    links = [cost.min(axis=(0, 1)) for cost in space.link_cost]
    least = [cost.min(axis=0) for cost in space.cost]
    spent = space.shell + np.sum(links, axis=0)
    for r, resource in enumerate(RESOURCES):
        others = np.arange(len(RESOURCES)) != r
        choices = []
        for s, cost in enumerate(space.cost):
            rest = spent + np.sum(least, axis=0) - least[s]
            fits = np.flatnonzero((cost + rest <= most)[:, others].all(axis=1))
            fits = fits if len(fits) else np.arange(len(cost))
            choices.append(int(fits[cost[fits, r].argmin()]))
        needs = [cost[choice, r] for cost, choice in zip(space.cost, choices, strict=True)]
        if spent[r] + sum(needs) <= most[r]:
            continue
        worst = int(np.argmax(needs))
        name, stage = _NAMES[resource], space.plan.stages[worst].name
        unit = 2 if resource == "bram18" else 1
        given = f"there are {most[r] / unit:,.6g}"
        if resource == "bram18":
            memory, own = _largest_memory(space, worst, choices[worst])
            if own > most[r]:
                return f"{stage}'s {memory} alone need {own / 2:,.6g} BRAM36; {given}"
        if needs[worst] > most[r]:
            return f"{stage} alone needs {needs[worst] / unit:,.6g} {name}; {given}"
        return (
            f"its layers need at least {(spent[r] + sum(needs)) / unit:,.6g} {name} together, of "
            f"which {stage} takes {needs[worst] / unit:,.6g}; {given}"
        )
    return None


def _largest_memory(space, stage, choice):
    """The memory that takes the most block RAM in one folding of a stage, and how many halves."""
    design = [0] * len(space.own)
    design[stage] = choice
    estimate = estimate_resources(space.folded(design))
    name = space.plan.stages[stage].name
    amounts = {}
    for memory in estimate.memories:
        if memory.layer == name:
            what = memory.name.removeprefix(f"{name}.").split(".")[0]
            what = "weights" if what == "words" else what
            amounts[what] = amounts.get(what, 0) + memory.bram18
    what = max(amounts, key=amounts.__getitem__)
    return what, amounts[what]


def _too_slow(space, limits, constraints, variant, search):
    """What the best design within the resources reaches of what was asked for."""
    if search != "exact":
        return "the genetic search found no design within the limits; search exactly to be sure"
    asked = {name: limit for name, limit in constraints.items() if _FIGURES.get(name, name) in ("cycles", "latency")}
    rest = {name: limit for name, limit in limits.items() if name not in ("cycles", "latency")}
    if not asked:
        return "no folding keeps all limits on resources at once"
    reached = []
    for name in asked:
        figure = _FIGURES.get(name, name)
        _, figures, _ = exact_front(space, [figure], rest)
        if not len(figures):
            return "no folding keeps all limits on resources at once"
        best = figures[0, FIGURES.index(figure)]
        if name == "samples_per_s":
            reached.append(f"{variant.clock_mhz * 1e6 / best:,.0f} samples/s")
        elif name == "latency_us":
            reached.append(f"a latency of {ceil(best) / variant.clock_mhz:,.4g} µs")
        else:
            reached.append(f"{best:,.0f} cycles")
    return f"{limits_text(asked)} is asked for, but the best within its resources is {' and '.join(reached)}"
