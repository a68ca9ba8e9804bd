# amaranth: UnusedElaboratable=no

import random

import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.simulate.bench import run_streams
from streamtrain.stream import fork


class Copies(wiring.Component):
    """Gives each number to those of its outputs that are wanted for it."""

    def __init__(self, branches):
        self.branches = branches
        layout = data.StructLayout({"number": 8, "wanted": branches})
        members = {"i": In(stream.Signature(layout))}
        members.update({f"o{n}": Out(stream.Signature(8)) for n in range(branches)})
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        ports = [getattr(self, f"o{n}") for n in range(self.branches)]
        wanted = self.i.payload.wanted
        m.d.comb += [port.payload.eq(self.i.payload.number) for port in ports]
        branches = [(port, wanted[n]) for n, port in enumerate(ports)]
        m.d.comb += self.i.ready.eq(fork(m, self.i.valid, branches))
        return m


def run(payloads, branches, **options):
    expected = {
        f"o{n}": [number for number, wanted in payloads if wanted >> n & 1] for n in range(branches)
    }
    payloads = [{"number": number, "wanted": wanted} for number, wanted in payloads]
    counts = {name: len(numbers) for name, numbers in expected.items()}
    result = run_streams(Copies(branches), {"i": payloads}, counts, **options)
    assert result.received == expected
    return result


@pytest.mark.parametrize("stall", [0.0, 0.5, {"o0": 0.8}])
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_each_branch_gets_what_is_wanted_there_once(branches, stall):
    rng = random.Random(branches)
    run([(n, rng.randrange(2**branches)) for n in range(60)], branches, stall=stall)


def test_one_payload_per_cycle():
    run([(n, 3) for n in range(50)], 2, max_cycles=50)


def test_a_branch_does_not_wait_for_another():
    # One payload ahead: a branch gets it as soon as it is offered, whatever the other does.
    result = run([(n, 3) for n in range(20)], 2, stall={"o0": 0.8})
    assert result.times["o1"] == [0, *(cycle + 1 for cycle in result.times["o0"][:-1])]


def test_what_nobody_wants_is_dropped_in_a_cycle():
    run([(n, 0) for n in range(10)], 2, max_cycles=10)
