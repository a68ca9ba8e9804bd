"""From a plan to the Verilog of a trainer with its buses."""

from functools import lru_cache

from streamtrain.bus.ip import TrainerIP
from streamtrain.pipeline.generate import PACKAGES, anonymous, text_key, verilog_of

__all__ = ["generate_ip", "ip_key"]


@lru_cache(maxsize=2)  # a build writes it, simulates it, and synthesises it
def generate_ip(fmt, name="streamtrain"):
    """Verilog of a :class:`~streamtrain.bus.ip.TrainerIP`: the same bytes each time.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`
    name : :class:`str`
        Of the top module.

    Raises :exc:`RuntimeError` if Yosys fails.
    """
    return verilog_of(TrainerIP(fmt), name)


def ip_key(fmt, *, generate=True):
    """Hash of :func:`generate_ip`'s text; see :func:`~streamtrain.pipeline.generate.verilog_key`."""
    return text_key(
        lambda: generate_ip(fmt),
        "ip",
        anonymous(fmt.plan).to_json(),
        str(fmt.size),
        generate=generate,
        packages=(*PACKAGES, "bus"),
    )
