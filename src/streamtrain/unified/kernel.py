"""What the unified core, its memory and its programs are generated from."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite, prod
from typing import ClassVar

from streamtrain.bus.bursts import PAGE_BYTES
from streamtrain.checks import checked_integer
from streamtrain.network import CrossEntropy
from streamtrain.numeric import Fixed, FixedArithmetic, FloatArithmetic, arithmetic
from streamtrain.records import Record
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import Compiler
from streamtrain.unified.core import UnifiedCore
from streamtrain.unified.ip import UnifiedIP
from streamtrain.unified.plan import UnifiedPlan

__all__ = ["MOST_IMAGES", "KernelPlan", "check_data_bits", "check_lanes", "kernel_arithmetic", "least_memory"]

MOST_IMAGES = (1 << 16) - 1
"""Images of a mini-batch that a program's loops can count."""

_WIDTHS = (8, 16, 32)  # of operands: the host packs them as integers of NumPy
_ADDRESSES = 1 << 32


def kernel_arithmetic(numbers):
    """The arithmetic of ``numbers``, which may be a format's name; accumulators have 32 bits."""
    if isinstance(numbers, str):
        if numbers.strip().startswith("fixed"):
            fmt = Fixed.parse(numbers)
            if fmt.width > 16:
                raise ValueError(
                    f"Operands of {fmt} have {fmt.width} bits; accumulators are words in memory and must have 32 bits, "
                    f"which hold products of 16 bits and 16 at most: use a format of 8 or 16 bits"
                )
            return FixedArithmetic(fmt, Fixed(32, 2 * fmt.frac))
        return arithmetic(numbers)
    if not isinstance(numbers, (FixedArithmetic, FloatArithmetic)):
        raise TypeError(
            f"numbers of the unified core must be a name such as 'bf16' or 'fixed<16,8>', or an "
            f"arithmetic, not {numbers!r}"
        )
    return numbers


def check_data_bits(data_bits):
    """Raise :exc:`TypeError` or :exc:`ValueError` if no memory has words of so many bits."""
    if checked_integer("data_bits", data_bits) not in (32, 64, 128, 256, 512):
        raise ValueError(
            f"data_bits must be 32, 64, 128, 256 or 512, as memories have them, not {data_bits}"
        )


def check_lanes(lanes, data_bits):
    """Raise :exc:`TypeError` or :exc:`ValueError` if no core has so many lanes at a memory of ``data_bits``."""
    check_data_bits(data_bits)
    words = data_bits // 32
    checked_integer("lanes", lanes, 2)
    if lanes % words:
        raise ValueError(
            f"lanes must be a multiple of {words}, so that their weights are whole words of {data_bits} bits of "
            f"memory, not {lanes}"
        )


def least_memory(network, arithmetic, max_batch, weight_sets):
    """Bytes that weights and maps take in memory at the least, by what they are; found without a program."""
    shapes = (network.input_shape, *network.shapes[1:])
    weights, values = 0, prod(network.input_shape)
    for layer, before, after in zip(network.layers, shapes, shapes[1:], strict=False):
        if shape := layer.weight_shape(before):
            weights, values = weights + prod(shape), values + prod(after)
    return {
        "weights": 4 * weights * checked_integer("weight_sets", weight_sets),
        "maps": values * checked_integer("max_batch", max_batch) * arithmetic.operand.width // 8,
    }


