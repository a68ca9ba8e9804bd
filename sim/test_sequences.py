"""Random sequences of all that may happen to a trainer, written down for the golden model to follow.

The journal, a JSON list on each line, has ``["era", {"layer target": numbers}]`` when all that was inside
is forgotten, ``["sample", ...]`` for each sample that counts, ``["read" | "write", layer, target, samples,
numbers]`` for what the window did after so many samples of the era, and ``["end", results, whole,
saturated]`` when the era ends; ``whole`` says whether all samples' results came out.
"""

import json
import os
import random

import cocotb
import numpy as np
from cocotb.triggers import Lock
from common import pauses
from trainer import INFER, TRAIN, WEIGHTS, Refused, Trainer, handed_over

_OPTIONAL = ("MOMENTUM", "DECAY", "CLIP")  # registers that not every trainer has


class _Sequences:
    def __init__(self, trainer, journal):
        self.trainer = trainer
        self.journal = journal
        self.golden = trainer.golden
        self.window = Lock()
        table = trainer.table
        self.fields = {
            (name, field["name"]): field
            for name, register in table.items()
            for field in register["fields"]
        }
        self.holes = sorted(set(range(0, 0x1000, 4)) - {one["address"] for one in table.values()})
        self.told = [
            one["address"]
            for one in table.values()
            if all(field["access"] == "ro" for field in one["fields"])
        ]
        self.readable = [one["address"] for one in table.values() if not one["external"]]
        self.targets = trainer.places
        self.pool = {place: [] for place in self.targets}  # numbers that may be written there
        for layer in range(trainer.layers):
            self.pool[layer, WEIGHTS] = list(self.golden[f"held_{layer}_{WEIGHTS}"])
        self.samples = []  # of the era
        self.counted = [
            0,
            0,
            0,
        ]  # samples, those right, and their loss, of earlier eras, since cleared
        self.dropped = 0
        self.events = set()

    def note(self, *entry):
        self.journal.write(json.dumps(entry) + "\n")

    # The era: from one reset to the next.

    async def begin(self):
        """Forget what was, and write down what the trainer remembers."""
        trainer = self.trainer
        self.samples, self.in_batch = [], 0
        trainer.output.clear()
        held = {}
        async with self.window:
            for layer, target in self.targets:
                numbers = await trainer.read_window(layer, target)
                held[f"{layer} {target}"] = numbers.tolist()
        self.before = await trainer.read("SAMPLES")
        self.note("era", held)

    async def end(self, whole):
        results = [list(result[:-1]) for result in self.trainer.results]
        assert len(results) * self.trainer.result_words == len(self.trainer.output)
        if whole:
            assert len(results) == len(self.samples), "Not each sample has its result"
        for number, ((_, label, last, mode, *_), (predicted, _, loss, _, seen_last)) in enumerate(
            zip(self.samples, results, strict=False), 1
        ):
            # A reset cuts the packet of results, too, if it comes before the end of one.
            assert seen_last == last or (seen_last and not whole and number == len(results))
            self.counted[0] += 1
            self.counted[1] += mode != INFER and predicted == label
            self.counted[2] += loss
        saturated = None
        if whole:
            saturated = {
                name: await self.trainer.read(name)
                for name in self.trainer.table
                if name.startswith("SATURATED_")
            }
        self.note("end", results, whole, saturated)

    # Settings.

    async def defaults(self):
        """What registers hold after a hard reset."""
        table = self.trainer.table
        self.held = {
            name: {field["name"]: field["reset"] for field in table[name]["fields"]}
            for name in ("PACKET", "BATCH", "RATE", "FROZEN", "INTERRUPTS", *_OPTIONAL)
            if name in table
        }
        self.mode = 0
        self.counted, self.dropped, self.events = [0, 0, 0], 0, set()

    async def write(self, name, **values):
        await self.trainer.write(name, **values)
        self.held[name] = values

    async def settings(self, rng):
        trainer = self.trainer
        await trainer.sent()  # they hold for samples whose last word comes from now on
        self.mode = rng.choice([0, 1, TRAIN, TRAIN, TRAIN, TRAIN])
        await trainer.write("CONTROL", run=1, mode=self.mode)
        await self.write("PACKET", samples=rng.choice([1, 1, 2, 3, 4]))
        most = self.fields["BATCH", "samples"]["maximum"]
        await self.write("BATCH", samples=rng.choice([1, 1, 2, rng.randint(1, most)]))
        top = self.fields["RATE", "mantissa"]["maximum"]
        shift = self.fields["RATE", "shift"]["maximum"]
        await self.write("RATE", mantissa=rng.randint(0, top), shift=rng.randint(0, shift))
        if self.in_batch == 0:  # the same for all samples of a mini-batch
            frozen = rng.choice([0, 0, rng.getrandbits(trainer.layers)])
            await self.write("FROZEN", layers=frozen)
        for name in _OPTIONAL:
            if name in trainer.table:
                field = self.fields[name, "value"]
                await self.write(name, value=rng.randint(field["minimum"], field["maximum"]))

    # Packets.

    def draw(self, rng):
        """A sample: where its pixels are in the pool, its label, its bytes."""
        number = rng.randrange(len(self.golden["x"]))
        limit = self.trainer.classes if self.mode != INFER else 1 << min(16, 8 * self.trainer.size)
        label = rng.randrange(limit)
        return number, label, self.trainer.sample(self.golden["x"][number], label)

    def counts(self, drawn, last):
        """Write down a sample that counts."""
        number, label, _ = drawn
        held = self.held
        sample = [
            number,
            label,
            last,
            self.mode,
            held["BATCH"]["samples"],
            held["RATE"]["mantissa"],
            held["RATE"]["shift"],
            held["FROZEN"]["layers"],
            {name.lower(): held[name]["value"] for name in _OPTIONAL if name in held},
        ]
        self.samples.append(sample)
        self.note("sample", *sample)
        if self.mode == TRAIN:
            self.in_batch = 0 if self.in_batch + 1 >= sample[4] else self.in_batch + 1

    async def good(self, rng):
        trainer = self.trainer
        for _ in range(rng.randint(1, 4)):
            packet = [self.draw(rng) for _ in range(self.held["PACKET"]["samples"])]
            for drawn in packet:
                self.counts(drawn, drawn is packet[-1])
            data = b"".join(drawn[2] for drawn in packet)
            keep = [1] * len(data)
            spare = trainer.spare_bytes
            if spare and rng.random() < 0.5:  # which no sample needs
                keep[len(data) - rng.randint(1, spare)] = 0
            trainer.send(data, keep)

    async def bad(self, rng):
        trainer, count = self.trainer, self.held["PACKET"]["samples"]
        size, words = trainer.size, trainer.sample_words
        packet = [self.draw(rng) for _ in range(count)]
        data = [drawn[2] for drawn in packet]
        kinds = ["short", "long", "missing", "keep"] + ["label"] * (self.mode != INFER)
        kind, which, keep = rng.choice(kinds), rng.randrange(count), None
        if kind == "short":
            left = rng.randint(1, words - (which == count - 1))
            data = [*data[:which], data[which][: left * size]]
        elif kind == "long":
            which = count - 1
            data.append(bytes(rng.getrandbits(8) for _ in range(size * rng.randint(1, 2 * words))))
        elif kind == "missing":
            which = count - 1
            data += [self.draw(rng)[2] for _ in range(count)]
        elif kind == "keep":
            keep = [1] * (count * words * size)
            needed = words * size - trainer.spare_bytes
            keep[which * words * size + rng.randrange(needed)] = 0
        else:
            label = rng.randint(trainer.classes, (1 << min(16, 8 * size)) - 1)
            data[which] = trainer.sample(self.golden["x"][0], label)
        for number, drawn in enumerate(packet[:which], 1):
            self.counts(drawn, number == which)  # there is no result behind that one
        self.dropped += 1
        self.events.add({"missing": "long"}.get(kind, kind))
        trainer.send(b"".join(data), keep)

    async def reset(self, rng):
        """CONTROL.reset somewhere in a packet, while samples before it are trained with."""
        trainer, count = self.trainer, self.held["PACKET"]["samples"]
        if rng.random() < 0.7:
            await self.good(rng)
        await trainer.sent()
        words = trainer.sample_words
        packet = [self.draw(rng) for _ in range(count)]
        trainer.source.clear_pause_generator()
        trainer.source.pause = False
        start, stop = trainer.words_taken, rng.randrange(count * words + 1)
        trainer.stop_after = start + stop
        trainer.send(b"".join(drawn[2] for drawn in packet))
        if stop == 0:
            trainer.source.pause = True
        await trainer.until(
            lambda: trainer.words_taken >= start + stop and not trainer.offers, "word to stop at"
        )
        await trainer.cycles(rng.choice([0, 1, rng.randrange(30), rng.randrange(600)]))
        taken = trainer.words_taken - start
        whole = taken == count * words
        for drawn in packet[: taken // words]:
            self.counts(drawn, drawn is packet[-1])
        await trainer.write("CONTROL", run=0, mode=self.mode, reset=1)
        self.dropped += taken > 0 and not whole
        trainer.stop_after = None
        trainer.source.pause = False
        if taken:
            await trainer.sent()
        await trainer.quiet()
        await self.end(whole=False)
        await self.begin()
        if not taken:  # the packet has waited outside
            for drawn in packet:
                self.counts(drawn, drawn is packet[-1])
        await trainer.write("CONTROL", run=1, mode=self.mode)
        trainer.source.set_pause_generator(pauses(*self.stalls))

    # Registers.

    async def look(self, rng):
        """Read what the window shows in mid-run."""
        trainer = self.trainer
        layer, target = rng.choice(self.targets)
        async with self.window:
            await trainer.open_window(layer, target)
            done = await trainer.read("SAMPLES") - self.before
            left = await trainer.read("WINDOW_LEFT")
            words = [await trainer.read("WINDOW_DATA") for _ in range(left)]
        numbers = np.array(words, np.uint32).view(np.int32)
        self.pool[layer, target].append(numbers)
        self.note("read", layer, target, done, numbers.tolist())

    async def put(self, rng):
        """Write through the window in mid-run."""
        trainer = self.trainer
        layer, target = rng.choice([place for place in self.targets if self.pool[place]])
        numbers = rng.choice(self.pool[layer, target])
        async with self.window:
            await trainer.open_window(layer, target, write=True)
            done = await trainer.read("SAMPLES") - self.before
            for number in numbers:
                await trainer.write("WINDOW_DATA", number=int(number) & 0xFFFFFFFF)
        self.note("write", layer, target, done, np.asarray(numbers).tolist())

    async def wait(self, rng):
        await self.trainer.cycles(rng.randrange(1000))

    async def stop(self, rng):
        await self.trainer.write("CONTROL", run=0, mode=self.mode)
        await self.wait(rng)
        await self.trainer.write("CONTROL", run=1, mode=self.mode)

    async def meddle(self, rng):
        """Read registers, and try what is refused, without a pause."""
        trainer = self.trainer
        limited = [
            (trainer.table[name]["address"], field["maximum"] + 1 << field["low"])
            for (name, _), field in self.fields.items()
            if field["access"] == "rw" and field["maximum"] < (1 << field["bits"]) - 1
        ]
        window = trainer.table["WINDOW_DATA"]["address"]
        while True:
            await trainer.cycles(rng.randrange(1, 150))
            if rng.random() < 0.5:
                await trainer.read_at(rng.choice(self.readable))
                continue
            tries = [
                lambda: trainer.read_at(rng.choice(self.holes)),
                lambda: trainer.write_at(rng.choice(self.holes), rng.getrandbits(32)),
                lambda: trainer.write_at(rng.choice(self.told), rng.getrandbits(32)),
                lambda: trainer.write_at(*rng.choice(limited)),
                lambda: trainer.read_at(window),
                lambda: trainer.write_at(window, rng.getrandbits(32)),
                lambda: trainer.write("WINDOW", layer=trainer.layers),
                lambda: trainer.write("WINDOW", target=3),
            ]
            async with self.window:
                try:
                    await rng.choice(tries)()
                except Refused:
                    self.events.add("refused")
                else:
                    raise AssertionError("An illegal access was answered by OKAY")

    # One sequence.

    async def play(self, rng):
        trainer = self.trainer
        if rng.random() < 0.2:
            await self.hard_reset()
        self.stalls = rng.choice([0, 0, 0.3, 0.9]), rng.random()
        trainer.source.set_pause_generator(pauses(*self.stalls))
        trainer.sink.set_pause_generator(pauses(rng.choice([0, 0, 0.3, 0.9]), rng.random()))
        await self.settings(rng)
        meddling = cocotb.start_soon(self.meddle(random.Random(rng.random())))
        actions = [self.good] * 4 + [self.bad] * 4 + [self.settings] * 2
        actions += [self.reset, self.look, self.put, self.wait, self.stop]
        for _ in range(rng.randint(4, 8)):
            await rng.choice(actions)(rng)
            if meddling.done():
                meddling.result()
        async with self.window:
            meddling.cancel()
        trainer.source.clear_pause_generator()
        trainer.source.pause = False
        trainer.sink.clear_pause_generator()
        trainer.sink.pause = False
        await trainer.idle()
        await trainer.quiet()
        await self.check(rng)

    async def hard_reset(self):
        await self.end(whole=True)
        await self.trainer.reset()
        await self.defaults()
        await self.begin()

    async def check(self, rng):
        """Compare all that registers tell; write down all that the window shows."""
        trainer = self.trainer
        for name, values in self.held.items():
            expected = sum(
                value << self.fields[name, field]["low"] for field, value in values.items()
            )
            assert await trainer.read(name) == expected, name
        found = await trainer.read("EVENTS")
        events = {
            field["name"]
            for field in trainer.table["EVENTS"]["fields"]
            if found >> field["low"] & 1
        }
        assert events - {"done"} == self.events
        assert not await trainer.read("STATUS")
        for layer, target in self.targets:
            numbers = await trainer.read_window(layer, target)
            self.note("read", layer, target, len(self.samples), numbers.tolist())
        await self.end(whole=True)
        assert await trainer.read("SAMPLES") == self.counted[0]
        assert await trainer.read("CORRECT") == self.counted[1]
        assert await trainer.wide("LOSS") == self.counted[2]
        assert await trainer.read("DROPPED") == self.dropped
        await self.write("INTERRUPTS", **{name: rng.getrandbits(1) for name in events | {"short"}})
        await trainer.cycles(2)
        enabled = {name for name, on in self.held["INTERRUPTS"].items() if on}
        assert bool(trainer.dut.irq.value) == bool(enabled & events)
        await trainer.write_at(trainer.table["EVENTS"]["address"], found)
        self.events = set()
        if rng.random() < 0.5:
            await trainer.write("CONTROL", run=0, mode=self.mode, clear=1)
            self.counted, self.dropped = [0, 0, 0], 0
        # The golden model goes on from where it is; so does the mini-batch.
        self.samples = []
        trainer.output.clear()
        self.before = await trainer.read("SAMPLES")
        self.note("goes on")


@cocotb.test()
async def sequences(dut):
    trainer = Trainer(dut)
    await trainer.reset()
    await trainer.load(0)
    with (handed_over() / "journal.jsonl").open("w") as journal:
        played = _Sequences(trainer, journal)
        await played.defaults()
        await played.begin()
        for number in range(int(os.environ["SEQUENCES"])):
            played.note("sequence", number)
            journal.flush()
            cocotb.log.info(f"sequence {number}")
            await played.play(random.Random(f"{cocotb.RANDOM_SEED} {number}"))
        await played.end(whole=True)
