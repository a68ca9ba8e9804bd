import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import streamtrain as st
from streamtrain.build import BuildError
from streamtrain.build.lint import WAIVERS, lint
from streamtrain.bus.generate import generate_ip
from streamtrain.bus.packets import PacketFormat

CLEAN = """\
module top (clk, rst, a, b, o);
  input clk, rst;
  input [7:0] a, b;
  output [7:0] o;
  reg [7:0] o;
  always @(posedge clk)
    if (rst) o <= 8'd0;
    else o <= a ^ b;
endmodule
"""


def test_clean_verilog_has_no_warnings():
    result = lint(CLEAN, "top")
    assert (result.warnings, result.waived) == ((), {})
    assert result.tools["verilator"] and result.tools["yosys"]
    assert str(result).startswith("0 unexplained warnings, 0 explained, from verilator ")


PLANTED = [
    ("a wire that nothing drives", "a ^ b", "a ^ nothing", "wire [7:0] nothing;", r"not driven: 'nothing'"),
    ("an undriven wire, for Yosys", "a ^ b", "a ^ nothing", "wire [7:0] nothing;", r"yosys: Warning: Wire top.\\nothing \[0\] is used but has no driver"),
    ("a result that is cut", "a ^ b", "sum[7:0]", "wire [7:0] sum; assign sum = {a, b} + 16'd1;", r"WIDTHTRUNC: .*ASSIGNW expects 8 bits"),
    ("a port of another width", "a ^ b", "q", "wire [7:0] q; part p (.i(a[3:0]), .o(q));", r"WIDTHEXPAND: Input port connection 'i'"),
    ("a port left open", "a ^ b", "q", "wire [7:0] q; part p (.o(q));", r"PINMISSING: .*'i'"),
    ("two drivers", "a ^ b", "q", "wire [7:0] q; assign q = a; assign q = b;", r"yosys: Warning: multiple conflicting drivers for top"),
    ("a loop", "a ^ b", "q", "wire [7:0] q; assign q = ~q & a;", r"yosys: Warning: found logic loop"),
    ("a latch", "a ^ b", "q", "reg [7:0] q; always @* if (a[0]) q = b;", r"LATCH: Latch inferred for signal 'top.q'"),
    ("SystemVerilog", "a ^ b", "q", "logic [7:0] q; assign q = a;", r"(ERROR|PKGNODECL|MODMISSING).*|syntax error"),
]  # fmt: skip
PART = """
module part (i, o);
  input [7:0] i;
  output [7:0] o;
  assign o = ~i;
endmodule
"""


@pytest.mark.parametrize(
    "right, wrong, more, said", [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED]
)
def test_a_mistake_is_not_explained_away(right, wrong, more, said):
    verilog = CLEAN.replace(right, wrong).replace("  always", f"  {more}\n  always")
    if "part p" in more:
        verilog += PART
    result = lint(verilog, "top")
    assert any(re.search(said, warning) for warning in result.warnings), result.warnings


def test_a_missing_module_is_named():
    warnings = lint(
        CLEAN.replace("endmodule", "  other o1 (.clk(clk));\nendmodule"), "top"
    ).warnings
    assert any("other" in warning for warning in warnings)


def test_generated_verilog_has_no_unexplained_warning(monkeypatch):
    """IPs of the README's first design, and of small ones with what that has not: benchmarks/lint.py finds
    warnings of the same kinds in the larger nets."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from nets import convolutional

    digits = st.Network(
        (1, 8, 8), [st.Conv2d(8, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(10)]
    )
    one_word = st.Network((1, 2, 2), [st.Flatten(), st.Linear(2)])  # all its weights are one word
    found = [
        lint(generate_ip(PacketFormat(plan)), "streamtrain")
        for plan in (
            st.plan(digits, board="pynq_z2", multipliers=80).plan,
            st.plan(one_word, foldings={"linear1": (2, 4, 1)}).plan,
            st.plan(
                convolutional((1, 9, 9), "2P-2-FC4-FC3", lr=2**-5), multipliers=4, max_batch=2
            ).plan,
        )
    ]
    assert [result.warnings for result in found] == [(), (), ()]
    # None is there in vain.
    assert set().union(*(result.waived for result in found)) == set(range(len(WAIVERS)))


def test_waivers_have_reasons():
    for waiver in WAIVERS:
        assert len(waiver.reason.split()) > 5 and waiver.reason.endswith(".")
        re.compile(waiver.message)


def test_icarus_is_used_where_it_is(tmp_path, monkeypatch):
    program = tmp_path / "iverilog"
    program.write_text(
        '#!/bin/sh\ncase "$1" in -V) echo "Icarus Verilog version 12.0 (stable)" ;;\n'
        '*) echo "top.v:3: warning: a remark of Icarus about $*" >&2 ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = lint(CLEAN, "top")
    assert result.tools["iverilog"] == "12.0"
    assert result.warnings == (
        "iverilog: top.v:3: warning: a remark of Icarus about -g2001 -Wall -t null -s top top.v",
    )


def test_missing_icarus_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("streamtrain.build.lint.shutil.which", lambda name: None)
    assert str(lint(CLEAN, "top")).endswith("; not installed: iverilog")


def test_missing_yosys_names_the_extra(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("streamtrain.build.synth.version", missing)
    with pytest.raises(BuildError, match=r"pip install 'streamtrain\[build\]'"):
        lint(CLEAN, "top")
