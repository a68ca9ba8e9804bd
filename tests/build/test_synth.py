# amaranth: UnusedElaboratable=no
import errno
import os
from textwrap import dedent

import pytest

from streamtrain.build import BuildError, Resources, synthesise
from streamtrain.build.synth import yosys_version
from streamtrain.cache import CacheWarning

MULTIPLY_ACCUMULATE = dedent("""
    module top(input clk, input load, input signed [24:0] x, input signed [17:0] w,
               output reg signed [47:0] p);
      reg signed [24:0] a;
      reg signed [17:0] b;
      reg signed [42:0] m;
      always @(posedge clk) begin
        a <= x;
        b <= w;
        m <= a * b;
        p <= (load ? 48'sd0 : p) + m;
      end
    endmodule
""")

MEMORY = dedent("""
    module top #(parameter DEPTH = {depth}) (input clk, input write, input [9:0] at,
               input [{width} - 1:0] i, output reg [{width} - 1:0] o);
      reg [{width} - 1:0] words [0:DEPTH - 1];
      always @(posedge clk) begin
        if (write) words[at] <= i;
        o <= words[at];
      end
    endmodule
""")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_multiply_accumulate_is_one_dsp():
    resources, log = synthesise(MULTIPLY_ACCUMULATE, "top")
    assert (resources.dsp, resources.bram36, resources.lut, resources.ff) == (1, 0, 0, 0)
    assert "Yosys" in log.read_text()


@pytest.mark.parametrize(
    ("depth", "width", "bram36"), [(1024, 36, 1), (1024, 18, 0.5), (1024, 54, 1.5)]
)
def test_memory_is_block_ram(depth, width, bram36):
    resources, _ = synthesise(MEMORY.format(depth=depth, width=width), "top")
    assert (resources.dsp, resources.bram36) == (0, bram36)


def test_ultrascale_has_primitives_of_its_own():
    resources, _ = synthesise(MULTIPLY_ACCUMULATE, "top", family="xcup")
    assert resources.dsp == resources.cells["DSP48E2"] == 1


def test_lut_ram_counts_the_luts_it_is_made_of():
    cells = {"LUT2": 3, "LUT6": 5, "INV": 1, "SRL16E": 2, "RAM32M": 1, "RAM64X1D": 1, "CARRY4": 9}
    assert Resources.from_cells(cells).lut == 3 + 5 + 1 + 2 + 4 + 2


def test_every_kind_of_flip_flop_counts():
    cells = {"FDRE": 1, "FDSE": 2, "FDCE": 4, "FDPE": 8, "FDRE_1": 16, "LDCE": 32}
    assert Resources.from_cells(cells).ff == 63


def test_unknown_lut_ram_is_refused():
    with pytest.raises(ValueError, match=r"^No LUT count is known for the primitive RAM9X9$"):
        Resources.from_cells({"RAM9X9": 1})


def test_second_synthesis_comes_from_the_cache(monkeypatch, tmp_path):
    passes = []
    first = synthesise(MULTIPLY_ACCUMULATE, "top", progress=passes.append)
    assert any("SYNTH_XILINX" in text for text in passes)
    monkeypatch.setattr("streamtrain.build.synth.run_yosys", None)
    assert synthesise(MULTIPLY_ACCUMULATE, "top") == first
    file = tmp_path / "design.v"
    file.write_text(MULTIPLY_ACCUMULATE)
    assert synthesise(file, "top") == first


def test_a_full_disk_loses_nothing_but_time(monkeypatch, cache):
    def write(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("streamtrain.cache.write_atomic", write)
    with pytest.warns(CacheWarning, match=r"No space left on device"):
        resources, log = synthesise(MULTIPLY_ACCUMULATE, "top")
    assert resources.dsp == 1
    assert not log.exists()


def test_failure_has_the_first_error_and_the_log(cache):
    with pytest.raises(BuildError, match=r"synthesise failed: .*ERROR.*syntax error") as caught:
        synthesise("module top; assign = ; endmodule", "top")
    assert caught.value.log.is_relative_to(cache)
    assert "syntax error" in caught.value.log.read_text()
    assert not list(cache.rglob("*.json"))


def test_interrupt_leaves_no_process_and_no_result(monkeypatch, cache):
    started = []

    def interrupt(text):
        started.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(MULTIPLY_ACCUMULATE, "top", progress=interrupt)
    assert len(started) == 1
    assert not list(cache.rglob("*.json"))


def test_missing_yosys_names_the_extra(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("streamtrain.build.synth.version", missing)
    with pytest.raises(BuildError, match=r"pip install 'streamtrain\[build\]'"):
        yosys_version()
