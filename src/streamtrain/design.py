"""A design: a plan, and the board it is for. There is a class for each core, with the same verbs."""

from dataclasses import dataclass, replace
from numbers import Real

from rich.console import Console

from streamtrain.checks import checked_integer
from streamtrain.explore.devices import load_board
from streamtrain.host.trainer import Trainer
from streamtrain.network import Network
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import Plan, lower
from streamtrain.pipeline.resources import estimate_resources, loss_dsp, multiplier_dsp
from streamtrain.pipeline.schedule import balanced_foldings
from streamtrain.pipeline.schedule import estimate as estimate_cycles
from streamtrain.records import Record
from streamtrain.stream import DISTRIBUTED_DEPTH
from streamtrain.tables import Shown
from streamtrain.unified.kernel import KernelPlan, kernel_arithmetic, least_memory
from streamtrain.unified.resources import estimate_resources as estimate_kernel_resources

__all__ = ["Design", "UnifiedDesign", "plan"]

_COSTS = {
    "macs": "multiplications of a step",
    "cycles": "cycles of a step",
    "dsp": "DSP",
    "bram36": "BRAM36",
    "lut": "LUT",
    "ff": "FF",
}

_LUT_PER_MULTIPLIER = 225  # as synthesised, everything around a multiplier counted
_LUT_SHARE = 0.75  # of a part's LUTs that a design may take without asking: a full part does not route


@dataclass(frozen=True)
class Savings(Shown, Record):
    """What it saves to freeze layers, at the same foldings.

    Parameters
    ----------
    layers : tuple of :class:`str`
        Those that are frozen.
    frozen, trained : dict
        What the design costs, and what it would cost if all layers were trained, both estimated:
        ``macs`` and ``cycles`` of a step, ``dsp``, ``bram36``, ``lut`` and ``ff``.
    """

    layers: tuple
    frozen: dict
    trained: dict

    @property
    def saved(self):
        """Part of each cost that is saved, 0 to 1."""
        return {
            name: 1 - cost / self.trained[name] if cost else 0.0 for name, cost in self.frozen.items()
        }

    def table(self):
        """Header and rows: each cost, with all layers trained, as it is, and what that saves."""
        saved = self.saved
        rows = [
            (_COSTS[name], self.trained[name], cost, f"{saved[name]:.0%}")
            for name, cost in self.frozen.items()
        ]
        return ("", "all trained", "frozen", "saved"), rows

    def _summary(self):
        return f"frozen: {', '.join(self.layers) or 'none'}"


def _costs(plan, batch):
    usage = estimate_resources(plan).total
    return {
        "macs": plan.network.training_macs,
        "cycles": estimate_cycles(plan, batch).cycles,
        "dsp": usage.dsp,
        "bram36": usage.bram36,
        "lut": round(usage.lut),
        "ff": usage.ff,
    }


def _most_dsp(plan):
    """DSP slices of the multiplier that takes most of them."""
    return max(multiplier_dsp(plan, stage) for stage in plan.stages)


def _checked_board(design, kind):
    """The board of a design with a plan of this kind, whose clock and board's name are put right."""
    if not isinstance(design.plan, kind):
        raise TypeError(f"Plan must be a {kind.__name__}, not {design.plan!r}")
    clock = design.clock_mhz
    if not isinstance(clock, Real) or isinstance(clock, bool):
        raise TypeError(f"clock_mhz must be a number, not {clock!r}")
    if not 0 < clock < float("inf"):
        raise ValueError(f"clock_mhz must be positive, not {clock!r}")
    object.__setattr__(design, "clock_mhz", float(clock))
    target = load_board(design.board)
    is_file = str(design.board).endswith(".toml")
    object.__setattr__(design, "board", str(design.board) if is_file else target.name)
    return target


