"""The driver in C, for hosts without Python."""

from importlib import resources

from streamtrain.host.packing import stage_words

__all__ = ["write_c_driver", "write_c_weights"]

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
