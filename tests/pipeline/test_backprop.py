# amaranth: UnusedElaboratable=no
"""The wiring of the way back; what it computes is tested with whole pipelines (test_core.py)."""

import pytest
from amaranth import Module
from amaranth.hdl import Fragment
from amaranth.lib import data, wiring
from small_plans import PLANS, tiny

from streamtrain.numeric import Fixed
from streamtrain.pipeline.backprop import backpropagate, forward_links
from streamtrain.pipeline.numbers import Numbers
from streamtrain.stream import Queue


@pytest.fixture
def m():
    """A module, elaborated in the end: components that never are would warn."""
    module = Module()
    yield module
    Fragment.get(module, None)


def queue(shape):
    return Queue(shape, 1).o


def test_forward_pipeline_is_a_list_of_links(m):
    links, scores = forward_links(m, tiny())
    names = ["conv1", "conv1_pool", "conv1_relu", "conv1_lanes", "linear1", "linear1_lanes"]
    assert [link.name for link in links] == names
    assert [link.stage.name for link in links] == ["conv1"] * 4 + ["linear1"] * 2
    assert scores is links[-1].component.o


@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
def test_errors_fit_all_the_way_back(m, plan):
    links, _ = forward_links(m, plan)
    backpropagate(m, links, queue(data.ArrayLayout(plan.stages[-1].errors, 1)))


@pytest.mark.parametrize(
    "layout", [data.ArrayLayout(Fixed(16, 12), 1), data.ArrayLayout(Fixed(16, 13), 2)], ids=repr
)
def test_errors_of_another_format_are_refused(m, layout):
    links, _ = forward_links(m, tiny(Numbers(errors=Fixed(16, 13))))
    with pytest.raises(wiring.ConnectionError, match=r"^Stream of .* cannot feed a stream of .*13"):
        backpropagate(m, links, queue(layout))


def test_formats_that_do_not_fit_inside_are_refused(m):
    # Links of two plans that disagree on the errors between their stages.
    links, _ = forward_links(m, tiny(Numbers(errors=Fixed(16, 13))))
    m.submodules.others = other = Module()
    others, _ = forward_links(other, tiny(Numbers(errors=Fixed(16, 11))))
    with pytest.raises(wiring.ConnectionError, match=r"frac=13.* cannot feed .*frac=11"):
        backpropagate(m, [*others[:4], *links[4:]], queue(data.ArrayLayout(Fixed(16, 13), 1)))
