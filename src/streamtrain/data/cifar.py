"""CIFAR-10, in its binary and in its Python version."""

from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, Dataset, check_labels, read_file
from streamtrain.data.pickles import read_pickle

__all__ = ["load_cifar10"]

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32  # the red, green and blue planes
_RECORD = 1 + _PIXELS


def _read_binary(path):
    content = read_file(path)
    if not content or len(content) % _RECORD:
        raise DataError(
            f"{path}: expected whole records of {_RECORD:,} bytes (a label and 3 x 32 x 32 "
            f"pixels), but {len(content):,} bytes are {len(content) // _RECORD:,} records "
            f"and {len(content) % _RECORD:,} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, *_SHAPE), check_labels(path, records[:, 0])


def _read_python(path):
    batch = read_pickle(path)
    if not isinstance(batch, dict):
        raise DataError(f"{path}: expected a dictionary, but it holds a {type(batch).__name__}")
    # Python 3 writes the keys of a batch that it has read with encoding="bytes" as bytes.
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: batch[key] for key in batch}
    missing = [key for key in ("data", "labels") if key not in batch]
    if missing:
        raise DataError(
            f"{path}: expected data and labels, but there is no {missing[0]}; "
            f"it has {', '.join(map(str, batch)) or 'nothing'}"
        )
    x, labels = batch["data"], batch["labels"]
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[1:] != (_PIXELS,):
        found = f"{x.shape} {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(f"{path}: expected data of (N, {_PIXELS}) uint8, but it is {found}")
    if not isinstance(labels, list) or len(labels) != len(x):
        found = f"one of {len(labels):,}" if isinstance(labels, list) else type(labels).__name__
        raise DataError(f"{path}: expected a list of {len(x):,} labels, but it is {found}")
    if not all(isinstance(label, int) for label in labels):
        raise DataError(f"{path}: expected labels that are integers")
    return x.reshape(-1, *_SHAPE), check_labels(path, labels)


def load_cifar10(folder):
    """Load CIFAR-10 from its binary or its Python version, whichever is in ``folder``.

    Reads ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``; or, if there is no
    ``data_batch_1.bin`` but a ``data_batch_1``, the files without ``.bin``, which are pickles.
    Pickles are read without executing anything in them. Files with fewer than the published 10,000
    records are fine, as long as the records are whole.

    Returns a :class:`Dataset` of uint8 images (samples, 3, 32, 32).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    DataError
        If a file does not consist of whole records, or a label is above 9; or if a pickle asks for
        anything but plain data and NumPy arrays.
    """
    folder = Path(folder)
    python = not (folder / "data_batch_1.bin").exists() and (folder / "data_batch_1").exists()
    read, suffix = (_read_python, "") if python else (_read_binary, ".bin")
    parts = [read(folder / f"data_batch_{number}{suffix}") for number in range(1, 6)]
    images, labels = zip(*parts, strict=True)
    test_x, test_y = read(folder / f"test_batch{suffix}")
    return Dataset(
        f"cifar10:{folder}", np.concatenate(images), np.concatenate(labels), test_x, test_y
    )
