"""What several benches do: begin a training, and compare it with the golden model's."""

import random

from trainer import TRAIN, Trainer

__all__ = ["agree", "begin", "check_end", "check_weights", "pauses"]


async def begin(dut, samples=1):
    """A trainer with the golden model's first weights, set to train."""
    trainer = Trainer(dut)
    await trainer.reset()
    await trainer.load([trainer.golden[f"weights{layer}"][0] for layer in range(trainer.layers)])
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


async def check_weights(trainer, count):
    """Weights are those after ``count`` samples."""
    for layer, numbers in enumerate(await trainer.weights()):
        assert numbers.tolist() == trainer.golden[f"weights{layer}"][count].tolist(), f"layer {layer}"


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
