"""AXI around a training pipeline: packets of samples and results, registers, an interrupt."""

from streamtrain.bus.ip import TrainerIP
from streamtrain.bus.packets import PacketFormat
from streamtrain.bus.registers import Field, Register, RegisterMap, Value
from streamtrain.bus.table import register_map

__all__ = [
    "Field",
    "PacketFormat",
    "Register",
    "RegisterMap",
    "TrainerIP",
    "Value",
    "register_map",
]
