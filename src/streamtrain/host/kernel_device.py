"""The unified core as a device: samples into the memory behind it, programs, scores and weights out of it."""

from typing import Protocol

import numpy as np

from streamtrain.golden import channels
from streamtrain.host.bus_device import BusError
from streamtrain.host.device import LOSS_FRAC, Commands, Op, Results
from streamtrain.numeric import Fixed
from streamtrain.numeric.floating import FP32
from streamtrain.unified.core import CoreFault
from streamtrain.unified.ip import IDENTITY, unified_registers
from streamtrain.unified.plan import tiled

__all__ = ["KernelDevice", "MemoryBus", "MemoryKernel", "pack_tiles", "unpack_tiles"]


class MemoryBus(Protocol):
    """The way to a unified core's registers, and to the memory behind it.

    Attributes
    ----------
    base, size : :class:`int`
        First address of the memory, and its bytes.
    """

    base: int
    size: int

    def read(self, address: int) -> int:
        """The register at ``address``."""
        ...

    def write(self, address: int, value: int) -> None:
        """Write the register at ``address``."""
        ...

    def load(self, address: int, size: int) -> np.ndarray:
        """Bytes of memory: uint8 (size,)."""
        ...

    def store(self, address: int, content: np.ndarray) -> None:
        """Write bytes, uint8, to memory."""
        ...

    def wait(self) -> None:
        """Let time pass until the interrupt. Raises :exc:`BusError` if it does not come."""
        ...

    def close(self) -> None:
        """Give the way back. What runs has ended then."""
        ...


class KernelDevice:
    """What the unified core's golden model and its hardware have in common as devices.

    It computes a mini-batch at a time, and gives nothing but scores. Losses and predictions are made here, in
    float64. Nothing counts numbers that saturate.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`

    Attributes
    ----------
    images : :class:`int`
        Samples that are computed at once, at most.
    cycle : :class:`int` or None
        Clock cycles in which programs have run, where there is a clock.
    """

    cycle = None

    def __init__(self, plan):
        self.plan = plan
        self.images = plan.max_batch

    def train(self, x, labels, rate):
        """A step on a mini-batch: codes of samples, and of the rate. Returns codes of scores."""
        raise NotImplementedError

    def scores(self, x):
        """Codes of the scores of up to ``images`` samples."""
        raise NotImplementedError

    def run(self, x, commands: Commands):
        """Process samples; see :class:`~streamtrain.host.device.Device`. Mini-batches must come whole."""
        fmt, count = self.plan.arithmetic.operand, len(commands)
        codes = np.zeros((count, self.plan.network.classes), np.int64)
        cycles = None if self.cycle is None else np.zeros(count, np.int64)
        for part in _parts(commands, self.images):
            before = self.cycle
            if commands.op[part.start] == Op.TRAIN:
                rate = int(commands.mantissa[part.start])
                codes[part] = self.train(x[part], commands.label[part], rate)
            else:
                codes[part] = self.scores(x[part])
            if cycles is not None:
                share = np.arange(1, part.stop - part.start + 1) / (part.stop - part.start)
                cycles[part] = before + np.ceil(share * (self.cycle - before))
        real = fmt.decode(codes)
        losses = np.where(commands.op == Op.INFER, 0, _cross_entropy(real, commands.label))
        predicted = np.where(np.isnan(real), -np.inf, real).argmax(axis=1)
        return Results(codes, np.ldexp(losses, LOSS_FRAC), predicted, cycles)

    def write_weights(self, weights):
        """See :class:`~streamtrain.host.device.Device`."""
        for layer in self.plan.array.layers:
            if layer.norm:
                rows = channels.registers(self.plan.array, layer, weights)
                self.write_channels(layer, rows)
                continue
            weight = weights[f"{layer.name}.weight"]
            bias = np.zeros(layer.tiles[0] * layer.lanes, weight.dtype)
            if layer.bias:
                bias[: layer.m] = weights[f"{layer.name}.bias"]
            self.write_layer(layer, layer.pack(weight), bias.reshape(layer.tiles[0], layer.lanes))

    def read_weights(self):
        """See :class:`~streamtrain.host.device.Device`."""
        found = {}
        array = self.plan.array
        for layer in array.layers:
            if layer.norm:
                codes = channels.tensors(array, layer, self.read_channels(layer))
                found |= {name: FP32.to_float32(rows) for name, rows in codes.items()}
                continue
            blocks, bias = self.read_layer(layer)
            weight = layer.unpack(blocks)
            shape = (layer.m, layer.n) if layer.linear else weight.shape
            found[f"{layer.name}.weight"] = weight.reshape(shape)
            if layer.bias and not array.norm_of(layer):
                found[f"{layer.name}.bias"] = bias.ravel()[: layer.m].copy()
        return found

    def write_layer(self, layer, blocks, biases):
        """Replace a layer's weights, as :meth:`KernelLayer.pack` makes them, and vectors of biases."""
        raise NotImplementedError

    def read_layer(self, layer):
        """A layer's weights and biases, as :meth:`write_layer` takes them."""
        raise NotImplementedError

    def write_channels(self, layer, rows):
        """Replace registers of a batch norm's channels, as :func:`~streamtrain.golden.channels.registers` has them."""
        raise NotImplementedError

    def read_channels(self, layer):
        """Registers of a batch norm's channels."""
        raise NotImplementedError

    def read_optimizer(self):
        """See :class:`~streamtrain.host.device.Device`: nothing."""
        return {}

    def write_optimizer(self, state):
        """See :class:`~streamtrain.host.device.Device`."""
        _check_empty("velocities", state)

    def read_random(self):
        """See :class:`~streamtrain.host.device.Device`: nothing."""
        return {}

    def write_random(self, states):
        """See :class:`~streamtrain.host.device.Device`."""
        _check_empty("random bits", states)

    def saturations(self):
        """See :class:`~streamtrain.host.device.Device`: none are counted."""
        return {}


