"""The front door's verbs over a trainer behind its buses: simulated as a whole, or on a board."""

import sys
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
from rich.console import Console

from streamtrain.design import Design, UnifiedDesign
from streamtrain.host.bus_device import BusDevice
from streamtrain.host.kernel_device import MemoryKernel
from streamtrain.host.trainer import Trainer
from streamtrain.pipeline.plan import Plan
from streamtrain.records import Record
from streamtrain.unified.kernel import KernelPlan

__all__ = ["PLAN_FILE", "ConnectedKernelTrainer", "ConnectedTrainer", "connect", "load_plan"]

PLAN_FILE = "plan.json"
"""What a build calls the plan of its hardware."""

_FILES = (
    PLAN_FILE,
    f"driver/{PLAN_FILE}",
    "design.json",
)  # of a folder, the first one that is there


class ConnectedTrainer(Trainer):
    """The front door's verbs over a :class:`~streamtrain.host.bus_device.Bus`.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
        What the hardware was made from.
    bus : :class:`~streamtrain.host.bus_device.Bus`
    weights : :class:`str`
        ``"initial"``: write the network's first weights, and all else that training starts with.
        ``"keep"``: go on with what the hardware holds.

    Raises
    ------
    BusError
        If there is no trainer at the bus, or one that was made from another plan.
    """

    def __init__(self, plan, bus, *, weights="initial"):
        if weights not in {"initial", "keep"}:
            raise ValueError(f'weights must be "initial" or "keep", not {weights!r}')
        super().__init__(plan, BusDevice(plan, bus))
        if weights == "initial":
            self._start()

    def _start(self):
        """Write what training starts with."""
        plan, device = self.plan, self.device
        device.write_weights(plan.encode_weights(plan.network.initial_weights()))
        shapes = {name: shape for name, (shape, _) in self._velocity_formats().items()}
        device.write_optimizer({name: np.zeros(shape, np.int64) for name, shape in shapes.items()})
        device.write_random({
            f"{stage.name}.{site}": plan.random_seed(stage, site)
            for _, stage, site in plan.random_sites
        })

    def step(self, x, y, lr=None, frozen=(), *, momentum=None, weight_decay=None, clip=None):
        """Train on one mini-batch; see :meth:`Trainer.step`.

        ``cycles`` are those in which the trainer had a sample to work on, the update included.
        """
        before = self.device.work_cycles()
        done = super().step(
            x, y, lr, frozen, momentum=momentum, weight_decay=weight_decay, clip=clip
        )
        return replace(done, cycles=self.device.work_cycles() - before)

    def counters(self):
        """What the hardware has counted since it was connected.

        Returns a dictionary: ``samples`` whose results went out, those of them that were ``correct``, packets
        that were ``dropped``, the sum of losses in steps of 2**-12, and ``cycles``, with those in which the
        trainer was ``starved`` of samples or ``blocked`` by results that were not taken.
        """
        return self.device.counters()

    def saturations(self, *, settled=True):
        """See :meth:`Trainer.saturations`; if not ``settled``, without waiting for samples that are inside."""
        return self._saturations(self.device.saturations(settled=settled))

    def close(self):
        """Stop taking samples, and give back the way to the hardware. Weights stay there."""
        self.device.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class ConnectedKernelTrainer(Trainer):
    """The front door's verbs over a :class:`~streamtrain.host.kernel_device.MemoryBus`: the unified core.

    Programs are compiled for the memory that is there, wherever it is.

    Parameters
    ----------
    plan : :class:`~streamtrain.unified.kernel.KernelPlan`
        What the hardware was made from.
    bus : :class:`~streamtrain.host.kernel_device.MemoryBus`

    Raises
    ------
    BusError
        If there is no unified core at the bus, or one that was made from another plan, or there is too little memory.
    """

    def __init__(self, plan, bus):
        if plan.base != bus.base:
            plan = replace(plan, base=bus.base)
        super().__init__(plan, MemoryKernel(plan, bus))

    def close(self):
        """Give back the way to the hardware, and the memory with its weights."""
        self.device.bus.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def connect(design, to, *, weights="initial"):
    """Train with hardware as it is built, with its registers and packets.

    Parameters
    ----------
    design : :class:`~streamtrain.Design`, :class:`~streamtrain.UnifiedDesign`, the plan of one, or path
        What the hardware was made from; a path is that of a build's folder, or of a plan or design in JSON.
    to : :class:`str`, :class:`~streamtrain.host.bus_device.Bus` or :class:`~streamtrain.host.kernel_device.MemoryBus`
        ``"simulation"``: the compiled model of the whole IP.
        ``"pynq:FILE.bit"``: load a bitstream on a board with PYNQ.
        ``"uio"`` or ``"uio:NAME"``: on a board with Linux, through UIO and u-dma-buf.
        ``"uart:PORT"`` or ``"uart:PORT:BAUD"``: over a serial line, such as ``"uart:/dev/ttyUSB0"``; the
        streaming core only.
    weights : :class:`str`
        ``"initial"``: begin with the network's first weights, as any new trainer does. ``"keep"``: go on with
        those that the hardware holds; the streaming core only.

    Returns a :class:`ConnectedTrainer`, or for the unified core a :class:`ConnectedKernelTrainer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value, or a file holds no plan.
    OSError
        If a file cannot be read.
    BusError
        If the hardware does not answer, or was made from another design.
    ImportError
        If a package that this way needs is not installed.
    CompileError
        If the simulation cannot be compiled.
    """
    plan = load_plan(design)
    unified = isinstance(plan, KernelPlan)
    if unified and weights == "keep":
        raise ValueError(
            'The unified core cannot go on with what memory holds (weights="keep"): which of its sets of weights '
            "counts, only the host knows that trained them; let that one save() a checkpoint, and load() it"
        )
    bus = _open(plan, to) if isinstance(to, str) else to
    kind, verb = ("MemoryBus", "load") if unified else ("Bus", "exchange")
    if not callable(getattr(bus, verb, None)):
        raise TypeError(f"to must be {_WAYS_TEXT}, or a {kind}, not {to!r}")
    try:
        if unified:
            return ConnectedKernelTrainer(plan, bus)
        return ConnectedTrainer(plan, bus, weights=weights)
    except BaseException:
        if isinstance(to, str):
            bus.close()
        raise


