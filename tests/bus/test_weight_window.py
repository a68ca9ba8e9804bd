# amaranth: UnusedElaboratable=no

import random

import numpy as np
import pytest
from amaranth import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from packet_plans import everything
from small_plans import mixed_formats, only_linear, tiny

from streamtrain.bus.window import Target, WeightWindow, seeded_states, window_sizes
from streamtrain.host.device import Op
from streamtrain.host.packing import pack_states, stage_words
from streamtrain.pipeline.layouts import command_layout, stored_width
from streamtrain.pipeline.optimizer import velocity
from streamtrain.simulate.bench import run_streams

PLANS = {"tiny": tiny(), "mixed formats": mixed_formats(), "everything": everything()}


class Opened(wiring.Component):
    """A window and the rule of the pipeline: nothing is taken or given before a command was taken."""

    def __init__(self, plan):
        self.plan = plan
        self.window = WeightWindow(plan)
        weights = stream.Signature(signed(stored_width(plan)))
        super().__init__({
            "command": Out(stream.Signature(command_layout(plan))),
            "weights_i": Out(weights),
            "weights_o": In(weights),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.window = window = self.window
        begun = Signal()
        wiring.connect(m, window.command, wiring.flipped(self.command))
        with m.If(window.command.valid & window.command.ready):
            m.d.sync += begun.eq(1)
        with m.Elif(~window.busy):
            m.d.sync += begun.eq(0)
        m.d.comb += [
            self.weights_i.valid.eq(window.weights_i.valid & begun),
            self.weights_i.payload.eq(window.weights_i.payload),
            window.weights_i.ready.eq(self.weights_i.ready & begun),
            window.weights_o.valid.eq(self.weights_o.valid & begun),
            window.weights_o.payload.eq(self.weights_o.payload),
            self.weights_o.ready.eq(window.weights_o.ready & begun),
        ]
        return m


class Registers:
    """The side of the registers: an access is held until it is done."""

    def __init__(self, ctx, window):
        self.ctx, self.window = ctx, window

    async def start(self, target, stage, write):
        """Whether it was refused."""
        ctx, window = self.ctx, self.window
        ctx.set(window.target, target)
        ctx.set(window.stage, stage)
        ctx.set(window.write, write)
        await ctx.tick()
        ctx.set(window.start, 1)
        _, _, refused = await ctx.tick().sample(window.refused)
        ctx.set(window.start, 0)
        return refused

    async def seed(self, seed):
        ctx, window = self.ctx, self.window
        ctx.set(window.seed, seed)
        ctx.set(window.seeding, 1)
        _, _, refused = await ctx.tick().sample(window.seed_refused)
        ctx.set(window.seeding, 0)
        ctx.set(window.seed, 0)
        return refused

    async def read(self):
        """``(wrong, number)``."""
        return await self._access(self.window.read)

    async def write(self, number):
        self.ctx.set(self.window.number, number & 0xFFFFFFFF)
        wrong, _ = await self._access(self.window.written)
        return wrong

    async def _access(self, kind):
        ctx, window = self.ctx, self.window
        ctx.set(kind, 1)
        wrong, number = await ctx.tick().sample(window.wrong, window.found).until(window.done)
        ctx.set(kind, 0)
        return wrong, number

    async def opened(self):
        while not self.ctx.get(self.window.opened):
            await self.ctx.tick()


def run(plan, script, inputs=None, outputs=None, **options):
    dut = Opened(plan)

    async def drive(ctx):
        await script(Registers(ctx, dut.window))

    return run_streams(dut, inputs or {}, outputs or {}, drive=drive, max_cycles=40_000, **options)


def numbers(plan, target, stage):
    """As many as there are, the first two extreme."""
    count = window_sizes(plan)[target, stage]
    rng = random.Random(str((target, stage)))
    low, high = limits(plan, target, stage)
    return [low, high, *(rng.randint(low, high) for _ in range(count - 2))]


def limits(plan, target, stage):
    """Of a number behind the window."""
    if target is Target.RANDOM:
        return 0, 1
    stage = plan.stages[stage]
    codes = (stage.stored if target is Target.WEIGHTS else velocity(plan, stage)).codes
    return codes[0], codes[-1]


KINDS = [
    pytest.param(plan, target, stage, id=f"{name} {target.name} {stage}")
    for name, plan in PLANS.items()
    for target, stage in window_sizes(plan)
]


def command_of(plan, target, stage, write):
    command = {name: 0 for name, _ in command_layout(plan)}
    command |= {"op": Op.WRITE if write else Op.READ, "stage": stage}
    if target is Target.VELOCITIES:
        command["velocity"] = 1
    return command


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("plan, target, stage", KINDS)
def test_reads_all_of_a_kind(plan, target, stage, stall):
    given = numbers(plan, target, stage)

    async def script(registers):
        layer = 0 if target is Target.RANDOM else stage  # random bits are of no layer
        assert not await registers.start(target, layer, write=0)
        assert (await registers.read())[0]  # too early
        await registers.opened()
        for left, number in zip(range(len(given), 0, -1), given, strict=True):
            assert registers.ctx.get(registers.window.left) == left
            wrong, found = await registers.read()
            assert not wrong and found == number & 0xFFFFFFFF
        assert not registers.ctx.get(registers.window.busy | registers.window.opened)
        assert (await registers.read())[0]  # too late

    done = run(plan, script, {"weights_o": given}, {"command": 1}, stall=stall)
    assert done.received["command"] == [command_of(plan, target, stage, write=False)]


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("plan, target, stage", KINDS)
def test_writes_all_of_a_kind(plan, target, stage, stall):
    given = numbers(plan, target, stage)

    async def script(registers):
        layer = 0 if target is Target.RANDOM else stage
        assert not await registers.start(target, layer, write=1)
        assert await registers.write(0)
        await registers.opened()
        assert (await registers.read())[0]  # it is for writing
        low, high = limits(plan, target, stage)
        for number in (low - 1, high + 1, -(1 << 31), (1 << 31) - 1):
            assert await registers.write(number)  # it would wrap
        assert registers.ctx.get(registers.window.left) == len(given)
        for number in given:
            assert not await registers.write(number)
        assert not registers.ctx.get(registers.window.busy | registers.window.opened)
        assert await registers.write(0)

    done = run(plan, script, {}, {"command": 1, "weights_i": len(given)}, stall=stall)
    assert done.received["command"] == [command_of(plan, target, stage, write=True)]
    assert done.received["weights_i"] == given


def test_a_number_takes_a_cycle():
    plan = tiny()
    given = numbers(plan, Target.WEIGHTS, 0)

    async def script(registers):
        await registers.start(Target.WEIGHTS, 0, write=0)
        await registers.opened()
        for _ in given:
            await registers.read()

    done = run(plan, script, {"weights_o": given}, {"command": 1})
    times = done.times["weights_o"]
    assert times == [times[0] + n for n in range(len(given))]


@pytest.mark.parametrize("name", PLANS)
def test_what_is_not_there_is_refused(name):
    plan = PLANS[name]
    there = {
        (target, 0 if target is Target.RANDOM else stage) for target, stage in window_sizes(plan)
    }

    async def script(registers):
        for target in range(4):
            for stage in [*range(len(plan.stages) + 2), 255]:
                if (target, stage) not in there:
                    for write in (0, 1):
                        assert await registers.start(target, stage, write)
                        assert not registers.ctx.get(registers.window.busy)

    run(plan, script)


def test_what_is_under_way_goes_on():
    plan = PLANS["everything"]
    given = numbers(plan, Target.WEIGHTS, 0)

    async def script(registers):
        assert not await registers.start(Target.WEIGHTS, 0, write=0)
        assert await registers.start(Target.VELOCITIES, 0, write=1)
        assert await registers.seed(5)
        await registers.opened()
        assert await registers.start(Target.WEIGHTS, 0, write=1)
        assert await registers.seed(5)
        assert [await registers.read() for _ in given] == [(0, n & 0xFFFFFFFF) for n in given]

    done = run(plan, script, {"weights_o": given}, {"command": 1})
    assert done.received["command"] == [command_of(plan, Target.WEIGHTS, 0, write=False)]


@pytest.mark.parametrize("seed", [1, 0x80000000, 0xFFFFFFFF, 0x12345678])
@pytest.mark.parametrize("name", ["mixed formats", "everything"])
def test_a_seed_fills_all_random_bits(name, seed):
    plan = PLANS[name]
    sites = len(plan.random_sites)

    async def script(registers):
        assert await registers.seed(0)
        assert not await registers.seed(seed)
        assert await registers.start(Target.WEIGHTS, 0, write=0)  # not now
        assert await registers.write(3)  # the window does not open
        while registers.ctx.get(registers.window.busy):
            assert not registers.ctx.get(registers.window.opened)
            await registers.ctx.tick()

    done = run(plan, script, {}, {"command": 1, "weights_i": 32 * sites}, stall={"weights_i": 0.3})
    assert done.received["command"] == [
        command_of(plan, Target.RANDOM, len(plan.stages), write=True)
    ]
    bits = [number & 1 for number in done.received["weights_i"]]
    states = seeded_states(plan, seed)
    np.testing.assert_array_equal(bits, pack_states(plan, states))
    assert all(states.values()) and len(set(states.values())) == sites == len(states)


def test_without_random_bits_a_seed_is_refused():
    async def script(registers):
        assert await registers.seed(1)
        assert not registers.ctx.get(registers.window.busy)

    run(PLANS["tiny"], script)


def test_sizes_are_those_of_the_words():
    for plan in (*PLANS.values(), only_linear()):
        sizes = window_sizes(plan)
        for number, stage in enumerate(plan.stages):
            bias = np.zeros(stage.channels[1]) if stage.bias else None
            words = stage_words(stage, np.zeros(stage.weight_shape), bias)
            assert sizes[Target.WEIGHTS, number] == words.size
        assert ((Target.VELOCITIES, 0) in sizes) == bool(plan.network.optimizer.momentum)
        assert any(kind is Target.RANDOM for kind, _ in sizes) == bool(plan.random_sites)
