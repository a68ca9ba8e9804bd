"""Run Vivado on a project's scripts, here or on another machine, and read what it reports."""

import shutil
import subprocess
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from shlex import quote

from amaranth.build.run import BuildPlan

from streamtrain.vivado.reports import read_reports

__all__ = ["VivadoRun", "run"]

STEP = "vivado"
_LOG = "vivado.log"
_REPORTS = ("utilization.rpt", "timing_summary.rpt", "power.rpt")
# Of each script: folder of its reports, and what else it makes.
_SCRIPTS = {
    "build.tcl": ("reports", ("streamtrain.bit", "streamtrain.hwh", "streamtrain.xsa")),
    "out_of_context.tcl": ("reports_out_of_context", ("out_of_context.dcp",)),
}
_COMMAND = ("vivado", "-mode", "batch", "-notrace", "-nojournal", "-log", _LOG, "-source")
_NOT_FOUND = 127  # what a shell says of a command that it does not find


@dataclass(frozen=True)
class VivadoRun:
    """What came of :func:`run`.

    Parameters
    ----------
    ran : :class:`bool`
        Whether there was a Vivado to run.
    note : :class:`str`
        In a line: what it did, or why it did not run.
    version : :class:`str`, optional
        Of Vivado, as it says itself.
    log : :class:`pathlib.Path`, optional
    products : tuple of :class:`pathlib.Path`
        Bitstream and so on.
    summary : dict
        ``resources``, ``timing`` and ``power`` of the routed design:
        :func:`streamtrain.vivado.reports.read_reports`.
    """

    ran: bool
    note: str
    version: str | None = None
    log: Path | None = None
    products: tuple = ()
    summary: dict = field(default_factory=dict)

    def __str__(self):
        return self.note


def run(folder, *, script=None, host=None, root="streamtrain-vivado"):
    """Run Vivado on a project that :func:`~streamtrain.vivado.write_project` wrote.

    Parameters
    ----------
    folder : path
        The folder that has ``ip/`` and ``vivado/``.
    script : :class:`str`, optional
        ``build.tcl`` or ``out_of_context.tcl``. Without it, the first that is there.
    host : dict, optional
        Another machine, by SSH: the arguments of :meth:`paramiko.client.SSHClient.connect`, such as
        ``{"hostname": "fpga-server", "username": "me"}``. Its ``~/.profile`` puts Vivado on the PATH.
        Its host key must be known, and `paramiko <https://www.paramiko.org>`_ installed here.
    root : :class:`str`
        Folder for the project on that machine; it is made.

    Returns a :class:`VivadoRun`. Where Vivado is not on the PATH, it says so, and nothing fails.

    Raises
    ------
    FileNotFoundError
        If there is no such script.
    BuildError
        If Vivado fails, with its first error and its log; or its reports cannot be read.
    """
    folder = Path(folder).resolve() / "vivado"
    there = [name for name in _SCRIPTS if (folder / name).is_file()]
    if script is None and there:
        script = there[0]
    if script not in there:
        wanted = script or " or ".join(_SCRIPTS)
        raise FileNotFoundError(f"There is no {wanted} in {folder}; write_project makes it")
    if host is None:
        version, missing = _run_here(folder, script)
    else:
        version, missing = _run_there(folder, script, host, root)
    if missing:
        return VivadoRun(False, missing)
    reports, products = _SCRIPTS[script]
    log = folder / _LOG
    try:
        summary = read_reports(folder / reports)
    except (OSError, ValueError) as error:
        raise _failed(str(error), log) from None
    timing = summary["timing"]
    met = "met" if timing["met"] else f"missed by {-min(timing['wns_ns'], timing['whs_ns']):g} ns"
    return VivadoRun(
        True,
        f"{version}: timing {met} at {timing['clock_mhz']:.4g} MHz, "
        f"{timing['fmax_mhz']:.4g} MHz possible",
        version,
        log,
        tuple(folder / name for name in products),
        summary,
    )


def _run_here(folder, script):
    """Returns Vivado's version, and why it did not run, if it did not."""
    vivado = shutil.which("vivado")
    if vivado is None:
        return None, "not run: vivado is not on the PATH"
    for name in _reports_of(script):
        (folder / name).unlink(missing_ok=True)  # or an earlier run's could pass for this one's
    done = subprocess.run(
        [vivado, *_COMMAND[1:], script],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    log = folder / _LOG
    if not log.exists():  # it did not get so far
        log.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        raise _failed(_first_error(log), log)
    return _version(log), None


def _run_there(folder, script, host, root):
    """The same on another machine; its files come back to ``folder``."""
    status = "exit_status"
    plan = BuildPlan("run")
    for path in sorted([*folder.parent.glob("ip/*"), *folder.glob("*")]):
        if path.suffix in {".v", ".tcl", ".xdc"}:
            plan.add_file(path.relative_to(folder.parent).as_posix(), path.read_bytes())
    # Amaranth does not look at the exit status, so it goes to a file.
    reports = " ".join(_reports_of(script))
    command = " ".join(map(quote, (*_COMMAND, script)))
    plan.add_file(
        "run.sh",
        f"cd vivado\nrm -f {status} {_LOG} {reports}\n{command} >output.log 2>&1\necho $? >{status}\n",
    )
    name = host.get("hostname", "the other machine")
    try:
        with redirect_stdout(StringIO()):  # it prints what the connection's shell says
            products = plan.execute_remote_ssh(connect_to=host, root=root)
        code = int(products.get(f"vivado/{status}", "t"))
    except ImportError:
        raise _failed("paramiko is not installed: pip install 'streamtrain[remote]'") from None
    except Exception as error:  # paramiko's own and the network's
        raise _failed(f"no run on {name}: {error or type(error).__name__}") from error
    if code == _NOT_FOUND:
        return None, f"not run: vivado is not on the PATH of {name}"
    log = folder / _LOG
    log.write_bytes(_fetch(products, _LOG) or _fetch(products, "output.log") or b"")
    if code:
        raise _failed(_first_error(log), log)
    for file in (*_reports_of(script), *_SCRIPTS[script][1]):
        content = _fetch(products, file)
        if content is None:
            raise _failed(f"{name} has no {root}/vivado/{file}", log)
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    return _version(log), None


def _failed(reason, log=None):
    from streamtrain.build.errors import BuildError  # late: a build imports this module

    return BuildError(reason, step=STEP, log=log)


def _reports_of(script):
    return [f"{_SCRIPTS[script][0]}/{name}" for name in _REPORTS]


def _fetch(products, file):
    """Content of a file of the other machine, or None if it is not there."""
    try:
        return products.get(f"vivado/{file}")
    except FileNotFoundError:
        return None


def _version(log):
    """What the log's head calls the program, such as ``Vivado v2023.2``."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.lstrip("#* ").split()
        if words[:1] == ["Vivado"] and len(words) > 1 and words[1].startswith("v"):
            return " ".join(words[:2])
    return "Vivado of an unknown version"


def _first_error(log):
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines[-1:] or ["Vivado wrote nothing"])[0]
