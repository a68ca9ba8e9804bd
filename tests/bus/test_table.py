# amaranth: UnusedElaboratable=no

from dataclasses import replace

import pytest
from packet_plans import FORMATS, everything, many_classes, name_of
from small_plans import mixed_formats, tiny

from streamtrain.bus import PacketFormat, TrainerIP, register_map
from streamtrain.bus.table import WIDE, configuration, release
from streamtrain.network import SGD, Flatten, Linear, Network, ReLU
from streamtrain.numeric import Fixed
from streamtrain.pipeline.generate import verilog_of
from streamtrain.pipeline.layouts import saturation_sites
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower


def facts(table, name):
    return {field.name: field.reset for field in table[name].fields}


@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_facts_are_those_of_plan_and_streams(fmt):
    table, plan = register_map(fmt), fmt.plan
    assert table["ID"].reset.to_bytes(4) == b"STRM"
    assert facts(table, "SHAPE") == {"classes": plan.network.classes, "layers": len(plan.stages)}
    assert facts(table, "SAMPLE_BYTES") == {"bytes": fmt.sample_bytes}
    assert facts(table, "RESULT_BYTES") == {"bytes": fmt.result_bytes}
    hashed = table["HASH_HIGH"].reset << 32 | table["HASH"].reset
    assert hashed == configuration(plan, fmt.size)
    assert facts(table, "FEATURES")["bytes"] == fmt.size


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.1.0", (0, 1, 0)),
        ("0.1.0rc1", (0, 1, 0)),
        ("1.0rc2", (1, 0, 0)),
        ("2", (2, 0, 0)),
        ("10.20.30.post1.dev4+local", (10, 20, 30)),
        ("1!3.4.5", (3, 4, 5)),
    ],
)
def test_versions_of_every_kind_have_three_numbers(text, numbers, monkeypatch):
    assert release(text) == numbers
    monkeypatch.setattr("streamtrain.bus.table.version", lambda name: text)
    found = facts(register_map(PacketFormat(tiny())), "VERSION")
    assert tuple(found[name] for name in ("major", "minor", "patch")) == numbers


def test_only_what_a_design_has_is_there():
    optional = {"MOMENTUM", "DECAY", "CLIP", "SEED"}
    has = {
        name: {register.name for register in register_map(PacketFormat(plan))} & optional
        for name, plan in (
            ("tiny", tiny()),
            ("random", mixed_formats()),
            ("everything", everything()),
        )
    }
    assert has == {"tiny": set(), "random": {"SEED"}, "everything": optional}
    features = facts(register_map(PacketFormat(everything())), "FEATURES")
    assert features == {
        "bytes": 4,
        "momentum": 1,
        "decay": 1,
        "clip": 1,
        "random": 1,
        "max_batch": 5,
    }
    assert register_map(PacketFormat(everything()))["BATCH"]["samples"].maximum == 5


def test_registers_of_all_designs_have_the_same_addresses():
    """Besides saturations, which are of layers."""
    tables = [register_map(fmt) for fmt in (*FORMATS, PacketFormat(everything()))]
    found = {}
    for table in tables:
        for register in table:
            if not register.name.startswith("SATURATED"):
                assert found.setdefault(register.name, register.address) == register.address
    assert len(set(found.values())) == len(found)


def test_each_stage_has_sixteen_bytes_of_saturations():
    for plan in (mixed_formats(), everything()):
        table = register_map(PacketFormat(plan))
        for number, stage in enumerate(plan.stages):
            for place, site in enumerate(saturation_sites(plan)):
                name = f"SATURATED_{stage.name}_{site}".upper()
                assert table[name].address == 0x100 + 16 * number + 4 * place


def test_upper_halves_are_behind_the_lower_ones():
    table = register_map(PacketFormat(tiny()))
    for name in WIDE:
        assert table[f"{name}_HIGH"].captured_by == name
        assert table[f"{name}_HIGH"].address == table[name].address + 4


def test_learning_rate_after_reset_is_the_plans():
    plan = tiny()
    field = register_map(PacketFormat(plan))["RATE"]
    assert (field["mantissa"].reset, field["shift"].reset) == plan.rate_code(
        plan.network.optimizer.lr
    )


CHANGES = {
    "size": (lambda plan: plan, 8),
    "batch": (lambda plan: tiny(max_batch=2), 4),
    "in flight": (lambda plan: tiny(in_flight=3), 4),
    "formats": (lambda plan: tiny(Numbers(weights=Fixed(9, 7))), 4),
    "learning rate": (
        lambda plan: replace(plan, network=replace(plan.network, optimizer=SGD(2**-4))),
        4,
    ),
    "network": (lambda plan: mixed_formats(), 4),
}


@pytest.mark.parametrize("change", CHANGES)
def test_hash_tells_designs_apart(change):
    changed, size = CHANGES[change]
    assert configuration(changed(tiny()), size) != configuration(tiny(), 4)


def test_hash_is_of_what_the_gates_depend_on():
    plan = tiny()
    reseeded = replace(plan, network=replace(plan.network, seed=99))
    assert configuration(reseeded, 4) == configuration(plan, 4)
    assert configuration(tiny(), 4) == configuration(plan, 4)
    assert configuration(plan, 4) < 1 << 64


def stack(*names):
    layers = [Flatten()]
    for name in names[:-1]:
        layers += [Linear(2, name=name), ReLU()]
    net = Network((1, 1, 2), (*layers, Linear(2, name=names[-1])))
    return lower(net, dict.fromkeys(names, (1, 1, 1)))


def test_layers_may_have_capitals_in_their_names():
    text = verilog_of(TrainerIP(PacketFormat(stack("Hidden", "Out"))), "trainer")
    assert "s_axi_ctrl_awaddr" in text
    assert "SATURATED_HIDDEN_OUTPUT" in register_map(PacketFormat(stack("Hidden", "Out")))


def test_refuses_names_that_differ_only_by_case():
    message = r"^Registers are named after layers, but fc and FC differ only by case; rename one$"
    with pytest.raises(ValueError, match=message):
        register_map(PacketFormat(stack("fc", "FC")))


def test_refuses_names_that_c_does_not_know():
    message = r"^Register 'SATURATED_COUCHÉ_OUTPUT' must be named by capitals"
    with pytest.raises(ValueError, match=message):
        register_map(PacketFormat(stack("couché", "out")))


def test_has_room_for_32_layers_and_not_for_one_more():
    names = [f"fc{n}" for n in range(33)]
    table = register_map(PacketFormat(stack(*names[:32])))
    assert table["FROZEN"]["layers"].bits == 32
    assert table["WINDOW"]["layer"].maximum == 31
    message = r"^Registers have room for 32 layers with weights, but the plan has 33$"
    with pytest.raises(ValueError, match=message):
        register_map(PacketFormat(stack(*names)))


def test_many_classes_fit():
    table = register_map(PacketFormat(many_classes(300), 2))
    assert facts(table, "SHAPE")["classes"] == 300
