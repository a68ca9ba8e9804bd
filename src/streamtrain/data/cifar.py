"""CIFAR-10, in its binary version."""

from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, Dataset, check_labels, read_file

__all__ = ["load_cifar10"]

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def _read_batch(path):
    content = read_file(path)
    if not content or len(content) % _RECORD:
        raise DataError(
            f"{path}: expected whole records of {_RECORD:,} bytes (a label and 3 x 32 x 32 "
            f"pixels), but {len(content):,} bytes are {len(content) // _RECORD:,} records "
            f"and {len(content) % _RECORD:,} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, *_SHAPE), check_labels(path, records[:, 0])


def load_cifar10(folder):
    """Load CIFAR-10 from its binary version.

    Reads ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin`` in ``folder``. Files
    with fewer than the published 10,000 records are fine, as long as the records are whole.

    Returns a :class:`Dataset` of uint8 images (samples, 3, 32, 32).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    DataError
        If a file does not consist of whole records, or a label is above 9.
    """
    folder = Path(folder)
    parts = [_read_batch(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    images, labels = zip(*parts, strict=True)
    test_x, test_y = _read_batch(folder / "test_batch.bin")
    return Dataset(
        f"cifar10:{folder}", np.concatenate(images), np.concatenate(labels), test_x, test_y
    )
