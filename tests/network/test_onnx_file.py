"""What is read from ONNX files, and what is refused: every verdict names the place and a way out."""

import builtins
import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, around, constant, model, node, small, tensor

import streamtrain as st
from streamtrain.golden.unified import UnifiedGolden
from streamtrain.host.device import Commands
from streamtrain.network import Network
from streamtrain.network.support import FOLDABLE, INSTEAD, OPERATORS
from streamtrain.numeric import arithmetic
from streamtrain.unified.plan import lower

NET = Network((1, 8, 8), [st.Conv2d(4, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(3)])
CHAIN = "a chain of layers, each read by the next"


def refused(proto):
    """The verdict's rows."""
    with pytest.raises(st.ModelError) as caught:
        st.from_onnx(proto)
    return [tuple(vars(problem).values()) for problem in caught.value.problems]


def predict(proto, x):
    content = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(content)
    return session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})[0]


def twin_scores(net, x):
    """Scores of the float twin, which computes what the network means."""
    golden = st.plan(net, multipliers=20).golden(exact=False)
    fmt = golden.plan.stages[0].input
    none = np.zeros(len(x), int)
    results = golden.device.run(fmt.encode(x), Commands(none, none, none, none, none))
    return golden.plan.stages[-1].output.decode(results.scores)


def samples(count=3):
    return np.random.default_rng(3).integers(-16, 16, (count, 1, 8, 8)) / 8


# -- What is read -----------------------------------------------------------------------------------


def test_small_model():
    proto = small()
    net = st.from_onnx(proto)
    assert replace(net, weights=None) == NET
    weights = net.initial_weights()
    for name, key in {"w": "conv1.weight", "b": "conv1.bias", "v": "linear1.weight"}.items():
        (array,) = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name]
        np.testing.assert_array_equal(weights[key], array)


def test_loss_and_optimizer_are_the_callers():
    net = st.from_onnx(small(), optimizer=st.SGD(0.25))
    assert net.optimizer == st.SGD(0.25)


def linear(nodes, initializers):
    """The small model with another end, from ``f``."""
    proto = small()
    del proto.graph.node[-1]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(initializers)
    return proto


SAME = {
    "Gemm without transpose": lambda: linear([node("Gemm", "f g d", "y")], [tensor("g", 64, 3)]),
    "Gemm with a row": lambda: linear([node("Gemm", "f v e", "y", transB=1)], [tensor("e", 1, 3)]),
    "MatMul and Add": lambda: linear(
        [node("MatMul", "f g", "m"), node("Add", "m d", "y")], [tensor("g", 64, 3)]
    ),
    "Add and MatMul": lambda: linear(
        [node("MatMul", "f g", "m"), node("Add", "d m", "y")], [tensor("g", 64, 3)]
    ),
    "transposed constant": lambda: linear(
        [
            node("Transpose", "v", "g", perm=[1, 0]),
            node("MatMul", "f g", "m"),
            node("Add", "m d", "y"),
        ],
        [],
    ),
    "Softmax": lambda: linear(
        [node("Gemm", "f v d", "g", transB=1), node("Softmax", "g", "y")], []
    ),
    "LogSoftmax": lambda: linear(
        [node("Gemm", "f v d", "g", transB=1), node("LogSoftmax", "g", "y", axis=1)], []
    ),
    "Dropout": lambda: around([node("Dropout", "r", "t")]),
    "Identity": lambda: around([node("Identity", "r", "t")]),
    "Flatten twice": lambda: linear(
        [node("Flatten", "f", "ff", name="again"), node("Gemm", "ff v d", "y", transB=1)], []
    ),
    "auto_pad": lambda: small(auto_pad="SAME_LOWER"),
}


