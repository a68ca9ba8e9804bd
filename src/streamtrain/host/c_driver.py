"""The driver in C, for hosts without Python."""

from importlib import resources

from streamtrain.bus.packets import HEAD_BYTES
from streamtrain.host.device import LOSS_FRAC
from streamtrain.host.packing import stage_words
from streamtrain.pipeline.plan import RATE_UNIT

__all__ = ["write_c_driver", "write_c_guide", "write_c_weights"]

_COLUMNS = 12


def write_c_driver(folder):
    """Write ``streamtrain.h`` and ``streamtrain.c``; with a design's ``streamtrain_regs.h`` they are a driver."""
    source = resources.files("streamtrain.host") / "c"
    for name in ("streamtrain.h", "streamtrain.c"):
        (folder / name).write_bytes((source / name).read_bytes())


def write_c_weights(folder, plan):
    """Write ``streamtrain_weights.h``: the network's first weights, as ``streamtrain_write_window`` takes them."""
    weights = plan.encode_weights(plan.network.initial_weights())
    lines = [
        "/* The network's first weights: memories hold zeros until they are written. Made by streamtrain.",
        " *",
        " *     for (uint32_t layer = 0; layer < STREAMTRAIN_SHAPE_LAYERS; ++layer)",
        " *         streamtrain_write_window(&trainer, layer, STREAMTRAIN_WEIGHTS,",
        " *                                  streamtrain_first_weights[layer], streamtrain_first_counts[layer]);",
        " */",
        "#ifndef STREAMTRAIN_WEIGHTS_H",
        "#define STREAMTRAIN_WEIGHTS_H",
        "",
        "#include <stdint.h>",
    ]
    names, counts = [], []
    for stage in plan.stages:
        bias = weights.get(f"{stage.name}.bias")
        codes = stage_words(stage, weights[f"{stage.name}.weight"], bias).ravel().tolist()
        names.append(f"streamtrain_first_{stage.name}")
        counts.append(len(codes))
        rows = (codes[at : at + _COLUMNS] for at in range(0, len(codes), _COLUMNS))
        lines += [
            "",
            f"/* {stage.name}: codes of {stage.stored}. */",
            f"static const int32_t {names[-1]}[{len(codes)}] = {{",
            *(f"    {', '.join(map(str, row))}," for row in rows),
            "};",
        ]
    lines += [
        "",
        "/* Layer by layer. */",
        f"static const int32_t *const streamtrain_first_weights[{len(names)}] = {{{', '.join(names)}}};",
        f"static const uint32_t streamtrain_first_counts[{len(names)}] = {{{', '.join(map(str, counts))}}};",
        "",
        "#endif",
    ]
    (folder / "streamtrain_weights.h").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_c_guide(folder, fmt):
    """Write ``README.md``: how samples, results and the window of this design are laid out.

    Parameters
    ----------
    folder : :class:`~pathlib.Path`
    fmt : :class:`~streamtrain.bus.PacketFormat`
    """
    plan = fmt.plan
    channels, rows, columns = plan.network.input_shape
    pixel, score = plan.stages[0].input, plan.stages[-1].output
    label, scores = fmt.label_bits // 8, HEAD_BYTES + plan.network.classes * fmt.score_bytes
    sample = [
        (0, label, "label, a class"),
        (label, fmt.size, "0"),
        (fmt.size, fmt.size + fmt.payload_bytes,
         f"{channels}x{rows}x{columns} pixels of {fmt.pixel_bytes} bytes: channels innermost, then columns, then "
         f"rows; `round(x * 2**{pixel.frac})` of {pixel}, saturated"),
        (fmt.size + fmt.payload_bytes, fmt.sample_bytes, "0"),
    ]  # fmt: skip
    result = [
        (0, 2, "predicted class"),
        (2, 4, "label"),
        (4, 8, f"loss, without sign, in steps of 1/{1 << LOSS_FRAC}"),
        (HEAD_BYTES, scores,
         f"{plan.network.classes} scores of {fmt.score_bytes} bytes, in steps of 2**-{score.frac}: {score}"),
        (scores, fmt.result_bytes, "nothing"),
    ]  # fmt: skip
    layers = [
        f"| {number} | {stage.name} | {stage.channels[1]} | {stage.channels[0]} | {stage.kernel**2} | {', '.join(map(str, stage.folding))} | "
        f"{stage.words * (stage.multipliers + (stage.folding[0] if stage.bias else 0)):,} | {stage.stored} |"
        for number, stage in enumerate(plan.stages)
    ]
    text = _GUIDE.format(
        sample_bytes=fmt.sample_bytes, sample=_bytes_table(sample), result_bytes=fmt.result_bytes,
        result=_bytes_table(result), unit=RATE_UNIT, exponent=plan.rate_exponent, layers="\n".join(layers),
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")


def _bytes_table(parts):
    """Rows of a table of bytes, without those that there are none of."""
    rows = [f"| {first} to {end - 1} | {what} |" for first, end, what in parts if end > first]
    return "\n".join(["| bytes | what they are |", "|---|---|", *rows])


_GUIDE = """\
# This trainer from C

`streamtrain.h` and `streamtrain.c` are the driver. It includes `../regs/streamtrain_regs.h`: registers, sizes and the hash
of this very design. `streamtrain_weights.h` has the first weights: those in the trainer are zero until they are written. Addresses and
interrupts in a block design with a processor are in `../vivado/README.md`. Numbers are little-endian, and signed ones in two's complement.

## A sample: {sample_bytes} bytes

{sample}

## A result: {result_bytes} bytes

{result}

## The learning rate

A sample's weights move by `lr / batch = mantissa / {unit} * 2**(shift - {exponent})`: `streamtrain_set_rate(&trainer, mantissa, shift)`.

## Weights in the window

| layer | name | M | N | taps | Pm, Pn, Pk | numbers | format |
|--:|---|--:|--:|--:|---|--:|---|
{layers}

`streamtrain_read_window` and `streamtrain_write_window` take all numbers of a layer, as codes. Their order:

```text
for m0 in 0, Pm, 2 Pm, ... < M:
    for n0 in 0, Pn, 2 Pn, ... < N:
        for k0 in 0, Pk, 2 Pk, ... < taps:
            for m in m0 ... m0 + Pm - 1:
                for n in n0 ... n0 + Pn - 1:
                    for k in k0 ... k0 + Pk - 1:
                        weight[m][n][k]      # k = row * K + column
            for m in m0 ... m0 + Pm - 1:
                bias[m]                      # if the layer has some: in each round the same
```

Behind a flattened map, `n = (row * columns + column) * channels + channel`.
"""
