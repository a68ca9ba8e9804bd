"""A trainer behind its registers and packets, wherever the bus to it goes."""

from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol

import numpy as np

from streamtrain.bus.packets import PacketFormat
from streamtrain.bus.receive import PACKET_BITS
from streamtrain.bus.table import EVENTS, IDENTITY, SATURATIONS, WIDE, configuration, register_map
from streamtrain.bus.window import Target, window_sizes
from streamtrain.host.device import Commands, Op, Results, check_random
from streamtrain.host.packing import pack_states, stage_weights, stage_words, unpack_states
from streamtrain.pipeline.layouts import saturation_sites

__all__ = ["FEATURES", "RESULT_BYTES", "SAMPLES", "SAMPLE_BYTES", "Bus", "BusDevice", "BusError"]

ID, FEATURES, SAMPLE_BYTES, RESULT_BYTES, SAMPLES = 0x000, 0x014, 0x018, 0x01C, 0x080
"""Addresses of registers whose place is the same in all trainers."""

_PACKET_SAMPLES = (1 << PACKET_BITS) - 1
_WAIT_SECONDS = 10.0
_SETTLE_SECONDS = 1.0  # for samples that a host has left behind
_LOOK_SECONDS = 0.01
_DAMAGE = tuple(event for event in EVENTS if event != "done")


class BusError(RuntimeError):
    """A trainer does not answer, refuses, or is not the one that was expected."""


class Bus(Protocol):
    """The way to a trainer's registers and streams.

    Any method raises :exc:`BusError` if there is no answer, or SLVERR is the answer; where the processor
    itself accesses memory, SLVERR ends the process instead.

    Attributes
    ----------
    capacity : :class:`int`
        Bytes that a packet and its answer may have together.
    """

    capacity: int

    def read(self, address: int) -> int:
        """The register at ``address``."""
        ...

    def write(self, address: int, value: int) -> None:
        """Write the register at ``address``."""
        ...

    def read_all(self, address: int, count: int) -> np.ndarray:
        """Read the same register so many times: uint32 (count,)."""
        ...

    def write_all(self, address: int, values: np.ndarray) -> None:
        """Write ``values`` to the same register, one after the other."""
        ...

    def exchange(self, packet: np.ndarray, size: int) -> np.ndarray:
        """Send one packet (uint8), and receive one of ``size`` bytes; none if that is 0."""
        ...

    def flush(self) -> None:
        """Give up what is under way, and drop what the trainer sends."""
        ...

    def pause(self, seconds: float) -> None:
        """Let some time pass, in which the trainer works."""
        ...

    def close(self) -> None:
        """Give back what the bus holds."""
        ...


