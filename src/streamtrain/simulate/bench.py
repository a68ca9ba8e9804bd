"""Drive a unit in Amaranth's simulator and collect what it gives: the tests' one harness.

A run fails if the unit breaks the rules of streams, whatever it computes: a payload that waits must
stay as it is, and ``valid`` must not wait for ``ready``. It also fails if the unit gives more than
was expected. While nothing is offered to an input, its payload is noise.
"""

import random
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate, islice
from operator import index

from amaranth import Cat, Module, Shape, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

__all__ = ["Run", "run_stream", "run_streams"]


@dataclass(frozen=True)
class Run:
    """What a unit did.

    Parameters
    ----------
    received : dict of lists
        Payloads of each output stream: integers, lists of an array's elements, dictionaries of a
        structure's members.
    times : dict of lists
        The cycle in which each payload was taken, of input streams too. The first cycle is 0.
    final : dict
        Value of each output that is no stream, at the end.
    """

    received: dict
    times: dict
    final: dict

    @property
    def cycles(self):
        """Cycles until the last payload had been taken."""
        return max((times[-1] + 1 for times in self.times.values() if times), default=0)


def run_stream(dut, payloads, count, **options):
    """Send ``payloads`` to ``dut.i`` and return ``count`` payloads from ``dut.o``.

    Options are those of :func:`run_streams`.
    """
    return run_streams(dut, {"i": payloads}, {"o": count}, **options).received["o"]


def run_streams(
    dut,
    inputs,
    outputs,
    *,
    drive=None,
    stall=0.0,
    seed=0,
    max_cycles=10_000,
    settle=32,
    waves=None,
):
    """Send payloads to input streams, and collect those of output streams.

    Parameters
    ----------
    dut : :class:`wiring.Component`
    inputs : dict
        Payloads by name of input stream. Other input streams get none.
    outputs : dict
        Number of payloads expected, by name of output stream. Other output streams must give none.
    drive : async function, optional
        Testbench (see :class:`amaranth.sim.Simulator`) for inputs that are no streams. It must
        return; loops around a plain ``await ctx.tick()`` only.
    stall : :class:`float` or dict
        Probability that an end pauses in a cycle, or such probabilities by name of stream.
    seed : :class:`int`
        Of the pauses.
    max_cycles : :class:`int`
        Cycles in which all payloads must be taken, and ``drive`` must return.
    settle : :class:`int`
        Cycles that the run goes on afterwards, in which nothing more may come.
    waves : path, optional
        Write waveforms (VCD) there.

    Returns a :class:`Run`.

    Raises
    ------
    ValueError
        If a payload does not fit its stream: the simulator would wrap it.
    AssertionError
        If an output stream retracts or changes a payload before it is taken, or gives too many.
    TimeoutError
        If payloads are missing after ``max_cycles``.
    """
    ends = _ends(dut, inputs, outputs, stall, seed)
    final = {
        name: member.shape
        for name, member in dut.signature.members.items()
        if member.is_port and member.flow is Out
    }
    driving = drive is not None

    async def streams(ctx):
        apply, applied = [end.begin() for end in ends], None
        cycle, left = 0, settle
        while left:
            if any(end.missing for end in ends) or driving:
                if cycle >= max_cycles:
                    raise TimeoutError(_unfinished(ends, driving, max_cycles))
            else:
                left -= 1
            if apply != applied:  # all at once: each `set` settles the whole design
                ctx.set(
                    driven, sum(bits << place for bits, place in zip(apply, places, strict=True))
                )
                applied = apply
            _, _, *sampled = await ctx.tick().sample(*watched)
            sampled = iter(sampled)
            apply = [end.step(cycle, *islice(sampled, len(end.watched))) for end in ends]
            cycle += 1
        for name, shape in final.items():
            final[name] = _decode(shape, ctx.get(Value.cast(getattr(dut, name))))

    async def driver(ctx):
        nonlocal driving
        await drive(ctx)
        driving = False

    watched = [signal for end in ends for signal in end.watched]
    driven = Cat(end.driven for end in ends)
    places = [0, *accumulate(len(end.driven) for end in ends)][:-1]
    top = Module()
    top.submodules.dut = dut
    top.d.sync += Signal(name="tick").eq(0)  # a clock, even if the unit has no registers
    simulator = Simulator(top)
    simulator.add_clock(1e-8)
    simulator.add_testbench(streams)
    if driving:
        simulator.add_testbench(driver)
    with simulator.write_vcd(str(waves)) if waves is not None else nullcontext():
        simulator.run()
    return Run(
        {end.name: end.received for end in ends if isinstance(end, _Sink)},
        {end.name: end.times for end in ends},
        final,
    )


