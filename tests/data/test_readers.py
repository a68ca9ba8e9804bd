import gzip
import shutil
import struct
import sys

import numpy as np
import pytest
from scipy.io import savemat

from streamtrain import data
from streamtrain.data import DataError, Dataset


def idx(array):
    array = np.asarray(array, np.uint8)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


# -- The published files --------------------------------------------------------------------------------


def test_mnist(published):
    mnist = data.load(f"mnist:{published / 'mnist'}")
    assert mnist.train_x.shape == (60_000, 1, 28, 28)
    assert mnist.test_x.shape == (10_000, 1, 28, 28)
    assert mnist.train_x.dtype == np.uint8
    assert mnist.train_y.dtype == np.int64
    assert mnist.train_y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.train_x.mean() == pytest.approx(0.1307 * 255, rel=1e-3)  # as everyone reports
    assert mnist.shape == (1, 28, 28)


def test_cifar10(published):
    cifar = data.load(f"cifar10:{published / 'cifar-10-batches-bin'}")
    assert cifar.train_x.shape == (7897, 3, 32, 32)
    assert cifar.test_x.shape == (932, 3, 32, 32)
    assert cifar.train_y[:5].tolist() == [6, 9, 9, 4, 1]  # the published first batch
    assert cifar.train_x[0, :, 0, 0].tolist() == [59, 62, 63]
    assert cifar.test_y[:5].tolist() == [3, 8, 8, 0, 6]


def test_svhn(published):
    svhn = data.load(f"svhn:{published / 'svhn'}")
    assert svhn.train_x.shape == (862, 3, 32, 32)
    assert svhn.test_x.shape == (221, 3, 32, 32)
    assert svhn.train_y.dtype == np.int64
    assert svhn.train_y[0] == 1
    assert sorted(set(svhn.train_y)) == list(range(10))


def test_digits():
    digits = data.load("digits")
    assert digits.train_x.shape == (1437, 1, 8, 8)
    assert digits.test_x.shape == (360, 1, 8, 8)
    assert digits.train_x.min() == 0
    assert digits.train_x.max() == 1
    assert digits.train_y[:5].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(digits.test_x, data.load_digits().test_x)


def test_digits_name_the_extra_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install streamtrain\[build\]"):
        data.load_digits()


# -- Data sets and their names --------------------------------------------------------------------------


def test_a_data_set_shows_itself():
    x, y = np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, np.int64)
    shown = Dataset("some", x, y, x[:1], y[:1])
    assert shown.table() == (
        ("some", "images", "shape", "type"),
        [("train", 3, "1x2x2", "uint8"), ("test", 1, "1x2x2", "uint8")],
    )
    assert "<td" in shown._repr_html_()


@pytest.mark.parametrize(
    "source, message",
    [
        ("fashion:x", r"^Data must be one of mnist:DIR, cifar10:DIR, svhn:DIR, npz:FILE, images:DIR, digits, not 'fashion:x'$"),
        ("", r"not ''$"),
        ("mnist", r"^mnist needs the directory of its files, mnist:DIR, not 'mnist'$"),
        ("npz", r"^npz needs a file, npz:FILE, not 'npz'$"),
        ("svhn:", r"^svhn needs the directory of its files"),
        ("digits:x", r"^digits come with scikit-learn and take no directory, not 'digits:x'$"),
    ],
)  # fmt: skip
def test_rejects_unknown_names(source, message):
    with pytest.raises(ValueError, match=message):
        data.load(source)


@pytest.mark.parametrize("source", ["mnist:{}", "cifar10:{}", "svhn:{}"])
def test_missing_folder_is_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no directory; expected \w+"):
        data.load(source.format(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "source, file", [("mnist:{}", "train-images"), ("cifar10:{}", "data_batch_1.bin"), ("svhn:{}", "train")]
)  # fmt: skip
def test_missing_file_is_named_with_what_is_there(source, file, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=rf"{file}.* does not exist; .* has notes.txt$"):
        data.load(source.format(tmp_path))


# -- MNIST ------------------------------------------------------------------------------------------------

MNIST = {
    "train-images-idx3-ubyte": idx(np.arange(3 * 2 * 5).reshape(3, 2, 5)),
    "train-labels-idx1-ubyte": idx([0, 9, 4]),
    "t10k-images-idx3-ubyte": idx(np.ones((1, 2, 5))),
    "t10k-labels-idx1-ubyte": idx([7]),
}


@pytest.fixture
def mnist(tmp_path):
    for name, content in MNIST.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_idx_files_may_be_plain(mnist):
    read = data.load_mnist(mnist)
    np.testing.assert_array_equal(read.train_x.ravel(), np.arange(30))
    assert read.train_x.shape == (3, 1, 2, 5)
    assert read.train_y.tolist() == [0, 9, 4]
    assert read.test_y.tolist() == [7]


def test_idx_files_may_be_compressed(mnist):
    name = "train-labels-idx1-ubyte"
    (mnist / name).unlink()
    (mnist / f"{name}.gz").write_bytes(gzip.compress(MNIST[name]))
    assert data.load_mnist(mnist).train_y.tolist() == [0, 9, 4]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"an IDX header of 3 dimensions has 16 bytes, but the file has 0$"),
        (MNIST["train-images-idx3-ubyte"][:20], r"promises 3 x 2 x 5 = 30 bytes, but 4 follow$"),
        (MNIST["train-images-idx3-ubyte"] + b"x", r"= 30 bytes, but 31 follow$"),
        (idx(np.zeros(30)), r"in 3 dimensions \(it begins 00 00 08 03\), but it begins 00 00 08 01$"),
        (b"\x89PNG" + bytes(40), r"but it begins 89 50 4e 47$"),
        (b"\0\0\x0d\x03" + bytes(40), r"but it begins 00 00 0d 03$"),
        (b"\0\0\x08\x03" + b"\xff" * 12, r"= 79,228,162,458,924,105,385,300,197,375 bytes, but 0"),
    ],
)  # fmt: skip
def test_rejects_foreign_and_truncated_idx(mnist, content, message):
    (mnist / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte: .*{message}"):
        data.load_mnist(mnist)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "corrupt"])
