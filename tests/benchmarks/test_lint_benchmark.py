import lint
import nets

import streamtrain as st
from streamtrain.build.lint import Lint


def test_each_net_is_linted_in_two_sizes(tiny, monkeypatch, capsys):
    monkeypatch.setattr(lint, "NETS", nets.NETS)
    monkeypatch.setattr(lint, "generate_ip", lambda fmt: "module\nendmodule\n")
    given = []
    monkeypatch.setattr(
        lint, "lint", lambda verilog, top: given.append(top) or Lint((), {0: 3}, {"verilator": "5"})
    )
    assert lint.main(["--nets", "T"]) == 0
    out = capsys.readouterr().out
    multipliers = [str(nets.NETS["T"].design().multipliers), "0", "3"]
    small = st.plan(nets.NETS["T"].network(), nets.BOARD, multipliers=lint.SMALL).multipliers
    rows = [line.split() for line in out.splitlines() if line.startswith("T ")]
    assert [row[1] for row in rows] == [str(small), multipliers[0]]
    assert [row[3:5] for row in rows] == [multipliers[1:]] * 2
    assert "explains nothing here: UNUSEDSIGNAL" in out


def test_a_warning_that_is_left_is_told(tiny, monkeypatch, capsys):
    monkeypatch.setattr(lint, "NETS", nets.NETS)
    monkeypatch.setattr(lint, "generate_ip", lambda fmt: "")
    found = Lint(("verilator: LATCH: x",), {}, {"verilator": "5"})
    monkeypatch.setattr(lint, "lint", lambda verilog, top: found)
    assert lint.main(["--nets", "T", "--foldings", "own"]) == 1
    assert "T, own: verilator: LATCH: x" in capsys.readouterr().out
