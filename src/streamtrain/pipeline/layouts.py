"""What travels on the streams of the pipeline."""

from amaranth import unsigned
from amaranth.lib import data

from streamtrain.host.device import Op
from streamtrain.pipeline.optimizer import CLIP_BITS, MOMENTUM_BITS, decay_limit, velocity
from streamtrain.pipeline.plan import RATE_UNIT

__all__ = [
    "command_layout",
    "forward_layout",
    "loss_token_layout",
    "result_layout",
    "saturation_sites",
    "scan_width",
    "stored_width",
    "token_layout",
    "update_fields",
]

_OP = range(max(Op) + 1)


def forward_layout(fmt, lanes):
    """Payload of the forward stream: elements, and whether their sample is trained with."""
    return data.StructLayout({"data": data.ArrayLayout(fmt, lanes), "train": 1})


def command_layout(plan):
    """What the host says about one sample, or about one stage's weights.

    Where anything is rounded stochastically, the stage that follows the last one is the random bits.
    """
    return data.StructLayout({
        "op": _OP,
        "label": range(plan.network.classes),
        "update": 1,
        "mantissa": range(RATE_UNIT + 1),
        "shift": range(plan.rate_shifts + 1),
        "stage": range(len(plan.stages) + bool(plan.random_sites)),
        "frozen": len(plan.stages),  # which keep their weights, as bits
        **update_fields(plan),
    })


def update_fields(plan):
    """Members of a command that the optimiser needs besides the learning rate."""
    optimizer, fields = plan.network.optimizer, {}
    if optimizer.momentum:
        # "velocity": velocities are read or written, not weights
        fields |= {"momentum": MOMENTUM_BITS, "velocity": 1}
    if optimizer.weight_decay:
        fields["decay"] = range(decay_limit(plan))
    if optimizer.clip is not None:
        fields["clip"] = CLIP_BITS
    return fields


def token_layout(plan, stage):
    """What a stage is told about a sample, or that its weights are read or written."""
    learning, others = {}, {}
    if stage.trainable:
        learning = {"update": 1, "shift": range(plan.rate_shifts + 1)}
        others = {"frozen": 1, **update_fields(plan)}
    return data.StructLayout({"train": 1, **learning, "read": 1, "write": 1, **others})


def loss_token_layout(plan):
    """What the loss is told about a sample."""
    return data.StructLayout({
        "op": _OP,
        "label": range(plan.network.classes),
        "mantissa": range(RATE_UNIT + 1),
    })


def result_layout(plan):
    """What comes out for a sample."""
    return data.StructLayout({
        "scores": data.ArrayLayout(plan.stages[-1].output, plan.network.classes),
        "loss": unsigned(32),
        "predicted": range(plan.network.classes),
    })


def stored_width(plan):
    """Bits of the stream that weights are read and written through."""
    return max(scan_width(plan, stage) for stage in plan.stages)


def scan_width(plan, stage):
    """Bits of what a stage's memories are read and written through: weights or velocities."""
    kept = velocity(plan, stage)
    return max(stage.stored.width, kept.width if kept else 0)


def saturation_sites(plan):
    """Where numbers may saturate in a stage, in the order of their counts."""
    return ("output", "errors", "weights") + ("velocity",) * bool(plan.network.optimizer.momentum)
