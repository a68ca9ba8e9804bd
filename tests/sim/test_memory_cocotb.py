# amaranth: UnusedElaboratable=no
"""The masters of memory against cocotbext-axi's memory, which is not ours."""

import sys
from pathlib import Path

import pytest

from streamtrain.pipeline.generate import verilog_of

sys.path.append(str(Path(__file__).parents[2] / "sim"))
sys.path.append(str(Path(__file__).parents[1] / "bus"))
import run as bench
from memory_designs import COPY, CopyEngine

pytestmark = pytest.mark.xdist_group("cocotb")


@pytest.mark.parametrize("data_bits", [32, 512])
def test_copies(tmp_path, data_bits):
    engine = CopyEngine(data_bits, burst_beats=16)
    (tmp_path / "streamtrain.v").write_text(verilog_of(engine, "streamtrain"))
    (tmp_path / "registers.json").write_text(COPY.to_json())
    assert bench.run(bench.build(tmp_path), tmp_path, ["test_memory"]) == 1
