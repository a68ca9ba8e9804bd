"""CIFAR-10's Python version: pickles, of which nothing is executed."""

import pickle
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtrain import data
from streamtrain.data import DataError
from streamtrain.data.pickles import read_pickle

NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def python2(x, labels):
    """A batch as the published files have it: written by Python 2, protocol 2."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    content = x.tobytes()
    return b"".join([
        b"\x80\x02}q\x01(", text(b"batch_label"), b"q\x02", text(b"training batch"), b"q\x03",
        text(b"labels"), b"q\x04]q\x05(", *(b"K" + bytes([label]) for label in labels), b"e",
        text(b"data"), b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08"
        b"K\x00\x85U\x01b\x87Rq\x09(K\x01M", struct.pack("<H", x.shape[0]),
        b"M", struct.pack("<H", x.shape[1]), b"\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T",
        struct.pack("<i", len(content)), content, b"tb",
        text(b"filenames"), b"q\x0c]q\x0d(", text(b"a.png"), text(b"b.png"), b"eu.",
    ])  # fmt: skip


def batch(number, count=2):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (count, 3072), np.uint8), [number, 9][:count]


@pytest.fixture
def cifar(tmp_path):
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(python2(*batch(number)))
    return tmp_path


def test_published_batches_are_pickles_of_python_2():
    """The bytes that these tests begin with are what the pickle module reads, too."""
    x, labels = batch(3)
    read = pickle.loads(python2(x, labels), encoding="bytes")
    np.testing.assert_array_equal(read[b"data"], x)
    assert read[b"labels"] == labels


def test_python_batches_are_joined_in_order(cifar):
    read = data.load(f"cifar10:{cifar}")
    assert read.train_x.shape == (10, 3, 32, 32)
    assert read.train_y.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    np.testing.assert_array_equal(read.train_x[4].ravel(), batch(2)[0][0])
    np.testing.assert_array_equal(read.test_x.reshape(2, -1), batch(5)[0])


def test_python_and_binary_versions_are_the_same_data(published, tmp_path):
    binary = data.load_cifar10(published / "cifar-10-batches-bin")
    for name in NAMES:
        x, y = (
            (binary.test_x, binary.test_y)
            if name == "test_batch"
            else (binary.train_x, binary.train_y)
        )
        part = slice(0, 50) if name != "data_batch_1" else slice(0, 932)
        (tmp_path / name).write_bytes(python2(x[part].reshape(-1, 3072), y[part]))
    python = data.load_cifar10(tmp_path)
    np.testing.assert_array_equal(python.train_x[:932], binary.train_x[:932])
    np.testing.assert_array_equal(python.train_y[:932], binary.train_y[:932])
    np.testing.assert_array_equal(python.test_x, binary.test_x[:50])


def test_binary_version_comes_first(cifar):
    for name in NAMES:
        (cifar / f"{name}.bin").write_bytes(bytes([7]) + bytes(3072))
    assert data.load_cifar10(cifar).train_y.tolist() == [7] * 5


@pytest.mark.parametrize("protocol", range(6))
def test_reads_what_python_3_pickles(tmp_path, protocol):
    shared = [1, 2]
    value = {
        b"labels": [1, 2, 300, -5, 10**20], b"data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"), "mixed": (1, (2.5, "ä"), None, True, False, (), [], {}),
        "shared": (shared, shared),
    }  # fmt: skip
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps(value, protocol))
    read = read_pickle(file)
    assert read.keys() == value.keys()
    for key, expected in value.items():
        np.testing.assert_equal(read[key], expected)
    assert read["big"].dtype == ">i4"


# -- What must not happen ---------------------------------------------------------------------------------


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(6))
def test_refuses_to_execute(cifar, tmp_path, protocol):
    target = tmp_path / "executed"
    content = pickle.dumps({"data": Evil(target), "labels": []}, protocol)
    (cifar / "data_batch_2").write_bytes(content)
    with pytest.raises(
        DataError,
        match=r"data_batch_2: the pickle asks for (posix|nt)\.system, .* nothing was exec",
    ):
        data.load_cifar10(cifar)
    assert not target.exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", r"asks for builtins\.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", r"asks for builtins\.exec"),
        (b"(S'ls'\nios\nsystem\n.", r"has INST at byte"),
        (b"(cos\nsystem\nS'ls'\no.", r"asks for os\.system"),
        (b"cnumpy\nload\n.", r"asks for numpy\.load"),
        (b"cnumpy\nndarray\n(I9\nI9\ntR.", r"it calls numpy.ndarray with"),
        (b"c_codecs\nencode\n(VYWJj\nVbase64\ntR.", r"it calls _codecs.encode with"),
        (b"Pabc\n.", r"has PERSID at byte 0"),
        (b"\x82\x01.", r"has EXT1 at byte 0"),
        (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", r"arrays of 'O8' are not plain numbers"),
        (b"(]\x94h\x00a.", r"whole pickle"),
        (b"]\x94h\x00a.", r"a container within itself is no data"),
        (b"cnumpy\nndarray\n.", r"numpy.ndarray is no data"),
    ],
)  # fmt: skip
def test_names_what_it_refuses(tmp_path, content, message):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pickle(tmp_path / "batch")


def test_small_pickles_stay_small(tmp_path):
    """A list of a list twice, and so on: 2**60 values, if each were looked at."""
    content = b"]q\x00" + b"".join(
        b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60)
    )
    # All but the last list are below it on the stack; a tuple takes them all.
    (tmp_path / "batch").write_bytes(b"(" + content + b"t.")
    assert len(read_pickle(tmp_path / "batch")) == 61


@pytest.mark.parametrize("length", [0, 1, 40, 5000])
def test_refuses_a_truncated_batch(cifar, length):
    path = cifar / "test_batch"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"test_batch: expected a whole pickle; \w"):
        data.load_cifar10(cifar)


X, Y = batch(0)


@pytest.mark.parametrize(
    "value, message",
    [
        ([1, 2], r"expected a dictionary, but it holds a list$"),
        ({"data": X}, r"expected data and labels, but there is no labels; it has data$"),
        ({"data": X[:, :99], "labels": Y}, r"data of \(N, 3072\) uint8, but it is \(2, 99\) uint8$"),
        ({"data": X.astype(float), "labels": Y}, r"uint8, but it is \(2, 3072\) float64$"),
        ({"data": [1], "labels": Y}, r"uint8, but it is list$"),
        ({"data": X, "labels": [1]}, r"expected a list of 2 labels, but it is one of 1$"),
        ({"data": X, "labels": [1, "a"]}, r"expected labels that are integers$"),
        ({"data": X, "labels": 3}, r"expected a list of 2 labels, but it is int$"),
        ({"data": X, "labels": [1, 10**20]}, r"label of record 1 is 100000000000000000000, but"),
        ({"data": X, "labels": [1, 10]}, r"label of record 1 is 10, but labels are 0 to 9$"),
    ],
)  # fmt: skip
def test_refuses_other_pickles(cifar, value, message):
    (cifar / "data_batch_4").write_bytes(pickle.dumps(value, 2))
    with pytest.raises(DataError, match=rf"data_batch_4: .*{message}"):
        data.load_cifar10(cifar)


PICKLES = [python2(*batch(0, 1))] + [
    pickle.dumps({"data": np.arange(4), "x": [1.5, (None, "a")], b"l": [1, 2]}, protocol)
    for protocol in range(6)
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(PICKLES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 4000),
)
def test_damaged_pickles_only_ever_raise_our_own_error(tmp_path_factory, content, changes, length):
    changed = bytearray(content[: length or None])
    for position, value in changes:
        changed[position % max(1, len(changed))] = value
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(changed)
    with suppress(DataError):
        read_pickle(file)
