"""The report of a build: one HTML file that needs nothing else."""

from html import escape
from math import floor, log10

import numpy as np

from streamtrain.explore.front import LABELS
from streamtrain.page import page
from streamtrain.tables import html_table

__all__ = ["RESOURCES", "render"]

RESOURCES = {"dsp": "DSP", "bram36": "BRAM36", "lut": "LUT", "ff": "FF"}
"""What the resources of a part are called in reports, by their names in ``summary.json``."""

_PHASES = {"FP": "forward", "BP": "errors back", "WU": "weight update"}


def render(summary, *, network, loss, manifest):
    """The report as HTML text.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds.
    network : :class:`Network`
    loss : array, (samples,)
        Loss of each training sample before it was learnt.
    manifest : dict
        What ``manifest.json`` holds, apart from the hash of this report.
    """
    s = summary
    sections = [
        f"<h1>{escape(s['network'])}</h1>",
        f'<p class="dim">Trained by hardware for {escape(s["board"])} ({escape(s["device"])}): '
        f"{escape(s['core'])} core, {s['clock_mhz']:g} MHz, {s['multipliers']:,} multipliers{_numbers(s)}.</p>",
        _tiles(s),
        "<h2>Training</h2>",
        _training(s, loss, network.loss.title),
        "<h2>Where the cycles go</h2>",
        _LAYERS[s["core"]](s),
        *(("<h2>Buffers and DRAM</h2>", _memory(s)) if "buffers" in s else ()),
        f"<h2>Resources of the {escape(s['device'])}</h2>",
        _resources(s),
        *(("<h2>Search</h2>", _search(s)) if "search" in s else ()),
        "<h2>Hardware against golden model</h2>",
        _verify(s["verify"]),
        *(("<h2>Saturated numbers</h2>", _saturations(s)) if "saturations" in s else ()),
        "<h2>Network</h2>",
        f'<div class="scroll">{html_table(*network.table())}</div>',
        "<h2>How this was made</h2>",
        _provenance(s, manifest),
    ]
    return page(f"{s['network']} on {s['board']}", sections)


def _numbers(s):
    return f" of {escape(s['numbers'])}" if "numbers" in s else ""


def _batches(s):
    return "one sample a step" if s["batch"] == 1 else f"mini-batches of {s['batch']:,}"


def _tiles(s):
    accuracy, verify = s["accuracy"], s["verify"]
    result = (
        '<b class="good">bit-exact</b>' if verify["bit_exact"] else '<b class="bad">different</b>'
    )
    tiles = [
        (
            f"<b>{s['samples_per_second']:,.0f}</b>",
            "training samples per second<br>simulated cycles, planned clock",
        ),
        (
            f"<b>{s['cycles_per_step']['simulated']:,.0f}</b>",
            f"cycles per training sample<br>simulated, {_batches(s)}",
        ),
        (
            f"<b>{s['utilisation']:.0%}</b>",
            f"of the bound of {s['bound_cycles']:,.0f} cycles<br>simulated",
        ),
        (
            f"<b>{accuracy['test']:.1%}</b>",
            f"of {accuracy['test_images']:,} test images<br>in float {accuracy['test_float']:.1%}",
        ),
        (
            result,
            f"simulated RTL against golden model<br>after each of {verify['steps']:,} steps",
        ),
    ]
    body = "".join(f'<div class="tile">{figure}<span>{text}</span></div>' for figure, text in tiles)
    return f'<div class="tiles">{body}</div>'


