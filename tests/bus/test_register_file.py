# amaranth: UnusedElaboratable=no
"""Registers behind AXI4-Lite; that each is where its table says is tests/bus/test_exports.py's."""

import random

import pytest
from amaranth.sim import Simulator
from axi_lite import Master

from streamtrain.bus import Field, Register, RegisterMap
from streamtrain.bus.axi import OKAY, SLVERR
from streamtrain.bus.register_file import RegisterFile

TABLE = RegisterMap(
    "table",
    "",
    (
        Register("FACT", 0x00, "", (Field("it", 4, 8, "", "ro", reset=0xA5, constant=True),)),
        Register(
            "SET",
            0x04,
            "",
            (
                Field("low", 0, 12, "", reset=5, minimum=3, maximum=3000),
                Field("go", 12, 1, "", "pulse"),
                Field("high", 20, 12, "", reset=7),
            ),
        ),
        Register("EVENTS", 0x08, "", (Field("it", 0, 16, "", "w1c"), Field("on", 16, 8, ""))),
        Register("COUNT", 0x10, "", (Field("it", 0, 32, "", "ro"),)),
        Register("COUNT_HIGH", 0x14, "", (Field("it", 0, 32, "", "ro"),), captured_by="COUNT"),
        Register("DOOR", 0x20, "", (Field("it", 0, 32, ""),), external=True),
    ),
)


def simulate(*benches, dut=None):
    """Run testbenches ``bench(ctx, dut, master)``; all must return."""
    dut = dut or RegisterFile(TABLE)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    def begun(bench):
        async def testbench(ctx):
            await bench(ctx, dut, Master(ctx, dut.bus))

        return testbench

    for bench in benches:
        simulator.add_testbench(begun(bench))
    simulator.run()


def test_an_access_takes_four_cycles():
    async def bench(ctx, dut, master):
        bus = dut.bus
        ctx.set(bus.araddr, 0x00)
        ctx.set(bus.arvalid, 1)
        ctx.set(bus.rready, 1)
        seen = []
        for _ in range(12):
            _, _, taken, given = await ctx.tick().sample(
                bus.arvalid & bus.arready, bus.rvalid & bus.rready
            )
            seen.append((taken, given))
        assert seen == [(1, 0), (0, 0), (0, 0), (0, 1)] * 3
        ctx.set(bus.arvalid, 0)
        ctx.set(bus.awaddr, 0x08)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.wvalid, 1)
        ctx.set(bus.bready, 1)
        seen = []
        for _ in range(8):
            _, _, taken, wtaken, given = await ctx.tick().sample(
                bus.awvalid & bus.awready, bus.wvalid & bus.wready, bus.bvalid & bus.bready
            )
            seen.append((taken, wtaken, given))
        assert seen == [(1, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 1)] * 2

    simulate(bench)


@pytest.mark.parametrize(
    "address, word",
    [
        (0x00, 0),  # nothing to write
        (0x10, 0),
        (0x0C, 0),  # no register
        (0xFFC, 0xFFFFFFFF),
        (0x04, 0xFFF01002),  # below, with a pulse and another field that would do
        (0x04, 0xFFF01BB9),  # above
    ],
)
def test_a_refused_write_changes_nothing(address, word):
    async def bench(ctx, dut, master):
        assert await master.write(address, word) == SLVERR
        assert await master.read(0x04) == (OKAY, 7 << 20 | 5)
        assert await master.read(0x08) == (OKAY, 0)

    async def watch(ctx, dut, master):
        refused = 0
        for _ in range(12):
            _, _, now, go = await ctx.tick().sample(dut.refused, dut.set_go)
            refused += now
            assert not go
        assert refused == 1

    simulate(bench, watch)


@pytest.mark.parametrize("address", [0x0C, 0x18, 0x24, 0xFFC])
def test_a_read_where_nothing_is_is_refused(address):
    async def bench(ctx, dut, master):
        assert await master.read(address) == (SLVERR, 0)

    simulate(bench)


@pytest.mark.parametrize("low, answer", [(2, SLVERR), (3, OKAY), (3000, OKAY), (3001, SLVERR)])
def test_limits_are_within(low, answer):
    async def bench(ctx, dut, master):
        assert await master.write(0x04, 9 << 20 | low) == answer
        assert ctx.get(dut.set_low) == (low if answer == OKAY else 5)
        assert ctx.get(dut.set_high) == (9 if answer == OKAY else 7)

    simulate(bench)


@pytest.mark.parametrize("strobes", range(16))
def test_bytes_without_strobe_keep_their_value(strobes):
    async def bench(ctx, dut, master):
        assert await master.write(0x04, 0x12300456) == OKAY
        assert await master.write(0x04, 0xABCF1789, strobes) == OKAY
        mask = sum(0xFF << 8 * n for n in range(4) if strobes >> n & 1)
        expected = 0xABC00789 & mask | 0x12300456 & ~mask
        assert await master.read(0x04) == (OKAY, expected)

    async def watch(ctx, dut, master):
        pulses = 0
        for _ in range(12):
            pulses += (await ctx.tick().sample(dut.set_go))[2]
        assert pulses == strobes >> 1 & 1

    simulate(bench, watch)


