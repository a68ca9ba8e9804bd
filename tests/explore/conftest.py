import pytest
from fronts import make_front

from streamtrain.description import default_network
from streamtrain.explore.front import Front
from streamtrain.pipeline.numbers import Numbers


@pytest.fixture(scope="session")
def front():
    return make_front()


@pytest.fixture(scope="session")
def long_front():
    return make_front(default_network(), designs=600)


@pytest.fixture(scope="session")
def varied_front():
    """Two clocks and two formats."""
    wide = Numbers(weights="fixed<18,3>")
    return make_front(clocks=(100.0, 150.0), numbers=(None, wide))


@pytest.fixture
def empty_front(front):
    return Front(
        network=front.network,
        board="pynq_z2",
        batch=1,
        objectives=("samples_per_s", "dsp"),
        constraints={"dsp": 2},
        variants=front.variants,
        points=(),
        reason="2 layers with weights take a DSP slice each, and the loss 1; dsp is 2",
    )
