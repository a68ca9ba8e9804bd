import json
import sys

import pytest

from streamtrain.build import BuildError, command
from streamtrain.build.flow import STEPS

NETWORK = """\
from streamtrain.network import Conv2d, Flatten, Linear, Network
print("a description may print")
network = Network((1, 8, 8), [Conv2d(1, 1), Flatten(), Linear(10)])
"""


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    return status, out, error


def test_default_build(capsys, tmp_path, planned):
    pytest.importorskip("sklearn")
    status, out, error = run(capsys, "--out", tmp_path / "out", "--samples", 100, "--steps", 3)
    assert status == 0, error
    ((network, arguments),) = planned
    assert network.input_shape == (1, 8, 8)
    assert arguments == {}
    assert "16P-32P-FC10 on 1x8x8" in out
    assert [line.split()[0] for line in error.splitlines() if line][: len(STEPS)] == list(STEPS)


def test_json_is_alone_on_standard_output(capsys, tmp_path, planned):
    (tmp_path / "net.py").write_text(NETWORK)
    arguments = [
        "--out",
        tmp_path / "out",
        "--samples",
        50,
        "--multipliers",
        9,
        "--board",
        "zynq7100",
    ]
    status, out, error = run(capsys, tmp_path / "net.py", "--json", *arguments)
    assert status == 0, error
    assert json.loads(out) == json.loads((tmp_path / "out/report/summary.json").read_text())
    assert planned[0][1] == {"board": "zynq7100", "multipliers": 9}
    assert "a description may print" in error


def test_quiet(capsys, tmp_path, planned):
    assert run(capsys, "--out", tmp_path / "out", "--samples", 50, "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "Cannot read nothing.py: No such file or directory"),
        (["net.txt"], "A description ends in .py, .json or .onnx"),
        (["--data", "fashion"], "Data must be one of mnist:DIR"),
        (["--data", "mnist:nowhere"], "nowhere is no directory"),
        (["--samples", "1"], "samples must be at least 2, not 1"),
        (["--out", "."], "holds the current folder"),
    ],
)
def test_bad_input_has_status_2_and_no_traceback(
    capsys, tmp_path_factory, monkeypatch, planned, arguments, message
):
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    status, out, error = run(capsys, "--quiet", *arguments)
    assert (status, out) == (2, "")
    assert error.startswith("streamtrain.build: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(here.iterdir())


@pytest.mark.parametrize("arguments", [["--steps", "many"], ["--bored"], ["a.py", "b.py"]])
def test_usage_has_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert not capsys.readouterr().out


def test_infeasible_plan_has_status_2(capsys, tmp_path, monkeypatch):
    def plan(*_, **__):
        raise ValueError("conv1 needs 9 multipliers at least")

    monkeypatch.setattr(command, "plan", plan)
    status, out, error = run(capsys, "--out", tmp_path / "out", "--quiet")
    assert (status, out) == (2, "")
    assert error == "streamtrain.build: conv1 needs 9 multipliers at least\n"
    assert not list(tmp_path.iterdir())


def test_failed_step_has_status_1(capsys, tmp_path, monkeypatch, planned):
    def fail(*_, **__):
        raise BuildError("ERROR: no", step="synthesise")

    monkeypatch.setattr("streamtrain.build.parts.synthesise", fail)
    status, out, error = run(
        capsys, "--out", tmp_path / "out", "--samples", 50, "--quiet", "--json"
    )
    assert (status, out) == (1, "")
    assert error == (
        f"streamtrain.build: synthesise failed: ERROR: no (log: {tmp_path / 'out.failed.log'})\n"
    )


def test_interrupt_has_status_130(capsys, tmp_path, monkeypatch, planned):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("streamtrain.build.parts.synthesise", interrupt)
    status, out, error = run(capsys, "--out", tmp_path / "out", "--samples", 50, "--quiet")
    assert (status, out) == (130, "")
    assert "interrupted; " in error
    assert [path.name for path in tmp_path.glob("out*")] == ["out.partial"]


@pytest.mark.parametrize("option", ["--board=pynq_z2", "--multipliers=9"])
def test_a_design_has_its_own_board(capsys, tmp_path, monkeypatch, design, option):
    monkeypatch.setattr(command, "Design", type(design))
    monkeypatch.setattr(command, "load_description", lambda path: design)
    status, _, error = run(capsys, "net.py", option, "--out", tmp_path / "out", "--quiet")
    assert status == 2
    assert "describes a design, which has its own" in error
    assert option.partition("=")[0] in error


def test_module_runs(capsys, monkeypatch):
    import runpy

    monkeypatch.setattr(sys, "argv", ["build", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("streamtrain.build", run_name="__main__")
    assert caught.value.code == 0
    assert "python -m streamtrain.build" in capsys.readouterr().out
