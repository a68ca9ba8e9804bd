"""Train over the streams: what comes out is what the golden model says, at any pace."""

import cocotb
from common import agree, begin, check_end, pauses


@cocotb.test()
@cocotb.parametrize(valid=[0.0, 0.3, 0.9], ready=[0.0, 0.9])
async def trains_as_golden(dut, valid, ready):
    """Every sample's result, and the weights at the end, with both streams paused at random."""
    trainer = await begin(dut)
    golden = trainer.golden
    trainer.source.set_pause_generator(pauses(valid, cocotb.RANDOM_SEED))
    trainer.sink.set_pause_generator(pauses(ready, cocotb.RANDOM_SEED + 1))
    count = len(golden["x"])
    for pixels, label in zip(golden["x"], golden["labels"], strict=True):
        trainer.send(trainer.sample(pixels, label))
    results = await trainer.have(count)
    agree(trainer, results)
    assert all(last for *_, last, _ in results)
    await check_end(trainer, count)


@cocotb.test()
async def packets_hold_samples(dut):
    """Several samples in a packet: results come in packets of as many."""
    trainer = await begin(dut, samples=3)
    golden = trainer.golden
    count = len(golden["x"]) // 3 * 3
    samples = [
        trainer.sample(*both)
        for both in zip(golden["x"][:count], golden["labels"][:count], strict=True)
    ]
    for start in range(0, count, 3):
        trainer.send(b"".join(samples[start : start + 3]))
    results = await trainer.have(count)
    agree(trainer, results)
    assert [last for *_, last, _ in results] == [False, False, True] * (count // 3)
    await check_end(trainer, count)


@cocotb.test()
async def keeps_up(dut):
    """A stream that keeps up costs no more than 3 % of the bare pipeline's cycles."""
    trainer = await begin(dut)
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
    await check_end(trainer, count)
