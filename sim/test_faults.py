"""Damaged packets, and resets in the middle: nothing hangs, nothing bad is learned, good samples count."""

import random

import cocotb
from common import agree, begin, check_end, check_weights
from trainer import INFER, TRAIN


class _Sender:
    """Good samples of the golden training, in order, and bad ones in between."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.good = 0
        golden = trainer.golden
        both = zip(golden["x"], golden["labels"], strict=True)
        self.samples = [trainer.sample(*one) for one in both]

    @property
    def next(self):
        return self.samples[self.good]

    def send_good(self):
        self.trainer.send(self.next)
        self.good += 1


async def _events(trainer):
    """Names of the events that are set, but for that samples are done; and clear all."""
    fields = trainer.table["EVENTS"]["fields"]
    word = await trainer.read("EVENTS")
    await trainer.write_at(trainer.table["EVENTS"]["address"], word)
    return {field["name"] for field in fields if word >> field["low"] & 1} - {"done"}


async def _check(trainer, sender, event, packet, keep=None):
    """A packet is dropped with its event and changes no weight; a good sample after it counts."""
    dropped = await trainer.read("DROPPED")
    sender.send_good()
    trainer.send(packet, keep)
    await trainer.idle()
    assert await _events(trainer) == {event}
    assert await trainer.read("DROPPED") == dropped + 1
    await check_weights(trainer, sender.good)
    trainer.send(packet, keep)
    sender.send_good()
    agree(trainer, await trainer.have(sender.good))
    await trainer.idle()
    assert await _events(trainer) == {event}
    await check_end(trainer, sender.good, dropped=dropped + 2)


@cocotb.test()
async def too_short(dut):
    """TLAST comes early, by one word or by nearly all of them."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    size = trainer.size
    for words in (1, 2, trainer.sample_words - 1):
        await _check(trainer, sender, "short", sender.next[: words * size])


@cocotb.test()
async def too_long(dut):
    """TLAST comes late, by a word or by more than a sample."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    for words in (1, trainer.sample_words + 1):
        await _check(trainer, sender, "long", sender.next + bytes(words * trainer.size))


@cocotb.test()
async def last_is_missing(dut):
    """Without its TLAST a packet takes the next one along; the one after that counts."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    await _check(trainer, sender, "long", 2 * sender.next)
    await _check(trainer, sender, "long", 3 * sender.next)


@cocotb.test()
async def bytes_left_out(dut):
    """TKEEP is not all ones: in the label's word, in the middle, in the last word."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    length = len(sender.next)
    for hole in (0, length // 2, length - trainer.size):
        keep = [int(byte != hole) for byte in range(length)]
        await _check(trainer, sender, "keep", sender.next, keep)


@cocotb.test()
async def label_is_no_class(dut):
    trainer = await begin(dut)
    sender = _Sender(trainer)
    pixels = trainer.golden["x"][0]
    for label in (trainer.classes, 0xFFFF):
        await _check(trainer, sender, "label", trainer.sample(pixels, label))


@cocotb.test()
async def label_matters_only_at_the_end(dut):
    """Set to train after the label has come, the trainer still refuses one that is no class."""
    trainer = await begin(dut)
    await trainer.write("CONTROL", run=1, mode=INFER)
    trainer.send(trainer.sample(trainer.golden["x"][0], trainer.classes))
    await trainer.have(1)  # labels do not matter
    await trainer.idle()
    taken = trainer.words_taken
    trainer.send(trainer.sample(trainer.golden["x"][0], trainer.classes))
    await trainer.until(lambda: trainer.words_taken == taken + 1, "first word")
    trainer.source.pause = True
    await trainer.write("CONTROL", run=1, mode=TRAIN)
    trainer.source.pause = False
    await trainer.idle()
    assert await _events(trainer) == {"label"}
    assert await trainer.read("SAMPLES") == 1
    await check_weights(trainer, 0)


@cocotb.test()
async def cut_within_a_packet(dut):
    """Samples in front of the damage count, and TLAST is on the last one's result."""
    trainer = await begin(dut, samples=4)
    sender = _Sender(trainer)
    two = b"".join(sender.samples[:2])
    trainer.send(two + sender.samples[2][: 2 * trainer.size])
    await trainer.have(2)
    await trainer.idle()
    assert await _events(trainer) == {"short"}
    trainer.send(b"".join(sender.samples[2:6]))
    results = await trainer.have(6)
    agree(trainer, results)
    assert [last for *_, last, _ in results] == [False, True, False, False, False, True]
    await check_end(trainer, 6, dropped=1)


