"""AXI: around a training pipeline, packets, registers and an interrupt; masters that read and write memory."""

from streamtrain.bus.ip import TrainerIP
from streamtrain.bus.memory import MemoryReader, MemoryWriter
from streamtrain.bus.packets import PacketFormat
from streamtrain.bus.registers import Field, Register, RegisterMap, Value
from streamtrain.bus.table import register_map

__all__ = [
    "Field",
    "MemoryReader",
    "MemoryWriter",
    "PacketFormat",
    "Register",
    "RegisterMap",
    "TrainerIP",
    "Value",
    "register_map",
]
