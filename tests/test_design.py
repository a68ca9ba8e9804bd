import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

import streamtrain as st
from streamtrain.pipeline.schedule import Estimate

NET = st.Network(
    (1, 8, 8),
    [st.Conv2d(8, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(10)],
)
FOLDINGS = {"conv1": (4, 1, 9), "linear1": (2, 4, 1)}


def test_front_door():
    digits = st.data.load_digits()
    design = st.plan(NET, board="pynq_z2", multipliers=100)
    assert design.multipliers <= 100
    trainer = design.golden()
    history = trainer.fit(digits.train_x, digits.train_y, epochs=2, progress=False)
    assert history.accuracy > 0.6
    assert trainer.evaluate(digits.test_x, digits.test_y, progress=False).accuracy > 0.8
    assert trainer.step(digits.train_x[:1], digits.train_y[:1]).loss >= 0
    assert design.golden(exact=False).state_dict()["conv1.weight"].dtype == float


def test_design_says_what_it_is():
    design = st.plan(NET, foldings=FOLDINGS)
    assert design.network == NET
    assert design.foldings == FOLDINGS
    assert design.multipliers == 44
    assert design.dsp == 45
    assert design.bound_cycles == NET.training_macs / 44
    assert (design.board, design.clock_mhz) == ("pynq_z2", 100.0)
    header, rows = design.table()
    assert header == ("stage", "folding", "multipliers", "words", "FP", "BP", "WU")
    assert rows == [
        ("conv1", "4x1x9", 36, 2, 128, 0, 128),
        ("linear1", "2x4x1", 8, 160, 160, 160, 160),
    ]
    assert "44 multipliers on pynq_z2 at 100 MHz" in str(design)
    assert "4x1x9" in design._repr_html_()


@pytest.mark.parametrize("options, each", [({}, 1), ({"momentum": 0.9}, 2)])
def test_dsp_slices_are_those_of_the_device(options, each):
    net = replace(NET, optimizer=st.SGD(2**-6, **options))
    design = st.plan(net, board="ulx3s_85f")
    assert design.plan.operand_bits == 18
    assert design.dsp == each * design.multipliers + 2 <= 156
    assert design.multipliers > 100 / each
    most = st.plan(net, board="ulx3s_85f", multipliers=154 // each)
    with pytest.raises(ValueError, match=r"for the loss are more than the 156 of ulx3s_85f"):
        st.plan(net, board="ulx3s_85f", multipliers=154 // each + 1)
    larger = {"conv1": (4, 1, 9), "linear1": (2, 64, 1)}
    with pytest.raises(
        ValueError, match=rf"^Design needs {164 * each + 2} DSP slices \(164 multipliers .*\+ 2 for the loss"
    ):
        st.plan(net, board="ulx3s_85f", foldings=larger)
    assert most.dsp <= 156


def test_formats_of_the_other_core_are_refused():
    message = r"^Numbers of the streaming core are an st.Numbers, not 'bf16'; names such as 'bf16' are for core=\"unified\""
    with pytest.raises(ValueError, match=message):
        st.plan(NET, numbers="bf16")


def test_networks_whose_memories_do_not_fit_are_refused():
    """Before anything is generated, and with what there is to be done."""
    layers = [st.Conv2d(32, 3), st.ReLU(), st.Flatten(), st.Linear(10)]
    net = st.Network((3, 32, 32), layers)
    fits = st.plan(net, "zcu102", multipliers=16)
    alone = r"^linear1's weights alone need \d+ BRAM36; xc7z020 has 140; use core=\"unified\", which has DRAM"
    with pytest.raises(ValueError, match=alone):
        st.plan(net, "pynq_z1")
    with pytest.raises(ValueError, match=r"xc7z010 has 60"):
        st.Design(fits.plan, "xc7z010", 100)


def test_design_travels_as_json():
    numbers = st.Numbers(master=st.Fixed(24, 21), round_errors=st.Round.STOCHASTIC)
    design = st.plan(
        NET, "zcu102", foldings=FOLDINGS, numbers=numbers, in_flight=3, max_batch=16, clock_mhz=150
    )
    again = st.Design.from_json(design.to_json())
    assert again == design
    assert hash(again) == hash(design)
    assert again.to_json() == design.to_json()
    assert again.plan.stages[0].folding == (4, 1, 9)
    assert again != st.plan(NET, "zcu102", foldings=FOLDINGS, numbers=numbers)


def test_arguments_reach_the_plan():
    wide = st.Numbers(weights=st.Fixed(18, 15))
    design = st.plan(
        NET,
        "pynq-z2",
        foldings=FOLDINGS,
        overrides={"linear1": wide},
        max_batch=4,
        clock_mhz=80,
        seed=7,
    )
    assert [stage.weights.width for stage in design.plan.stages] == [16, 18]
    assert (design.plan.max_batch, design.plan.seed, design.plan.in_flight) == (4, 7, 2)
    assert (design.board, design.clock_mhz) == ("pynq_z2", 80.0)


def test_default_fills_the_board_but_for_the_loss():
    design = st.plan(NET)
    assert 100 < design.multipliers <= 219
    assert design.dsp <= 220


def test_multipliers_beyond_use_are_left_out():
    small = st.Network((1, 2, 2), [st.Conv2d(2, 1), st.Flatten(), st.Linear(2)])
    assert st.plan(small).multipliers <= 2 + 16


def test_formats_and_multipliers_go_together():
    numbers = st.Numbers(master=st.Fixed(24, 21))
    assert st.plan(NET, multipliers=40, numbers=numbers).plan.stages[0].stored == st.Fixed(24, 21)


def test_estimate_is_at_least_the_bound():
    design = st.plan(NET, multipliers=100, max_batch=16)
    assert isinstance(design.estimate(), Estimate)
    assert design.estimate().cycles >= design.bound_cycles
    assert design.estimate(batch=16).cycles <= design.estimate().cycles


def test_board_can_be_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    text = 'name="mine"\ntitle="Mine"\ndevice="xc7z010"\npart="xc7z010clg400-1"\nclock_mhz=125'
    path.write_text(text)
    design = st.plan(NET, path, foldings=FOLDINGS)
    assert (design.board, design.clock_mhz) == (str(path), 125.0)
    assert st.Design.from_json(design.to_json()) == design


# -- Where the work is done elsewhere ---------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch):
    """Stand-ins for simulation and build that give back what they are called with."""

    def echo(name):
        return lambda *arguments, **options: (name, arguments, options)

    simulate, build = ModuleType("streamtrain.simulate"), ModuleType("streamtrain.build")
    simulate.__dict__.update(SimulatedTrainer=echo("simulate"), verify=echo("verify"))
    build.__dict__.update(build=echo("build"))
    monkeypatch.setitem(sys.modules, "streamtrain.simulate", simulate)
    monkeypatch.setitem(sys.modules, "streamtrain.build", build)
    return SimpleNamespace(design=st.plan(NET, foldings=FOLDINGS))


def test_simulate_verify_and_build_pass_their_options_on(elsewhere):
    design = elsewhere.design
    assert design.simulate(trace="x.vcd") == ("simulate", (design.plan,), {"trace": "x.vcd"})
    assert design.verify(5, stalls=0.3) == ("verify", (design.plan,), {"steps": 5, "stalls": 0.3})
    assert design.build("out", steps=9) == ("build", (design, "out"), {"steps": 9})


# -- Misuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"multipliers": 10, "foldings": FOLDINGS}, ValueError, r"^Give multipliers or foldings, not both$"),
        ({"multipliers": 220}, ValueError, r"^220 multipliers and 1 DSP slice for the loss are more than the 220 of pynq_z2 \(xc7z020\)$"),
        ({"multipliers": 1}, ValueError, r"2 layers with weights"),
        ({"multipliers": 0}, ValueError, r"2 layers with weights"),
        ({"multipliers": 9.5}, TypeError, r"^multipliers must be an integer, not 9.5$"),
        ({"foldings": {"conv1": (8, 1, 9), "linear1": (10, 16, 1)}}, ValueError, r"^Design needs 233 DSP slices \(232 multipliers \+ 1 for the loss\), but pynq_z2 has 220 \(xc7z020\)$"),
        ({"foldings": {"conv1": (3, 1, 9), "linear1": (1, 1, 1)}}, ValueError, r"conv1: Pm = 3 does not divide its 8 output channels"),
        ({"foldings": {"conv1": (4, 1, 9)}}, ValueError, r"No folding is given for linear1"),
        ({"board": "pynq"}, ValueError, r"did you mean pynq_z2\?"),
        ({"clock_mhz": 0}, ValueError, r"^clock_mhz must be positive, not 0$"),
        ({"clock_mhz": "fast"}, TypeError, r"^clock_mhz must be a number, not 'fast'$"),
        ({"max_batch": 0}, ValueError, r"^max_batch must be at least 1, not 0$"),
        ({"in_flight": 0}, ValueError, r"^in_flight must be at least 1, not 0$"),
    ],
)  # fmt: skip
def test_rejects_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        st.plan(NET, **arguments)


def test_a_design_needs_a_plan_and_a_network():
    with pytest.raises(TypeError, match=r"^Plan must be a Plan, not 'plan'$"):
        st.Design("plan", "pynq_z2", 100)
    with pytest.raises(TypeError, match=r"^Network must be a Network, not 7$"):
        st.plan(7)


def test_one_multiplier_less_than_the_board_has_fits():
    foldings = {"conv1": (8, 1, 9), "linear1": (2, 16, 1)}
    assert st.plan(NET, foldings=foldings).dsp == 105
    text = st.plan(NET, "zcu102", foldings={"conv1": (8, 1, 9), "linear1": (10, 16, 1)}).to_json()
    with pytest.raises(ValueError, match=r"pynq_z2 has 220"):
        st.Design.from_json(text.replace("zcu102", "pynq_z2"))


def test_version_is_the_packages():
    assert st.__version__ == "0.1.0"
    assert all(hasattr(st, name) for name in st.__all__)