def _training(s, loss, title):
    accuracy = s["accuracy"]
    rows = [
        (
            "online, all training images",
            accuracy["online_train"],
            accuracy["train_samples"],
            "simulated RTL",
        ),
        (
            "online, last quarter",
            accuracy["online_train_last_quarter"],
            accuracy["train_samples"] - accuracy["train_samples"] * 3 // 4,
            "simulated RTL",
        ),
        (
            f"test, {s.get('numbers', 'fixed point')}",
            accuracy["test"],
            accuracy["test_images"],
            "weights of the simulated RTL",
        ),
        (
            "test, float",
            accuracy["test_float"],
            accuracy["test_images"],
            "same images, order and first weights",
        ),
    ]
    body = [
        f"<td>{name}</td>{_number(value, '.2%')}{_number(count)}<td>{source}</td>"
        for name, value, count, source in rows
    ]
    head = '<th>accuracy</th><th class="n">share right</th><th class="n">images</th><th>from</th>'
    return (
        f"{_loss_curve(loss, title)}<p>Online means: each image is classified before it is learnt.</p>"
        f"{_table(head, body)}"
    )


def _folded_layers(s):
    rows = []
    totals = [sum(layer["share_of_bound"].values()) for layer in s["layers"]]
    for layer, total in zip(s["layers"], totals, strict=True):
        cells = "".join(
            _number(layer["cycles"][phase])
            + _number(layer["share_of_bound"][phase], ".0%", "n dim")
            for phase in _PHASES
        )
        rows.append(
            f"<td>{escape(layer['name'])}</td><td>{' × '.join(map(str, layer['folding']))}</td>"
            f"{_number(layer['multipliers'])}{cells}"
            f"<td>{_bar(total / max(totals))} {total:.0%}</td>"
        )
    head = (
        '<th>layer</th><th>folding<br>(out × in × taps)</th><th class="n">multipliers</th>'
        + "".join(
            f'<th class="n" colspan="2">{name}, {text}</th>' for name, text in _PHASES.items()
        )
        + "<th>of the bound</th>"
    )
    cycles = s["cycles_per_step"]
    return (
        f"{_table(head, rows)}<p>Cycles in which a layer's multipliers work on one sample, "
        f"calculated, and their share of the bound: the {s['bound_cycles']:,.0f} cycles of a step "
        f"in which all {s['multipliers']:,} multipliers never rest "
        f"({s['training_macs_per_step']:,} multiply-accumulates). A layer above 100 % has fewer "
        f"multipliers than its share of the work. The step takes {cycles['simulated']:,.0f} cycles "
        f"in simulation; {cycles['estimated']:,.0f} were estimated.</p>"
    )


def _array_layers(s):
    """Cycles of phases on the unified core's array."""
    rows = []
    longest = max(sum(layer["cycles"].values()) for layer in s["layers"])
    for layer in s["layers"]:
        cells = "".join(
            (_number(layer["cycles"][phase]) if phase in layer["cycles"] else "<td></td>")
            + (
                _number(layer["utilisation"][phase], ".0%", "n dim")
                if phase in layer["utilisation"]
                else "<td></td>"
            )
            for phase in _PHASES
        )
        (n, m), (rows_, columns), kernel = layer["channels"], layer["map"], layer["kernel"]
        total = sum(layer["cycles"].values())
        rows.append(
            f"<td>{escape(layer['name'])}</td><td>{n:,} → {m:,}</td><td>{rows_} × {columns}</td>"
            f"<td>{kernel} × {kernel}</td>{cells}<td>{_bar(total / longest)} {total:,}</td>"
        )
    head = (
        "<th>layer</th><th>channels</th><th>map</th><th>kernel</th>"
        + "".join(
            f'<th class="n" colspan="2">{name}, {text}</th>' for name, text in _PHASES.items()
        )
        + "<th>all</th>"
    )
    step, cycles = s["step"], s["cycles_per_step"]
    return (
        f"{_table(head, rows)}<p>Cycles of each phase alone on a mini-batch of {s['batch']:,}, by the model of "
        f"cycles, and the part of them in which all {s['multipliers']:,} multipliers of an array that has nothing "
        f"else to do would work. One after the other they overlap: the whole step is estimated to take "
        f"{step['estimated']:,} cycles, of which its {escape(step['busiest'])} is the busiest part, and scores alone "
        f"{step['prediction']:,}. That is {cycles['estimated']:,.0f} for a sample; "
        f"{cycles['simulated']:,.0f} in simulation.</p>"
    )


