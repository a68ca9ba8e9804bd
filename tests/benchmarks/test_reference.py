import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import reference

import streamtrain as st
from streamtrain.build.synth import Resources

RESOURCES = Resources.from_cells({"DSP48E1": 3, "LUT6": 1200, "FDRE": 800, "RAMB18E1": 3})
TINY = st.Network((1, 2, 2), [st.Flatten(), st.Linear(2)])


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Two tiny designs, and tools that take no time; the folder of the kept figures."""
    routed = SimpleNamespace(fmax_mhz=61.234)
    netlist = json.dumps({"modules": {"streamtrain": {"cells": {"a": {"type": "CCU2C"}}}}})
    monkeypatch.setattr(reference, "KEPT", tmp_path / "reference.json")
    monkeypatch.setattr(reference, "synthesise", lambda verilog, top, family: (RESOURCES, None))
    monkeypatch.setattr(reference, "synthesise_ecp5", lambda verilog, top: (netlist, None))
    monkeypatch.setattr(
        reference, "place_and_route", lambda netlist, part, mhz, seed: (routed, None, None)
    )
    monkeypatch.setattr(
        reference,
        "REFERENCES",
        {
            "one": reference.Reference(
                "one, routed", lambda: st.plan(TINY, "ulx3s_85f", multipliers=1), False, True
            ),
            "two": reference.Reference(
                "two, an IP", lambda: st.plan(TINY, "pynq_z2", multipliers=1), True, False
            ),
        },
    )
    return tmp_path


def run(capsys, *arguments):
    assert reference.main(["--designs", "one", "two", *arguments]) == 0
    return capsys.readouterr().out


def test_figures_are_kept_and_changes_told(quick, capsys, monkeypatch):
    out = run(capsys, "--route", "--keep")
    assert "one, routed: no figures were kept" in out
    kept = json.loads((quick / "reference.json").read_text())
    assert kept["one"]["fmax_mhz"] == pytest.approx(61.2) and kept["one"]["tools"].keys() == {
        "yosys",
        "nextpnr",
    }
    assert (kept["two"]["lut"], kept["two"]["bram36"]) == (1200, 1.5)
    assert kept["two"]["date"].count("-") == 2
    day = kept["two"]["date"]

    assert f"two, an IP: as since {day}" in run(capsys)
    smaller = Resources.from_cells({"DSP48E1": 3, "LUT6": 900, "FDRE": 801, "RAMB18E1": 3})
    monkeypatch.setattr(reference, "synthesise", lambda verilog, top, family: (smaller, None))
    monkeypatch.setattr(reference, "yosys_version", lambda: "9.9")
    out = run(capsys)
    was = kept["two"]["tools"]["yosys"]
    assert (
        f"two, an IP: LUT 1,200 -> 900 (-25.0%), FF 800 -> 801 (+0.1%) since {day}; "
        f"yosys {was} was then, now 9.9"
    ) in out
    assert json.loads((quick / "reference.json").read_text()) == kept


def test_without_routing_the_last_clock_stays(quick, capsys):
    run(capsys, "--route", "--keep")
    out = run(capsys, "--keep")
    assert "61.2" not in out
    kept = json.loads((quick / "reference.json").read_text())["one"]
    assert kept["fmax_mhz"] == pytest.approx(61.2) and "nextpnr" in kept["tools"]


def test_cheap_leaves_out_what_takes_long(quick, capsys):
    out = run(capsys, "--cheap")
    assert "one, routed" in out and "two" not in out


def test_figures_are_kept_of_every_reference_design():
    kept = json.loads(Path(reference.__file__).with_suffix(".json").read_text())
    assert kept.keys() == reference.REFERENCES.keys()
    for own in kept.values():
        assert own.keys() >= {"date", "tools", "multipliers", "lut", "ff", "dsp", "bram36"}
    assert kept["digits"]["fmax_mhz"] > 0
