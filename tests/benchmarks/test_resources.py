"""The table of resources, without a synthesis."""

import json

import pytest
import resources

from streamtrain.build.synth import Resources

CELLS = {"LUT6": 900, "FDRE": 800, "RAMB18E1": 3}


@pytest.fixture
def synthesised(monkeypatch):
    """Lets a design have one DSP slice for each multiplier, and so many more."""

    def with_loss_dsp(extra):
        def synthesise(verilog, top, *, family):
            cells = CELLS | {"DSP48E1": verilog + extra}
            return Resources.from_cells(cells), "yosys.log"

        monkeypatch.setattr(resources, "synthesise", synthesise)

    monkeypatch.setattr(resources, "generate_verilog", lambda plan, name: plan.multipliers)
    return with_loss_dsp


def test_counts_for_each_multiplier(synthesised, tmp_path, capsys):
    synthesised(1)
    file = tmp_path / "resources.json"
    assert resources.main(["--json", str(file)]) == 0
    demo, small = json.loads(file.read_text())
    assert (demo["design"], small["design"]) == ("demo", "small")
    assert (small["multipliers"], small["dsp"], small["bram36"]) == (44, 45, 1.5)
    assert demo["dsp_as_announced"]
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:9] == ["small", "44", "45", "yes", "1.5", "900", "800", "20", "18"]


def test_fails_with_other_dsp_slices(synthesised, capsys):
    synthesised(2)
    assert resources.main([]) == 1
    assert " NO " in capsys.readouterr().out


def test_takes_descriptions_and_nets(synthesised, tiny, tmp_path, capsys):
    synthesised(1)
    path = tmp_path / "network.json"
    path.write_text(tiny.network().to_json())
    assert resources.main([str(path), "--nets", "T"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split()[:2] == ["T", str(tiny.design().multipliers)]
    assert lines[-1].startswith(str(path))
