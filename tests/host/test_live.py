"""The live view: what it shows, and where."""

import io
import re
import sys
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from hardware import DESIGN, samples
from rich.console import Console

import streamtrain as st
from streamtrain.host import live
from streamtrain.host.live import LiveView
from streamtrain.host.results import History


@pytest.fixture(autouse=True)
def ask_always(monkeypatch):
    monkeypatch.setattr(live, "_SHARE", 0)


def history(losses, correct):
    return History(np.array(losses, np.float64), np.array(correct, bool), seconds=1.0)


class Hardware:
    """A trainer whose counters are given one after the other."""

    def __init__(self, *counts, saturated=None):
        self.counts = list(counts)
        self.saturated = saturated or {"conv1": {"output": 0, "errors": 0}}

    def counters(self):
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def saturations(self, *, settled):
        assert not settled  # samples never stop coming
        return self.saturated


def counters(samples=0, correct=0, loss=0, cycles=0, starved=0, blocked=0, dropped=0):
    return {
        "samples": samples, "correct": correct, "dropped": dropped, "loss": loss,
        "cycles": cycles, "starved": starved, "blocked": blocked,
    }  # fmt: skip


def terminal(**options):
    return Console(file=io.StringIO(), force_terminal=True, width=80, **options)


def last_frame(console):
    """What is to be seen on a terminal, after what was overwritten."""
    screen = []
    for piece in re.split(r"(\x1b\[1A\x1b\[2K)", console.file.getvalue()):
        if piece.startswith("\x1b[1A"):
            screen.pop()
        else:
            screen += piece.splitlines()
    return screen


def test_a_terminal_shows_the_last_frame_only():
    console = terminal()
    view = LiveView(
        Hardware(counters(), counters(cycles=1000, starved=250, blocked=10)), console=console
    )
    view(history([2.0], [False]))
    view(history([2.0, 1.0, 0.0], [False, True, True]))
    samples, loss, accuracy, hardware, saturated = last_frame(console)
    assert re.fullmatch(r"samples   3  [\d,]+ samples/s", samples)
    assert loss == "loss       1.0000  █▅▁"
    assert accuracy == "accuracy    66.7%  ▁██"
    assert hardware == "hardware  starved 25.0%  blocked 1.0%  dropped packets 0"
    assert saturated == "saturated none"


def test_lines_are_cut_rather_than_wrapped():
    console = Console(file=io.StringIO(), force_terminal=True, width=30)
    view = LiveView(Hardware(counters(), counters(cycles=9)), console=console)
    for _ in range(3):
        view(history(np.ones(500), np.ones(500)))
    frame = last_frame(console)
    assert len(frame) == 5
    assert max(map(len, frame)) <= 30


def test_saturations_are_named():
    saturated = {"conv1": {"output": 0, "errors": 0}, "linear1": {"output": 1234, "weights": 5}}
    console = terminal()
    LiveView(Hardware(counters(), saturated=saturated), console=console)(history([1.0], [True]))
    assert last_frame(console)[-1] == "saturated linear1 1,234 output, 5 weights"


def test_a_file_gets_a_line_now_and_then(monkeypatch):
    console = Console(file=io.StringIO())
    view = LiveView(Hardware(counters()), console=console)
    for _ in range(5):
        view(history([1.0], [True]))
    monkeypatch.setattr(live, "_LINE_SECONDS", 0.0)
    view(history([1.0, 1.0], [True, False]))
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("loss 1.0000, accuracy 100.0%; samples 1  ")
    assert second.startswith("loss 1.0000, accuracy 50.0%; samples 2  ")


