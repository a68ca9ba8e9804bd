# amaranth: UnusedElaboratable=no
# Units are made to be asked for their latency only.

"""Arithmetic without arithmetic: units that take as long as the real ones, and whose results mean nothing.

How many cycles a program takes does not depend on its numbers. An array of 256 multiply-accumulators of
FP32 compiles in a long time and simulates slowly; one of these does not.
"""

from amaranth import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from streamtrain.numeric import FloatArithmetic
from streamtrain.numeric.floating import delayed

__all__ = ["HollowArithmetic"]


class _Hollow(wiring.Component):
    """The ports and the latency of a unit; its result is the XOR of its operands."""

    def __init__(self, unit):
        self.latency = unit.latency
        super().__init__(dict(unit.signature.members.items()))

    def elaborate(self, platform):
        m = Module()
        result = 0
        for name, member in self.signature.members.items():
            if member.flow is In and name != "enable":
                result ^= Value.cast(getattr(self, name))
        result = delayed(m, self.enable, result, self.latency, "result")
        m.d.comb += Value.cast(self.o).eq(result)
        if "second" in self.signature.members:
            m.d.comb += self.second.eq(result[0])
        return m


class HollowArithmetic(FloatArithmetic):
    """Formats and latencies of a :class:`~streamtrain.numeric.FloatArithmetic`."""


for _name in ("multiplier", "adder", "narrow", "widen", "relu", "maximum", "scaler"):

    def _unit(self, name=_name):
        return _Hollow(getattr(FloatArithmetic, name)(self))

    setattr(HollowArithmetic, _name, _unit)
