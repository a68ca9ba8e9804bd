"""Watch a training as it goes, in a terminal or a notebook."""

import sys
from collections import deque
from dataclasses import dataclass, field
from html import escape
from time import perf_counter, sleep

import numpy as np
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

from streamtrain.host.device import LOSS_FRAC

__all__ = ["LiveView"]

_RECENT = 1000  # samples that the figures are averaged over
_COLUMNS = 48  # of a curve
_BARS = "▁▂▃▄▅▆▇█"
_FRAMES = 20  # that rates and shares are taken over
_LINE_SECONDS = 10.0  # between two lines where nothing can be overwritten
_SHARE = 20  # the hardware is asked for a 20th of the time at most
_MASK = {"samples": 0xFFFFFFFF, "correct": 0xFFFFFFFF, "dropped": 0xFFFFFFFF}  # narrow counters


@dataclass
class _Frame:
    """What is shown at a time. Curves are means over equal parts of the samples."""

    samples: int
    rate: float
    loss: float = float("nan")
    accuracy: float = float("nan")
    losses: list = field(default_factory=list)
    accuracies: list = field(default_factory=list)
    hardware: str = ""
    saturated: str = ""


class LiveView:
    """Loss and accuracy over time, samples/s, and what the hardware is short of.

    As the callback of a training it takes the place of the progress bar::

        trainer.fit(x, y, callback=st.LiveView(trainer))

    Over a trainer that other sources feed, :meth:`show` watches the counters. Where there are counters,
    there are also the parts of time in which the hardware waited for samples (starved) and for its results
    to be taken (blocked), and the packets that were dropped.

    Parameters
    ----------
    trainer : :class:`~streamtrain.Trainer`
    console : :class:`rich.console.Console`, optional
        Where to; standard error without, in a notebook below the cell.
    """

    def __init__(self, trainer, *, console=None):
        self.trainer = trainer
        self.console = console or Console(stderr=True)
        self._notebook = None  # what is shown there
        self._lines = 0  # of the terminal that are overwritten next
        self._told = -float("inf")  # when the last line was written, where nothing is overwritten
        self._asked, self._took = -float("inf"), 0.0  # when the hardware was, and how long it took
        self._reached = deque(maxlen=_FRAMES)  # (time, samples)
        self._counted = deque(maxlen=_FRAMES)  # counters
        self._hardware = self._saturated = ""

    def __call__(self, history):
        """Show how far it has come: what ``fit`` calls."""
        if self._reached and len(history) < self._reached[-1][1]:
            self._reached.clear()  # another training
        self._ask()
        recent = slice(-_RECENT, None)
        self._draw(
            _Frame(
                len(history),
                self._rate(len(history)),
                float(history.losses[recent].mean()),
                float(history.correct[recent].mean()),
                _curve(history.losses),
                _curve(history.correct),
                self._hardware,
                self._saturated,
            )
        )

    def show(self, seconds=None, every=0.5):
        """Watch the counters of a trainer on hardware, until Ctrl-C.

        Parameters
        ----------
        seconds : :class:`float`, optional
            Stop after so long.
        every : :class:`float`
            Seconds between two looks.

        Raises
        ------
        TypeError
            If the trainer has no counters.
        BusError
            If it does not answer.
        """
        if not hasattr(self.trainer, "counters"):
            raise TypeError(
                f"{type(self.trainer).__name__} has no counters to watch; "
                f"give the view to fit() as its callback"
            )
        began, last, steps = perf_counter(), self.trainer.counters(), []
        total = 0
        try:
            while seconds is None or perf_counter() - began < seconds:
                sleep(every)
                self._asked = -float("inf")
                self._ask()
                now = self._counted[-1]
                step, last = _difference(last, now), now
                if step["cycles"] < 0:
                    continue
                total += step["samples"]
                if step["samples"]:
                    loss = step["loss"] / 2**LOSS_FRAC
                    steps.append((step["samples"], loss, step["correct"]))
                self._draw(self._watched(total, steps))
        except KeyboardInterrupt:
            pass

    def _watched(self, total, steps):
        """A frame of ``(samples, sum of losses, correct ones)`` between looks."""
        frame = _Frame(total, self._rate(total), hardware=self._hardware, saturated=self._saturated)
        if steps:
            counts, losses, correct = np.array(steps, np.float64).T
            recent = np.cumsum(counts[::-1])[::-1] <= _RECENT
            recent[-1] = True
            frame.loss = float(losses[recent].sum() / counts[recent].sum())
            frame.accuracy = float(correct[recent].sum() / counts[recent].sum())
            frame.losses, frame.accuracies = _curve(losses / counts), _curve(correct / counts)
        return frame

    def _rate(self, samples):
        """Samples per second of late."""
        now = perf_counter()
        self._reached.append((now, samples))
        then, before = self._reached[0]
        return (samples - before) / (now - then) if now > then else 0.0

    def _ask(self):
        """Ask the hardware, unless that would keep it from its work."""
        now = perf_counter()
        if now - self._asked < _SHARE * self._took:
            return
        self._asked = now
        trainer = self.trainer
        if hasattr(trainer, "counters"):
            found = trainer.counters()
            if self._counted and found["cycles"] < self._counted[-1]["cycles"]:  # it was reset
                self._counted.clear()
            self._counted.append(found)
            step = _difference(self._counted[0], found)
            if step["cycles"]:
                starved, blocked = (step[name] / step["cycles"] for name in ("starved", "blocked"))
                self._hardware = (
                    f"starved {starved:.1%}  blocked {blocked:.1%}  "
                    f"dropped packets {found['dropped']:,}"
                )
            counts = trainer.saturations(settled=False)
        else:
            counts = trainer.saturations()
        self._saturated = _saturated(counts)
        self._took = perf_counter() - now

    # -- Showing it ---------------------------------------------------------------------------------

    def _draw(self, frame):
        if self.console.is_jupyter:
            self._draw_html(frame)
        elif self.console.is_terminal:
            self._overwrite(_text(frame))
        elif perf_counter() - self._told >= _LINE_SECONDS:
            self._told = perf_counter()
            print(_line(frame), file=self.console.file or sys.stderr, flush=True)

    def _overwrite(self, lines):
        up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)]
        self.console.control(Control(*up * self._lines))
        for line in lines:
            self.console.print(line, no_wrap=True, overflow="crop", highlight=False, markup=False)
        self._lines = len(lines)

    def _draw_html(self, frame):
        from IPython.display import HTML, display

        page = HTML(_html(frame))
        if self._notebook is None:
            self._notebook = display(page, display_id=True)
        else:
            self._notebook.update(page)


