"""Memory in simulation: a design with an AXI4 master, compiled, and what it reads and writes."""

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from operator import index

import numpy as np

from streamtrain.bus.axi import DECERR, OKAY, SLVERR
from streamtrain.bus.bursts import PAGE_BYTES
from streamtrain.cache import content_key
from streamtrain.simulate.compiled import _compiled, _Model
from streamtrain.simulate.model import pointer
from streamtrain.simulate.registers import ACCESS, RegisterModel

__all__ = [
    "BrokenRuleError",
    "MemoryCounts",
    "MemoryTiming",
    "SimulatedMemory",
    "compile_memory_design",
]

_ONE = 1 << 16  # rates and probabilities in the harness are of this


class BrokenRuleError(AssertionError):
    """The design did what AXI forbids."""


@dataclass(frozen=True)
class MemoryTiming:
    """How fast a simulated memory is.

    Parameters
    ----------
    read_latency : :class:`int`
        Cycles from an address to its first beat, at least 1.
    write_latency : :class:`int`
        Cycles from a burst's last beat to its response, at least 1.
    read_rate, write_rate : :class:`float`
        Beats per cycle, above 0 and up to 1.
    shared_rate : :class:`float`
        Beats per cycle of reads and writes together, above 0 and up to 2. If both want the next one,
        they take turns.
    stall : :class:`float`
        Probability that a channel pauses in a cycle, besides: each of AR, R, AW, W and B on its own.

    Raises
    ------
    ValueError
        If a value is none of these.
    """

    read_latency: int = 30
    write_latency: int = 10
    read_rate: float = 1.0
    write_rate: float = 1.0
    shared_rate: float = 2.0
    stall: float = 0.0

    def __post_init__(self):
        for what in ("read_latency", "write_latency"):
            if index(getattr(self, what)) < 1:
                raise ValueError(f"{what} must be at least 1 cycle, not {getattr(self, what)!r}")
        for what, most in (("read_rate", 1), ("write_rate", 1), ("shared_rate", 2)):
            if not 1 / _ONE <= getattr(self, what) <= most:
                raise ValueError(
                    f"{what} must be above 0 and up to {most} beats per cycle, "
                    f"not {getattr(self, what)!r}"
                )
        if not 0 <= self.stall < 1:
            raise ValueError(f"Stall must be a probability below 1, not {self.stall!r}")


@dataclass(frozen=True)
class MemoryCounts:
    """What a memory has done since it began. The difference of two is what it did in between.

    Parameters
    ----------
    cycles : :class:`int`
    read_bursts, read_beats, write_bursts, write_beats : :class:`int`
    read_busy : :class:`int`
        Cycles with a read whose address was taken and whose data were not, all of them.
    read_blocked : :class:`int`
        Cycles in which data waited for RREADY.
    write_busy : :class:`int`
        Cycles with a write whose address was taken and that was not answered.
    write_starved : :class:`int`
        Cycles in which the memory waited for the data of an address that it had.
    """

    cycles: int
    read_bursts: int
    read_beats: int
    read_busy: int
    read_blocked: int
    write_bursts: int
    write_beats: int
    write_busy: int
    write_starved: int

    def __sub__(self, other):
        return MemoryCounts(**{
            name: mine - getattr(other, name) for name, mine in vars(self).items()
        })


class _Settings(Structure):
    _fields_ = [
        ("read_latency", c_uint64),
        ("write_latency", c_uint64),
        ("read_rate", c_uint32),
        ("write_rate", c_uint32),
        ("shared_rate", c_uint32),
        ("stall", c_uint32),
    ]


class _Counts(Structure):
    _fields_ = [(name, c_uint64) for name in MemoryCounts.__dataclass_fields__]


def compile_memory_design(
    verilog, data_bits, *, key=None, trace=False, jobs=None, report=lambda text: None
):
    """Compile a design with memory behind it, or find it in the cache.

    The module is named ``streamtrain`` and has the ports ``aclk``, ``aresetn``, ``irq``,
    ``s_axi_ctrl_*`` (AXI4-Lite, which takes address and data of a write together) and ``m_axi_*``: both
    :class:`~streamtrain.bus.axi.AxiRead` and :class:`~streamtrain.bus.axi.AxiWrite`.

    Parameters
    ----------
    verilog : callable
        Gives the text.
    data_bits : :class:`int`
        Of ``m_axi``.
    key : callable, optional
        Gives the hash of the text, as :func:`~streamtrain.pipeline.generate.text_key` does: with
        ``generate=False`` None where that is not known. Without it the text is generated and hashed.
    trace : :class:`bool`
        Build in waveforms, which makes the model slower.
    jobs : :class:`int`, optional
        Processes that compile at once; as many as there are cores without.
    report : callable
        Gets a line of text as each step begins.

    Returns the loaded model, a :class:`ctypes.CDLL`, for :class:`SimulatedMemory`.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """
    model = _Model(
        verilog=verilog,
        key=key or (lambda generate=True: content_key(verilog()) if generate else None),
        harness="memory_harness.cpp",
        header=f"constexpr int DATA_BYTES = {data_bits // 8};\n",
        public="",
        clock={"CLOCK": "aclk", "RESET": "aresetn", "RESET_ACTIVE": 0},
    )
    return _compiled(model, trace, jobs, report)


