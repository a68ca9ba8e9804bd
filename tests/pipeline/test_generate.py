# amaranth: UnusedElaboratable=no
"""What is generated: the same bytes every time, and the same gates after a refactor."""

import os
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
from amaranth.back import rtlil
from small_plans import PLANS, partly_frozen, tiny

from streamtrain.description import default_network
from streamtrain.numeric import Fixed
from streamtrain.pipeline import generate
from streamtrain.pipeline.core import TrainingPipeline
from streamtrain.pipeline.generate import generate_verilog
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

HASHES = Path(__file__).with_name("reference_hashes.txt")
UPDATE = "python -m pytest tests/pipeline/test_generate.py --update-hashes"

REFERENCES = {
    **PLANS,
    "mini-batches": tiny(Numbers(master=Fixed(20, 16)), max_batch=16),
    "frozen layers": partly_frozen("conv1", "linear1", in_flight=2),
    "digits": lower(
        default_network(), {"conv1": (4, 1, 9), "conv2": (16, 1, 9), "linear1": (2, 16, 1)}
    ),
}


def test_gates_of_the_reference_designs_have_not_changed(request):
    """A refactor shows here that it changed no gates. When they are meant to change, say so."""
    found = [f"amaranth {version('amaranth')}"]
    for name, plan in REFERENCES.items():
        with generate._large_design():
            text = rtlil.convert(TrainingPipeline(plan), emit_src=False)
        found.append(f"{sha256(text.encode()).hexdigest()[:32]} {name}")
    if request.config.getoption("--update-hashes", default=False):
        HASHES.write_text("\n".join([*found, ""]))
    expected = HASHES.read_text().splitlines()
    if expected[0] != found[0]:
        pytest.skip(f"hashes are of {expected[0]}, but this is {found[0]}")
    changed = sorted({line.partition(" ")[2] for line in set(expected) ^ set(found)})
    assert not changed, f"gates of {', '.join(changed)} changed; if they were meant to: {UPDATE}"


def test_verilog_does_not_depend_on_the_run():
    program = (
        "from hashlib import sha256\n"
        "from small_plans import tiny\n"
        "from streamtrain.pipeline.generate import generate_verilog\n"
        "print(sha256(generate_verilog(tiny()).encode()).hexdigest())\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert first == second
    assert first.strip() == sha256(generate_verilog(tiny()).encode()).hexdigest()


def test_verilog_has_the_pipeline_s_ports_and_no_trace_of_this_machine():
    text = generate_verilog(PLANS["only linear"], name="learner")
    assert "module learner(" in text
    for port in ("i__payload", "command__valid", "o__ready", "weights_o__payload", "idle"):
        assert f" {port};" in text
    assert "saturated_linear1_weights;" in text
    assert "src =" not in text
    assert "/home" not in text and "streamtrain/" not in text


def test_a_failure_of_yosys_is_reported(monkeypatch):
    monkeypatch.setattr(generate, "_PASSES", ("no_such_pass",))
    with pytest.raises(RuntimeError, match=r"^Yosys failed: .*No such command: no_such_pass"):
        generate_verilog(PLANS["only linear"], name="failing")
