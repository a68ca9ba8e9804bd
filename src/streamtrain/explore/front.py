"""What a search finds: the designs that no other one beats, and ways to choose among them."""

import csv
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isfinite
from numbers import Real
from pathlib import Path

import numpy as np

from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.points import FIGURES
from streamtrain.network import Network, network_text
from streamtrain.records import Record
from streamtrain.tables import html_table, text_table

__all__ = [
    "LABELS",
    "LIMITS",
    "OBJECTIVES",
    "Front",
    "limits_by_name",
    "limits_text",
    "objectives_by_name",
]

LABELS = {
    "samples_per_s": "samples/s",
    "latency_us": "latency, µs",
    "cycles": "cycles",
    "dsp": "DSP",
    "bram36": "BRAM36",
    "lut": "LUT",
    "ff": "FF",
}
"""What the figures of a point are called, by their names."""

OBJECTIVES = {"samples_per_s": -1, "latency_us": 1, "dsp": 1, "bram36": 1, "lut": 1}
"""What designs are compared by: names of a point's figures, and the factors that make less better."""

LIMITS = dict.fromkeys(("latency_us", "cycles", "dsp", "bram36", "lut", "ff"), "at most")
LIMITS = {"samples_per_s": "at least", **LIMITS}
"""What a limit on a figure asks for, by the figure's name."""

_ALIASES = {"bram": "bram36", "latency": "latency_us"}
_SPEEDS, _RESOURCES = ("samples_per_s", "latency_us"), ("dsp", "bram36", "lut")

_SHOWN, _ALL_SHOWN = 8, 12  # rows of a long table, and of a table that is not long


