"""Where designs are meant to run: FPGAs and boards."""

from streamtrain.explore.devices import (
    FAMILIES,
    BlockRam,
    Board,
    Dram,
    Fpga,
    Ps,
    boards_table,
    known_boards,
    known_devices,
    load_board,
)

__all__ = [
    "FAMILIES",
    "BlockRam",
    "Board",
    "Dram",
    "Fpga",
    "Ps",
    "boards_table",
    "known_boards",
    "known_devices",
    "load_board",
]