def _ends(dut, inputs, outputs, stall, seed):
    """What all streams come from and go to."""
    ports = {
        name: member
        for name, member in dut.signature.members.items()
        if member.is_signature and isinstance(member.signature, stream.Signature)
    }
    for kind, flow, given in (("input", In, inputs), ("output", Out, outputs)):
        known = sorted(name for name, member in ports.items() if member.flow is flow)
        for name in given:
            if name not in known:
                raise ValueError(
                    f"{name!r} is no {kind} stream; there are {', '.join(known) or 'none'}"
                )
    ends = []
    for name, member in ports.items():
        pause = stall.get(name, 0.0) if isinstance(stall, dict) else stall
        if not 0 <= pause < 1:
            raise ValueError(f"Stall must be a probability below 1, not {pause!r}")
        port, shape = getattr(dut, name), member.signature.members["payload"].shape
        rng = random.Random(f"{name} {seed}")
        if member.flow is In:
            payloads = [
                _encode(shape, payload, f"{name}: payload {number}")
                for number, payload in enumerate(inputs.get(name, ()))
            ]
            ends.append(_Source(name, port, payloads, pause, rng))
        else:
            ends.append(_Sink(name, port, shape, index(outputs.get(name, 0)), pause, rng))
    return ends


class _Source:
    """What an input stream comes from."""

    def __init__(self, name, port, payloads, stall, rng):
        self.name, self.payloads, self.stall, self.rng = name, payloads, stall, rng
        self.watched = (port.valid, port.ready)
        self.driven = Cat(port.valid, port.payload)
        self.offered = 1
        self.times = []

    @property
    def missing(self):
        return len(self.payloads) - len(self.times)

    def __str__(self):
        return f"{self.name} took {len(self.times)} of {len(self.payloads)} payloads"

    def begin(self):
        """Offer the next payload, or pause."""
        if self.missing and self.rng.random() >= self.stall:
            self.offered = 1 | self.payloads[len(self.times)] << 1
        elif self.offered & 1:
            self.offered = self.rng.getrandbits(len(self.driven)) & ~1
        return self.offered

    def step(self, cycle, valid, ready):
        """Look at the cycle that ends; returns the bits to drive in the next one."""
        if valid and ready:
            self.times.append(cycle)
        return self.offered if valid and not ready else self.begin()


class _Sink:
    """What an output stream goes to."""

    def __init__(self, name, port, shape, count, stall, rng):
        self.name, self.shape, self.count, self.stall, self.rng = name, shape, count, stall, rng
        self.watched = (port.valid, port.ready, Value.cast(port.payload))
        self.driven = port.ready
        self.times, self.received = [], []
        self.waiting = None
        self.patient = False  # ready only after valid, this time

    @property
    def missing(self):
        return max(0, self.count - len(self.times))

    def __str__(self):
        return f"{self.name} gave {len(self.times)} of {self.count} payloads"

    def begin(self):
        """Be ready, or pause."""
        ready = self.waiting is not None or not self.patient or not self.missing
        return int(ready and self.rng.random() >= self.stall)

    def step(self, cycle, valid, ready, payload):
        """Look at the cycle that ends; returns the bits to drive in the next one."""
        if self.waiting is not None:
            where = f"cycle {cycle}, {self.name}: payload {self._plain(self.waiting)!r}"
            if not valid:
                raise AssertionError(f"{where} was retracted")
            if payload != self.waiting:
                raise AssertionError(f"{where} became {self._plain(payload)!r}")
        self.waiting = payload if valid and not ready else None
        if valid and ready:
            payload = self._plain(payload)
            if not self.missing:
                raise AssertionError(
                    f"cycle {cycle}, {self.name}: payload {payload!r} comes after all {self.count}"
                )
            self.received.append(payload)
            self.times.append(cycle)
            self.patient = self.stall > 0 and self.rng.random() < 0.5
        return self.begin()

    def _plain(self, bits):
        return _decode(self.shape, bits)


def _unfinished(ends, driving, cycles):
    parts = [str(end) for end in ends if end.missing]
    if driving:
        parts.append("the driver has not returned")
    return f"In {cycles} cycles, {', '.join(parts)}"


def _encode(shape, payload, where):
    """Bits of a payload."""
    if isinstance(shape, data.Layout):
        keys = [key for key, _ in shape]
        given = payload.keys() if isinstance(payload, dict) else range(len(payload))
        if set(given) != set(keys):
            raise ValueError(f"{where} has {list(given)!r}, not {keys!r}")
        bits = 0
        for key, field in shape:
            bits |= _encode(field.shape, payload[key], f"{where}[{key!r}]") << field.offset
        return bits
    code = index(payload)
    if code not in _codes(shape):
        raise ValueError(f"{where} is {code}, outside {shape!r}")
    return code & ((1 << Shape.cast(shape).width) - 1)


def _codes(shape):
    if isinstance(shape, range):
        return shape
    shape = Shape.cast(shape)
    if shape.signed:
        return range(-(1 << shape.width - 1), 1 << shape.width - 1)
    return range(1 << shape.width)


def _decode(shape, bits):
    """A payload as integers, lists and dictionaries."""
    if isinstance(shape, data.Layout):
        parts = {key: _decode(field.shape, bits >> field.offset) for key, field in shape}
        return list(parts.values()) if isinstance(shape, data.ArrayLayout) else parts
    shape = Shape.cast(shape)
    bits &= (1 << shape.width) - 1
    return bits - (1 << shape.width) if shape.signed and bits >> shape.width - 1 else bits
