"""What every reader returns, and the names under which a command line asks for it."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from streamtrain.tables import html_table

__all__ = ["DataError", "Dataset", "check_labels", "load", "read_file"]

_READERS = {
    "mnist": ("DIR", "streamtrain.data.idx", "load_mnist"),
    "cifar10": ("DIR", "streamtrain.data.cifar", "load_cifar10"),
    "svhn": ("DIR", "streamtrain.data.svhn", "load_svhn"),
    "npz": ("FILE", "streamtrain.data.npz", "load_npz"),
    "images": ("DIR", "streamtrain.data.images", "load_images"),
    "digits": ("", "streamtrain.data.digits", "load_digits"),
}
"""What each name needs, and the function that reads it."""


class DataError(ValueError):
    """A file is not what its name promises: truncated, damaged, or of another format."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, in the order of their files.

    Parameters
    ----------
    source : :class:`str`
        What :func:`load` takes for the same data, such as ``mnist:data/mnist``.
    train_x, test_x : array, (samples, channels, rows, columns)
        uint8, 0 to 255; or floats, 0 to 1.
    train_y, test_y : int64 array, (samples,)
        Class indices.
    classes : tuple of :class:`str`
        Names of the classes by index, where the files have names for them.

    Raises
    ------
    DataError
        If images of the two parts differ in shape, or there is not one label for each.
    """

    source: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple = ()

    def __post_init__(self):
        for part, x, y in (
            ("training", self.train_x, self.train_y),
            ("test", self.test_x, self.test_y),
        ):
            if len(x) != len(y):
                raise DataError(f"{self.source} has {len(x)} {part} images, but {len(y)} labels")
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise DataError(
                f"{self.source} has training images {self.train_x.shape[1:]}, "
                f"but test images {self.test_x.shape[1:]}"
            )

    @property
    def shape(self):
        """(channels, rows, columns) of one image."""
        return self.train_x.shape[1:]

    def table(self):
        """Header and rows of a summary: part, images, shape, type."""
        shape = "x".join(map(str, self.shape))
        rows = [
            (part, len(x), shape, str(x.dtype))
            for part, x in (("train", self.train_x), ("test", self.test_x))
        ]
        return (self.source, "images", "shape", "type"), rows

    def _repr_html_(self):
        return html_table(*self.table())


def load(source):
    """Load a data set by name.

    Parameters
    ----------
    source : :class:`str`
        ``mnist:DIR``, ``cifar10:DIR``, ``svhn:DIR``, ``npz:FILE``, ``images:DIR``, or ``digits``
        (which needs no files).

    Raises
    ------
    ValueError
        If ``source`` is none of these.
    FileNotFoundError
        If a file is missing.
    DataError
        If a file is truncated, damaged, or of another format.
    """
    name, colon, path = source.partition(":")
    if name not in _READERS:
        forms = (f"{known}:{needs}" if needs else known for known, (needs, *_) in _READERS.items())
        raise ValueError(f"Data must be one of {', '.join(forms)}, not {source!r}")
    needs, module, function = _READERS[name]
    if colon and not needs:
        raise ValueError(f"digits come with scikit-learn and take no directory, not {source!r}")
    if needs and not path:
        what = "a file" if needs == "FILE" else "the directory of its files"
        raise ValueError(f"{name} needs {what}, {name}:{needs}, not {source!r}")
    reader = getattr(import_module(module), function)
    return reader(path) if needs else reader()


def read_file(path):
    """Bytes of a file. Raises :exc:`FileNotFoundError` that says what the folder has instead."""
    path = Path(path)
    if not path.is_file():
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent} is no directory; expected {path.name} in it")
        others = sorted(other.name for other in path.parent.iterdir())
        found = ", ".join(others[:6]) + (", ..." if len(others) > 6 else "")
        raise FileNotFoundError(
            f"{path} does not exist; {path.parent} has {found if others else 'no files'}"
        )
    return path.read_bytes()


def check_labels(path, labels, low=0, high: int | None = 9):
    """Labels as int64. Raises :exc:`DataError` for one outside ``low`` to ``high``, if that is given."""
    labels = np.asarray(labels)
    above = np.iinfo(np.int64).max if high is None else high
    wrong = np.flatnonzero((labels < low) | (labels > above))
    if len(wrong):
        allowed = f"at least {low}" if high is None else f"{low} to {high}"
        raise DataError(
            f"{path}: label of record {wrong[0]} is {labels[wrong[0]]}, but labels are {allowed}"
        )
    return labels.astype(np.int64)
