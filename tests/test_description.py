import pytest

from streamtrain.description import default_network, load_description
from streamtrain.network import Network

NETWORK = """\
from streamtrain.network import Conv2d, Flatten, Linear, Network
network = Network((1, 4, 4), [Conv2d(2, 3), Flatten(), Linear(3)])
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_python_file(write):
    network = load_description(write("net.py", NETWORK))
    assert isinstance(network, Network)
    assert network.classes == 3


def test_python_file_imports_what_lies_beside_it(write):
    write("beside_net.py", NETWORK)
    assert load_description(write("net.py", "from beside_net import network")).classes == 3


def test_main_block_does_not_run(write):
    text = NETWORK + "if __name__ == '__main__':\n    raise RuntimeError\n"
    assert load_description(write("net.py", text)).classes == 3


def test_json_file(write):
    network = default_network()
    assert load_description(write("net.json", network.to_json())) == network


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("net.py", "x = 1\ny = x / 0\n", r"net\.py, line 2: ZeroDivisionError: division by zero"),
        ("net.py", "import sys\nsys.exit(3)\n", r"net\.py, line 2: SystemExit: 3"),
        ("net.py", "network = (1,\n", r"net\.py, line 1: SyntaxError: '\(' was never closed"),
        ("net.py", "net = 1\n", r"net\.py defines neither network nor design"),
        ("net.py", "network = 1\n", r"net\.py: network must be a Network, not a int"),
        ("net.py", "design = 1\n", r"net\.py: design must be a Design, not a int"),
        (
            "net.py",
            NETWORK.replace("Linear(3)", "Linear(0)"),
            r"net\.py, line 2: ValueError: Linear f",
        ),
        ("net.json", "{", r"net\.json: Not a JSON description"),
        ("net.json", "{}", r"net\.json: Expected a Record"),
        ("net.json", '{"kind": "Nonsense"}', r"net\.json: Unknown kind 'Nonsense'"),
        ("net.json", '{"kind": "ReLU"}', r"net\.json describes a ReLU, not a Network or a Design"),
        ("net.json", '{"kind": "Network", "layer": 1}', r"net\.json: Network has no field 'layer'"),
        ("net.json", '{"kind": "Linear", "features": "3"}', "net.json: .*Linear features must be"),
        ("net.yaml", "", r"ends in \.py, \.json or \.onnx, but .*net\.yaml does not"),
    ],
)
def test_bad_file_is_refused_by_name(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        load_description(write(name, text))


@pytest.mark.parametrize("name", ["net.py", "net.json"])
def test_missing_file(tmp_path, name):
    with pytest.raises(ValueError, match=rf"^Cannot read .*{name}: No such file or directory$"):
        load_description(tmp_path / name)


def test_interrupt_in_a_description_is_no_error_of_it(write):
    with pytest.raises(KeyboardInterrupt):
        load_description(write("net.py", "raise KeyboardInterrupt"))
