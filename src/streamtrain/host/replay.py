"""A replay buffer: some of what was learnt is shown again, so that it is not forgotten.

The buffer is on the host's side of the stream. The hardware sees more samples, and no other kind.
"""

from bisect import insort
from collections import deque
from copy import deepcopy
from dataclasses import replace
from itertools import islice

import numpy as np

from streamtrain.checks import checked_integer
from streamtrain.tables import Shown

__all__ = ["Rehearsal", "Replay"]


class Replay(Shown):
    """Samples of the past, as many of each class as there is room for.

    Given to :meth:`~streamtrain.host.trainer.Trainer.fit`, it takes in each new sample behind its
    training step, and each step on new samples is followed by steps on samples drawn from it.

    While there is room, every sample is kept. Then a sample of a class that has never been the
    largest takes the place of a random one of the largest class; any other one takes that of a
    random one of its own class, with the odds that make each sample of that class equally likely
    to be there (class-balancing reservoir sampling: Chrysakis and Moens, "Online Continual Learning
    from Imbalanced Data", ICML 2020, algorithm 1). So rare classes are kept whole, and the others
    are fair samples of all that was seen of them.

    The same seed and the same samples give the same buffer and the same draws.

    Parameters
    ----------
    capacity : :class:`int`
        Most samples that are kept.
    per_step : :class:`int`
        Steps on drawn samples behind each step on new ones; at batch 1, drawn samples for each new
        one. A step draws a mini-batch as large as that of the new samples before it, without
        repetition, every sample in the buffer being equally likely.
    seed : :class:`int`

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If there is no room, or ``per_step`` is negative.
    """

    def __init__(self, capacity, per_step=1, seed=0):
        self.capacity = checked_integer("capacity", capacity, 1)
        self.per_step = checked_integer("per_step", per_step, 0)
        self.seed = checked_integer("seed", seed, 0)
        self._slots = _Slots(self.capacity, self.seed)
        self._x = None
        self._y = np.empty(0, np.int64)

    def __len__(self):
        return len(self._y)

    @property
    def x(self):
        """Kept samples, (samples, channels, rows, columns), of the type that they were given in."""
        return np.empty((0, 0, 0, 0)) if self._x is None else self._x.copy()

    @property
    def y(self):
        """Their labels, int64 (samples,)."""
        return self._y.copy()

    @property
    def seen(self):
        """Samples of each class that have come by, a dictionary by class index."""
        return dict(sorted(self._slots.seen.items()))

    def add(self, x, y):
        """Let samples come by, in order.

        Parameters
        ----------
        x : array (samples, channels, rows, columns)
        y : integer array (samples,)

        Raises
        ------
        TypeError, ValueError
            If shapes, types or numbers do not belong together, or with those before.
        """
        x, y = np.asarray(x), np.asarray(y)
        self._check(x)
        if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(
                f"Labels must be one class index for each of {len(x)} samples, "
                f"not {y.shape} {y.dtype}"
            )
        self._slots.numbers = list(range(-len(self), 0))
        for number, label in enumerate(y.tolist()):
            self._slots.insert(number, label)
        self._take(x)

    def sample(self, count):
        """Draw samples without repetition; all are equally likely.

        Returns images and labels. Raises :exc:`ValueError` if there are not so many.
        """
        if checked_integer("count", count, 1) > len(self):
            raise ValueError(f"{count} samples cannot be drawn from a buffer of {len(self)}")
        self._slots.numbers = list(range(len(self)))
        drawn = self._slots.draw(count)
        return self._x[drawn], self._y[drawn]

    # -- State --------------------------------------------------------------------------------------

    def state_dict(self):
        """All that the buffer holds and knows: arrays, and the state of its random numbers.

        Returns a dictionary with arrays ``"x"``, ``"y"``, ``"seen"`` (class and count in each row)
        and ``"full"`` (classes that have been the largest), numbers ``"capacity"`` and
        ``"per_step"``, and ``"random"``, a dictionary of numbers and strings.
        """
        return {
            "capacity": self.capacity,
            "per_step": self.per_step,
            "x": self.x,
            "y": self.y,
            "seen": np.array(sorted(self._slots.seen.items()), np.int64).reshape(-1, 2),
            "full": np.array(sorted(self._slots.full), np.int64),
            "random": deepcopy(self._slots.rng.bit_generator.state),
        }

    def load_state_dict(self, state):
        """Become the buffer that gave ``state``.

        Raises :exc:`ValueError` if the state is of a buffer of another capacity or with another
        ``per_step``, or is not whole. Nothing is changed then.
        """
        expected = ("capacity", "per_step", "x", "y", "seen", "full", "random")
        missing = [name for name in expected if name not in state]
        if missing:
            raise ValueError(f"State of a replay buffer lacks {missing[0]}")
        for name in ("capacity", "per_step"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"State is of a replay buffer with {name} {state[name]}, "
                    f"but this one's is {getattr(self, name)}"
                )
        x, y = np.array(state["x"]), np.array(state["y"], np.int64)
        if len(x) != len(y) or len(y) > self.capacity:
            raise ValueError(
                f"State of a replay buffer of {self.capacity} has {len(x)} samples "
                f"and {len(y)} labels"
            )
        slots = _Slots(self.capacity, self.seed, y.tolist())
        slots.rng.bit_generator.state = deepcopy(state["random"])
        slots.seen = {int(label): int(count) for label, count in state["seen"]}
        slots.full = {int(label) for label in state["full"]}
        self._slots, self._y, self._x = slots, y, x if len(x) else None

    def table(self):
        """Header and rows: each class, how many samples of it are kept, and how many came by."""
        kept = dict(zip(*np.unique(self._y, return_counts=True), strict=True))
        rows = [(str(label), int(kept.get(label, 0)), count) for label, count in self.seen.items()]
        return ("class", "kept", "seen"), rows

    def _summary(self):
        return f"{len(self):,} of {self.capacity:,} samples"

    # -- What fit needs -----------------------------------------------------------------------------

    def _check(self, x):
        if self._x is not None and (x.shape[1:], x.dtype) != (self._x.shape[1:], self._x.dtype):
            raise ValueError(
                f"Samples are {x.shape[1:]} {x.dtype}, but the replay buffer holds "
                f"{self._x.shape[1:]} {self._x.dtype}"
            )

    def _take(self, x):
        """Keep what the slots say: numbers below 0 are of samples held so far, others of ``x``."""
        numbers = np.array(self._slots.numbers, np.int64)
        images = np.empty((len(numbers), *x.shape[1:]), x.dtype)
        new = numbers >= 0
        images[new] = x[numbers[new]]
        if self._x is not None:
            images[~new] = self._x[numbers[~new]]
        self._x = images if len(numbers) else None
        self._y = np.array(self._slots.labels, np.int64)


