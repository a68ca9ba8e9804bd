"""Work that is done in parallel, and workers that die."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from textwrap import dedent

import pytest

from streamtrain.explore import workers
from streamtrain.explore.workers import ATTEMPTS, Lost, completed, worker_count

# Functions that worker processes call. A task is (file, number): each call leaves a line.


def note(task):
    file, number = task
    with open(file, "a") as log:
        log.write(f"{number}\n")
    return 10 * number


def die_of_three(task):
    note(task)
    if task[1] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return 10 * task[1]


def die_once_of_three(task):
    calls = Path(task[0]).read_text().split() if Path(task[0]).exists() else []
    return note(task) if "3" in calls else die_of_three(task)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "calls"


def tasks(log, count=6):
    return [(str(log), number) for number in range(count)]


def calls(log):
    return [int(line) for line in log.read_text().split()]


@pytest.fixture
def two(monkeypatch):
    """Two workers, on any machine."""
    monkeypatch.setattr(workers, "worker_count", lambda tasks: min(2, tasks))


def test_every_task_is_done_once(log, two):
    ticks = []
    done = dict(completed(note, tasks(log), tick=lambda: ticks.append(1)))
    assert done == {number: 10 * number for number in range(6)}
    assert sorted(calls(log)) == list(range(6))
    assert len(ticks) >= 6


def test_nothing_to_do_is_done_at_once():
    assert list(completed(note, [])) == []
    assert list(completed(note, [], ThreadPoolExecutor(1))) == []


def test_no_more_workers_than_cores_or_tasks():
    assert worker_count(1) == 1
    assert worker_count(10_000) == os.cpu_count()


def test_what_a_worker_had_in_hand_when_it_died_is_done_again(log, two):
    done = dict(completed(die_once_of_three, tasks(log)))
    assert done == {number: 10 * number for number in range(6)}
    # Nothing is done again but what was in hand: the task it died of, and that of its neighbour.
    assert len(calls(log)) <= 6 + 2


def test_a_task_that_kills_every_worker_is_named_and_no_other_is_lost(log, two):
    done = dict(completed(die_of_three, tasks(log)))
    lost = done.pop(3)
    assert isinstance(lost, Lost)
    assert "terminated abruptly" in lost.reason
    assert done == {number: 10 * number for number in (0, 1, 2, 4, 5)}
    assert calls(log).count(3) == ATTEMPTS
    # Its neighbours are done again, too, but not the last time: then it has none.
    assert len(calls(log)) <= 6 + 2 * (ATTEMPTS - 1)


def test_an_executor_that_is_given_does_the_work(log):
    with ThreadPoolExecutor(2) as pool:
        done = dict(completed(note, tasks(log), pool))
    assert done == {number: 10 * number for number in range(6)}


def test_what_a_broken_executor_leaves_is_done_in_processes(log, two):
    with (
        ProcessPoolExecutor(2, get_context("spawn")) as pool,
        pytest.warns(
            RuntimeWarning, match=r"^The executor broke \(.*abruptly.*\); worker processes"
        ),
    ):
        done = dict(completed(die_once_of_three, tasks(log), pool))
    assert done == {number: 10 * number for number in range(6)}


def test_an_executor_that_takes_no_work_is_replaced(log):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.warns(RuntimeWarning, match=r"cannot schedule new.*do the 2 of 2 that are missing"):
        done = dict(completed(note, tasks(log, 2), pool))
    assert done == {0: 0, 1: 10}


class Cluster(Executor):
    """Loses some tasks at times, and goes on."""

    def __init__(self, losses):
        self.losses = losses

    def submit(self, function, task):
        future = Future()
        future.set_running_or_notify_cancel()
        number = task[1]
        if self.losses.get(number, 0):
            self.losses[number] -= 1
            future.set_exception(MemoryError(f"worker of {number} is gone"))
        else:
            future.set_result(function(task))
        return future


def test_what_a_cluster_loses_is_done_again_on_the_cluster(log):
    done = dict(completed(note, tasks(log), Cluster({1: 1, 2: ATTEMPTS - 1, 4: ATTEMPTS})))
    assert done.pop(4) == Lost("worker of 4 is gone")
    assert done == {number: 10 * number for number in (0, 1, 2, 3, 5)}


# -- How processes end -----------------------------------------------------------------------------

SCRIPT = dedent("""
    import os, subprocess, sys, tempfile, time
    from pathlib import Path
    from streamtrain.explore import workers

    folder = Path(sys.argv[1])
    workers.worker_count = lambda tasks: 2

    def work(number):
        with tempfile.TemporaryDirectory(dir=folder):
            if number:
                return number
            # A compiler that runs for long.
            child = subprocess.Popen(["sleep", "300"])
            (folder / "pids").write_text(f"{os.getpid()} {child.pid}")
            child.wait()
""")
GUARD = 'if __name__ == "__main__":\n'
LOOP = "for result in workers.completed(work, range(9)):\n    print(*result, flush=True)\n"


def started(folder, loop):
    file = folder / "script.py"
    file.write_text(SCRIPT + loop)
    return subprocess.Popen(
        [sys.executable, str(file), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


IN_PROC = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"
)


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # whose parent has not looked yet


@IN_PROC
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_and_what_they_run_end_with_the_process(how, tmp_path):
    with started(tmp_path, GUARD + "    " + LOOP.replace("\n    ", "\n        ")) as process:
        done = {process.stdout.readline() for _ in range(8)}
        assert done == {f"{number} {number}\n" for number in range(1, 9)}
        pids = (tmp_path / "pids").read_text().split()
        assert not any(map(gone, pids))
        asked = time.monotonic()
        process.send_signal(how)
        _, errors = process.communicate(timeout=300)
        limit = asked + 60  # of a busy machine; a few seconds at most of an idle one
        while not all(map(gone, pids)) and time.monotonic() < limit:
            time.sleep(0.1)
    assert all(map(gone, pids))
    assert {path.name for path in tmp_path.iterdir()} == {"pids", "script.py"}
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1  # none of the workers'


def test_a_script_without_a_guard_is_told_so(tmp_path):
    with started(tmp_path, LOOP) as process:
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == ""
    assert (
        errors
        .rstrip()
        .splitlines()[-1]
        .startswith("RuntimeError: Worker processes end before they begin.")
    )
    assert '`if __name__ == "__main__":`' in errors