@cocotb.test()
async def reset_in_a_sample(dut):
    """CONTROL.reset while a packet arrives: the rest of it is dropped, weights stay."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    for number, words in enumerate((1, trainer.sample_words // 2, trainer.sample_words - 1), 1):
        sender.send_good()
        await trainer.idle()
        taken = trainer.words_taken
        trainer.send(sender.next)
        await trainer.until(lambda: trainer.words_taken >= taken + words, "word")  # ruff: ignore[function-uses-loop-variable]
        trainer.source.pause = True
        await trainer.cycles(2)
        assert trainer.words_taken < taken + trainer.sample_words
        await trainer.write("CONTROL", run=1, mode=TRAIN, reset=1)
        assert await trainer.get("STATUS", "receiving")
        trainer.source.pause = False
        await trainer.idle()
        assert not await trainer.get("STATUS", "receiving")
        assert await trainer.read("DROPPED") == number
        await check_weights(trainer, sender.good, random=False)
        await trainer.load(sender.good)  # random bits are as after the start
    sender.send_good()
    agree(trainer, await trainer.have(sender.good))
    await check_end(trainer, sender.good, dropped=3)


@cocotb.test()
async def reset_at_any_time(dut):
    """CONTROL.reset while samples are trained with: afterwards everything works as after the start."""
    trainer = await begin(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    sender = _Sender(trainer)
    for _ in range(8):
        for sample in sender.samples[:4]:
            trainer.send(sample)
        await trainer.cycles(rng.randrange(4 * 300))
        trainer.source.pause = True
        await trainer.write("CONTROL", run=1, mode=TRAIN, reset=1)
        trainer.source.pause = False
        await trainer.idle()
        await trainer.cycles(100)
        trainer.output.clear()
        await trainer.load(0)
        await trainer.write("CONTROL", run=1, mode=TRAIN, clear=1)
        for sample in sender.samples[:2]:
            trainer.send(sample)
        agree(trainer, await trainer.have(2))
        await check_end(trainer, 2)
        trainer.output.clear()
        await trainer.load(0)


@cocotb.test()
async def reset_while_the_window_is_open(dut):
    """It closes the window; what was written so far may have come into force, the rest stays."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    sender.send_good()
    await trainer.idle()
    await trainer.open_window(0)
    await trainer.read("WINDOW_DATA")
    await trainer.write("CONTROL", run=1, mode=TRAIN, reset=1)
    assert not await trainer.get("STATUS", "window_busy")
    assert not await trainer.get("STATUS", "window_open")
    await check_weights(trainer, 1, random=False)
    await trainer.load(1)
    sender.send_good()
    agree(trainer, await trainer.have(2))
    await check_end(trainer, 2)


@cocotb.test()
async def stopped(dut):
    """With run off no packet begins; one that is under way is taken to its end."""
    trainer = await begin(dut)
    sender = _Sender(trainer)
    taken = trainer.words_taken
    sender.send_good()
    await trainer.until(lambda: trainer.words_taken > taken, "first word")
    await trainer.write("CONTROL", run=0, mode=TRAIN)
    sender.send_good()
    await trainer.have(1)
    await trainer.cycles(500)
    assert trainer.words_taken == taken + trainer.sample_words
    await trainer.write("CONTROL", run=1, mode=TRAIN)
    agree(trainer, await trainer.have(2))
    await check_end(trainer, 2)
