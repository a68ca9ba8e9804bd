"""Readers of what users bring: NumPy archives, and folders of image files."""

import sys

import numpy as np
import pytest
from PIL import Image

from streamtrain import data
from streamtrain.data import DataError

X = np.arange(5 * 2 * 3 * 4, dtype=np.uint8).reshape(5, 2, 3, 4)
Y = np.array([0, 1, 11, 1, 0])


def archive(path, **changes):
    arrays = {"train_x": X, "train_y": Y, "test_x": X[:1], "test_y": Y[:1], **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


# -- NumPy archives ---------------------------------------------------------------------------------------


def test_npz(tmp_path):
    read = data.load(f"npz:{archive(tmp_path / 'set.npz')}")
    np.testing.assert_array_equal(read.train_x, X)
    assert read.train_x.dtype == np.uint8
    assert read.train_y.tolist() == Y.tolist()  # any number of classes
    assert read.test_x.shape == (1, 2, 3, 4)
    assert read.source.startswith("npz:")


def test_npz_as_keras_names_it(tmp_path):
    file = tmp_path / "mnist.npz"
    grey, y = X[:, 0] / 255, Y.astype(np.uint8)[:, None]
    np.savez_compressed(file, x_train=grey, y_train=y, x_test=grey[:2], y_test=y[:2])
    read = data.load_npz(file)
    assert read.train_x.shape == (5, 1, 3, 4)
    assert read.train_x.dtype == np.float64
    assert read.train_y.dtype == np.int64
    assert read.test_y.tolist() == [0, 1]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"test_x": None}, r"expected arrays train_x, .*, but there is no test_x; it has train_x, train_y, test_y$"),
        ({"train_x": X[0, 0]}, r"expected train_x of \(samples, channels, rows, columns\), but it is \(3, 4\)$"),
        ({"test_x": X[:1].astype(int)}, r"expected test_x of uint8 or floats, but it is int64$"),
        ({"train_y": np.eye(5)}, r"expected train_y of class indices, .*, but it is \(5, 5\) float64$"),
        ({"train_y": Y - 1}, r"train_y: label of record 0 is -1, but labels are at least 0$"),
        ({"train_y": Y[:4]}, r"has 5 training images, but 4 labels$"),
        ({"train_y": np.array([{}] * 5)}, r"expected a whole NumPy archive; Object arrays cannot be loaded"),
    ],
)  # fmt: skip
def test_rejects_other_archives(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        data.load_npz(archive(tmp_path / "set.npz", **changes))


@pytest.mark.parametrize("length", [0, 3, 100, 600])
def test_rejects_truncated_archives(tmp_path, length):
    file = archive(tmp_path / "set.npz")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError, match=r"set.npz: expected a whole NumPy archive; \w"):
        data.load_npz(file)


def test_rejects_a_damaged_and_a_foreign_archive(tmp_path):
    file = archive(tmp_path / "set.npz")
    content = bytearray(file.read_bytes())
    content[200] ^= 255
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"expected a whole NumPy archive; Bad CRC"):
        data.load_npz(file)
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DataError, match=r"one.npy: .* it holds a single array$"):
        data.load_npz(tmp_path / "one.npy")
    with pytest.raises(FileNotFoundError, match=r"has one.npy, set.npz$"):
        data.load_npz(tmp_path / "other.npz")


# -- Folders of images ------------------------------------------------------------------------------------


def picture(path, value=0, size=(3, 4), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value).save(path)


@pytest.fixture
def pictures(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        for i in range(6):
            picture(tmp_path / name / f"{i}.png", 100 * number + i)
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_a_class_is_a_folder(pictures):
    read = data.load(f"images:{pictures}")
    assert read.classes == ("cat", "dog")
    assert read.train_x.shape == (10, 1, 3, 4)
    assert read.train_x.dtype == np.uint8
    assert read.train_x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 100, 101, 102, 103, 105]
    assert read.train_y.tolist() == [0] * 5 + [1] * 5
    assert read.test_x[:, 0, 0, 0].tolist() == [4, 104]
    assert read.test_y.tolist() == [0, 1]


def test_parts_may_be_folders(tmp_path):
    for part, count in (("train", 2), ("test", 1)):
        for number, name in enumerate(("a", "b", "c")):
            for i in range(count):
                picture(tmp_path / part / name / f"{i}.PNG", 10 * number + i)
    read = data.load_images(tmp_path)
    assert read.classes == ("a", "b", "c")
    assert read.train_x[:, 0, 0, 0].tolist() == [0, 1, 10, 11, 20, 21]
    assert read.test_y.tolist() == [0, 1, 2]


def test_one_colour_image_makes_three_channels(pictures):
    picture(pictures / "dog" / "9.png", (1, 2, 3), mode="RGB")
    read = data.load_images(pictures)
    assert read.train_x.shape == (11, 3, 3, 4)
    assert read.train_x[-1, :, 2, 3].tolist() == [1, 2, 3]
    assert read.train_x[0, :, 0, 0].tolist() == [0, 0, 0]


def test_pixels_are_where_they_were(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for part in ("train", "test"):
        (tmp_path / part / "only").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / part / "only" / "x.png")
    np.testing.assert_array_equal(data.load_images(tmp_path).train_x[0], pixels.transpose(2, 0, 1))


def test_sizes_may_be_made_equal(pictures):
    picture(pictures / "cat" / "9.jpg", 77, size=(9, 8))
    with pytest.raises(
        DataError, match=r"9.jpg has 9 x 8 pixels, but .*0.png has 3 x 4; size=\(rows"
    ):
        data.load_images(pictures)
    read = data.load_images(pictures, size=(2, 6))
    assert read.shape == (1, 2, 6)
    with pytest.raises(
        ValueError, match=r"^size must be \(rows, columns\) of at least 1, not \(0, 3\)$"
    ):
        data.load_images(pictures, size=(0, 3))


def test_rejects_damaged_images(pictures):
    file = pictures / "dog" / "3.png"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"dog.3.png: expected a whole image; \w"):
        data.load_images(pictures)
    file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog.3.png: expected a whole image; \w"):
        data.load_images(pictures)
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(file)
    with pytest.raises(DataError, match=r"3.png: .* 8 bits for each channel are read, not .* I;16"):
        data.load_images(pictures)


@pytest.mark.parametrize(
    "files, message",
    [
        ([], r"has no sub-folders; expected one for each class$"),
        (["cat/notes.txt"], r"cat has no images; known are \.png, "),
        (["cat/0.png"], r"cat has 1 images; every fifth one is for testing, so a class needs at least 5"),
        (["train/a/0.png", "train/b/0.png", "test/a/0.png"], r"train has class b, but test has not$"),
        (["train/a/0.png", "test/a/0.png", "test/b/0.png"], r"test has class b, but train has not$"),
    ],
)  # fmt: skip
def test_rejects_folders_without_classes(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        data.load_images(tmp_path)


def test_missing_folder_of_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no is no directory; expected a sub-folder"):
        data.load_images(tmp_path / "no")


def test_images_name_the_extra_they_need(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install streamtrain\[images\]"):
        data.load_images(pictures)
