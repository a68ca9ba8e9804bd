"""Primitives of a flattened netlist find back to their parts."""

from collections import Counter
from textwrap import dedent

import pytest
import test_synth

from streamtrain.build.netlist import primitives_by_part
from streamtrain.build.synth import synthesise

VERILOG = dedent("""\
    module top(input clk);
    endmodule

    module \\top.one (input clk);
    endmodule

    module \\top.one.inner (input clk);
    endmodule

    module \\top.two (input clk);
    endmodule
""")
LINES = {"top": 1, "one": 4, "inner": 8, "two": 10}


def count(*cells):
    """Count ``(kind, nets, name or part)``."""
    lines = [".model top", ".names $true", "1"]
    for number, (kind, nets, what) in enumerate(cells):
        if kind == "=":
            lines += [f".names {nets}", "1 1"]
            continue
        lines += [f".subckt {kind} {nets}"]
        if what in LINES:
            lines += [
                f".cname $auto${number}",
                f'.attr src "design.v:{LINES[what]}.1|/share/x.v:2"',
            ]
        else:
            lines += [f".cname {what or f'$abc${number}'}"]
    return primitives_by_part([f"{line}\n" for line in [*lines, ".end"]], VERILOG, "top")


@pytest.mark.parametrize(
    ("what", "part"),
    [
        ("top", ""),
        ("one", "one"),
        ("inner", "one"),
        ("two", "two"),
        ("two.words.0.1", "two"),
        ("words.0.1", "words"),
        ("words", ""),
        ("$flatten\\one.\\inner.$mul$design.v:9$1", "one"),
        ("", ""),
    ],
)
def test_names_and_lines_tell(what, part):
    assert count(("RAMB18E1", "DO=a", what)) == {part: {"RAMB18E1": 1}}


def test_a_register_behind_a_memory_belongs_to_it():
    found = count(
        ("RAM32M", "DOA[0]=read DIA[0]=written", "one.words.0.0"),
        ("FDRE", "D=read Q=two.output", ""),
        ("FDRE", "D=other Q=two.output", ""),
        ("FDRE", "D=written Q=output", ""),
    )
    assert found == {"one": {"RAM32M": 1, "FDRE": 1}, "two": {"FDRE": 1}, "": {"FDRE": 1}}


def test_logic_belongs_where_most_of_what_it_feeds_does():
    found = count(
        ("FDRE", "D=a Q=q0", "one"),
        ("FDRE", "D=a Q=q1", "two"),
        ("FDRE", "D=alias Q=q2", "two"),
        ("=", "a alias", ""),
        ("LUT2", "I0=b I1=c O=a", ""),
        ("LUT1", "I0=d O=b", ""),
        ("FDRE", "D=c Q=q3", "one"),
        ("FDRE", "D=c Q=q4", "one"),
        ("LUT6", "I0=q0 O=c", ""),
        ("INV", "I=q1 O=d", ""),
        ("LUT5", "I0=q2 O=unread", ""),
    )
    assert found == {
        "one": Counter(FDRE=3, LUT6=1),
        "two": Counter(FDRE=2, LUT2=1, LUT1=1, INV=1),
        "": {"LUT5": 1},
    }


def test_a_carry_chain_of_no_line_is_logic():
    found = count(
        ("FDRE", "D=sum Q=q", "two"),
        ("CARRY4", "S[0]=a O[0]=sum CO[3]=carry CI=b", ""),
        ("LUT2", "I0=q O=a", ""),
    )
    assert found == {"two": {"FDRE": 1, "CARRY4": 1, "LUT2": 1}}


def test_parts_of_a_synthesised_design_add_up(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path))
    multiply = test_synth.MULTIPLY_ACCUMULATE.replace("module top", r"module \top.array ")
    memory = test_synth.MEMORY.format(depth=1024, width=36).replace(
        "module top", r"module \top.store "
    )
    design = (
        multiply
        + memory
        + dedent(r"""
        module top(input clk, input go, input [9:0] at, input [35:0] i, output [47:0] p,
                   output reg [3:0] count);
          wire [35:0] o;
          \top.store store(.clk(clk), .write(go), .at(at), .i(i), .o(o));
          \top.array array(.clk(clk), .load(go), .x(o[24:0]), .w(o[35:18] ^ i[17:0]), .p(p));
          always @(posedge clk) if (go) count <= count + 1;
        endmodule
    """)
    )
    used, _ = synthesise(design, "top")
    total = Counter()
    for part in used.parts.values():
        total.update(part.cells)
    assert total == used.cells
    assert {name: (part.dsp, part.bram36, part.ff) for name, part in used.parts.items()} == {
        "": (0, 0, 4), "array": (1, 0, 0), "store": (0, 1, 0)
    }  # fmt: skip
    assert used.parts["array"].lut == 18  # the exclusive or, at its inputs
