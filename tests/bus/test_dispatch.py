# amaranth: UnusedElaboratable=no

import random

import pytest
from packet_plans import everything
from small_plans import mixed_formats, tiny

from streamtrain.bus.dispatch import Dispatch, settings_layout
from streamtrain.host.device import Op
from streamtrain.pipeline.layouts import command_layout
from streamtrain.simulate.bench import run_streams

BATCHED = tiny(max_batch=6, in_flight=2)
OWN = {"label", "update", "stage", "velocity"}  # of a command, not of the settings


def extremes(layout, key):
    """Smallest and largest value of a member."""
    shape = layout[key].shape
    return (shape[0], shape[-1]) if isinstance(shape, range) else (0, (1 << shape) - 1)


def settings(plan, rng, **given):
    """Random ones."""
    layout = settings_layout(plan)
    drawn = {name: rng.randint(*extremes(layout, name)) for name, _ in layout}
    return {**drawn, "op": rng.choice([0, 1, 2]), "batch": rng.randint(1, plan.max_batch), **given}


def commands(plan, samples):
    """What the samples ``(settings, label, last)`` should become."""
    found, seen = [], 0
    for given, label, _ in samples:
        update = 0
        if given["op"] == Op.TRAIN:
            seen += 1
            update = int(seen >= given["batch"])
            seen = 0 if update else seen
        command = {name: 0 for name, _ in command_layout(plan)}
        command |= {name: value for name, value in given.items() if name != "batch"}
        found.append({**command, "label": label, "update": update})
    return found


def result(plan, number):
    """What the pipeline would say of a sample."""
    classes = plan.network.classes
    return {"scores": [number % 7] * classes, "loss": number, "predicted": number % classes}


def dispatch(plan, samples, *, window=(), results=None, pause=0.3, cuts=0.0, seed=0, **options):
    """Run samples through, and give results for the first so many of them; returns what happened, and the
    cycles in which samples were committed."""
    dut, rng = Dispatch(plan), random.Random(seed)
    results = len(samples) if results is None else results
    said = {"scored": [], "correct": []}
    cut_rng = random.Random(f"cuts {seed}")
    behind = [not last for _, _, last in samples[:-1]]  # of a sample, its packet goes on or is cut
    cut = [goes_on and cut_rng.random() < cuts for goes_on in behind]
    said["fates"] = [int(here) for goes_on, here in zip(behind, cut, strict=True) if goes_on]
    committed = []

    async def drive(ctx):
        cycle = 0

        async def step():
            nonlocal cycle
            _, _, done, scored, correct = await ctx.tick().sample(dut.done, dut.scored, dut.correct)
            cycle += 1
            if done:
                said["scored"].append(scored)
                said["correct"].append(correct)

        for number, (given, label, last) in enumerate(samples):
            if number and cut[number - 1]:
                ctx.set(dut.cut, 1)
                await step()
                ctx.set(dut.cut, 0)
            while not ctx.get(dut.room) or rng.random() < pause:
                await step()
            for name, value in given.items():
                ctx.set(dut.settings[name], value)
            ctx.set(dut.label, label)
            ctx.set(dut.last, last)
            ctx.set(dut.commit, 1)
            ctx.set(dut.more, number and behind[number - 1] and not cut[number - 1])
            committed.append(cycle)
            await step()
            ctx.set(dut.commit, 0)
            ctx.set(dut.more, 0)
            ctx.set(
                dut.label, rng.randrange(plan.network.classes)
            )  # what comes later does not matter
            ctx.set(dut.settings.op, rng.choice([0, 1, 2]))
        while len(said["scored"]) < results:
            await step()

    run = run_streams(
        dut,
        {"result": [result(plan, n) for n in range(results)], "window": window},
        {"o": results, "command": len(samples) + len(window), "fate": len(said["fates"])},
        drive=drive,
        **options,
    )
    return run, said, committed


def drawn(plan, count, seed=0, **given):
    rng = random.Random(seed)
    return [
        (settings(plan, rng, **given), rng.randrange(plan.network.classes), rng.random() < 0.3)
        for _ in range(count)
    ]


@pytest.mark.parametrize("stall", [0.0, 0.5, {"command": 0.8}, {"o": 0.8}])
@pytest.mark.parametrize(
    "plan", [BATCHED, mixed_formats(), everything()], ids=["tiny", "mixed formats", "everything"]
)
def test_each_sample_gets_the_settings_it_came_under(plan, stall):
    samples = drawn(plan, 60)
    run, said, _ = dispatch(plan, samples, stall=stall)
    assert run.received["command"] == commands(plan, samples)
    for number, (given, label, last) in enumerate(samples):
        expected = {"result": result(plan, number), "label": label, "last": last}
        assert run.received["o"][number] == expected
        scored = given["op"] != Op.INFER
        assert said["scored"][number] == scored
        assert said["correct"][number] == (scored and number % plan.network.classes == label)
    assert run.final["waiting"] == 0 and run.final["room"] == 1


