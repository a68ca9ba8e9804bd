"""Number formats and their arithmetic, in NumPy and in gates on the same page."""

from streamtrain.numeric.fixed import Fixed
from streamtrain.numeric.lfsr import Lfsr, lane_bits, lfsr_states
from streamtrain.numeric.rounding import (
    Round,
    requantize,
    requantize_codes,
    round_codes,
    round_value,
)

__all__ = [
    "Fixed",
    "Lfsr",
    "Round",
    "lane_bits",
    "lfsr_states",
    "requantize",
    "requantize_codes",
    "round_codes",
    "round_value",
]
