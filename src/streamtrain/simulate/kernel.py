"""The whole unified IP in front of a simulated memory, as a device."""

import sys

from rich.console import Console

from streamtrain.bus.bursts import PAGE_BYTES
from streamtrain.host.bus_device import BusError
from streamtrain.host.kernel_device import MemoryKernel
from streamtrain.host.trainer import Trainer
from streamtrain.pipeline.generate import PACKAGES, text_key, verilog_of
from streamtrain.simulate.memory import MemoryTiming, SimulatedMemory, compile_memory_design

__all__ = ["SimulatedKernel", "SimulatedKernelTrainer", "SimulatedMemoryBus", "simulated_memory"]

_PACKAGES = (*PACKAGES, "bus", "golden", "unified")
_ROOM_BYTES = 1 << 24  # for programs; what nobody touches takes no memory of ours
_PATIENCE_CYCLES = 1_000_000  # without a beat of memory


class SimulatedMemoryBus:
    """A simulated memory as the :class:`~streamtrain.host.kernel_device.MemoryBus` of the core before it.

    Parameters
    ----------
    memory : :class:`~streamtrain.simulate.SimulatedMemory`
    """

    def __init__(self, memory):
        self.memory = memory
        self.base, self.size = memory.base, len(memory.contents)
        self.read, self.write = memory.read, memory.write

    def _slice(self, address, size):
        return self.memory.contents[address - self.base : address - self.base + size]

    def load(self, address, size):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`."""
        return self._slice(address, size).copy()

    def store(self, address, content):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`."""
        self._slice(address, len(content))[...] = content

    def wait(self):
        """See :class:`~streamtrain.host.kernel_device.MemoryBus`. A core that is stuck moves no beats."""
        memory, beats = self.memory, None
        while not memory.irq:
            counts = memory.counts
            if beats == (beats := (counts.read_beats, counts.write_beats)):
                raise BusError(
                    f"The core is stuck: no beat of memory in {_PATIENCE_CYCLES:,} cycles"
                )
            try:
                memory.wait_for_irq(_PATIENCE_CYCLES)
            except TimeoutError:
                continue

    def close(self):
        """End the simulation and finish its waveforms."""
        self.memory.close()


def simulated_memory(
    plan,
    *,
    memory=MemoryTiming(),
    size=None,
    seed=1,
    trace=None,
    jobs=None,
    report=lambda text: None,
):
    """The whole IP of a plan, compiled and running: a :class:`~streamtrain.simulate.SimulatedMemory`.

    Parameters are those of :class:`SimulatedKernel`.
    """  # fmt: skip

    def verilog():
        return verilog_of(plan.hardware(), "streamtrain")

    library = compile_memory_design(
        verilog, plan.data_bits, trace=trace is not None, jobs=jobs, report=report,
        key=lambda generate=True: text_key(
            verilog, "unified", plan.configuration, packages=_PACKAGES, generate=generate
        ),
    )  # fmt: skip
    if size is None:
        needed = plan.compiler.programs - plan.base + _ROOM_BYTES
        size = -(-needed // PAGE_BYTES) * PAGE_BYTES
    return SimulatedMemory(library, size, base=plan.base, timing=memory, seed=seed, trace=trace)


class SimulatedKernel(MemoryKernel):
    """A unified core's RTL, compiled and running, with its memory.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    memory : :class:`~streamtrain.simulate.MemoryTiming`
        How fast the memory is.
    size : :class:`int`, optional
        Bytes of memory from the plan's base on; enough without.
    seed : :class:`int`
        Of the memory's stalls.
    trace : path, optional
        Write waveforms (VCD) there.
    jobs : :class:`int`, optional
        Processes that compile at once; as many as there are cores without.
    report : callable
        Gets a line of text as each step of compiling begins.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """

    def __init__(self, plan, **options):
        self.memory = simulated_memory(plan, **options)
        super().__init__(plan, SimulatedMemoryBus(self.memory))

    def close(self):
        """End the simulation and finish its waveforms."""
        self.memory.close()


class SimulatedKernelTrainer(Trainer):
    """The front door's verbs over the unified core's RTL, compiled, with simulated memory behind it.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
    progress : :class:`bool`
        Say what is being compiled.
    **options
        Those of :class:`SimulatedKernel`.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """

    def __init__(self, plan, *, progress=True, **options):
        console = Console(file=sys.stderr, quiet=not progress, force_jupyter=False)
        with console.status("simulation: generating Verilog") as status:
            options.setdefault("report", lambda text: status.update(f"simulation: {text}"))
            device = SimulatedKernel(plan, **options)
        super().__init__(plan, device)

    def close(self):
        """End the simulation and finish its waveforms."""
        self.device.close()
