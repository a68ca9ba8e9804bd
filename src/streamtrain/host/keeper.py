"""Checkpoints of a call of ``fit``, as it goes."""

from dataclasses import fields
from pathlib import Path

import numpy as np

from streamtrain.host.checkpoint import (
    CheckpointError,
    Progress,
    check_place,
    check_same,
    described,
    digest,
    load_checkpoint,
    write_checkpoint,
)
from streamtrain.host.device import Commands
from streamtrain.host.results import Done

__all__ = ["Keeper"]

_FIRST = "first weights"

_HASHED = {  # settings of which only a hash is kept
    "data": "its samples or labels are others",
    _FIRST: "it began with other weights, and did not stop at those that the trainer has now",
    "replay": "its replay buffer was another one, or not yet as it is now",
}


def digest_of(weights):
    """Hash of all weights."""
    return digest(*(weights[name] for name in sorted(weights)))


class Keeper:
    """Keeps checkpoints of a call of ``fit``, and begins where the last one was taken.

    Parameters
    ----------
    trainer : :class:`Trainer`
    path : path
    every : :class:`int`
        Samples between two checkpoints.
    settings : dict
        Arguments that must not change, by the words of a message.
    order : integer array, (samples,)
    commands : :class:`~streamtrain.host.device.Commands`
        Of all samples, in the order of training.
    """

    def __init__(self, trainer, path, every, settings, order, commands):
        check_place(path)
        self.trainer, self.path, self.every, self.settings = trainer, path, every, settings
        self.order, self.commands = order, commands
        self.restored = 0  # samples that were trained with before this call
        self._kept = 0  # samples at the last checkpoint
        self._gap = None  # cycles to add to those of the device
        self.settings[_FIRST] = digest_of(trainer.device.read_weights())
        self._found = self._fitting() if Path(path).exists() else None

    def _fitting(self):
        """The checkpoint that is there. Raises :exc:`CheckpointError` if it is of another training."""
        found = load_checkpoint(self.path)
        fit = found.fit
        if fit is None:
            raise CheckpointError(
                f"{self.path} was written by save(), not by fit(); load() it, and give fit() another path"
            )
        ours = described(self.trainer.plan, reals=self.trainer._holds_reals())
        check_same(self.path, ours, found.design)
        where = f"{self.path} is a checkpoint of another training"
        if self.settings[_FIRST] == digest_of(found.weights):  # where that training stopped
            self.settings[_FIRST] = fit.settings.get(_FIRST)
        for name, ours in self.settings.items():
            theirs = fit.settings.get(name)
            if ours != theirs:
                if name in _HASHED:
                    raise CheckpointError(f"{where}: {_HASHED[name]}")
                raise CheckpointError(f"{where}: {name} is {ours}, but was {theirs}")
        if len(fit.losses) > len(self.order):
            raise CheckpointError(
                f"{where}: it has come {len(fit.losses):,} samples far, but here are {len(self.order):,}"
            )
        if self._digest(len(fit.losses)) != fit.digest:
            raise CheckpointError(f"{where}: its learning rates or other settings are others")
        return found

    def begin(self, done):
        """Restore the checkpoint that is there, if any. Returns samples that are done."""
        if self._found is None:
            return 0
        trainer, found = self.trainer, self._found
        trainer._restore(self.path, found)
        fit, self._found = found.fit, None
        self._kept = self.restored = len(fit.losses)
        if fit.cycles is not None and getattr(trainer.device, "cycle", None) is not None:
            self._gap = int(fit.cycles[-1]) - trainer.device.cycle
        cycles = None if self._gap is None else fit.cycles
        done.put(slice(0, self._kept), Done(fit.losses, fit.predicted, cycles))
        return self._kept

    def next(self, ends, first):
        """End of the mini-batch after which the next checkpoint is due; ``ends`` has those of all."""
        at = np.searchsorted(ends, max(self._kept + self.every, first + 1))
        return int(ends[min(at, len(ends) - 1)])

    def due(self, end):
        """Whether so many samples ask for a checkpoint."""
        return end >= self._kept + self.every

    def shifted(self, chunk):
        """What came of samples, with the clock going on from the checkpoint."""
        if self._gap is None:
            return chunk
        return Done(chunk.losses, chunk.predicted, chunk.cycles + self._gap)

    def keep(self, done):
        """Write a checkpoint."""
        self._kept = len(done)
        progress = Progress(
            self.settings, self._digest(len(done)), done.losses, done.predicted, done.cycles
        )
        write_checkpoint(self.path, self.trainer._checkpoint(progress))

    def _digest(self, end):
        """Of what the first samples are trained with."""
        commands = self.commands[:end]
        return digest(self.order[:end], *(getattr(commands, f.name) for f in fields(Commands)))
