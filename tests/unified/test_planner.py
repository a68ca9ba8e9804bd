"""Which lanes and buffers the planner takes, against trying them one by one."""

from dataclasses import replace

import pytest

import streamtrain as st
from streamtrain.explore.devices import load_board
from streamtrain.pipeline.memories import map_memory
from streamtrain.unified.estimate import estimate_kernel
from streamtrain.unified.kernel import KernelPlan, kernel_arithmetic
from streamtrain.unified.plan import lower
from streamtrain.unified.planner import choose_depths, halvings, plan_kernel, possible_lanes
from streamtrain.unified.resources import estimate_resources

DEVICE = load_board("zcu102").device


def network(**options):
    return st.Network(
        (2, 8, 8),
        [st.Conv2d(6, 3), st.ReLU(), st.MaxPool2d(), st.Conv2d(20, 3), st.ReLU(), st.Flatten(), st.Linear(4)],
        **options,
    )  # fmt: skip


def design(**options):
    return st.plan(network(), "zcu102", core="unified", max_batch=3, **options)


def fits(plan):
    """Not by the planner's own rule: DSP slices, block RAM, and three quarters of the LUTs."""
    used = estimate_resources(plan).total
    return used.dsp <= DEVICE.dsp and used.bram36 <= DEVICE.bram36 and used.lut <= 0.75 * DEVICE.lut


@pytest.mark.parametrize("numbers", ["fp32", "fixed<16,8>"])
def test_lanes_are_those_that_train_fastest(numbers):
    cycles = {}
    for lanes in range(2, 34, 2):
        try:
            own = design(numbers=numbers, lanes=lanes)
        except ValueError:
            continue
        if fits(own.plan):
            cycles[lanes] = own.estimate().cycles
    chosen = design(numbers=numbers)
    assert len(cycles) > 1
    assert chosen.estimate().cycles == min(cycles.values())
    assert chosen.lanes == min(cycles, key=cycles.get)
    assert f"{chosen.lanes} x {chosen.lanes} multipliers" in str(chosen)


@pytest.mark.parametrize("lanes", [4, 6, 16])
@pytest.mark.parametrize(("size", "padding", "stride"), [(8, "same", 1), (9, "same", 2), (11, "valid", 3)])
def test_arrays_work_for_at_least_as_long_as_the_planner_thinks(lanes, size, padding, stride):
    """What it leaves out must not be faster; and its bound is what an array takes, where strides leave no rest."""
    net = st.Network(
        (3, size, size),
        [st.Conv2d(6, 3), st.ReLU(), st.Conv2d(20, 5, padding, stride=stride), st.ReLU(), st.Flatten(), st.Linear(4)],
    )  # fmt: skip
    plan = st.plan(net, "zcu102", core="unified", numbers="fixed<16,8>", lanes=lanes, max_batch=3).plan
    works = estimate_kernel(plan).step.compute
    bound = 3 * lower(net, lanes).array_cycles
    assert 0.8 * works < bound <= works
    if stride == 1:
        assert bound == works


def test_arrays_have_dsp_slices_and_whole_words():
    fp32 = kernel_arithmetic("fp32")
    assert possible_lanes(fp32, DEVICE, 64) == list(
        range(2, 36, 2)
    )  # two slices for a product, of 2,520
    assert possible_lanes(fp32, DEVICE, 256) == [8, 16, 24, 32]


def test_a_device_that_has_no_room_says_what_each_array_needs():
    small = replace(DEVICE, dsp=70, lut=9_000, lutram=4_500)
    with pytest.raises(
        ValueError,
        match=r"^even with 2 lanes, it needs 1\d,\d\d\d LUT, most of them for the \w+, which is more than 75% of the "
        r"9,000 of xczu9eg$",
    ):
        plan_kernel(network(), kernel_arithmetic("fp32"), 1, small)


def test_a_network_that_the_core_refuses_says_so_once():
    net = network(optimizer=st.SGD(momentum=0.5))
    with pytest.raises(ValueError, match=r"^SGD has momentum=0.5, which the unified core"):
        st.plan(net, "pynq_z2", core="unified", numbers="fixed<8,4>")


def test_buffers_shrink_step_by_step_to_the_least():
    numbers = kernel_arithmetic("bf16")
    array = lower(network(), 4)
    way = list(halvings(array, numbers, 3, 0, data_bits=64))
    taken = [bram36 for _, bram36, _ in way]
    assert taken == sorted(taken, reverse=True)
    assert len(set(taken)) == len(taken) > 1
    for depths, _, _ in way:
        KernelPlan(array, numbers, 3, depths)  # which refuses what does not fit
    assert choose_depths(array, numbers, 3, taken[-1], data_bits=64) == way[-1][0]
    with pytest.raises(ValueError, match="Buffers of 4 lanes take at least"):
        choose_depths(array, numbers, 3, taken[-1] - 0.5, data_bits=64)


def test_the_rest_of_a_device_is_left_for_other_memories():
    plan = plan_kernel(network(), kernel_arithmetic("bf16"), 3, DEVICE, lanes=8)
    memories = estimate_resources(plan, DEVICE).memories
    assert sum(memory.bram36 for memory in memories) <= DEVICE.bram36
    for memory in memories:
        block = True if memory.bram18 else None
        assert (
            memory.bram18
            == memory.copies * map_memory(memory.width, memory.depth, block=block).bram18
        )


def test_what_is_tried_is_told():
    said = []
    plan = plan_kernel(network(), kernel_arithmetic("fp32"), 3, DEVICE, report=said.append)
    lanes = plan.array.lanes
    assert f"buffers for {lanes} x {lanes} multipliers" in said
