import json
import shlex
import sys
from dataclasses import replace

import pytest
from fronts import NET, make_front

from streamtrain.build.command import _parser as build_parser
from streamtrain.explore import command
from streamtrain.explore.front import Front
from streamtrain.explore.pareto import non_dominated

NETWORK = """\
from streamtrain.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
print("a description may print")
network = Network((1, 4, 4), [Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(4)])
"""


@pytest.fixture
def searched(monkeypatch):
    """What the command line calls ``explore`` with; it gets the part of a ready front."""
    calls = []

    def explore(network, board, **arguments):
        calls.append((network, board, arguments))
        found = make_front(network, board=board, batch=arguments.get("batch", 1))
        return found.within(**arguments["constraints"])

    monkeypatch.setattr(command, "explore", explore)
    return calls


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    return status, out, error


def test_default_search(capsys, searched):
    status, out, error = run(capsys)
    assert status == 0, error
    ((network, board, arguments),) = searched
    assert network.input_shape == (1, 8, 8)
    assert board == "pynq_z2"
    assert arguments == {
        "core": "streaming",
        "numbers": None,
        "objectives": ("samples_per_s", "dsp", "bram36"),
        "constraints": {},
        "batch": 1,
        "search": "exact",
        "evidence": None,
        "progress": True,
    }
    assert "designs of 16P-32P-FC10 on 1x8x8 for pynq_z2" in out
    assert "The knee is built by: python -m streamtrain.build --board pynq_z2" in out


def test_options_reach_the_search(capsys, searched, net):
    limits = [
        "--dsp=20",
        "--bram36=9.5",
        "--lut=5000",
        "--latency-us=9",
        "--samples-per-second=1e4",
    ]
    others = ["--board=zedboard", "--objective=latency,lut", "--batch=4", "--search=nsga2"]
    others += ["--evidence=simulate", "--core=unified", "--numbers=bf16,fixed<16,8>"]
    status, out, error = run(capsys, net, *limits, *others, "--quiet")
    assert (status, out) == (0, ""), error
    ((network, board, arguments),) = searched
    assert network == NET
    assert board == "zedboard"
    assert arguments == {
        "core": "unified",
        "numbers": ["bf16", "fixed<16,8>"],
        "objectives": ("latency", "lut"),
        "constraints": {
            "samples_per_s": 1e4, "latency_us": 9, "dsp": 20, "bram36": 9.5, "lut": 5000,
        },
        "batch": 4,
        "search": "nsga2",
        "evidence": "simulate",
        "progress": False,
    }  # fmt: skip
    assert "a description may print" in error


def test_the_faster_core_may_have_mini_batches(capsys, searched, net):
    """Those of the streaming core are not searched exactly; what it can do at batch 1 is compared."""
    status, _, error = run(capsys, net, "--core=auto", "--batch=16", "--quiet")
    assert status == 0, error
    ((_, _, arguments),) = searched
    assert arguments["max_batch"] == 16
    assert "batch" not in arguments


def test_files_are_written(capsys, searched, net, tmp_path):
    pytest.importorskip("matplotlib").use("agg")
    files = [tmp_path / f"front.{ending}" for ending in ("csv", "html", "svg")]
    options = [
        f"--{kind}={file}" for kind, file in zip(("csv", "html", "plot"), files, strict=True)
    ]
    status, _, error = run(capsys, net, *options)
    assert status == 0
    assert [line for line in error.splitlines() if "wrote" in line] == [
        f"streamtrain.explore: wrote {file}" for file in files
    ]
    assert files[0].read_text().startswith("variant,cycles,")
    assert files[1].read_text().startswith("<!DOCTYPE html>")
    assert "<svg" in files[2].read_text()


def test_json_is_alone_on_standard_output(capsys, searched, net):
    status, out, _ = run(capsys, net, "--json", "--dsp", 20)
    assert status == 0
    front = Front.from_json(out)
    assert front == make_front(NET).within(dsp=20)
    assert json.loads(out)["kind"] == "Front"


