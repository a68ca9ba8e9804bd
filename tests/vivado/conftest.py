import pytest
from stub_core import memory_stub, stub

import streamtrain as st
from streamtrain import vivado


@pytest.fixture
def make_project(tmp_path):
    """Writes the project of a board, by name, for the stub of a kind of core; returns its folder."""

    def make(board="pynq_z2", kind=vivado.Ip, **fields):
        info = kind(**fields)
        if kind is vivado.MemoryIp:
            verilog = memory_stub(info.name, info.data_bits)
        else:
            verilog = stub(info.name, info.bytes)
        folder = tmp_path / "out"
        vivado.write_project(folder, verilog, info, st.load_board(board))
        return folder

    return make