class BusDevice:
    """A trainer's hardware as a :class:`~streamtrain.host.device.Device`.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
        What the hardware was made from.
    bus : :class:`Bus`

    Attributes
    ----------
    table : :class:`~streamtrain.bus.RegisterMap`

    Raises
    ------
    BusError
        If there is no trainer at the bus, or one that was made from another plan; or the bus has no room
        for a sample.
    """

    def __init__(self, plan, bus):
        self.plan = plan
        self.bus = bus
        bus.flush()
        self.format = fmt = PacketFormat(plan, self._bytes(bus))
        self.table = register_map(fmt)
        expected, found = (
            configuration(plan, fmt.size),
            self.read("HASH") | self.read("HASH_HIGH") << 32,
        )
        if found != expected:
            raise BusError(
                f"The trainer at the bus was made from another design: its hash is {found:016x}, that of "
                f"this plan {expected:016x}. Take the plan that its build wrote"
            )
        pair = fmt.sample_bytes + fmt.result_bytes
        if pair > bus.capacity:
            raise BusError(
                f"A sample and its result take {pair:,} bytes, but the bus has room for {bus.capacity:,}; "
                f"give it a larger buffer"
            )
        self._limit = min(_PACKET_SAMPLES, bus.capacity // pair)  # samples in a packet
        self._kept = {}  # settings as they were written last
        self._pending = 0  # samples of a mini-batch whose update has yet to come
        self.reset()

    @staticmethod
    def _bytes(bus):
        """Bytes of TDATA, by registers whose place never changes."""
        identity = bus.read(ID)
        if identity != IDENTITY:
            raise BusError(
                f"There is no trainer at the bus: the register ID reads 0x{identity:08x}, not "
                f"0x{IDENTITY:08x}. Check the address, and that the bitstream is loaded"
            )
        return bus.read(FEATURES) & 0xFF

    # -- Registers ----------------------------------------------------------------------------------

    def read(self, register, field=None):
        """A register by name, or one of its fields."""
        found = self.table[register]
        value = self.bus.read(found.address)
        if field is None:
            return value
        return (value & found[field].mask) >> found[field].low

    def write(self, register, **fields):
        """Write a register; fields that are not given are 0.

        Raises :exc:`ValueError` for a value that the trainer would refuse.
        """
        found = self.table[register]
        value = 0
        for name, number in fields.items():
            field = found[name]
            if not field.minimum <= number <= field.maximum:
                raise ValueError(
                    f"{register}.{name} takes {field.minimum} to {field.maximum}, not {number}"
                )
            value |= int(number) << field.low
        self.bus.write(found.address, value)

    def counters(self):
        """All counters by their names in small letters, since they were cleared."""
        names = ("SAMPLES", "CORRECT", "DROPPED", *WIDE)
        return {
            name.lower(): self.read(name) | (self.read(f"{name}_HIGH") << 32 if name in WIDE else 0)
            for name in names
        }

    def work_cycles(self):
        """Cycles since counters were cleared in which the trainer had a sample to work on."""
        self._wait("STATUS", "busy", 0, "the samples to be worked off")
        found = self.counters()
        return found["cycles"] - found["starved"]

    def reset(self):
        """Forget samples and events, and set counters to 0. Weights and settings stay.

        Whole samples that another host has left inside are worked off first, so that no update is cut
        short; their results are dropped. If that takes too long, or a host has left the window open, random
        bits begin with the plan's seed again.
        """
        waited = 0.0
        self.bus.flush()
        while (left := self._leftover()) == {"busy"} and waited < _SETTLE_SECONDS:
            self.bus.pause(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
            self.bus.flush()  # results that nobody takes hold samples up
        random = None
        if self.plan.random_sites and not left:
            random = self._scan(Target.RANDOM, 0)
        self.write("CONTROL", reset=1, clear=1)
        self.bus.flush()
        if self.read("STATUS", "receiving"):
            # The rest of a packet is dropped up to its end, but whoever sent it is gone.
            self.bus.exchange(np.zeros(self.format.size, np.uint8), 0)
        if random is not None:
            self._scan(Target.RANDOM, 0, random)
        self.write("EVENTS", **dict.fromkeys(EVENTS, 1))
        self._kept.pop("CONTROL", None)
        self._pending = 0

    def _leftover(self):
        """What is going on inside. A window that is open waits for whoever opened it."""
        status, fields = self.read("STATUS"), self.table["STATUS"]
        return {name for name in ("busy", "window_busy") if status & fields[name].mask}

    @contextmanager
    def _kept_in_step(self):
        """Whatever ends the block, trainer and bus are ready for the next one."""
        try:
            yield
        except BusError as error:
            if isinstance(self.bus, _ClosedBus):
                raise
            raise BusError(f"{error}. {self._recovered()}") from error
        except BaseException:  # Ctrl-C may come within a packet
            self._recovered()
            raise

    def _recovered(self):
        """Reset everything. Returns what a message should say of it."""
        try:
            self.bus.flush()
            raised = self._damage()
            self.reset()
        except BusError as error:
            return f"Nor can it be reset ({error}): load the bitstream again, and connect anew"
        why = "".join(f"The trainer reports: {EVENTS[name]} " for name in raised)
        return (
            f"{why}The trainer was reset; what its weights are now is not known: "
            f"connect anew, and load a checkpoint or weights"
        )

    # -- Samples ------------------------------------------------------------------------------------

    def run(self, x, commands: Commands):
        """Process samples; see :class:`~streamtrain.host.device.Device`."""
        sizes, pending = self._batches(commands)
        done = []
        for begin, end in _runs(commands, sizes, self._limit):
            with self._kept_in_step():
                done.append(self._packet(x[begin:end], commands[begin:end], int(sizes[begin])))
        self._pending = pending
        return Results(
            *(np.concatenate([getattr(part, name) for part in done]) for name in _RESULTS)
        )

    def _packet(self, x, commands, batch):
        """Send samples that have all settings in common, and wait for what comes of them."""
        self._set(commands, batch)
        packed = self.format.pack(x, commands.label)
        received = self.bus.exchange(packed.ravel(), len(x) * self.format.result_bytes)
        if self._damage():
            raise BusError("Samples were not taken as they were sent")
        results, labels = self.format.unpack(received)
        if (labels != commands.label).any():
            raise BusError("Results came that are of other samples")
        return results

    def _batches(self, commands):
        """The size of each sample's mini-batch, 0 where there is none; and what is left of the last."""
        training = commands.op == Op.TRAIN
        ends = np.flatnonzero(training & (commands.update != 0))
        counted = np.cumsum(training) + self._pending  # up to each sample, with it
        sizes = np.diff(counted[ends], prepend=0)
        left = int(counted[-1] - counted[ends[-1]]) if len(ends) else int(counted[-1])
        sizes = np.append(sizes, left + 1)  # the last one's update is not among these samples
        if training.any() and max(sizes[:-1].max(initial=0), left) > self.plan.max_batch:
            raise ValueError(
                f"A mini-batch has {max(sizes.max() - 1, left)} samples, but the design takes "
                f"{self.plan.max_batch}; plan it with a larger max_batch"
            )
        number = np.searchsorted(ends, np.arange(len(commands)))
        return np.where(training, np.minimum(sizes[number], self.plan.max_batch), 0), left

    def _set(self, commands, batch):
        """Write the settings that hold for all of these samples."""
        first = {name: int(getattr(commands, name)[0]) for name in _SETTINGS}
        self._update("PACKET", samples=len(commands))
        self._update("CONTROL", run=1, mode=first["op"])
        if first["op"] != Op.TRAIN:
            return
        self._update("BATCH", samples=batch)
        self._update("RATE", mantissa=first["mantissa"], shift=first["shift"])
        self._update("FROZEN", layers=first["frozen"])
        for name in ("momentum", "decay", "clip"):
            if name.upper() in self.table:
                self._update(name.upper(), value=first[name])

    def _update(self, register, **fields):
        if self._kept.get(register) != fields:
            self.write(register, **fields)
            self._kept[register] = fields

    def _damage(self):
        """Events since the last reset that should not be."""
        events = self.read("EVENTS")
        return [name for name in _DAMAGE if events & self.table["EVENTS"][name].mask]

    # -- State --------------------------------------------------------------------------------------

    def read_weights(self):
        """See :class:`~streamtrain.host.device.Device`."""
        return self._read(Target.WEIGHTS, "")

    def write_weights(self, weights):
        """See :class:`~streamtrain.host.device.Device`."""
        self._write(Target.WEIGHTS, weights, "")

    def read_optimizer(self):
        """See :class:`~streamtrain.host.device.Device`."""
        return self._read(Target.VELOCITIES, ".velocity")

    def write_optimizer(self, state):
        """See :class:`~streamtrain.host.device.Device`."""
        self._write(Target.VELOCITIES, state, ".velocity")

    def read_random(self):
        """See :class:`~streamtrain.host.device.Device`."""
        if not self.plan.random_sites:
            return {}
        return unpack_states(self.plan, self._window(Target.RANDOM, 0) & 1)

    def write_random(self, states):
        """See :class:`~streamtrain.host.device.Device`."""
        check_random(self.plan, states)
        if states:
            self._window(Target.RANDOM, 0, pack_states(self.plan, states))

    def saturations(self, *, settled=True):
        """See :class:`~streamtrain.host.device.Device`; if not ``settled``, as far as it has come."""
        if settled:
            self._wait("STATUS", "busy", 0, "the samples to be worked off")
        return {
            stage.name: {
                site: self.bus.read(SATURATIONS + 16 * number + 4 * place)
                for place, site in enumerate(saturation_sites(self.plan))
            }
            for number, stage in enumerate(self.plan.stages)
        }

    def _stages(self, target):
        """(number, stage) of those that have something behind the window."""
        sizes = window_sizes(self.plan)
        return [(n, stage) for n, stage in enumerate(self.plan.stages) if (target, n) in sizes]

    def _read(self, target, what):
        found = {}
        for number, stage in self._stages(target):
            lanes = stage.multipliers + (stage.folding[0] if stage.bias else 0)
            words = self._window(target, number).reshape(stage.words, lanes)
            weight, bias = stage_weights(stage, words)
            found[f"{stage.name}.weight{what}"] = weight
            if bias is not None:
                found[f"{stage.name}.bias{what}"] = bias
        return found

    def _write(self, target, tensors, what):
        for number, stage in self._stages(target):
            weight = tensors[f"{stage.name}.weight{what}"]
            self._window(
                target, number, stage_words(stage, weight, tensors.get(f"{stage.name}.bias{what}"))
            )

    def _window(self, target, layer, numbers=None):
        """Read all numbers behind the window, or write them."""
        with self._kept_in_step():
            return self._scan(target, layer, numbers)

    def _scan(self, target, layer, numbers=None):
        self._wait("STATUS", "window_busy", 0, "the window to close")  # random bits may be seeded
        self.write("WINDOW", layer=layer, target=target, write=numbers is not None)
        self._wait("STATUS", "window_open", 1, "the window to open")
        data = self.table["WINDOW_DATA"].address
        if numbers is None:
            stage = len(self.plan.stages) if target is Target.RANDOM else layer
            found = self.bus.read_all(data, window_sizes(self.plan)[target, stage])
            return found.view(np.int32).astype(np.int64)
        self.bus.write_all(data, numbers.ravel().astype(np.int32).view(np.uint32))
        return None

    def _wait(self, register, field, value, what):
        waited = pause = 0.0
        while self.read(register, field) != value:
            if waited > _WAIT_SECONDS:
                raise BusError(
                    f"Waited {_WAIT_SECONDS:g} s for {what}, in vain: STATUS is "
                    f"0x{self.read('STATUS'):08x}. Results that nobody takes hold samples up"
                )
            self.bus.pause(pause)
            waited += pause
            pause = min(0.01, pause + 0.0001)

    def close(self):
        """Stop taking packets, and give back the bus."""
        if isinstance(self.bus, _ClosedBus):
            return
        try:
            self.write("CONTROL", run=0)
        finally:
            self.bus.close()
            self.bus = _ClosedBus()


class _ClosedBus:
    """What is left of a bus."""

    def __getattr__(self, name):
        raise BusError("The trainer was closed; connect anew")


_RESULTS = ("scores", "loss", "predicted")
_SETTINGS = ("op", "mantissa", "shift", "frozen", "momentum", "decay", "clip")


def _runs(commands, sizes, limit):
    """``(begin, end)`` of samples that have all settings in common, at most ``limit`` of them each."""
    settings = np.stack([*(getattr(commands, name) for name in _SETTINGS), sizes])
    changes = np.flatnonzero((settings[:, 1:] != settings[:, :-1]).any(axis=0)) + 1
    edges = [0, *changes.tolist(), len(commands)]
    for begin, end in pairwise(edges):
        for start in range(begin, end, limit):
            yield start, min(start + limit, end)
