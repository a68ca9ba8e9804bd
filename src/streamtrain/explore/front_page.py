"""A front as an interactive page: one file, without a network."""

from html import escape
from json import dumps, loads
from pathlib import Path

from streamtrain.explore.devices import load_board
from streamtrain.explore.front import LABELS, OBJECTIVES
from streamtrain.explore.published import published_designs, training_gops
from streamtrain.network import network_text
from streamtrain.page import page
from streamtrain.tables import html_table

__all__ = ["front_page"]

_HERE = Path(__file__).parent
_DATA = {(1, 8, 8): "", (1, 28, 28): " --data mnist:DIR", (3, 32, 32): " --data cifar10:DIR"}
_ROWS_WITHOUT_SCRIPT = 50

_DESK = """\
<div class="desk"><div>
<div class="axes"><label>across <select id="x"></select></label>
<label><input type="checkbox" id="xlog"> logarithmic</label>
<label>up <select id="y"></select></label>
<label><input type="checkbox" id="ylog"> logarithmic</label></div>
<svg id="plot" class="plot" tabindex="0" role="application" aria-describedby="keys"
 aria-label="Designs by two of their figures"></svg>
<p class="dim" id="keys">Blue: nothing beats these in the two figures drawn. Pale: others do, but need more
of something else. Point at a design to read it, click to pin it; with the keyboard, arrows move along the
line, Enter pins, Escape unpins all.</p>
<div class="limits"><span id="sliders" style="display:contents"></span>
<span class="foot"><span><b id="count"></b> <span class="bad" id="none" hidden>Nothing keeps these limits.</span>
</span><button class="plain" id="reset">Reset limits</button></span></div>
</div><aside id="record"></aside></div>
<p class="unseen" id="said" aria-live="polite"></p>
<section id="comparison" hidden><h2>Pinned designs</h2>
<div class="scroll" id="compared"></div>
<div class="under"><button class="plain" id="unpin">Unpin all</button></div></section>
<h2>All designs</h2>
<div class="under"><label><input type="checkbox" id="only"> only the blue ones of the plot</label></div>
<div id="all"><table><thead><tr id="titles"></tr></thead><tbody id="rows"></tbody></table></div>
<div class="under"><button class="plain" id="more"></button></div>
<h2>Beside published accelerators for training</h2>
<p>Most were published for other networks. So this compares the arithmetic that gets done: operations per
second (two for each multiply-accumulate of the training step), divided by DSP slices. Blue: nothing is
faster with so few DSP slices.</p>
<svg id="efficiency" class="plot" tabindex="0" role="application" aria-describedby="keys"
 aria-label="Operations per second and DSP slice, against DSP slices"></svg>
"""


def front_page(front):
    """The page of a front, as HTML text. See :meth:`~streamtrain.explore.front.Front.to_html`."""
    name = network_text(front.network)
    device = load_board(front.board).device
    compared = ", ".join(LABELS[objective] for objective in front.objectives)
    head = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="dim">Hardware that trains it on {escape(front.board)} ({escape(device.name)}), '
        f"batch {front.batch}: the designs that no other one beats in all of {escape(compared)}.</p>",
    ]
    if not front.points:
        return page(name, [*head, f'<p class="bad">No design: {escape(front.reason)}</p>'])
    content = dumps(_content(front, device), separators=(",", ":")).replace("</", "<\\/")
    sections = [
        *head,
        _tiles(front),
        _without_script(front),
        _DESK,
        _published(),
        "<h2>How this was found</h2>",
        _provenance(front),
        f'<script type="application/json" id="data">{content}</script>',
    ]
    style = (_HERE / "front.css").read_text(encoding="utf-8")
    script = (_HERE / "front.js").read_text(encoding="utf-8")
    return page(f"{name} on {front.board}", sections, style=style, script=script)


