"""A folder that is there as a whole, or not at all."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MANIFEST", "output_folder"]

MANIFEST = "manifest.json"
"""File that lists what a build wrote; a folder with it may be replaced by the next build."""


def _listed(out):
    """Files that the manifest of ``out`` lists; None if there is no manifest of ours."""
    try:
        manifest = json.loads((out / MANIFEST).read_text())
        return set(manifest["files"]) if manifest["made_by"] == "streamtrain" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_replaceable(out):
    if Path.cwd().is_relative_to(out):
        raise ValueError(f"Output folder {out} holds the current folder; name one inside it")
    if not out.exists():
        return
    if out.is_mount():
        raise ValueError(f"Output folder {out} is a mount point; name a folder inside it")
    if not out.is_dir():
        raise ValueError(f"Output must be a folder, but {out} is a file")
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
    if not found:
        return
    listed = _listed(out)
    if listed is None:
        raise ValueError(
            f"Output folder {out} is not empty and was not made by streamtrain (it has no "
            f"{MANIFEST} of ours); name another, or empty it"
        )
    foreign = [name for name in found if name != MANIFEST and name not in listed]
    if foreign:
        raise ValueError(
            f"Output folder {out} also holds what streamtrain did not write, such as {foreign[0]}; "
            f"move it, or name another folder"
        )


@contextmanager
def output_folder(out):
    """A folder to fill that becomes ``out`` when the block ends.

    Until then it is ``OUT.partial-PID`` beside it. When the block fails or is interrupted, it is
    removed, and what was at ``out`` stays. An earlier build at ``out`` is replaced.

    Raises
    ------
    ValueError
        Before the block, if ``out`` cannot be written, is a file, holds the current folder, or
        holds files that no manifest of ours lists.
    """
    out = Path(out).resolve()
    try:
        _check_replaceable(out)
        partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
        replaced = out.with_name(f"{out.name}.replaced-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"Cannot write to {out.parent}: {error.strerror}") from None
    try:
        yield partial
        _check_replaceable(out)
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    finally:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
