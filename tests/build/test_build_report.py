import re
from html.parser import HTMLParser

import numpy as np
import pytest

from streamtrain.build import build

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects tables and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.attributes, self.points = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag == "polyline":
            self.points.append(dict(attributes)["points"])
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def row(self, first):
        return next(row for table in self.tables for row in table if row[0].startswith(first))


@pytest.fixture
def page(quick, design, images, tmp_path):
    build(design, tmp_path / "out", data=images, samples=50, steps=7, progress=False)
    text = (tmp_path / "out" / "report" / "report.html").read_text()
    return text, Page(text)


def test_needs_nothing_from_elsewhere(page):
    text, parsed = page
    assert not {"src", "href"} & {name for name, _ in parsed.attributes}
    assert "http" not in text
    assert "url(" not in text
    assert "<script" not in text


def test_layers_have_multipliers_cycles_and_share_of_the_bound(page, design):
    _, parsed = page
    for stage in design.plan.stages:
        _, folding, multipliers, *phases, total = parsed.row(stage.name)
        assert folding == " × ".join(map(str, stage.folding))
        assert multipliers == str(stage.multipliers)
        cycles = stage.phase_cycles()
        assert phases[::2] == [f"{cycles[phase]:,}" for phase in ("FP", "BP", "WU")]
        shares = [cycles[phase] / design.bound_cycles for phase in ("FP", "BP", "WU")]
        assert phases[1::2] == [f"{share:.0%}" for share in shares]
        assert total.strip() == f"{sum(shares):.0%}"


def test_resources_stand_against_the_part(page):
    _, parsed = page
    assert parsed.row("BRAM36")[:3] == ["BRAM36", "1.5", "140"]
    assert parsed.row("LUT")[3].strip() == "2%"


def test_accuracies_have_their_counts(page):
    _, parsed = page
    assert parsed.row("online, all")[2] == "50"
    assert parsed.row("online, last")[2] == "13"
    assert parsed.row("test, fixed")[2] == parsed.row("test, float")[2] == "10"


def test_loss_curve_stays_in_its_frame(page):
    text, parsed = page
    (box,) = re.findall(r'viewBox="0 0 (\d+) (\d+)"', text)
    assert len(parsed.points) == 2
    for points in parsed.points:
        xy = np.array([[float(v) for v in point.split(",")] for point in points.split()])
        assert (np.diff(xy[:, 0]) > 0).all()
        assert (xy >= 0).all()
        assert (xy <= np.array(box, float)).all()


def test_what_does_not_fit_is_said(quick, design, images, tmp_path, monkeypatch):
    from streamtrain.build.synth import Resources

    resources = Resources.from_cells({"LUT6": 60_000, "DSP48E1": design.dsp})
    monkeypatch.setattr("streamtrain.build.parts.synthesise", lambda *_, **__: (resources, None))
    build(design, tmp_path / "out", data=images, samples=2, steps=1, progress=False)
    parsed = Page((tmp_path / "out" / "report" / "report.html").read_text())
    assert parsed.row("LUT")[3].strip() == "113% does not fit"
    assert "fit" not in parsed.row("DSP")[3]
