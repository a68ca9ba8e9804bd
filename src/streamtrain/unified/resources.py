# amaranth: UnusedElaboratable=no
# Units are made to be asked for their latencies only.

"""What the unified core takes of an FPGA, part by part.

DSP slices and memories are known exactly: what each unit takes, and for each memory what
:mod:`streamtrain.pipeline.memories` says. LUTs and flip-flops are those of the units, each synthesised alone, and
of the registers and multiplexers around them, as the gateware has them for each lane. What depends on neither
lanes nor numbers is a constant of each part, from a synthesised core.
"""

from streamtrain.bus.memory import BURST, OUTSTANDING
from streamtrain.golden.passes import PARTIALS
from streamtrain.golden.softmax import POWERS, PROBABILITY_BITS, SCORE
from streamtrain.numeric import FloatArithmetic
from streamtrain.numeric.floating import FP32
from streamtrain.pipeline.memories import map_memory
from streamtrain.pipeline.plan import ceil_log2
from streamtrain.stream import DISTRIBUTED_DEPTH
from streamtrain.unified.array import MultiplyAccumulateArray
from streamtrain.unified.buffers import PLACES
from streamtrain.unified.channels import REGISTERS
from streamtrain.unified.kernel import KernelPlan
from streamtrain.unified.outputs import ROOM
from streamtrain.unified.program import RECORD_BITS
from streamtrain.usage import LayerUsage, MemoryUsage, ResourceEstimate, Usage, device_resources

__all__ = ["buffer_memory", "core_resources", "estimate_resources"]

_FAMILY = "xc7"  # whose DSP slices are counted without a device
_WORD = FP32.width  # bits of an accumulator


def estimate_resources(plan, device=None):
    """Estimate what a plan takes of an FPGA.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    device : optional
        What it is for: as :func:`streamtrain.pipeline.resources.estimate_resources` takes it.

    Returns
    -------
    :class:`~streamtrain.usage.ResourceEstimate`
        Of the core's parts, where a pipeline has layers.

    Raises
    ------
    TypeError
        If ``plan`` is no plan.
    ValueError
        If the device has an unknown resource, or less than 1 of one.
    """
    if not isinstance(plan, KernelPlan):
        raise TypeError(f"Plan must be a KernelPlan, not {plan!r}")
    return core_resources(
        plan.arithmetic, plan.array.lanes, plan.depths, plan.network.classes, plan.compiler.fold,
        plan.compiler.normalized, data_bits=plan.data_bits, device=device,
    )  # fmt: skip


def core_resources(
    arithmetic, lanes, depths, classes, fold=None, normalized=0, *, data_bits, device=None
):
    """Estimate what a core takes of an FPGA, as :func:`estimate_resources` does for a plan's.

    Parameters are those of :class:`~streamtrain.unified.core.UnifiedCore`.
    """
    core = _Core(
        arithmetic, lanes, depths, classes, fold, normalized, data_bits,
        getattr(device, "family", _FAMILY),
    )  # fmt: skip
    parts = core.parts()
    return ResourceEstimate(
        tuple(LayerUsage(name, None, part.usage()) for name, part in parts.items()),
        tuple(row for name, part in parts.items() for row in part.rows(name)),
        getattr(device, "name", None),
        device_resources(device),
    )


def buffer_memory(depths, arithmetic, lanes, groups=1):
    """BRAM36, and LUTs used as memory, of all memories that depend on the depths of buffers.

    Parameters
    ----------
    depths : :class:`~streamtrain.unified.buffers.Depths`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes : :class:`int`
    groups : :class:`int`
        Parts of the buffer of inputs, for a first layer that is folded into the lanes.
    """
    bram18 = lut = 0
    for width, depth, copies, block in (
        *((*own, None) for _, *own in _double_buffers(depths, arithmetic, lanes, groups)),
        (PLACES * lanes, depths.sums, 1, _is_block(depths.sums)),
    ):
        found = map_memory(width, depth, block=block)
        bram18, lut = bram18 + copies * found.bram18, lut + copies * found.lut
    return bram18 / 2, lut


def _is_block(depth):
    """Whether a queue's memory is block RAM."""
    return depth > DISTRIBUTED_DEPTH


