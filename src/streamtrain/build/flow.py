"""The steps of a build, and the summary that they fill."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console

from streamtrain.build.errors import BuildError
from streamtrain.build.folder import output_folder
from streamtrain.build.manifest import write_manifest
from streamtrain.build.report import RESOURCES
from streamtrain.build.state import BuildState
from streamtrain.build.steps import SEARCH_STEP, STEPS, Steps
from streamtrain.tables import html_table, text_table

__all__ = ["SEARCH_STEP", "STEPS", "BuildResult", "build", "build_planned"]


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Parameters
    ----------
    out : :class:`pathlib.Path`
        The folder.
    summary : dict
        What ``report/summary.json`` holds.
    """

    out: Path
    summary: dict

    def table(self):
        """Header and rows: the figures that matter, and where each comes from."""
        s = self.summary
        rows = [
            ("clock", f"{s['clock_mhz']:g} MHz", "planned"),
            ("multipliers", f"{s['multipliers']:,}", "planned"),
            ("bound", f"{s['bound_cycles']:,.0f} cycles", "calculated"),
        ]
        if "simulated" in s["cycles_per_step"]:
            cycles, rate = s["cycles_per_step"]["simulated"], s["samples_per_second"]
            rows += [
                ("cycles per sample", f"{cycles:,.0f}", "simulated"),
                ("utilisation", f"{s['utilisation']:.1%}", "simulated"),
                ("samples per second", f"{rate:,.0f}", "simulated cycles at the clock"),
            ]
        if "resources" in s:
            available = s["resources"]["available"]
            made = "routed" if "routed" in s["resources"] else "synthesised"
            used = s["resources"][made]
            rows += [
                (name, f"{used[key]:,} of {available[key]:,}", made)
                for key, name in RESOURCES.items()
            ]
        if "timing" in s:
            rows.append(("fastest clock", f"{s['timing']['fmax_mhz']:.4g} MHz", "routed"))
        if "verify" in s:
            equal = "yes" if s["verify"]["bit_exact"] else "no"
            rows.append(("equals golden", equal, f"{s['verify']['steps']:,} steps"))
        if "accuracy" in s:
            accuracy = s["accuracy"]
            images = f"{accuracy['test_images']:,} test images"
            rows += [
                ("online accuracy", f"{accuracy['online_train']:.1%}", "simulated"),
                ("test accuracy", f"{accuracy['test']:.1%}", images),
                ("the same in float", f"{accuracy['test_float']:.1%}", images),
            ]
        return (s["network"], s["board"], ""), rows

    def __str__(self):
        report = self.out / "report" / "report.html"
        return f"{text_table(*self.table())}\n\n{report if report.exists() else self.out}"

    def _repr_html_(self):
        return html_table(*self.table())


