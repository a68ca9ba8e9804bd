"""The compiled model of a trainer with a serial line, at its two pins."""

import ctypes
from ctypes import POINTER, Structure, c_uint8, c_uint64
from operator import index

import numpy as np

from streamtrain.bus.packets import PacketFormat
from streamtrain.bus.uart_trainer import UartTrainer
from streamtrain.pipeline.generate import PACKAGES, anonymous, text_key, verilog_of
from streamtrain.simulate.compiled import _compiled, _Model, patience_cycles
from streamtrain.simulate.model import RunningModel, pointer

__all__ = ["SimulatedLine"]

_CYCLE = 65536  # of the host's time
_LOOK_CYCLES = 2_000  # that pass while the host looks whether something has come
_BREAK_BITS = 14


class _Line(Structure):
    _fields_ = [
        ("sent", POINTER(c_uint8)),
        ("count", c_uint64),
        ("low", c_uint64),
        ("bit", c_uint64),
        ("heard", POINTER(c_uint8)),
        ("room", c_uint64),
        ("wanted", c_uint64),
        ("received", c_uint64),
        ("patience", c_uint64),
        ("bad", c_uint64),
        ("left", c_uint64),
        ("timer", c_uint64),
        ("byte", c_uint64),
    ]


class SimulatedLine(RunningModel):
    """A trainer's RTL behind its serial line, compiled and running, as an open port of pySerial.

    ``UartBus(SimulatedLine(plan))`` is a bus to it. Each bit of each byte goes over the pins. Time passes
    only while something is sent or waited for.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    size : :class:`int`
        Bytes of TDATA.
    divisor : :class:`int`
        Clock cycles in a bit, at least 4.
    host_bit : :class:`float`, optional
        Clock cycles in a bit of the host, if its clock is another one; at least 4.
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

    name = "the simulated line"

    def __init__(
        self,
        plan,
        size=4,
        *,
        divisor=8,
        host_bit=None,
        trace=None,
        jobs=None,
        report=lambda text: None,
    ):
        self.format = PacketFormat(plan, size)
        host_bit = divisor if host_bit is None else host_bit
        if host_bit < 4:
            raise ValueError(
                f"A bit of the host must take at least 4 clock cycles, not {host_bit!r}"
            )
        self.divisor = index(divisor)
        model = _Model(
            verilog=self._verilog,
            key=self._key,
            harness="line_harness.cpp",
            header="",
            public="",
            clock={"CLOCK": "clk", "RESET": "rst", "RESET_ACTIVE": 1},
        )
        library = _compiled(model, trace is not None, jobs, report)
        self._line = _Line(bit=round(host_bit * _CYCLE))
        self._came = bytearray()
        self._patience = patience_cycles(plan, 0)
        super().__init__(library, {"st_line": (POINTER(_Line),)}, trace)

    def _verilog(self):
        return verilog_of(UartTrainer(self.format, self.divisor), "streamtrain")

    def _key(self, *, generate=True):
        return text_key(
            self._verilog,
            "uart",
            anonymous(self.format.plan).to_json(),
            str(self.format.size),
            str(self.divisor),
            generate=generate,
            packages=(*PACKAGES, "bus"),
        )

    def reset(self):
        """See :class:`~streamtrain.simulate.model.RunningModel`."""
        self._talk()  # the line is high before anything else
        super().reset()

    def _talk(self, text=b"", *, low=0, wanted=1, patience=0):
        """Send bytes, and keep what comes meanwhile and up to ``patience`` cycles of silence later."""
        line = self._line
        sent = np.frombuffer(bytes(text), np.uint8)
        # The trainer's bits may be shorter than the host's.
        heard = np.zeros(
            64 + wanted + 2 * len(sent) * line.bit // (_CYCLE * self.divisor), np.uint8
        )
        line.sent, line.count, line.low = pointer(sent), len(sent), low
        line.heard, line.room = pointer(heard), len(heard)
        line.wanted, line.patience = wanted, patience
        self._library.st_line(self._model, ctypes.byref(line))
        self._came += heard[: line.received].tobytes()

    @property
    def bad(self):
        """Bytes that came without a stop bit."""
        return self._line.bad

    def write(self, text):
        """Send bytes, however long that takes."""
        self._talk(text)

    def read(self, size):
        """So many bytes, or less if nothing more comes for longer than a sample takes."""
        missing = size - len(self._came)
        if missing > 0:
            self._talk(wanted=missing, patience=self._patience)
        came, self._came = bytes(self._came[:size]), self._came[size:]
        return came

    @property
    def in_waiting(self):
        """Bytes that have come; looking for them takes time."""
        self._talk(wanted=64, patience=_LOOK_CYCLES)
        return len(self._came)

    def reset_input_buffer(self):
        """Forget what has come."""
        self._came.clear()

    def send_break(self, duration=0.25):
        """Hold the line low for longer than a byte takes, whatever ``duration`` is: that is simulated time."""
        self.pull(_BREAK_BITS)

    def pull(self, bits):
        """Hold the line low for so many bits of the host: a fraction of one is a disturbance."""
        self._talk(low=round(bits * self._line.bit / _CYCLE), patience=self.divisor)
