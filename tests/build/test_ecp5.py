# amaranth: UnusedElaboratable=no
from importlib.metadata import PackageNotFoundError
from textwrap import dedent

import pytest

from streamtrain.build import BuildError
from streamtrain.build.ecp5 import Hop, Part, Routed, pack, place_and_route, synthesise_ecp5

PART = Part.from_name("LFE5U-25F-6BG381C")

BLINK = dedent("""
    module top(input clk, output led);
      reg [7:0] count = 0;
      always @(posedge clk) count <= count + 1;
      assign led = count[7];
    endmodule
""")

PINS = dedent("""
    LOCATE COMP "clk" SITE "G2";
    IOBUF PORT "clk" IO_TYPE=LVCMOS33;
    FREQUENCY PORT "clk" 25 MHZ;
    LOCATE COMP "led" SITE "B2";
    IOBUF PORT "led" IO_TYPE=LVCMOS33;
""")

REPORT = {
    "fmax": {
        "fast": {"achieved": 120.0, "constraint": 100.0},
        "slow": {"achieved": 80.0, "constraint": 90.0},
        "idle": {"achieved": 70.0, "constraint": 12.0},
    },
    "utilization": {
        "TRELLIS_FF": {"used": 3, "available": 83640},
        "DP16KD": {"used": 0, "available": 208},
    },
    "critical_paths": [
        {"from": "posedge fast", "to": "posedge fast", "path": []},
        {"from": "<async>", "to": "posedge slow", "path": []},
        {
            "from": "posedge slow",
            "to": "posedge slow",
            "path": [
                {"type": "clk-to-q", "delay": 0.5, "from": {"cell": "a", "port": "CLK"},
                 "to": {"cell": "a", "port": "Q"}},
                {"type": "routing", "delay": 11.5, "net": "carry", "from": {"cell": "a", "port": "Q"},
                 "to": {"cell": "b", "port": "DI"}},
                {"type": "setup", "delay": 0.5, "from": {"cell": "b", "port": "DI"},
                 "to": {"cell": "b", "port": "DI"}},
            ],
        },
    ],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("STREAMTRAIN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def netlist(cache):
    return synthesise_ecp5(BLINK, "top")[0]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("LFE5U-85F-6BG381C", Part("85k", "CABGA381", 6)),
        ("LFE5UM5G-45F-8MG285I", Part("um5g-45k", "CSFBGA285", 8)),
    ],
)
def test_parts_are_known_by_the_makers_name(name, part):
    assert Part.from_name(name) == part


def test_another_makers_part_is_refused():
    with pytest.raises(ValueError, match=r"called like LFE5U-85F-6BG381C .* not 'xc7z020'$"):
        Part.from_name("xc7z020")


def test_a_report_tells_the_clock_that_falls_shortest_and_why():
    routed = Routed.from_report(REPORT)
    assert routed.fmax_mhz == 80
    assert routed.clocks_mhz == {"fast": 120, "slow": 80, "idle": 70}
    assert routed.utilisation == {"TRELLIS_FF": (3, 83640)}
    assert routed.critical_path == (
        Hop("clk-to-q", "a.Q", 0.5),
        Hop("routing", "carry", 11.5),
        Hop("setup", "b.DI", 0.5),
    )
    assert Routed.from_json(routed.to_json()) == routed
    assert str(routed).splitlines() == [
        "80.0 MHz",
        "   0.50 ns  +0.50  clk-to-q  a.Q",
        "  12.00 ns  +11.50  routing   carry",
        "  12.50 ns  +0.50  setup     b.DI",
    ]


def test_a_report_without_a_clock_is_refused():
    with pytest.raises(ValueError, match=r"^No clock limits this design"):
        Routed.from_report({"fmax": {}, "utilization": {}, "critical_paths": []})


def test_verilog_becomes_a_bitstream(netlist):
    steps = []
    routed, config, log = place_and_route(netlist, PART, lpf=PINS, mhz=25, progress=steps.append)
    assert any("Routing" in step for step in steps)
    assert "Program finished normally" in log.read_text()
    assert routed.utilisation["TRELLIS_FF"][0] == 8
    assert routed.utilisation["TRELLIS_IO"][0] == 2
    assert routed.fmax_mhz > 200
    assert [hop.step for hop in routed.critical_path[:1] + routed.critical_path[-1:]] == [
        "clk-to-q",
        "setup",
    ]
    assert sum(hop.delay_ns for hop in routed.critical_path) == pytest.approx(
        1000 / routed.fmax_mhz, abs=0.01
    )
    bitstream = pack(config)
    assert bitstream.startswith(b"\xff\x00") and b"LFE5U-25F" in bitstream[:200]


def test_without_pins_there_are_figures_and_the_second_time_they_are_there(netlist, monkeypatch):
    first = place_and_route(netlist, PART)
    assert first[0].fmax_mhz > 200
    assert first[1] is None
    monkeypatch.setattr("streamtrain.build.ecp5._run", None)
    assert place_and_route(netlist, PART) == first


def test_second_synthesis_comes_from_the_cache(netlist, monkeypatch):
    monkeypatch.setattr("streamtrain.build.ecp5.run_yosys", None)
    assert synthesise_ecp5(BLINK, "top")[0] == netlist


def test_a_pin_that_is_not_there_is_named(netlist, cache):
    with pytest.raises(BuildError, match=r"place and route failed: ERROR.*Z99") as caught:
        place_and_route(netlist, PART, lpf=PINS.replace("B2", "Z99"))
    assert caught.value.log.is_relative_to(cache)


def test_broken_verilog_fails_with_its_first_error():
    with pytest.raises(BuildError, match=r"synthesise failed: .*ERROR.*syntax error"):
        synthesise_ecp5("module top; assign = ; endmodule", "top")


def test_what_is_no_configuration_is_not_packed():
    with pytest.raises(BuildError, match=r"^pack failed: "):
        pack("nothing")


def test_missing_tools_name_the_extra(netlist, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("streamtrain.build.ecp5.version", missing)
    with pytest.raises(BuildError, match=r"pip install 'streamtrain\[ecp5\]'"):
        place_and_route(netlist, PART)
