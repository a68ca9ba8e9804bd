# amaranth: UnusedElaboratable=no
"""What a plan takes of an FPGA. How near LUTs and flip-flops are is in tests/benchmarks."""

import re
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from amaranth import Module, Mux, Signal, signed
from amaranth.hdl import Fragment
from small_plans import FOLDINGS, PLANS, TINY, partly_frozen, tiny

import streamtrain as st
from streamtrain.build.ecp5 import synthesise_ecp5
from streamtrain.build.parts import ecp5_resources
from streamtrain.build.synth import synthesise
from streamtrain.network import SGD, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.numeric import Fixed
from streamtrain.pipeline.generate import generate_verilog, verilog_of
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower
from streamtrain.pipeline.resources import (
    estimate_resources,
    link_usage,
    lut_counts,
    shell_usage,
    stage_usage,
)
from streamtrain.pipeline.tally import LUT_WEIGHTS
from streamtrain.usage import MemoryUsage, ResourceEstimate, Usage

DEEP = Network(
    (3, 32, 32),
    (
        *(Conv2d(16, 3), ReLU(), MaxPool2d(), Conv2d(32, 3), ReLU(), MaxPool2d()),
        *(Conv2d(64, 5, bias=False), Flatten(), Linear(100), ReLU(), Linear(10)),
    ),
    optimizer=SGD(2**-6),
)


