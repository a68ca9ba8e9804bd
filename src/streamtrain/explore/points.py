"""What a front consists of: points, which are figures of designs, and what they share.

There is a pair of classes for each core. A front asks both pairs the same: a point for the parts that were chosen
for it, a variant what these are called, and to make a design of them.
"""

from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import ClassVar

from streamtrain.design import Design, UnifiedDesign
from streamtrain.pipeline.plan import Plan
from streamtrain.records import Record
from streamtrain.unified.buffers import Depths
from streamtrain.unified.kernel import KernelPlan

__all__ = ["FIGURES", "Figures", "KernelPoint", "KernelVariant", "Point", "Variant"]


@dataclass(frozen=True)
class Figures(Record):
    """What a design is estimated to reach and to need.

    Parameters
    ----------
    variant : :class:`int`
        Which of the front's variants it is.
    cycles : :class:`float`
        From one sample to the next while training; the mean over a mini-batch.
    latency_cycles : :class:`int`
        Of a prediction.
    samples_per_s, latency_us : :class:`float`
        The same at the variant's clock.
    dsp : :class:`int`
        DSP slices.
    bram36 : :class:`float`
        Block RAMs of 36 Kbit, in halves.
    lut, ff : :class:`int`
        Six-input LUTs and flip-flops.
    """

    variant: int
    cycles: float
    latency_cycles: int
    samples_per_s: float
    latency_us: float
    dsp: int
    bram36: float
    lut: int
    ff: int


FIGURES = tuple(field.name for field in fields(Figures))
"""Names of figures, and the variant's number, which comes first."""


@dataclass(frozen=True)
class Point(Figures):
    """One design of the streaming core on a front: its foldings, and its :class:`Figures`.

    Parameters
    ----------
    foldings : tuple of (Pm, Pn, Pk)
        Of each stage, in order.
    """

    foldings: tuple

    @property
    def parts(self):
        """What was chosen for each part of the design."""
        return self.foldings

    def texts(self):
        """The same in words."""
        return ["x".join(map(str, folding)) for folding in self.foldings]

    def may_be(self, design):
        """Whether a design has these parts; its variant may be another one."""
        return isinstance(design, Design) and self.foldings == tuple(
            stage.folding for stage in design.plan.stages
        )


@dataclass(frozen=True)
class KernelPoint(Figures):
    """One design of the unified core on a front: its buffers, and its :class:`Figures`.

    Parameters
    ----------
    depths : :class:`~streamtrain.unified.buffers.Depths`
    """

    depths: Depths

    def __post_init__(self):
        object.__setattr__(self, "depths", Depths(*self.depths))

    @property
    def parts(self):
        """What was chosen for each part of the design."""
        return tuple(self.depths)

    def texts(self):
        """The same in words."""
        return list(self.depths)

    def may_be(self, design):
        """Whether a design has these parts; its variant may be another one."""
        return isinstance(design, UnifiedDesign) and self.depths == design.plan.depths


@dataclass(frozen=True)
class Variant(Record):
    """What is chosen for a design of the streaming core as a whole, and not stage by stage.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
        With a folding of (1, 1, 1) for each stage. All but the foldings is the design's.
    clock_mhz : :class:`float`
        Clock of the core.
    """

    plan: Plan
    clock_mhz: float

    core: ClassVar[str] = "streaming"
    part: ClassVar[str] = "layer"
    """What one of :attr:`names` is."""
    chosen: ClassVar[str] = "folding"
    """What is chosen for it."""

    @property
    def names(self):
        """Names of the parts that a point has chosen."""
        return [stage.name for stage in self.plan.stages]

    @property
    def places(self):
        """Where each of a point's parts is in the JSON of a design."""
        return [("plan", "stages", number, "folding") for number in range(len(self.plan.stages))]

    def design(self, point, board):
        """The :class:`~streamtrain.design.Design` of a point."""
        stages = tuple(
            replace(stage, folding=folding)
            for stage, folding in zip(self.plan.stages, point.foldings, strict=True)
        )
        return Design(replace(self.plan, stages=stages), board, self.clock_mhz)

    def facts(self):
        """What it consists of: plain values by name, those of a stage only where stages differ."""
        plan = self.plan
        facts = {"clock_mhz": self.clock_mhz}
        for field in fields(plan):
            if field.name not in {"network", "stages"}:
                facts[field.name] = getattr(plan, field.name)
        ignored = {"name", "folding"}
        if all(stage.stored == stage.weights for stage in plan.stages):
            ignored.add("stored")  # without a master, weights are stored as they are multiplied
        for field in fields(plan.stages[0]):
            if field.name in ignored:
                continue
            own = {stage.name: getattr(stage, field.name) for stage in plan.stages}
            if len(set(own.values())) == 1:
                facts[field.name] = own[plan.stages[0].name]
            else:
                facts |= {f"{name}.{field.name}": value for name, value in own.items()}
        return {name: _plain(value) for name, value in facts.items()}


@dataclass(frozen=True)
class KernelVariant(Record):
    """What is chosen for a design of the unified core besides its buffers.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
        With buffers for whole layers. All but the buffers is the design's.
    clock_mhz : :class:`float`
        Clock of the core.
    """

    plan: KernelPlan
    clock_mhz: float

    core: ClassVar[str] = "unified"
    part: ClassVar[str] = "buffer"
    """What one of :attr:`names` is."""
    chosen: ClassVar[str] = "words"
    """What is chosen for it."""

    @property
    def names(self):
        """Names of the parts that a point has chosen."""
        return list(Depths._fields)

    @property
    def places(self):
        """Where each of a point's parts is in the JSON of a design."""
        return [("plan", "depths", number) for number in range(len(Depths._fields))]

    def design(self, point, board):
        """The :class:`~streamtrain.design.UnifiedDesign` of a point."""
        return UnifiedDesign(replace(self.plan, depths=point.depths), board, self.clock_mhz)

    def facts(self):
        """What it consists of: plain values by name."""
        plan = self.plan
        return {
            "clock_mhz": _plain(self.clock_mhz),
            "numbers": plan.arithmetic.name,
            "lanes": str(plan.array.lanes),
        }


def _plain(value):
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)
