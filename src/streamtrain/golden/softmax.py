"""Softmax of the unified core: what its errors and losses are, bit for bit.

In fixed point, whatever the array's numbers are: ``2**-u`` is a table with a straight line between its
entries, which is right to about ``2**-24``, and its sum divides each.

Source: the gradient of cross-entropy after softmax is p - onehot(y) (e.g. Bishop, "Pattern
recognition and machine learning", 2006, equation 4.109).
"""

import numpy as np

from streamtrain.numeric import Fixed

__all__ = ["LOG2_E", "POWERS", "PROBABILITY_BITS", "SCORE", "SLOPES", "probabilities"]

SCORE = Fixed(32, 20)
"""What scores become."""

PROBABILITY_BITS = 24
"""Fractional bits of a probability, of a power of two and of its exponent."""

LOG2_E = round(np.log2(np.e) * 2**24)

_ENTRIES = 1024
_REST = 2 ** (PROBABILITY_BITS - 10)  # steps of an exponent between two entries

_CENTRES = (np.arange(_ENTRIES) + 0.5) / _ENTRIES

POWERS = np.rint(2.0**24 * 2.0**-_CENTRES).astype(np.int64)
"""``2**-f`` in the middle of each of 1,024 steps."""

SLOPES = np.rint(2.0**24 * 2.0**-_CENTRES * np.log(2)).astype(np.int64)
"""How much it falls there, if ``f`` grows by one."""


def probabilities(scores):
    """Softmax of codes of :data:`SCORE`, (samples, classes), with :data:`PROBABILITY_BITS`."""
    scores = np.asarray(scores, dtype=np.int64)
    below = scores.max(axis=1, keepdims=True) - scores
    exponent = below * LOG2_E >> SCORE.frac
    whole, part = exponent >> 24, exponent & 2**24 - 1
    entry, rest = part // _REST, part % _REST - _REST // 2
    power = POWERS[entry] - (SLOPES[entry] * rest >> 24)
    power >>= np.minimum(whole, 30)
    return (power << PROBABILITY_BITS) // power.sum(axis=1, keepdims=True)