def test_limits_are_of_what_the_write_leaves():
    async def bench(ctx, dut, master):
        assert await master.write(0x04, 0x0000_0800) == OKAY
        assert await master.write(0x04, 0x0000_00FF, 0b0001) == OKAY  # 0x8ff
        assert await master.write(0x04, 0x0000_0F00, 0b0010) == SLVERR  # 0xfff
        assert await master.write(0x04, 0x0000_0002, 0b0001) == OKAY  # 0x802: 2 alone is too little
        assert ctx.get(dut.set_low) == 0x802

    simulate(bench)


def test_a_pulse_is_one_cycle_and_reads_as_zero():
    async def bench(ctx, dut, master):
        assert await master.write(0x04, 7 << 20 | 1 << 12 | 5) == OKAY
        assert await master.read(0x04) == (OKAY, 7 << 20 | 5)

    async def watch(ctx, dut, master):
        pulses = [(await ctx.tick().sample(dut.set_go))[2] for _ in range(10)]
        assert sum(pulses) == 1

    simulate(bench, watch)


def test_ones_clear_bits_and_zeros_do_not():
    async def bench(ctx, dut, master):
        ctx.set(dut.set_events_it, 0b1111_0000)
        await ctx.tick()
        ctx.set(dut.set_events_it, 0)
        assert await master.write(0x08, 0x42_0000 | 0b0101_0101) == OKAY
        assert await master.read(0x08) == (OKAY, 0x42_0000 | 0b1010_0000)
        assert await master.write(0x08, 0xFFFFFFFF, 0b1100) == OKAY  # none of its bytes
        assert await master.read(0x08) == (OKAY, 0xFF_0000 | 0b1010_0000)

    simulate(bench)


@pytest.mark.parametrize("delay", range(4))
def test_a_bit_that_is_set_and_cleared_at_once_stays_set(delay):
    async def bench(ctx, dut, master):
        assert await master.write(0x08, 0xFFFF) == OKAY
        assert await master.read(0x08) == (OKAY, 1 if delay >= 2 else 0)

    async def hardware(ctx, dut, master):
        for _ in range(delay):
            await ctx.tick()
        ctx.set(dut.set_events_it, 1)
        await ctx.tick()
        ctx.set(dut.set_events_it, 0)

    simulate(bench, hardware)


def test_the_upper_half_is_of_the_same_time_as_the_lower():
    async def bench(ctx, dut, master):
        lower, upper, previous = 0, 0, -1
        for _ in range(30):
            (_, lower), (_, upper) = await master.read(0x10), await master.read(0x14)
            number = upper << 32 | lower
            assert number > previous
            assert number & 0xFFFF == number >> 32 & 0xFFFF  # both halves count the same
            previous = number

    async def hardware(ctx, dut, master):
        for cycle in range(300):
            ctx.set(dut.count_it, cycle)
            ctx.set(dut.count_high_it, cycle)
            await ctx.tick()

    simulate(bench, hardware)


def test_an_external_register_answers_when_it_can():
    asked = []

    async def bench(ctx, dut, master):
        assert await master.write(0x20, 0xDEADBEEF) == OKAY
        assert await master.read(0x20) == (OKAY, 0x12345678)
        assert await master.write(0x20, 1) == SLVERR
        assert await master.read(0x20) == (SLVERR, 0)
        assert await master.write(0x20, 2, 0b0111) == SLVERR  # is not even asked
        assert await master.read(0x04) == (OKAY, 7 << 20 | 5)

    async def hardware(ctx, dut, master):
        for refused in (0, 0, 1, 1):
            *_, read, write, data = (
                await ctx
                .tick()
                .sample(dut.door_read, dut.door_write, dut.door_wdata)
                .until(dut.door_read | dut.door_write)
            )
            asked.append("read" if read else data)
            for _ in range(7):  # it waits, and goes on asking
                _, _, *now = await ctx.tick().sample(dut.door_read, dut.door_write)
                assert now == [read, write]
            ctx.set(dut.door_rdata, 0x12345678)
            ctx.set(dut.door_refused, refused)
            ctx.set(dut.door_done, 1)
            await ctx.tick()
            ctx.set(dut.door_done, 0)
            ctx.set(dut.door_refused, 0)
        for _ in range(20):
            _, _, *now = await ctx.tick().sample(dut.door_read, dut.door_write)
            assert now == [0, 0]

    simulate(bench, hardware)
    assert asked == [0xDEADBEEF, "read", 1, "read"]