class Rehearsal:
    """What a call to ``fit`` trains with: new samples in order, and drawn ones between them.

    All of it is known before the training begins, for it does not depend on what is learnt. Samples
    have numbers: new ones from 0 in the order of training; those in the buffer at the start are
    counted backwards from -1.

    Parameters
    ----------
    replay : :class:`Replay`
    x, y : arrays
        Samples and labels.
    order : int64 array
        Which of them are trained with, one after the other.
    commands : :class:`~streamtrain.host.device.Commands`
        One for each of ``order``. A drawn mini-batch has the settings of the step before it.

    Raises
    ------
    ValueError
        If the buffer holds other samples, or has less room than a mini-batch has samples.
    """

    def __init__(self, replay, x, y, order, commands):
        replay._check(x)
        self._replay, self._x, self._from = replay, x, order
        self._old = replay._x
        self._labels = y[order]
        ends = (np.flatnonzero(commands.update) + 1).tolist()
        self._steps = list(zip([0, *ends], ends, strict=False))
        largest = max(end - first for first, end in self._steps)
        if largest > replay.capacity:
            raise ValueError(
                f"Replay buffer has room for {replay.capacity} samples, "
                f"but a mini-batch has {largest}"
            )
        self._end = deepcopy(replay._slots)
        numbers, settings, new = [], [], []
        for (first, end), drawn in zip(self._steps, self._walk(self._end), strict=True):
            for step in [range(first, end), *drawn]:
                numbers.extend(step)
                settings.extend(range(first, end))
            new.extend([True] * (end - first) + [False] * len(drawn) * (end - first))
        self.order = np.array(numbers, np.int64)
        self.new = np.array(new)
        labels = np.concatenate([self._labels, replay._y])  # where -1 is the buffer's last one
        self.commands = replace(commands[np.array(settings)], label=labels[self.order])

    def __getitem__(self, numbers):
        """Samples by their numbers."""
        x = self._x[self._from[np.maximum(numbers, 0)]]
        old = numbers < 0
        if old.any():
            x[old] = self._old[numbers[old]]
        return x

    def finish(self, done):
        """Let the buffer take in the new ones of the first ``done`` samples."""
        count = int(self.new[:done].sum())
        if not count:
            return
        if done == len(self.order):
            self._replay._slots = self._end
        else:  # once more, until there
            steps = sum(end <= count for _, end in self._steps)
            deque(islice(self._walk(self._replay._slots), steps), maxlen=0)
        self._replay._take(self._x[self._from[:count]])

    def _walk(self, slots):
        """Go through the steps. Yields the numbers that are drawn behind each, a list per step."""
        slots.numbers = list(range(-len(slots), 0))
        for first, end in self._steps:
            count = end - first
            drawn = []
            if len(slots) >= count:
                drawn = [slots.draw(count) for _ in range(self._replay.per_step)]
            for number in range(first, end):
                slots.insert(number, int(self._labels[number]))
            yield drawn


class _Slots:
    """Which sample is in which place: its number and label, and all that decides who goes."""

    def __init__(self, capacity, seed, labels=()):
        self.capacity = capacity
        self.rng = np.random.default_rng(seed)
        self.numbers = []
        self.labels = list(labels)
        self.seen = {}  # samples of each class that came by
        self.full = set()  # classes that have been the largest
        self._places = {}  # of each class, in order
        for place, label in enumerate(self.labels):
            self._places.setdefault(label, []).append(place)

    def __len__(self):
        return len(self.labels)

    def draw(self, count):
        """Numbers of ``count`` samples."""
        return [self.numbers[place] for place in self.rng.choice(len(self), count, replace=False)]

    def insert(self, number, label):
        """Let a sample come by."""
        self.seen[label] = self.seen.get(label, 0) + 1
        own = self._places.setdefault(label, [])
        if len(self) < self.capacity:
            own.append(len(self))
            self.numbers.append(number)
            self.labels.append(label)
            return
        most = max(map(len, self._places.values()))
        largest = sorted(kept for kept, places in self._places.items() if len(places) == most)
        self.full.update(largest)
        if label not in self.full:
            loser = largest[self.rng.integers(len(largest))]
        elif self.rng.random() * self.seen[label] < len(own):
            loser = label
        else:
            return
        places = self._places[loser]
        place = places.pop(self.rng.integers(len(places)))
        insort(own, place)
        self.numbers[place], self.labels[place] = number, label