@dataclass(frozen=True)
class Design(Shown, Record):
    """A network planned for a board: what everything else starts from.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    board : :class:`str`
        Name of a known board, or a board file.
    clock_mhz : :class:`float`
        Clock of the core.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the board is unknown, has too few DSP slices or block RAMs, or the clock is not positive.
    """

    plan: Plan
    board: str
    clock_mhz: float

    def __post_init__(self):
        device = _checked_board(self, Plan).device
        if self.dsp > device.dsp:
            loss = loss_dsp(self.plan)
            arrays = f"{self.multipliers:,} multipliers"
            if self.dsp > self.multipliers + loss:
                arrays += f" of up to {_most_dsp(self.plan)} each"
            raise ValueError(
                f"Design needs {self.dsp:,} DSP slices ({arrays} + {loss} for the loss), but {self.board} has "
                f"{device.dsp:,} ({device.name})"
            )
        # Of LUTs and flip-flops, of which there is an estimate, only `resources` tells.
        memories = replace(self.resources(), available={"bram36": device.bram36})
        if memories.problem:
            raise ValueError(
                f'{memories.problem}; use core="unified", which has DRAM, a larger part, or a smaller network'
            )

    @property
    def network(self):
        """The network that is trained."""
        return self.plan.network

    @property
    def foldings(self):
        """(Pm, Pn, Pk) of each layer with weights, by its name."""
        return {stage.name: stage.folding for stage in self.plan.stages}

    @property
    def multipliers(self):
        """Multipliers of all arrays."""
        return self.plan.multipliers

    @property
    def dsp(self):
        """DSP slices: of each multiplier one, or as many as its operands need on the device, and the loss's."""
        arrays = (s.multipliers * multiplier_dsp(self.plan, s) for s in self.plan.stages)
        return sum(arrays) + loss_dsp(self.plan)

    @property
    def bound_cycles(self):
        """Cycles of one training step if every multiplier worked in every cycle."""
        return self.plan.bound_cycles

    def estimate(self, batch=1):
        """Cycles of a training step: an :class:`~streamtrain.pipeline.schedule.Estimate`."""
        return estimate_cycles(self.plan, batch)

    def resources(self):
        """What it takes of the board: a :class:`~streamtrain.usage.ResourceEstimate`."""
        return estimate_resources(self.plan, load_board(self.board).device)

    def savings(self, batch=1):
        """What the frozen layers save: :class:`Savings` against this design with all layers trained.

        Foldings and formats are the same. Raises :exc:`ValueError` if all layers could not be trained in
        these formats, or ``batch`` is out of its range.
        """
        layers = (
            replace(layer, trainable=True) if layer.name in self.network.frozen else layer
            for layer in self.network.layers
        )
        stages = (
            replace(stage, trainable=True, back=position > 0)
            for position, stage in enumerate(self.plan.stages)
        )
        trained = replace(
            self.plan, network=replace(self.network, layers=tuple(layers)), stages=tuple(stages)
        )
        return Savings(self.network.frozen, _costs(self.plan, batch), _costs(trained, batch))

    def golden(self, exact=True):
        """A :class:`~streamtrain.host.trainer.Trainer` on the golden model.

        With ``exact=False`` it is the float twin: the same computation, with nothing rounded.
        """
        from streamtrain.golden import Golden  # late: it brings a compiler

        return Trainer(self.plan, Golden(self.plan, exact=exact))

    def simulate(self, **options):
        """A :class:`~streamtrain.host.trainer.Trainer` on compiled RTL.

        Options are those of :class:`~streamtrain.simulate.SimulatedTrainer`.
        """
        from streamtrain.simulate import SimulatedTrainer  # late: it brings a compiler

        return SimulatedTrainer(self.plan, **options)

    def verify(self, steps, **options):
        """Train golden model and RTL side by side: :func:`streamtrain.simulate.verify`."""
        from streamtrain.simulate import verify

        return verify(self.plan, steps=steps, **options)

    def build(self, out, **options):
        """Write RTL and reports to the folder ``out``: :func:`streamtrain.build.build`."""
        from streamtrain.build import build

        return build(self, out, **options)

    def table(self):
        """Header and rows of a summary: a stage's folding, multipliers, words, cycles by phase."""
        rows = []
        for stage in self.plan.stages:
            cycles = stage.phase_cycles()
            rows.append((
                stage.name,
                "x".join(map(str, stage.folding)),
                stage.multipliers,
                stage.words,
                *cycles.values(),
            ))
        return ("stage", "folding", "multipliers", "words", *cycles), rows

    def _summary(self):
        return (
            f"{self.multipliers:,} multipliers on {self.board} at {self.clock_mhz:g} MHz: "
            f"at least {self.bound_cycles:,.0f} cycles for a training step"
            + (f"; frozen: {', '.join(frozen)}" if (frozen := self.network.frozen) else "")
        )


