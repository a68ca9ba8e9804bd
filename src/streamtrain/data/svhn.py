"""Street View House Numbers, cropped digits."""

from io import BytesIO
from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, Dataset, check_labels, read_file

__all__ = ["load_svhn"]


def _read_part(path):
    from scipy.io import loadmat  # late: it takes longer to import than all else here

    content = read_file(path)
    try:
        arrays = loadmat(BytesIO(content))
    except Exception as error:  # the parser fails in any way that foreign bytes lead it to
        raise DataError(f"{path}: expected a whole MATLAB v5 file; {error}") from None
    missing = sorted({"X", "y"} - arrays.keys())
    if missing:
        raise DataError(f"{path}: expected arrays X and y, but there is no {missing[0]}")
    x, y = arrays["X"], arrays["y"]
    if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8:
        raise DataError(
            f"{path}: expected X of (32, 32, 3, N) uint8, but it is {x.shape} {x.dtype}"
        )
    if y.shape != (x.shape[3], 1):
        raise DataError(f"{path}: expected y of ({x.shape[3]}, 1), but it is {y.shape}")
    labels = check_labels(path, y[:, 0], 1, 10) % 10  # label 10 is the digit 0
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), labels


def load_svhn(folder):
    """Load the cropped digits of SVHN ("format 2").

    Reads ``train_32x32.mat`` and ``test_32x32.mat`` in ``folder``. SVHN is for non-commercial use.

    Returns a :class:`Dataset` of uint8 images (samples, 3, 32, 32). The digit 0, which the files
    label 10, has label 0.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    DataError
        If a file is truncated, damaged, or of another format.
    """
    folder = Path(folder)
    return Dataset(
        f"svhn:{folder}",
        *_read_part(folder / "train_32x32.mat"),
        *_read_part(folder / "test_32x32.mat"),
    )
