"""Number formats and their arithmetic, in NumPy and in gates on the same page."""

from streamtrain.numeric.fixed import Fixed
from streamtrain.numeric.lfsr import Chain, Lfsr, lane_bits, lfsr_bit, lfsr_states, link
from streamtrain.numeric.rounding import (
    Round,
    requantize,
    requantize_codes,
    round_codes,
    round_value,
)

__all__ = [
    "Chain",
    "Fixed",
    "Lfsr",
    "Round",
    "lane_bits",
    "lfsr_bit",
    "lfsr_states",
    "link",
    "requantize",
    "requantize_codes",
    "round_codes",
    "round_value",
]