@pytest.mark.parametrize("name", SAME)
def test_forms_of_the_same(name):
    proto = SAME[name]()
    net = st.from_onnx(proto)
    assert replace(net, weights=None) == NET
    scores, expected = twin_scores(net, samples()), predict(proto, samples())
    if name == "Softmax":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    if name == "LogSoftmax":
        scores = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "shape", [[0, -1], [-1, 64], [1, 64], [1, -1], "computed from the input's shape"]
)
def test_reshape_that_flattens(shape):
    proto = small()
    if isinstance(shape, str):
        nodes = [
            node("Shape", "p", "s"), node("Gather", "s zero", "n", axis=0),
            node("Concat", "n rest", "to", axis=0), node("Reshape", "p to", "f"),
        ]  # fmt: skip
        extra = [constant("zero", [0]), constant("rest", [-1])]
    else:
        nodes, extra = [node("Reshape", "p to", "f")], [constant("to", shape)]
    gemm = proto.graph.node[4]
    del proto.graph.node[3:]
    proto.graph.node.extend([*nodes, gemm])
    proto.graph.initializer.extend(extra)
    assert replace(st.from_onnx(proto), weights=None) == NET


@pytest.mark.parametrize("scale", [1.0, 0.0])
@pytest.mark.parametrize("behind", ["Conv", "Gemm"])
def test_batch_norm_is_folded_and_written_back(behind, scale, tmp_path):
    size = 4 if behind == "Conv" else 3
    gamma = np.full(size, 0.7, np.float32)
    gamma[1] = 0.7 * scale
    norm = {
        "scale": gamma,
        "beta": np.linspace(-0.2, 0.3, size, dtype=np.float32),
        "mean": np.linspace(0.1, -0.4, size, dtype=np.float32),
        "var": np.linspace(0.5, 1.5, size, dtype=np.float32),
    }
    names = " ".join(norm)
    proto = small()
    at, value = (0, "c") if behind == "Conv" else (4, "y")
    nodes = list(proto.graph.node)
    nodes[at].output[0] = "before"
    nodes.insert(at + 1, node("BatchNormalization", f"before {names}", value, epsilon=1e-3))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(constant(name, array) for name, array in norm.items())
    layer = "conv1" if behind == "Conv" else "linear1"
    with pytest.warns(UserWarning, match=rf"^small: .* folded into {layer} and frozen"):
        net = st.from_onnx(proto)
    np.testing.assert_allclose(
        twin_scores(net, samples()), predict(proto, samples()), rtol=1e-4, atol=1e-5
    )

    trainer = st.plan(net, multipliers=20).golden(exact=False)
    trainer.fit(samples(9), np.arange(9) % 3, lr=0.01, progress=False)
    st.to_onnx(trainer, proto, tmp_path / "out.onnx")
    trained = replace(net, weights=trainer.plan.decode_weights(trainer.state_dict()))
    written = onnx.load(tmp_path / "out.onnx")
    np.testing.assert_allclose(
        twin_scores(trained, samples()), predict(written, samples()), rtol=1e-4, atol=1e-5
    )
    kept = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    np.testing.assert_array_equal(kept["mean"], norm["mean"])
    np.testing.assert_array_equal(kept["var"], norm["var"])
    assert not np.array_equal(kept["beta"], norm["beta"])
    changed = np.flatnonzero(kept["scale"] != gamma)
    np.testing.assert_array_equal(changed, [] if scale else [1])


def test_written_model_keeps_all_else(tmp_path):
    proto = SAME["transposed constant"]()
    proto.producer_name = "a user"
    proto.graph.node[0].doc_string = "kept"
    proto.graph.initializer.append(constant("unread", [1.0]))
    before = proto.SerializeToString()
    trainer = st.plan(st.from_onnx(proto), multipliers=20).golden()
    trainer.load_state_dict({name: w + 1 for name, w in trainer.state_dict().items()})
    path = tmp_path / "out.onnx"
    st.to_onnx(trainer, proto, path)
    assert proto.SerializeToString() == before
    written = onnx.load(path)
    onnx.checker.check_model(written)
    assert (written.producer_name, written.graph.node[0].doc_string) == ("a user", "kept")
    names = {t.name for t in written.graph.initializer}
    assert "unread" in names
    assert "v" not in names  # it was transposed into what is a constant now
    assert [n.op_type for n in written.graph.node][-2:] == ["MatMul", "Add"]
    st.to_onnx(trainer, path, path)  # the same file
    assert st.from_onnx(path).layers == trainer.plan.network.layers
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.onnx"]


