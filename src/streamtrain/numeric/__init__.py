"""Number formats and their arithmetic, in NumPy and in gates on the same page."""

from streamtrain.numeric.add import FloatAdder, add_codes, add_float32
from streamtrain.numeric.arithmetic import (
    Arithmetic,
    FixedArithmetic,
    FloatArithmetic,
    MultiplyAdd,
    arithmetic,
)
from streamtrain.numeric.convert import (
    FloatConverter,
    FloatMaximum,
    FloatReLU,
    convert_codes,
    maximum_codes,
    relu_codes,
)
from streamtrain.numeric.fixed import Fixed
from streamtrain.numeric.floating import BF16, FP16, FP32, Float, pack, unpack
from streamtrain.numeric.lfsr import Chain, Lfsr, lane_bits, lfsr_bit, lfsr_states, link
from streamtrain.numeric.multiply import FloatMultiplier, multiply_codes, multiply_float32
from streamtrain.numeric.rounding import (
    Round,
    requantize,
    requantize_codes,
    round_codes,
    round_value,
)
from streamtrain.numeric.saturating import (
    FixedAdder,
    FixedMaximum,
    FixedMultiplier,
    FixedNarrower,
    FixedReLU,
    FixedWidener,
    add_saturating,
    narrow_saturating,
)

__all__ = [
    "BF16",
    "FP16",
    "FP32",
    "Arithmetic",
    "Chain",
    "Fixed",
    "FixedAdder",
    "FixedArithmetic",
    "FixedMaximum",
    "FixedMultiplier",
    "FixedNarrower",
    "FixedReLU",
    "FixedWidener",
    "Float",
    "FloatAdder",
    "FloatArithmetic",
    "FloatConverter",
    "FloatMaximum",
    "FloatMultiplier",
    "FloatReLU",
    "Lfsr",
    "MultiplyAdd",
    "Round",
    "add_codes",
    "add_float32",
    "add_saturating",
    "arithmetic",
    "convert_codes",
    "lane_bits",
    "lfsr_bit",
    "lfsr_states",
    "link",
    "maximum_codes",
    "multiply_codes",
    "multiply_float32",
    "narrow_saturating",
    "pack",
    "relu_codes",
    "requantize",
    "requantize_codes",
    "round_codes",
    "round_value",
    "unpack",
]