def load_plan(design):
    """The plan of a design, of a plan, or of what a path leads to; see :func:`connect`."""
    if isinstance(design, str | PathLike):
        path = Path(design)
        if path.is_dir():
            found = [path / name for name in _FILES if (path / name).exists()]
            if not found:
                raise ValueError(f"{path} has no {PLAN_FILE}; is it the folder of a build?")
            path = found[0]
        if not path.exists():
            raise FileNotFoundError(
                f"There is no {path}: name the folder that a build wrote, its deploy/, or a plan.json"
            )
        design = Record.from_json(path.read_text(encoding="utf-8"))
        if not isinstance(design, Plan | KernelPlan | Design | UnifiedDesign):
            raise ValueError(f"{path} holds a {type(design).__name__}, not a Plan or a Design")
    if isinstance(design, Design | UnifiedDesign):
        return design.plan
    if not isinstance(design, Plan | KernelPlan):
        raise TypeError(f"design must be a Design, a Plan or a path, not {design!r}")
    return design


def _open(plan, to):
    """The bus that ``to`` names."""
    way, colon, where = to.partition(":")
    if way not in _WAYS or (colon and not where):
        raise ValueError(f"to must be {_WAYS_TEXT}, or a Bus, not {to!r}")
    return _WAYS[way](plan, where)


def _simulation(plan, where):
    if where:
        raise ValueError(f'to must be "simulation", not "simulation:{where}"')
    console = Console(file=sys.stderr, force_jupyter=False)
    with console.status("simulation: generating Verilog") as status:

        def report(text):
            status.update(f"simulation: {text}")

        if isinstance(plan, KernelPlan):
            from streamtrain.simulate.kernel import SimulatedMemoryBus, simulated_memory  # late

            return SimulatedMemoryBus(simulated_memory(plan, report=report))
        from streamtrain.simulate.bus import SimulatedBus  # late: it brings a compiler

        return SimulatedBus(plan, report=report)


def _uart(plan, where):
    from streamtrain.host.uart import BAUD, UartBus

    if isinstance(plan, KernelPlan):
        raise ValueError(
            "The unified core keeps weights and maps in a memory that it shares with its host, which a serial "
            'line does not reach: use "pynq:FILE.bit" or "uio", or plan with core="streaming"'
        )
    if not where:
        raise ValueError('to must name the port, such as "uart:/dev/ttyUSB0", not "uart"')
    port, _, baud = where.rpartition(":")
    if port and baud.isdecimal():
        return UartBus(port, int(baud))
    return UartBus(where, BAUD)


def _uio(plan, where):
    from streamtrain.host.uio import NAME, open_uio, open_uio_memory

    return (open_uio_memory if isinstance(plan, KernelPlan) else open_uio)(where or NAME)


def _pynq(plan, where):
    from streamtrain.host.pynq import load_bus, load_memory_bus

    if not where:
        raise ValueError('to must name the bitstream, such as "pynq:trainer.bit", not "pynq"')
    return load_memory_bus(where, plan) if isinstance(plan, KernelPlan) else load_bus(where)


_WAYS = {"simulation": _simulation, "pynq": _pynq, "uio": _uio, "uart": _uart}

_WAYS_TEXT = '"simulation", "pynq:FILE.bit", "uio", "uio:NAME", "uart:PORT", "uart:PORT:BAUD"'