def test_biases_that_share_an_initializer_part(tmp_path):
    proto = small()
    proto.graph.node[4].input[2] = "b"
    proto.graph.initializer.remove(proto.graph.initializer[1])
    proto.graph.initializer.append(constant("b", np.zeros(3, np.float32)))
    proto.graph.node[0].input[2] = "b"
    w, v = proto.graph.initializer[0], proto.graph.initializer[1]
    w.CopyFrom(tensor("w", 3, 1, 3, 3))
    v.CopyFrom(tensor("v", 3, 48))
    trainer = st.plan(st.from_onnx(proto, optimizer=st.SGD(0.1)), multipliers=20).golden()
    trainer.fit(samples(6), np.arange(6) % 3, progress=False)
    st.to_onnx(trainer, proto, tmp_path / "out.onnx")
    again = st.from_onnx(tmp_path / "out.onnx").initial_weights()
    trained = trainer.plan.decode_weights(trainer.state_dict())
    for name, array in trained.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_old_models_list_initializers_as_inputs():
    proto = small()
    for t in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(t.name, FLOAT, t.dims))
    assert replace(st.from_onnx(proto), weights=None) == NET


@pytest.mark.parametrize(
    ("size", "kernel", "attributes", "padding"),
    [
        (9, 3, {"strides": [2, 2], "pads": [1] * 4}, "same"),
        (9, 3, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, "same"),
        (10, 5, {"strides": [3, 3], "auto_pad": "SAME_LOWER"}, "same"),
        (9, 5, {"strides": [3, 3], "auto_pad": "SAME_UPPER"}, 1),
        (23, 11, {"strides": [4, 4]}, "valid"),
    ],
)
def test_strides_and_large_kernels(size, kernel, attributes, padding):
    layer = st.Conv2d(4, kernel, padding, stride=attributes["strides"][0])
    pixels = layer.output_shape((2, size, size))[1] ** 2
    nodes = [
        node("Conv", "x w b", "c", **attributes),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f v d", "y", transB=1),
    ]
    shapes = {"w": (4, 2, kernel, kernel), "b": (4,), "v": (3, 4 * pixels), "d": (3,)}
    tensors = [tensor(name, *shape) for name, shape in shapes.items()]
    proto = model(nodes, tensors, shape=("N", 2, size, size))
    net = st.from_onnx(proto)
    assert replace(net.layers[0], name=None) == layer
    x = np.random.default_rng(3).normal(size=(2, 2, size, size)).astype(np.float32)
    golden = UnifiedGolden(lower(net, 4), arithmetic("fp32"))
    np.testing.assert_allclose(golden.forward(x), predict(proto, x), rtol=1e-4, atol=1e-5)


# -- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes, row",
    [
        ({"strides": [2, 1]}, ("strides", "[2, 1]", "the same both ways, at most the kernel")),
        ({"strides": [0, 0]}, ("strides", "[0, 0]", "the same both ways, at most the kernel")),
        ({"strides": [4, 4]}, ("strides", "4 with a 3x3 kernel", "at most the kernel")),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, ("auto_pad", "SAME_LOWER pads 1x8x8 unevenly with strides of 2", "pads, the same on all sides")),
        ({"dilations": [2, 2]}, ("dilations", "[2, 2]", "1")),
        ({"group": 2}, ("group", "2", "1")),
        ({"pads": [0, 0, 1, 1]}, ("pads", "[0, 0, 1, 1]", "the same on all sides, less than the kernel")),
        ({"pads": [3, 3, 3, 3]}, ("pads", "3 around a 3x3 kernel", "less than the kernel")),
        ({"auto_pad": "SAME"}, ("auto_pad", "SAME", "NOTSET, VALID, SAME_UPPER or SAME_LOWER")),
        ({"kernel_shape": [5, 5]}, ("kernel_shape", "[5, 5], but the weights have [3, 3]", "the weights' own")),
        ({"kernel_shape": [13, 13]}, ("kernel_shape", "[13, 13]", "square and odd, up to 11x11")),
        ({"strides": "two"}, ("strides", "two", "the same both ways, at most the kernel")),
    ],
)  # fmt: skip
def test_attributes_of_a_convolution(attributes, row):
    assert ("the_conv", "Conv", *row) in refused(small(**attributes))


