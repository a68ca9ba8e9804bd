"""Checkpoints: all that training goes on from, in one file.

A checkpoint is taken between two mini-batches. It holds the stored weights, what the optimiser remembers,
the states of the random bits, and what has been counted. Training that goes on from one, in software
or in hardware, gives the same bits as training that was never interrupted.

The file is a zip archive of NumPy arrays and a JSON header, which ``numpy.load`` reads as well. Its
comment, the last 64 bytes, is the SHA-256 of all that is before it. The same state gives the same bytes.
"""

import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np

from streamtrain.cache import content_key, write_atomic

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Progress",
    "check_place",
    "check_same",
    "described",
    "digest",
    "load_checkpoint",
    "write_checkpoint",
]

VERSION = 1
_KIND = "streamtrain checkpoint"
_HEADER = "header.json"
_DIGEST = 64  # bytes at the end of the file
_TENSORS = ("weights", "optimizer")
_LISTED = 8  # differences that a message has room for


class CheckpointError(ValueError):
    """A file is no whole checkpoint, or one of something else."""


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a call of ``fit`` has come.

    Parameters
    ----------
    settings : dict
        Its arguments, as JSON has them, by what they are called in messages.
    digest : :class:`str`
        Of the order of its samples and their commands, up to here.
    losses : float64 array, (samples,)
    predicted : int64 array, (samples,)
    cycles : int64 array, (samples,), optional
    """

    settings: dict
    digest: str
    losses: np.ndarray
    predicted: np.ndarray
    cycles: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Parameters
    ----------
    design : dict
        What a design must have in common with that of the checkpoint: network, formats, rounding.
    weights, optimizer : dict of arrays
        As ``state_dict()`` gives them, and what the optimiser remembers.
    random : dict of :class:`int`
        States of the random bits of stochastic rounding, such as ``"conv1.weights"``.
    saturations : dict
        Numbers saturated so far, as ``saturations()`` gives them.
    samples, updates : :class:`int`
        Samples trained with so far, and updates of the weights.
    fit : :class:`Progress`, optional
        The call of ``fit`` that was under way.
    """

    design: dict
    weights: dict
    optimizer: dict
    random: dict
    saturations: dict
    samples: int
    updates: int
    fit: Progress | None = None


def described(plan, *, reals=False):
    """What training depends on, besides samples and settings, by the words of a message.

    Parameters
    ----------
    plan : :class:`~streamtrain.host.device.TrainablePlan`
    reals : :class:`bool`
        Whether the device is a float twin.
    """
    network = json.loads(plan.network.to_json())
    whole = {
        "core": plan.core,
        "numbers": "real" if reals else "integer codes",
        "input shape": network["input_shape"],
        "loss": network["loss"].pop("kind"),
        **network["loss"],
        "optimizer": network["optimizer"].pop("kind"),
        **network["optimizer"],
        "layers": [layer["name"] for layer in network["layers"]],
    }
    facts = {"the network": whole}  # no layer's name
    for layer in network["layers"]:
        facts[layer.pop("name")] = layer
    for name, own in plan.layer_facts().items():
        facts[name] |= own
    return facts


