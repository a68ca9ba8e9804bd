"""Learn digits 0 to 4, then 5 to 9, with and without replay: what is forgotten?

    python benchmarks/continual.py
    python benchmarks/continual.py --figure docs/images/continual.svg --rtl 500

The net trains online, at batch 1, on one stream: all images of the first task, then all of the second.
Along the way it is tested on the test images of both. Each seed has first weights, an order of the
images within a task, and a buffer of its own. With ``--rtl`` the first steps after the change are
repeated in simulated hardware, which must give the same weights, losses and buffer to the last bit.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from json import dumps
from pathlib import Path

import numpy as np
from columns import columns
from nets import DATA, NETS, images

import streamtrain as st
from streamtrain.host.progress import ProgressBar

TASKS = {"digits 0 to 4": range(5), "digits 5 to 9": range(5, 10)}
"""Classes of the tasks, in the order in which they are learnt."""


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if the hardware differs."""
    options = _parser().parse_args(arguments)
    net = NETS[options.net]
    data = images(net, options.data)
    capacities = [0, *options.capacity]
    count = sum(len(part) for part in _orders(data, 0, options.samples))
    with ProgressBar("drift", count * len(capacities) * options.seeds) as bar:
        runs = []
        for capacity in capacities:
            for seed in range(options.seeds):
                runs.append(
                    drift(net, data, capacity, seed, options.every, options.samples, bar, len(runs))
                )
    result = {
        "net": net.name,
        "data": data.source,
        "train_images": count,
        "test_images": len(data.test_x),
        "lr": net.lr,
        "per_step": 1,
        "runs": runs,
    }
    print(describe(result), flush=True)
    if options.json:
        options.json.write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.figure:
        plot(result, options.figure)
    if not options.rtl:
        return 0
    capacity = options.capacity[0]
    return int(not rehearse_in_hardware(net, data, capacity, options.rtl, options.samples))


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, default="M", help="default: %(default)s")
    parser.add_argument(
        "--capacity",
        type=int,
        nargs="+",
        default=[200, 1000],
        metavar="N",
        help="room of the buffers that are compared with none (default: 200 1000)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--every",
        type=int,
        default=2000,
        metavar="N",
        help="new samples between two tests (default: %(default)s)",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="only N new samples of each task")
    parser.add_argument("--rtl", type=int, default=0, metavar="N", help="samples to simulate")
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="data sets (default: %(default)s)"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def _orders(data, seed, samples=None):
    """Positions of each task's training images, in the order of a seed."""
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(np.isin(data.train_y, classes)) for classes in TASKS.values()]
    return [rng.permutation(part)[:samples] for part in parts]


def _buffer(capacity, seed):
    return st.Replay(capacity, seed=seed) if capacity else None


def drift(net, data, capacity, seed, every, samples=None, bar=None, before=0):
    """Train on one task after the other.

    Parameters
    ----------
    net : :class:`nets.Net`
    data : :class:`~streamtrain.data.Dataset`
    capacity : :class:`int`
        Room of the replay buffer; 0 for none.
    seed : :class:`int`
    every : :class:`int`
        New samples between two tests.
    samples : :class:`int`, optional
        New samples of each task; all without.
    bar : :class:`~streamtrain.host.progress.ProgressBar`, optional
        Shows new samples, of ``before`` equal runs before this one, too.

    Returns a dictionary: accuracies on the test images of each task, by new samples so far.
    """
    trainer, replay = net.design(seed=seed).golden(), _buffer(capacity, seed)
    tests = [np.isin(data.test_y, classes) for classes in TASKS.values()]
    at, accuracy, done = [], [], 0
    orders = _orders(data, seed, samples)
    before *= sum(map(len, orders))
    for order in orders:
        for first in range(0, len(order), every):
            part = order[first : first + every]
            trainer.fit(data.train_x[part], data.train_y[part], replay=replay, progress=False)
            done += len(part)
            at.append(done)
            accuracy.append([
                trainer.evaluate(data.test_x[own], data.test_y[own], progress=False).accuracy
                for own in tests
            ])
            if bar is not None:
                old, new = accuracy[-1]
                bar.update(before + done, f"buffer {capacity}  {old:.1%} and {new:.1%}")
    return {
        "capacity": capacity,
        "seed": seed,
        "change": len(orders[0]),
        "samples": at,
        "accuracy": accuracy,
        "saturations": trainer.saturations(),
    }