@pytest.mark.parametrize(
    "nodes, initializers, row",
    [
        ([node("Sigmoid", "r", "t")], [], ("the_sigmoid", "Sigmoid", "", "unsupported operator", "Relu")),
        ([node("Quantum", "r", "t")], [], ("the_quantum", "Quantum", "", "unsupported operator", f"one of {', '.join(OPERATORS)}")),
        ([node("Add", "r c", "t")], [], ("the_add", "Add", "input", "joins r and c", CHAIN)),
        ([node("Add", "r e", "t")], [tensor("e", 4, 1, 1)], ("the_add", "Add", "input", "r is not the output of a layer with weights", "behind MatMul, of a constant vector")),
        ([node("AveragePool", "r", "t", kernel_shape=[2, 2])], [], ("the_averagepool", "AveragePool", "", "unsupported operator", "MaxPool with a 2x2 kernel and strides of 2")),
        ([node("MaxPool", "r", "t", name="first", kernel_shape=[2, 2], strides=[2, 2])], [], ("the_maxpool", "MaxPool", "input", "pools what is pooled already", "a Conv between the two")),
        ([node("MaxPool", "r", "t", name="first", kernel_shape=[3, 3], strides=[2, 2])], [], ("first", "MaxPool", "kernel_shape", "[3, 3]", "2x2")),
        ([node("MaxPool", "r", "t", name="first", kernel_shape=[2, 2])], [], ("first", "MaxPool", "strides", "[1, 1]", "2")),
        ([node("MaxPool", "r", "t", name="first", strides=[2, 2])], [], ("first", "MaxPool", "kernel_shape", "is not given", "2x2")),
        ([node("BatchNormalization", "r b b b b", "t")], [], ("the_batchnormalization", "BatchNormalization", "input", "r is not the output of a layer with weights", "directly behind Conv, Gemm, or MatMul; its inputs are constants")),
        ([node("Conv", "r w", "t", name="second")], [], ("second", "Conv", "weights", "w belongs to the_conv as well", "weights of its own for each layer")),
        ([node("Conv", "r u", "t", name="second")], [tensor("u", 4, 3, 3, 3)], ("second", "Conv", "input", "is 4x8x8", "a map of 3 channels, as the weights say")),
        ([node("Conv", "r u", "t", name="second")], [tensor("u", 4, 4, 3, 1)], ("second", "Conv", "kernel_shape", "[3, 1]", "square and odd, up to 11x11")),
        ([node("Conv", "r u", "t", name="second")], [tensor("u", 4, 4, 3, 3, dtype=np.float64)], ("second", "Conv", "weights", "u is float64", "float32")),
        ([node("Conv", "r u", "t", name="second")], [constant("u", np.ones((4, 4, 3, 3), np.int8))], ("second", "Conv", "weights", "u is int8", "float32")),
        ([node("Conv", "r u", "t", name="second")], [constant("u", np.full((4, 4, 3, 3), np.nan, np.float32))], ("second", "Conv", "weights", "u has values that are not finite", "finite numbers")),
        ([node("Conv", "r nothing", "t", name="second")], [], ("second", "Conv", "input", "nothing is computed by no node", CHAIN)),
        ([node("Conv", "r c", "t", name="second")], [], ("second", "Conv", "input", "c is read by the_relu as well", CHAIN)),
        ([node("Softmax", "r", "t")], [], ("the_maxpool", "MaxPool", "", "follows the_softmax", "the_softmax at the end")),
        ([node("Reshape", "r to", "t")], [constant("to", [1, 2, 128])], ("the_reshape", "Reshape", "shape", "[1, 2, 128]", "batch x 256: all of a sample")),
        ([node("Dropout", "r ratio on", "t")], [constant("ratio", np.float32(0.5)), constant("on", True)], ("the_dropout", "Dropout", "training_mode", "may be true", "a model in evaluation mode")),
    ],
)  # fmt: skip
def test_nodes(nodes, initializers, row):
    assert row in refused(around(nodes, initializers))


