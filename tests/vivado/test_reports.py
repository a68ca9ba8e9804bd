"""The parsers read reports laid out as Vivado's are; ``reports/README.md`` says where these come from."""

import re
import shutil
from pathlib import Path

import pytest

from streamtrain.vivado.reports import read_power, read_reports, read_timing, read_utilization

REPORTS = Path(__file__).parent / "reports"
READERS = {
    "utilization.rpt": read_utilization,
    "timing_summary.rpt": read_timing,
    "power.rpt": read_power,
}


def test_series_7():
    assert read_reports(REPORTS / "series7") == {
        "resources": {"dsp": 81, "bram36": 24.5, "lut": 17412, "ff": 19850},
        "timing": {
            "wns_ns": 0.412, "tns_ns": 0.0, "failing_endpoints": 0, "endpoints": 40112,
            "whs_ns": 0.018, "ths_ns": 0.0, "hold_failing_endpoints": 0, "met": True,
            "clock": "clk_fpga_0", "period_ns": 10.0, "clock_mhz": 100.0,
            "fmax_mhz": pytest.approx(104.297, abs=1e-3),
        },
        "power": {"total_w": 1.928, "dynamic_w": 1.781, "static_w": 0.147, "confidence": "Low"},
    }  # fmt: skip


def test_ultrascale():
    summary = read_reports(REPORTS / "ultrascale")
    assert summary["resources"] == {"dsp": 81, "bram36": 25, "lut": 16020, "ff": 20110}
    assert summary["power"]["total_w"] == pytest.approx(131.402)  # with a remark behind it
    timing = summary["timing"]
    assert (timing["wns_ns"], timing["tns_ns"], timing["failing_endpoints"]) == (
        -0.257,
        -31.604,
        188,
    )
    assert timing["met"] is False
    # The core's clock is that with most endpoints, not that with most slack.
    assert (timing["clock"], timing["period_ns"]) == ("clk_pl_0", 7.5)
    assert timing["fmax_mhz"] == pytest.approx(1000 / 7.757)


def test_resources_are_those_of_a_summary():
    from streamtrain.build.report import RESOURCES

    assert read_utilization(REPORTS / "series7" / "utilization.rpt").keys() == RESOURCES.keys()


@pytest.mark.parametrize("name", ["clk_of_a_rather_long_hierarchical_name", "c"])
def test_names_of_clocks_may_be_of_any_length(name, tmp_path):
    """The columns of Vivado's tables are as wide as the longest name."""
    text = (REPORTS / "series7" / "timing_summary.rpt").read_text()
    more = max(0, len(name) - len("clk_fpga_0"))
    wide = re.sub(
        r"^(Clock|-----)( +)(?=Wave|WNS|---)", lambda m: m[0] + " " * more, text, flags=re.M
    )
    path = tmp_path / "timing_summary.rpt"
    path.write_text(wide.replace("clk_fpga_0", name.ljust(len("clk_fpga_0"))))
    timing = read_timing(path)
    assert (timing["clock"], timing["period_ns"]) == (name, 10.0)


@pytest.mark.parametrize("family", ["series7", "ultrascale"])
@pytest.mark.parametrize("name", READERS)
def test_a_truncated_report_is_refused(name, family, tmp_path):
    """Cut anywhere before its last figure, a report raises an error that names the file."""
    text = (REPORTS / family / name).read_text()
    last = {
        "utilization.rpt": "| DSPs",
        "timing_summary.rpt": "| Intra Clock Table",
        "power.rpt": "| Confidence",
    }
    lines = text[: text.index(last[name])].count("\n")
    path = tmp_path / name
    for count in range(lines):
        path.write_text("\n".join(text.split("\n")[:count]))
        with pytest.raises(ValueError, match=re.escape(str(path))):
            READERS[name](path)


CHANGED = [
    ("utilization.rpt", "| Block RAM Tile", "| Block Tile", r": there is no row Block RAM Tile$"),
    ("utilization.rpt", "Slice LUTs", "Logic cells", r": there is no row Slice LUTs or CLB LUTs$"),
    ("utilization.rpt", "17412", "lots.", r": Slice LUTs is no number, but 'lots.'$"),
    ("utilization.rpt", "Used ", "Count", r": there is no row DSPs$"),
    ("utilization.rpt", "report_utilization", "report_ram_utilization", r" is no report of report_utilization: its head"),
    ("timing_summary.rpt", "| Design Timing Summary", "| Timing", r": there is no table Design Timing Summary$"),
    ("timing_summary.rpt", "  0.412", "     NA", r": WNS\(ns\) is NA, as if no clock had a constraint$"),
    ("timing_summary.rpt", "  0.412", "     ??", r": WNS\(ns\) is no number, but '\?\?'$"),
    ("timing_summary.rpt", "WHS(ns)", "WHX(ns)", r": Design Timing Summary has no WHS\(ns\)$"),
    ("timing_summary.rpt", "clk_fpga_0  {", "other       {", r": Clock Summary has no period of clk_fpga_0$"),
    ("power.rpt", "Dynamic (W)", "Dynamic   ", r": there is no row Dynamic \(W\)$"),
    ("power.rpt", "1.928", "much.", r": Total On-Chip Power \(W\) is no number, but 'much.'$"),
]  # fmt: skip


@pytest.mark.parametrize("name, right, wrong, said", CHANGED)
def test_an_unknown_report_is_refused(name, right, wrong, said, tmp_path):
    text = (REPORTS / "series7" / name).read_text()
    assert right in text
    path = tmp_path / name
    path.write_text(text.replace(right, wrong))
    with pytest.raises(ValueError, match=re.escape(str(path)) + said):
        READERS[name](path)


@pytest.mark.parametrize("name", READERS)
def test_a_missing_report_is_named(name, tmp_path):
    shutil.copytree(REPORTS / "series7", tmp_path / "reports")
    (tmp_path / "reports" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^There is no report .*{re.escape(name)}$"):
        read_reports(tmp_path / "reports")