def every_second(name, channels, kernel):
    """Foldings in between."""
    n, m = channels
    return (m // 2, 2 if n % 2 == 0 else 1, kernel)


def smallest(name, channels, kernel):
    return (1, 1, 1)


def largest(name, channels, kernel):
    n, m = channels
    return (m, n, kernel**2)


# -- Right -----------------------------------------------------------------------------------------


FROZEN = [
    partly_frozen("conv1", "linear1", max_batch=3),
    partly_frozen("conv1", "conv2", numbers=Numbers(master=Fixed(20, 16)), lutram_depth=0),
    partly_frozen("conv2", "linear2", lutram_depth=4),
]


def with_optimizer(max_batch=1, numbers=None, **options):
    network = replace(TINY, optimizer=SGD(2**-3, **options))
    return lower(network, FOLDINGS, numbers, in_flight=2, max_batch=max_batch)


ALL = {"momentum": 0.9, "weight_decay": 0.01, "clip": 1.0}


@pytest.mark.parametrize(
    "plan",
    [
        *PLANS.values(),
        tiny(max_batch=5, in_flight=3),
        *FROZEN,
        with_optimizer(momentum=0.9),
        with_optimizer(5, Numbers(master=Fixed(20, 16)), **ALL),
    ],
)
def test_memories_are_those_of_the_gateware(plan):
    declared = {}
    for module, body in re.findall(
        r"^module \\streamtrain\.?(\S*) ?\((.*?)^endmodule", generate_verilog(plan), re.M | re.S
    ):
        for width, name, depth in re.findall(
            r"^  reg (?:\[(\d+):0\] )?(\S+) \[(\d+):0\];", body, re.M
        ):
            path = f"{module}.{name}".removesuffix(".memory").lstrip(".")
            path = re.sub(r"\.bank\d\d$", ".bank", path)
            bits = int(width or 0) + 1
            if path.endswith(("wu_tokens", "bp_tokens")):
                # Whether weights are read or written, or velocities, is of no use there.
                bits -= 2 + bool(plan.network.optimizer.momentum)
            declared.setdefault(path, []).append((bits, int(depth) + 1))
    estimated = {}
    for memory in estimate_resources(plan).memories:
        sizes = [(memory.width, memory.depth)] * memory.copies
        estimated[memory.name] = sizes
    assert declared.keys() == estimated.keys()
    for name, sizes in declared.items():
        if name.endswith(("outputs", "_queue")):  # a bit says whether a sample is trained with
            fewer = [(width - 1, depth) for width, depth in sizes]
            assert estimated[name] in (sizes, fewer), name
        else:
            assert estimated[name] == sizes, name


MEMORY_KINDS = [
    {},
    {"lutram_depth": 0},
    {"lutram_depth": 16},
    {"lutram_depth": 256, "in_flight": 3},
    {"lutram_depth": 1024, "max_batch": 4, "numbers": Numbers(master=Fixed(20, 16))},
]


@pytest.mark.parametrize("options", MEMORY_KINDS)
def test_memories_are_of_the_kind_that_the_gateware_asks_for(options):
    net = Network((1, 8, 8), TINY.layers, optimizer=TINY.optimizer)
    plan = lower(net, {"conv1": (1, 1, 3), "linear1": (1, 2, 1)}, **{"in_flight": 2, **options})
    asked = {}
    for module, body in re.findall(
        r"^module \\streamtrain\.?(\S*) ?\((.*?)^endmodule", generate_verilog(plan), re.M | re.S
    ):
        for style, name in re.findall(
            r'ram_style = "(\w+)" \*\)\n  reg (?:\[\d+:0\] )?(\S+) \[\d+:0\];', body
        ):
            path = f"{module}.{name}".removesuffix(".memory").lstrip(".")
            asked[re.sub(r"\.bank\d\d$", ".bank", path)] = style
    kinds = {True: "block", False: "distributed"}
    memories = estimate_resources(plan).memories
    several = {memory.name: memory for memory in memories if memory.depth > 1}
    assert {name: kinds[memory.bram18 > 0] for name, memory in several.items()} == {
        name: asked.get(name, "block")
        for name in several  # the loss's tables ask for nothing
    }
    # What the choice does not touch: what is read where it is written, short queues, tables.
    fixed = r".*(_tokens|outputs|input_errors|_pool\.best|_queue|_table)|commands"
    chosen = {name: memory for name, memory in several.items() if not re.fullmatch(fixed, name)}
    assert {name.rpartition(".")[2] for name in chosen} >= {
        "bank", "words", "biases", "conv1_pool_record", "conv1_relu_record",
    }  # fmt: skip
    for name, memory in chosen.items():
        assert (memory.bram18 > 0) == (memory.depth > options.get("lutram_depth", 64)), name


# With 0 all that can be is block RAM, with 256 next to nothing is.
@pytest.mark.parametrize("lutram_depth", [0, 16, 256])
def test_memory_kinds_are_as_synthesised(lutram_depth):
    net = Network((1, 8, 8), TINY.layers, optimizer=TINY.optimizer)
    foldings = {"conv1": (1, 1, 3), "linear1": (1, 2, 1)}
    options = {"in_flight": 2, "max_batch": 4}
    estimated = estimate_resources(lower(net, foldings, **options, lutram_depth=lutram_depth)).total
    default = estimate_resources(lower(net, foldings, **options)).total
    assert (estimated.bram18 > default.bram18) == (lutram_depth < 64)
    assert (estimated.lut > default.lut) == (lutram_depth > 64)
    plan = lower(net, foldings, **options, lutram_depth=lutram_depth)
    used, _ = synthesise(generate_verilog(plan), "streamtrain")
    assert (estimated.dsp, estimated.bram36) == (used.dsp, used.bram36)
    assert estimated.lut == pytest.approx(used.lut, rel=0.05)
    assert estimated.ff == pytest.approx(used.ff, rel=0.02)


def test_shifted_products_are_as_synthesised():
    net = Network((1, 8, 8), TINY.layers, optimizer=TINY.optimizer)
    foldings = {"conv1": (1, 1, 3), "linear1": (1, 2, 1)}
    plan = lower(net, foldings, in_flight=2, operand_bits=18)
    estimated = estimate_resources(plan).total
    used, _ = synthesise(generate_verilog(plan), "streamtrain")
    assert used.dsp == plan.multipliers + 1  # the loss's has room for wide operands on this part
    assert estimated.lut == pytest.approx(used.lut, rel=0.05)
    assert estimated.ff == pytest.approx(used.ff, rel=0.02)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}])
