"""A compiled model that runs: what all of them have, whatever drives it."""

import ctypes
from ctypes import POINTER, c_char_p, c_uint8, c_uint32, c_uint64, c_void_p

__all__ = ["RunningModel", "pointer"]

_TYPES = {1: c_uint8, 4: c_uint32, 8: c_uint64}  # by their bytes


def pointer(array):
    """Where an array of unsigned integers begins, for the harness."""
    return array.ctypes.data_as(POINTER(_TYPES[array.itemsize]))


class _Closed:
    """In place of the library once the simulation is closed, for it would follow a null pointer."""

    def __getattr__(self, name):
        raise RuntimeError("The simulation is closed")


class RunningModel:
    """A model in a library that :mod:`streamtrain.simulate.compiled` gives, just reset.

    Parameters
    ----------
    library : :class:`ctypes.CDLL`
    functions : dict
        Arguments of the harness's own functions, by their names, without the first one: the model.
    trace : path, optional
        Write waveforms (VCD) there; they are whole after :meth:`close`.

    Raises
    ------
    OSError
        If waveforms cannot be written.
    """

    _model = None

    def __init__(self, library, functions, trace=None):
        self._library = library
        library.st_new.restype = c_void_p
        library.st_cycle.restype = c_uint64
        common = {"st_free": (), "st_reset": (), "st_cycle": (), "st_trace": (c_char_p,)}
        for name, arguments in (common | functions).items():
            getattr(library, name).argtypes = [ctypes.c_void_p, *arguments]
        self._model = library.st_new()
        if trace is not None and library.st_trace(self._model, str(trace).encode()):
            raise OSError(f"Cannot write waveforms to {trace}")
        self.reset()

    def close(self):
        """End the simulation and finish its waveforms. Using it afterwards is a :exc:`RuntimeError`."""
        if self._model is not None:
            self._library.st_trace(self._model, None)
            self._library.st_free(self._model)
            self._model, self._library = None, _Closed()

    def __del__(self):
        self.close()

    @property
    def cycle(self):
        """Clock cycles since the start."""
        return self._library.st_cycle(self._model)

    def reset(self):
        """Reset the hardware. Memories, the weights among them, keep their content."""
        self._library.st_reset(self._model)
