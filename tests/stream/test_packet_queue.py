# amaranth: UnusedElaboratable=no

import random
from collections import deque

import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from streamtrain.numeric import Fixed
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate.bench import run_stream, run_streams
from streamtrain.stream import PacketQueue

Q4_4 = Fixed(8, 4)


class Marked(wiring.Component):
    """A queue whose payloads say themselves whether a packet ends with them, and how."""

    def __init__(self, depth):
        self.queue = PacketQueue(Q4_4, depth)
        self.layout = data.StructLayout({"code": Q4_4, "commit": 1, "discard": 1})
        super().__init__({"i": In(stream.Signature(self.layout)), "o": Out(stream.Signature(Q4_4))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = self.queue
        taken = self.i.valid & self.i.ready
        m.d.comb += [
            queue.i.valid.eq(self.i.valid),
            queue.i.payload.eq(self.i.payload.code),
            self.i.ready.eq(queue.i.ready),
            queue.commit.eq(taken & self.i.payload.commit),
            queue.discard.eq(taken & self.i.payload.discard),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m


def packets(count, longest, rng):
    """Random packets as payloads, and the codes of those that count."""
    payloads, kept = [], []
    for _ in range(count):
        codes = rng.choices(Q4_4.codes, k=rng.randint(1, longest))
        good = rng.random() < 0.6
        payloads += [{"code": code, "commit": 0, "discard": 0} for code in codes]
        payloads[-1]["commit" if good else "discard"] = 1
        kept += codes if good else []
    return payloads, kept


@pytest.mark.parametrize("stall", [0.0, 0.5, {"i": 0.7}, {"o": 0.7}])
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_whole_packets_come_out_in_order(depth, stall):
    payloads, kept = packets(40, depth, random.Random(depth))
    assert run_stream(Marked(depth), payloads, len(kept), stall=stall) == kept


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_is_two_lists(depth, seed):
    """Commits and discards at any time, against a list of what counts, and one of what may yet."""
    queue, rng = PacketQueue(Q4_4, depth), random.Random(100 * depth + seed)
    whole, begun, out = deque(), [], []

    async def bench(ctx):
        waiting = None  # what was offered, and not taken
        for _ in range(400):
            commit, discard = (rng.random() < 0.15 for _ in range(2))
            code = rng.choice(Q4_4.codes)
            ctx.set(queue.i.valid, rng.random() < 0.7)
            ctx.set(queue.i.payload, code)
            ctx.set(queue.commit, commit)
            ctx.set(queue.discard, discard and not commit)
            ctx.set(queue.o.ready, rng.random() < 0.6)
            _, _, taken, ready, valid, given, payload = await ctx.tick().sample(
                queue.i.valid & queue.i.ready,
                queue.i.ready,
                queue.o.valid,
                queue.o.valid & queue.o.ready,
                queue.o.payload,
            )
            inside = len(whole) + len(begun)
            assert ready or inside >= depth
            assert inside <= depth + 1
            if waiting is not None:
                assert valid and payload == waiting
            waiting = payload if valid and not given else None
            if given:
                assert payload == whole.popleft()
                out.append(payload)
            if taken:
                begun.append(code)
            if commit:
                whole.extend(begun)
            if commit or discard:
                begun.clear()

    simulator = Simulator(queue)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(out) > 20


def test_a_packet_of_all_there_is_room_for_fits_and_one_more_does_not():
    full = [{"code": n, "commit": n == 4, "discard": 0} for n in range(5)]
    assert run_stream(Marked(5), full, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(TimeoutError, match=r"i took 4 of 5 payloads, o gave 0 of 5"):
        run_stream(Marked(4), full, 5, max_cycles=60)


def test_nothing_is_offered_before_its_packet_counts():
    payloads = [{"code": n, "commit": n == 5, "discard": 0} for n in range(6)]
    run = run_streams(Marked(8), {"i": payloads}, {"o": 6})
    assert run.times["i"] == list(range(6))
    assert run.times["o"] == [5 + 2 + n for n in range(6)]


def test_packets_follow_one_another_at_full_rate():
    payloads = [{"code": n % 100, "commit": n % 4 == 3, "discard": 0} for n in range(40)]
    run = run_streams(Marked(8), {"i": payloads}, {"o": 40})
    assert run.times["i"] == list(range(40))
    assert run.times["o"] == [n + 5 for n in range(40)]


def test_room_of_what_is_discarded_is_free_at_once():
    payloads = [{"code": 1, "commit": 0, "discard": n % 4 == 3} for n in range(40)]
    run = run_streams(Marked(4), {"i": payloads}, {"o": 0})
    assert run.times["i"] == list(range(40))


@pytest.mark.parametrize("lutram_depth, style", [(4, "block"), (5, "distributed")])
def test_says_where_it_lives(lutram_depth, style):
    text = verilog_of(PacketQueue(Q4_4, 5, lutram_depth=lutram_depth), "queue")
    assert f'(* ram_style = "{style}" *)' in text


@pytest.mark.parametrize("depth", [0, -1])
def test_rejects_queues_for_nothing(depth):
    with pytest.raises(ValueError, match=rf"^Queue must hold at least one payload, not {depth}$"):
        PacketQueue(Q4_4, depth)


def test_rejects_depths_that_are_no_integers():
    with pytest.raises(TypeError):
        PacketQueue(Q4_4, 2.0)
