"""AXI4-Lite and AXI4-Stream as Amaranth signatures with the names that tools look for."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["OKAY", "SLVERR", "AxiLite", "AxiStream"]

OKAY, SLVERR = 0, 2
"""Responses: done; refused, and nothing changed."""


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32 bits of data, as the side that asks sees it.

    Source: Arm IHI 0022, AMBA AXI protocol specification, part B.

    Parameters
    ----------
    address_bits : :class:`int`
    """

    def __init__(self, address_bits):
        self.address_bits = address_bits
        super().__init__({
            "awaddr": Out(address_bits),
            "awprot": Out(3),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata": Out(32),
            "wstrb": Out(4),
            "wvalid": Out(1),
            "wready": In(1),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
            "araddr": Out(address_bits),
            "arprot": Out(3),
            "arvalid": Out(1),
            "arready": In(1),
            "rdata": In(32),
            "rresp": In(2),
            "rvalid": In(1),
            "rready": Out(1),
        })


class AxiStream(wiring.Signature):
    """AXI4-Stream with the signals that every DMA has, as the side that sends sees it.

    Source: Arm IHI 0051, AMBA AXI-Stream protocol specification.

    Parameters
    ----------
    size : :class:`int`
        Bytes of ``tdata``.
    """

    def __init__(self, size):
        self.size = size
        super().__init__({
            "tdata": Out(8 * size),
            "tkeep": Out(size),
            "tlast": Out(1),
            "tvalid": Out(1),
            "tready": In(1),
        })