def test_a_notebook_shows_pictures(monkeypatch):
    shown = []

    class Handle:
        def update(self, page):
            shown.append(page)

    def display(page, display_id):
        shown.append(page)
        return Handle()

    ipython, package = ModuleType("IPython.display"), ModuleType("IPython")
    ipython.HTML, ipython.display, package.display = str, display, ipython
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    saturated = {"<conv>": {"output": 3}}
    console = Console(file=io.StringIO(), force_jupyter=True)
    view = LiveView(Hardware(counters(), saturated=saturated), console=console)
    view(history([4.0], [False]))
    view(history([4.0, 2.0], [False, True]))
    assert len(shown) == 2
    page = ElementTree.fromstring(f"<page>{shown[-1]}</page>")
    loss, accuracy = page.findall("div/svg")
    assert loss.find("text").text == "loss 3.0000"
    assert loss.find("polyline").get("points") == "4.0,20.0 256.0,48.0"
    assert accuracy.find("polyline").get("points") == "4.0,76.0 256.0,20.0"
    assert "<conv> 3 output" in [cell.text for cell in page.iter("td")]


def test_show_takes_loss_and_accuracy_from_counters():
    console = terminal()
    trainer = Hardware(
        counters(samples=2**32 - 10, correct=7, loss=100),
        counters(samples=2**32 - 6, correct=9, loss=100 + 4 * 8192, cycles=100),
        counters(samples=2, correct=15, loss=100 + 4 * 8192 + 8 * 4096, cycles=300, dropped=1),
    )
    LiveView(trainer, console=console).show(seconds=0.05, every=0.02)
    samples, loss, accuracy, hardware, _ = last_frame(console)
    assert samples.startswith("samples   12  ")
    assert loss == "loss       1.3333  █▅"
    assert accuracy == "accuracy    66.7%  ▅▆"
    assert hardware == "hardware  starved 0.0%  blocked 0.0%  dropped packets 1"


def test_show_waits_for_samples():
    console = terminal()
    LiveView(Hardware(counters()), console=console).show(seconds=0.02, every=0.01)
    assert last_frame(console)[:3] == [
        "samples   0  0 samples/s",
        "loss            -  ",
        "accuracy        -  ",
    ]


def test_ctrl_c_ends_show(monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "sleep", interrupted)
    LiveView(Hardware(counters()), console=terminal()).show()


def test_show_needs_counters():
    with pytest.raises(
        TypeError, match=r"^Trainer has no counters to watch; give the view to fit\(\)"
    ):
        LiveView(DESIGN.golden(), console=terminal()).show()


def test_slow_hardware_is_asked_rarely(monkeypatch):
    """A slow line is not to be kept busy with counters."""
    now = 0.0
    monkeypatch.setattr(live, "_SHARE", 20)
    monkeypatch.setattr(live, "perf_counter", lambda: now)
    asked = []

    class Slow(Hardware):
        def counters(self):
            nonlocal now
            now += 0.5
            asked.append(now)
            return super().counters()

    view = LiveView(Slow(counters()), console=terminal())
    for _ in range(100):
        now += 0.2
        view(history([1.0], [True]))
    assert len(asked) == 3  # in 21.5 s


def test_a_reset_in_between_is_borne():
    console = terminal()
    trainer = Hardware(counters(cycles=900), counters(cycles=100), counters(cycles=110, starved=1))
    view = LiveView(trainer, console=console)
    for _ in range(4):
        view(history([1.0], [True]))
    assert "dropped packets 0" in last_frame(console)[3]


def test_training_takes_it_for_the_progress_bar(monkeypatch):
    """It works without hardware, too."""
    bars = []
    monkeypatch.setattr(
        "streamtrain.host.trainer.ProgressBar", lambda *a, enabled: bars.append(enabled) or _Bar()
    )
    trainer, console = DESIGN.golden(), terminal()
    x, y = samples(50)
    found = trainer.fit(x, y, callback=st.LiveView(trainer, console=console))
    trainer.fit(x, y)
    assert bars == [False, True]
    frame = last_frame(console)
    assert frame[0].startswith("samples   50  ")
    assert frame[1].startswith(f"loss       {found.loss:.4f}  ")
    assert frame[3].startswith("saturated ")


class _Bar:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, done, figures):
        pass


def test_connected_hardware_is_watched():
    trainer, console = st.connect(DESIGN, "simulation"), terminal()
    x, y = samples(50)
    trainer.fit(x, y, callback=LiveView(trainer, console=console))
    assert re.fullmatch(
        r"hardware  starved \d+\.\d%  blocked \d+\.\d%  dropped packets 0", last_frame(console)[3]
    )
