"""What the benches in ``sim/`` are given: Verilog, registers, and what the golden model says."""

import numpy as np

from streamtrain.bus import PacketFormat, TrainerIP, register_map
from streamtrain.golden import Golden
from streamtrain.host.device import Commands, Op
from streamtrain.host.packing import stage_words
from streamtrain.pipeline.generate import verilog_of

__all__ = ["element_dtype", "hand_over", "in_stream_order", "window_numbers"]


def element_dtype(fmt):
    """A NumPy integer for a format's codes, of 1, 2 or 4 bytes."""
    return np.dtype(f"<i{next(size for size in (1, 2, 4) if fmt.width <= 8 * size)}")


def in_stream_order(plan, x):
    """Samples (count, channels, rows, columns) as (count, elements): channels innermost."""
    return np.moveaxis(x, 1, -1).reshape(len(x), -1).astype(element_dtype(plan.stages[0].input))


def window_numbers(plan, weights, suffix="", *, only=None):
    """Weights, or velocities, of each layer in the window's order; or of one of them."""
    found = [
        stage_words(
            stage,
            weights[f"{stage.name}.weight{suffix}"],
            weights[f"{stage.name}.bias{suffix}"] if stage.bias else None,
        ).ravel()
        for number, stage in enumerate(plan.stages)
        if only in {None, number}
    ]
    return found if only is None else found[0]


def hand_over(plan, size, folder, x, y, cycles=0.0):
    """Write a folder for the benches, with a training at batch 1.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    size : :class:`int`
        Bytes of TDATA.
    folder : :class:`~pathlib.Path`
    x, y : integer arrays (samples, channels, rows, columns), (samples,)
        Codes and labels.
    cycles : :class:`float`
        Cycles of the bare pipeline's step, for the bench that compares.
    """
    fmt = PacketFormat(plan, size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "streamtrain.v").write_text(verilog_of(TrainerIP(fmt), "streamtrain"))
    (folder / "registers.json").write_text(register_map(fmt).to_json())
    rate = plan.rate_code(plan.network.optimizer.lr)
    golden = Golden(plan)
    held = [window_numbers(plan, golden.read_weights())]
    found = []
    for number in range(len(x)):
        one = np.ones(1, np.int64)
        command = Commands(one * Op.TRAIN, one * y[number], one, one * rate[0], one * rate[1])
        found.append(golden.run(x[number : number + 1], command))
        held.append(window_numbers(plan, golden.read_weights()))
    np.savez(
        folder / "golden.npz",
        x=in_stream_order(plan, x),
        labels=np.asarray(y, np.int64),
        rate=rate,
        scores=np.concatenate([one.scores for one in found]).astype(
            element_dtype(plan.stages[-1].output)
        ),
        loss=np.concatenate([one.loss for one in found]),
        predicted=np.concatenate([one.predicted for one in found]),
        cycles=cycles,
        **{
            f"weights{layer}": np.array([weights[layer] for weights in held])
            for layer in range(len(plan.stages))
        },
    )
