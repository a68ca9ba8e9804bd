"""How much of its array the unified core uses, beside EF-Train's published figures.

    python benchmarks/unified.py                    # all nets by the model; minutes
    python benchmarks/unified.py --simulate         # and in RTL; minutes
    python benchmarks/unified.py --nets 1X --simulate --batch 32
    python benchmarks/unified.py --nets 1X LeNet-10 --simulate --batch 2 --phases     # each by itself
    python benchmarks/unified.py --best             # the best designs for some boards, by the model; an hour
    python benchmarks/unified.py --best --nets 1X --boards pynq_z1
    python benchmarks/unified.py --verify cifar10:FOLDER    # 1X, real arithmetic; an hour

The array is theirs: 16x16 multiply-accumulators in FP32, a memory of 4 words a cycle (128 bits; all reads
share it, and all writes, where EF-Train has a stream for each kind of data), and their mini-batch. What is
*simulated* is the RTL in front of a simulated memory, with arithmetic that takes as long as FP32's and
computes nothing (benchmarks/hollow.py); *model* is the core's model of cycles (unified/timing.py).
Utilisation is multiplications that the net needs over those that the array could have done. As in EF-Train, BP
needs those of all pixels of the input. Of AlexNet and VGG-16 the convolutions count, each phase of each layer
as a program of its own: a whole step takes less, because they overlap.

--best plans each net for a board in each of some formats, at the board's clock: lanes and buffers that train it
fastest, of those that fit. Its figures are those of the models of cycles and resources, for a whole step with all
of a net's convolutions and a last layer of 10 classes.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from columns import columns
from hollow import HollowArithmetic
from nets import convolutional

import streamtrain as st
from streamtrain.explore.devices import load_board
from streamtrain.numeric.floating import FP32
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate.memory import MemoryTiming, SimulatedMemory, compile_memory_design
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import Compiler
from streamtrain.unified.core import UnifiedCore
from streamtrain.unified.estimate import estimate_kernel
from streamtrain.unified.ip import UnifiedIP, unified_registers
from streamtrain.unified.kernel import kernel_arithmetic
from streamtrain.unified.plan import lower
from streamtrain.unified.planner import plan_kernel
from streamtrain.unified.resources import estimate_resources
from streamtrain.unified.timing import KernelTiming

LANES, DATA_BITS, CLOCK_MHZ = 16, 128, 100
NUMBERS = HollowArithmetic(FP32)
SMALL = Depths(x=1024, e=1024, sums=1024, weights=4096, gradients=512, tiles=4)
LARGE = Depths(x=5376, e=4096, sums=2048, weights=8192, gradients=512, tiles=32)
LARGEST = LARGE._replace(sums=4096, tiles=64)
REGISTERS = unified_registers()


@dataclass(frozen=True)
class Case:
    """A net, and what EF-Train reached with it.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    depths : :class:`~streamtrain.unified.buffers.Depths`
    batch : :class:`int`
        Theirs.
    simulated : :class:`int`
        Mini-batch to simulate, unless another is asked for.
    layers : tuple of :class:`str`
        Whose phases are taken one by one; the whole step without.
    theirs : dict of :class:`str`
        Utilisation by layer, or that of all by ``""``.
    gflops : :class:`float` or None
        Theirs.
    """

    network: st.Network
    depths: Depths
    batch: int
    simulated: int
    layers: tuple
    theirs: dict
    gflops: float | None


def _alexnet(*last):
    """Their AlexNet up to the last pool, with pools of 2x2, which leave maps of the same sizes."""
    relu, pool = st.ReLU(), st.MaxPool2d(2)
    return st.Network((3, 227, 227), [
        st.Conv2d(96, 11, "valid", stride=4), relu, pool, st.Conv2d(256, 5), relu, pool,
        st.Conv2d(384, 3), relu, st.Conv2d(384, 3), relu, st.Conv2d(256, 3), relu,
        *last,
    ])  # fmt: skip


def cases():
    """The nets, by name."""
    vgg = "64-64P-128-128P-256-256-256P-512-512-512P-512-512-512P-FC10"
    alexnet, vgg16 = (tuple(f"conv{n}" for n in range(1, 1 + many)) for many in (5, 13))
    linear = "linear1", "linear2", "linear3"
    classifier = [
        st.MaxPool2d(2), st.Flatten(), st.Linear(4096), st.ReLU(), st.Linear(4096), st.ReLU(), st.Linear(1000),
    ]  # fmt: skip
    return {
        "1X": Case(
            convolutional((3, 32, 32), "16-16P-32-32P-64-64P-FC10", lr=0.01),
            SMALL, 128, 128, (), {"": "55 %"}, 28.15,
        ),
        "LeNet-10": Case(
            convolutional((3, 32, 32), "32P-32P-64P-FC64-FC10", lr=0.01),
            SMALL, 128, 128, (), {"": "30 %"}, 15.47,
        ),
        "AlexNet": Case(
            _alexnet(st.Flatten(), st.Linear(10)), LARGE, 128, 2, alexnet,
            dict.fromkeys(alexnet[1:], "91 %") | {"conv1": "14 to 18 %", "": "67 %"}, 34.52,
        ),
        "VGG-16": Case(
            convolutional((3, 224, 224), vgg, lr=0.01), LARGE, 16, 0, vgg16, {"": "92 %"}, 46.99,
        ),
        "AlexNet-FC": Case(
            _alexnet(*classifier), LARGEST, 128, 0, alexnet + linear, {"": "67 %"}, 34.52,
        ),
        "VGG-16-FC": Case(
            convolutional((3, 224, 224), vgg.replace("FC10", "FC4096-FC4096-FC1000"), lr=0.01), LARGEST, 16, 0,
            vgg16 + linear, {"": "92 %"}, 46.99,
        ),
    }  # fmt: skip


class Bench:
    """A case on the array: programs, their model, and the RTL once it is asked for."""

    def __init__(self, case, batch):
        self.case, self.batch = case, batch
        self.plan = lower(case.network, LANES)
        self.compiler = Compiler(self.plan, NUMBERS, batch, case.depths, data_bits=DATA_BITS)
        self.classes = self.plan.layers[-1].m
        self.timing = KernelTiming(NUMBERS, LANES, self.classes, data_bits=DATA_BITS)
        self._library = None

    def programs(self):
        """(phase, layer, program) of what is taken one by one, and the whole step as ("step", "")."""
        compiler, layers = self.compiler, self.case.layers
        if layers:
            for phase, name in compiler.phases:
                if name in layers:
                    yield phase, name, compiler.single(phase, name)
        else:
            yield "step", "", compiler.step()

    def useful(self, phase, name):
        """Cycles of a phase if all multipliers did what the net needs."""
        layers = {layer.name: layer for layer in self.plan.layers}
        if phase == "step":
            return sum(self.useful(*each) for each in self.compiler.phases)
        layer = layers[name]
        pixels = layer.out_rows * layer.out_columns
        if phase == "BP":
            pixels = layer.rows * layer.columns / layer.stride**2
        return self.batch * layer.m * layer.n * layer.kernel**2 * pixels / LANES**2

    def simulated(self, program):
        """Cycles of a program in RTL."""
        if self._library is None:
            core = UnifiedCore(
                NUMBERS, LANES, self.compiler.depths, self.classes, self.compiler.fold,
                data_bits=DATA_BITS,
            )  # fmt: skip
            self._library = compile_memory_design(
                lambda: verilog_of(UnifiedIP(core), "streamtrain"), DATA_BITS
            )
        image, address = np.frombuffer(program.image(), np.uint8), self.compiler.programs
        size = -(-(address + len(image)) // 4096) * 4096
        with closing(SimulatedMemory(self._library, size, timing=MemoryTiming())) as memory:
            memory.contents[address : address + len(image)] = image
            memory.write(REGISTERS["PROGRAM"].address, address)
            memory.write(REGISTERS["CONTROL"].address, 1)
            memory.wait_for_irq(10**10)
            return memory.read(REGISTERS["CYCLES"].address)


@dataclass
class Figures:
    """Cycles of some phases, and those of them that the net needs; simulated and by the model.

    ``binds`` is what the model says that they wait for.
    """

    simulated: int = 0
    estimate: int = 0
    needed: float = 0
    model: int = 0
    needed_by_model: float = 0
    binds: str = ""

    def __add__(self, other):
        sums = [a + b for a, b in zip(list(vars(self).values())[:-1], vars(other).values(), strict=False)]
        return Figures(*sums)

    def row(self, name, batch, theirs):
        cells = ["-"] * 3
        if self.simulated:
            error = self.estimate / self.simulated - 1
            used = self.needed / self.simulated
            cells = [f"{self.simulated:,}", f"{error:+.2%}", f"{used:.1%}"]
        model = f"{self.model / batch:,.0f}", self.binds, f"{self.needed_by_model / self.model:.1%}"
        return [name, *cells, *model, theirs]


def measure(case, batch):
    """(phase, layer, :class:`Figures`) of what is taken one by one; ``batch`` is what is simulated, if any."""
    full = Bench(case, case.batch)
    small = Bench(case, batch) if batch else None
    others = small.programs() if small else full.programs()
    for (phase, layer, program), (_, _, other) in zip(full.programs(), others, strict=True):
        model = full.timing.cycles(program)
        figures = Figures(
            model=model.total, needed_by_model=full.useful(phase, layer), binds=model.binds
        )
        if small:
            figures.simulated = small.simulated(other)
            figures.estimate = small.timing.cycles(other).total
            figures.needed = small.useful(phase, layer)
        yield phase, layer, figures


BOARDS = {"zcu102": DATA_BITS, "zynq7100": DATA_BITS, "pynq_z1": 64}  # bits of memory in a cycle
FORMATS = "fp32", "bf16", "fixed<16,8>"


def best(name, case, board, numbers):
    """A row with the design that trains a case fastest on a board's device, whatever DRAM it has."""
    target = load_board(board)
    plan = plan_kernel(
        case.network, kernel_arithmetic(numbers), case.batch, target.device, data_bits=BOARDS[board]
    )
    estimate, used = estimate_kernel(plan), estimate_resources(plan).total
    gflops = 2e-3 * case.network.training_macs * target.clock_mhz / estimate.cycles
    return [
        name, board, numbers, str(plan.array.lanes), f"{target.clock_mhz:g}", f"{gflops:.1f}",
        f"{estimate.utilisation:.0%}", estimate.step.binds, f"{used.dsp:,}", f"{used.bram36:g}", f"{used.lut:,.0f}",
    ]  # fmt: skip


