"""A window in the registers onto weights, velocities and random bits."""

from enum import IntEnum
from math import prod

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.host.device import Op
from streamtrain.host.packing import STATE_BITS
from streamtrain.numeric import lfsr_bit
from streamtrain.pipeline.layouts import command_layout, stored_width
from streamtrain.pipeline.optimizer import velocity

__all__ = ["Target", "WeightWindow", "seeded_states", "window_sizes"]


class Target(IntEnum):
    """What the window looks at."""

    WEIGHTS = 0
    """Weights and biases of a layer."""
    VELOCITIES = 1
    """What momentum keeps of each of them."""
    RANDOM = 2
    """States of the random bits of stochastic rounding, of all layers; a bit at a time. The layer is 0."""


def window_sizes(plan):
    """Numbers behind the window: ``{(target, stage): count}`` of all that a design has."""
    sizes = {}
    for number, stage in enumerate(plan.stages):
        lanes = prod(stage.folding) + (stage.folding[0] if stage.bias else 0)
        sizes[Target.WEIGHTS, number] = stage.words * lanes
        if velocity(plan, stage):
            sizes[Target.VELOCITIES, number] = stage.words * lanes
    if plan.random_sites:
        sizes[Target.RANDOM, len(plan.stages)] = STATE_BITS * len(plan.random_sites)
    return sizes


def _width(plan, target, stage):
    """Bits of a number behind the window, with its sign; a random bit is 0 or 1."""
    if target is Target.RANDOM:
        return 1
    stage = plan.stages[stage]
    return (stage.stored if target is Target.WEIGHTS else velocity(plan, stage)).width


def _fits(number, width):
    """Whether a word in two's complement has a value of so many bits."""
    if width == 1:
        return ~number[1:].any()
    return number[width - 1 :].all() | ~number[width - 1 :].any()


def seeded_states(plan, seed):
    """States of a plan's random bits after ``seed`` was written to the register SEED, by site."""
    states = {}
    for _, stage, site in reversed(plan.random_sites):
        states[f"{stage.name}.{site}"] = seed
        for _ in range(STATE_BITS):
            seed = (seed << 1 | lfsr_bit(seed)) & 0xFFFFFFFF
    return states