class SimulatedMemory(RegisterModel):
    """A design and the memory behind it, running, just reset.

    The memory is as awkward as AXI allows: a read gets what was there when its address was taken, and
    what is written is there when its response has been given, no earlier. It watches the master's signals
    in every cycle: any method that lets cycles pass raises :exc:`BrokenRuleError` once a rule was broken.

    Parameters
    ----------
    library : :class:`ctypes.CDLL`
        What :func:`compile_memory_design` gave.
    size : :class:`int`
        Bytes of memory, whole pages of 4 KB. A burst that is not all within it is answered by DECERR.
    base : :class:`int`
        Address of the first byte, a multiple of 4 KB.
    timing : :class:`MemoryTiming`
        May be set later, too.
    seed : :class:`int`
        Of the pauses.
    trace : path, optional
        Write waveforms (VCD) there; the library must have been compiled for it.

    Attributes
    ----------
    contents : uint8 array (size,)
        The memory itself: reading and writing it takes no cycle.

    Raises
    ------
    ValueError
        If the memory is not made of pages.
    """

    _name = "design"
    _memory = None

    def __init__(self, library, size, *, base=0, timing=MemoryTiming(), seed=1, trace=None):
        size, base = index(size), index(base)
        if size < 1 or base < 0 or size % PAGE_BYTES or base % PAGE_BYTES:
            raise ValueError(
                f"Memory must be whole pages of {PAGE_BYTES} bytes, not {size} bytes from {base:#x}"
            )
        library.st_memory_new.restype = c_void_p
        library.st_broken.restype = c_char_p
        library.st_wait.restype = c_uint64
        functions = {
            "st_irq": (),
            "st_wait": (c_void_p, c_uint64, c_int),
            "st_access": (c_void_p, *ACCESS),
            "st_memory_new": (POINTER(c_uint8), c_uint64, c_uint64, c_uint64),
            "st_memory_free": (c_void_p,),
            "st_memory_set": (c_void_p, POINTER(_Settings)),
            "st_memory_fail": (c_void_p, c_uint64, c_uint32),
            "st_memory_counts": (c_void_p, POINTER(_Counts)),
            "st_memory_forget": (c_void_p,),
            "st_broken": (c_void_p,),
        }
        super().__init__(library, functions, trace)
        self.contents = np.zeros(size, np.uint8)
        self.base = base
        self._memory = library.st_memory_new(self._model, pointer(self.contents), base, size, seed)
        self.timing = timing

    @property
    def _simulation(self):
        return (self._model, self._memory)

    def close(self):
        """End the simulation and finish its waveforms. Using it afterwards is a :exc:`RuntimeError`."""
        if self._memory is not None:
            self._library.st_memory_free(*self._simulation)
            self._memory = None
        super().close()

    def reset(self):
        """Reset the hardware. Memory keeps its content; what was under way is gone."""
        super().reset()
        if self._memory is not None:
            self._library.st_memory_forget(*self._simulation)

    @property
    def timing(self):
        """How fast the memory is: a :class:`MemoryTiming`."""
        return self._timing

    @timing.setter
    def timing(self, timing):
        settings = _Settings(
            timing.read_latency,
            timing.write_latency,
            *(
                round(getattr(timing, what) * _ONE)
                for what in ("read_rate", "write_rate", "shared_rate", "stall")
            ),
        )
        self._library.st_memory_set(*self._simulation, ctypes.byref(settings))
        self._timing = timing

    @property
    def counts(self):
        """What the memory has done: a :class:`MemoryCounts`."""
        counts = _Counts()
        self._library.st_memory_counts(*self._simulation, ctypes.byref(counts))
        return MemoryCounts(**{name: getattr(counts, name) for name, _ in _Counts._fields_})

    def fail(self, address, response=SLVERR):
        """Answer beats with the byte at ``address`` by ``response``, SLVERR or DECERR; by OKAY again.

        A burst of writes with such a beat is answered so, and none of it is written.
        """
        if response not in {OKAY, SLVERR, DECERR}:
            raise ValueError(f"Response must be OKAY, SLVERR or DECERR, not {response!r}")
        self._library.st_memory_fail(*self._simulation, address, response)

    def wait(self, cycles):
        """Let clock cycles pass."""
        self._library.st_wait(*self._simulation, cycles, 0)
        self._check_rules()

    def wait_for_irq(self, cycles):
        """Let clock cycles pass until the interrupt is high. Returns how many.

        Raises :exc:`TimeoutError` if it is not after ``cycles``.
        """
        passed = self._library.st_wait(*self._simulation, cycles, 1)
        self._check_rules()
        if not self.irq:
            raise TimeoutError(f"No interrupt in {cycles} cycles")
        return passed

    def access(self, address, value=None, strobe=0xF):
        """Read a register, or write ``value``: ``(response, word)``.

        Raises :exc:`BusError` if there is no response.
        """
        try:
            return super().access(address, value, strobe)
        finally:
            self._check_rules()

    def _check_rules(self):
        if broken := self._library.st_broken(*self._simulation):
            raise BrokenRuleError(broken.decode())
