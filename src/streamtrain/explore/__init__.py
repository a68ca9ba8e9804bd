"""Where designs are meant to run: FPGAs and boards."""

from streamtrain.explore.devices import Board, Fpga, known_boards, known_devices, load_board

__all__ = ["Board", "Fpga", "known_boards", "known_devices", "load_board"]
