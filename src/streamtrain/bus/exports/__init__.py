"""A table of registers as documents and drivers: the same names, addresses and fields in each."""

from streamtrain.bus.exports.c_header import c_header
from streamtrain.bus.exports.cmsis_svd import cmsis_svd
from streamtrain.bus.exports.folder import write_registers
from streamtrain.bus.exports.markdown import markdown
from streamtrain.bus.exports.python_module import python_module
from streamtrain.bus.exports.systemrdl import systemrdl

__all__ = [
    "c_header",
    "cmsis_svd",
    "markdown",
    "python_module",
    "systemrdl",
    "write_registers",
]
