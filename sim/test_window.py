"""Weights through the window, while samples come and go; and the interrupt when they are done."""

import cocotb
from common import agree, begin, check_end, check_weights
from trainer import RANDOM, WEIGHTS, Refused


@cocotb.test()
async def weights_read_back(dut):
    """Weights that were written are those that are read."""
    trainer = await begin(dut)
    for count in (3, 0, len(trainer.golden["x"])):
        await trainer.load(count)
        await check_weights(trainer, count)


@cocotb.test()
async def memories_outlast_aresetn(dut):
    """What memories hold stays; registers have their reset values, and random bits their seed."""
    trainer = await begin(dut, samples=3)
    await trainer.load(2)
    await trainer.reset()
    for place in trainer.places:
        expected = trainer.held(place, 0 if place[1] == RANDOM else 2)
        assert (await trainer.read_window(*place)).tolist() == expected.tolist(), f"place {place}"
    assert await trainer.read("CONTROL") == 0
    assert await trainer.read("PACKET") == 1
    assert await trainer.read("EVENTS") == 0


@cocotb.test()
async def weights_read_between_samples(dut):
    """Read in mid-run, each layer's weights are those between two samples; training goes on unharmed."""
    trainer = await begin(dut)
    golden = trainer.golden
    count = len(golden["x"])
    for pixels, label in zip(golden["x"], golden["labels"], strict=True):
        trainer.send(trainer.sample(pixels, label))
    reads = 0
    while len(trainer.results) < count - 2:
        place = trainer.places[reads % len(trainer.places)]
        await trainer.open_window(*place)
        before = await trainer.read("SAMPLES")
        numbers = [
            await trainer.read("WINDOW_DATA") for _ in range(await trainer.read("WINDOW_LEFT"))
        ]
        expected = trainer.held(place, before).astype("u4").tolist()
        assert numbers == expected, f"layer, target {place} after {before} samples"
        reads += 1
    assert reads > 3
    agree(trainer, await trainer.have(count))
    await check_end(trainer, count)


@cocotb.test()
async def weights_written_between_samples(dut):
    """Weights put back to what they were: the samples after it learn the same once more."""
    trainer = await begin(dut)
    golden = trainer.golden
    samples = [trainer.sample(*both) for both in zip(golden["x"], golden["labels"], strict=True)]
    half = len(samples) // 2
    for sample in samples[:half]:
        trainer.send(sample)
    await trainer.sent()  # the last one is still worked on
    await trainer.load(2)
    assert len(trainer.results) == half
    for sample in samples[2:half]:
        trainer.send(sample)
    results = await trainer.have(2 * half - 2)
    agree(trainer, results[:half])
    agree(trainer, results[half:], first=2)
    await trainer.idle()
    await check_weights(trainer, half)


@cocotb.test()
async def window_is_one_way_and_one_at_a_time(dut):
    """The wrong direction, and a second opening, are refused; what is under way goes on."""
    trainer = await begin(dut)
    await trainer.open_window(0)
    left = await trainer.read("WINDOW_LEFT")
    numbers = []
    for access in (
        trainer.write("WINDOW_DATA", number=5),
        trainer.write("WINDOW", layer=0),
        trainer.write("WINDOW", layer=0, write=1),
    ):
        try:
            await access
        except Refused:
            pass
        else:
            raise AssertionError("That access should have been refused")
        numbers.append(await trainer.read("WINDOW_DATA"))
        assert await trainer.read("WINDOW_LEFT") == left - len(numbers)
    while len(numbers) < left:
        numbers.append(await trainer.read("WINDOW_DATA"))
    assert numbers == trainer.held((0, WEIGHTS), 0).astype("u4").tolist()
    await check_weights(trainer, 0)


@cocotb.test()
async def irq_says_when_samples_are_done(dut):
    """The interrupt comes when the last sample was worked off, and not for the window."""
    trainer = await begin(dut)
    golden = trainer.golden
    await trainer.write("EVENTS", done=1)
    await trainer.write("INTERRUPTS", done=1)
    await check_weights(trainer, 0)
    assert not dut.irq.value, "The window raised the interrupt"
    for count in (1, 3):
        start = len(trainer.results)
        for number in range(start, start + count):
            trainer.send(trainer.sample(golden["x"][number], golden["labels"][number]))
        await trainer.until(lambda: dut.irq.value, "interrupt")
        assert len(trainer.results) == start + count
        assert not await trainer.get("STATUS", "busy")
        await trainer.write("EVENTS", done=1)
        await trainer.cycles(2)
        assert not dut.irq.value
    await check_end(trainer, 4)
