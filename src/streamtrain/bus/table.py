"""The registers of a trainer: the one table of which gates, documents and drivers are made."""

import re
from dataclasses import replace
from importlib.metadata import version

from amaranth import Shape

from streamtrain.bus.receive import PACKET_BITS
from streamtrain.bus.registers import WORD_BYTES, Field, Register, RegisterMap, Value
from streamtrain.bus.window import Target, window_sizes
from streamtrain.cache import content_key
from streamtrain.host.device import LOSS_FRAC, Op
from streamtrain.pipeline.generate import anonymous
from streamtrain.pipeline.layouts import command_layout, saturation_sites, update_fields
from streamtrain.pipeline.optimizer import MOMENTUM_BITS, clip_frac, decay_frac, update_codes
from streamtrain.pipeline.plan import RATE_UNIT

__all__ = ["EVENTS", "IDENTITY", "SATURATIONS", "WIDE", "configuration", "register_map", "release"]

IDENTITY = int.from_bytes(b"STRM", "big")
"""What the register ID reads as."""

SATURATIONS = 0x100
"""Address of the first layer's saturations; 16 bytes for each layer."""

WIDE = ("LOSS", "CYCLES", "STARVED", "BLOCKED")
"""Counters of 64 bits: the lower half, and ``NAME_HIGH``, which belongs to the last reading of it."""

EVENTS = {
    "short": "A packet ended before its samples did (TLAST too early); what was not whole is dropped.",
    "long": "A packet went on after its samples (TLAST missing); its last sample is dropped.",
    "keep": "TKEEP left out bytes of a sample, which is dropped, and the rest of its packet.",
    "label": "A label was no class; its sample is dropped, and the rest of its packet.",
    "refused": "A register access was answered by SLVERR, and changed nothing.",
    "done": "The last sample that came in was worked off.",
}
"""What sets a bit of the register EVENTS, in their order."""


