"""Image files, in a folder for each class."""

from operator import index
from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, Dataset

__all__ = ["load_images"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_TEST_EVERY = 5  # of a class's images, where there is no test folder


def load_images(folder, size=None):
    """Load image files from a folder that has a sub-folder for each class.

    The folder has sub-folders ``train`` and ``test`` with the same classes in each; or it has the
    classes themselves, and every fifth image of each class, by name, is for testing. A class's
    index is its sub-folder's position in order of names. Images have one channel if all are grey,
    and three if one of them has colours; transparency is dropped.

    Parameters
    ----------
    folder : path
    size : (rows, columns), optional
        What images are resized to. Without it they must be of one size.

    Returns a :class:`Dataset` of uint8 images (samples, channels, rows, columns), with the names
    of its classes.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    ValueError
        If ``size`` is not two positive numbers.
    FileNotFoundError
        If there is no such folder.
    DataError
        If there are no classes, a class has no images, a file is damaged, sizes differ, or
        ``train`` and ``test`` have other classes.
    """
    folder = Path(folder)
    if size is not None:
        rows, cols = map(index, size)
        size = (rows, cols)
        if min(size) < 1:
            raise ValueError(f"size must be (rows, columns) of at least 1, not {size!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no directory; expected a sub-folder for each class")
    names = [path.name for path in _folders(folder)]
    if "train" in names and "test" in names:
        parts = [_classes(folder / part) for part in ("train", "test")]
        for name in sorted(parts[0].keys() ^ parts[1].keys()):
            has, lacks = ("train", "test") if name in parts[0] else ("test", "train")
            raise DataError(f"{folder}: {has} has class {name}, but {lacks} has not")
    else:
        parts = [{}, {}]
        for name, files in _classes(folder).items():
            test = files[_TEST_EVERY - 1 :: _TEST_EVERY]
            if not test:
                raise DataError(
                    f"{folder / name} has {len(files)} images; every fifth one is for testing, so "
                    f"a class needs at least {_TEST_EVERY} (or make sub-folders train and test)"
                )
            parts[0][name] = [file for file in files if file not in test]
            parts[1][name] = test
    files = [[file for own in part.values() for file in own] for part in parts]
    x = _stacked([_read(file, size) for file in files[0] + files[1]], files[0] + files[1])
    labels = [np.repeat(np.arange(len(part)), [*map(len, part.values())]) for part in parts]
    count = len(files[0])
    return Dataset(f"images:{folder}", x[:count], labels[0], x[count:], labels[1], tuple(parts[0]))


def _folders(folder):
    return [
        path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")
    ]


def _classes(folder):
    """Image files of each class."""
    classes = {}
    for own in _folders(folder):
        classes[own.name] = sorted(
            file for file in own.iterdir() if file.suffix.lower() in _SUFFIXES
        )
        if not classes[own.name]:
            raise DataError(f"{own} has no images; known are {', '.join(_SUFFIXES)}")
    if not classes:
        raise DataError(f"{folder} has no sub-folders; expected one for each class")
    return classes


def _read(file, size):
    """Pixels (rows, columns) or (rows, columns, 3) of an image."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            "Image files are read with Pillow; install it with: pip install streamtrain[images]"
        ) from None
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"8 bits for each channel are read, not those of mode {image.mode}"
                )
            image = image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BOX)
            return np.asarray(image)
    # The decoders fail in any way that foreign bytes lead them to.
    except Exception as error:
        raise DataError(f"{file}: expected a whole image; {error}") from None


def _stacked(images, files):
    for image, file in zip(images, files, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            (rows, cols), (first_rows, first_cols) = image.shape[:2], images[0].shape[:2]
            raise DataError(
                f"{file} has {rows} x {cols} pixels, but {files[0]} has {first_rows} x "
                f"{first_cols}; size=(rows, columns) resizes them"
            )
    if any(image.ndim == 3 for image in images):
        images = [
            image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images
        ]
        return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    return np.stack(images)[:, None]