def check_same(path, design, found):
    """Raise :exc:`CheckpointError`, with the differences, if a checkpoint is of another design.

    Parameters
    ----------
    path : path
        Of the checkpoint.
    design, found : dict
        As :func:`described` gives them: of the trainer, and of the checkpoint.
    """
    if content_key(json.dumps(design)) == content_key(json.dumps(found)):
        return
    different = []
    for part in dict.fromkeys((*design, *found)):
        ours, theirs = design.get(part), found.get(part)
        if ours is None or theirs is None:
            different.append(
                f"{part}: only in {'the checkpoint' if ours is None else 'this design'}"
            )
            continue
        for field in dict.fromkeys((*ours, *theirs)):
            if ours.get(field) != theirs.get(field):
                different.append(
                    f"{part}: {field} {_text(ours.get(field))}, checkpoint has {_text(theirs.get(field))}"
                )
    more = len(different) - _LISTED
    shown = "; ".join(different[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
    raise CheckpointError(f"{path} is a checkpoint of something else. {shown}")


def _text(value):
    if isinstance(value, list):
        return (
            "x".join(map(str, value))
            if all(isinstance(v, int) for v in value)
            else ", ".join(value)
        )
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def digest(*arrays):
    """Hash of arrays: their types, shapes and elements."""
    found = sha256()
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.dtype.str} {array.shape};".encode())
        found.update(array.data.cast("B") if array.size else b"")
    return found.hexdigest()


def check_place(path):
    """Raise :exc:`OSError` if there can be no checkpoint at ``path``."""
    path = Path(path)
    if path.is_dir():
        raise OSError(f"Cannot write checkpoint {path}: it is a folder")
    if not path.absolute().parent.is_dir():
        raise OSError(f"Cannot write checkpoint {path}: there is no folder {path.parent}")


def write_checkpoint(path, checkpoint):
    """Write a :class:`Checkpoint`: all of it, or what was there before stays.

    Raises :exc:`OSError` if it cannot be written.
    """
    check_place(path)
    header = {
        "kind": _KIND,
        "version": VERSION,
        "design_hash": content_key(json.dumps(checkpoint.design)),
        "design": checkpoint.design,
        "samples": checkpoint.samples,
        "updates": checkpoint.updates,
        "random": checkpoint.random,
        "saturations": checkpoint.saturations,
        "fit": None,
    }
    arrays = {
        f"{kind}/{name}": codes
        for kind in _TENSORS
        for name, codes in sorted(getattr(checkpoint, kind).items())
    }
    if (fit := checkpoint.fit) is not None:
        header["fit"] = {"settings": fit.settings, "digest": fit.digest}
        for name in ("losses", "predicted", "cycles"):
            if getattr(fit, name) is not None:
                arrays[f"fit/{name}"] = getattr(fit, name)
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = bytes(_DIGEST)
        archive.writestr(_member(_HEADER), json.dumps(header, indent=1))
        for name, array in arrays.items():
            part = BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), part.getvalue())
    body = content.getvalue()[:-_DIGEST]
    try:
        write_atomic(path, body + sha256(body).hexdigest().encode(), durable=True)
    except OSError as error:
        raise OSError(f"Cannot write checkpoint {path}: {error.strerror}") from None


def _member(name):
    """A member of the archive that does not tell when it was written."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def load_checkpoint(path):
    """Read a checkpoint.

    Parameters
    ----------
    path : path
        What :meth:`~streamtrain.Trainer.save` or ``fit(..., checkpoint=path)`` wrote.

    Returns a :class:`Checkpoint`.

    Raises
    ------
    OSError
        If the file cannot be read.
    CheckpointError
        If it is no checkpoint, a truncated or damaged one, or of another version.
    """
    content = Path(path).read_bytes()
    if not content.startswith(b"PK"):
        raise CheckpointError(f"{path} is no checkpoint")
    body = content[:-_DIGEST]
    if sha256(body).hexdigest().encode() != content[-_DIGEST:]:
        raise CheckpointError(
            f"{path} is no whole checkpoint: it was cut off, or changed after it was written"
        )
    with zipfile.ZipFile(BytesIO(content)) as archive:
        names = archive.namelist()
        header = json.loads(archive.read(_HEADER)) if _HEADER in names else {}
        if header.get("kind") != _KIND:
            raise CheckpointError(f"{path} is no checkpoint")
        if header["version"] != VERSION:
            raise CheckpointError(
                f"{path} is a checkpoint of version {header['version']}; "
                f"this release of streamtrain reads version {VERSION}"
            )
        arrays = {
            name.removesuffix(".npy"): np.lib.format.read_array(
                BytesIO(archive.read(name)), allow_pickle=False
            )
            for name in names
            if name.endswith(".npy")
        }

    def part(kind):
        return {
            name.partition("/")[2]: array
            for name, array in arrays.items()
            if name.startswith(f"{kind}/")
        }

    fit = header["fit"]
    if fit is not None:
        fit = Progress(**fit, **{"cycles": None, **part("fit")})
    return Checkpoint(
        design=header["design"],
        weights=part("weights"),
        optimizer=part("optimizer"),
        random=header["random"],
        saturations=header["saturations"],
        samples=header["samples"],
        updates=header["updates"],
        fit=fit,
    )
