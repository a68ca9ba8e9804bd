"""Vivado: packaging of the core as an IP, a block design for each board, runs, and reports."""

from streamtrain.vivado.launch import VivadoRun, run
from streamtrain.vivado.project import (
    Ip,
    MemoryIp,
    block_design,
    package_ip,
    scripts,
    write_project,
)

__all__ = [
    "Ip",
    "MemoryIp",
    "VivadoRun",
    "block_design",
    "package_ip",
    "run",
    "scripts",
    "write_project",
]