def test_narrow_multipliers_are_as_synthesised_for_an_ecp5(options):
    net = Network((2, 1, 1), (Flatten(), Linear(2)), optimizer=SGD(2**-3, **options))
    plan = lower(net, smallest, operand_bits=18)
    netlist, _ = synthesise_ecp5(generate_verilog(plan), "streamtrain")
    made = ecp5_resources(netlist, "streamtrain")["dsp"]
    assert estimate_resources(plan).total.dsp == made == 1 + bool(options) + 2


@pytest.mark.parametrize("loss", [st.MSELoss(), st.SquaredHinge()])
def test_losses_of_squares_are_as_synthesised(loss):
    net = Network((4, 1, 1), (Flatten(), Linear(10)), loss=loss)
    plan = lower(net, smallest)
    estimated = estimate_resources(plan).total
    used, _ = synthesise(generate_verilog(plan), "streamtrain")
    assert (estimated.dsp, estimated.bram36) == (used.dsp, used.bram36) == (2, 0)
    assert estimated.lut == pytest.approx(used.lut, rel=0.05)
    assert estimated.ff == pytest.approx(used.ff, rel=0.02)


@pytest.mark.parametrize("frozen", [["conv1"], ["conv2", "linear1"]])
def test_frozen_layers_are_as_synthesised(frozen):
    layers = (Conv2d(2, 3), ReLU(), MaxPool2d(), Conv2d(4, 3), ReLU(), Flatten(), Linear(3))
    net = Network((1, 8, 8), layers).freeze(*frozen)
    foldings = {"conv1": (1, 1, 3), "conv2": (2, 2, 3), "linear1": (1, 2, 1)}
    plan = lower(net, foldings, in_flight=2)
    estimated = estimate_resources(plan).total
    used, _ = synthesise(generate_verilog(plan), "streamtrain")
    assert (estimated.dsp, estimated.bram36) == (used.dsp, used.bram36)
    assert estimated.lut == pytest.approx(used.lut, rel=0.05)
    assert estimated.ff == pytest.approx(used.ff, rel=0.03)


def multiplier(wide, narrow):
    """Verilog of one multiplier as the array has it, without what is around."""
    m = Module()
    a_in, b_in = Signal(signed(wide)), Signal(signed(narrow))
    a, b = Signal.like(a_in, reset_less=True), Signal.like(b_in, reset_less=True)
    product = Signal(signed(wide + narrow), reset_less=True)
    load, total = Signal(), Signal(signed(wide + narrow + 4), reset_less=True)
    m.d.sync += [
        *(a.eq(a_in), b.eq(b_in), product.eq(a * b)),
        total.eq(Mux(load, 0, total) + product),
    ]
    return verilog_of(Fragment.get(m, None), "multiplier", ports=[a_in, b_in, load, total])


@pytest.mark.parametrize("bits", [(4, 4), (6, 2), (5, 4), (25, 18)])
def test_a_multiplier_is_a_dsp_slice_unless_it_is_tiny(bits):
    wide, narrow = bits
    numbers = Numbers(
        weights=Fixed(narrow, 1), activations=Fixed(min(wide, 18), 1), errors=Fixed(2, 1)
    )
    if wide == 25:  # the learning rate's shift makes it so wide
        plan = lower(DEEP, smallest, numbers)
        assert plan.rate_shifts == 7
    else:
        # The first stage's sums take all 48 bits of an accumulator: nothing is shifted.
        net = Network((1, 46, 46), (Conv2d(1, 1), Conv2d(1, 1), MaxPool2d(), *DEEP.layers[-4:]))
        first = replace(numbers, weights=Fixed(18, 15), errors=Fixed(18, 17))
        plan = lower(net, smallest, replace(numbers, activations=Fixed(18, 15)), {
            "conv1": first, "conv2": numbers,
        })  # fmt: skip
        assert plan.rate_shifts == 0
    used, _ = synthesise(multiplier(wide, narrow), "multiplier")
    assert stage_usage(plan, plan.stages[1]).dsp == used.dsp