@pytest.mark.parametrize("operator", ["Relu", "MaxPool"])
def test_nothing_before_the_first_weights(operator):
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]} if operator == "MaxPool" else {}
    rows = refused(around([node(operator, "x", "t", name="early", **pool)], before=True))
    assert ("early", operator, "input", "comes before any weights") in [row[:4] for row in rows]


def test_the_whole_verdict_at_once(tmp_path):
    nodes = [node("Sigmoid", "r", "s"), node("AveragePool", "s", "t", kernel_shape=[2, 2])]
    proto = around(nodes)
    conv = proto.graph.node[0]
    conv.attribute.append(helper.make_attribute("strides", [2, 1]))
    proto.graph.node[-1].attribute.append(helper.make_attribute("alpha", 2.0))
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(st.ModelError) as caught:
        st.from_onnx(tmp_path / "bad.onnx")
    places = [(problem.node, problem.attribute) for problem in caught.value.problems]
    assert places == [
        ("the_conv", "strides"), ("the_sigmoid", ""), ("the_averagepool", ""), ("the_gemm", "alpha"),
    ]  # fmt: skip
    assert str(caught.value).startswith("bad.onnx cannot be trained: 4 problems\nnode ")
    verdict = json.loads(caught.value.to_json())
    assert (verdict["source"], verdict["supported"]) == ("bad.onnx", False)
    assert verdict["problems"][0] == {
        "node": "the_conv", "operator": "Conv", "attribute": "strides", "found": "[2, 1]",
        "instead": "the same both ways, at most the kernel",
    }  # fmt: skip


def changed(change):
    proto = small()
    change(proto.graph)
    return proto


def rewire(graph):
    graph.node[0].input[0] = "r"


