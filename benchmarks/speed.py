"""Cycles of a training step, and samples per second of everything that trains, for the five nets.

    python benchmarks/speed.py
    python benchmarks/speed.py --nets M C --json speed.json

It takes what ``pip install "streamtrain[dev]"`` installs, PyTorch for one.

The golden model and PyTorch train the same net on the same images in turn, on one thread each, for
several rounds; what is shown are medians over the rounds, and of their ratio in each round. The
RTL is compiled once for batch 1 and once for mini-batches. Each column says how its figures came
about: *measured* on this machine, counted in the *simulated* RTL, *estimated* from the plan, or
*calculated* from the net.
"""

import os
import platform
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import closing, contextmanager, nullcontext
from json import dumps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from columns import columns
from nets import NETS, images
from threadpoolctl import threadpool_limits

import streamtrain as st
from streamtrain.simulate import SimulatedDevice, cycles_per_sample, steady_samples

TOO_LARGE = ("X",)
"""Nets whose RTL takes very long to compile; only simulated when asked for."""

ROUNDS = 5
ROUND_SECONDS = 1.0  # of each contender in a round
RUNS = 3  # of the RTL over the same samples


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    results = []
    for name in options.nets or NETS:
        net = NETS[name]
        data = images(net, options.data)
        simulated = not options.no_simulate and (name not in TOO_LARGE or options.simulate_all)
        _say(f"{name}: {net.text}, {data.source}")
        # One design for both: batch 1 in hardware that could accumulate takes no cycle more.
        designs = dict.fromkeys((1, options.batch), net.design(max_batch=options.batch))
        result = {
            "net": name,
            "network": net.text,
            "data": data.source,
            "in_flight": designs[1].plan.in_flight,
            **cycles(designs),
            **software(designs[1], data, rounds=options.rounds, seconds=options.seconds),
        }
        if simulated:
            with _empty_cache() if options.fresh else nullcontext():
                for batch, design in designs.items():
                    result["batches"][str(batch)].update(
                        simulate(design, data, batch=batch, steps=options.steps, say=_say)
                    )
        results.append(compared(result, net))
    print(describe(results))
    if options.json:
        document = {"machine": machine(), "basis": BASIS, "nets": results}
        options.json.write_text(dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, help="only these")
    parser.add_argument(
        "--steps", type=int, default=64, metavar="N", help="samples to simulate (%(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="size of mini-batches (%(default)s)"
    )
    parser.add_argument("--no-simulate", action="store_true", help="compile and simulate nothing")
    parser.add_argument(
        "--simulate-all", action="store_true", help=f"even {', '.join(TOO_LARGE)}, which is large"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="compile anew what is in the cache, to measure that"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="of golden model and PyTorch in turn (%(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=ROUND_SECONDS,
        metavar="S",
        help="of each in a round (%(default)s)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data sets (default: shared/data, or random)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def _say(text):
    print(text, file=sys.stderr, flush=True)


# -- Cycles ----------------------------------------------------------------------------------------


def cycles(designs):
    """What is known of each batch size's design before it is simulated.

    Parameters
    ----------
    designs : dict of :class:`~streamtrain.design.Design` by batch size
    """
    design = designs[1]
    return {
        "multipliers": design.multipliers,
        "foldings": {name: list(folding) for name, folding in design.foldings.items()},
        "training_macs": design.network.training_macs,
        "bound_cycles": design.bound_cycles,
        "batches": {
            str(batch): {"estimated_cycles": own.estimate(batch).cycles}
            for batch, own in designs.items()
        },
    }


def simulate(design, data, *, batch, steps, say=lambda text: None):
    """Train in simulated RTL, samples following one another without a pause.

    Parameters
    ----------
    design : :class:`~streamtrain.design.Design`
    data : :class:`~streamtrain.data.Dataset`
    batch : :class:`int`
        Samples between updates.
    steps : :class:`int`
        Samples that cycles are counted over, rounded up to whole mini-batches. One more mini-batch
        comes first, which fills the pipeline.
    say : callable
        Gets a line of text as each step of compiling begins, with what it took before.

    Returns a dictionary of cycles per sample, seconds of generating Verilog and of compiling it
    (None if the model was in the cache), and samples per second.
    """
    marks = []

    def report(text):
        marks.append((text, perf_counter()))
        say(f"  batch {batch}: {text}")

    with closing(SimulatedDevice(design.plan, report=report)) as device:
        ready = perf_counter()
        x, commands, settle = steady_samples(
            design.plan, steps, batch, x=data.train_x, y=data.train_y
        )
        paces = []
        for _ in range(RUNS):
            began = perf_counter()
            ends = device.run(x, commands).cycles
            paces.append(len(x) / (perf_counter() - began))
    times = dict(marks)
    begun, generated = times.get("generating Verilog"), times.get("verilating")
    cached = begun is None or generated is None
    return {
        "simulated_cycles": cycles_per_sample(ends, settle),
        "simulated_samples": len(x) - settle,
        "generate_seconds": None if cached else generated - begun,
        "compile_seconds": None if cached else ready - generated,
        "rtl_samples_per_second": median(paces),
    }


@contextmanager
def _empty_cache():
    """Keep compiled models in a folder that is empty, and removed afterwards."""
    before = os.environ.get("STREAMTRAIN_CACHE")
    with TemporaryDirectory(prefix="streamtrain-") as folder:
        os.environ["STREAMTRAIN_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("STREAMTRAIN_CACHE")
            if before is not None:
                os.environ["STREAMTRAIN_CACHE"] = before


# -- Software --------------------------------------------------------------------------------------


def software(design, data, *, rounds=ROUNDS, seconds=ROUND_SECONDS):
    """Samples per second of the golden model and of PyTorch, batch 1, one thread.

    The contenders take turns in each round, so that what else the machine does strikes all alike.
    PyTorch trains with float32, eagerly, once with SGD's loop over the tensors and once with its
    fused kernel.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            contenders = {
                "golden": _golden(design, data),
                "torch": _torch(design.network, data, fused=False),
                "torch_fused": _torch(design.network, data, fused=True),
            }
            sizes = {}
            for name, train in contenders.items():
                train(2)  # compiles, or allocates
                pace = train(20)
                sizes[name] = max(2, int(seconds * pace))
            measured = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, train in contenders.items():
                    measured[name].append(train(sizes[name]))
    finally:
        torch.set_num_threads(threads)
    paces = {name: median(found) for name, found in measured.items()}
    return {
        "golden_samples_per_second": paces["golden"],
        "torch_samples_per_second": paces["torch"],
        "torch_fused_samples_per_second": paces["torch_fused"],
        "golden_per_torch": _ratio(measured["golden"], measured["torch"]),
        "golden_per_torch_fused": _ratio(measured["golden"], measured["torch_fused"]),
        "rounds": measured,
    }


def _ratio(some, others):
    return median(a / b for a, b in zip(some, others, strict=True))


def _golden(design, data):
    """A function that trains with so many images and returns samples per second."""
    trainer = design.golden()

    def train(count):
        which = np.arange(count) % len(data.train_x)
        x, y = data.train_x[which], data.train_y[which]
        return trainer.fit(x, y, progress=False).samples_per_second

    return train


def torch_model(network):
    """The network in PyTorch, with the same first weights."""
    modules, weights = [], network.initial_weights()
    for layer, shape in zip(network.layers, network.shapes, strict=False):
        match layer:
            case st.Conv2d():
                module = torch.nn.Conv2d(
                    shape[0], layer.channels, layer.kernel, padding=layer.pad, bias=layer.bias
                )
            case st.Linear():
                module = torch.nn.Linear(shape[0], layer.features, bias=layer.bias)
            case st.MaxPool2d():
                module = torch.nn.MaxPool2d(layer.kernel)
            case st.ReLU():
                module = torch.nn.ReLU()
            case st.Flatten():
                module = torch.nn.Flatten()
            case _:
                raise TypeError(f"No PyTorch module is known for {layer!r}")
        for kind, tensor in module.named_parameters():
            tensor.data = torch.tensor(weights[f"{layer.name}.{kind}"], dtype=torch.float32)
        modules.append(module)
    return torch.nn.Sequential(*modules)


def _torch(network, data, *, fused):
    """Like :func:`_golden`, with PyTorch."""
    model = torch_model(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=network.optimizer.lr, fused=fused)
    entropy = torch.nn.CrossEntropyLoss()
    held = min(len(data.train_x), 1000)
    x = data.train_x[:held]
    x = torch.tensor(x / 255 if x.dtype == np.uint8 else x, dtype=torch.float32)
    y = torch.tensor(data.train_y[:held])

    def train(count):
        began = perf_counter()
        for position in range(count):
            at = position % held
            optimizer.zero_grad(set_to_none=True)
            entropy(model(x[at : at + 1]), y[at : at + 1]).backward()
            optimizer.step()
        return count / (perf_counter() - began)

    return train


# -- Tables ----------------------------------------------------------------------------------------

BASIS = {
    "multipliers": "planned",
    "training_macs": "calculated: FP, BP and WU of a sample, without the first layer's BP",
    "bound_cycles": "calculated: training_macs / multipliers",
    "estimated_cycles": "estimated from the plan: cycles of a sample, updates included",
    "simulated_cycles": "simulated: mean over samples that follow one another without a pause",
    "utilisation": "bound_cycles / simulated_cycles",
    "estimate_error": "estimated_cycles / simulated_cycles - 1",
    "saving": "1 - simulated_cycles / simulated_cycles of batch 1",
    "generate_seconds": "measured: from plan to Verilog; null from the cache",
    "compile_seconds": "measured: Verilator, C++ compiler and loading; null from the cache",
    "rtl_samples_per_second": "measured: simulated RTL, median of a few runs over all samples",
    "golden_samples_per_second": "measured, one thread, batch 1, median of the rounds",
    "torch_samples_per_second": "measured, eager, float32, one thread, batch 1, median",
    "torch_fused_samples_per_second": "as before, with SGD(fused=True)",
    "golden_per_torch": "measured: median of the ratios within a round",
}
"""How each figure came about."""


def compared(result, net):
    """A net's result with what follows from its figures, and the goals for them."""
    first = result["batches"]["1"].get("simulated_cycles")
    for batch, own in result["batches"].items():
        found = own.get("simulated_cycles")
        if found is None:
            continue
        own["utilisation"] = result["bound_cycles"] / found
        own["estimate_error"] = own["estimated_cycles"] / found - 1
        if batch != "1":
            own["saving"] = 1 - found / first
    goal = net.golden_speed and net.golden_speed[0] / net.golden_speed[1] / 2
    result["goals"] = {
        "cycles": net.most_cycles,
        "saving": net.least_saving,
        "golden_per_torch": goal,
    }
    return result


def machine():
    """Where all was measured."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "processor": processor,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "streamtrain": st.__version__,
    }


def _text(value, form):
    return "" if value is None else format(value, form)


def describe(results):
    """Results as tables, one of cycles and one of speed."""
    rows, speeds = [], []
    for result in results:
        goals = result["goals"]
        for batch, own in result["batches"].items():
            single = batch == "1"
            head = (
                result["net"],
                f"{result['multipliers']:,}",
                f"{result['training_macs'] / 1e6:.3f} M",
                f"{result['bound_cycles']:,.0f}",
            )
            rows.append((
                *(head if single else ("", "", "", "")),
                batch,
                _text(own.get("simulated_cycles"), ",.0f"),
                _text(goals["cycles"] if single else None, ",d"),
                _text(own.get("utilisation"), ".1%"),
                _text(own["estimated_cycles"], ",d"),
                _text(own.get("estimate_error"), "+.1%"),
                _text(own.get("saving"), ".1%"),
                _text(None if single else goals["saving"], ".0%"),
            ))
        own = result["batches"]["1"]
        waits = [own.get(f"{what}_seconds") for what in ("generate", "compile")]
        if "simulated_cycles" in own:
            waits = ["cached" if wait is None else f"{wait:.1f}" for wait in waits]
        speeds.append((
            result["net"],
            _text(result["golden_samples_per_second"], ",.0f"),
            _text(result["torch_samples_per_second"], ",.0f"),
            _text(result["torch_fused_samples_per_second"], ",.0f"),
            _text(result["golden_per_torch"], ".2f"),
            _text(goals["golden_per_torch"], ".2f"),
            _text(own.get("rtl_samples_per_second"), ".1f"),
            *(wait or "" for wait in waits),
        ))
    found = machine()
    return "\n".join([
        f"Cycles for each sample while training, {results[0]['in_flight']} samples in flight",
        "",
        columns(_CYCLES, rows),
        "",
        f"Samples per second at batch 1, on one thread of {found['processor']}, "
        f"torch {found['torch']}",
        "",
        columns(_SPEEDS, speeds),
    ])


_CYCLES = (
    "net",
    "multipliers\nplanned",
    "MACs\ncalculated",
    "bound\ncalculated",
    "batch",
    "cycles\nsimulated",
    "goal\nat most",
    "utilisation\nsimulated",
    "cycles\nestimated",
    "its error",
    "saved\nsimulated",
    "goal\nat least",
)
_SPEEDS = (
    "net",
    "golden\nmeasured",
    "PyTorch\nmeasured",
    "fused SGD\nmeasured",
    "golden/PyTorch\nmeasured",
    "goal\nat least",
    "RTL\nmeasured",
    "Verilog s\nmeasured",
    "compile s\nmeasured",
)


if __name__ == "__main__":
    sys.exit(main())
