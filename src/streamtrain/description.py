"""Networks and designs from files."""

import runpy
import sys
from pathlib import Path
from traceback import extract_tb

from streamtrain.design import Design, UnifiedDesign
from streamtrain.network import SGD, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU, from_onnx
from streamtrain.records import Record

__all__ = ["default_network", "load_description"]


def default_network():
    """The network that is built when none is described: digits of 8x8 pixels, ten classes."""
    return Network(
        (1, 8, 8),
        [
            Conv2d(16, 3),
            ReLU(),
            MaxPool2d(2),
            Conv2d(32, 3),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(10),
        ],
        optimizer=SGD(lr=2**-5),
    )


def load_description(path):
    """Read a :class:`Network`, :class:`Design` or :class:`UnifiedDesign` from a file.

    Parameters
    ----------
    path : path
        A Python file that defines ``network`` or ``design`` (which is preferred); what
        ``to_json()`` of one of them wrote, in a file that ends in ``.json``; or an ONNX model, in a
        file that ends in ``.onnx``.

    Raises
    ------
    ValueError
        If the file cannot be read or holds no description, with the line or node at fault.
    ImportError
        If a model needs the package ``onnx``, and it is missing.
    """
    path = Path(path)
    readers = {".py": _from_python, ".json": _from_json, ".onnx": from_onnx}
    if path.suffix not in readers:
        raise ValueError(f"A description ends in .py, .json or .onnx, but {path} does not")
    try:
        return readers[path.suffix](path)
    except OSError as error:
        raise ValueError(f"Cannot read {error.filename or path}: {error.strerror}") from None


def _from_json(path):
    try:
        record = Record.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(record, (Network, Design, UnifiedDesign)):
        raise ValueError(f"{path} describes a {type(record).__name__}, not a Network or a Design")
    return record


def _from_python(path):
    path.read_bytes()  # a missing file is reported as such, not as an error in it
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # as Python does for a script: it may import what lies beside it
    try:
        names = runpy.run_path(str(path), run_name=path.stem)
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: SyntaxError: {error.msg}") from None
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    for name, kinds in (("design", (Design, UnifiedDesign)), ("network", (Network,))):
        if name in names:
            if not isinstance(names[name], kinds):
                found = type(names[name]).__name__
                raise ValueError(f"{path}: {name} must be a {kinds[0].__name__}, not a {found}")
            return names[name]
    raise ValueError(f"{path} defines neither network nor design")