def _double_buffers(depths, arithmetic, lanes, groups):
    """(name, bits, words, memories) of the double buffers."""
    for name, (width, depth) in depths.sizes(arithmetic, lanes).items():
        parts = groups if name == "x" else 1
        yield name, width // parts, depth, 2 * parts


class _Units:
    """What the units of an arithmetic take, each synthesised alone (docs/numbers.md).

    Operands of other widths than those that were are taken in proportion.
    """

    def __init__(self, arithmetic, family):
        width = arithmetic.operand.width
        dsp = arithmetic.multiplier_dsp(family)
        if isinstance(arithmetic, FloatArithmetic):
            same = arithmetic.operand == arithmetic.accumulator
            if same:
                self.multiplier = Usage(dsp, lut=100, ff=87)
                self.narrow = self.widen = Usage(lut=16, ff=32)
            else:
                self.multiplier = Usage(dsp, lut=37 + 3.6 * arithmetic.operand.exponent, ff=64)
                self.narrow = Usage(lut=18 + width, ff=22 + width)
                self.widen = Usage(lut=0.6 * width, ff=2 + width)
            self.adder = Usage(lut=352, ff=254)
            self.maximum = Usage(lut=3 * width - 2, ff=3.3 * width)
            wide = FloatArithmetic(arithmetic.accumulator, arithmetic.accumulator)
            self.scaler = Usage(wide.multiplier_dsp(family), lut=100, ff=87)
        else:
            self.multiplier = Usage(dsp)
            self.adder = Usage(lut=64, ff=65)
            self.narrow = Usage(lut=13 + width, ff=21 + width)
            self.widen = Usage(ff=width)
            self.maximum = Usage(lut=1.7 * width, ff=3.1 * width)
            self.scaler = Usage(4, lut=72, ff=100)