@pytest.mark.parametrize("stall", [0.0, {"fate": 0.2, "o": 0.8}])
def test_a_sample_is_the_last_of_its_packet_after_all_if_the_rest_is_dropped(stall):
    run, said, _ = dispatch(BATCHED, drawn(BATCHED, 60), cuts=0.4, stall=stall)
    assert run.received["fate"] == said["fates"]
    assert 5 < sum(said["fates"]) < len(said["fates"]) - 5


def test_there_is_room_for_what_is_known_of_all_samples_inside():
    """The sender takes it for one result after the other, and results may be slow."""
    count = 2 * (BATCHED.in_flight + len(BATCHED.stages)) + 4
    samples = [(given, label, False) for given, label, _ in drawn(BATCHED, count)]
    run, said, _ = dispatch(BATCHED, samples, results=0, pause=0, stall={"fate": 0.99})
    assert run.received["fate"] == said["fates"] == [0] * (count - 1)
    assert run.times["fate"][1] > run.times["command"][-1]  # they did wait


def updates(samples):
    run, _, _ = dispatch(BATCHED, samples)
    return [command["update"] for command in run.received["command"]]


@pytest.mark.parametrize("batch", [1, 2, 5, 6])
def test_weights_are_updated_after_each_mini_batch(batch):
    assert updates(drawn(BATCHED, 13, op=Op.TRAIN, batch=batch)) == [
        int(n % batch == batch - 1) for n in range(13)
    ]


def test_a_smaller_batch_ends_the_one_under_way_and_a_larger_one_prolongs_it():
    sizes = [5, 5, 5, 2, 2, 2, 2, 6, 6, 6, 6, 6]
    samples = [
        (settings(BATCHED, random.Random(n), op=Op.TRAIN, batch=size), 0, 0)
        for n, size in enumerate(sizes)
    ]
    # Three of five, then a batch of two: it is over with the next sample. One of two, then six.
    assert updates(samples) == [0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1]


def test_samples_between_that_are_not_trained_with_do_not_count():
    ops = [Op.TRAIN, Op.INFER, Op.EVALUATE, Op.TRAIN, Op.INFER, Op.TRAIN, Op.TRAIN, Op.TRAIN]
    samples = [
        (settings(BATCHED, random.Random(n), op=op, batch=3), 0, 0) for n, op in enumerate(ops)
    ]
    assert updates(samples) == [0, 0, 0, 0, 0, 1, 0, 0]


def test_a_command_is_offered_on_the_cycle_after_its_sample():
    samples = drawn(BATCHED, 1)
    run, _, (committed,) = dispatch(BATCHED, samples)
    assert run.times["command"] == [committed + 1]


def test_samples_may_come_every_cycle():
    run, _, committed = dispatch(BATCHED, drawn(BATCHED, 20), pause=0)
    assert committed == list(range(20))
    assert run.times["command"] == [n + 1 for n in range(20)]


def test_no_room_while_two_commands_wait():
    samples = drawn(BATCHED, 12)
    run, _, committed = dispatch(BATCHED, samples, pause=0, stall={"command": 0.9})
    for number, cycle in enumerate(committed):
        waiting = sum(time >= cycle for time in run.times["command"][:number])
        assert waiting <= 3  # two, and one that is offered


def of_window(plan, number):
    command = {name: 0 for name, _ in command_layout(plan)}
    return command | {"op": Op.READ if number % 2 else Op.WRITE, "stage": number % 2}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "stall", [{"command": 0.7, "window": 0.6}, {"window": 0.6}, {"command": 0.9}]
)
def test_window_commands_go_between_and_retract_none(stall, seed):
    """The harness sees whether what is offered stays."""
    samples, window = drawn(BATCHED, 30, seed), [of_window(BATCHED, n) for n in range(10)]
    run, _, _ = dispatch(BATCHED, samples, window=window, stall=stall, seed=seed)
    given = run.received["command"]
    assert [command for command in given if command["op"] >= Op.WRITE] == window
    assert [command for command in given if command["op"] < Op.WRITE] == commands(BATCHED, samples)
    assert len(run.received["o"]) == 30


def test_window_commands_pass_at_once_and_are_no_samples():
    window = [of_window(BATCHED, n) for n in range(5)]
    run, _, _ = dispatch(BATCHED, [], window=window)
    assert run.times["window"] == run.times["command"] == list(range(5))
    assert run.final["waiting"] == 0


def test_waits_until_the_last_result_is_out():
    run, _, _ = dispatch(BATCHED, drawn(BATCHED, 3), results=2)
    assert run.final["waiting"] == 1


def test_a_result_without_a_sample_stays_where_it_is():
    with pytest.raises(TimeoutError, match=r"result took 0 of 1 payloads"):
        dispatch(BATCHED, [], results=1, max_cycles=50)
