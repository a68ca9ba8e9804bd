"""The same work on many things, in parallel, of which none is lost.

A worker that dies takes the work with it that it had in hand: out of memory, killed by somebody, or
by a fault of what it ran. That work is done again. Work that is lost time and again is done alone
in the end, with nothing else in hand, so that nothing else is blamed for it or lost with it.
"""

import os
import signal
import socket
import threading
import time
import warnings
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait as wait_for

__all__ = ["ATTEMPTS", "Lost", "completed", "worker_count"]

ATTEMPTS = 3
"""How often a worker may die of the same work. The last time it has nothing else in hand."""

_TICK_SECONDS = 0.5
_GRACE_SECONDS = 2.0  # of a worker that is stopped, to remove its files


def worker_count(tasks):
    """Worker processes for so many tasks: one for each, but no more than there are cores."""
    return min(os.cpu_count() or 1, tasks)


@dataclass(frozen=True)
class Lost:
    """What there is instead of a result.

    Parameters
    ----------
    reason : :class:`str`
        How the last worker ended.
    """

    reason: str


def completed(function, tasks, executor=None, *, tick=lambda: None):
    """Call a function for each task, and give the results as they come.

    Parameters
    ----------
    function : callable
        Gets a task, and raises nothing. Like tasks and results it must be picklable. It may be
        called more than once for a task.
    tasks : sequence
    executor : :class:`concurrent.futures.Executor`, optional
        Where the calls are made. By default in :func:`worker_count` processes of their own, which
        end when this process does, however it ends. Where an executor breaks, or takes no more
        work, such processes do what is missing, with a warning.
    tick : callable
        Called about twice a second, and after each result.

    Yields ``(number of the task, result)``; the result is a :class:`Lost` where workers died
    :data:`ATTEMPTS` times.

    Raises
    ------
    RuntimeError
        If worker processes end before they take up any work.
    """
    losses = dict.fromkeys(range(len(tasks)), 0)
    if executor is not None:
        given = _Given(executor)
        yield from _until_broken(given, function, tasks, losses, tick)
        if not losses:
            return
        warnings.warn(
            f"The executor broke ({given.broken}); worker processes of this machine do the "
            f"{len(losses)} of {len(tasks)} that are missing",
            RuntimeWarning,
            stacklevel=2,
        )
    while losses:
        with _Processes(len(losses)) as processes:
            yield from _until_broken(processes, function, tasks, losses, tick)


def _until_broken(workers, function, tasks, losses, tick):
    """Yield results for as long as workers take work.

    ``losses`` has the number of workers lost for each task that is not done; it is kept up to date.
    """
    while losses and workers.broken is None:
        company = [number for number, lost in losses.items() if lost < ATTEMPTS - 1]
        numbers, at_once = (company, workers.at_once) if company else (list(losses), 1)
        for number, result in _round(workers, function, tasks, numbers, at_once, tick):
            if isinstance(result, Lost):
                losses[number] += 1
                if losses[number] < ATTEMPTS:
                    continue
            del losses[number]
            yield number, result
            tick()


def _round(workers, function, tasks, numbers, at_once, tick):
    """Each of the tasks once, :class:`Lost` or not, until workers take no more work."""
    waiting, running = deque(numbers), {}
    try:
        while running or (waiting and workers.broken is None):
            while waiting and workers.broken is None and len(running) < at_once:
                try:
                    running[workers.submit(function, tasks[waiting[0]])] = waiting[0]
                    waiting.popleft()
                except Exception as error:
                    workers.broken = _text(error)
            done, _ = wait(running, _TICK_SECONDS, FIRST_COMPLETED)
            tick()
            for future in done:
                number = running.pop(future)
                try:
                    result = future.result()
                except Exception as error:  # the function raises none: it is the worker's end
                    result = Lost(_text(error))
                    if isinstance(error, BrokenExecutor):
                        workers.broken = result.reason
                yield number, result
    finally:
        for future in running:
            future.cancel()


def _text(error):
    return str(error) or type(error).__name__


class _Given:
    """Somebody else's executor. It has work for all its workers, however many they are."""

    at_once = float("inf")

    def __init__(self, executor):
        self.submit = executor.submit
        self.broken = None


class _Processes:
    """Worker processes for so many tasks, that end with the ``with`` block."""

    def __init__(self, tasks):
        self.at_once = worker_count(tasks)
        self.broken = None
        context = get_context("spawn")
        self._attached, self._lifeline = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            self.at_once, context, initializer=_attach, initargs=(self._attached,)
        )

    def __enter__(self):
        try:
            self._pool.submit(os.getpid).result()
        except BaseException as error:
            self._stop()
            if not isinstance(error, BrokenExecutor):
                raise
            raise RuntimeError(
                "Worker processes end before they begin. They import the script that is run, so it "
                'needs `if __name__ == "__main__":` in front of what shall run only once'
            ) from None
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self._pool.shutdown()
        self._stop()

    def _stop(self):
        self._lifeline.close()
        self._pool.shutdown(cancel_futures=True)
        self._attached.close()

    def submit(self, function, task):
        return self._pool.submit(_in_hand, function, task)


# -- In a worker process ---------------------------------------------------------------------------

_busy = threading.Event()


def _attach(lifeline):
    """End when the other end of the pipe ``lifeline`` is closed: by its process, or by its end.

    End at a signal, too: the pool sends one to the workers that are left when one has died.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # with all processes that this one starts; Ctrl-C is not for them
    told, teller = socket.socketpair()
    teller.setblocking(False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the watch does it, even while C code runs
    signal.set_wakeup_fd(teller.fileno())
    threading.Thread(target=_watch, args=(lifeline, told, teller), daemon=True).start()


def _watch(lifeline, told, teller):
    wait_for([lifeline, told])
    if not hasattr(os, "killpg"):
        os._exit(1)
    if _busy.is_set():
        os.killpg(0, signal.SIGINT)  # lets what runs remove its files
        time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _in_hand(function, task):
    _busy.set()
    try:
        return function(task)
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        _busy.clear()
