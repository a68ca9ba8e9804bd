"""Builds of the unified core: the steps of the streaming one, with what is particular to it."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from test_build_report import Page

import streamtrain as st
from streamtrain.build import BuildError, build, command
from streamtrain.build.steps import STEPS
from streamtrain.build.synth import Resources
from streamtrain.data import Dataset
from streamtrain.golden.kernel import GoldenKernel
from streamtrain.host.connect import load_plan
from streamtrain.host.shared_memory import shared_bytes
from streamtrain.host.trainer import Trainer
from streamtrain.simulate import Verification
from streamtrain.unified.ip import unified_registers
from streamtrain.unified.kernel import KernelPlan
from streamtrain.vivado.project import ADDRESSES

CELLS = {"DSP48E1": 16, "RAMB36E1": 4, "LUT6": 9000, "FDRE": 8000}
CYCLES = 1500


def network():
    return st.Network(
        (2, 6, 6), [st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(4)]
    )


def planned(**options):
    options = {"numbers": "fixed<16,6>", "lanes": 4, "max_batch": 3, **options}
    return st.plan(network(), core="unified", **options)


class ClockedGolden(GoldenKernel):
    """The golden model as if it ran on a clock."""

    cycle = 0

    def train(self, x, labels, rate):
        self.cycle += CYCLES * len(x)
        return super().train(x, labels, rate)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 2, 6, 6)), rng.integers(0, 4, 40)
    return Dataset("images", x[:30], y[:30], x[30:], y[30:])


@pytest.fixture
def quick(monkeypatch):
    """Generation, simulation and synthesis that take no time."""
    monkeypatch.setattr(KernelPlan, "hardware", lambda plan: plan)
    monkeypatch.setattr(
        "streamtrain.build.unified.verilog_of",
        lambda plan, name: f"module {name}; // {plan.data_bits}\nendmodule\n",
    )
    monkeypatch.setattr(
        st.UnifiedDesign, "simulate",
        lambda design, progress: Trainer(design.plan, ClockedGolden(design.plan)),
    )  # fmt: skip
    monkeypatch.setattr(
        st.UnifiedDesign, "verify", lambda design, steps, **_: Verification(steps, None, CYCLES)
    )
    monkeypatch.setattr(
        "streamtrain.build.parts.synthesise",
        lambda verilog, top, family, progress: (Resources.from_cells(CELLS), None),
    )


def make(out, images, design=None, **arguments):
    design = planned() if design is None else design
    return design.build(out, data=images, progress=False, **arguments)


def test_summary_has_the_figures(quick, images, tmp_path):
    result, design = make(tmp_path / "out", images), planned()
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary == result.summary
    assert summary["core"] == "unified"
    assert (summary["batch"], summary["lanes"], summary["multipliers"]) == (3, 4, 16)
    assert summary["accuracy"]["train_samples"] == 8 * 3
    assert summary["verify"]["steps"] == 3
    estimate = design.estimate()
    assert summary["cycles_per_step"] == {"estimated": estimate.cycles, "simulated": CYCLES}
    assert summary["step"]["estimated"] == estimate.step.total
    assert summary["utilisation"] == design.bound_cycles / CYCLES
    assert summary["samples_per_second"] == pytest.approx(design.clock_mhz * 1e6 / CYCLES)
    cycles = {layer["name"]: layer["cycles"] for layer in summary["layers"]}
    for name, *phases in estimate.table()[1]:
        expected = {phase: n for phase, n in zip(("FP", "BP", "WU"), phases, strict=True) if n}
        assert cycles[name] == expected
    assert summary["memory_bytes"] == design.memory_bytes
    assert summary["buffers"]["x"] == {"bits": 64, "words": design.plan.depths.x, "bram36": 2}
    assert summary["resources"]["synthesised"]["lut"] == 9000
    assert "saturations" not in summary  # nothing counts them
    assert summary["seconds"].keys() == set(STEPS) - {"report"}
    assert summary["basis"].keys() >= {"buffers", "memory_bytes", "layers"}


def test_utilisation_of_phases_is_that_of_their_multiplications(quick, images, tmp_path):
    summary = make(tmp_path / "out", images).summary
    macs = network().macs
    for layer in summary["layers"]:
        for phase, part in layer["utilisation"].items():
            assert part * layer["cycles"][phase] * 16 == pytest.approx(3 * macs[layer["name"]])
            assert 0 < part <= 1


def test_accuracies_are_those_of_the_same_training(quick, images, tmp_path):
    accuracy = make(tmp_path / "out", images, samples=24, seed=3).summary["accuracy"]
    order = np.random.default_rng(3).permutation(30)[:24]
    for name, numbers in (("test", "fixed<16,6>"), ("test_float", "fp32")):
        trainer = planned(numbers=numbers).golden()
        x, y = images.train_x[order], images.train_y[order]
        trainer.fit(x, y, batch_size=3, progress=False)
        found = trainer.evaluate(images.test_x, images.test_y, progress=False)
        assert accuracy[name] == found.accuracy


def test_folder_has_what_the_streaming_core_has_but_a_c_driver(quick, images, tmp_path):
    out = tmp_path / "out"
    make(out, images)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there >= {
        "design.json", "manifest.json", "ip/streamtrain_unified.v", "ip/package_ip.tcl",
        "vivado/build.tcl", "vivado/block_design.tcl", "regs/registers.md",
        "regs/streamtrain_unified_regs.h", "regs/streamtrain_unified_regs.py",
        "regs/streamtrain_unified.svd", "regs/streamtrain_unified.rdl", "driver/plan.json",
        "deploy/plan.json", "deploy/streamtrain.dtso", "deploy/training.npz", "report/report.html",
    }  # fmt: skip
    assert not [name for name in there if name.endswith((".c", "golden.npz"))]
    assert load_plan(out) == load_plan(out / "driver") == planned().plan
    assert st.UnifiedDesign.from_json((out / "design.json").read_text()) == planned()
    with np.load(out / "deploy" / "training.npz") as given:
        history = (
            planned()
            .golden()
            .fit(given["x"], given["y"], batch_size=int(given["batch_size"]), progress=False)
        )
        np.testing.assert_array_equal(history.losses, given["losses"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert "stream_bytes" not in manifest["configuration"]


def test_registers_are_those_of_the_core(quick, images, tmp_path):
    make(tmp_path / "out", images, stop="package")
    header = (tmp_path / "out" / "regs" / "streamtrain_unified_regs.h").read_text()
    table = unified_registers(planned().plan.configuration)
    for register in table:
        name = f"STREAMTRAIN_UNIFIED_{register.name}_OFFSET"
        assert re.search(rf"#define {name} {register.address:#05x}u\b", header), name
    assert f"{table['CORE'].reset:#x}" in header  # of this design alone


@pytest.mark.parametrize(("board", "kind"), [("pynq_z2", "PS7"), ("zcu102", "PS8")])
def test_overlay_has_the_core_and_its_memory(quick, images, tmp_path, board, kind):
    design = planned(board=board)
    make(tmp_path / "out", images, design)
    text = (tmp_path / "out" / "deploy" / "streamtrain.dtso").read_text()
    assert f"streamtrain@{ADDRESSES[kind]['core']:x} {{" in text
    assert "dma@" not in text and "streamtrain-dma" not in text
    assert f"size = <0x{shared_bytes(design.plan):x}>;" in text
    assert f"<0 {dict(PS7=61, PS8=121)[kind] - 32} 4>" in text


def test_report_has_phases_buffers_and_dram(quick, images, tmp_path):
    summary = make(tmp_path / "out", images, planned(numbers="bf16")).summary
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    estimate = planned(numbers="bf16").estimate()
    assert f"{estimate.step.total:,} cycles" in page
    assert "unified core, 100 MHz, 16 multipliers of bf16" in page
    assert "simulated, mini-batches of 3" in page
    assert "test, bf16" in page
    for text in ("conv1", "2 → 6", "bias_gradients", "in DRAM", "programs", "64 bits"):
        assert text in page, text
    assert "Saturated" not in page
    assert "The plan announced" in page
    parsed = Page(page)  # whose tags nest
    for name, *phases in estimate.table()[1]:
        found = parsed.row(name)
        assert found[4::2][:3] == [f"{n:,}" if n else "" for n in phases]
        total = sum(n for n in phases if n)
        assert found[-1].strip() == f"{total:,}"
    assert parsed.row("programs")[1] == f"{summary['memory_bytes']['programs'] / 2**20:,.2f}"


def test_interrupted_build_goes_on(quick, images, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("streamtrain.build.parts.synthesise", interrupt)
        make(tmp_path / "out", images)
    planned().build(tmp_path / "out", data=images)
    done = [line for line in capsys.readouterr().err.splitlines() if "done before" in line]
    assert [line.split()[0] for line in done] == ["generate", "verify", "train", "package"]


def test_difference_from_golden_fails_the_build(quick, images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        st.UnifiedDesign, "verify", lambda design, steps, **_: Verification(0, "conv1 FP", CYCLES)
    )
    with pytest.raises(BuildError, match=r"^verify failed: RTL differs .* conv1 FP \(log"):
        make(tmp_path / "out", images)


def test_a_board_without_a_processor_gets_the_ip_alone(quick, images, tmp_path):
    make(tmp_path / "out", images, planned(board="genesys2"))
    assert (tmp_path / "out" / "vivado" / "out_of_context.tcl").exists()
    assert not (tmp_path / "out" / "vivado" / "build.tcl").exists()
    assert not (tmp_path / "out" / "deploy").exists()


# -- What makes no sense --------------------------------------------------------------------------


def test_streams_are_refused(images, tmp_path):
    with pytest.raises(
        ValueError, match=r"^The unified core has no streams: leave out stream_bytes"
    ):
        make(tmp_path / "out", images, stream_bytes=8)
    assert not list(tmp_path.iterdir())


def test_an_ecp5_is_refused(images, tmp_path):
    design = SimpleNamespace(
        plan=planned().plan, board="ulx3s_85f", network=network(), to_json=network().to_json
    )
    message = (
        r"^Builds of the unified core are for parts of the families xc7, xcup, .* ulx3s_85f has"
    )
    with pytest.raises(ValueError, match=message):
        build(design, tmp_path / "out", data=images, progress=False)
    assert not list(tmp_path.glob("out"))


# -- The command ----------------------------------------------------------------------------------


@pytest.fixture
def here(images, tmp_path):
    (tmp_path / "net.py").write_text(
        "import streamtrain as st\n"
        "network = st.Network((2, 6, 6), [st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(),"
        " st.Flatten(), st.Linear(4)])\n"
    )
    parts = ("train_x", "train_y", "test_x", "test_y")
    np.savez(tmp_path / "data.npz", **{part: getattr(images, part) for part in parts})
    return tmp_path


def run(capsys, here, *options):
    given = ["--data", f"npz:{here / 'data.npz'}", "--out", here / "out", "--quiet"]
    status = command.main([str(word) for word in (*options, *given)])
    return status, *capsys.readouterr()


def test_command_builds_it(quick, capsys, here):
    options = ["--core", "unified", "--numbers", "fixed<16,6>", "--lanes", "4", "--batch", "3"]
    status, out, error = run(capsys, here, here / "net.py", *options, "--json")
    assert status == 0, error
    assert json.loads(out)["lanes"] == 4
    design = st.UnifiedDesign.from_json((here / "out" / "design.json").read_text())
    assert design == planned()
    status, _, error = run(capsys, here, here / "out" / "design.json", "--stop", "plan")
    assert status == 0, error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lanes", "4"], "The streaming core takes no lanes"),
        (["--core", "unified", "--multipliers", "9"], "The unified core takes no multipliers"),
        (["--core", "both"], "core must be"),
        (["--core", "unified", "--dsp", "30"], "--core plans one design, and --dsp searches many"),
        (["--core", "unified", "--lanes", "4", "--stream-bytes", "4"], "has no streams"),
    ],
)
def test_command_refuses(capsys, here, options, message):
    status, _, error = run(capsys, here, here / "net.py", *options)
    assert status == 2
    assert message in error
    assert not (here / "out").exists()


def test_command_takes_no_lanes_for_a_design(capsys, here):
    (here / "design.json").write_text(planned().to_json())
    status, _, error = run(capsys, here, here / "design.json", "--batch", "2")
    assert status == 2
    assert "describes a design, which has its own max_batch: leave out --batch" in error


def test_check_is_of_the_core_that_is_asked_for(capsys, here):
    status = command.main(["--check", str(here / "net.py"), "--core", "unified", "--lanes", "4"])
    assert status == 0
    assert "can be trained on pynq_z2" in capsys.readouterr().out
    (here / "net.py").write_text(
        "import streamtrain as st\n"
        "network = st.Network((1, 4, 4), [st.Flatten(), st.Linear(2)], loss=st.MSELoss())\n"
    )
    status = command.main(["--check", str(here / "net.py"), "--core", "unified", "--lanes", "4"])
    assert status == 1
    assert "MSELoss, which the unified core cannot compute" in capsys.readouterr().out


# -- With real tools ------------------------------------------------------------------------------


@pytest.mark.xdist_group("memory simulations")
def test_golden_model_and_hardware_are_compared_and_trained(images, tmp_path):
    """All but synthesis, which takes minutes."""
    summary = make(tmp_path / "out", images, samples=6, steps=1, stop="package").summary
    assert summary["verify"]["bit_exact"] is True
    found = summary["cycles_per_step"]
    assert found["simulated"] == pytest.approx(found["estimated"], rel=0.15)
    verilog = (tmp_path / "out" / "ip" / "streamtrain_unified.v").read_text()
    assert re.search(r"^module streamtrain_unified\(", verilog, re.MULTILINE)
    assert "m_axi_araddr" in verilog
