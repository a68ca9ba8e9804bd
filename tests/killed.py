"""Train in processes that are killed, again and again, and compare with training that is not.

    python tests/killed.py (golden | rtl) FOLDER POINTS

One process after the other goes on from the same checkpoint, and gets a SIGKILL when it has come to a
random sample: anywhere, within a step or while a checkpoint is written. Prints the kills, the samples at
which the survivors went on, and whether the last checkpoint is that of training without kills.
"""

import json
import os
import signal
import sys
from pathlib import Path
from time import sleep

import numpy as np

import streamtrain as st

ROUND = {f"round_{what}": "stochastic" for what in ("activations", "errors", "weights")}


def design():
    net = st.Network(
        (1, 6, 6),
        [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(3)],
        optimizer=st.SGD(2**-5),
    )
    foldings = {"conv1": (2, 1, 9), "linear1": (3, 2, 1)}
    return st.plan(net, foldings=foldings, max_batch=4, numbers=st.Numbers(**ROUND))


def fit(kind, path, **options):
    trainer = design().golden() if kind == "golden" else design().simulate(progress=False)
    rng = np.random.default_rng(0)
    x, y = rng.random((150, 1, 6, 6)), rng.integers(0, 3, 150)
    trainer.fit(
        x,
        y,
        epochs=4,
        batch_size=3,
        shuffle=True,
        progress=False,
        checkpoint=path,
        every=6,
        **options,
    )


def samples(path):
    return st.load_checkpoint(path).samples if path.exists() else 0


def killed(kind, path, point):
    """Train in another process until it has come to ``point``; kill it. Returns where it began."""
    begin = samples(path)
    child = os.fork()
    if child == 0:
        fit(kind, path, callback=lambda history: sleep(0.001))
        os._exit(0)  # it came to the end
    while samples(path) < point:
        sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    return begin


def main(kind, folder, points):
    folder = Path(folder)
    whole, path = folder / "whole.ckpt", folder / "killed.ckpt"
    fit(kind, whole)
    at = np.sort(np.random.default_rng().integers(1, 500, points)).tolist()
    begins = [killed(kind, path, point) for point in at]
    fit(kind, path)
    ends = [st.load_checkpoint(end) for end in (whole, path)]
    same = all((a == ends[1].weights[name]).all() for name, a in ends[0].weights.items())
    same &= ends[0].random == ends[1].random and ends[0].saturations == ends[1].saturations
    same &= (ends[0].fit.losses == ends[1].fit.losses).all()
    json.dump({"points": at, "begins": begins, "same": bool(same)}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
