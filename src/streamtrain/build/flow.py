"""The steps of a build, and the summary that they fill."""

import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console

from streamtrain import data as datasets
from streamtrain.build.errors import BuildError
from streamtrain.build.folder import MANIFEST, output_folder
from streamtrain.build.manifest import file_hashes, versions
from streamtrain.build.report import RESOURCES, render
from streamtrain.build.synth import SYNTHESISED, synthesise, yosys_version
from streamtrain.cache import content_key
from streamtrain.explore.devices import load_board
from streamtrain.network import network_text
from streamtrain.pipeline.generate import generate_verilog
from streamtrain.tables import html_table, text_table

__all__ = ["SEARCH_STEP", "STEPS", "BuildResult", "build", "build_planned"]

STEPS = ("plan", "generate", "verify", "train", "synthesise", "report")

SEARCH_STEP = "explore"
"""The step before them, if a search finds the design."""

TOP = "streamtrain"
"""Name of the top module."""

_BASIS = {
    "bound_cycles": "calculated: multiply-accumulates of a step / multipliers",
    "layers": "calculated: cycles in which a layer's multipliers work",
    "cycles_per_step.estimated": "estimated from the plan",
    "cycles_per_step.simulated": "simulated: mean over the training samples, batch 1",
    "utilisation": "bound_cycles / cycles_per_step.simulated",
    "samples_per_second": "simulated cycles at the planned clock, which was not placed and routed",
    "resources.synthesised": "synthesised by Yosys, before place and route",
    "resources.available": "data sheet of the part",
    "verify": "simulated RTL against the golden model",
    "accuracy.online_train": "simulated RTL: each training image before it is learnt",
    "accuracy.test": "golden model with the weights that the simulated RTL learnt",
    "accuracy.test_float": "float twin of the golden model: same images, order and first weights",
    "saturations": "simulated RTL, over all training samples",
    "search.chosen": "estimated, as all designs that the search compared",
}


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
        used, available = s["resources"]["synthesised"], s["resources"]["available"]
        accuracy, verify = s["accuracy"], s["verify"]
        images = f"{accuracy['test_images']:,} test images"
        rows = [
            ("clock", f"{s['clock_mhz']:g} MHz", "planned"),
            ("multipliers", f"{s['multipliers']:,}", "planned"),
            ("cycles per step", f"{s['cycles_per_step']['simulated']:,.0f}", "simulated"),
            ("bound", f"{s['bound_cycles']:,.0f} cycles", "calculated"),
            ("utilisation", f"{s['utilisation']:.1%}", "simulated"),
            (
                "samples per second",
                f"{s['samples_per_second']:,.0f}",
                "simulated cycles at the clock",
            ),
            *(
                (name, f"{used[key]:,} of {available[key]:,}", "synthesised")
                for key, name in RESOURCES.items()
            ),
            ("equals golden", "yes" if verify["bit_exact"] else "no", f"{verify['steps']:,} steps"),
            ("online accuracy", f"{accuracy['online_train']:.1%}", "simulated"),
            ("test accuracy", f"{accuracy['test']:.1%}", images),
            ("the same in float", f"{accuracy['test_float']:.1%}", images),
        ]
        return (s["network"], s["board"], ""), rows

    def __str__(self):
        return f"{text_table(*self.table())}\n\n{self.out / 'report' / 'report.html'}"

    def _repr_html_(self):
        return html_table(*self.table())


