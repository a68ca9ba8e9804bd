import json
from dataclasses import replace

import pytest
from onnx_models import around, node, small

from streamtrain.build import command
from streamtrain.explore.search import shortfall
from streamtrain.network import Conv2d, Flatten, Linear, Network


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    return status, out, error


@pytest.fixture
def write(tmp_path):
    def write(name, proto):
        (tmp_path / name).write_bytes(proto.SerializeToString())
        return tmp_path / name

    return write


def test_a_model_that_can_be_trained(capsys, write):
    path = write("good.onnx", small())
    status, out, error = run(capsys, "--check", path)
    assert (status, error) == (0, "")
    assert out.startswith(f"{path} can be trained on pynq_z2\nlayer ")
    status, out, _ = run(capsys, "--check", path, "--json", "--board", "zynq7100")
    assert status == 0
    assert json.loads(out) == {"source": str(path), "supported": True, "problems": [], "notes": []}


def test_a_model_that_cannot(capsys, write):
    path = write("bad.onnx", around([node("Sigmoid", "r", "t")]))
    status, out, _ = run(capsys, "--check", path)
    assert status == 1
    assert out.startswith("bad.onnx cannot be trained: 1 problem\n")
    status, out, _ = run(capsys, "--check", path, "--json")
    assert status == 1
    (problem,) = json.loads(out)["problems"]
    assert (problem["node"], problem["operator"]) == ("the_sigmoid", "Sigmoid")
    status, out, error = run(capsys, path)  # and it is not built
    assert (status, out) == (2, "")
    assert "the_sigmoid" in error


def test_a_model_that_does_not_fit_names_layer_and_resource(capsys, tmp_path):
    network = Network((3, 32, 32), [Conv2d(64, 3), Flatten(), Linear(256)])
    assert shortfall(network, "zynq7100").startswith("linear1's weights alone need ")
    (tmp_path / "large.json").write_text(network.to_json())
    status, out, _ = run(capsys, "--check", tmp_path / "large.json", "--board", "zynq7100")
    assert status == 1
    assert "board zynq7100" in out
    assert "linear1's weights alone need" in out
    assert "BRAM36; there are 755" in out


def test_strides_are_a_verdict(capsys, tmp_path):
    network = Network((1, 9, 9), [Conv2d(4, 3, stride=2), Flatten(), Linear(2)])
    (tmp_path / "strided.json").write_text(network.to_json())
    status, out, _ = run(capsys, "--check", tmp_path / "strided.json")
    assert status == 1
    assert "conv1 has a kernel of 3x3 and stride 2" in out


def test_weights_that_no_format_holds_are_a_verdict(capsys, tmp_path):
    network = Network((1, 4, 4), [Flatten(), Linear(2)])
    weights = {name: array + 9 for name, array in network.initial_weights().items()}
    (tmp_path / "wide.json").write_text(replace(network, weights=weights).to_json())
    status, out, _ = run(capsys, "--check", tmp_path / "wide.json")
    assert status == 1
    assert "numbers=Numbers(weights=" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--check", "none.onnx"], "Cannot read none.onnx: No such file or directory"),
        (["--check", "net.txt"], "A description ends in .py, .json or .onnx"),
        (["--check", "a.onnx", "b.onnx"], "--check takes the model itself"),
    ],
)
def test_no_verdict_has_status_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in error


def test_an_unknown_board_has_status_2(capsys, write):
    status, _, error = run(capsys, "--check", write("good.onnx", small()), "--board", "nowhere")
    assert status == 2
    assert "nowhere" in error