def rehearse_in_hardware(net, data, capacity, steps, samples=None):
    """Repeat the first steps of the second task in simulated hardware.

    Returns whether weights, losses and buffer are those of the golden model.
    """
    design = net.design()
    first, second = _orders(data, 0, samples)
    golden, replay = design.golden(), _buffer(capacity, 0)
    golden.fit(data.train_x[first], data.train_y[first], replay=replay)
    hardware, copy = design.simulate(), _buffer(capacity, 0)
    hardware.load_state_dict(golden.state_dict())
    copy.load_state_dict(replay.state_dict())
    x, y = data.train_x[second[:steps]], data.train_y[second[:steps]]
    expected = golden.fit(x, y, replay=replay)
    given = hardware.fit(x, y, replay=copy)
    own, other = golden.state_dict(), hardware.state_dict()
    hardware.close()
    equal = (
        all(np.array_equal(own[name], other[name]) for name in own)
        and np.array_equal(expected.losses, given.losses)
        and np.array_equal(replay.x, copy.x)
    )
    print(
        f"{len(x):,} new and as many replayed samples behind the change, in simulated hardware: "
        f"{given.cycles_per_sample:,.0f} cycles for each new one, "
        f"{'bit-exact' if equal else 'DIFFERENT FROM THE GOLDEN MODEL'}"
    )
    return equal


def _by_capacity(result):
    groups = {}
    for run in result["runs"]:
        groups.setdefault(run["capacity"], []).append(run)
    return groups


def _name(capacity):
    return f"replay of {capacity:,}" if capacity else "no replay"


def describe(result):
    """A result as text: accuracies at the end of each task."""
    rows = []
    for capacity, runs in _by_capacity(result).items():
        change = runs[0]["change"]
        middle = [run["accuracy"][run["samples"].index(change)][0] for run in runs]
        old, new = np.array([run["accuracy"][-1] for run in runs]).T
        figures = [middle, old, new, (old + new) / 2]
        rows.append((
            _name(capacity),
            *(f"{100 * np.mean(f):.2f} ± {50 * np.ptp(f):.2f}" for f in figures),
        ))
    names = [name.replace("digits ", "") for name in TASKS]
    header = ("accuracy %", f"{names[0]}\nbefore change", f"{names[0]}\nat the end")
    header += (f"{names[1]}\nat the end", "mean\nat the end")
    net = NETS[result["net"]]
    seeds = len({run["seed"] for run in result["runs"]})
    return "\n".join([
        f"{net.name}: {net.text}, learning rate {net.lr:g}, batch 1, one replayed sample for each new one",
        f"{result['data']}: {result['train_images']:,} images, {result['test_images']:,} test images; "
        f"mean and half the range of {seeds} seed(s)",
        "",
        columns(header, rows),
    ])


def plot(result, path):
    """Draw accuracy on both tasks over the samples of the stream."""
    from matplotlib import pyplot

    colors = ["#b3261e", "#a05a00", "#2563a8", "#1d7a46"]
    figure, axes = pyplot.subplots(
        1, 2, figsize=(9.5, 3.4), sharey=True, dpi=150, layout="constrained"
    )
    for task, (axis, title) in enumerate(zip(axes, TASKS, strict=True)):
        for color, (capacity, runs) in zip(colors, _by_capacity(result).items(), strict=False):
            x = np.array(runs[0]["samples"])
            y = 100 * np.array([run["accuracy"] for run in runs])[:, :, task]
            axis.plot(x, y.mean(axis=0), color=color, label=_name(capacity), linewidth=1.5)
            axis.fill_between(x, y.min(axis=0), y.max(axis=0), color=color, alpha=0.2, linewidth=0)
        axis.axvline(runs[0]["change"], color="#66707f", linestyle="--", linewidth=1)
        axis.annotate(
            "the digits change", (runs[0]["change"], 50), (-4, 0), color="#66707f", fontsize=8,
            textcoords="offset points", ha="right", va="center",
        )  # fmt: skip
        axis.set(title=f"Test accuracy, {title}", xlabel="samples of the stream", ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("%")
    axes[1].legend(loc="lower right", fontsize=8)
    # Text of an SVG stays text, and the same result gives the same bytes.
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "continual"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
