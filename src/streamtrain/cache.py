"""Results that are costly to make, kept by the content they were made from.

The key of a result hashes everything that it depends on, tool versions included, so nothing in the
cache is ever out of date; the folder may be deleted at any time.
"""

import os
import sys
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp

__all__ = ["CacheWarning", "cache_dir", "content_key", "keep", "unkept", "write_atomic"]

_collected = ContextVar("collected", default=None)  # of an `unkept` block


class CacheWarning(UserWarning):
    """A result could not be kept; it will be made again when it is wanted again."""


def _user_folder():
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def cache_dir(*parts):
    """Folder for cached results, made if it is not there.

    ``STREAMTRAIN_CACHE`` names the folder; without it, it is ``streamtrain`` in the user's cache
    folder, such as ``~/.cache``. ``parts`` are folders below it.

    Raises :exc:`OSError` if the folder cannot be made.
    """
    root = os.environ.get("STREAMTRAIN_CACHE")
    folder = (Path(root) if root else _user_folder() / "streamtrain").joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"Cannot make the cache folder {folder} ({error.strerror}); "
            f"set STREAMTRAIN_CACHE to a folder that can be written"
        ) from None
    return folder


def content_key(*parts):
    """Hash of ``parts`` (:class:`str` or :class:`bytes`) and of where each of them ends."""
    digest = sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode()
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def write_atomic(path, content, *, durable=False):
    """Write ``content`` (:class:`str` or :class:`bytes`); no reader ever sees a part of it.

    If ``durable``, what was there or what is written survives even a power failure. A process that
    is killed may leave ``.NAME.partial``, which the next one writes over: there should be one at a time.

    Raises :exc:`OSError` if it cannot be written, and leaves nothing then.
    """
    path = Path(path)
    if isinstance(content, str):
        content = content.encode()
    if durable:
        handle = partial = path.with_name(f".{path.name}.partial")
    else:
        handle, partial = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:  # a full disk may show only when it is closed
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    if durable and os.name == "posix":  # the folder's entry, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def keep(path, content):
    """:func:`write_atomic` for what is only kept to save time.

    Where it cannot be written, on a full disk for one, a :class:`CacheWarning` says so; the work
    goes on.
    """
    try:
        write_atomic(path, content)
    except OSError as error:
        reason = (
            f"Results cannot be kept in {Path(path).parent} ({error.strerror}); they will be made "
            f"again the next time (STREAMTRAIN_CACHE names another folder)"
        )
        if (collected := _collected.get()) is None:
            warnings.warn(CacheWarning(reason), stacklevel=3)
        else:
            collected.append(reason)


@contextmanager
def unkept():
    """Collect what :func:`keep` would warn of within a ``with`` block, in this thread: a list."""
    token = _collected.set(found := [])
    try:
        yield found
    finally:
        _collected.reset(token)