@dataclass(frozen=True)
class UnifiedDesign(Shown, Record):
    """A network planned for the unified core on a board: what everything else starts from.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    board : :class:`str`
        Name of a known board, or a board file.
    clock_mhz : :class:`float`
        Clock of the core.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the board is unknown, has too few DSP slices or too little DRAM, or the clock is not positive.
    """

    plan: KernelPlan
    board: str
    clock_mhz: float

    def __post_init__(self):
        target = _checked_board(self, KernelPlan)
        device = target.device
        needed = self.resources().total.dsp
        if needed > device.dsp:
            raise ValueError(
                f"{self.lanes} x {self.lanes} multipliers of {self.plan.arithmetic.name}, and what is around them, "
                f"need {needed:,} DSP slices, but {self.board} has {device.dsp:,} ({device.name}); plan with fewer "
                f"lanes"
            )
        if target.memory is None:
            raise ValueError(
                f"The unified core keeps weights and maps in DRAM, and {self.board} has none"
            )
        _check_dram("needs", self.memory_bytes, self.plan.base, self.board, target)

    @property
    def network(self):
        """The network that is trained."""
        return self.plan.network

    @property
    def lanes(self):
        """Inputs, and outputs, that the array takes at once."""
        return self.plan.array.lanes

    @property
    def multipliers(self):
        """Multipliers of the array."""
        return self.lanes**2

    @property
    def bound_cycles(self):
        """Cycles of one sample's training step if every multiplier worked in every cycle."""
        return self.plan.bound_cycles

    @property
    def memory_bytes(self):
        """Bytes of DRAM that maps, weights and programs take; programs for whole mini-batches."""
        return self.plan.memory_bytes

    def estimate(self, batch=None):
        """Cycles of a training step: a :class:`~streamtrain.unified.estimate.KernelEstimate`.

        ``batch`` is the mini-batch, ``max_batch`` without.
        """
        from streamtrain.unified.estimate import estimate_kernel  # late: it brings the simulator

        return estimate_kernel(self.plan, batch)

    def resources(self):
        """What it takes of the board: a :class:`~streamtrain.usage.ResourceEstimate` of its parts."""
        return estimate_kernel_resources(self.plan, load_board(self.board).device)

    def golden(self):
        """A :class:`~streamtrain.host.trainer.Trainer` on the golden model."""
        from streamtrain.golden.kernel import GoldenKernel  # late: it brings a compiler

        return Trainer(self.plan, GoldenKernel(self.plan))

    def simulate(self, **options):
        """A :class:`~streamtrain.host.trainer.Trainer` on compiled RTL, with simulated memory behind it.

        Options are those of :class:`~streamtrain.simulate.SimulatedKernelTrainer`.
        """
        from streamtrain.simulate import SimulatedKernelTrainer  # late: it brings a compiler

        return SimulatedKernelTrainer(self.plan, **options)

    def verify(self, steps, **options):
        """Train golden model and RTL side by side: :func:`streamtrain.simulate.verify_kernel`."""
        from streamtrain.simulate import verify_kernel

        return verify_kernel(self.plan, steps=steps, **options)

    def build(self, out, **options):
        """Write RTL and reports to the folder ``out``: :func:`streamtrain.build.build`."""
        from streamtrain.build import build

        return build(self, out, **options)

    def table(self):
        """Header and rows of a summary: a layer's channels, its map and kernel, passes and weights."""
        weights = {row[0]: row[3] for row in self.network.table()[1]}
        rows = [
            (
                layer.name,
                f"{layer.n} -> {layer.m}",
                f"{layer.rows}x{layer.columns}",
                f"{layer.kernel}x{layer.kernel}",
                layer.tiles[0] * (1 if layer.norm else len(layer.passes.tile)),
                weights[layer.name],
            )
            for layer in self.plan.array.layers
        ]
        return ("layer", "channels", "map", "kernel", "passes", "weights"), rows

    def _summary(self):
        return (
            f"{self.lanes} x {self.lanes} multipliers of {self.plan.arithmetic.name} on {self.board} at "
            f"{self.clock_mhz:g} MHz, with {_mb(sum(self.memory_bytes.values()))} of DRAM: at least "
            f"{self.bound_cycles:,.0f} cycles for a sample; mini-batches of up to {self.plan.max_batch}"
            + (f"; frozen: {', '.join(frozen)}" if (frozen := self.network.frozen) else "")
            + (f"; it will not fit: {problem}" if (problem := self.resources().problem) else "")
        )