def test_waiting_reads_and_writes_take_turns():
    async def bench(ctx, dut, master):
        bus = dut.bus
        for port in (bus.arvalid, bus.rready, bus.awvalid, bus.wvalid, bus.bready):
            ctx.set(port, 1)
        ctx.set(bus.awaddr, 0x08)
        order = []
        while len(order) < 10:
            _, _, read, written = await ctx.tick().sample(bus.arready, bus.awready)
            order += ["read"] * read + ["write"] * written
        assert order in (["read", "write"] * 5, ["write", "read"] * 5)

    simulate(bench)


def test_an_address_waits_for_its_data_and_the_other_way_round():
    async def bench(ctx, dut, master):
        bus = dut.bus
        ctx.set(bus.awaddr, 0x04)
        ctx.set(bus.wdata, 100)
        ctx.set(bus.wstrb, 0xF)
        for first, second in ((bus.awvalid, bus.wvalid), (bus.wvalid, bus.awvalid)):
            ctx.set(first, 1)
            for _ in range(5):
                assert await master.read(0x00) == (OKAY, 0xA50)  # reads go by
                assert not ctx.get(bus.awready) and not ctx.get(bus.wready)
            ctx.set(second, 1)
            await ctx.tick().until(bus.awready & bus.wready)
            ctx.set(first, 0)
            ctx.set(second, 0)
            ctx.set(bus.bready, 1)
            await ctx.tick().until(bus.bvalid)
            ctx.set(bus.bready, 0)
            assert ctx.get(dut.set_low) == 100

    simulate(bench)


@pytest.mark.parametrize("seed", range(4))
def test_random_accesses_with_every_channel_stalling(seed):
    """Independent masters on the five channels; answers are those of a model, in the order of acceptance."""
    rng = random.Random(seed)
    dut = RegisterFile(TABLE)
    state = {"low": 5, "high": 7, "on": 0}
    answers = {"read": [], "write": []}
    accesses = 60

    def write(address, word, strobes):
        mask = sum(0xFF << 8 * n for n in range(4) if strobes >> n & 1)
        if address == 0x04:
            old = state["high"] << 20 | state["low"]
            new = old & ~mask | word & mask
            if not 3 <= new & 0xFFF <= 3000:
                return SLVERR
            state.update(low=new & 0xFFF, high=new >> 20)
            return OKAY
        if address == 0x08:
            state["on"] = (state["on"] << 16 & ~mask | word & mask) >> 16 & 0xFF
            return OKAY
        return SLVERR

    def read(address):
        return {
            0x00: (OKAY, 0xA50),
            0x04: (OKAY, state["high"] << 20 | state["low"]),
            0x08: (OKAY, state["on"] << 16),
        }.get(address, (SLVERR, 0))

    def addresses():
        return rng.choice([0x00, 0x04, 0x04, 0x04, 0x08, 0x0C, 0x40])

    async def pause(ctx):
        while rng.random() < 0.4:
            await ctx.tick()

    def sender(valid, ready, members):
        async def bench(ctx, dut, master):
            for _ in range(accesses):
                await pause(ctx)
                for port, draw in members:
                    ctx.set(port, draw())
                ctx.set(valid, 1)
                await ctx.tick().until(ready)
                ctx.set(valid, 0)

        return bench

    def receiver(valid, ready, payload, kind):
        async def bench(ctx, dut, master):
            for number in range(accesses):
                held = None
                while True:
                    now = rng.random() < 0.5
                    ctx.set(ready, now)
                    _, _, there, *given = await ctx.tick().sample(valid, *payload)
                    if held is not None:
                        assert there and given == held
                    held = given if there else None
                    if there and now:
                        break
                ctx.set(ready, 0)
                assert tuple(given) == answers[kind][number]

        return bench

    async def model(ctx, dut, master):
        bus = dut.bus
        while min(map(len, answers.values())) < accesses:
            _, _, written, reading, awaddr, wdata, wstrb, araddr = await ctx.tick().sample(
                bus.awvalid & bus.awready & bus.wvalid & bus.wready,
                bus.arvalid & bus.arready,
                bus.awaddr,
                bus.wdata,
                bus.wstrb,
                bus.araddr,
            )
            if written:
                answers["write"].append((write(awaddr, wdata, wstrb),))
            if reading:
                response, word = read(araddr)
                answers["read"].append((word, response))

    bus = dut.bus
    simulate(
        sender(bus.awvalid, bus.awready, [(bus.awaddr, addresses)]),
        sender(
            bus.wvalid,
            bus.wready,
            [(bus.wdata, lambda: rng.getrandbits(32)), (bus.wstrb, lambda: rng.randrange(16))],
        ),
        sender(bus.arvalid, bus.arready, [(bus.araddr, addresses)]),
        receiver(bus.bvalid, bus.bready, (bus.bresp,), "write"),
        receiver(bus.rvalid, bus.rready, (bus.rdata, bus.rresp), "read"),
        model,
        dut=dut,
    )
    assert {answer for (answer,) in answers["write"]} == {OKAY, SLVERR}
