# amaranth: UnusedElaboratable=no

import numpy as np
import pytest
from amaranth import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator

from streamtrain.numeric import Chain, Lfsr, lane_bits, lfsr_states, link


class Lanes(wiring.Component):
    """An Lfsr with the random numbers that 33 lanes read from it."""

    def __init__(self, seed, bits):
        self.seed, self.bits = seed, bits
        super().__init__({"lane": Out(unsigned(bits)).array(33), "advance": wiring.In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.lfsr = lfsr = Lfsr(self.seed)
        self.state = Signal(32)
        m.d.comb += [self.state.eq(lfsr.state), lfsr.advance.eq(self.advance)]
        m.d.comb += [out.eq(lane_bits(lfsr.state, i, self.bits)) for i, out in enumerate(self.lane)]
        return m


@pytest.mark.parametrize(("seed", "bits"), [(1, 32), (0xFFFFFFFF, 1), (0x12345678, 13)])
def test_gates_and_numpy_give_the_same_numbers(seed, bits):
    dut = Lanes(seed, bits)
    states, after = lfsr_states(seed, 20)

    async def bench(ctx):
        for state in [*states, after]:
            assert ctx.get(dut.state) == state
            assert [ctx.get(lane) for lane in dut.lane] == [
                int(lane_bits(state, lane, bits)) for lane in range(33)
            ]
            await ctx.tick()  # stays without `advance`
            assert ctx.get(dut.state) == state
            ctx.set(dut.advance, 1)
            await ctx.tick()
            ctx.set(dut.advance, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_linked_registers_are_one():
    seeds, new = [0x12345678, 0xFFFFFFFF, 1], [0x80000001, 0xDEADBEEF, 0x0F0F0F0F]
    m = Module()
    chain = Chain().create()
    registers = [Lfsr(seed) for seed in seeds]
    for number, register in enumerate(registers):
        m.submodules[f"lfsr{number}"] = register
        m.d.comb += register.advance.eq(1)  # shifting goes first
    link(m, chain, [register.chain for register in registers])

    async def bench(ctx):
        ctx.set(chain.shift, 1)
        sent = "".join(f"{state:032b}" for state in reversed(new))
        came = ""
        for bit in sent:
            came += str(ctx.get(chain.o))
            ctx.set(chain.i, int(bit))
            await ctx.tick()
        assert came == "".join(f"{state:032b}" for state in reversed(seeds))
        assert [ctx.get(register.state) for register in registers] == new
        ctx.set(chain.shift, 0)
        await ctx.tick()
        after = [lfsr_states(state, 1)[1] for state in new]
        assert [ctx.get(register.state) for register in registers] == after

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_states_go_on_where_they_ended():
    whole, last = lfsr_states(7, 10)
    first, between = lfsr_states(7, 4)
    rest, end = lfsr_states(between, 6)
    assert whole.tolist() == [*first, *rest]
    assert whole[0] == 7
    assert end == last


def test_period_is_the_longest_possible():
    # Advancing is linear over GF(2): a matrix whose columns are where the single bits go.
    matrix = np.array([
        [lfsr_states(1 << i, 2)[0][1] >> j & 1 for i in range(32)] for j in range(32)
    ])

    def power(exponent):
        result, square = np.eye(32, dtype=np.int64), matrix.astype(np.int64)
        while exponent:
            if exponent & 1:
                result = result @ square % 2
            square = square @ square % 2
            exponent >>= 1
        return result

    period = 2**32 - 1
    assert (power(period) == np.eye(32)).all()
    for prime in (3, 5, 17, 257, 65537):
        assert (power(period // prime) != np.eye(32)).any()


def test_lanes_read_different_numbers():
    state = np.uint32(0x9E3779B1)
    assert len({int(lane_bits(state, lane, 32)) for lane in range(32)}) == 32
    assert lane_bits(state, 32, 32) == lane_bits(state, 0, 32) == state


def test_random_numbers_are_uniform():
    states, _ = lfsr_states(5, 4000)
    for lane in (0, 7):
        counts = np.bincount(lane_bits(states, lane, 3), minlength=8)
        np.testing.assert_allclose(counts, 500, atol=100)  # 4.8 sigma


@pytest.mark.parametrize("seed", [0, -1, 2**32])
def test_rejects_seeds(seed):
    with pytest.raises(ValueError, match=rf"^Seed must be 1 to 2\*\*32 - 1, not {seed}$"):
        Lfsr(seed)


def test_rejects_more_bits_than_there_are():
    with pytest.raises(ValueError, match=r"^Stochastic rounding drops at most 32 bits, not 33$"):
        lane_bits(1, 0, 33)