def _content(front, device):
    """What the script shows, as JSON: figures in columns, each point's parts, each variant."""
    knee = front.points.index(front.point(front.knee()))
    gops = [training_gops(front.network, point.samples_per_s) for point in front.points]
    figures = {
        name: {
            "label": label,
            "more": OBJECTIVES.get(name) == -1,
            "values": [getattr(point, name) for point in front.points],
        }
        for name, label in LABELS.items()
    }
    figures["gops_per_dsp"] = {
        "label": "GOPS per DSP",
        "more": True,
        "values": [own / point.dsp for own, point in zip(gops, front.points, strict=True)],
    }
    speeds = [name for name in front.objectives if name in {"samples_per_s", "latency_us"}]
    resources = [name for name in front.objectives if name not in speeds]
    return {
        "board": front.board,
        "device": {"name": device.name, **device.resources},
        "figures": figures,
        "limited": ["samples_per_s", "latency_us", *device.resources],
        "axes": {"x": [*resources, "dsp"][0], "y": [*speeds, "samples_per_s"][0]},
        "parts": [point.parts for point in front.points],
        "texts": [point.texts() for point in front.points],
        "variant": [point.variant for point in front.points],
        "names": front.variants[0].names,
        "part": front.variants[0].part,
        "chosen": front.variants[0].chosen,
        "variants": [
            {"text": text, "places": own.places, "design": _design(front, number)}
            for number, (own, text) in enumerate(
                zip(front.variants, front.variant_texts(), strict=True)
            )
        ],
        "knee": knee,
        "ceiling": 2e-3 * max(variant.clock_mhz for variant in front.variants),
        "published": [
            {
                "label": design.label,
                "source": design.source,
                "samples_per_s": design.speed(front.network),
                "dsp": design.dsp,
                "bram36": design.bram36,
                "lut": design.lut,
                "gops_per_dsp": design.gops / design.dsp if design.dsp else None,
            }
            for design in published_designs()
        ],
        "command": "python -m streamtrain.build design.json"
        + _DATA.get(front.network.input_shape, " --data DATA"),
    }


def _design(front, variant):
    """The JSON of one of a variant's designs; that of the others differs in the parts. None if it has none."""
    point = next((point for point in front.points if point.variant == variant), None)
    return None if point is None else loads(front.design(point).to_json())


def _tiles(front):
    """The fastest, the knee and the smallest; the script shows the one that is chosen."""
    chosen = {"fastest": front.fastest(), "knee": front.knee(), "smallest": front.smallest()}
    tiles = []
    for name, design in chosen.items():
        point = front.point(design)
        tiles.append(
            f'<button class="tile" data-point="{front.points.index(point)}">'
            f'<span class="what">{name}</span><b>{point.samples_per_s:,.0f} samples/s</b>'
            f"<span>{point.dsp:,} DSP, {point.bram36:g} BRAM36, {point.lut:,} LUT</span></button>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _without_script(front):
    header, rows = front[:_ROWS_WITHOUT_SCRIPT].table()
    return (
        f"<noscript><p>With JavaScript, this page is a plot. These are the fastest designs.</p>"
        f'<div class="scroll">{html_table(header, rows)}</div></noscript>'
    )


def _published():
    header = ("", "on", "format", "batch", "GOPS", "DSP", "GOPS per DSP", "source")
    rows = [
        (
            design.name,
            design.device,
            design.format,
            design.batch,
            design.gops,
            design.dsp or "not stated",
            f"{design.gops / design.dsp:.3f}" if design.dsp else "",
            design.source,
        )
        for design in published_designs()
    ]
    return (
        f'<div class="scroll wrap">{html_table(header, rows)}</div>'
        '<p class="dim">Published figures are as their authors state them: other networks, formats, '
        "clocks, and mostly other batch sizes. Those of the designs on this page are estimates.</p>"
    )


def _provenance(front):
    asked = ", ".join(
        f"{name} {'≥' if name == 'samples_per_s' else '≤'} {limit:g}"
        for name, limit in front.constraints.items()
    )
    clocks = sorted({variant.clock_mhz for variant in front.variants})
    rows = [
        ("search", front.search),
        ("designs estimated", front.evaluated),
        ("time", f"{front.seconds:.2g} s"),
        ("asked for", asked or "nothing but to fit the board"),
        ("clock, MHz", ", ".join(f"{clock:g}" for clock in clocks)),
    ]
    return (
        f"{html_table(('', ''), rows)}<p>All figures are estimates: cycles are those of a model of the "
        f"hardware, resources follow from its parts. Samples per second are those cycles at the "
        f"planned clock; nothing here was placed and routed.</p>"
    )
