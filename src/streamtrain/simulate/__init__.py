"""Run generated gateware from Python at compiled speed."""

from streamtrain.simulate.compiled import CompileError, compile_design
from streamtrain.simulate.device import HangError, SimulatedDevice
from streamtrain.simulate.verify import Difference, Verification, verify

__all__ = [
    "CompileError",
    "Difference",
    "HangError",
    "SimulatedDevice",
    "Verification",
    "compile_design",
    "verify",
]