def show_best(known, nets, boards):
    """Print the best designs, net after net."""
    header = ("", "board", "format", "lanes", "MHz", "GFLOPS\nmodel", "of the\narray", "binds",
              "DSP", "BRAM36", "LUT")  # fmt: skip
    for name in nets:
        rows = [best(name, known[name], board, own) for board in boards for own in FORMATS]
        print(columns(header, rows), flush=True)


def verify(source):
    """Train 1X in RTL and on the golden model: 3 mini-batches of 4 images, each format, awkward memory.

    Returns whether all bits are the same.
    """
    data, same = st.data.load(source), True
    for numbers in FORMATS:
        design = st.plan(
            cases()["1X"].network, "zcu102", core="unified", numbers=numbers, lanes=LANES, max_batch=4,
            data_bits=DATA_BITS,
        )  # fmt: skip
        found = design.verify(
            3, x=data.train_x[:12], y=data.train_y[:12],
            memory=MemoryTiming(read_latency=40, stall=0.2), progress=False,
        )  # fmt: skip
        print(f"{numbers}: {found}", flush=True)
        same &= found.difference is None
    return same


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    known = cases()
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=known, default=list(known), help="only these")
    parser.add_argument("--simulate", action="store_true", help="run the RTL, too")
    parser.add_argument("--batch", type=int, metavar="N", help="mini-batch to simulate")
    parser.add_argument("--best", action="store_true", help="the best designs for boards instead")
    parser.add_argument("--boards", nargs="+", choices=BOARDS, default=["zcu102", "zynq7100"], help="for these")
    parser.add_argument("--phases", action="store_true", help="take whole steps apart, too")
    parser.add_argument(
        "--verify", metavar="SOURCE", help="compare 1X in RTL with the golden model instead, on these images"
    )
    options = parser.parse_args(arguments)
    if options.verify:
        return int(not verify(options.verify))
    if options.best:
        show_best(known, options.nets, options.boards)
        return 0
    found, rates = [], []
    for name in options.nets:
        case = known[name]
        if options.phases:
            layers = tuple(layer.name for layer in lower(case.network, LANES).layers)
            case = replace(case, layers=case.layers or layers)
        batch = (options.batch or case.simulated) if options.simulate and case.simulated else 0
        total = Figures()
        for phase, layer, figures in measure(case, batch):
            total += figures
            row = figures.row(f"{name} {layer} {phase}", case.batch, case.theirs.get(layer, ""))
            print("  ".join(row), flush=True)
            if layer in case.theirs and layer:
                found.append(row)
        found.append(total.row(f"{name}, all", case.batch, case.theirs[""]))
        rate = 2 * LANES**2 * CLOCK_MHZ / 1000 * total.needed_by_model / total.model
        rates.append([name, str(case.batch), f"{rate:.1f}", f"{case.gflops:.1f}"])
    header = ("", "simulated\ncycles", "model's\nerror", "of the array\nsimulated", "cycles an image\nmodel",
              "binds", "of the array\nmodel", "\nEF-Train")  # fmt: skip
    print(columns(header, found))
    print()
    print(columns(("at 100 MHz", "mini-batch", "GFLOPS\nmodel", "\nEF-Train"), rates))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
