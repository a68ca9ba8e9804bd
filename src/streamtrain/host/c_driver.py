"""The driver in C, for hosts without Python."""

from importlib import resources

__all__ = ["write_c_driver"]


def write_c_driver(folder):
    """Write ``streamtrain.h`` and ``streamtrain.c``; with a design's ``streamtrain_regs.h`` they are a driver."""
    source = resources.files("streamtrain.host") / "c"
    for name in ("streamtrain.h", "streamtrain.c"):
        (folder / name).write_bytes((source / name).read_bytes())
