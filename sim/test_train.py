"""Train over the streams: what comes out is what the golden model says, at any pace."""

import random

import cocotb
from trainer import TRAIN, Trainer


def _agree(trainer, results):
    """Results are the golden ones, from the first on."""
    golden = trainer.golden
    for number, (predicted, label, loss, scores, _, _) in enumerate(results):
        assert (predicted, label, loss) == (
            golden["predicted"][number],
            golden["labels"][number],
            golden["loss"][number],
        ), f"sample {number}"
        assert scores == golden["scores"][number].tolist(), f"sample {number}"


async def _begin(dut, samples=1):
    trainer = Trainer(dut)
    await trainer.reset()
    layers = range(trainer.layers)
    await trainer.load([trainer.golden[f"weights{layer}"][0] for layer in layers])
    await trainer.rate(*map(int, trainer.golden["rate"]))
    await trainer.write("PACKET", samples=samples)
    await trainer.write("CONTROL", run=1, mode=TRAIN)
    return trainer


async def _check_end(trainer, count):
    """Weights and counters after ``count`` samples."""
    golden = trainer.golden
    await trainer.idle()
    for layer, numbers in enumerate(await trainer.weights()):
        assert numbers.tolist() == golden[f"weights{layer}"][count].tolist(), f"layer {layer}"
    right = (golden["predicted"][:count] == golden["labels"][:count]).sum()
    assert await trainer.read("SAMPLES") == count
    assert await trainer.read("CORRECT") == right
    assert await trainer.wide("LOSS") == golden["loss"][:count].sum()
    assert await trainer.read("DROPPED") == 0


def _pauses(chance, seed):
    rng = random.Random(seed)
    while True:
        yield rng.random() < chance


@cocotb.test()
@cocotb.parametrize(valid=[0.0, 0.3, 0.9], ready=[0.0, 0.9])
async def trains_as_golden(dut, valid, ready):
    """Every sample's result, and the weights at the end, with both streams paused at random."""
    trainer = await _begin(dut)
    golden = trainer.golden
    trainer.source.set_pause_generator(_pauses(valid, cocotb.RANDOM_SEED))
    trainer.sink.set_pause_generator(_pauses(ready, cocotb.RANDOM_SEED + 1))
    count = len(golden["x"])
    for pixels, label in zip(golden["x"], golden["labels"], strict=True):
        trainer.send(trainer.sample(pixels, label))
    results = await trainer.have(count)
    _agree(trainer, results)
    assert all(last for *_, last, _ in results)
    await _check_end(trainer, count)


@cocotb.test()
async def packets_hold_samples(dut):
    """Several samples in a packet: results come in packets of as many."""
    trainer = await _begin(dut, samples=3)
    golden = trainer.golden
    count = len(golden["x"]) // 3 * 3
    samples = [
        trainer.sample(*both) for both in zip(golden["x"][:count], golden["labels"][:count], strict=True)
    ]
    for start in range(0, count, 3):
        trainer.send(b"".join(samples[start : start + 3]))
    results = await trainer.have(count)
    _agree(trainer, results)
    assert [last for *_, last, _ in results] == [False, False, True] * (count // 3)
    await _check_end(trainer, count)


@cocotb.test()
async def keeps_up(dut):
    """A stream that keeps up costs no more than 3 % of the bare pipeline's cycles."""
    trainer = await _begin(dut)
    golden = trainer.golden
    count = len(golden["x"])
    for pixels, label in zip(golden["x"], golden["labels"], strict=True):
        trainer.send(trainer.sample(pixels, label))
    results = await trainer.have(count)
    cycles = [cycle for *_, cycle in results]
    settled = count // 3
    mean = (cycles[-1] - cycles[settled - 1]) / (count - settled)
    bare = float(golden["cycles"])
    cocotb.log.info(
        f"{mean:.1f} cycles per step through AXI, {bare:.1f} without: {mean / bare - 1:+.2%}"
    )
    assert mean <= 1.03 * bare
    await _check_end(trainer, count)
