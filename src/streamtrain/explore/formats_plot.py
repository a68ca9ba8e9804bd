"""A study of formats as a picture. Needs matplotlib, which comes with the extra ``notebook``."""

import numpy as np

from streamtrain.explore.ranges import TENSORS

__all__ = ["formats_plot"]

_HELD, _BEST, _OTHER, _LIMIT = "#1d7a46", "#1d7a46", "#2563a8", "#b3261e"


def formats_plot(study, path):
    """The picture of a study. See :meth:`~streamtrain.explore.formats.FormatStudy.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "Plots need matplotlib; install it with: pip install streamtrain[notebook]"
        ) from None
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6), dpi=150, layout="constrained")
    axes = axes.ravel()
    numbers = study.best.numbers if study.good else None
    for axis, tensor in zip(axes, TENSORS, strict=False):
        for own in study.ranges:
            if own.tensor == tensor and own.octaves:
                octaves = own.octaves
                first, last = min(octaves), max(octaves)
                shares = [100 * octaves.get(e, 0) for e in range(first, last + 1)]
                axis.stairs(shares, range(first, last + 2), label=own.layer)
        fmt = getattr(numbers, tensor, None)
        if fmt is not None:
            axis.axvspan(-fmt.frac, fmt.width - 1 - fmt.frac, color=_HELD, alpha=0.1)
            master = numbers.master if tensor == "weights" else None
            if master is not None:
                axis.axvspan(-master.frac, -fmt.frac, color=_HELD, alpha=0.05)
            axis.set_title(
                f"{tensor}: {fmt}" + (f", master {master}" if master else ""), fontsize=10
            )
        else:
            axis.set_title(tensor, fontsize=10)
        axis.set_xlim(left=max(axis.get_xlim()[0], -32))
        axis.set(xlabel="octave: log2 of the magnitude", ylabel="% of the numbers")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    _costs(axes[-1], study)
    if path is not None:
        # Text of an SVG stays text, and the same study gives the same bytes.
        with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "formats"}):
            figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)
    return axes


def _costs(axis, study):
    """Loss of each trial against its LUTs."""
    tried = [trial for trial in study.trials if not trial.reason]
    for trial in tried:
        best = bool(study.good) and trial is study.good[0]
        at = (trial.usage.lut, trial.loss)
        axis.plot(*at, "o", color=_BEST if best else _OTHER, markersize=8 if best else 4)
        axis.annotate(trial.name, at, (5, 3), textcoords="offset points", fontsize=7)
    most = study.loss * (1 + study.tolerance)
    axis.axhline(study.loss, color=_LIMIT, linewidth=1, label="float")
    axis.axhline(most, color=_LIMIT, linewidth=1, linestyle="--", label="tolerated")
    losses = np.array([study.loss, most, *(trial.loss for trial in tried)])
    # A candidate that learns nothing would press all others flat.
    axis.set_ylim(losses.min() * 0.98, min(losses.max(), study.loss * 1.5) * 1.02)
    axis.margins(x=0.2)
    axis.set(xlabel="LUT", ylabel="online loss")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
