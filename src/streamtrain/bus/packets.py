"""Samples and results as the bytes that travel over AXI4-Stream."""

from dataclasses import dataclass
from operator import index

import numpy as np

from streamtrain.host.device import Results
from streamtrain.pipeline.plan import Plan

__all__ = ["HEAD_BYTES", "PacketFormat"]

HEAD_BYTES = 8
"""Bytes of a result in front of its scores."""

_SIZES = (1, 2, 4, 8, 16, 32, 64)


def _element_bytes(fmt):
    """Bytes of a NumPy integer that holds a format's codes."""
    return next(size for size in (1, 2, 4, 8) if fmt.width <= 8 * size)


@dataclass(frozen=True)
class PacketFormat:
    """How a sample and its result are laid out, for streams of so many bytes.

    A sample begins with a word of the stream, whose lowest 16 bits (8 if the stream is one byte wide) are
    the label; pixels follow, channels innermost, then columns, then rows: codes of the first layer's
    input, each in one, two or four bytes. A result is the predicted class and the label (16 bits each),
    the loss (32 bits, 12 of them fractional), and the scores, codes of the last layer's output in one, two
    or four bytes. Both are little-endian and filled up to whole words of the stream.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    size : :class:`int`
        Bytes of TDATA: 1, 2, 4, 8, 16, 32 or 64.

    Raises
    ------
    ValueError
        If there is no such size, or the stream is too narrow for the labels.
    """

    plan: Plan
    size: int = 4

    def __post_init__(self):
        object.__setattr__(self, "size", index(self.size))
        if self.size not in _SIZES:
            raise ValueError(
                f"A stream is {', '.join(map(str, _SIZES))} bytes wide, not {self.size}"
            )
        if self.plan.network.classes > 1 << self.label_bits:
            raise ValueError(
                f"{self.plan.network.classes} classes do not fit a label of {self.label_bits} bits; "
                f"take a stream of 2 bytes or more"
            )

    @property
    def label_bits(self):
        return min(16, 8 * self.size)

    @property
    def pixel_bytes(self):
        """Bytes of an element of a sample."""
        return _element_bytes(self.plan.stages[0].input)

    @property
    def score_bytes(self):
        """Bytes of a score."""
        return _element_bytes(self.plan.stages[-1].output)

    @property
    def payload_bytes(self):
        """Bytes of a sample's pixels."""
        channels, rows, cols = self.plan.network.input_shape
        return channels * rows * cols * self.pixel_bytes

    @property
    def payload_words(self):
        """Words of the stream that they take."""
        return -(-self.payload_bytes // self.size)

    @property
    def sample_bytes(self):
        """Bytes of a sample, with its label, in whole words."""
        return (1 + self.payload_words) * self.size

    @property
    def result_words(self):
        """Words of the stream that a result takes."""
        scores = self.plan.network.classes * self.score_bytes
        return -(-(HEAD_BYTES + scores) // self.size)

    @property
    def result_bytes(self):
        """Bytes of a result, in whole words."""
        return self.result_words * self.size

    def pack(self, x, labels):
        """Samples as bytes.

        Parameters
        ----------
        x : integer array (samples, channels, rows, columns)
            Codes of the first layer's input.
        labels : integer array (samples,)

        Returns a uint8 array (samples, ``sample_bytes``).
        """
        x = np.moveaxis(np.asarray(x), 1, -1)
        packed = np.zeros((len(x), self.sample_bytes), np.uint8)
        label = np.asarray(labels, np.int64)
        for byte in range(self.label_bits // 8):
            packed[:, byte] = label >> 8 * byte & 0xFF
        codes = x.reshape(len(x), -1).astype(f"<i{self.pixel_bytes}")
        packed[:, self.size : self.size + self.payload_bytes] = codes.view(np.uint8)
        return packed

    def unpack(self, packed):
        """Results from bytes.

        Parameters
        ----------
        packed : uint8 array (samples, ``result_bytes``)

        Returns ``(results, labels)``.
        """
        packed = np.ascontiguousarray(packed, np.uint8).reshape(-1, self.result_bytes)
        heads = np.ascontiguousarray(packed[:, :HEAD_BYTES])
        classes = heads[:, :4].copy().view("<u2").astype(np.int64)
        end = HEAD_BYTES + self.plan.network.classes * self.score_bytes
        scores = packed[:, HEAD_BYTES:end].copy().view(f"<i{self.score_bytes}")
        loss = heads[:, 4:].copy().view("<u4")[:, 0].astype(np.int64)
        return Results(scores.astype(np.int64), loss, classes[:, 0]), classes[:, 1]
