import numpy as np
import pytest
from packet_plans import FORMATS, many_classes, name_of
from small_plans import only_linear, tiny

from streamtrain.bus import PacketFormat


@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_samples_are_a_label_then_pixels_with_channels_innermost(fmt):
    """Against one byte after the other."""
    channels, rows, cols = fmt.plan.network.input_shape
    codes = np.array(fmt.plan.stages[0].input.codes)
    x = np.random.default_rng(1).choice(codes, (3, channels, rows, cols))
    x[0], x[1] = codes[0], codes[-1]
    labels = [0, fmt.plan.network.classes - 1, 1]
    for sample, label, packed in zip(x, labels, fmt.pack(x, labels), strict=True):
        expected = label.to_bytes(fmt.size, "little") if fmt.size > 1 else bytes([label])
        for row in range(rows):
            for col in range(cols):
                for channel in range(channels):
                    code = int(sample[channel, row, col])
                    expected += code.to_bytes(fmt.pixel_bytes, "little", signed=True)
        expected += bytes(-len(expected) % fmt.size)
        assert packed.tobytes() == expected
        assert len(expected) == fmt.sample_bytes


@pytest.mark.parametrize("fmt", FORMATS, ids=name_of)
def test_results_are_a_head_then_scores(fmt):
    """Against one byte after the other."""
    rng, classes = np.random.default_rng(2), fmt.plan.network.classes
    codes = np.array(fmt.plan.stages[-1].output.codes)
    scores = rng.choice(codes, (4, classes))
    scores[0], scores[1] = codes[0], codes[-1]
    losses = [0, 0xFFFFFFFF, 4096, int(rng.integers(1 << 32))]
    predicted, labels = rng.integers(classes, size=(2, 4))
    packed = b""
    for n in range(4):
        result = int(predicted[n]).to_bytes(2, "little") + int(labels[n]).to_bytes(2, "little")
        result += losses[n].to_bytes(4, "little")
        for score in scores[n]:
            result += int(score).to_bytes(fmt.score_bytes, "little", signed=True)
        packed += result + b"\xee" * (fmt.result_bytes - len(result))
    assert len(packed) == 4 * fmt.result_bytes
    results, found = fmt.unpack(np.frombuffer(packed, np.uint8))
    np.testing.assert_array_equal(results.scores, scores)
    np.testing.assert_array_equal(results.loss, losses)
    np.testing.assert_array_equal(results.predicted, predicted)
    np.testing.assert_array_equal(found, labels)


def test_labels_have_sixteen_bits():
    fmt = PacketFormat(many_classes(300), 2)
    packed = fmt.pack(np.zeros((1, 1, 1, 1), int), [299])
    assert packed[0, :2].tolist() == [299 & 0xFF, 299 >> 8]


@pytest.mark.parametrize("size", [0, 3, 5, 128, -4])
def test_rejects_sizes_that_no_stream_has(size):
    with pytest.raises(
        ValueError, match=rf"^A stream is 1, 2, 4, 8, 16, 32, 64 bytes wide, not {size}$"
    ):
        PacketFormat(tiny(), size)


def test_rejects_sizes_that_are_no_integers():
    with pytest.raises(TypeError):
        PacketFormat(tiny(), 4.0)


def test_rejects_classes_that_do_not_fit_a_label():
    PacketFormat(many_classes(256), 1)
    message = r"^257 classes do not fit a label of 8 bits; take a stream of 2 bytes or more$"
    with pytest.raises(ValueError, match=message):
        PacketFormat(many_classes(257), 1)


def test_formats_are_equal_if_plan_and_size_are():
    assert PacketFormat(only_linear()) == PacketFormat(only_linear(), 4)
    assert PacketFormat(only_linear()) != PacketFormat(only_linear(), 8)