WHOLE = {
    "cycle": (lambda: changed(rewire), ("the_conv", "Conv", "input", "is in a cycle, or behind one", CHAIN)),
    "disconnected": (
        lambda: changed(lambda g: g.node.append(node("Relu", "b", "z", name="far"))),
        ("far", "Relu", "input", "does not depend on the model's input", CHAIN),
    ),
    "dead end": (
        lambda: changed(lambda g: g.node.append(node("Relu", "c", "z", name="far"))),
        ("far", "Relu", "output", "z leads nowhere", CHAIN),
    ),
    "output from nowhere": (
        lambda: changed(lambda g: g.node[4].output.__setitem__(0, "z")),
        ("y", "output", "", "is computed by no node", CHAIN),
    ),
    "computed twice": (
        lambda: changed(lambda g: g.node[1].output.__setitem__(0, "c")),
        ("the_relu", "Relu", "output", "c is computed twice", "one node for each value"),
    ),
    "two outputs": (
        lambda: changed(lambda g: g.output.append(helper.make_tensor_value_info("f", FLOAT, None))),
        ("", "", "outputs", "2 of them: y, f", "one output"),
    ),
    "two inputs": (
        lambda: changed(lambda g: g.input.append(helper.make_tensor_value_info("z", FLOAT, [1]))),
        ("", "", "inputs", "2 of them: x, z", "one input"),
    ),
    "no nodes": (lambda: model([], []), ("", "", "graph", "no nodes", "an ONNX model, whole")),
    "dynamic rows": (
        lambda: model(small().graph.node, small().graph.initializer, shape=("N", 1, "H", "W")),
        ("x", "input", "shape", "(N, 1, H, W)", "(batch, channels, rows, columns), all but the batch fixed"),
    ),
    "no shape": (
        lambda: model(small().graph.node, small().graph.initializer, shape=None),
        ("x", "input", "shape", "()", "(batch, channels, rows, columns), all but the batch fixed"),
    ),
    "vectors": (
        lambda: model(small().graph.node, small().graph.initializer, shape=(1, 64)),
        ("x", "input", "shape", "(1, 64)", "(batch, channels, rows, columns), all but the batch fixed"),
    ),
    "doubles": (
        lambda: model(small().graph.node, small().graph.initializer, kind=TensorProto.DOUBLE),
        ("x", "input", "type", "double", "float"),
    ),
    "old opset": (
        lambda: model(small().graph.node, small().graph.initializer, opset=6),
        ("", "", "opset_import", "6", f"7 to {onnx.defs.onnx_opset_version()}, such as opset_version=18"),
    ),
    "one class": (
        lambda: linear([node("Gemm", "f v1 d1", "y", transB=1)], [tensor("v1", 1, 64), tensor("d1", 1)]),
        ("y", "output", "shape", "1 class", "at least 2 classes"),
    ),
    "a map of classes": (
        lambda: changed(lambda g: g.node.remove(g.node[4]) or g.output[0].__setattr__("name", "f")),
        ("f", "output", "shape", "64 scores of a map 4x4x4", "scores from Gemm, or from a 1x1 map"),
    ),
    "a map at the end": (
        lambda: changed(lambda g: [g.node.pop() for _ in "12"] and g.output[0].__setattr__("name", "p")),
        ("p", "output", "shape", "4x4x4 scores", "a vector: Flatten at the end"),
    ),
    "nothing to train": (
        lambda: model([node("Flatten", "x", "y")], []),
        ("", "", "layers", "nothing to train", "at least one Conv or Gemm"),
    ),
    "wrong size": (
        lambda: linear([node("Gemm", "f g", "y", name="far")], [tensor("g", 32, 3)]),
        ("far", "Gemm", "input", "is 64", "a vector of 32"),
    ),
    "no Flatten": (
        lambda: changed(lambda g: g.node[4].input.__setitem__(0, "p") or g.node.remove(g.node[3])),
        ("the_gemm", "Gemm", "input", "is 4x4x4", "Flatten before it"),
    ),
    "wrong bias": (
        lambda: changed(lambda g: g.node[4].input.__setitem__(2, "b")),
        ("the_gemm", "Gemm", "bias", "has the shape 4", "a vector of 3"),
    ),
    "constant output": (
        lambda: changed(lambda g: g.node[4].CopyFrom(node("Identity", "b", "y"))),
        ("y", "output", "", "does not depend on the input", CHAIN),
    ),
    "damaged initializer": (
        lambda: changed(lambda g: g.initializer[0].__setattr__("raw_data", b"123")),
        ("w", "initializer", ""),
    ),
    "initializer twice": (
        lambda: changed(lambda g: g.initializer.append(tensor("w", 1))),
        ("w", "initializer", "", "is there twice", "one initializer for each name"),
    ),
    "foldable with nonsense": (
        lambda: linear(
            [node("Reshape", "v to", "g"), node("MatMul", "f g", "y")], [constant("to", [7, 7])]
        ),
        ("the_reshape", "Reshape", "inputs"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_models_that_make_no_sense(name):
    build, row = WHOLE[name]
    assert row in [found[: len(row)] for found in refused(build())]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08", bytes(1000)])
def test_files_that_are_no_models(content, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(st.ModelError, match=r"^bad\.onnx cannot be trained: 1 problem\n"):
        st.from_onnx(tmp_path / "bad.onnx")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(part):
    content = small().SerializeToString()
    assert refused(content[: int(part * len(content))])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        st.from_onnx(tmp_path / "none.onnx")
    with pytest.raises(IsADirectoryError):
        st.from_onnx(tmp_path)


def test_wrong_trainers_are_refused(tmp_path):
    other = Network(
        (1, 8, 8), [st.Conv2d(5, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(3)]
    )
    with pytest.raises(
        ValueError, match=r"^Weights have conv1.weight of \(5, 1, 3, 3\), but it must be"
    ):
        st.to_onnx(st.plan(other, multipliers=20).golden(), small(), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_a_softmax_is_part_of_cross_entropy_only():
    assert isinstance(st.from_onnx(small(), loss=st.MSELoss()).loss, st.MSELoss)
    with pytest.raises(st.ModelError, match="is no part of MSELoss"):
        st.from_onnx(SAME["Softmax"](), loss=st.MSELoss())


def test_labels_beyond_the_models_classes():
    trainer = st.plan(st.from_onnx(small()), multipliers=20).golden()
    with pytest.raises(
        ValueError, match="Label of sample 1 is 3, but the network's classes are 0 to 2"
    ):
        trainer.fit(samples(2), np.array([0, 3]))


def test_weights_that_no_format_holds():
    proto = small()
    proto.graph.initializer[0].CopyFrom(constant("w", np.full((4, 1, 3, 3), 5.5, np.float32)))
    net = st.from_onnx(proto)
    with pytest.raises(
        ValueError,
        match=r"^conv1.weight reaches from 5.5 to 5.5, but fixed<16,3> .* numbers=Numbers\(weights='fixed<16,4>'\)$",
    ):
        st.plan(net, multipliers=20)
    st.plan(net, multipliers=20, numbers=st.Numbers(weights="fixed<16,4>"))


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments):
        if name.partition(".")[0] == "onnx":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'streamtrain\[onnx\]'"):
        st.from_onnx("model.onnx")


def test_every_operator_has_a_way_in():
    from streamtrain.network.convert import _Walk

    assert all(hasattr(_Walk, f"_{name.lower()}") for name in OPERATORS)
    assert not set(INSTEAD) & (set(OPERATORS) - {"MatMul", "Add"})
    onnx_names = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert {*OPERATORS, *FOLDABLE} <= onnx_names


# -- Whatever comes ---------------------------------------------------------------------------------


def survives(content):
    """The importer reads a model or refuses it, and does nothing else."""
    try:
        net = st.from_onnx(content)
    except st.ModelError as error:
        assert error.problems
        assert str(error)
    else:
        assert isinstance(net, Network)


MUTATED = SAME["transposed constant"]()
BYTES = MUTATED.SerializeToString()


@given(some.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_random_bytes(content):
    survives(content)


@given(
    some.lists(
        some.tuples(some.integers(0, len(BYTES) - 1), some.integers(0, 255)), min_size=1, max_size=6
    )
)
@settings(max_examples=300, deadline=None)
def test_flipped_bytes(flips):
    content = bytearray(BYTES)
    for at, value in flips:
        content[at] = value
    survives(bytes(content))


NAMES = some.sampled_from([
    "x",
    "y",
    "c",
    "r",
    "p",
    "f",
    "w",
    "b",
    "v",
    "d",
    "g",
    "m",
    "",
    "nowhere",
])
KINDS = some.sampled_from([*OPERATORS, *FOLDABLE, "Sigmoid", "If", "Loop", "Split", ""])
SIZES = some.integers(-3, 9) | some.sampled_from([-(2**63), 2**40, 2**63 - 1])
ATTRIBUTES = some.sampled_from(
    [rule.attribute for operator in OPERATORS.values() for rule in operator.rules]
    + ["perm", "value"]
)
VALUES = some.one_of(
    SIZES, some.floats(width=32), some.text(max_size=3), some.lists(SIZES, min_size=1, max_size=5),
    some.lists(some.floats(width=32), min_size=1, max_size=3),
)  # fmt: skip


@given(some.data())
@settings(max_examples=300, deadline=None)
def test_mutated_models(data):
    proto = onnx.ModelProto()
    proto.CopyFrom(MUTATED)
    graph = proto.graph
    for _ in range(data.draw(some.integers(1, 4))):
        at = graph.node[data.draw(some.integers(0, len(graph.node) - 1))]
        match data.draw(
            some.sampled_from([
                "input",
                "output",
                "kind",
                "attribute",
                "dims",
                "node",
                "shape",
                "drop",
            ])
        ):
            case "input":
                at.input[:] = data.draw(some.lists(NAMES, max_size=4))
            case "output":
                at.output[:] = data.draw(some.lists(NAMES, max_size=3))
            case "kind":
                at.op_type = data.draw(KINDS)
            case "attribute":
                at.attribute.append(helper.make_attribute(data.draw(ATTRIBUTES), data.draw(VALUES)))
            case "dims":
                t = graph.initializer[data.draw(some.integers(0, len(graph.initializer) - 1))]
                t.dims[:] = data.draw(some.lists(SIZES, max_size=4))
                t.data_type = data.draw(some.integers(0, 25))
            case "node":
                extra = graph.node.add()
                extra.CopyFrom(at)
                extra.op_type = data.draw(KINDS)
            case "shape":
                dims = graph.input[0].type.tensor_type.shape.dim
                dims[data.draw(some.integers(0, 3))].dim_value = data.draw(SIZES)
            case "drop":
                if len(graph.node) > 1:
                    graph.node.remove(at)
    survives(proto.SerializeToString())