def objectives_by_name(names):
    """Check names of objectives and put the full ones for short ones, such as ``"bram"``.

    Returns a tuple. Raises :exc:`TypeError` if ``names`` is no sequence of texts, and
    :exc:`ValueError` if there are none, one is unknown, or one is there twice.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"objectives must be a sequence of names, not {names!r}")
    full = tuple(_full("objective", name, OBJECTIVES) for name in names)
    if not full:
        raise ValueError(f"There must be an objective; known are {', '.join(OBJECTIVES)}")
    for name in full:
        if full.count(name) > 1:
            raise ValueError(f"Objective {name} is named twice")
    return full


def limits_by_name(limits):
    """Check limits on figures and put the full names for short ones, such as ``"bram"``.

    Parameters
    ----------
    limits : dict of numbers by name
        A limit of None is left out.

    Returns a dict. Raises :exc:`TypeError` if a limit is no number, and :exc:`ValueError` if a name
    is unknown or there twice, or a limit is not positive.
    """
    checked = {}
    for name, limit in limits.items():
        full = _full("limit", name, LIMITS)
        if full in checked:
            raise ValueError(f"{full} has two limits, {checked[full]:g} and {limit!r}")
        if limit is None:
            continue
        if not isinstance(limit, Real) or isinstance(limit, bool):
            raise TypeError(f"{full} must be a number, not {limit!r}")
        if not (limit > 0 and isfinite(limit)):
            raise ValueError(f"{full} must be positive, not {limit!r}")
        checked[full] = limit.item() if isinstance(limit, np.generic) else limit
    return checked


def limits_text(limits):
    """Limits in words, such as ``at least 5,000 samples/s and at most 100 DSP``."""
    return " and ".join(f"{LIMITS[name]} {_figure_text(name, v)}" for name, v in limits.items())


def _full(what, name, known):
    full = _ALIASES.get(name, name)
    if full not in known:
        close = get_close_matches(full, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ValueError(f"There is no {what} {name!r}{hint} Known are {', '.join(known)}")
    return full


@dataclass(frozen=True)
class Front(Record):
    """The designs of a search that no other design beats in all objectives: its Pareto front.

    A front is a sequence of designs, the fastest first: ``front[0]``, ``len(front)``,
    ``for design in front``. A slice of it is a front again. ``front.points`` holds the same designs
    as plain figures; :meth:`design` and :meth:`point` lead from one to the other. A search that
    finds nothing gives a front without points, and its :attr:`reason`.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    board : :class:`str`
        Name of a known board, or a board file.
    batch : :class:`int`
        Samples between two updates.
    objectives : tuple of :class:`str`
        What designs were compared by: ``samples_per_s``, ``latency_us``, ``dsp``, ``bram36``, ``lut``.
    constraints : dict of numbers by name
        What was asked of every design, besides that it fits the board.
    variants : tuple of :class:`~streamtrain.explore.points.Variant` or :class:`~streamtrain.explore.points.KernelVariant`
        All of the same core.
    points : tuple of :class:`~streamtrain.explore.points.Point` or :class:`~streamtrain.explore.points.KernelPoint`
        The fastest first.
    reason : :class:`str`
        Why there is none; empty if there are some.
    search : :class:`str`
        How they were found: ``"exact"`` or ``"nsga2"``; of the unified core, ``"halving"``.
    seconds : :class:`float`
        Time that it took.
    evaluated : :class:`int`
        Designs that were estimated for it.

    Raises
    ------
    TypeError, ValueError
        If objectives or constraints are unknown or of the wrong kind.
    """

    network: Network
    board: str
    batch: int
    objectives: tuple
    constraints: dict
    variants: tuple
    points: tuple
    reason: str = ""
    search: str = "exact"
    seconds: float = 0.0
    evaluated: int = 0

    def __post_init__(self):
        object.__setattr__(self, "objectives", objectives_by_name(self.objectives))
        object.__setattr__(self, "constraints", limits_by_name(self.constraints))
        object.__setattr__(self, "variants", tuple(self.variants))
        object.__setattr__(self, "points", tuple(self.points))

    def __len__(self):
        return len(self.points)

    def __iter__(self):
        return map(self.design, self.points)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return replace(self, points=self.points[position])
        return self.design(self.points[position])

    def design(self, point):
        """The :class:`~streamtrain.design.Design`, or ``UnifiedDesign``, of a point."""
        return self.variants[point.variant].design(point, self.board)

    def point(self, design):
        """The point of a design. Raises :exc:`ValueError` if it is not on the front."""
        for point in self.points:
            if point.may_be(design) and self.design(point) == design:
                return point
        raise ValueError(f"There is no such design on the front:\n{design}")

    # -- Choosing ----------------------------------------------------------------------------------

    def within(self, **limits):
        """The part of the front that keeps limits.

        Parameters
        ----------
        samples_per_s : :class:`float`, optional
            At least so many.
        dsp, bram36, lut, ff, cycles, latency_us : :class:`float`, optional
            At most so many. A figure that is no objective is only looked at: a design within its
            limit may have been dropped for a better one that is not. Give it to the search then.

        Returns a :class:`Front`. If nothing is left, its reason says which point comes nearest: the
        one whose largest excess, as a part of the limit, is the smallest.

        Raises
        ------
        TypeError, ValueError
            If a limit is unknown, or is no positive number.
        """
        limits = limits_by_name(limits)
        excess = np.array([
            [_excess(name, getattr(point, name), limit) for name, limit in limits.items()]
            for point in self.points
        ]).reshape(len(self), len(limits))
        kept = tuple(
            point for point, own in zip(self.points, excess, strict=True) if (own <= 0).all()
        )
        reason = self.reason
        if self.points and not kept:
            nearest = self.points[int(excess.max(axis=1).argmin())]
            found = " and ".join(_figure_text(name, getattr(nearest, name)) for name in limits)
            reason = (
                f"No design of {len(self):,} has {limits_text(limits)}; the nearest has {found}"
            )
        return replace(
            self, points=kept, reason=reason, constraints=_tighter(self.constraints, limits)
        )

    def fastest(self, **limits):
        """The design with the most samples/s that keeps limits.

        Limits are those of :meth:`within`. Of designs that are equally fast it is the one with the
        fewest DSP slices, then block RAMs, then LUTs. Raises :exc:`ValueError` if there is none; the
        message says why, or which point comes nearest.
        """
        return self._best(limits, ("samples_per_s", *_RESOURCES))

    def smallest(self, by="dsp", **limits):
        """The design with the least of one figure that keeps limits.

        Parameters
        ----------
        by : :class:`str`
            ``"dsp"``, ``"bram36"``, ``"lut"`` or ``"latency_us"``.
        limits
            Those of :meth:`within`, such as ``samples_per_s=5000``.

        Of designs that need equally much it is the one with the fewest DSP slices, then block RAMs,
        then LUTs, then cycles. Raises :exc:`ValueError` if there is none; the message says why, or
        which point comes nearest.
        """
        (by,) = objectives_by_name([by])
        if by == "samples_per_s":
            raise ValueError("smallest must be by what a design needs, not by samples_per_s")
        return self._best(limits, (by, *_RESOURCES, "samples_per_s"))

    def _best(self, limits, order):
        left = self.within(**limits)
        if not left:
            raise ValueError(left.reason)
        return self.design(
            min(left.points, key=lambda p: [OBJECTIVES[name] * getattr(p, name) for name in order])
        )

    def knee(self):
        """The design after which more resources buy little.

        Speed (samples/s, or latency where only that was an objective) is drawn against the first
        resource among the objectives, both scaled to 0 to 1 over the designs that nothing beats in
        these two. The knee lies farthest from the straight line between the fastest and the
        smallest. Without a speed or a resource, the first two objectives are taken; with a single
        one, the knee is its best.

        Raises :exc:`ValueError` if the front is empty.
        """
        return self.design(self.points[self._knee()])

    def _knee(self):
        """Position of the knee among the points."""
        if not self.points:
            raise ValueError(self.reason)
        figures = self.figures(*self._knee_axes())
        best = figures[non_dominated(figures)]
        low, span = best.min(axis=0), np.ptp(best, axis=0)
        scaled = (figures - low) / np.where(span > 0, span, 1)
        # A straight line falls from 1 to 0, so all its points have the same sum.
        ties = self.figures(*_RESOURCES)
        return int(np.lexsort((*ties.T[::-1], scaled.sum(axis=1)))[0])

    def _knee_axes(self):
        """Names of the two figures (one, if there is one objective) whose knee it is."""
        axes = [
            next((name for name in kind if name in self.objectives), None)
            for kind in (_SPEEDS, _RESOURCES)
        ]
        return tuple(axes) if None not in axes else self.objectives[:2]

    def figures(self, *objectives):
        """Objectives of all points, an array (points, objectives) in which less is better."""
        rows = [[getattr(point, name) for name in objectives] for point in self.points]
        signs = [OBJECTIVES[name] for name in objectives]
        return np.array(rows, float).reshape(len(rows), len(signs)) * signs

    # -- Showing -----------------------------------------------------------------------------------

    def table(self):
        """Header and rows: each point's figures, its variant where there are several, foldings or buffers."""
        several = len(self.variants) > 1
        texts = self.variant_texts()
        rows = [
            (
                *(_whole(getattr(point, name)) for name in LABELS),
                *((texts[point.variant],) if several else ()),
                *point.texts(),
            )
            for point in self.points
        ]
        return (*LABELS.values(), *(("variant",) if several else ()), *self._names()), rows

    def _names(self):
        """What is chosen for each point: names of stages, or of buffers."""
        return self.variants[0].names if self.variants else []

    def variant_texts(self):
        """What tells each variant from the others, such as ``clock_mhz 150, weights fixed<16,3>``."""
        facts = [variant.facts() for variant in self.variants]
        names = dict.fromkeys(name for own in facts for name in own)
        differing = [name for name in names if len({own.get(name) for own in facts}) > 1]
        return [
            ", ".join(f"{name} {own[name]}" for name in differing if name in own) for own in facts
        ]

    def to_csv(self, path):
        """Write all points to a CSV file: figures with full precision, clock, variant, foldings or buffers."""
        texts = self.variant_texts()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*FIGURES, "clock_mhz", "variant_text", *self._names()])
            for point in self.points:
                clock = self.variants[point.variant].clock_mhz
                own = [getattr(point, name) for name in FIGURES]
                writer.writerow([*own, clock, texts[point.variant], *point.texts()])

    def plot(self, path=None):
        """Draw each speed against each resource of the objectives, and beside published designs.

        A line joins the designs that nothing beats in the two figures of a drawing; the others are
        pale. The knee is marked, and published accelerators where they trained the same network. The
        last drawing compares with all of them, by operations per second and DSP slice.

        Parameters
        ----------
        path : path, optional
            Picture to write; its ending says of which kind.

        Returns the axes. Raises :exc:`ImportError` without matplotlib, and :exc:`ValueError` if the
        front is empty.
        """
        from streamtrain.explore.front_plot import front_plot  # late: it shows what is defined here

        return front_plot(self, path)

    def to_html(self, path):
        """Write the front to a page that needs nothing else, not even a network.

        It draws any two figures of the designs, filters them by limits, compares some side by side,
        marks the knee and published accelerators, and saves a design for ``python -m
        streamtrain.build``.
        """
        from streamtrain.explore.front_page import front_page  # late: it shows what is defined here

        Path(path).write_text(front_page(self), encoding="utf-8")

    def _summary(self):
        found = f"{len(self):,} design{'' if len(self) == 1 else 's'}" if self else "No design"
        asked = f", {limits_text(self.constraints)}" if self.constraints else ""
        compared = ", ".join(LABELS[name] for name in self.objectives)
        effort = f"{self.search} search, {self.evaluated:,} designs in {self.seconds:.2g} s"
        return (
            f"{found} of {network_text(self.network)} for {self.board}, batch {self.batch}{asked}; "
            f"compared by {compared} ({effort})"
        )

    def _short_table(self):
        """Header and rows: all of them, or the first, the knee and the last; and a line on the rest."""
        header, rows = self.table()
        knee = self._knee()
        shown = list(range(len(rows)))
        if len(rows) > _ALL_SHOWN:
            shown = sorted({*range(_SHOWN), knee, len(rows) - 1})
        short, before = [], -1
        for position in shown:
            if position > before + 1:
                short.append(("…",) + ("",) * (len(header) + 1))
            short.append((position, *rows[position], "knee" if position == knee else ""))
            before = position
        more = len(rows) - len(shown)
        rest = (
            f"… {more:,} more: .to_csv(path) writes all, .to_html(path) shows them" if more else ""
        )
        return ("", *header, ""), short, rest

    def __str__(self):
        if not self.points:
            return f"{self._summary()}\n{self.reason}"
        header, rows, rest = self._short_table()
        return "\n".join(filter(None, (text_table(header, rows), rest, self._summary())))

    def _repr_html_(self):
        if not self.points:
            return f"<p>{self._summary()}</p><p>{self.reason}</p>"
        header, rows, rest = self._short_table()
        return f"{html_table(header, rows)}<p>{rest}</p><p>{self._summary()}</p>"


def _excess(name, value, limit):
    """By which part of a limit it is exceeded; not positive if it is kept."""
    return (limit - value if LIMITS[name] == "at least" else value - limit) / limit


def _tighter(limits, others):
    """The limits that must be kept to keep both."""
    both = dict(limits)
    for name, limit in others.items():
        tighter = max if LIMITS[name] == "at least" else min
        both[name] = tighter(limit, both.get(name, limit))
    return both


def _figure_text(name, value):
    label, comma, unit = LABELS[name].partition(", ")
    value = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return f"{value} {unit} {label}" if comma else f"{value} {label}"


def _whole(value):
    return int(value) if value == int(value) else value