_LAYERS = {"streaming": _folded_layers, "unified": _array_layers}


def _memory(s):
    """Double buffers on the chip, and what is in DRAM."""
    buffers = [
        f"<td>{escape(name)}</td>{_number(one['words'])}{_number(one['bits'])}{_number(one['bram36'])}"
        for name, one in s["buffers"].items()
    ]
    brams = sum(one["bram36"] for one in s["buffers"].values())
    head = (
        '<th>buffer</th><th class="n">words of a half</th><th class="n">bits of a word</th>'
        '<th class="n">BRAM36 of both</th>'
    )
    parts = s["memory_bytes"]
    places = [
        f"<td>{escape(name)}</td>{_number(count / 2**20, ',.2f')}" for name, count in parts.items()
    ]
    in_dram = '<th>in DRAM</th><th class="n">MB</th>'
    places.append(f"<td>all</td>{_number(sum(parts.values()) / 2**20, ',.2f')}")
    return (
        f"{_table(head, buffers)}<p>Calculated: {brams:,g} BRAM36. A half is filled while the array works on "
        f"the other.</p>"
        f"{_table(in_dram, places)}"
        f"<p>Read and written through an AXI4 port of {s['data_bits']} bits.</p>"
    )


def _resources(s):
    used, available = s["resources"]["synthesised"], s["resources"]["available"]
    routed = s["resources"].get("routed")
    rows = []
    for key, name in RESOURCES.items():
        share = used[key] / available[key]
        verdict = "" if share <= 1 else ' <span class="bad">does not fit</span>'
        rows.append(
            f"<td>{name}</td>{_number(used[key])}"
            f"{_number(routed[key]) if routed else ''}{_number(available[key])}"
            f"<td>{_bar(share)} {share:.0%}{verdict}</td>"
        )
    planned = ""
    if (announced := s["resources"].get("announced_dsp")) is not None:
        planned = f"The plan announced {announced:,} DSP slices."
        if announced != used["dsp"]:
            planned = f'<span class="bad">{planned}</span>'
    head = '<th></th><th class="n">synthesised</th>'
    head += '<th class="n">routed</th>' if routed else ""
    head += '<th class="n">on the part</th><th>share</th>'
    return (
        f"{_table(head, rows)}<p>Synthesised by Yosys, before place and route. {planned} "
        f"{escape(s.get('implemented', ''))} A LUT is counted for each function of up to six inputs and each shift register, and as "
        f"many as it takes for a LUT RAM.</p>"
    )


def _search(s):
    search, used = s["search"], s["resources"]["synthesised"]
    chosen = search["chosen"]
    found = [("cycles per sample", chosen["cycles"], s["cycles_per_step"]["simulated"])]
    found += [(name, chosen[key], used[key]) for key, name in RESOURCES.items()]
    rows = [
        f"<td>{name}</td>{_number(estimated, ',.4g' if estimated < 1000 else ',.0f')}"
        f"{_number(actual, ',.4g' if actual < 1000 else ',.0f')}"
        + (_number(estimated / actual - 1, "+.1%") if actual else "<td></td>")
        for name, estimated, actual in found
    ]
    head = (
        '<th></th><th class="n">estimated</th><th class="n">simulated,<br>synthesised</th>'
        '<th class="n">error of<br>the estimate</th>'
    )
    return (
        f"<p>The {escape(search['search'])} search compared designs by "
        f"{', '.join(LABELS[name] for name in search['objectives'])}, and found {search['designs']:,} "
        f'that no other one beats: <a href="pareto.html#{chosen["position"]}">the whole front</a>. '
        f"This is design {chosen['position']}, {escape(search['asked'])}.</p>{_table(head, rows)}"
    )