class _Part:
    """A part of the core: what it takes, and its memories that are worth naming."""

    def __init__(self):
        self.sum, self.memories = Usage(), []

    def add(self, usage, number=1):
        self.sum += Usage(
            number * usage.dsp, number * usage.bram18, number * usage.lut, number * usage.ff
        )

    def gates(self, lut=0, ff=0):
        self.add(Usage(lut=lut, ff=ff))

    def memory(self, name, width, depth, copies=1, *, block=None, **options):
        """``copies`` memories; ``options`` are those of :func:`map_memory`."""
        found = map_memory(width, depth, block=block, **options)
        self.add(Usage(bram18=found.bram18, lut=found.lut, ff=found.ff), copies)
        self.gates(lut=copies * width * -(-(found.ways - 1) // 3))
        self.memories.append((name, width, depth, copies, found))

    def queue(self, name, width, depth):
        self.memory(name, width, depth, block=_is_block(depth), held=False)

    def usage(self):
        return Usage(self.sum.dsp, self.sum.bram18, self.sum.lut, round(self.sum.ff))

    def rows(self, part):
        for name, width, depth, copies, found in self.memories:
            yield MemoryUsage(
                part, name, width, depth, copies, found.primitive, copies * found.count,
                copies * found.bram18, copies * found.lut,
            )  # fmt: skip


class _Core:
    """Counts what a core is made of."""

    def __init__(self, arithmetic, lanes, depths, classes, fold, normalized, data_bits, family):
        self.arithmetic, self.lanes, self.depths = arithmetic, lanes, depths
        self.classes, self.normalized, self.data_bits = classes, normalized, data_bits
        self.groups = lanes // fold.group if fold else 1
        self.units, self.family = _Units(arithmetic, family), family
        self.operand = arithmetic.operand.width
        self.vector, self.row = lanes * self.operand, lanes * _WORD  # bits
        array = MultiplyAccumulateArray(arithmetic, 2)
        self.multiplies, self.adds = array.product_latency, array.add_latency  # cycles

    def parts(self):
        """Each :class:`_Part` by its name."""
        names = (
            "array", "buffers", "sequencer", "loader", "storer", "update", "softmax", "channels",
            "program", "memory ports", "registers",
        )  # fmt: skip
        parts = {}
        for name in names:
            if name == "channels" and not self.normalized:
                continue
            parts[name] = part = _Part()
            getattr(self, f"_{name.replace(' ', '_')}")(part)
        return parts

    def _array(self, part):
        """Multipliers and adders; two weights behind each multiplier, and what chooses operands and terms."""
        units, lanes = self.units, self.lanes
        part.add(units.multiplier, lanes**2)
        part.add(units.adder, lanes**2 + lanes)
        part.add(units.widen, lanes)
        part.gates(lut=lanes**2 * 2 * (self.operand + _WORD), ff=lanes**2 * 2 * self.operand)
        waits = self.multiplies - self.arithmetic.widen().latency
        part.gates(ff=waits * self.row)

    def _buffers(self, part):
        """Double buffers: behind each half a register, and for each side that reads what chooses a half.

        What chooses a half of the gradients for the array is part of the adders' own choice.
        """
        sides = {"sums": 2, "bias_gradients": 2}
        for name, width, depth, copies in _double_buffers(
            self.depths, self.arithmetic, self.lanes, self.groups
        ):
            part.memory(name, width, depth, copies)
            part.gates(lut=sides.get(name, 1) * width * copies / 2, ff=width * copies)
        part.gates(ff=2 * self.vector)  # operands on their way to the array

    def _sequencer(self, part):
        """Counters of two loops, and the addresses of what is on its way through the array."""
        depths, levels = self.depths, (self.lanes - 1).bit_length()
        addresses = sum(map(ceil_log2, (depths.sums, depths.gradients, depths.tiles)))
        cycles = self.multiplies + (levels + 1) * self.adds
        part.gates(lut=690, ff=350 + (addresses + 12) * cycles)
        part.gates(lut=(self.groups - 1) * 60, ff=(self.groups - 1) * 60)

    def _loader(self, part):
        """Words are put together from beats, and weights are rounded."""
        part.add(self.units.narrow, self.lanes)
        part.gates(lut=3 * self.row, ff=144 + self.row)

    def _storer(self, part):
        """Sums are rounded, pooled and rectified, and cut into beats."""
        units, lanes = self.units, self.lanes
        narrow, late = (
            self.arithmetic.narrow().latency,
            2 * self.arithmetic.maximum().latency,
        )
        part.add(units.narrow, lanes)
        part.add(units.maximum, 3 * lanes)
        part.gates(lut=4 * self.vector, ff=(PLACES - 1 + late) * self.vector)
        part.gates(lut=2 * PLACES * lanes, ff=(narrow + 2 * late) * PLACES * lanes)
        part.queue("vectors", self.vector + lanes, ROOM)
        part.queue("routes", PLACES * lanes, self.depths.sums)
        part.gates(lut=1250, ff=470)

    def _update(self, part):
        """A scaler and an adder for each word of a beat, and what cuts a block into beats."""
        words = self.data_bits // _WORD
        part.add(self.units.scaler, words)
        part.add(self.units.adder, words)
        part.gates(lut=self.lanes * self.row / 3 + 3 * self.data_bits, ff=92)

    def _softmax(self, part):
        part.add(Usage(dsp=6))
        for name in ("powers", "slopes"):
            part.memory(name, PROBABILITY_BITS + 1, len(POWERS))
        for name, width in (("scores", SCORE.width), ("parts", PROBABILITY_BITS + 1)):
            part.memory(name, width, self.classes, block=False, single_port=True)
        part.gates(lut=800 + self.vector, ff=380 + self.vector)

    def _channels(self, part):
        """The processor of channels, and partial sums of the vectors that are stored."""
        cycles = -(-self.vector // self.data_bits)
        words = -(-self.lanes // cycles)
        part.add(self.units.multiplier, words)
        part.add(self.units.widen, words)
        part.add(self.units.adder, 2 * words)
        part.memory("sums", words * _WORD, self.normalized * PARTIALS * cycles, 2)
        own = _Units(FloatArithmetic(FP32), self.family)
        part.add(own.multiplier)
        part.add(own.adder)
        places = REGISTERS << (self.lanes - 1).bit_length()
        part.memory("registers", _WORD, places, 2)  # for each port that reads
        part.gates(lut=710, ff=640)

    def _program(self, part):
        """What fetches records, put together from beats, and stops them."""
        part.gates(lut=1790, ff=400 + RECORD_BITS - self.data_bits)

    def _memory_ports(self, part):
        part.queue("read beats", self.data_bits + 1, OUTSTANDING * BURST)
        part.queue("written beats", self.data_bits, 2 * BURST)
        part.gates(lut=890, ff=540)

    def _registers(self, part):
        """What the host writes and reads, and a counter of cycles."""
        part.gates(lut=250, ff=195)
