"""A folder that is there as a whole, or not at all."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BOOKKEEPING", "MANIFEST", "output_folder"]

BOOKKEEPING = ".build"
"""Folder in a build for what its steps leave to each other."""

MANIFEST = "manifest.json"
"""File that lists what a build wrote; a folder with it may be replaced by the next build."""


_WORKPLACES = ("ip", "vivado")
"""Folders of a build in which other tools work: Vivado, and simulators. What they leave there is kept."""


def _listed(out):
    """Files that the manifest of ``out`` lists; None if there is no manifest of ours."""
    try:
        manifest = json.loads((out / MANIFEST).read_text())
        return set(manifest["files"]) if manifest["made_by"] == "streamtrain" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_replaceable(out):
    """Files at ``out`` that the next build keeps; raises :exc:`ValueError` if it may not replace the others."""
    if Path.cwd().is_relative_to(out):
        raise ValueError(f"Output folder {out} holds the current folder; name one inside it")
    if not out.exists():
        return []
    if out.is_mount():
        raise ValueError(f"Output folder {out} is a mount point; name a folder inside it")
    if not out.is_dir():
        raise ValueError(f"Output must be a folder, but {out} is a file")
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
    if not found:
        return []
    listed = _listed(out)
    if listed is None:
        raise ValueError(
            f"Output folder {out} is not empty and was not made by streamtrain (it has no "
            f"{MANIFEST} of ours); name another, or empty it"
        )
    foreign = [name for name in found if name != MANIFEST and name not in listed]
    lost = [name for name in foreign if name.partition("/")[0] not in _WORKPLACES]
    if lost:
        raise ValueError(
            f"Output folder {out} also holds what streamtrain did not write, such as {lost[0]}; "
            f"move it, or name another folder"
        )
    return foreign


def _keep(names, replaced, out):
    """Move files that others made to the new build, where it has none of that name."""
    for name in names:
        if not (out / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (replaced / name).rename(out / name)


def _claim(partial, out):
    """Make the folder this process's own.

    Raises :exc:`ValueError` if another process that is alive has it.
    """
    lock = partial.with_name(f"{partial.name}.pid")
    try:
        with open(lock, "x", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        other = lock.read_text(encoding="utf-8").strip()
        if other.isdecimal() and int(other) != os.getpid() and _alive(int(other)):
            raise ValueError(
                f"Another build (process {other}) is writing to {out}; name another folder, or wait"
            ) from None
        lock.write_text(str(os.getpid()), encoding="utf-8")
    return lock


def _alive(process):
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def output_folder(out):
    """A folder to fill that becomes ``out`` when the block ends.

    Until then it is ``OUT.partial`` beside it. When the block fails or is interrupted, what was at
    ``out`` stays; so does what the block made, if a :class:`~streamtrain.build.state.BuildState` says that
    something can go on from there: the next block finds it in its folder. An earlier build at ``out`` is
    replaced; what other tools left in its ``ip`` and ``vivado`` stays.

    Raises
    ------
    ValueError
        Before the block, if ``out`` cannot be written, is a file, holds the current folder, or
        holds files elsewhere that no manifest of ours lists; or another process is at it.
    """
    out = Path(out).resolve()
    try:
        _check_replaceable(out)
        partial = out.with_name(f"{out.name}.partial")
        replaced = out.with_name(f"{out.name}.replaced-{os.getpid()}")
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Cannot write to {out.parent}: {error.strerror}") from None
    lock, kept = _claim(partial, out), []
    try:
        yield partial
        kept = _check_replaceable(out)
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    finally:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        if replaced.exists():
            _keep(kept, replaced, out)
        lock.unlink(missing_ok=True)
        if not (partial / BOOKKEEPING / "state.json").exists():
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
