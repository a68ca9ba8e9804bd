"""Data sets in a NumPy archive."""

import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, Dataset, check_labels, read_file

__all__ = ["load_npz"]

_PARTS = ("train_x", "train_y", "test_x", "test_y")
_KERAS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path):
    """Load a data set from a NumPy archive, as :func:`numpy.savez` writes it.

    Reads ``train_x``, ``train_y``, ``test_x`` and ``test_y``; or ``x_train``, ``y_train``,
    ``x_test`` and ``y_test``, as Keras' ``mnist.npz`` has them. Images are (samples, channels,
    rows, columns), or (samples, rows, columns) of one channel; uint8, or floats from 0 to 1.
    Labels are class indices, (samples,) or (samples, 1). Pickled objects are not read.

    Returns a :class:`Dataset`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is truncated, no archive, or lacks an array; or if an array has another shape or type.
    """
    path = Path(path)
    content = read_file(path)
    try:
        archive = np.load(BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: expected an archive (.npz), but it holds a single array")
        with archive:
            names = _KERAS if "x_train" in archive else _PARTS
            missing = [name for name in names if name not in archive]
            if missing:
                raise DataError(
                    f"{path}: expected arrays {', '.join(names)}, but there is no {missing[0]}; "
                    f"it has {', '.join(archive.files) or 'none'}"
                )
            arrays = [archive[name] for name in names]
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected a whole NumPy archive; {error}") from None
    (train_x, test_x) = (_images(path, names[i], arrays[i]) for i in (0, 2))
    (train_y, test_y) = (_labels(path, names[i], arrays[i]) for i in (1, 3))
    return Dataset(f"npz:{path}", train_x, train_y, test_x, test_y)


def _images(path, name, x):
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise DataError(
            f"{path}: expected {name} of (samples, channels, rows, columns), but it is {x.shape}"
        )
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise DataError(f"{path}: expected {name} of uint8 or floats, but it is {x.dtype}")
    return x


def _labels(path, name, y):
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"{path}: expected {name} of class indices, (samples,) integers, "
            f"but it is {y.shape} {y.dtype}"
        )
    return check_labels(f"{path}, {name}", y, high=None)