def test_rejects_damaged_gzip(mnist, damage):
    content = bytearray(gzip.compress(np.random.default_rng(0).bytes(5000)))
    if damage == "truncated":
        del content[2000:]
    elif damage == "foreign":
        content[:2] = b"PK"
    else:
        content[1000] ^= 255
        content[12] ^= 255
    (mnist / "train-images-idx3-ubyte").unlink()
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte.gz: expected a whole gzip file; \w"
    ):
        data.load_mnist(mnist)


def test_rejects_a_truncated_copy_of_mnist(published, mnist):
    shutil.copyfile(published / "mnist/t10k-images-idx3-ubyte.gz", mnist / "x.gz")
    content = gzip.decompress((mnist / "x.gz").read_bytes())
    (mnist / "t10k-images-idx3-ubyte").write_bytes(content[:-1])
    with pytest.raises(
        DataError, match=r"10000 x 28 x 28 = 7,840,000 bytes, but 7,839,999 follow$"
    ):
        data.load_mnist(mnist)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("train-labels-idx1-ubyte", idx([0, 10, 4]), r"train-labels-idx1-ubyte: label of record 1 is 10, but labels are 0 to 9$"),
        ("train-labels-idx1-ubyte", idx([0, 1]), r"^mnist:.* has 3 training images, but 2 labels$"),
        ("t10k-labels-idx1-ubyte", idx([0, 1]), r"^mnist:.* has 1 test images, but 2 labels$"),
        ("t10k-images-idx3-ubyte", idx(np.ones((1, 5, 2))), r"training images \(1, 2, 5\), but test images \(1, 5, 2\)$"),
    ],
)  # fmt: skip
def test_rejects_idx_files_that_do_not_belong_together(mnist, name, content, message):
    (mnist / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load_mnist(mnist)


# -- CIFAR-10 ---------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path):
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for number, name in enumerate(names):
        planes = np.repeat([number, 100, 200], 1024).astype(np.uint8)
        (tmp_path / name).write_bytes(bytes([number]) + planes.tobytes())
    return tmp_path


def test_cifar_batches_are_joined_in_order(cifar):
    read = data.load_cifar10(cifar)
    assert read.train_y.tolist() == [0, 1, 2, 3, 4]
    assert read.train_x[:, :, 3, 4].tolist() == [[number, 100, 200] for number in range(5)]
    assert read.test_y.tolist() == [5]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"but 0 bytes are 0 records and 0 bytes$"),
        (bytes(3072), r"but 3,072 bytes are 0 records and 3,072 bytes$"),
        (bytes(2 * 3073 + 1), r"but 6,147 bytes are 2 records and 1 bytes$"),
        (bytes(3073) + b"\x0a" + bytes(3072), r"label of record 1 is 10, but labels are 0 to 9$"),
    ],
)  # fmt: skip
def test_rejects_foreign_and_truncated_batches(cifar, content, message):
    (cifar / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"data_batch_3.bin: .*{message}"):
        data.load_cifar10(cifar)


def test_rejects_a_truncated_copy_of_cifar10(published, cifar):
    content = (published / "cifar-10-batches-bin/test_batch.bin").read_bytes()
    (cifar / "test_batch.bin").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"test_batch.bin: .* are 931 records and 3,072 bytes$"):
        data.load_cifar10(cifar)


# -- SVHN -------------------------------------------------------------------------------------------------


@pytest.fixture
def svhn(tmp_path):
    x = np.zeros((32, 32, 3, 2), np.uint8)
    x[1, 2, 0, 1] = 7
    for name in ("train", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": x, "y": np.array([[10], [9]], np.uint8)})
    return tmp_path


def test_svhn_samples_come_first_and_ten_is_zero(svhn):
    read = data.load_svhn(svhn)
    assert read.train_x.shape == (2, 3, 32, 32)
    assert read.train_x[1, 0, 1, 2] == 7
    assert read.train_y.tolist() == [0, 9]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"expected arrays X and y, but there is no y$"),
        ({"X": np.zeros((2, 3, 32, 32), np.uint8), "y": [[1], [2]]}, r"expected X of \(32, 32, 3, N\) uint8, but it is \(2, 3, 32, 32\) uint8$"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": [[1], [2]]}, r"expected X of .* uint8, but it is \(32, 32, 3, 2\) float64$"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1, 2]]}, r"expected y of \(2, 1\), but it is \(1, 2\)$"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [0]]}, r"label of record 1 is 0, but labels are 1 to 10$"),
    ],
)  # fmt: skip
def test_rejects_foreign_matlab_files(svhn, arrays, message):
    savemat(svhn / "test_32x32.mat", arrays)
    with pytest.raises(DataError, match=rf"test_32x32.mat: {message}"):
        data.load_svhn(svhn)


@pytest.mark.parametrize("length", [0, 1, 100, 200, 5000])
def test_rejects_truncated_matlab_files(svhn, length):
    path = svhn / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        DataError, match=r"train_32x32.mat: expected (a whole MATLAB v5 file|arrays)"
    ):
        data.load_svhn(svhn)


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n" + bytes(600), b"not a matrix" * 50])
def test_rejects_files_that_are_no_matlab_files(svhn, content):
    (svhn / "train_32x32.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"train_32x32.mat: expected a whole MATLAB v5 file; \w"):
        data.load_svhn(svhn)
