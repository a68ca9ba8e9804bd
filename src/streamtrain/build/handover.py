"""What the benches in ``sim/`` are given besides Verilog: registers, and what the golden model says."""

import numpy as np

from streamtrain.bus import register_map
from streamtrain.bus.window import Target
from streamtrain.golden import Golden
from streamtrain.host.packing import pack_states, stage_words
from streamtrain.host.trainer import training_commands
from streamtrain.pipeline.optimizer import velocity

__all__ = ["element_dtype", "hand_over", "held_by", "in_stream_order"]


def element_dtype(fmt):
    """A NumPy integer for a format's codes, of 1, 2 or 4 bytes."""
    return np.dtype(f"<i{next(size for size in (1, 2, 4) if fmt.width <= 8 * size)}")


def in_stream_order(plan, x):
    """Samples (count, channels, rows, columns) as (count, elements): channels innermost."""
    return np.moveaxis(x, 1, -1).reshape(len(x), -1).astype(element_dtype(plan.stages[0].input))


def held_by(plan, golden):
    """All that the window shows of a golden model: numbers by (layer, target)."""
    found = {}
    for number, stage in enumerate(plan.stages):
        found[number, int(Target.WEIGHTS)] = _numbers(stage, golden.read_weights(), "")
        if velocity(plan, stage):
            found[number, int(Target.VELOCITIES)] = _numbers(
                stage, golden.read_optimizer(), ".velocity"
            )
    if plan.random_sites:
        found[0, int(Target.RANDOM)] = pack_states(plan, golden.read_random()).astype(np.int64)
    return found


def _numbers(stage, tensors, suffix):
    bias = tensors[f"{stage.name}.bias{suffix}"] if stage.bias else None
    return stage_words(stage, tensors[f"{stage.name}.weight{suffix}"], bias).ravel()


def hand_over(fmt, folder, x, y, cycles=0.0):
    """Write ``registers.json`` and ``golden.npz`` beside the Verilog, with a training at batch 1.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.PacketFormat`
    folder : :class:`~pathlib.Path`
    x, y : integer arrays (samples, channels, rows, columns), (samples,)
        Codes and labels.
    cycles : :class:`float`
        Cycles of the bare pipeline's step, for the bench that compares.
    """
    plan = fmt.plan
    (folder / "registers.json").write_text(register_map(fmt).to_json())
    rate = plan.rate_code(plan.network.optimizer.lr)
    golden = Golden(plan)
    held = [held_by(plan, golden)]
    found = []
    commands = training_commands(plan, y, 1)
    for number in range(len(x)):
        this = slice(number, number + 1)
        found.append(golden.run(x[this], commands[this]))
        held.append(held_by(plan, golden))
    np.savez_compressed(
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
            f"held_{layer}_{target}": np.array([now[layer, target] for now in held], np.int32)
            for layer, target in held[0]
        },
    )