def test_a_dsp_slice_for_each_multiplier_and_one_for_the_loss():
    for foldings in (smallest, every_second, largest):
        plan = lower(DEEP, foldings)
        assert estimate_resources(plan).total.dsp == plan.multipliers + 1


@pytest.mark.parametrize("plan", PLANS.values())
def test_a_design_is_the_sum_of_its_parts(plan):
    total = shell_usage(plan)
    for stage, after in pairwise([*plan.stages, None]):
        total += stage_usage(plan, stage) + link_usage(plan, stage, after)
    estimate = estimate_resources(plan)
    whole = estimate.total
    assert (whole.dsp, whole.bram18, whole.ff) == (total.dsp, total.bram18, total.ff)
    assert whole.lut == pytest.approx(total.lut)
    assert whole.lut == pytest.approx(
        sum(LUT_WEIGHTS.get(kind, 1) * count for kind, count in lut_counts(plan).items())
    )
    assert whole.bram18 == sum(memory.bram18 for memory in estimate.memories)
    assert lut_counts(plan)["memory"] == sum(memory.lut for memory in estimate.memories)


def test_a_part_depends_on_no_other_folding():
    plan, other = lower(DEEP, every_second), lower(DEEP, smallest)
    for position, stage in enumerate(plan.stages):
        assert stage_usage(other, stage) == stage_usage(plan, stage)
        after = plan.stages[position + 1] if position + 1 < len(plan.stages) else None
        assert link_usage(other, stage, after) == link_usage(plan, stage, after)
    assert shell_usage(other) == shell_usage(plan)


# -- Right at the extremes -------------------------------------------------------------------------


def test_more_lanes_take_more():
    few, some, all_ = (
        estimate_resources(lower(DEEP, f)).total for f in (smallest, every_second, largest)
    )
    for resource in ("dsp", "lut", "ff"):
        assert getattr(few, resource) < getattr(some, resource) < getattr(all_, resource)


def test_more_samples_and_mini_batches_take_more():
    plain, batched, crowded = (
        estimate_resources(lower(DEEP, every_second, **options)).total
        for options in ({}, {"max_batch": 64}, {"in_flight": 8})
    )
    assert plain.bram18 < batched.bram18
    assert plain.bram18 < crowded.bram18
    assert plain.lut < batched.lut


def test_the_least_design():
    net = Network((2, 1, 1), (Flatten(), Linear(2, bias=False)))
    estimate = estimate_resources(lower(net, smallest))
    assert estimate.total.dsp == 2
    assert [layer.layer for layer in estimate.layers] == ["linear1", "loss and control"]


# -- Fast enough -----------------------------------------------------------------------------------


def test_a_stage_takes_few_calls():
    plan = lower(DEEP, every_second)
    stage_usage(plan, plan.stages[1])
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        stage_usage(plan, plan.stages[1])
    finally:
        sys.setprofile(None)
    assert calls < 1000


# -- What it says ----------------------------------------------------------------------------------


def test_says_which_layer_and_resource_bind():
    plan = lower(DEEP, every_second)
    board = st.load_board("zynq7100")
    estimate = estimate_resources(plan, board.device)
    total = estimate.total
    assert estimate.device == board.device.name
    assert estimate.used["lut"] == total.lut / board.device.lut
    resource, layer = estimate.binding
    assert estimate.used[resource] == max(estimate.used.values())
    takes = {own.layer: getattr(own.usage, resource) for own in estimate.layers}
    assert takes[layer] == max(takes.values())
    assert estimate.most_of("dsp") == max(plan.stages, key=lambda stage: stage.multipliers).name