def _verify(verify):
    return f"<pre>{escape(verify['text'])}</pre>"


def _saturations(s):
    sites = list(next(iter(s["saturations"].values())))
    rows = [(name, *counts.values()) for name, counts in s["saturations"].items()]
    samples = s["accuracy"]["train_samples"]
    return (
        f"<p>Results that did not fit their format and were clipped, over {samples:,} training "
        f"samples in simulation.</p>{html_table(('layer', *sites), rows)}"
    )


def _provenance(s, manifest):
    made = [("made", manifest["created"])]
    made += [
        (name, str(value))
        for name, value in manifest["configuration"].items()
        if name != "data_sha256"
    ]
    versions = [
        (name, version or "not installed") for name, version in manifest["versions"].items()
    ]
    seconds = [(step, f"{seconds:,.1f} s") for step, seconds in s["seconds"].items()]
    columns = (("setting", "", made), ("tool", "version", versions), ("step", "time", seconds))
    tables = "".join(html_table((first, second), rows) for first, second, rows in columns)
    return f'<div class="scroll" style="display:flex;flex-wrap:wrap;gap:2rem">{tables}</div>'


def _table(head, rows):
    """A table of rows of finished cells."""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _number(value, form=",", style="n"):
    return f'<td class="{style}">{value:{form}}</td>'


def _bar(share):
    over = " over" if share > 1 else ""
    return f'<span class="bar{over}"><i style="width:{min(1, share):.1%}"></i></span>'


def _ticks(high, count=5):
    """Round values from 0 to ``high``, about ``count`` of them."""
    raw = high / count
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    return [step * position for position in range(int(high / step + 1e-9) + 1)]


def _loss_curve(loss, title):
    """Inline SVG: the mean loss of short stretches, and a moving average."""
    loss = np.asarray(loss, float)
    stretch, window = max(1, len(loss) // 200), max(1, len(loss) // 20)
    usable = len(loss) // stretch * stretch
    fine = loss[:usable].reshape(-1, stretch).mean(axis=1)
    fine_at = (np.arange(len(fine)) + 0.5) * stretch
    sums = np.concatenate([[0.0], np.cumsum(loss)])
    ends = np.unique(np.linspace(window, len(loss), 200).astype(int))
    smooth, smooth_at = (sums[ends] - sums[ends - window]) / window, ends - window / 2

    left, right, top, bottom, width, height = 48, 12, 12, 40, 760, 260
    high = max(float(fine.max()), 1e-6) * 1.03

    def x(at):
        return left + at / len(loss) * (width - left - right)

    def y(value):
        return height - bottom - value / high * (height - top - bottom)

    def line(at, values, style):
        points = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in zip(at, values, strict=True))
        return f'<polyline fill="none" {style} points="{points}"/>'

    def text(at_x, at_y, anchor, words):
        return (
            f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" fill="currentColor">'
            f"{words}</text>"
        )

    grid = "".join(
        f'<path d="M{left} {y(tick):.1f}H{width - right}" stroke="currentColor" '
        f'stroke-opacity="0.25"/>' + text(left - 8, y(tick) + 4, "end", f"{tick:g}")
        for tick in _ticks(high)
    )
    below = height - bottom + 18
    axis = "".join(text(x(tick), below, "middle", f"{tick:,g}") for tick in _ticks(len(loss)))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Loss over training samples">{grid}{axis}'
        + text((left + width - right) / 2, height - 4, "middle", "training samples")
        + line(fine_at, fine, 'stroke="#3b82c4" stroke-opacity="0.4" stroke-width="1"')
        + line(smooth_at, smooth, 'stroke="#3b82c4" stroke-width="2"')
        + f'</svg><p class="dim">{title.capitalize()} of each training image before it is learnt, in '
        f"simulated RTL: mean of {stretch:,} (light) and of {window:,} images (dark).</p>"
    )
