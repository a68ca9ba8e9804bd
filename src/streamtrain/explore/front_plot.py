"""A front as a picture. Needs matplotlib, which comes with the extra ``notebook``."""

import numpy as np

from streamtrain.explore.devices import load_board
from streamtrain.explore.front import LABELS, OBJECTIVES
from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.published import published_designs, training_gops
from streamtrain.network import network_text

__all__ = ["front_plot"]

_LINE, _PALE, _KNEE, _MARK, _LIMIT = "#2563a8", "#b9c7d8", "#1d7a46", "#a05a00", "#b3261e"


def front_plot(front, path):
    """The picture of a front. See :meth:`~streamtrain.explore.front.Front.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "Plots need matplotlib; install it with: pip install streamtrain[notebook]"
        ) from None
    if not front.points:
        raise ValueError(front.reason)
    speeds = [name for name in front.objectives if name in {"samples_per_s", "latency_us"}]
    resources = [name for name in front.objectives if name not in speeds]
    pairs = [(x, y) for y in speeds or ["samples_per_s"] for x in resources or ["dsp"]]
    count = len(pairs) + 1
    figure, axes = pyplot.subplots(
        1, count, figsize=(4.2 * count, 3.8), dpi=150, layout="constrained", squeeze=False
    )
    axes = axes[0]
    device = load_board(front.board).device
    for axis, (x, y) in zip(axes, pairs, strict=False):
        _draw(axis, front, x, y)
        _same_network(axis, front, x, y)
        axis.set(xlabel=LABELS[x], ylabel=LABELS[y], xlim=(0, None), ylim=(0, None))
        if (limit := device.resources[x]) < axis.get_xlim()[1]:
            axis.axvline(limit, color=_LIMIT, linestyle="--", linewidth=1)
    _efficiency(axes[-1], front)
    title = f"{network_text(front.network)} on {front.board}, batch {front.batch}: estimates"
    figure.suptitle(title, fontsize=11)
    if path is not None:
        # Text of an SVG stays text, and the same front gives the same bytes.
        with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "front"}):
            figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)
    return axes


def _draw(axis, front, x, y):
    """Two figures of all points: the line of the best, the knee, and the others pale."""
    at = np.array([[getattr(point, name) for name in (x, y)] for point in front.points], float)
    best = non_dominated(front.figures(x, y))
    line = at[best][np.argsort(at[best][:, 0])]
    knee = front.points.index(front.point(front.knee()))
    axis.plot(*at[~best].T, ".", color=_PALE, markersize=3, rasterized=True)
    axis.plot(*line.T, color=_LINE, alpha=0.5, drawstyle="steps-post")
    axis.plot(*line.T, ".", color=_LINE)
    axis.plot(*at[knee], "o", markersize=10, markerfacecolor="none", color=_KNEE)
    axis.annotate("knee", at[knee], (8, -12), textcoords="offset points", color=_KNEE)
    axis.grid(alpha=0.3)


def _same_network(axis, front, x, y):
    """Published designs that train the same network; without a figure for x, a line."""
    if y != "samples_per_s":
        return
    for design in published_designs():
        speed = design.speed(front.network)
        if speed is None:
            continue
        resource = getattr(design, x)
        if resource is None:
            axis.axhline(speed, color=_MARK, linestyle=":", linewidth=1)
            text = f"{design.label}: {LABELS[x]} not stated"
            _note(axis, text, speed, _MARK)
        else:
            _mark(axis, design, resource, speed)


def _efficiency(axis, front):
    """Operations per second and DSP slice: where all networks compare."""
    dsp = np.array([point.dsp for point in front.points], float)
    speed = np.array([point.samples_per_s for point in front.points])
    efficiency = training_gops(front.network, speed) / dsp
    best = non_dominated(front.figures(*[n for n in OBJECTIVES if n in ("samples_per_s", "dsp")]))
    axis.plot(dsp[~best], efficiency[~best], ".", color=_PALE, markersize=3, rasterized=True)
    axis.plot(dsp[best], efficiency[best], ".", color=_LINE)
    for design in published_designs():
        if design.dsp:
            _mark(axis, design, design.dsp, design.gops / design.dsp)
    ceiling = 2e-3 * max(variant.clock_mhz for variant in front.variants)
    axis.axhline(ceiling, color=_LIMIT, linestyle="--", linewidth=1)
    _note(axis, "a multiply-accumulate in each DSP and cycle", ceiling, _LIMIT)
    axis.set(xlabel="DSP", ylabel="GOPS per DSP", xscale="log", ylim=(0, None))
    axis.grid(alpha=0.3)


def _mark(axis, design, x, y):
    """A published design and its label, which can be read where it crosses points."""
    axis.plot(x, y, "D", color=_MARK, markersize=5)
    axis.annotate(
        design.label,
        (x, y),
        (-7, 3),
        textcoords="offset points",
        color=_MARK,
        fontsize=7,
        ha="right",
        bbox={"boxstyle": "square,pad=0.05", "facecolor": "#ffffffb0", "edgecolor": "none"},
    )


def _note(axis, text, y, color):
    """Words above a horizontal line."""
    axis.annotate(
        text,
        (0.02, y),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=color,
        fontsize=7,
    )
