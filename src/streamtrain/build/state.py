"""What a build has done so far, so that it can go on from there."""

import json
import shutil
from pathlib import Path

from streamtrain.build.folder import BOOKKEEPING
from streamtrain.cache import content_key, write_atomic

__all__ = ["BuildState"]


class BuildState:
    """The finished steps of a build, and the summary that they filled.

    It is kept in the folder that is being made, after each step.

    Parameters
    ----------
    folder, out : :class:`pathlib.Path`
        Where the build is made, and where an earlier one may be.
    steps : tuple of :class:`str`
        All steps, in order.
    configuration : dict
        What the build is made from: one of another configuration does not go on from it.
    """

    def __init__(self, folder, out, steps, configuration):
        self.folder, self.out, self.steps = folder, out, steps
        self._key = content_key(json.dumps(configuration, sort_keys=True))
        self.finished = []
        self.summary = {}
        self.seconds = {}

    @property
    def own(self):
        """Folder for what one step leaves to another, besides what it is for."""
        folder = self.folder / BOOKKEEPING
        folder.mkdir(exist_ok=True)
        return folder

    def begin(self, start=None):
        """Take up what a build has done that was interrupted or stopped; with ``start``, or that is complete.

        Steps from ``start`` on are to be done anew.

        Raises :exc:`ValueError` if the steps before it have not been done.
        """
        if not self._load(self.folder):
            self._empty()
            there = self._load(self.out)
            stopped = self.finished != list(self.steps)
            if there and (stopped if start is None else self.steps.index(start)):
                shutil.copytree(self.out, self.folder, dirs_exist_ok=True)
            else:
                self.finished, self.summary, self.seconds = [], {}, {}
        if start is None:
            return
        before = self.steps[: self.steps.index(start)]
        missing = [step for step in before if step not in self.finished]
        if missing:
            raise ValueError(
                f"There is no build of this design at {self.out} that has finished step {missing[0]!r}: "
                f"start with that one, or without --start"
            )
        self.finished = list(before)
        self.seconds = {step: self.seconds[step] for step in before}

    def _load(self, folder):
        """Read the state of a build; false if there is none, or one of something else."""
        try:
            found = json.loads((folder / BOOKKEEPING / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if found.get("key") != self._key:
            return False
        self.finished, self.summary = found["finished"], found["summary"]
        self.seconds = found["seconds"]
        return True

    def _empty(self):
        for path in self.folder.iterdir():
            if path.is_dir() and path.name != BOOKKEEPING:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()
        (self.folder / BOOKKEEPING / "state.json").unlink(missing_ok=True)

    def finish(self, step, seconds):
        """Say that a step is done."""
        if step not in self.finished:
            self.finished.append(step)
        self.seconds[step] = seconds
        if step == "plan":  # which costs nothing
            return
        found = {
            "key": self._key,
            "finished": self.finished,
            "summary": self.summary,
            "seconds": self.seconds,
        }
        write_atomic(Path(self.own) / "state.json", json.dumps(found, indent=2))