@pytest.mark.parametrize(
    ("available", "problem"),
    [
        (
            {"bram36": 1, "dsp": 10_000},
            r"^linear1's weights alone need [\d.]+ BRAM36; the device has 1$",
        ),
        ({"dsp": 100}, r"^conv3 alone needs \d[\d,]* DSP; the device has 100$"),
        (
            {"dsp": 500},
            r"^The design needs 551 DSP, 320 of them for conv3; the device has 500$",
        ),
    ],
)
def test_says_why_it_does_not_fit(available, problem):
    estimate = estimate_resources(lower(DEEP, every_second), available)
    assert not estimate.fits
    assert re.search(problem, estimate.problem), estimate.problem
    assert str(estimate).endswith(f"{estimate.problem}.")


def test_names_the_device():
    device = SimpleNamespace(name="XC7Z010", resources={"dsp": 80, "bram36": 60})
    estimate = estimate_resources(lower(DEEP, largest), device)
    assert estimate.problem.endswith("; XC7Z010 has 80")
    fits = estimate_resources(tiny(), device)
    assert fits.fits and fits.problem is None
    assert "of XC7Z010" in str(fits) and "are used" in str(fits)


def test_without_a_device_everything_fits():
    estimate = estimate_resources(tiny())
    assert estimate.fits
    assert (estimate.used, estimate.binding, estimate.problem) == ({}, None, None)
    assert str(estimate).splitlines()[-1].startswith("total")


def test_tables_show_all_layers_and_memories():
    estimate = estimate_resources(tiny(), {"dsp": 100})
    header, rows = estimate.table()
    assert [row[0] for row in rows] == [
        "conv1",
        "linear1",
        "loss and control",
        "total",
        "of the device",
    ]
    assert all(len(row) == len(header) for row in rows)
    header, rows = estimate.memory_table()
    assert len(rows) == len(estimate.memories)
    assert all(len(row) == len(header) for row in rows)
    assert "conv1.weights.words" in {row[0] for row in rows}
    assert "<td" in estimate._repr_html_()


def test_travels_as_json():
    estimate = estimate_resources(tiny(), {"dsp": 100})
    assert ResourceEstimate.from_json(estimate.to_json()) == estimate


def test_a_memory_counts_its_halves():
    memory = MemoryUsage("conv1", "conv1.inputs.bank", 16, 1024, 3, "RAMB18E1", 3, 3, 0)
    assert (memory.bram18, 2 * memory.bram36) == (3, 3)


# -- Clear when misused ----------------------------------------------------------------------------


def test_refuses_what_is_no_plan():
    with pytest.raises(TypeError, match=r"^Plan must be a Plan, not Network\("):
        estimate_resources(TINY)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"DSP": 3}, r"^Resource must be one of dsp, bram36, lut, ff, not 'DSP'$"),
        ({"dsp": 0}, r"^Device must have at least 1 DSP, not 0$"),
    ],
)
def test_refuses_a_nonsensical_device(device, message):
    with pytest.raises(ValueError, match=message):
        estimate_resources(tiny(), device)


def test_refuses_a_stage_of_another_plan():
    with pytest.raises(
        ValueError, match=r"^conv3 is no stage of the plan, whose stages are conv1, l"
    ):
        stage_usage(tiny(), lower(DEEP, smallest).stages[2])


def test_refuses_an_unknown_resource():
    with pytest.raises(
        ValueError, match=r"^Resource must be one of dsp, bram36, lut, ff, not 'uram'$"
    ):
        estimate_resources(tiny()).most_of("uram")


def test_usages_add_to_usages_only():
    assert Usage(1, 2, 3.5, 4) + Usage(1, 1, 1.5, 1) == Usage(2, 3, 5.0, 5)
    with pytest.raises(TypeError):
        Usage() + 1
