"""The steps of a build."""

from dataclasses import asdict
from functools import cached_property
from json import dumps
from pathlib import Path
from shutil import rmtree

import numpy as np

import streamtrain
from streamtrain import data as datasets
from streamtrain.build.errors import BuildError
from streamtrain.build.manifest import made_now
from streamtrain.build.parts import part_build
from streamtrain.build.report import RESOURCES, render
from streamtrain.build.streaming import StreamingBuild
from streamtrain.build.unified import UnifiedBuild
from streamtrain.bus.exports import write_registers
from streamtrain.cache import content_key
from streamtrain.design import Design
from streamtrain.explore.devices import load_board
from streamtrain.host.connect import PLAN_FILE
from streamtrain.network import network_text

__all__ = ["SEARCH_STEP", "STEPS", "Steps"]

STEPS = ("plan", "generate", "verify", "train", "package", "synthesise", "implement", "report")

_DEPLOYED = 1_000  # images that go to the board, with the losses that it should have

_HANDED_OVER = 18  # to benches in sim/

_CORES = {"streaming": StreamingBuild, "unified": UnifiedBuild}

SEARCH_STEP = "explore"
"""The step before them, if a search finds the design."""

_BASIS = {
    "bound_cycles": "calculated: multiply-accumulates of a step / multipliers",
    "cycles_per_step.estimated": "estimated from the plan",
    "cycles_per_step.simulated": "simulated: mean over the training samples, in mini-batches of `batch`",
    "utilisation": "bound_cycles / cycles_per_step.simulated",
    "samples_per_second": "simulated cycles at the planned clock, which was not placed and routed",
    "resources.synthesised": "synthesised by Yosys, before place and route",
    "resources.routed": "placed and routed",
    "timing": "placed and routed",
    "power": "estimated by Vivado for the routed design",
    "resources.available": "data sheet of the part",
    "verify": "simulated RTL against the golden model",
    "accuracy.online_train": "simulated RTL: each training image before it is learnt",
    "accuracy.test": "golden model with the weights that the simulated RTL learnt",
    "saturations": "simulated RTL, over all training samples",
    "search.chosen": "estimated, as all designs that the search compared",
}


