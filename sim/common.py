"""What several benches do: begin a training, and compare it with the golden model's."""

import random

from trainer import RANDOM, TRAIN, Trainer

__all__ = ["agree", "begin", "check_end", "check_weights", "pauses"]


async def begin(dut, samples=1):
    """A trainer with the golden model's first weights, set to train."""
    trainer = Trainer(dut)
    await trainer.reset()
    await trainer.load(0)
    await trainer.rate(*map(int, trainer.golden["rate"]))
    await trainer.write("PACKET", samples=samples)
    await trainer.write("CONTROL", run=1, mode=TRAIN)
    return trainer


def agree(trainer, results, first=0):
    """Results are those of the golden training's samples from ``first`` on."""
    golden = trainer.golden
    for number, (predicted, label, loss, scores, _, _) in enumerate(results, first):
        assert (predicted, label, loss) == (
            golden["predicted"][number],
            golden["labels"][number],
            golden["loss"][number],
        ), f"sample {number}"
        assert scores == golden["scores"][number].tolist(), f"sample {number}"


async def check_weights(trainer, count, *, random=True):
    """Weights, what the optimiser remembers, and random bits are those after ``count`` samples."""
    for place in trainer.places:
        if place[1] != RANDOM or random:
            numbers = await trainer.read_window(*place)
            expected = trainer.held(place, count)
            assert numbers.tolist() == expected.tolist(), f"layer {place[0]}, target {place[1]}"


async def check_end(trainer, count, dropped=0):
    """Weights and counters are those after ``count`` samples, each of them once."""
    golden = trainer.golden
    await trainer.idle()
    await check_weights(trainer, count)
    right = (golden["predicted"][:count] == golden["labels"][:count]).sum()
    assert await trainer.read("SAMPLES") == count
    assert await trainer.read("CORRECT") == right
    assert await trainer.wide("LOSS") == golden["loss"][:count].sum()
    assert await trainer.read("DROPPED") == dropped


def pauses(chance, seed):
    """Pause in a cycle with such a chance, for :meth:`set_pause_generator`."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < chance
