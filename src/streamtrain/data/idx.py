"""MNIST and its relatives, in IDX files."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, Dataset, check_labels, read_file

__all__ = ["load_mnist", "read_idx"]

_UNSIGNED_BYTES = 0x08  # the third byte of the magic number; the fourth counts dimensions


def read_idx(path, dimensions):
    """Read an IDX file of unsigned bytes, plain or compressed (by its ``.gz`` suffix).

    Parameters
    ----------
    path : path
    dimensions : :class:`int`
        How many the array must have: 1 for labels, 3 for images.

    Returns a uint8 array.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the file is truncated, too long, damaged, or of another format.
    """
    path = Path(path)
    content = read_file(path)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: expected a whole gzip file; {error}") from None
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(
            f"{path}: an IDX header of {dimensions} dimensions has {header} bytes, "
            f"but the file has {len(content)}"
        )
    expected = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if content[:4] != expected:
        raise DataError(
            f"{path}: expected an IDX file of unsigned bytes in {dimensions} dimensions "
            f"(it begins {expected.hex(' ')}), but it begins {content[:4].hex(' ')}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    size = int(np.prod(shape, dtype=object))
    if len(content) - header != size:
        raise DataError(
            f"{path}: the header promises {' x '.join(map(str, shape))} = {size:,} bytes, "
            f"but {len(content) - header:,} follow"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _either(folder, name):
    plain = Path(folder) / name
    return plain if plain.is_file() else plain.with_name(f"{name}.gz")


def load_mnist(folder):
    """Load MNIST, or a set in the same files such as Fashion-MNIST.

    Reads ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte`` in ``folder``, each plain or as ``.gz``.

    Returns a :class:`Dataset` of uint8 images (samples, 1, rows, columns).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    DataError
        If a file is truncated, damaged, or of another format, or a label is above 9.
    """
    arrays = []
    for part in ("train", "t10k"):
        arrays.append(read_idx(_either(folder, f"{part}-images-idx3-ubyte"), 3)[:, None])
        path = _either(folder, f"{part}-labels-idx1-ubyte")
        arrays.append(check_labels(path, read_idx(path, 1)))
    return Dataset(f"mnist:{folder}", *arrays)
