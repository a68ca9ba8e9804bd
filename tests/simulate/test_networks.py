"""Whole training runs: RTL equals the golden model, and takes no more cycles than promised.

Each net is compiled once, with the memories for mini-batches, and everything is asked of that model.
"""

import numpy as np
import pytest
from nets import NETS, images

from streamtrain.simulate import SimulatedDevice, verify

STEPS = {"M": 1000, "E": 200, "C": 200}


def _net(name):
    return pytest.param(name, marks=pytest.mark.xdist_group(f"net {name}"))


@pytest.mark.parametrize("name", [_net(name) for name in ("C", "M", "E")])
def test_rtl_equals_golden_within_its_cycles(name, published):
    net, steps = NETS[name], STEPS[name]
    plan = net.design(max_batch=16).plan
    data = images(net, published)
    device = SimulatedDevice(plan)

    def verified(*, begin=0, steps=steps, **options):
        x, y = data.train_x[begin : begin + 1000], data.train_y[begin : begin + 1000]
        result = verify(plan, steps, x=x, y=y, progress=False, **options)
        assert result.bit_exact, str(result)
        return result

    first = verified(device=device)
    assert first.steps == steps
    assert first.cycles_per_step <= net.most_cycles
    verified(device=device, begin=1000)  # again, without reset
    verified(stall=0.3)

    batches = verified(device=device, steps=6, batch_size=16)
    assert batches.cycles_per_step <= (1 - (net.least_saving or 0)) * first.cycles_per_step


@pytest.mark.xdist_group("net S")
def test_the_svhn_net_takes_no_more_cycles_than_promised(published):
    net = NETS["S"]
    data = images(net, published)
    result = verify(net.design().plan, 24, x=data.train_x, y=data.train_y, progress=False)
    assert result.bit_exact, str(result)
    assert result.cycles_per_step <= net.most_cycles


def test_promises_are_for_so_many_multipliers():
    most = {"M": 700, "E": 720, "S": 1240, "C": 1250}
    assert {n: NETS[n].design().multipliers <= top for n, top in most.items()} == dict.fromkeys(
        most, True
    )
    assert np.isclose(NETS["M"].design().bound_cycles, 1_476_288 / NETS["M"].design().multipliers)
