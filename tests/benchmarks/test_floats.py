# amaranth: UnusedElaboratable=no
import json

import floats
import pytest

from streamtrain.build.errors import BuildError


def cell(kind, inputs, outputs):
    return {
        "type": kind,
        "connections": {**inputs, **outputs},
        "port_directions": {**dict.fromkeys(inputs, "input"), **dict.fromkeys(outputs, "output")},
    }


def test_levels_are_luts_and_carry_chains_between_registers():
    cells = [
        cell("FDRE", {"D": [9]}, {"Q": [1]}),
        cell("LUT2", {"I0": [1], "I1": ["1"]}, {"O": [2]}),
        cell("CARRY4", {"S": [2, 2], "CI": ["0"]}, {"CO": [3, 4]}),
        cell("CARRY4", {"S": [1, 8], "CI": [4]}, {"O": [5, 6]}),
        cell("LUT1", {"I0": [7]}, {"O": [8]}),  # feeds only the second bit of the chain
        cell("FDRE", {"D": [5]}, {"Q": [7]}),
    ]
    assert floats.levels(cells) == 2
    cells.append(cell("LUT3", {"I0": [6]}, {"O": [9]}))
    assert floats.levels(cells) == 3
    assert floats.levels([]) == 0


def test_prints_what_units_take(tmp_path, capsys):
    names = ["fixed<16,4> multiplier", "fixed<16,4> relu"]
    assert floats.main(["--units", *names, "--json", str(tmp_path / "floats.json")]) == 0
    figures = json.loads((tmp_path / "floats.json").read_text())["units"]
    assert figures[names[0]] == {"latency": 3, "dsp": 1, "lut": 0, "ff": 0, "levels": 0}
    assert figures[names[1]]["lut"] <= 16
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].split() == ["fixed<16,4>", "relu", "1", "0"] + [
        str(figures[names[1]][figure]) for figure in ("lut", "ff", "levels")
    ]


def test_fails_if_a_multiplier_has_other_slices(monkeypatch):
    made = floats.units()
    monkeypatch.setattr(floats, "units", lambda: {"fp32 multiplier": made["bf16 multiplier"]})
    assert floats.main([]) == 1


def test_says_what_yosys_says(monkeypatch):
    monkeypatch.setattr(floats, "verilog_of", lambda unit, name: "module unit(; endmodule")
    with pytest.raises(BuildError, match="syntax error"):
        floats.measure(floats.units()["fp32 relu"]())
