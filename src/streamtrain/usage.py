"""What a design takes of an FPGA, as records that are printed and compared: those of both cores."""

from dataclasses import dataclass

from streamtrain.records import Record
from streamtrain.tables import Shown

__all__ = ["RESOURCES", "LayerUsage", "MemoryUsage", "ResourceEstimate", "Usage", "device_resources"]

RESOURCES = {"dsp": "DSP", "bram36": "BRAM36", "lut": "LUT", "ff": "FF"}
"""Names of the resources, in fields and for people."""


@dataclass(frozen=True)
class Usage(Record):
    """Resources of a 7-series part. Usages can be added.

    Parameters
    ----------
    dsp : :class:`int`
        DSP slices.
    bram18 : :class:`int`
        Halves of a block RAM, 18 Kbit each.
    lut : :class:`float`
        LUTs, those used as memory among them, before a placer puts two small ones into one.
    ff : :class:`int`
        Flip-flops.
    """

    dsp: int = 0
    bram18: int = 0
    lut: float = 0.0
    ff: int = 0

    @property
    def bram36(self):
        """Block RAMs of 36 Kbit; a half counts 0.5."""
        return self.bram18 / 2

    def __add__(self, other):
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.dsp + other.dsp,
            self.bram18 + other.bram18,
            self.lut + other.lut,
            self.ff + other.ff,
        )


@dataclass(frozen=True)
class MemoryUsage(Record):
    """One memory of a design, or several alike.

    Parameters
    ----------
    layer : :class:`str`
        Name of the weighted layer that it belongs to.
    name : :class:`str`
        As in the Verilog, such as ``conv2.weights.words``.
    width, depth : :class:`int`
        Bits of a word; words.
    copies : :class:`int`
        Memories: a window's pixels are spread over as many as it has taps.
    primitive : :class:`str`
        What all copies are made of, such as ``RAMB36E1``; ``FF`` for registers.
    cells : :class:`int`
        Primitives of all copies; for ``FF``, their bits.
    bram18, lut : :class:`int`
        Halves of a block RAM, and LUTs used as memory, of all copies.
    """

    layer: str
    name: str
    width: int
    depth: int
    copies: int
    primitive: str
    cells: int
    bram18: int
    lut: int

    @property
    def bram36(self):
        """Block RAMs of 36 Kbit; a half counts 0.5."""
        return self.bram18 / 2


@dataclass(frozen=True)
class LayerUsage(Record):
    """What one layer takes.

    Parameters
    ----------
    layer : :class:`str`
        Name of the weighted layer: what follows it up to the next one belongs to it. Last comes
        ``"loss and control"``. Of the unified core, which is the same for all layers, a part.
    folding : (Pm, Pn, Pk), optional
    usage : :class:`Usage`
    """

    layer: str
    folding: tuple | None
    usage: Usage