def test_no_design_is_an_answer_with_status_1(capsys, searched, net, tmp_path):
    pytest.importorskip("matplotlib")
    files = [f"--csv={tmp_path / 'a.csv'}", f"--html={tmp_path / 'a.html'}"]
    status, out, _ = run(capsys, net, "--dsp", 2, *files, f"--plot={tmp_path / 'a.png'}")
    assert status == 1
    assert "the nearest has 4 DSP" in out
    assert "knee" not in out
    assert "the nearest has 4 DSP" in (tmp_path / "a.html").read_text()
    assert not (tmp_path / "a.png").exists()
    status, out, _ = run(capsys, net, "--dsp", 2, "--json")
    assert status == 1
    assert "the nearest has 4 DSP" in json.loads(out)["reason"]


def test_boards_are_listed(capsys, searched):
    status, out, _ = run(capsys, "--boards")
    assert status == 0
    assert {"pynq_z2", "xc7z100"} <= {line.split()[0] for line in out.splitlines()}
    assert not searched


def test_a_design_is_refused(capsys, searched, front, tmp_path):
    path = tmp_path / "design.json"
    path.write_text(front[0].to_json())
    status, _, error = run(capsys, path)
    assert status == 2
    assert error.endswith(
        "describes a design, which has its foldings already; a search takes a network\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "Cannot read nothing.py: No such file or directory"),
        (["--csv=nowhere/a.csv"], "Cannot write nowhere/a.csv: there is no folder nowhere"),
        (["--dsp=-4"], "dsp must be positive, not -4"),
    ],
)
def test_bad_input_has_status_2_and_no_traceback(capsys, searched, arguments, message):
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert error == f"streamtrain.explore: {message}\n"


def test_what_the_search_refuses_has_status_2(capsys, monkeypatch):
    def explore(*_, **__):
        raise ValueError("There is no objective 'power'")

    monkeypatch.setattr(command, "explore", explore)
    assert run(capsys) == (2, "", "streamtrain.explore: There is no objective 'power'\n")


def test_interrupt_has_status_130(capsys, monkeypatch):
    def explore(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "explore", explore)
    assert run(capsys) == (130, "", "streamtrain.explore: interrupted\n")


@pytest.mark.parametrize("arguments", [["--dsp", "many"], ["--search", "annealing"], ["a", "b"]])
def test_usage_has_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert not capsys.readouterr().out


def test_module_runs(capsys, monkeypatch):
    import runpy

    monkeypatch.setattr(sys, "argv", ["explore", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("streamtrain.explore", run_name="__main__")
    assert caught.value.code == 0
    assert "python -m streamtrain.explore" in capsys.readouterr().out


# -- The command that builds a point -----------------------------------------------------------------


@pytest.mark.parametrize(
    "objectives",
    [("samples_per_s", "dsp", "bram36"), ("latency_us", "dsp"), ("dsp", "samples_per_s", "bram36")],
)
def test_command_builds_the_point(long_front, objectives):
    """Its limits, given to the front, lead back to the point."""
    front = replace(long_front, objectives=objectives)
    best = front.figures(*objectives)
    for position, on_front in enumerate(non_dominated(best)):
        if not on_front:
            continue
        point = front.points[position]
        words = shlex.split(command.build_command(front, point, "my net.py"))
        assert words[:3] == ["python", "-m", "streamtrain.build"]
        options = build_parser().parse_args(words[3:])
        assert options.description == "my net.py"
        assert (options.board, options.objective) == ("pynq_z2", objectives[0])
        limits = command.given_limits(options)
        if objectives[0] == "samples_per_s":
            found = front.point(front.fastest(**limits))
        else:
            found = front.point(front.smallest(objectives[0], **limits))
        assert [getattr(found, name) for name in objectives] == [
            getattr(point, name) for name in objectives
        ]


def test_command_repeats_what_was_asked(front):
    asked = front.within(lut=5000, samples_per_s=1000)
    words = command.build_command(asked, asked.points[0])
    assert "--samples-per-second 1000" in words
    assert "--lut 5000" in words