def _check_dram(needs, parts, base, board, target):
    """Raise :exc:`ValueError` if parts, in bytes, do not fit a board's DRAM from ``base`` on."""
    size, total = min(target.memory.mb << 20, 1 << 32), sum(parts.values())
    if base + total > size:
        each = ", ".join(f"{what} {_mb(count)}" for what, count in parts.items())
        raise ValueError(
            f"The design {needs} {_mb(total)} of DRAM ({each}) from {base:#x} on, but {board} has {_mb(size)}; plan "
            f"with a smaller max_batch, or with weight_sets=1"
        )


def _mb(count):
    return f"{count / 2**20:,.1f} MB"


def plan(
    network,
    board="pynq_z2",
    *,
    core="streaming",
    multipliers=None,
    foldings=None,
    numbers=None,
    overrides=None,
    in_flight=None,
    max_batch=1,
    clock_mhz=None,
    seed=1,
    lutram_depth=DISTRIBUTED_DEPTH,
    lanes=None,
    depths=None,
    data_bits=None,
    base=None,
    weight_sets=None,
    progress=True,
):
    """Plan a network for a board.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    board : :class:`str` or :class:`pathlib.Path`
        A known name, or a board file.
    core : :class:`str`
        ``"streaming"``: a pipeline with an array for each layer, and everything on the chip. ``"unified"``: one
        array for all layers and phases, with DRAM behind it, for networks that do not fit. ``"auto"``: that of
        the two that trains more samples per second in mini-batches of ``max_batch``, by the estimates of both;
        only ``numbers``, ``max_batch`` and ``clock_mhz`` can be given then.
    multipliers : :class:`int`, optional
        At most how many, shared out so that a training step takes few cycles. Without it and
        ``foldings``, as many as leave a quarter of the board's LUTs free.
    foldings : dict of (Pm, Pn, Pk) by layer name, optional
        Each layer's share, instead of ``multipliers``.
    numbers : :class:`~streamtrain.pipeline.numbers.Numbers`, optional
        Formats of all layers. Of the unified core, an :class:`~streamtrain.numeric.Arithmetic` or the name of
        the format that is multiplied: ``"fp32"`` (the default), ``"bf16"``, ``"fp16"``, ``"fixed<16,8>"``.
    overrides : dict of :class:`~streamtrain.pipeline.numbers.Numbers` by layer name, optional
        Formats of single layers.
    in_flight : :class:`int`, optional
        Samples that each layer has room for; 2 without. Results do not depend on it.
    max_batch : :class:`int`
        Largest mini-batch that the hardware can accumulate.
    clock_mhz : :class:`float`, optional
        Clock of the core; the board's default without.
    seed : :class:`int`
        Of the random bits for stochastic rounding.
    lutram_depth : :class:`int`
        Memories of weights, gradients, maps and records up to this many words live in LUT RAM, deeper
        ones in block RAM; 0 to 1024. Results and cycles do not depend on it.
    lanes : :class:`int`, optional
        Of the unified core: it has ``lanes x lanes`` multipliers; a multiple of ``data_bits / 32``, and at least 2.
        Without, the array that trains fastest of those that leave a quarter of the board's LUTs free.
    depths : :class:`~streamtrain.unified.buffers.Depths`, optional
        Of the unified core's buffers. Without, as :func:`~streamtrain.unified.planner.choose_depths` chooses them
        for three quarters of the board's block RAM.
    data_bits, base : :class:`int`, optional
        Bits of a word of DRAM, 64 without, and the first address that the unified core may use, 0 without.
    weight_sets : :class:`int`, optional
        2, the default: the unified core keeps the weights of the step before until a step is complete, which
        takes twice their memory. 1: it updates them where they lie.
    progress : :class:`bool`
        Whether to show on standard error what is tried for the unified core: a large network takes minutes.

    Returns a :class:`Design`, or of the unified core a :class:`UnifiedDesign`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the board is unknown or too small, a folding does not divide, formats cannot be trained
        with, or a number is out of its range.
    """
    if not isinstance(network, Network):
        raise TypeError(f"Network must be a Network, not {network!r}")
    target = load_board(board)
    clock_mhz = target.clock_mhz if clock_mhz is None else clock_mhz
    streaming = {
        "multipliers": multipliers, "foldings": foldings, "overrides": overrides, "in_flight": in_flight,
        "seed": None if seed == 1 else seed,
        "lutram_depth": None if lutram_depth == DISTRIBUTED_DEPTH else lutram_depth,
    }  # fmt: skip
    unified = {"depths": depths, "data_bits": data_bits, "base": base, "weight_sets": weight_sets}
    if core == "auto":
        _refuse(streaming | unified | {"lanes": lanes}, core, ("numbers", "max_batch"))
        return _faster(network, board, numbers, max_batch, clock_mhz, progress)
    if core == "unified":
        _refuse(streaming, core, ("lanes", "numbers", "max_batch", *unified))
        from streamtrain.unified.planner import plan_kernel  # late: it brings the simulator

        given = {name: value for name, value in unified.items() if value is not None}
        numbers = kernel_arithmetic("fp32" if numbers is None else numbers)
        if target.memory is not None:  # before programs are made, which takes long if there is much of all
            kept = least_memory(network, numbers, max_batch, given.get("weight_sets", KernelPlan.weight_sets))
            _check_dram("needs at least", kept, 0, board, target)
        with Console(stderr=True, quiet=not progress).status("planning") as status:
            lowered = plan_kernel(
                network, numbers, max_batch, target.device, lanes=lanes,
                report=lambda text: status.update(f"planning: {text}"), **given,
            )  # fmt: skip
        return UnifiedDesign(lowered, board, clock_mhz)
    if core != "streaming":
        raise ValueError(f'core must be "streaming", "unified" or "auto", not {core!r}')
    _refuse(unified | {"lanes": lanes}, core, ("numbers", "max_batch", *streaming))
    if multipliers is not None and foldings is not None:
        raise ValueError("Give multipliers or foldings, not both")
    if numbers is not None and not isinstance(numbers, Numbers):
        raise ValueError(
            f"Numbers of the streaming core are an st.Numbers, not {numbers!r}; names such as 'bf16' are for "
            f'core="unified" (--core unified)'
        )
    in_flight = 2 if in_flight is None else in_flight

    def lowered(foldings):
        return lower(
            network,
            foldings,
            numbers,
            overrides,
            in_flight=in_flight,
            max_batch=max_batch,
            seed=seed,
            lutram_depth=lutram_depth,
            operand_bits=target.device.dsp_widths[0],
        )

    if foldings is None:
        smallest = lowered(lambda *layer: (1, 1, 1))
        each, loss = _most_dsp(smallest), loss_dsp(smallest)
        available = (target.device.dsp - loss) // each
        if multipliers is None:
            by_lut = int(target.device.lut * _LUT_SHARE) // _LUT_PER_MULTIPLIER
            multipliers = min(available, by_lut)
        multipliers = checked_integer("multipliers", multipliers)
        if multipliers > available:
            arrays = f"{multipliers:,} multipliers" + (f" of {each} DSP slices" if each > 1 else "")
            raise ValueError(
                f"{arrays} and {loss} DSP slice{'s' if loss > 1 else ''} for the loss are more than "
                f"the {target.device.dsp:,} of {board} ({target.device.name})"
            )
        foldings = balanced_foldings(network, multipliers, in_flight=in_flight, numbers=numbers)
    return Design(lowered(foldings), board, clock_mhz)


def _faster(network, board, numbers, max_batch, clock_mhz, progress):
    """The design of the core that trains more samples per second, of those that fit the board."""
    options = {
        "numbers": numbers, "max_batch": max_batch, "clock_mhz": clock_mhz, "progress": progress,
    }  # fmt: skip
    found, problems = [], {}
    for core in ("streaming", "unified"):
        if numbers is not None and isinstance(numbers, Numbers) != (core == "streaming"):
            problems[core] = f"it has no numbers such as {numbers!r}"
            continue
        try:
            design = plan(network, board, core=core, **options)
        except ValueError as error:
            problems[core] = str(error)
            continue
        problems[core] = design.resources().problem
        if problems[core] is None:
            found.append(design)
    if not found:
        reasons = "; ".join(f"the {core} core: {problem}" for core, problem in problems.items())
        raise ValueError(f"No core trains this network on {board}: {reasons}")
    return max(found, key=lambda design: design.clock_mhz / design.estimate(max_batch).cycles)


def _refuse(others, core, own):
    """Raise :exc:`ValueError` if an argument is given that only the other core takes."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"The {core} core takes no {name}; it takes {', '.join(own)}")