def _check_empty(what, state):
    if state:
        raise ValueError(f"The unified core has no {what}, but is given {', '.join(state)}")


def _parts(commands, images):
    """Slices of samples that are computed at once."""
    first, count, parts = 0, len(commands), []
    while first < count:
        others = np.flatnonzero(commands.op[first:] != commands.op[first])
        end = first + int(others[0]) if len(others) else count
        if commands.op[first] == Op.TRAIN:
            updates = np.flatnonzero(commands.update[first:end])
            if not len(updates):
                raise ValueError(
                    "A mini-batch has no end among these samples; the unified core takes whole ones"
                )
            end = first + int(updates[0]) + 1
            if end - first > images:
                raise ValueError(
                    f"A mini-batch has {end - first} samples, but the design takes {images}; plan it with "
                    f"max_batch={end - first}"
                )
        else:
            end = min(end, first + images)
        parts.append(slice(first, end))
        first = end
    return parts


def _cross_entropy(scores, labels):
    """Losses of scores: NaN or infinity where they are."""
    with np.errstate(invalid="ignore"):
        below = scores - scores.max(axis=1, keepdims=True)
        return np.log(np.exp(below).sum(axis=1)) - below[np.arange(len(below)), labels]


# -- Memory ---------------------------------------------------------------------------------------


