"""The golden model follows what a bench wrote down."""

import json

import numpy as np

from streamtrain.build.handover import held_by
from streamtrain.bus.window import Target
from streamtrain.golden import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.host.packing import stage_weights, unpack_states

__all__ = ["Follower", "follow"]


class Follower:
    """Go through a journal of ``sim/test_sequences.py``, and compare.

    Attributes
    ----------
    samples, results, reads, writes, resets : :class:`int`
        How many were compared.
    """

    def __init__(self, plan, x):
        self.plan = plan
        self.x = x
        self.sequence = None
        self.samples = self.results = self.reads = self.writes = self.resets = 0

    def take(self, entry):
        what, *rest = entry
        {
            "sequence": self._sequence,
            "era": self._era,
            "sample": self._sample,
            "read": self._read,
            "write": self._write,
            "end": self._end,
            "goes on": self._go_on,
        }[what](*rest)

    def _sequence(self, number):
        self.sequence = number

    def _era(self, held):
        self.golden = Golden(self.plan)
        self._put({
            tuple(map(int, place.split())): np.array(numbers) for place, numbers in held.items()
        })
        self._in_batch = 0
        self._waiting, self._done = [], []
        self.resets += 1

    def _go_on(self):
        self._waiting, self._done = [], []

    def _sample(self, *sample):
        self._waiting.append(sample)
        self.samples += 1

    def _advance(self, count):
        """Process samples of the era up to so many."""
        while len(self._done) < count:
            number, label, _, mode, batch, mantissa, shift, frozen, more = self._waiting[
                len(self._done)
            ]
            update = mode == Op.TRAIN and self._in_batch + 1 >= batch
            if mode == Op.TRAIN:
                self._in_batch = 0 if update else self._in_batch + 1
            fields = {
                "op": mode,
                "label": 0 if mode == Op.INFER else label,
                "update": int(update),
                "mantissa": mantissa,
                "shift": shift,
                "frozen": frozen,
                **more,
            }
            command = Commands(**{name: np.array([value]) for name, value in fields.items()})
            found = self.golden.run(self.x[number : number + 1], command)
            self._done.append((
                int(found.predicted[0]),
                int(found.loss[0]),
                found.scores[0].tolist(),
            ))

    def _read(self, layer, target, count, numbers):
        self._advance(count)
        expected = held_by(self.plan, self.golden)[layer, target].tolist()
        if numbers != expected:
            wrong = next(
                n for n, both in enumerate(zip(numbers, expected, strict=True)) if len({*both}) > 1
            )
            raise AssertionError(
                f"Sequence {self.sequence}, after {count} samples: number {wrong} of layer {layer}, "
                f"{Target(target).name}, is {numbers[wrong]}, the golden model's {expected[wrong]}"
            )
        self.reads += 1

    def _write(self, layer, target, count, numbers):
        self._advance(count)
        self._put({(layer, target): np.array(numbers)})
        self.writes += 1

    def _end(self, results, whole, saturated):
        if whole:
            self._advance(len(self._waiting))
        self._advance(len(results))
        for number, (predicted, label, loss, scores, last) in enumerate(results):
            _, own, own_last, mode, *_ = self._waiting[number]
            where = f"Sequence {self.sequence}, sample {number}"
            assert (predicted, loss, scores) == self._done[number], where
            cut = not whole and number == len(results) - 1  # by a reset
            assert last == own_last or (last and cut), where
            assert label == own or mode == Op.INFER, where
            self.results += 1
        if saturated is not None:
            expected = {
                f"SATURATED_{stage}_{site}".upper(): count
                for stage, sites in self.golden.saturations().items()
                for site, count in sites.items()
            }
            assert saturated == expected, f"Sequence {self.sequence}"

    def _put(self, held):
        """Give the golden model what the window wrote."""
        weights, velocities = self.golden.read_weights(), self.golden.read_optimizer()
        for (layer, target), numbers in held.items():
            if target == Target.RANDOM:
                self.golden.write_random(unpack_states(self.plan, numbers))
                continue
            stage = self.plan.stages[layer]
            weight, bias = stage_weights(stage, numbers.reshape(stage.words, -1))
            tensors, suffix = (
                (velocities, ".velocity") if target == Target.VELOCITIES else (weights, "")
            )
            tensors[f"{stage.name}.weight{suffix}"] = weight
            if bias is not None:
                tensors[f"{stage.name}.bias{suffix}"] = bias
        self.golden.write_weights(weights)
        self.golden.write_optimizer(velocities)


def follow(plan, x, journal):
    """Compare a journal. Returns the :class:`Follower`."""
    follower = Follower(plan, x)
    with journal.open() as lines:
        for line in lines:
            follower.take(json.loads(line))
    return follower