@dataclass(frozen=True)
class KernelPlan(Record):
    """A network on the array, its numbers and its memory: a :class:`~streamtrain.host.device.TrainablePlan`.

    Parameters
    ----------
    array : :class:`~streamtrain.unified.plan.UnifiedPlan`
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
        With accumulators of 32 bits.
    max_batch : :class:`int`
        Samples of a mini-batch, at most: memory has room for so many.
    depths : :class:`~streamtrain.unified.buffers.Depths`, optional
        Of the buffers; as large as whole layers and mini-batches are without.
    data_bits : :class:`int`
        Of the memory.
    base : :class:`int`
        First address that may be used.
    weight_sets : :class:`int`
        As :class:`~streamtrain.unified.compiler.Compiler` has it.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the core cannot compute it, a number is out of its range, or a layer does not fit the buffers.
    """

    array: UnifiedPlan
    arithmetic: FixedArithmetic | FloatArithmetic
    max_batch: int = 1
    depths: Depths | None = None
    data_bits: int = 64
    base: int = 0
    weight_sets: int = 2

    def __post_init__(self):
        for field in ("max_batch", "data_bits", "base", "weight_sets"):
            object.__setattr__(self, field, checked_integer(field, getattr(self, field)))
        self._check_sizes()
        self._check_rule()
        depths = self.depths
        if depths is not None and (
            not isinstance(depths, (tuple, list)) or len(depths) != len(Depths._fields)
        ):
            raise ValueError(
                f"depths must be a tuple of words in half of each buffer, ({', '.join(Depths._fields)}), not {depths!r}"
            )
        object.__setattr__(self, "depths", Depths(*depths) if depths else self.compiler.depths)
        self.compiler.variant(1).step()  # which refuses layers that do not fit

    def _check_sizes(self):
        lanes, width = self.array.lanes, self.arithmetic.operand.width
        if not 1 <= self.max_batch <= MOST_IMAGES:
            raise ValueError(
                f"max_batch must be 1 to {MOST_IMAGES:,}, as programs count images, not {self.max_batch:,}"
            )
        if self.weight_sets not in (1, 2):
            raise ValueError(f"weight_sets must be 1 or 2, not {self.weight_sets}")
        if width not in _WIDTHS:
            raise ValueError(
                f"Operands must have 8, 16 or 32 bits, as memory has them, not the {width} of "
                f"{self.arithmetic.operand}"
            )
        if self.arithmetic.accumulator.width != 32:
            raise ValueError(
                f"Accumulators are words in memory and must have 32 bits, not the "
                f"{self.arithmetic.accumulator.width} of {self.arithmetic.accumulator}; give the format's "
                f"name, such as {str(self.arithmetic.operand)!r}"
            )
        check_lanes(lanes, self.data_bits)
        if self.base % PAGE_BYTES or not 0 <= self.base < _ADDRESSES:
            raise ValueError(
                f"base must be a multiple of {PAGE_BYTES} bytes and below 4 GB, not {self.base:#x}"
            )

    def _check_rule(self):
        """Refuse what the network asks for and the core lacks."""
        network = self.network
        if not isinstance(network.loss, CrossEntropy):
            raise ValueError(
                f"The loss is {type(network.loss).__name__}, which the unified core cannot compute; use "
                f"CrossEntropy(), or core='streaming'"
            )
        own = network.optimizer
        asked = {"momentum": own.momentum, "weight_decay": own.weight_decay, "clip": own.clip}
        for name, value in asked.items():
            if value:
                raise ValueError(
                    f"SGD has {name}={value:g}, which the unified core cannot do; leave it out, or use "
                    f"core='streaming'"
                )
        self.rate_code(own.lr, self.max_batch)

    @property
    def network(self):
        """The network that is trained."""
        return self.array.network

    @property
    def bound_cycles(self):
        """Cycles of one sample's training step if every multiplier worked in every cycle."""
        return self.network.training_macs / self.array.lanes**2

    @cached_property
    def compiler(self):
        """Where everything lies in memory: a :class:`~streamtrain.unified.compiler.Compiler`."""
        return Compiler(
            self.array, self.arithmetic, self.max_batch, self.depths, data_bits=self.data_bits,
            base=self.base, weight_sets=self.weight_sets,
        )  # fmt: skip

    @cached_property
    def memory_bytes(self):
        """Bytes of memory that maps, weights and programs take; programs for whole mini-batches."""
        compiler = self.compiler
        weights = sum(
            region.tiles * region.stride
            for kinds in compiler.sets for regions in kinds for region in regions.values()
        )  # fmt: skip
        programs = self.weight_sets * sum(
            program.size for program in (compiler.step(), compiler.evaluation())
        )
        maps = compiler.programs - self.base - weights
        return {"maps": maps, "weights": weights, "programs": programs}

    def hardware(self):
        """The core with the ports of an IP: a new :class:`~streamtrain.unified.ip.UnifiedIP`."""
        core = UnifiedCore(
            self.arithmetic, self.array.lanes, self.depths, self.network.classes, self.compiler.fold,
            self.compiler.normalized, data_bits=self.data_bits,
        )  # fmt: skip
        return UnifiedIP(core)

    @property
    def configuration(self):
        """All that the hardware depends on, as text. Plans with the same one share it."""
        return self.compiler.configuration

    # What a trainer asks.

    core: ClassVar[str] = "unified"
    random_sites: ClassVar[tuple] = ()

    @property
    def velocity_formats(self):
        return {}

    @property
    def sample_format(self):
        return self.arithmetic.operand

    @property
    def weight_formats(self):
        return {layer.name: self.arithmetic.accumulator for layer in self.array.layers}

    def rate_code(self, lr, batch=1):
        """Code of what gradients are multiplied with: minus the learning rate, divided by the mini-batch.

        Raises :exc:`ValueError` if there is no such code.
        """
        rate, fmt = lr / batch, self.arithmetic.rate
        code = fmt.encode(-rate) if isfinite(rate) and rate > 0 else 0
        if not 0 < -fmt.decode(code) < float("inf") or rate > fmt.highest:
            low = fmt.smallest if isinstance(self.arithmetic, FloatArithmetic) else 2.0**-fmt.frac
            raise ValueError(
                f"Learning rate {lr:g} over a batch of {batch} is {rate:g} a sample; numbers of "
                f"{self.arithmetic.name} take {low:.2g} to {fmt.highest:.3g}"
            )
        return int(code)

    def command_codes(self, lr, batch, **others):
        for name, value in others.items():
            if value or (name == "clip" and value is not None):
                raise ValueError(
                    f"The unified core has no {name.replace('_', ' ')}; leave it out, or plan the network "
                    f"with core='streaming'"
                )
        return {"mantissa": self.rate_code(lr, batch), "shift": 0}

    def frozen_code(self, names):
        if names:
            given = ", ".join(repr(name) for name in sorted(names))
            raise ValueError(
                f"The unified core freezes no layers at run time; plan network.freeze({given})"
            )
        return 0

    def layer_facts(self):
        facts = {
            "lanes": self.array.lanes,
            "operands": str(self.arithmetic.operand),
            "accumulators": str(self.arithmetic.accumulator),
        }
        return {layer.name: facts for layer in self.array.layers}

    def encode_weights(self, weights):
        """Real weights, by the names of :meth:`Network.initial_weights`, as they are stored.

        Codes in fixed point; in floating point float32 numbers, rounded.
        """
        fmt = self.arithmetic.accumulator
        if isinstance(fmt, Fixed):
            return {name: fmt.encode(real) for name, real in weights.items()}
        return {name: fmt.to_float32(fmt.encode(real)) for name, real in weights.items()}

    def decode_weights(self, stored):
        """Undo :meth:`encode_weights`, for example on a trainer's ``state_dict()``."""
        fmt = self.arithmetic.accumulator
        if isinstance(fmt, Fixed):
            return {name: fmt.decode(codes) for name, codes in stored.items()}
        return {name: real.astype("float64") for name, real in stored.items()}
