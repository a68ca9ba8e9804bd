# amaranth: UnusedElaboratable=no

import random

import pytest
from amaranth.lib import data

from streamtrain.numeric import Fixed
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate.bench import run_stream, run_streams
from streamtrain.stream import Queue, memory_style

Q4_4 = Fixed(8, 4)


@pytest.mark.parametrize("stall", [0.0, 0.5, {"i": 0.7}, {"o": 0.7}])
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize("lutram_depth", [0, 64])
def test_payloads_come_out_in_order(depth, lutram_depth, stall):
    codes = random.Random(depth).choices(Q4_4.codes, k=60)
    queue = Queue(Q4_4, depth, lutram_depth=lutram_depth)
    assert run_stream(queue, codes, 60, stall=stall) == codes


def test_structures_keep_their_members():
    layout = data.StructLayout({"data": data.ArrayLayout(Q4_4, 2), "train": 1})
    payloads = [{"data": [-128, 127], "train": 1}, {"data": [127, -128], "train": 0}]
    assert run_stream(Queue(layout, 2), payloads, 2) == payloads


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("lutram_depth, head, more", [(0, False, 1), (0, True, 2), (64, False, 0)])
def test_level_counts_the_payloads_inside(depth, lutram_depth, head, more):
    async def count(ctx):
        inside, left, most = 0, 80, 0
        while left:
            _, _, level, *moves = await ctx.tick().sample(
                queue.level, queue.i.valid & queue.i.ready, queue.o.valid & queue.o.ready
            )
            assert level == inside
            inside += moves[0] - moves[1]
            left -= moves[1]
            most = max(most, inside)
        assert most == depth + more  # it was full; from block RAM more are on their way

    queue = Queue(Q4_4, depth, lutram_depth=lutram_depth, head=head)
    run = run_streams(queue, {"i": [1] * 80}, {"o": 80}, drive=count, stall={"o": 0.8})
    assert run.final == {"level": 0}


@pytest.mark.parametrize("depth, period", [(1, 2), (2, 1), (8, 1)])
@pytest.mark.parametrize("lutram_depth, latency", [(0, 2), (64, 1)])
def test_a_payload_is_offered_soon_and_at_full_rate(depth, period, lutram_depth, latency):
    run = run_streams(Queue(Q4_4, depth, lutram_depth=lutram_depth), {"i": [1] * 50}, {"o": 50})
    assert run.times["i"] == [period * n for n in range(50)]
    assert run.times["o"] == [period * n + latency for n in range(50)]


@pytest.mark.parametrize("stall", [0.0, 0.5, {"i": 0.7}, {"o": 0.7}])
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_a_queue_with_its_head_in_a_register_is_as_full_and_as_fast(depth, stall):
    async def count(ctx):
        inside, left, most = 0, 80, 0
        while left:
            _, _, level, *moves = await ctx.tick().sample(
                queue.level, queue.i.valid & queue.i.ready, queue.o.valid & queue.o.ready
            )
            assert level == inside
            inside += moves[0] - moves[1]
            left -= moves[1]
            most = max(most, inside)
        assert most <= depth
        if stall == {"o": 0.7}:
            assert most == depth

    codes = random.Random(depth).choices(Q4_4.codes, k=80)
    queue, plain = Queue(Q4_4, depth, head=True), Queue(Q4_4, depth)
    runs = [
        run_streams(queue, {"i": codes}, {"o": 80}, drive=count, stall=stall),
        run_streams(plain, {"i": codes}, {"o": 80}, stall=stall),
    ]
    assert runs[0].received["o"] == runs[1].received["o"] == codes
    assert runs[0].times == runs[1].times


@pytest.mark.parametrize("stall", [0.0, 0.5, {"i": 0.7}, {"o": 0.7}])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_register_behind_block_ram_costs_a_cycle_once(depth, stall):
    codes = random.Random(depth).choices(Q4_4.codes, k=80)
    queue, plain = (Queue(Q4_4, depth, lutram_depth=0, head=head) for head in (True, False))
    runs = [run_streams(each, {"i": codes}, {"o": 80}, stall=stall) for each in (queue, plain)]
    assert runs[0].received["o"] == runs[1].received["o"] == codes
    if not stall:
        assert runs[0].times["i"] == runs[1].times["i"]
        assert runs[0].times["o"] == [time + 1 for time in runs[1].times["o"]]


def test_small_memories_are_distributed():
    assert memory_style(64) == {"ram_style": "distributed"}
    assert memory_style(65) == {"ram_style": "block"}
    assert memory_style(64, 63) == {"ram_style": "block"}
    assert memory_style(65, 65) == {"ram_style": "distributed"}


@pytest.mark.parametrize("depth, lutram_depth, style", [(5, 4, "block"), (5, 5, "distributed")])
def test_says_where_it_lives(depth, lutram_depth, style):
    text = verilog_of(Queue(Q4_4, depth, lutram_depth=lutram_depth), "queue")
    assert f'(* ram_style = "{style}" *)' in text


@pytest.mark.parametrize("depth", [0, -1])
def test_rejects_queues_for_nothing(depth):
    with pytest.raises(ValueError, match=rf"^Queue must hold at least one payload, not {depth}$"):
        Queue(Q4_4, depth)


def test_rejects_depths_that_are_no_integers():
    with pytest.raises(TypeError):
        Queue(Q4_4, 2.0)
