import pytest

from streamtrain.explore.published import published_designs, training_gops
from streamtrain.network import network_text


@pytest.fixture
def nets(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    from nets import NETS

    return {name: net.network() for name, net in NETS.items()}


def test_figures_of_each_paper_agree(nets):
    """Stated samples/s and stated operations are two accounts of the same thing."""
    texts = {network_text(net): net for net in nets.values()}
    checked = 0
    for design in published_designs():
        if design.network and design.samples_per_s:
            gops = training_gops(texts[design.network], design.samples_per_s)
            assert design.gops == pytest.approx(gops, rel=0.02), design.label
            checked += 1
    assert checked >= 3


def test_networks_are_some_that_can_be_described(nets):
    named = {design.network for design in published_designs()} - {""}
    assert named <= {network_text(net) for net in nets.values()}


def test_speed_is_known_on_the_same_network_only(nets):
    design = next(
        design for design in published_designs() if design.label.startswith("ES-FL (FP32, batch 1)")
    )
    assert design.speed(nets["E"]) == 2613
    assert design.speed(nets["M"]) is None
    assert not any(design.speed(nets["C"]) for design in published_designs())


def test_speed_follows_from_operations(nets):
    (design,) = [design for design in published_designs() if design.name == "EF-Train"]
    assert design.samples_per_s is None
    assert training_gops(nets["X"], design.speed(nets["X"])) == pytest.approx(28.15)


def test_each_can_be_looked_up_and_compared():
    for design in published_designs():
        assert str(design.year) in design.source
        assert design.format in design.label and design.batch in design.label