def build(design, out, *, data="digits", samples=4096, steps=200, seed=0, progress=True):
    """Write Verilog, a manifest and a report of a design to a folder.

    The steps are those of ``python -m streamtrain.build``: *generate* Verilog; *verify* that it
    equals the golden model; *train* it in simulation on real images; *synthesise* it; *report*.
    Nothing is at ``out`` until all of them succeed.

    Parameters
    ----------
    design : :class:`streamtrain.design.Design`
    out : path
        Folder to make. An earlier build there is replaced at the end; a folder with other files is
        refused.
    data : :class:`str` or :class:`streamtrain.data.Dataset`
        Images, or what :func:`streamtrain.data.load` takes.
    samples : :class:`int`
        Images to train on, one at a time: passes through the training images, each in a new
        random order.
    steps : :class:`int`
        Training steps that are compared with the golden model bit for bit.
    seed : :class:`int`
        Of the order of the images. The first weights come from the network's own seed.
    progress : :class:`bool`
        Whether to show a line for each step, on standard error.

    Returns
    -------
    :class:`BuildResult`

    Raises
    ------
    ValueError, OSError
        Before anything long begins, if ``out`` cannot be written, or the data cannot be read or
        do not fit the network.
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
        progress=progress,
    )


def build_planned(make_design, out, *, search, data, samples, steps, seed, progress):
    """Like :func:`build`, for a design that a step makes by calling ``make_design``.

    It is given the front that ``search`` finds in the step before, or None without a
    :class:`~streamtrain.build.search.Search`.
    """
    # Cycles per step are the time from one result to the next, so there must be two.
    for what, value, low in (("samples", samples, 2), ("steps", steps, 1), ("seed", seed, 0)):
        if value < low:
            raise ValueError(f"{what} must be at least {low}, not {value!r}")
    out = Path(out).resolve()
    console = Console(stderr=True, quiet=not progress, highlight=False)
    seconds = {}
    with output_folder(out) as folder:
        failed_log = out.with_name(f"{out.name}.failed.log")
        failed_log.unlink(missing_ok=True)
        flow = _Flow(make_design, search, folder, data, samples, steps, seed, console, seconds)
        for step in (SEARCH_STEP, *STEPS) if search else STEPS:
            started = perf_counter()
            try:
                note = getattr(flow, step)()
            except Exception as error:
                if step in {SEARCH_STEP, "plan"} and not isinstance(error, BuildError):
                    raise
                failed_log.write_text(_story(step, error), encoding="utf-8")
                raise BuildError(_first_line(error), step=step, log=failed_log) from error
            seconds[step] = perf_counter() - started
            console.print(f"{step:<11}{seconds[step]:8.1f} s  {note}", markup=False, soft_wrap=True)
    return BuildResult(out, flow.summary)


def _first_line(error):
    text = error.reason if isinstance(error, BuildError) else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__


def _story(step, error):
    """All that is known about a failure: where it happened, and the log of the tool that failed."""
    story = f"Step {step}\n\n{''.join(traceback.format_exception(error))}"
    log = getattr(error, "log", None)
    return f"{story}\n{log}:\n\n{Path(log).read_text(errors='replace')}" if log else story


class _Flow:
    """The steps as methods, each returning what to say about it in a line."""

    def __init__(self, make_design, search, folder, data, samples, steps, seed, console, seconds):
        self.make_design, self.search, self.front = make_design, search, None
        self.folder, self.data = folder, data
        self.samples, self.steps, self.seed = samples, steps, seed
        self.console, self.seconds = console, seconds
        self.summary = {}

    def explore(self):
        self._check(self.search.network, self.search.board)
        self.front = self.search.front(progress=not self.console.quiet)
        chosen = self.front.point(self.make_design(self.front))
        (self.folder / "report").mkdir()
        self.front.to_csv(self.folder / "report" / "pareto.csv")
        self.front.to_html(self.folder / "report" / "pareto.html")
        self.console.print(str(self.front), markup=False, soft_wrap=True)
        return (
            f"{self.search.asked}: design {self.front.points.index(chosen)} of {len(self.front):,}"
        )

    def plan(self):
        self.design = self.make_design(self.front)
        self.board = self._check(self.design.network, self.design.board)
        rng = np.random.default_rng(self.seed)
        images = len(self.data.train_x)
        passes = -(-self.samples // images)
        order = np.concatenate([rng.permutation(images) for _ in range(passes)])[: self.samples]
        self.x, self.y = self.data.train_x[order], self.data.train_y[order]
        estimate = self.design.estimate()
        (self.folder / "design.json").write_text(self.design.to_json() + "\n", encoding="utf-8")
        bound = self.design.bound_cycles
        self.summary = {
            "network": network_text(self.design.network),
            "board": self.board.name,
            "device": self.board.device.name,
            "core": "streaming",
            "clock_mhz": self.design.clock_mhz,
            "multipliers": self.design.multipliers,
            "training_macs_per_step": self.design.network.training_macs,
            "bound_cycles": bound,
            "cycles_per_step": {"estimated": estimate.cycles},
            "layers": [
                {
                    "name": stage.name,
                    "folding": list(stage.folding),
                    "multipliers": stage.multipliers,
                    "cycles": stage.phase_cycles(),
                    "share_of_bound": {
                        phase: cycles / bound for phase, cycles in stage.phase_cycles().items()
                    },
                }
                for stage in self.design.plan.stages
            ],
        }
        if self.front is not None:
            self.summary["search"] = self._search_summary()
        return (
            f"{self.summary['network']}, {self.board.title}: {self.design.multipliers:,} "
            f"multipliers, {estimate.cycles:,} cycles a step estimated"
        )

    def _search_summary(self):
        front, chosen = self.front, self.front.point(self.design)
        return {
            "search": front.search,
            "objectives": list(front.objectives),
            "asked": self.search.asked,
            "designs": len(front),
            "evaluated": front.evaluated,
            "chosen": {"position": front.points.index(chosen), **asdict(chosen)},
        }

    def _check(self, network, board):
        """What is better known before the long steps than after them. Returns the board."""
        yosys_version()
        if isinstance(self.data, str):
            self.data = datasets.load(self.data)
        board = load_board(board)
        if board.device.family not in SYNTHESISED:
            raise ValueError(
                f"Builds are for parts of the families {', '.join(SYNTHESISED)}, but "
                f"{board.name} has a part of {board.device.family} ({board.device.name})"
            )
        if self.data.shape != network.input_shape:
            raise ValueError(
                f"The network takes images of {network.input_shape}, but {self.data.source} has "
                f"{self.data.shape} (channels, rows, columns)"
            )
        classes = 1 + max(self.data.train_y.max(), self.data.test_y.max())
        if classes > network.classes:
            raise ValueError(
                f"The network tells {network.classes} classes apart, but {self.data.source} has "
                f"{classes}"
            )
        return board

    def generate(self):
        with self.console.status("generate"):
            self.verilog = generate_verilog(self.design.plan, name=TOP)
        (self.folder / "rtl").mkdir()
        (self.folder / "rtl" / f"{TOP}.v").write_text(self.verilog, encoding="utf-8")
        return f"{self.verilog.count(chr(10)):,} lines of Verilog"

    def verify(self):
        show = not self.console.quiet
        device = self.design.simulate(progress=show).device
        report = self.design.verify(self.steps, x=self.x, y=self.y, device=device, progress=show)
        self.summary["verify"] = {
            "steps": int(report.steps),
            "bit_exact": bool(report.bit_exact),
            "text": str(report),
        }
        if not report.bit_exact:
            raise BuildError(str(report), step="verify")
        return f"equal to the golden model in {report.steps:,} steps"

    def train(self):
        show = not self.console.quiet
        test = self.data.test_x, self.data.test_y
        trainer = self.design.simulate(progress=show)
        history = trainer.fit(self.x, self.y, progress=show)
        golden = self.design.golden()
        golden.load_state_dict(trainer.state_dict())
        float_twin = self.design.golden(exact=False)
        float_twin.fit(self.x, self.y, progress=False)

        self.loss = history.losses
        self.summary["saturations"] = trainer.saturations()
        cycles = history.cycles_per_sample
        self.summary["cycles_per_step"]["simulated"] = cycles
        self.summary["utilisation"] = self.design.bound_cycles / cycles
        self.summary["samples_per_second"] = self.design.clock_mhz * 1e6 / cycles
        self.summary["accuracy"] = accuracy = {
            "online_train": history.accuracy,
            "online_train_last_quarter": float(np.mean(history.correct[self.samples * 3 // 4 :])),
            "train_samples": self.samples,
            "test": float(golden.evaluate(*test, progress=False).accuracy),
            "test_float": float(float_twin.evaluate(*test, progress=False).accuracy),
            "test_images": len(test[0]),
        }
        return (
            f"{self.samples:,} images, {cycles:,.0f} cycles a step; {accuracy['test']:.1%} of "
            f"{accuracy['test_images']:,} test images right (float {accuracy['test_float']:.1%})"
        )

    def synthesise(self):
        with self.console.status("synthesise") as status:
            resources, _ = synthesise(
                self.verilog,
                TOP,
                family=self.board.device.family,
                progress=lambda text: status.update(f"synthesise: Yosys {text}"),
            )
        used = {name: getattr(resources, name) for name in RESOURCES}
        self.summary["resources"] = {
            "synthesised": used,
            "available": {name: getattr(self.board.device, name) for name in RESOURCES},
            "announced_dsp": self.design.dsp,
        }
        return ", ".join(f"{used[key]:,} {name}" for key, name in RESOURCES.items())

    def report(self):
        folder = self.folder / "report"
        folder.mkdir(exist_ok=True)  # a search wrote its front there
        d = self.data
        self.summary["seconds"] = {step: round(time, 3) for step, time in self.seconds.items()}
        self.summary["basis"] = {
            name: text for name, text in _BASIS.items() if name.partition(".")[0] in self.summary
        }
        (folder / "summary.json").write_text(dumps(self.summary, indent=2) + "\n", encoding="utf-8")
        manifest = {
            "made_by": "streamtrain",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "configuration": {
                "board": self.design.board,
                "multipliers": self.design.multipliers,
                **({"search": self.search.asked} if self.search else {}),
                "data": self.data.source,
                "data_sha256": content_key(
                    *(part.tobytes() for part in (d.train_x, d.train_y, d.test_x, d.test_y))
                ),
                "samples": self.samples,
                "steps": self.steps,
                "seed": self.seed,
            },
            "versions": versions(),
        }
        page = render(self.summary, network=self.design.network, loss=self.loss, manifest=manifest)
        (folder / "report.html").write_text(page, encoding="utf-8")
        manifest["files"] = file_hashes(self.folder)
        (self.folder / MANIFEST).write_text(dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return f"{len(manifest['files'])} files"
