"""The nets of the benchmarks are those of the design notes."""

import nets
import pytest

import streamtrain as st

MACS = {"M": 1.476, "S": 3.104, "C": 3.547, "E": 3.238, "X": 29.23}  # millions, in a step
MOST = {"M": 700, "S": 1240, "C": 1250, "E": 720, "X": 1610}  # multipliers


@pytest.mark.parametrize("name", MACS)
def test_macs_are_those_published(name):
    macs = nets.NETS[name].network().training_macs / 1e6
    digits = len(str(MACS[name]).partition(".")[2])
    assert round(macs, digits) == MACS[name]


@pytest.mark.parametrize("name", MOST)
def test_foldings_keep_to_their_multipliers(name):
    assert 0.95 * MOST[name] < nets.NETS[name].design().multipliers <= MOST[name]


def test_relu_follows_every_layer_but_the_last():
    layers = nets.NETS["E"].network().layers
    assert [layer.stem for layer in layers] == [
        *("conv", "relu", "pool"),
        *("conv", "relu", "pool"),
        *("flatten", "linear", "relu", "linear"),
    ]


def test_seeds_give_other_first_weights():
    one, other = (nets.NETS["M"].network(seed).initial_weights() for seed in (1, 2))
    assert (one["conv1.weight"] != other["conv1.weight"]).all()


@pytest.mark.parametrize("name", MACS)
def test_images_fit_the_net(name, published):
    net = nets.NETS[name]
    assert nets.images(net, published).shape == net.input_shape


def test_images_are_random_without_the_data_sets(monkeypatch, tmp_path):
    monkeypatch.setattr(nets, "DATA", tmp_path / "missing")
    data = nets.images(nets.NETS["C"])
    assert data.source == "random images"
    assert data.shape == (3, 32, 32)


def test_a_named_folder_must_have_the_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist is no directory"):
        nets.images(nets.NETS["M"], tmp_path)


def test_short_names_have_the_form_of_the_design_notes():
    network = nets.convolutional((1, 4, 4), "3P-FC2", lr=0.125)
    assert [layer.stem for layer in network.layers] == ["conv", "relu", "pool", "flatten", "linear"]
    assert network.optimizer == st.SGD(0.125)