def _difference(before, after):
    """What counters have counted between two looks."""
    return {
        name: (value - before[name]) & _MASK[name] if name in _MASK else value - before[name]
        for name, value in after.items()
    }


def _curve(values):
    """Means over equal parts, in order."""
    if not len(values):
        return []
    parts = np.array_split(np.asarray(values, np.float64), min(_COLUMNS, len(values)))
    return [float(part.mean()) for part in parts]


def _saturated(counts):
    """Numbers that were saturated, layer by layer."""
    layers = []
    for name, sites in counts.items():
        found = [f"{count:,} {site}" for site, count in sites.items() if count]
        if found:
            layers.append(f"{name} {', '.join(found)}")
    return "; ".join(layers) or "none"


def _bars(values, top):
    """A curve as a line of characters, from 0 to ``top``."""
    heights = [max(0.0, min(1.0, value / top)) if top else 0.0 for value in values]
    return "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)


def _shown(value, form):
    return "-" if value != value else format(value, form)


def _rows(frame):
    """Names and values besides the two curves."""
    rows = [("samples", f"{frame.samples:,}  {frame.rate:,.0f} samples/s")]
    if frame.hardware:
        rows.append(("hardware", frame.hardware))
    return [*rows, ("saturated", frame.saturated)]


def _text(frame):
    """A frame as lines."""
    (first, *others) = _rows(frame)
    rows = [
        first,
        (
            "loss",
            f"{_shown(frame.loss, '.4f'):>7}  {_bars(frame.losses, max(frame.losses, default=0))}",
        ),
        ("accuracy", f"{_shown(frame.accuracy, '.1%'):>7}  {_bars(frame.accuracies, 1)}"),
        *others,
    ]
    return [f"{name:<10}{value}" for name, value in rows]


def _line(frame):
    """A frame in one line."""
    figures = f"loss {_shown(frame.loss, '.4f')}, accuracy {_shown(frame.accuracy, '.1%')}"
    return f"{figures}; " + "; ".join(f"{name} {value}" for name, value in _rows(frame))


def _html(frame):
    """A frame as HTML, in the colours of the notebook around it."""
    charts = _chart("loss", frame.losses, max(frame.losses, default=0), _shown(frame.loss, ".4f"))
    charts += _chart("accuracy", frame.accuracies, 1, _shown(frame.accuracy, ".1%"))
    rows = "".join(
        f'<tr><td style="text-align:left">{name}</td>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in _rows(frame)
    )
    return f"<div>{charts}</div><table>{rows}</table>"


def _chart(name, values, top, value):
    """A curve from 0 to ``top`` as SVG."""
    width, height = 260, 80
    steps = max(1, len(values) - 1)
    points = " ".join(
        f"{4 + at * (width - 8) / steps:.1f},{height - 4 - (y / top if top else 0) * (height - 24):.1f}"
        for at, y in enumerate(values)
    )
    return (
        f'<svg width="{width}" height="{height}" style="color:inherit" role="img" '
        f'aria-label="{name} {value}">'
        f'<text x="4" y="13" fill="currentColor" font-size="12">{name} {value}</text>'
        f'<path d="M4 {height - 4}H{width - 4}" stroke="currentColor" opacity="0.3"/>'
        f'<polyline points="{points}" fill="none" stroke="#2563a8" stroke-width="1.5"/></svg>'
    )
