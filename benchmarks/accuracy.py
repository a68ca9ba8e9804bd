"""Train the golden model in fixed point and its float twin alike, and compare how well they learn.

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --net C --seeds 5

Both see the same samples in the same order from the same first weights, at batch 1. Each seed has
first weights and an order of its own. The online loss is each sample's before it is learnt, as the
mean over the last quarter of all steps; the accuracy is that of the last weights on the test
images. From seed to seed the accuracy wanders by a point or two on CIFAR-10, the loss by much less.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass
from json import dumps
from pathlib import Path

import numpy as np
from columns import columns
from nets import DATA, NETS, images

INPUTS = {
    "unit": ("0 to 1", lambda x, train: x),  # the trainer divides bytes by 255
    "centred": ("-1 to 1", lambda x, train: x / 127.5 - 1),
    "standard": (
        "mean 0, variance 1",
        lambda x, train: (x - train.mean(dtype=np.float64)) / train.std(dtype=np.float64),
    ),
}
"""Ranges of pixels, and what makes them of bytes."""


@dataclass(frozen=True)
class Protocol:
    """How a net is trained here, and how far fixed point may be from float.

    Parameters
    ----------
    epochs : :class:`int`
    inputs : :class:`str`
        Key of :data:`INPUTS`.
    accuracy_points : :class:`float`
        Largest difference of the mean accuracies, in percentage points.
    loss_part : :class:`float`, optional
        Largest difference of the mean online losses, as a part of the float twin's.
    """

    epochs: int
    inputs: str
    accuracy_points: float
    loss_part: float | None = None


PROTOCOLS = {
    "M": Protocol(1, "unit", 0.5),
    "C": Protocol(5, "centred", 2.5, 0.02),
}


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if a net is outside its limits."""
    options = _parser().parse_args(arguments)
    results = []
    for name in options.net or PROTOCOLS:
        protocol = PROTOCOLS[name]
        results.append(
            compare(
                NETS[name],
                epochs=options.epochs or protocol.epochs,
                seeds=options.seeds,
                inputs=options.inputs or protocol.inputs,
                shuffle=not options.in_order,
                folder=options.data,
                samples=options.samples,
                report=lambda text: print(text, file=sys.stderr, flush=True),
            )
        )
        if len(results) > 1:
            print()
        print(describe(results[-1]), flush=True)
    if options.json:
        options.json.write_text(dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if all(result["within"] for result in results) else 1


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--net", action="append", choices=PROTOCOLS, help="only this net (may be repeated)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: M 1, C 5")
    parser.add_argument(
        "--inputs",
        choices=INPUTS,
        help="pixels from 0 to 1, from -1 to 1, or with mean 0 and variance 1 "
        "(default: M unit, C centred)",
    )
    parser.add_argument(
        "--in-order", action="store_true", help="images in the files' order, not shuffled"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="only the first N training images")
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="data sets (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def compare(
    net,
    *,
    epochs,
    seeds=3,
    inputs="unit",
    shuffle=True,
    folder=None,
    samples=None,
    report=lambda text: None,
):
    """Train golden model and float twin with each seed.

    Parameters
    ----------
    net : :class:`nets.Net`
    epochs, seeds : :class:`int`
    inputs : :class:`str`
        Key of :data:`INPUTS`.
    shuffle : :class:`bool`
        Whether each epoch has an order of its own, by the seed.
    folder : path, optional
        Where the data sets are.
    samples : :class:`int`, optional
        Training images to use; all without.
    report : callable
        Gets a line of text after each training.

    Returns a dictionary of what was done, each seed's figures, their means, and whether these are
    within the limits of :data:`PROTOCOLS`.
    """
    data = images(net, folder)
    train_x, train_y = data.train_x[:samples], data.train_y[:samples]
    scaled = INPUTS[inputs][1] if train_x.dtype == np.uint8 else lambda x, train: x
    test_x, train_x = scaled(data.test_x, train_x), scaled(train_x, train_x)
    runs = []
    for seed in range(seeds):
        design = net.design(seed=seed)
        run = {"seed": seed}
        for kind, exact in (("fixed", True), ("float", False)):
            trainer = design.golden(exact=exact)
            history = trainer.fit(
                train_x, train_y, epochs=epochs, shuffle=shuffle, seed=seed, progress=False
            )
            tested = trainer.evaluate(test_x, data.test_y, progress=False)
            run[kind] = {
                "online_loss": float(history.losses[len(history) * 3 // 4 :].mean()),
                "test_accuracy": tested.accuracy,
            }
            if exact:
                run["saturations"] = trainer.saturations()
            report(
                f"{net.name} seed {seed} {kind}: online loss {run[kind]['online_loss']:.4f}, test "
                f"accuracy {tested.accuracy:.2%}, {history.samples_per_second:,.0f} samples/s"
            )
        runs.append(run)
    mean = {
        kind: {what: float(np.mean([run[kind][what] for run in runs])) for what in runs[0][kind]}
        for kind in ("fixed", "float")
    }
    points = 100 * (mean["fixed"]["test_accuracy"] - mean["float"]["test_accuracy"])
    loss = mean["fixed"]["online_loss"] / mean["float"]["online_loss"] - 1
    limits = PROTOCOLS.get(net.name, Protocol(1, "unit", np.inf))
    return {
        "net": net.name,
        "network": net.text,
        "lr": net.lr,
        "data": data.source,
        "train_images": len(train_x),
        "test_images": len(test_x),
        "epochs": epochs,
        "inputs": inputs,
        "shuffle": shuffle,
        "seeds": seeds,
        "runs": runs,
        "mean": mean,
        "difference": {"accuracy_points": points, "loss_part": loss},
        "limits": {"accuracy_points": limits.accuracy_points, "loss_part": limits.loss_part},
        "within": bool(
            abs(points) <= limits.accuracy_points
            and (limits.loss_part is None or abs(loss) <= limits.loss_part)
        ),
    }


def describe(result):
    """A result of :func:`compare` as text."""
    order = "a new random order in each" if result["shuffle"] else "in the files' order"
    lines = [
        f"{result['net']}: {result['network']}, learning rate {result['lr']:g}, batch 1; "
        f"pixels {INPUTS[result['inputs']][0]}",
        f"{result['data']}: {result['train_images']:,} images, {result['epochs']} epoch(s), "
        f"{order}; {result['test_images']:,} test images",
        "",
    ]

    def row(title, figures):
        loss = [figures[kind]["online_loss"] for kind in ("fixed", "float")]
        accuracy = [100 * figures[kind]["test_accuracy"] for kind in ("fixed", "float")]
        return (
            title,
            *(f"{value:.4f}" for value in loss),
            f"{loss[0] / loss[1] - 1:+.2%}",
            *(f"{value:.2f}" for value in accuracy),
            f"{accuracy[0] - accuracy[1]:+.2f}",
        )

    loss, accuracy = "online loss\n", "accuracy %\n"
    header = ("", f"{loss}fixed", f"{loss}float", "\ndiffers")
    header += (f"{accuracy}fixed", f"{accuracy}float", "\npoints")
    rows = [row(f"seed {run['seed']}", run) for run in result["runs"]]
    rows.append(row("mean", result["mean"]))
    limits = result["limits"]
    loss = "" if limits["loss_part"] is None else f"{limits['loss_part']:.2%}"
    rows.append(("at most", "", "", loss, "", "", f"{limits['accuracy_points']:.2f}"))
    lines.append(columns(header, rows))
    lines.append(f"{'within' if result['within'] else 'OUTSIDE'} the limits")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
