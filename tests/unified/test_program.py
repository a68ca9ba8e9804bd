# amaranth: UnusedElaboratable=no
"""Records, what fetches them, and what lets two readers share a memory."""

import random

import pytest
from amaranth.sim import Simulator

from streamtrain.numeric import arithmetic
from streamtrain.unified.buffers import Depths
from streamtrain.unified.core import UnifiedCore
from streamtrain.unified.program import (
    RECORD_BITS,
    Kind,
    ProgramFetch,
    ReadShare,
    begin_fields,
    pack_record,
    record_layouts,
)

BEAT = 64
LAYOUTS = record_layouts(32)
CORE = "a core"
BEGIN = pack_record(LAYOUTS, Kind.BEGIN, begin_fields(CORE))


async def offer(ctx, stream, payload, over):
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    ready = False
    while not ready and not over():
        *_, ready = await ctx.tick().sample(stream.ready)
    ctx.set(stream.valid, 0)


@pytest.mark.parametrize("seed", range(3))
def test_commands_come_out_in_order_and_the_end_waits_for_writes(seed):
    pauses = random.Random(seed)
    kinds = [pauses.choice([Kind.LOAD, Kind.COMPUTE, Kind.STORE]) for _ in range(40)]
    names = {Kind.LOAD: "words", Kind.COMPUTE: "rows", Kind.STORE: "beats"}
    records = [pack_record(LAYOUTS, kind, {names[kind]: n + 1}) for n, kind in enumerate(kinds)]
    records.append(pack_record(LAYOUTS, Kind.END, {"writes": 7}))
    image = b"".join([BEGIN, *records])
    dut = ProgramFetch(CORE, data_bits=BEAT, address_bits=32)
    found, over, done_at, ended_at = {kind: [] for kind in Kind}, False, None, None

    async def memory(ctx):
        while not over:
            ctx.set(dut.request.ready, 1)
            _, _, valid, request = await ctx.tick().sample(dut.request.valid, dut.request.payload)
            ctx.set(dut.request.ready, 0)
            if not valid:
                continue
            for beat in range(request.beats):
                while pauses.random() < 0.2:
                    await ctx.tick()
                at = request.address - 0x4000 + beat * BEAT // 8
                word = int.from_bytes(image[at : at + BEAT // 8], "little")
                last = beat == request.beats - 1
                await offer(ctx, dut.i, {"data": word, "last": last}, lambda: over)

    def taker(kind, port):
        async def take(ctx):
            while not over:
                ctx.set(port.ready, pauses.random() < 0.4)
                _, _, valid, ready, payload = await ctx.tick().sample(
                    port.valid, port.ready, port.payload
                )
                if valid and ready:
                    found[kind].append(getattr(payload, names[kind]))

        return take

    async def run(ctx):
        nonlocal over, done_at, ended_at
        ctx.set(dut.address, 0x4000)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(3000):
            await ctx.tick()
            if cycle == 1500:
                assert ctx.get(dut.busy)
                ctx.set(dut.done, 7)
                done_at = cycle
            if not ctx.get(dut.busy) and ended_at is None:
                ended_at = cycle
        over = True

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    ports = (Kind.LOAD, dut.load), (Kind.COMPUTE, dut.compute), (Kind.STORE, dut.store)
    for process in (run, memory, *(taker(kind, port) for kind, port in ports)):
        simulator.add_testbench(process)
    simulator.run()
    for kind, _ in ports:
        assert found[kind] == [n + 1 for n, own in enumerate(kinds) if own == kind]
    assert done_at < ended_at < done_at + 100


def other(fields):
    return pack_record(LAYOUTS, Kind.BEGIN, begin_fields(CORE) | fields)


@pytest.mark.parametrize(
    "records",
    [
        [other({"magic": 1})],
        [other({"version": begin_fields(CORE)["version"] + 1})],
        [other(begin_fields("another core"))],
        [pack_record(LAYOUTS, Kind.LOAD, {"words": 1})],
        [bytes(64)],
        [BEGIN, BEGIN],
        [BEGIN, b"\7" + bytes(63)],
    ],
    ids=["magic", "version", "core", "no beginning", "zeros", "two beginnings", "unknown kind"],
)
def test_what_is_no_program_for_this_core_is_refused(records):
    """Nothing of it is handed on."""
    image = b"".join([*records, pack_record(LAYOUTS, Kind.LOAD, {"words": 1}), bytes(1024)])
    dut = ProgramFetch(CORE, data_bits=BEAT, address_bits=32)

    async def run(ctx):
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.i.valid, 1)
        at = 0
        for _ in range(200):
            ctx.set(dut.i.payload.data, int.from_bytes(image[at : at + BEAT // 8], "little"))
            *_, ready, load = await ctx.tick().sample(dut.i.ready, dut.load.valid)
            at = min(at + BEAT // 8 * ready, len(image) - BEAT // 8)
            assert not load
        assert ctx.get(dut.wrong) and ctx.get(dut.busy)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


def test_each_reader_gets_what_it_asked_for():
    dut, pauses, over = ReadShare(BEAT, 32, outstanding=3), random.Random(0), False
    asked = [[(1000 * n + k, pauses.randrange(1, 5)) for k in range(20)] for n in range(2)]
    found, order = [[], []], []

    def asker(number):
        async def ask(ctx):
            port = getattr(dut, f"request{number}")
            for address, beats in asked[number]:
                while pauses.random() < 0.5:
                    await ctx.tick()
                await offer(ctx, port, {"address": address, "beats": beats}, lambda: over)

        return ask

    def taker(number):
        async def take(ctx):
            port = getattr(dut, f"o{number}")
            while not over:
                ctx.set(port.ready, pauses.random() < 0.7)
                _, _, valid, ready, payload = await ctx.tick().sample(
                    port.valid, port.ready, port.payload
                )
                if valid and ready:
                    found[number].append(payload.data)

        return take

    async def memory(ctx):
        while not over:
            ctx.set(dut.request.ready, pauses.random() < 0.7)
            _, _, valid, ready, request = await ctx.tick().sample(
                dut.request.valid, dut.request.ready, dut.request.payload
            )
            if valid and ready:
                order.append((request.address, request.beats))

    async def answer(ctx):
        nonlocal over
        sent = idle = 0
        while idle < 100:
            await ctx.tick()
            idle += 1
            while sent < len(order):
                address, beats = order[sent]
                sent, idle = sent + 1, 0
                for beat in range(beats):
                    word = {"data": address * 10 + beat, "last": beat == beats - 1}
                    await offer(ctx, dut.i, word, lambda: over)
        over = True

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (answer, memory, asker(0), asker(1), taker(0), taker(1)):
        simulator.add_testbench(process)
    simulator.run()
    for number in range(2):
        want = [10 * address + beat for address, beats in asked[number] for beat in range(beats)]
        assert found[number] == want


def test_records_refuse_fields_that_are_not_there():
    with pytest.raises(KeyError, match="no field 'adress'"):
        pack_record(LAYOUTS, Kind.LOAD, {"adress": 4})
    record = pack_record(LAYOUTS, Kind.STORE, {"map": {"rows": 3}})
    assert len(record) == RECORD_BITS // 8
    with pytest.raises(KeyError, match="no field 'row'"):
        pack_record(LAYOUTS, Kind.STORE, {"map": {"row": 3}})


def test_accumulators_are_words_of_memory():
    with pytest.raises(ValueError, match="must have 32 bits, not 48"):
        UnifiedCore(arithmetic("fixed<16,8>"), 4, Depths(8, 8, 8, 8, 8, 8), 4, data_bits=64)