@dataclass(frozen=True)
class ResourceEstimate(Shown, Record):
    """What a plan takes of an FPGA, before synthesis.

    Parameters
    ----------
    layers : tuple of :class:`LayerUsage`
    memories : tuple of :class:`MemoryUsage`
    device : :class:`str`, optional
        What the design is for.
    available : dict, optional
        What the device has: ``dsp``, ``bram36``, ``lut`` and ``ff``, or some of them.
    """

    layers: tuple
    memories: tuple
    device: str | None = None
    available: dict | None = None

    @property
    def total(self):
        """The whole design's :class:`Usage`."""
        return sum((layer.usage for layer in self.layers), Usage())

    @property
    def used(self):
        """Part of each of the device's resources that is used, 1 for all of it. Empty without one."""
        total, available = self.total, self.available or {}
        return {
            name: getattr(total, name) / available[name] for name in RESOURCES if name in available
        }

    @property
    def binding(self):
        """Name of the resource of which the largest part is used, and of the layer that takes most
        of it; None without a device."""
        if not self.used:
            return None
        resource = max(self.used, key=self.used.__getitem__)
        return resource, self.most_of(resource)

    def most_of(self, resource):
        """Name of the layer that takes most of a resource (``"dsp"``, ``"bram36"``, ``"lut"``, ``"ff"``).

        Raises :exc:`ValueError` for another name.
        """
        if resource not in RESOURCES:
            raise ValueError(f"Resource must be one of {', '.join(RESOURCES)}, not {resource!r}")
        return max(self.layers, key=lambda layer: getattr(layer.usage, resource)).layer

    @property
    def fits(self):
        """Whether no more is used than the device has. True without one."""
        return all(part <= 1 for part in self.used.values())

    @property
    def problem(self):
        """Why it does not fit, in a sentence that names the layer to blame; None if it fits."""
        if self.fits:
            return None
        resource, blamed = self.binding
        has, name = self.available[resource], RESOURCES[resource]
        tail = f"; {self.device or 'the device'} has {_number(has)}"
        layer = next(layer for layer in self.layers if layer.layer == blamed)
        if resource == "bram36":
            group, needed = self._largest_memories(blamed)
            if needed > has:
                return f"{blamed}'s {group} alone need {_number(needed)} {name}{tail}"
        needed = getattr(layer.usage, resource)
        if needed > has:
            return f"{blamed} alone needs {_number(needed)} {name}{tail}"
        return (
            f"The design needs {_number(getattr(self.total, resource))} {name}, "
            f"{_number(needed)} of them for {blamed}{tail}"
        )

    def _largest_memories(self, layer):
        """What the layer's largest memories hold, such as weights, and their block RAMs."""
        held = {}
        for memory in self.memories:
            if memory.layer == layer:
                part = memory.name.removeprefix(layer).lstrip("._").partition(".")[0]
                held[part] = held.get(part, 0) + memory.bram36
        group = max(held, key=held.__getitem__)
        return group.replace("_", " "), held[group]

    def table(self):
        """Header and rows: what each layer takes, and all of them."""
        rows = [
            (own.layer, "x".join(map(str, own.folding or ())), *_figures(own.usage))
            for own in self.layers
        ]
        rows.append(("total", "", *_figures(self.total)))
        if self.available:
            parts = (f"{self.used[name]:.0%}" if name in self.used else "" for name in RESOURCES)
            rows.append((f"of {self.device or 'the device'}", "", *parts))
        if not any(own.folding for own in self.layers):
            return ("part", *RESOURCES.values()), [(row[0], *row[2:]) for row in rows]
        return ("layer", "folding", *RESOURCES.values()), rows

    def memory_table(self):
        """Header and rows: each memory."""
        rows = [
            (
                memory.name,
                f"{memory.copies} x {memory.width} x {memory.depth}",
                f"{memory.cells:,} {memory.primitive}",
                memory.bram36,
                memory.lut,
            )
            for memory in self.memories
        ]
        return ("memory", "copies x bits x words", "made of", "BRAM36", "LUT"), rows

    def _summary(self):
        if not self.used:
            return ""
        if self.problem:
            return f"{self.problem}."
        resource, layer = self.binding
        return (
            f"{self.used[resource]:.0%} of {self.device or 'the device'}'s {RESOURCES[resource]} are used, "
            f"most of them by {layer}."
        )


def _number(count):
    return f"{round(count, 1):,g}" if count < 1000 else f"{count:,.0f}"


def _figures(usage):
    return (usage.dsp, usage.bram36, round(usage.lut), usage.ff)


def device_resources(device):
    """What a device has, as estimates of resources take it: a dict; None without one."""
    if device is None:
        return None
    available = dict(getattr(device, "resources", device))
    for resource, count in available.items():
        if resource not in RESOURCES:
            raise ValueError(f"Resource must be one of {', '.join(RESOURCES)}, not {resource!r}")
        if count < 1:
            raise ValueError(f"Device must have at least 1 {RESOURCES[resource]}, not {count!r}")
    return available