class WeightWindow(wiring.Component):
    """Read or write all numbers of one kind of a layer, one after the other, between two samples.

    The numbers come in the order of :func:`~streamtrain.host.packing.stage_words`. What has been begun has to
    be gone through to its end, or ended by a reset.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    start : :py:`In(1)`
        Begin with what ``stage``, ``target`` and ``write`` say, and have said in the cycle before.
    stage, target, write : :py:`In(8)`, :py:`In(2)`, :py:`In(1)`
    refused : :py:`Out(1)`
        There is no such thing, or another one is under way: ``start`` does nothing.
    seed : :py:`In(32)`
    seeding : :py:`In(1)`
        Begin to fill all random bits from ``seed``.
    seed_refused : :py:`Out(1)`
        ``seeding`` does nothing: the seed is 0, there are no random bits, or something is under way.
    busy : :py:`Out(1)`
    opened : :py:`Out(1)`
        Numbers can be had, or given, without waiting for samples.
    left : :py:`Out(32)`
        Numbers that are still to come.
    read, written : :py:`In(1)`
        Ask for the next number, or give it; held until ``done``.
    number : :py:`In(32)`
        What is given.
    found : :py:`Out(32)`
        What was asked for, with its sign.
    done : :py:`Out(1)`
        The answer is there.
    wrong : :py:`Out(1)`
        It is: nothing to be had, or to be given, now; or the number is too wide for what it is.
    command : :py:`Out(stream.Signature(command_layout(plan)))`
    weights_i, weights_o : :py:`Out(...)`, :py:`In(stream.Signature(signed(stored_width(plan))))`
        As :class:`~streamtrain.pipeline.core.TrainingPipeline` has them.

    Timing
    ------
    The window opens when the samples before it are worked off; from then on a number takes a few cycles.
    """

    def __init__(self, plan):
        self.plan = plan
        weights = stream.Signature(signed(stored_width(plan)))
        super().__init__({
            "start": In(1),
            "stage": In(8),
            "target": In(2),
            "write": In(1),
            "refused": Out(1),
            "seed": In(32),
            "seeding": In(1),
            "seed_refused": Out(1),
            "busy": Out(1),
            "opened": Out(1),
            "left": Out(32),
            "read": In(1),
            "written": In(1),
            "number": In(32),
            "found": Out(32),
            "done": Out(1),
            "wrong": Out(1),
            "command": Out(stream.Signature(command_layout(plan))),
            "weights_i": Out(weights),
            "weights_o": In(weights),
        })

    def elaborate(self, platform):
        m = Module()
        plan, payload = self.plan, self.command.payload
        sizes = window_sizes(plan)
        size = Signal(32)
        random = Signal(32)  # the seed, moving on
        seeded, writes = Signal(), Signal()  # what is under way
        move = Signal()
        there = Signal()
        m.d.sync += [size.eq(0), there.eq(0)]
        with m.Switch(Cat(self.stage, self.target)):
            for (target, stage), count in sizes.items():
                # All random bits are one thing, of no stage.
                with m.Case(target << 8 | (0 if target is Target.RANDOM else stage)):
                    m.d.sync += [size.eq(count), there.eq(1)]
        m.d.comb += [
            self.refused.eq(self.busy | ~there),
            self.seed_refused.eq(self.busy | (self.seed == 0) | (not plan.random_sites)),
            move.eq(
                self.weights_i.valid & self.weights_i.ready
                | self.weights_o.valid & self.weights_o.ready
            ),
        ]
        chosen = Signal(range(len(plan.stages) + 1))
        velocities = Signal()
        m.d.comb += [payload.op.eq(Mux(writes, Op.WRITE, Op.READ)), payload.stage.eq(chosen)]
        if plan.network.optimizer.momentum:
            m.d.comb += payload.velocity.eq(velocities)
        with m.If(self.start & ~self.refused):
            m.d.sync += [
                chosen.eq(Mux(self.target == Target.RANDOM, len(plan.stages), self.stage)),
                velocities.eq(self.target == Target.VELOCITIES),
                writes.eq(self.write),
                seeded.eq(0),
                self.left.eq(size),
                self.busy.eq(1),
                self.command.valid.eq(1),
            ]
        if plan.random_sites:
            with m.If(self.seeding & ~self.seed_refused):
                m.d.sync += [
                    chosen.eq(len(plan.stages)),
                    writes.eq(1),
                    seeded.eq(1),
                    random.eq(self.seed),
                    self.left.eq(STATE_BITS * len(plan.random_sites)),
                    self.busy.eq(1),
                    self.command.valid.eq(1),
                ]
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += self.command.valid.eq(0)

        fits = Signal()  # or it would wrap
        with m.Switch(Cat(velocities, chosen)):
            for target, stage in sizes:
                with m.Case(stage << 1 | (target is Target.VELOCITIES)):
                    m.d.comb += fits.eq(_fits(self.number, _width(plan, target, stage)))

        # Whether a number fits is found in the cycle before it is taken.
        given, right = Signal(), Signal()
        m.d.sync += [given.eq(self.written & ~self.done), right.eq(writes & fits)]
        # Until the command is taken, the pipeline takes and gives nothing.
        m.d.comb += [
            self.wrong.eq(~self.opened | self.read & writes | given & ~right),
            self.weights_i.valid.eq(self.busy & writes & (seeded | given & self.opened & right)),
            self.weights_i.payload.eq(Mux(seeded, random[-1], self.number)),
            self.weights_o.ready.eq(self.busy & ~writes & self.read & self.opened),
            self.found.eq(self.weights_o.payload),
            self.done.eq((self.read | given) & (self.wrong | move)),
        ]
        with m.If(self.busy & (self.weights_i.ready | self.weights_o.valid)):
            m.d.sync += self.opened.eq(~seeded)
        with m.If(move):
            m.d.sync += [self.left.eq(self.left - 1), random.eq(random << 1 | lfsr_bit(random))]
            with m.If(self.left == 1):
                m.d.sync += [self.opened.eq(0), self.busy.eq(0)]
        return m
