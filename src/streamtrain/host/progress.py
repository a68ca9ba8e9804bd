"""A progress bar in a terminal or a notebook, and Ctrl-C at a good moment."""

import signal
import threading
from html import escape
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["HeldInterrupt", "ProgressBar"]

_PATIENCE_SECONDS = 0.5


class HeldInterrupt:
    """Hold back Ctrl-C within a ``with`` block, so that it falls where :meth:`check` is called.

    A second Ctrl-C does not wait. Outside the main thread, which Python sends no signals, nothing
    is held.
    """

    def __enter__(self):
        self._pending = False
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind, error, traceback):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def _handle(self, number, frame):
        self.check()
        self._pending = True

    @property
    def pending(self):
        """Whether Ctrl-C came since the block began."""
        return self._pending

    def check(self):
        """Raise :exc:`KeyboardInterrupt` if it did."""
        if self._pending:
            raise KeyboardInterrupt


class ProgressBar:
    """Samples done, with a line of figures.

    It appears on standard error (in a notebook below the cell) when there is something to wait
    for: at an :meth:`update` before the end, half a second after the start.

    Parameters
    ----------
    what : :class:`str`
        What is done, such as "training".
    total : :class:`int`
        Samples.
    enabled : :class:`bool`
        False shows nothing.
    """

    def __init__(self, what, total, *, enabled=True):
        self.what = what
        self.total = total
        self.enabled = enabled
        self._view = None
        self._began = perf_counter()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._view is not None:
            self._view.close()

    def update(self, done, figures):
        """Show that ``done`` samples are done; ``figures`` is a short text."""
        if self._view is None:
            waited = perf_counter() - self._began
            if not self.enabled or done == self.total or waited < _PATIENCE_SECONDS:
                return
            console = Console(stderr=True)
            view = _NotebookView if console.is_jupyter else _TerminalView
            self._view = view(self.what, self.total, console)
        self._view.update(done, figures)


class _TerminalView:
    def __init__(self, what, total, console):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._progress.add_task(what, total=total, figures="")
        self._progress.start()

    def update(self, done, figures):
        self._progress.update(self._task, completed=done, figures=figures)

    def close(self):
        self._progress.stop()


class _NotebookView:
    """HTML that replaces itself: rich would need ipywidgets for the same."""

    def __init__(self, what, total, console):
        from IPython.display import display

        self._what, self._total = what, total
        self._shown = display(self._html(0, ""), display_id=True)

    def _html(self, done, figures):
        from IPython.display import HTML

        return HTML(
            f'{escape(self._what)} <progress value="{done}" max="{self._total}"></progress> '
            f"{done:,}/{self._total:,} {escape(figures)}"
        )

    def update(self, done, figures):
        self._shown.update(self._html(done, figures))

    def close(self):
        pass
