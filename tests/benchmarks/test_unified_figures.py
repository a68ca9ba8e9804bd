"""The unified core uses its array as well as docs/unified.md says, by its model of cycles."""

import pytest
import unified

WANTED = {
    "1X": {"": 0.75}, "LeNet-10": {"": 0.5}, "VGG-16": {"": 0.96},
    "AlexNet": {"conv1": 0.6} | dict.fromkeys((f"conv{n}" for n in range(2, 6)), 0.95),
}  # fmt: skip
"""Least part of the array, of a whole step or of each phase of a layer."""


@pytest.mark.parametrize("name", WANTED)
def test_the_array_is_used_as_well_as_wanted(name):
    case, total = unified.cases()[name], unified.Figures()
    for phase, layer, figures in unified.measure(case, 0):
        total += figures
        if layer in WANTED[name] and layer:
            assert figures.needed_by_model / figures.model >= WANTED[name][layer], (phase, layer)
    assert total.needed_by_model / total.model >= WANTED[name].get("", 0)


def test_the_table_has_the_nets_that_are_asked_for(capsys):
    assert unified.main(["--nets", "LeNet-10"]) == 0
    printed = capsys.readouterr().out
    assert "LeNet-10, all" in printed
    assert "1X" not in printed