def build(
    design,
    out,
    *,
    data="digits",
    samples=None,
    steps=None,
    seed=0,
    stream_bytes=None,
    start=None,
    stop=None,
    progress=True,
):
    """Write hardware, drivers, a manifest and a report of a design to a folder.

    The steps are those of ``python -m streamtrain.build``: *generate* Verilog; *verify* that it
    equals the golden model; *train* it in simulation on real images; *package* it as an IP with registers,
    drivers and Vivado's scripts; *synthesise* it; *implement* it, where there are tools for the board;
    *report*. ``out`` appears when all of them have succeeded, or all up to ``stop``.

    A build that fails or is interrupted keeps what its finished steps made in ``OUT.partial``, and the
    same build goes on from there; so it does after ``stop``.

    Parameters
    ----------
    design : :class:`~streamtrain.design.Design` or :class:`~streamtrain.design.UnifiedDesign`
    out : path
        Folder to make. An earlier build there is replaced at the end; a folder with other files is
        refused.
    data : :class:`str` or :class:`streamtrain.data.Dataset`
        Images, or what :func:`streamtrain.data.load` takes.
    samples : :class:`int`, optional
        Images to train on, one at a time, or with the unified core in mini-batches of ``max_batch``: passes
        through the training images, each in a new random order. Without, 4,096, or eight mini-batches.
    steps : :class:`int`, optional
        Training steps that are compared with the golden model bit for bit: 200 without, or three mini-batches.
    seed : :class:`int`
        Of the order of the images. The first weights come from the network's own seed.
    stream_bytes : :class:`int`, optional
        Bytes of TDATA of the streaming core's streams; 4 without.
    start : :class:`str`, optional
        Do this step and those after it anew, and take those before from the build that is at ``out``, or
        was interrupted. ``"plan"`` is all of them.
    stop : :class:`str`, optional
        The last step to do; the folder then has what there is so far.
    progress : :class:`bool`
        Whether to show a line for each step, on standard error.

    Returns
    -------
    :class:`BuildResult`

    Raises
    ------
    ValueError, OSError
        Before anything long begins, if ``out`` cannot be written, the data cannot be read or
        do not fit the network, or there is no build to start from.
    BuildError
        If a step fails, with the path of its log: ``OUT.failed.log``.
    """
    return build_planned(
        lambda front: design,
        out,
        search=None,
        data=data,
        samples=samples,
        steps=steps,
        seed=seed,
        stream_bytes=stream_bytes,
        start=start,
        stop=stop,
        progress=progress,
    )


def build_planned(
    make_design, out, *, search, data, samples, steps, seed, stream_bytes, start, stop, progress
):
    """Like :func:`build`, for a design that a step makes by calling ``make_design``.

    It is given the front that ``search`` finds in the step before, or None without a
    :class:`~streamtrain.build.search.Search`.
    """
    # Cycles per step are the time from one result to the next, so there must be two.
    for what, value, low in (("samples", samples, 2), ("steps", steps, 1), ("seed", seed, 0)):
        if value is not None and value < low:
            raise ValueError(f"{what} must be at least {low}, not {value!r}")
    asked = (SEARCH_STEP, *STEPS) if search else STEPS
    for what, name in (("start", start), ("stop", stop)):
        if name is not None and name not in asked:
            raise ValueError(f"{what} must be one of {', '.join(asked)}, not {name!r}")
    if start and stop and asked.index(stop) < asked.index(start):
        raise ValueError(f"Step {stop!r}, to stop after, comes before {start!r}, to start with")
    out = Path(out).resolve()
    console = Console(stderr=True, quiet=not progress, highlight=False)
    with output_folder(out) as folder:
        failed_log = out.with_name(f"{out.name}.failed.log")
        failed_log.unlink(missing_ok=True)
        steps_of = Steps(make_design, search, data, samples, steps, seed, stream_bytes, console)
        state = BuildState(folder, out, asked, steps_of.configuration())
        state.begin(start)
        steps_of.use(state)
        for step in asked[: asked.index(stop) + 1 if stop else None]:
            if step in state.finished and step != "plan":  # which the others need
                console.print(f"{step:<11}{'':8}    done before", markup=False)
                continue
            started = perf_counter()
            try:
                note = getattr(steps_of, step)()
            except Exception as error:
                if step in {SEARCH_STEP, "plan"} and not isinstance(error, BuildError):
                    raise
                failed_log.write_text(_story(step, error), encoding="utf-8")
                raise BuildError(_first_line(error), step=step, log=failed_log) from error
            seconds = perf_counter() - started
            state.finish(step, seconds)
            console.print(f"{step:<11}{seconds:8.1f} s  {note}", markup=False, soft_wrap=True)
        write_manifest(folder, steps_of.made())
    return BuildResult(out, state.summary)


def _first_line(error):
    text = error.reason if isinstance(error, BuildError) else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__


def _story(step, error):
    """All that is known about a failure: where it happened, and the log of the tool that failed."""
    story = f"Step {step}\n\n{''.join(traceback.format_exception(error))}"
    log = getattr(error, "log", None)
    return f"{story}\n{log}:\n\n{Path(log).read_text(errors='replace')}" if log else story
