"""The handwritten digits that come with scikit-learn."""

import numpy as np

from streamtrain.data.dataset import Dataset

__all__ = ["load_digits"]

_TRAIN = 1437  # four fifths of 1,797


def load_digits():
    """Load scikit-learn's bundled 8x8 handwritten digits: no files, no download.

    The first 1,437 are for training and the last 360 for testing.

    Returns a :class:`Dataset` of float64 images (samples, 1, 8, 8), multiples of 1/16 from 0 to 1.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError:
        raise ImportError(
            "The digits come with scikit-learn; install it with: pip install streamtrain[build]"
        ) from None
    x, y = bundled(return_X_y=True)
    x, y = np.reshape(x, (-1, 1, 8, 8)) / 16, np.asarray(y, np.int64)
    return Dataset("digits", x[:_TRAIN], y[:_TRAIN], x[_TRAIN:], y[_TRAIN:])
