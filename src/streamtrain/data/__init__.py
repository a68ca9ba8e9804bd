"""Readers for data sets, in the file formats in which they are published.

Images are ``(samples, channels, rows, columns)`` and labels are class indices: what a
:class:`~streamtrain.host.trainer.Trainer` takes.
"""

from streamtrain.data.cifar import load_cifar10
from streamtrain.data.dataset import DataError, Dataset, load
from streamtrain.data.digits import load_digits
from streamtrain.data.idx import load_mnist, read_idx
from streamtrain.data.images import load_images
from streamtrain.data.npz import load_npz
from streamtrain.data.svhn import load_svhn

__all__ = [
    "DataError",
    "Dataset",
    "load",
    "load_cifar10",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_npz",
    "load_svhn",
    "read_idx",
]
