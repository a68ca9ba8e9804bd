import pytest
from stub_core import stub

import streamtrain as st
from streamtrain import vivado


@pytest.fixture
def make_project(tmp_path):
    """Writes the project of a board, by name, for the stub; returns its folder."""

    def make(board="pynq_z2", **fields):
        info = vivado.Ip(**fields)
        folder = tmp_path / "out"
        vivado.write_project(folder, stub(info.name, info.bytes), info, st.load_board(board))
        return folder

    return make
