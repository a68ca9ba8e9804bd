"""Take a network that PyTorch trained on digits 0 to 4, teach it 5 to 9 in hardware, hand it back.

    python benchmarks/transfer.py
    python benchmarks/transfer.py --samples 100 --tested 50

The network is a LeNet-5 with ReLU. Its convolutions are frozen (``requires_grad_(False)``), and its
linear layers learn the new digits online, at batch 1, in simulated hardware. The trained weights go
into the ONNX file that PyTorch exported, and onnxruntime predicts with it. The exit status is 1 unless
the hardware equals the golden model to the last bit, and onnxruntime's accuracy equals the trainer's.
"""

import logging
import sys
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import replace
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from columns import columns
from continual import TASKS
from nets import BOARD, DATA, NETS, images
from torch import nn

import streamtrain as st

NUMBERS = st.Numbers(
    weights="fixed<18,3>", activations="fixed<18,5>", logits="fixed<18,6>", errors="fixed<18,2>"
)
"""As fine as a multiplier takes them, for onnxruntime computes in floating point."""


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if a comparison fails."""
    options = _parser().parse_args(arguments)
    data = images(NETS["M"], options.data)
    result = transfer(
        lenet(), data,
        trained=options.trained, samples=options.samples, tested=options.tested, lr=options.lr,
        multipliers=options.multipliers,
    )  # fmt: skip
    print(describe(result), flush=True)
    if options.json:
        options.json.write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
    return int(not result["exact"] or result["onnxruntime"] != result["after"])


def _parser():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--trained", type=int, default=4000, metavar="N", help="samples of 0 to 4 for PyTorch")
    add("--samples", type=int, default=500, metavar="N", help="samples of 5 to 9 for the hardware")
    add("--tested", type=int, default=250, metavar="N", help="test images that the hardware takes")
    add("--lr", type=float, default=2**-6, help="learning rate in hardware (default: %(default)g)")
    add("--multipliers", type=int, default=120, metavar="N", help="default: %(default)s")
    add("--data", type=Path, default=DATA, metavar="DIR", help="data sets (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def lenet():
    """LeNet-5 with ReLU and max-pooling."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


def transfer(module, data, *, trained, samples, tested, lr, multipliers):
    """Train a module on the first task, adapt it to the second in hardware, and hand it back.

    Parameters
    ----------
    module : :class:`torch.nn.Module`
        Its convolutions are frozen in the second task.
    data : :class:`~streamtrain.data.Dataset`
    trained, samples : :class:`int`
        Training samples of the first task, in PyTorch, and of the second, in hardware.
    tested : :class:`int`
        Test images that the hardware takes; the golden model takes all.
    lr : :class:`float`
        Learning rate in hardware.
    multipliers : :class:`int`

    Returns a dictionary. ``before``, ``after`` and ``onnxruntime`` are accuracies by task, of the
    golden model and of the file; ``different`` counts test images that the two tell apart.
    """
    first, second = (np.flatnonzero(np.isin(data.train_y, classes)) for classes in TASKS.values())
    first = np.random.default_rng(0).permutation(first)[:trained]
    second = np.random.default_rng(1).permutation(second)[:samples]
    pretrain(module, _floats(data.train_x[first]), data.train_y[first])
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.requires_grad_(False)

    shape = data.train_x.shape[1:]
    network = st.from_torch(module, shape, optimizer=st.SGD(lr))
    design = st.plan(network, BOARD, multipliers=multipliers, numbers=NUMBERS)
    golden, hardware = design.golden(), design.simulate()
    before = accuracies(golden.predict(data.test_x, progress=False), data)
    x, y = data.train_x[second], data.train_y[second]
    expected = golden.fit(x, y, progress=False)
    given = hardware.fit(x, y)
    predicted = golden.predict(data.test_x, progress=False)
    own, other = golden.state_dict(), hardware.state_dict()
    exact = (
        all(np.array_equal(own[name], other[name]) for name in own)
        and np.array_equal(expected.losses, given.losses)
        and np.array_equal(hardware.predict(data.test_x[:tested]), predicted[:tested])
    )
    with TemporaryDirectory() as folder:
        exported, adapted = Path(folder) / "pytorch.onnx", Path(folder) / "adapted.onnx"
        export(module, shape, exported)
        st.to_onnx(hardware, exported, adapted)
        theirs = onnx_predictions(adapted, _floats(data.test_x))
    hardware.close()
    frozen = network.frozen
    layers = [replace(own, trainable=True) if own.name in frozen else own for own in network.layers]
    trainable = replace(network, layers=layers)
    whole = st.plan(trainable, BOARD, multipliers=multipliers, numbers=NUMBERS)
    return {
        "data": data.source,
        "trained": len(first),
        "samples": len(second),
        "tested": min(tested, len(data.test_x)),
        "lr": lr,
        "frozen": list(frozen),
        "multipliers": design.multipliers,
        "before": before,
        "after": accuracies(predicted, data),
        "onnxruntime": accuracies(theirs, data),
        "different": int((predicted != theirs).sum()),
        "test_images": len(data.test_x),
        "exact": bool(exact),
        # Not the mean: the host lets the pipeline run dry now and then, to show its progress.
        "cycles": float(np.median(np.diff(given.cycles))),
        "cycles_same_foldings": design.savings().trained["cycles"],
        "cycles_own_foldings": whole.estimate().cycles,
    }


