"""The compiled model of the whole IP as a :class:`~streamtrain.host.bus_device.Bus`."""

import ctypes
from ctypes import POINTER, Structure, c_uint8, c_uint32, c_uint64

import numpy as np

from streamtrain.bus.packets import PacketFormat
from streamtrain.host.bus_device import BusError
from streamtrain.simulate.compiled import compile_ip, patience_cycles
from streamtrain.simulate.model import pointer
from streamtrain.simulate.registers import ACCESS, RegisterModel

__all__ = ["SimulatedBus"]

_QUIET_CYCLES = 1_000  # after which nothing more comes of itself

_PAUSE_CYCLES = 200


class _Exchange(Structure):
    _fields_ = [
        ("sent", c_uint64),
        ("data", POINTER(c_uint8)),
        ("keep", POINTER(c_uint64)),
        ("last", POINTER(c_uint8)),
        ("expected", c_uint64),
        ("result", POINTER(c_uint8)),
        ("result_last", POINTER(c_uint8)),
        ("result_cycle", POINTER(c_uint64)),
        ("received", c_uint64),
        ("accepted", c_uint64),
        ("stall", c_uint32),
        ("seed", c_uint64),
        ("patience", c_uint64),
    ]


class SimulatedBus(RegisterModel):
    """A trainer's RTL with its buses, compiled and running; see :class:`~streamtrain.host.bus_device.Bus`.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    size : :class:`int`
        Bytes of TDATA.
    stall : :class:`float`
        Probability that a stream pauses in a cycle.
    seed : :class:`int`
        Of the pauses.
    trace : path, optional
        Write waveforms (VCD) there; they are whole after :meth:`close`.
    jobs : :class:`int`, optional
        Processes that compile at once; as many as there are cores without.
    report : callable
        Gets a line of text as each step of compiling begins.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """

    capacity = 1 << 22

    def __init__(
        self, plan, size=4, *, stall=0.0, seed=1, trace=None, jobs=None, report=lambda text: None
    ):
        if not 0 <= stall < 1:
            raise ValueError(f"Stall must be a probability below 1, not {stall!r}")
        self.format = PacketFormat(plan, size)
        self.stall = stall
        self._seed = seed
        self._patience = patience_cycles(plan, stall)
        library = compile_ip(self.format, trace=trace is not None, jobs=jobs, report=report)
        functions = {
            "st_irq": (),
            "st_wait": (c_uint64,),
            "st_exchange": (POINTER(_Exchange),),
            "st_access": ACCESS,
        }
        super().__init__(library, functions, trace)

    def wait(self, cycles):
        """Let clock cycles pass."""
        self._library.st_wait(self._model, cycles)

    def pause(self, seconds):
        """Let some clock cycles pass, however long it is to be: simulated time is not ours."""
        self.wait(_PAUSE_CYCLES)

    def transfer(self, data, keep, last, expected, *, patience=None):
        """Words into the one stream, and out of the other, as they come.

        Parameters
        ----------
        data : uint8 array (words, bytes of TDATA)
        keep, last : integer arrays (words,)
        expected : :class:`int`
            Words that are to come out.
        patience : :class:`int`, optional
            Cycles in which nothing moves, after which there is nothing more to wait for.

        Returns ``(data, last, cycles)`` of the words that came out, and how many went in.
        """
        size = self.format.size
        data = np.ascontiguousarray(data, np.uint8).reshape(-1, size)
        keep = np.ascontiguousarray(keep, np.uint64)
        last = np.ascontiguousarray(last, np.uint8)
        result = np.zeros((expected, size), np.uint8)
        result_last = np.zeros(expected, np.uint8)
        cycles = np.zeros(expected, np.uint64)
        job = _Exchange(
            sent=len(data),
            data=pointer(data),
            keep=pointer(keep),
            last=pointer(last),
            expected=expected,
            result=pointer(result),
            result_last=pointer(result_last),
            result_cycle=pointer(cycles),
            stall=round(self.stall * 65536),
            seed=self._seed,
            patience=self._patience if patience is None else patience,
        )
        self._seed += 1
        self._library.st_exchange(self._model, ctypes.byref(job))
        got = job.received
        return (result[:got], result_last[:got], cycles[:got].astype(np.int64)), job.accepted

    def exchange(self, packet, size):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        width = self.format.size
        words = len(packet) // width
        keep = np.full(words, (1 << width) - 1, np.uint64)
        last = np.arange(words) == words - 1
        (data, _, _), accepted = self.transfer(packet, keep, last, size // width)
        if data.size < size:
            raise BusError(
                f"The trainer stopped: {accepted} of {words} words went in, and {data.size} of {size} "
                f"bytes came out"
            )
        return data.ravel()

    def flush(self):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        nothing = np.zeros(0, np.uint8)
        while len(self.transfer(nothing, nothing, nothing, 64, patience=_QUIET_CYCLES)[0][1]) == 64:
            pass
