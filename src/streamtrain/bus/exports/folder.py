"""All exports of a table in one folder."""

from pathlib import Path

from streamtrain.bus.exports.c_header import c_header
from streamtrain.bus.exports.cmsis_svd import cmsis_svd
from streamtrain.bus.exports.markdown import markdown
from streamtrain.bus.exports.python_module import python_module
from streamtrain.bus.exports.systemrdl import systemrdl

__all__ = ["write_registers"]


def write_registers(folder, table):
    """Write ``folder/regs``: a table of registers for people, C, Python, debuggers and register tools.

    For a table named ``streamtrain``, the files are ``registers.md``, ``streamtrain_regs.h``,
    ``streamtrain_regs.py``, ``streamtrain.svd`` and ``streamtrain.rdl``. The same table gives the same
    bytes.

    Parameters
    ----------
    folder : path
    table : :class:`~streamtrain.bus.registers.RegisterMap`

    Returns the :class:`~pathlib.Path` of ``regs``.
    """
    texts = {
        "registers.md": f"# Registers of {table.name}\n\n{markdown(table)}",
        f"{table.name}_regs.h": c_header(table),
        f"{table.name}_regs.py": python_module(table),
        f"{table.name}.svd": cmsis_svd(table),
        f"{table.name}.rdl": systemrdl(table),
    }
    regs = Path(folder) / "regs"
    regs.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (regs / name).write_bytes(text.encode())
    return regs