def pretrain(module, x, y, *, epochs=2, lr=2e-3):
    """Train in PyTorch: Adam, batches of 32."""
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    images, labels = torch.tensor(x), torch.tensor(y)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=order).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images[part]), labels[part]).backward()
            optimizer.step()


def export(module, shape, path):
    """Export a module to ONNX, without what the exporter says about itself."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.zeros(1, *shape),), path, dynamo=True, verbose=False
        )


def onnx_predictions(path, x):
    """Class indices that onnxruntime predicts, image by image."""
    session = onnxruntime.InferenceSession(path)
    feed = session.get_inputs()[0].name
    return np.array([session.run(None, {feed: image[None]})[0].argmax() for image in x])


def accuracies(predicted, data):
    """Accuracy on the test images of each task."""
    right = predicted == data.test_y
    return [float(right[np.isin(data.test_y, classes)].mean()) for classes in TASKS.values()]


def _floats(x):
    """Images as PyTorch takes them: 0 to 1."""
    return np.float32(x) / 255 if x.dtype == np.uint8 else np.float32(x)


def describe(result):
    """A result as text."""
    r = result
    rows = [
        (f"PyTorch, {r['trained']:,} samples of the first", "trainer", *_percent(r["before"])),
        (f"hardware, {r['samples']:,} samples of the second", "trainer", *_percent(r["after"])),
        ("the same, as ONNX", "onnxruntime", *_percent(r["onnxruntime"])),
    ]
    return "\n".join([
        f"{Path(r['data']).name}, {r['test_images']:,} test images; learning rate {r['lr']:g}, batch 1",
        f"frozen: {', '.join(r['frozen'])}; {r['multipliers']} multipliers",
        "",
        columns(("accuracy % after training in", "tested with", *TASKS), rows),
        "",
        f"hardware and golden model: weights, losses and {r['tested']} predictions "
        f"{'bit-exact' if r['exact'] else 'DIFFERENT'}",
        f"trainer and onnxruntime: {r['different']} of {r['test_images']:,} predictions differ",
        f"cycles of a step: {r['cycles']:,.0f}; with all layers trained {r['cycles_own_foldings']:,}, "
        f"with the same foldings {r['cycles_same_foldings']:,}",
    ])


def _percent(values):
    return [f"{100 * value:.2f}" for value in values]


if __name__ == "__main__":
    sys.exit(main())