def release(text):
    """(major, minor, patch) of a version, which may have more to say, such as ``"0.2.0rc1"``."""
    numbers = re.match(r"(?:\d+!)?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in numbers.groups())


def configuration(plan, size):
    """Hash of a plan and of the streams around it, 64 bits: a driver and its hardware agree on it."""
    return int(content_key("trainer 1", anonymous(plan).to_json(), str(size))[:16], 16)


def register_map(fmt):
    """The table for a plan and its streams.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Returns a :class:`~streamtrain.bus.registers.RegisterMap`.

    Raises
    ------
    ValueError
        If the plan has more layers, or wider weights, than the registers have room for, or if names of
        layers differ only by case.
    """
    plan = fmt.plan
    if len(plan.stages) > 32:
        raise ValueError(
            f"Registers have room for 32 layers with weights, but the plan has {len(plan.stages)}"
        )
    named = {}
    for stage in plan.stages:
        other = named.setdefault(stage.name.upper(), stage.name)
        if other != stage.name:
            raise ValueError(
                f"Registers are named after layers, but {other} and {stage.name} differ only by case; "
                f"rename one"
            )
    wide = [stage for stage in plan.stages if stage.stored.width > 32]
    if wide:
        raise ValueError(
            f"{wide[0].name}: weights are stored in {wide[0].stored.width} bits, but registers have 32"
        )
    registers = [
        *_facts(fmt),
        *_control(),
        *_settings(plan),
        *_counters(),
        *_window(plan),
        *_saturations(plan),
    ]
    return RegisterMap(
        "streamtrain",
        f"Trainer of a network of {len(plan.stages)} layers with weights, {plan.network.classes} classes",
        tuple(registers),
        tuple(_formats(fmt)),
    )


def _formats(fmt):
    """What a driver needs to make samples and weights, and to read results."""
    plan = fmt.plan
    pixel, score = plan.stages[0].input, plan.stages[-1].output
    sizes = window_sizes(plan)
    yield Value("PIXEL_BYTES", fmt.pixel_bytes, f"Bytes of a pixel: a code of {pixel}.")
    yield Value("PIXEL_FRAC", pixel.frac, "Its bits below the binary point.")
    yield Value("SCORE_BYTES", fmt.score_bytes, f"Bytes of a score: a code of {score}.")
    yield Value("SCORE_FRAC", score.frac, "Its bits below the binary point.")
    yield Value("LOSS_FRAC", LOSS_FRAC, "Bits of a loss below the binary point.")
    for number, stage in enumerate(plan.stages):
        name, count = stage.name.upper(), sizes[Target.WEIGHTS, number]
        yield Value(
            f"{name}_WEIGHTS",
            count,
            f"Numbers behind the window of layer {number}, {stage.name}: codes of {stage.stored}.",
        )
        yield Value(f"{name}_WEIGHTS_FRAC", stage.stored.frac, "Their bits below the binary point.")


def _fact(name, low, bits, value, doc):
    return Field(name, low, bits, doc, "ro", reset=value, constant=True)


def _facts(fmt):
    """What kind of trainer this is."""
    plan = fmt.plan
    major, minor, patch = release(version("streamtrain"))
    hashed = configuration(plan, fmt.size)
    optimizer = plan.network.optimizer
    return [
        Register(
            "ID",
            0x000,
            "Identity of all trainers.",
            (_fact("id", 0, 32, IDENTITY, '"STRM" in ASCII.'),),
        ),
        Register(
            "VERSION",
            0x004,
            "Version of streamtrain that made this trainer.",
            (
                _fact("patch", 0, 8, patch, "Patch."),
                _fact("minor", 8, 8, minor, "Minor version."),
                _fact("major", 16, 8, major, "Major version."),
            ),
        ),
        Register(
            "HASH",
            0x008,
            "What the trainer was made from, lower half.",
            (
                _fact(
                    "low", 0, 32, hashed & 0xFFFFFFFF, "Lower half of the hash of plan and streams."
                ),
            ),
        ),
        Register(
            "HASH_HIGH",
            0x00C,
            "What the trainer was made from, upper half.",
            (_fact("high", 0, 32, hashed >> 32, "Upper half of the hash of plan and streams."),),
        ),
        Register(
            "SHAPE",
            0x010,
            "Size of the network.",
            (
                _fact("classes", 0, 16, plan.network.classes, "Classes; labels are less."),
                _fact("layers", 16, 8, len(plan.stages), "Layers with weights."),
            ),
        ),
        Register(
            "FEATURES",
            0x014,
            "What the hardware can do.",
            (
                _fact("bytes", 0, 8, fmt.size, "Bytes of TDATA of both streams."),
                _fact("momentum", 8, 1, bool(optimizer.momentum), "There is momentum."),
                _fact("decay", 9, 1, bool(optimizer.weight_decay), "There is weight decay."),
                _fact("clip", 10, 1, optimizer.clip is not None, "Gradients are clipped."),
                _fact(
                    "random", 11, 1, bool(plan.random_sites), "Something is rounded stochastically."
                ),
                _fact("max_batch", 16, 16, min(plan.max_batch, 0xFFFF), "Largest mini-batch."),
            ),
        ),
        Register(
            "SAMPLE_BYTES",
            0x018,
            "Size of a sample.",
            (
                _fact(
                    "bytes",
                    0,
                    32,
                    fmt.sample_bytes,
                    "Bytes from one sample of a packet to the next, label included.",
                ),
            ),
        ),
        Register(
            "RESULT_BYTES",
            0x01C,
            "Size of a result.",
            (
                _fact(
                    "bytes",
                    0,
                    32,
                    fmt.result_bytes,
                    "Bytes from one result of a packet to the next.",
                ),
            ),
        ),
    ]


def _control():
    modes = tuple(
        Value(op.name, op.value, doc)
        for op, doc in (
            (Op.INFER, "Scores and predicted class; labels do not matter."),
            (Op.EVALUATE, "The loss as well."),
            (Op.TRAIN, "Also train."),
        )
    )
    events = [(low, name, doc) for low, (name, doc) in enumerate(EVENTS.items())]
    return [
        Register(
            "CONTROL",
            0x020,
            "What the trainer does with samples.",
            (
                Field(
                    "run",
                    0,
                    1,
                    "Take packets. One that is under way is taken to its end in any case.",
                ),
                Field(
                    "mode",
                    1,
                    2,
                    "What is done with samples whose last word comes from now on.",
                    maximum=max(value.value for value in modes),
                    values=modes,
                ),
                Field(
                    "reset",
                    8,
                    1,
                    "Forget all samples that are inside, and what the window was at. "
                    "Weights stay; an update that is under way may be half done. The rest of a packet is "
                    "dropped as it comes.",
                    "pulse",
                ),
                Field("clear", 9, 1, "Set the counters to 0.", "pulse"),
            ),
        ),
        Register(
            "STATUS",
            0x024,
            "What goes on.",
            (
                Field(
                    "busy",
                    0,
                    1,
                    "There are samples whose results have not gone out, or that are still trained with.",
                    "ro",
                ),
                Field("receiving", 1, 1, "A packet is under way.", "ro"),
                Field("window_busy", 2, 1, "The window is at something.", "ro"),
                Field("window_open", 3, 1, "WINDOW_DATA can be used now.", "ro"),
            ),
        ),
        Register(
            "EVENTS",
            0x028,
            "What has happened since it was cleared, by writing 1.",
            tuple(Field(name, low, 1, doc, "w1c") for low, name, doc in events),
        ),
        Register(
            "INTERRUPTS",
            0x02C,
            "Events that raise irq for as long as they are set.",
            tuple(Field(name, low, 1, doc) for low, name, doc in events),
        ),
        Register(
            "PACKET",
            0x030,
            "Packets.",
            (
                Field(
                    "samples",
                    0,
                    PACKET_BITS,
                    "Samples in a packet. Change it between packets.",
                    reset=1,
                    minimum=1,
                ),
            ),
        ),
    ]


def _settings(plan):
    """What holds for samples whose last word comes after they are written."""
    optimizer = plan.network.optimizer
    mantissa, shift = plan.rate_code(optimizer.lr)
    codes = update_codes(plan, optimizer.lr)
    bits = {name: Shape.cast(field.shape).width for name, field in command_layout(plan)}
    settings = [
        Register(
            "BATCH",
            0x034,
            "Mini-batches.",
            (
                Field(
                    "samples",
                    0,
                    16,
                    "Samples between two updates of the weights.",
                    reset=1,
                    minimum=1,
                    maximum=min(plan.max_batch, 0xFFFF),
                ),
            ),
        ),
        Register(
            "RATE",
            0x038,
            f"Learning rate of a sample: mantissa / {RATE_UNIT} * 2**(shift - {plan.rate_exponent}).",
            (
                Field(
                    "mantissa",
                    0,
                    bits["mantissa"],
                    f"In steps of 1/{RATE_UNIT}.",
                    reset=mantissa,
                    maximum=RATE_UNIT,
                ),
                Field(
                    "shift",
                    16,
                    max(1, bits["shift"]),
                    "Octaves.",
                    reset=shift,
                    maximum=plan.rate_shifts,
                ),
            ),
        ),
        Register(
            "FROZEN",
            0x03C,
            "Layers that keep their weights.",
            (
                Field(
                    "layers",
                    0,
                    len(plan.stages),
                    "A bit for each layer with weights, the first one lowest.",
                ),
            ),
        ),
    ]
    built = update_fields(plan)
    if "momentum" in built:
        settings.append(
            Register(
                "MOMENTUM",
                0x040,
                "Momentum.",
                (
                    Field(
                        "value",
                        0,
                        bits["momentum"],
                        f"In steps of 2**-{MOMENTUM_BITS}.",
                        reset=codes["momentum"],
                    ),
                ),
            )
        )
    if "decay" in built:
        settings.append(
            Register(
                "DECAY",
                0x044,
                "Weight decay.",
                (
                    Field(
                        "value",
                        0,
                        max(1, bits["decay"]),
                        f"Learning rate * weight decay, in steps of 2**-{decay_frac(plan)}.",
                        reset=codes["decay"],
                    ),
                ),
            )
        )
    if "clip" in built:
        settings.append(
            Register(
                "CLIP",
                0x048,
                "Clipping of gradients.",
                (
                    Field(
                        "value",
                        0,
                        bits["clip"],
                        f"Learning rate * largest gradient, in steps of 2**-{clip_frac(plan)}.",
                        reset=codes["clip"],
                        minimum=1,
                    ),
                ),
            )
        )
    if plan.random_sites:
        settings.append(
            Register(
                "SEED",
                0x04C,
                "Fills all random bits anew, between two samples. "
                "Refused while the window is busy.",
                (Field("seed", 0, 32, "Not 0. Reads as what was written last.", minimum=1),),
                external=True,
            )
        )
    return settings


def _counters():
    docs = {
        "SAMPLES": "Results that went out.",
        "CORRECT": "Those whose label was predicted, in modes EVALUATE and TRAIN.",
        "DROPPED": "Packets that were dropped, in whole or in part.",
        "LOSS": f"Sum of all losses, with {LOSS_FRAC} fractional bits.",
        "CYCLES": "Cycles in which the trainer was set to run, or was at work.",
        "STARVED": "Cycles in which it was set to run, but had no whole sample.",
        "BLOCKED": "Cycles in which a word of a result was not taken.",
    }
    registers, address = [], 0x080
    for name, doc in docs.items():
        field = Field("count", 0, 32, doc, "ro")
        registers.append(Register(name, address, doc, (field,)))
        address += WORD_BYTES
        if name in WIDE:
            upper = replace(
                field, doc=f"Upper half of {name}, as it was when {name} was read last."
            )
            registers.append(
                Register(f"{name}_HIGH", address, upper.doc, (upper,), captured_by=name)
            )
            address += WORD_BYTES
    return registers


def _window(plan):
    targets = tuple(
        Value(target.name, target.value, doc)
        for target, doc in (
            (
                Target.WEIGHTS,
                "Weights and biases of a layer, in the order in which the hardware stores them.",
            ),
            (Target.VELOCITIES, "What momentum keeps of each of them."),
            (Target.RANDOM, "Random bits of stochastic rounding, one at a time; the layer is 0."),
        )
        if any(kind == target for kind, _ in window_sizes(plan))
    )
    return [
        Register(
            "WINDOW",
            0x0C0,
            "Opens the window between two samples. Refused while it is busy, and for "
            "what this trainer does not have.",
            (
                Field(
                    "layer",
                    0,
                    8,
                    "Of the layers with weights, the first is 0.",
                    maximum=len(plan.stages) - 1,
                ),
                Field("target", 8, 2, "What is read or written.", values=targets),
                Field("write", 16, 1, "Whether it is written."),
            ),
            external=True,
        ),
        Register(
            "WINDOW_DATA",
            0x0C4,
            "The next number, read or written. Refused while STATUS.window_open is 0, and if what is "
            "written has no room there.",
            (Field("number", 0, 32, "In two's complement.", signed=True),),
            external=True,
            consumes=True,
        ),
        Register(
            "WINDOW_LEFT",
            0x0C8,
            "The window's end.",
            (Field("count", 0, 32, "Numbers until the window closes.", "ro"),),
        ),
    ]


def _saturations(plan):
    return [
        Register(
            f"SATURATED_{stage.name}_{site}".upper(),
            SATURATIONS + 16 * number + WORD_BYTES * place,
            f"{stage.name}: numbers that saturated since CONTROL.reset, {site}.",
            (Field("count", 0, 32, "How many.", "ro"),),
        )
        for number, stage in enumerate(plan.stages)
        for place, site in enumerate(saturation_sites(plan))
    ]