def pack_tiles(region, codes, word, width):
    """Codes (tiles, numbers), ``word`` of them in a word, as the bytes of a region's first tiles: uint8.

    Words are padded, and rows are, to whole beats. Tiles may have fewer rows than the region's.
    """
    codes = np.asarray(codes, np.int64).reshape(len(codes), -1, region.columns, word)
    narrow = (codes & (1 << width) - 1).astype(f"<u{width // 8}").view(np.uint8)
    words = np.zeros((*narrow.shape[:3], region.bits // 8), np.uint8)
    words[..., : narrow.shape[3]] = narrow
    rows = words.reshape(*words.shape[:2], -1)
    tiles = np.zeros((len(codes), region.rows, region.row_bytes), np.uint8)
    tiles[:, : rows.shape[1], : rows.shape[2]] = rows
    return tiles.ravel()


def unpack_tiles(region, content, word, width, *, signed):
    """Codes (tiles, numbers) of bytes that :func:`pack_tiles` made."""
    rows = content.reshape(-1, region.row_bytes)[:, : region.columns * region.bits // 8]
    words = rows.reshape(-1, region.bits // 8)[:, : word * width // 8]
    codes = np.ascontiguousarray(words).view(f"<{'i' if signed else 'u'}{width // 8}")
    return codes.astype(np.int64).reshape(len(content) // region.stride, -1)


class MemoryKernel(KernelDevice):
    """The unified core's hardware, with memory behind it that the host reads and writes.

    A program for a smaller mini-batch is compiled when the first one comes. If there is no place for it, those of before
    are forgotten, and compiled again when they are needed.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    bus : :class:`MemoryBus`

    Raises
    ------
    BusError
        If there is no unified core at the bus, or one that was made from another plan; or memory is not where the
        plan has it, or too small.
    """

    def __init__(self, plan, bus):
        super().__init__(plan)
        self.bus = bus
        self.table = unified_registers(plan.configuration)
        self._check_core()
        self.cycle = 0
        self._end = plan.compiler.programs
        self._programs = {}  # and their addresses
        self._set = 0  # of weights, those that count
        self._constants = plan.max_batch  # images that batch norms' registers are for
        self._check_place(self._end)
        self.write_weights(plan.encode_weights(plan.network.initial_weights()))

    def _check_core(self):
        found = self.read("ID")
        if found != IDENTITY:
            raise BusError(
                f"There is no unified core at the bus: the register ID reads 0x{found:08x}, not "
                f"0x{IDENTITY:08x}. Check the address, and that the bitstream is loaded"
            )
        for register in ("CORE", "CORE_HIGH"):
            (field,) = self.table[register].fields
            if (found := self.read(register)) != field.reset:
                raise BusError(
                    f"The core at the bus was made from another design: its register {register} reads "
                    f"0x{found:08x}, that of this plan 0x{field.reset:08x}. Take the plan that it was made from"
                )

    def _check_place(self, end):
        bus = self.bus
        if self.plan.base < bus.base or end > bus.base + bus.size:
            raise BusError(
                f"The design needs memory from {self.plan.base:#x} to {end:#x}, but there is memory from "
                f"{bus.base:#x} to {bus.base + bus.size:#x}"
            )

    @property
    def keeps_steps(self):
        """Whether weights are those of a whole number of steps, whatever happens within one."""
        return self.plan.weight_sets > 1

    def train(self, x, labels, rate):
        self._settle()
        self._put_samples(x)
        if len(x) != self._constants:
            self._constants = len(x)
            for layer in self.plan.array.layers:
                if layer.norm:
                    self.write_channels(layer, self.read_channels(layer))
        self._put_targets(labels)
        self.write("RATE", rate & (1 << self.plan.arithmetic.rate.width) - 1)
        self._execute("step", len(x))
        self._set = (self._set + 1) % self.plan.weight_sets
        return self._get_scores(len(x))

    def scores(self, x):
        self._settle()
        self._put_samples(x)
        self._execute("evaluation", len(x))
        return self._get_scores(len(x))

    def read(self, register):
        """A register by name."""
        return self.bus.read(self.table[register].address)

    def write(self, register, value):
        """Write a register by name."""
        self.bus.write(self.table[register].address, value)

    def _execute(self, what, images):
        """Run a program of the compiler's for so many images."""
        program, address = self._program(what, images)
        self.write("PROGRAM", address)
        self.write("CONTROL", 1)
        self.bus.wait()
        self.cycle += self.read("CYCLES")
        self._check_fault(program)

    def _settle(self):
        """Wait for a program that an interrupted host has left. Its step does not count."""
        if self._status("busy"):
            self.bus.wait()

    def _status(self, field):
        register = self.table["STATUS"]
        return (self.read("STATUS") & register[field].mask) >> register[field].low

    def _check_fault(self, program):
        """Raise :exc:`BusError` if a program was stopped."""
        kind = CoreFault(self._status("fault"))
        if kind is CoreFault.NONE:
            return
        address, write = self.read("FAULT_ADDRESS"), bool(self._status("write"))
        kept = (
            "Weights are those after the last whole step"
            if self.keeps_steps
            else "Some weights may be those of the step that was cut short: load a checkpoint or weights"
        )
        if kind is CoreFault.PROGRAM:
            raise BusError(
                f"The core found no program of its own at {address:#x}: memory was changed. {kept}"
            )
        number = program.find(
            address, write=write, loads=self.read("FAULT_LOADS"), writes=self.read("FAULT_WRITES")
        )
        where = "while it was fetched"
        if number is not None:
            phase, name = program.owners[number]
            where = f"in {phase} of {name} (record {number})"
        raise BusError(
            f"The program was stopped by {kind.name} at a {'write' if write else 'read'} of {address:#x}, "
            f"{where}. {kept}"
        )

    def _program(self, what, images):
        """A program and where it is; now, if it was not anywhere."""
        key = what, images, self._set
        if key not in self._programs:
            compiler = self.plan.compiler.variant(images, self._set)
            program = getattr(compiler, what)()
            image = np.frombuffer(program.image(), np.uint8)
            if self._end + len(image) > self.bus.base + self.bus.size:
                self._programs.clear()
                self._end = self.plan.compiler.programs
            self._check_place(self._end + len(image))
            self.bus.store(self._end, image)
            self._programs[key] = program, self._end
            self._end += len(image)
        return self._programs[key]

    def _put_samples(self, x):
        compiler, first = self.plan.compiler, self.plan.array.layers[0]
        if first.linear:
            x = x.reshape(len(x), -1, 1, 1)
        maps, region = tiled(x, first.group), compiler.inputs[first.name]
        tiles = maps.reshape(-1, maps[0, 0].size)
        width = self.plan.arithmetic.operand.width
        self.bus.store(region.address, pack_tiles(region, tiles, first.group, width))

    def _put_targets(self, labels):
        region, lanes = self.plan.compiler.targets, self.plan.array.lanes
        bits = np.zeros((len(labels), region.tiles * lanes), np.uint8)
        bits[np.arange(len(labels)), labels] = 1
        packed = np.packbits(bits.reshape(len(labels) * region.tiles, -1), axis=1, bitorder="little")
        tiles = np.zeros((len(packed), region.stride), np.uint8)
        tiles[:, : packed.shape[1]] = packed
        self.bus.store(region.address, tiles.ravel())

    def _get_scores(self, images):
        fmt, last = self.plan.arithmetic.operand, self.plan.array.layers[-1]
        region = self.plan.compiler.outputs[last.name]
        content = self.bus.load(region.address, images * region.tiles * region.stride)
        lanes, signed = self.plan.array.lanes, isinstance(fmt, Fixed)
        tiles = unpack_tiles(region, content, lanes, fmt.width, signed=signed)
        return tiles.reshape(images, -1)[:, : last.m]

    def write_weights(self, weights):
        self._settle()
        super().write_weights(weights)

    def write_layer(self, layer, blocks, biases):
        for weights, vectors, _ in self.plan.compiler.sets:
            for region, numbers in ((weights[layer.name], blocks), (vectors[layer.name], biases)):
                tiles = self._codes(numbers).reshape(region.tiles, -1)
                self.bus.store(region.address, pack_tiles(region, tiles, layer.lanes, 32))

    def read_layer(self, layer):
        weights, vectors, _ = self.plan.compiler.sets[self._set]
        shape = (layer.tiles[0], *layer.passes.row.shape[:1], layer.lanes, layer.lanes)
        blocks = self._numbers(weights[layer.name]).reshape(shape)
        return blocks, self._numbers(vectors[layer.name]).reshape(layer.tiles[0], layer.lanes)

    def write_channels(self, layer, rows):
        rows = channels.with_constants(layer, rows, self._constants)
        tiles = rows.reshape(len(rows), -1, layer.lanes).swapaxes(0, 1)
        for *_, registers in self.plan.compiler.sets:
            region = registers[layer.name]
            self.bus.store(region.address, pack_tiles(region, tiles, layer.lanes, 32))

    def read_channels(self, layer):
        region = self.plan.compiler.sets[self._set][-1][layer.name]
        content = self.bus.load(region.address, region.tiles * region.stride)
        tiles = unpack_tiles(region, content, layer.lanes, 32, signed=False)
        rows = tiles.reshape(len(tiles), -1, layer.lanes)[:, : channels.ROWS].swapaxes(0, 1)
        return rows.reshape(channels.ROWS, -1).astype(np.uint32)

    def _codes(self, numbers):
        fmt = self.plan.arithmetic.accumulator
        return numbers if isinstance(fmt, Fixed) else fmt.from_float32(numbers)

    def _numbers(self, region):
        """Accumulators of a region of weights: codes, or float32 numbers."""
        fmt = self.plan.arithmetic.accumulator
        content = self.bus.load(region.address, region.tiles * region.stride)
        is_fixed = isinstance(fmt, Fixed)
        codes = unpack_tiles(region, content, self.plan.array.lanes, 32, signed=is_fixed)
        return codes if is_fixed else fmt.to_float32(codes)