class Steps:
    """The steps as methods, each returning what to say about it in a line.

    A step finds what earlier ones made in the folder and in the summary, so that it may have been another
    process that made it.
    """

    def __init__(self, make_design, search, data, samples, steps, seed, stream_bytes, console):
        self.make_design, self.search, self.data = make_design, search, data
        self.seed, self.console = seed, console
        self.design = None if search else make_design(None)
        self._core_name = "streaming" if search else self.design.plan.core
        self._core_build = _CORES[self._core_name]
        self.settings = self._core_build.settings(stream_bytes)
        usual = self._core_build.amounts(self.design)
        self.samples, self.steps = (
            number if given is None else given
            for given, number in zip((samples, steps), usual, strict=True)
        )
        if isinstance(self.data, str):
            self.data = datasets.load(self.data)

    def use(self, state):
        """Work in the folder, and on the summary, of a :class:`~streamtrain.build.state.BuildState`."""
        self.state, self.folder, self.summary = state, state.folder, state.summary

    def configuration(self):
        """What decides all that is made, but for the code."""
        d = self.data
        described = self.search.network if self.search else self.design
        return {
            "described": described.to_json(),
            "board": self.search.board if self.search else self.design.board,
            **({"search": self.search.asked} if self.search else {}),
            "data": d.source,
            "data_sha256": content_key(
                *(part.tobytes() for part in (d.train_x, d.train_y, d.test_x, d.test_y))
            ),
            "samples": self.samples,
            "steps": self.steps,
            "seed": self.seed,
            **self.settings,
            "code": _code(),
        }

    def explore(self):
        self._check(self.search.network, self.search.board)
        front = self.search.front(progress=not self.console.quiet)
        design = self.make_design(front)
        chosen = front.point(design)
        report = self._folder("report")
        front.to_csv(report / "pareto.csv")
        front.to_html(report / "pareto.html")
        (self.folder / "design.json").write_text(design.to_json() + "\n", encoding="utf-8")
        self.console.print(str(front), markup=False, soft_wrap=True)
        position = front.points.index(chosen)
        self.summary["search"] = {
            "search": front.search,
            "objectives": list(front.objectives),
            "asked": self.search.asked,
            "designs": len(front),
            "evaluated": front.evaluated,
            "chosen": {"position": position, **asdict(chosen)},
        }
        return f"{self.search.asked}: design {position} of {len(front):,}"

    def plan(self):
        if self.search:  # which wrote the design that it chose
            text = (self.folder / "design.json").read_text(encoding="utf-8")
            self.design = Design.from_json(text)
        self.board = self._check(self.design.network, self.design.board)
        self.core = self._core_build(self.design, self.settings)
        tools = part_build(self.board, self._core_name)
        self.tools = tools(self.board, self.core, self.design.clock_mhz)
        estimate = self.design.estimate()
        (self.folder / "design.json").write_text(self.design.to_json() + "\n", encoding="utf-8")
        self.summary |= {
            "network": network_text(self.design.network),
            "board": self.board.name,
            "device": self.board.device.name,
            "core": self._core_name,
            "batch": self.core.batch,
            "clock_mhz": self.design.clock_mhz,
            "multipliers": self.design.multipliers,
            "training_macs_per_step": self.design.network.training_macs,
            "bound_cycles": self.design.bound_cycles,
            **self.core.summary(),
        }
        self.summary.setdefault("cycles_per_step", {})["estimated"] = estimate.cycles
        return (
            f"{self.summary['network']}, {self.board.title}: {self.design.multipliers:,} "
            f"multipliers, {estimate.cycles:,.0f} cycles a sample estimated"
        )

    @cached_property
    def images(self):
        """``(x, y)`` to train on, in order."""
        rng = np.random.default_rng(self.seed)
        count = len(self.data.train_x)
        passes = -(-self.samples // count)
        order = np.concatenate([rng.permutation(count) for _ in range(passes)])[: self.samples]
        return self.data.train_x[order], self.data.train_y[order]

    @property
    def verilog(self):
        """What was generated."""
        return self._ip_file.read_text(encoding="utf-8")

    @property
    def _ip_file(self):
        return self.folder / "ip" / f"{self.core.top}.v"

    def _folder(self, *parts):
        folder = self.folder.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _check(self, network, board):
        """What is better known before the long steps than after them. Returns the board."""
        board = load_board(board)
        part_build(board, self._core_name).check()
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
            verilog = self.core.verilog()
        self._folder("ip")
        self._ip_file.write_text(verilog, encoding="utf-8")
        return f"{verilog.count(chr(10)):,} lines of Verilog"

    def verify(self):
        report = self.core.verify(self.steps, *self.images, self.console)
        self.summary["verify"] = {
            "steps": int(report.steps),
            "bit_exact": bool(report.bit_exact),
            "text": str(report),
        }
        if not report.bit_exact:
            raise BuildError(str(report), step="verify")
        return f"equal to the golden model in {report.steps:,} steps, and through its buses"

    def train(self):
        show = not self.console.quiet
        test = self.data.test_x, self.data.test_y
        trainer = self.design.simulate(progress=show)
        history = trainer.fit(*self.images, batch_size=self.core.batch, progress=show)
        golden = self.design.golden()
        golden.load_state_dict(trainer.state_dict())
        float_twin = self.core.float_twin()
        float_twin.fit(*self.images, batch_size=self.core.batch, progress=False)

        np.save(self.state.own / "loss.npy", history.losses)
        if saturations := trainer.saturations():
            self.summary["saturations"] = saturations
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
            f"{self.samples:,} images, {cycles:,.0f} cycles each; {accuracy['test']:.1%} of "
            f"{accuracy['test_images']:,} test images right (float {accuracy['test_float']:.1%})"
        )

    def package(self):
        for name in ("regs", "driver", "deploy", "vivado", "ecp5"):
            rmtree(self.folder / name, ignore_errors=True)
        write_registers(self.folder, self.core.registers())
        x, y = (part[:_HANDED_OVER] for part in self.images)
        self.core.hand_over(self.folder, x, y, self.summary["cycles_per_step"]["simulated"])
        self._write_plan("driver")
        self.tools.package(self.folder, self.verilog)
        parts = ("ip", "regs", "driver", "vivado", "ecp5")
        return ", ".join(f"{part}/" for part in parts if (self.folder / part).exists())

    def _write_plan(self, part):
        plan = self.design.plan.to_json() + "\n"
        (self._folder(part) / PLAN_FILE).write_text(plan, encoding="utf-8")

    def synthesise(self):
        with self.console.status("synthesise") as status:
            used = self.tools.synthesise(
                self.folder, lambda text: status.update(f"synthesise: Yosys {text}")
            )
        self.summary["resources"] = {
            "synthesised": used,
            "available": {name: getattr(self.board.device, name) for name in RESOURCES},
            **self.core.planned_resources(),
        }
        return ", ".join(f"{used[key]:,} {name}" for key, name in RESOURCES.items())

    def implement(self):
        # What an earlier run has left, perhaps with tools that are no longer there.
        rmtree(self.folder / "deploy", ignore_errors=True)
        for name in ("timing", "power"):
            self.summary.pop(name, None)
        self.summary["resources"].pop("routed", None)
        with self.console.status("implement") as status:
            done = self.tools.implement(
                self.folder, lambda text: status.update(f"implement: {text}")
            )
        if (self.folder / "deploy").exists():
            self._write_plan("deploy")  # beside the bitstream, where PYNQ's driver looks for it
            batch, (x, y) = self.core.batch, self.images
            count = max(1, _DEPLOYED // batch) * batch  # whole mini-batches
            np.savez_compressed(
                self.folder / "deploy" / "training.npz",
                x=x[:count],
                y=y[:count],
                losses=np.load(self.state.own / "loss.npy")[:count],
                batch_size=batch,
            )
        found = dict(done.summary)
        if "routed" in found:
            self.summary["resources"]["routed"] = found.pop("routed")
        self.summary |= found
        self.summary["implemented"] = done.note
        return done.note

    def made(self):
        """What the manifest says of how all this was made."""
        configuration = self.configuration()
        return made_now({
            "board": self.design.board,
            "multipliers": self.design.multipliers,
            **{name: configuration[name] for name in _MANIFESTED if name in configuration},
        })

    def report(self):
        seconds = self.state.seconds
        self.summary["seconds"] = {step: round(time, 3) for step, time in seconds.items()}
        self.summary["basis"] = {
            name: text
            for name, text in (_BASIS | self.core.basis).items()
            if name.partition(".")[0] in self.summary
        }
        folder = self._folder("report")
        (folder / "summary.json").write_text(dumps(self.summary, indent=2) + "\n", encoding="utf-8")
        loss = np.load(self.state.own / "loss.npy")
        page = render(self.summary, network=self.design.network, loss=loss, manifest=self.made())
        (folder / "report.html").write_text(page, encoding="utf-8")
        return "report/report.html"


_MANIFESTED = ("search", "data", "data_sha256", "samples", "steps", "seed", "stream_bytes")


def _code():
    """Hash of streamtrain's own code: a build does not go on with another one."""
    root = Path(streamtrain.__file__).parent
    files = sorted(
        path for path in root.rglob("*") if path.suffix in {".py", ".c", ".cpp", ".h", ".tcl"}
    )
    return content_key(*(part for path in files for part in (path.name, path.read_bytes())))
