"""AXI4, AXI4-Lite and AXI4-Stream as Amaranth signatures with the names that tools look for."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "DECERR",
    "OKAY",
    "SLVERR",
    "AxiLite",
    "AxiRead",
    "AxiStream",
    "AxiWrite",
    "flat",
    "join_flat",
]

OKAY, SLVERR, DECERR = 0, 2, 3
"""Responses: done; refused, and nothing changed; nothing is at that address."""

_ID_BITS = 1  # constant: what is asked in order is answered in order


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


def _address_channel(name, address_bits):
    return {
        f"{name}id": Out(_ID_BITS),
        f"{name}addr": Out(address_bits),
        f"{name}len": Out(8),
        f"{name}size": Out(3),
        f"{name}burst": Out(2),
        f"{name}cache": Out(4),
        f"{name}prot": Out(3),
        f"{name}valid": Out(1),
        f"{name}ready": In(1),
    }


class AxiRead(wiring.Signature):
    """The reading half of AXI4, as the side that asks sees it.

    LOCK, QOS and REGION are left out: a master that has not got them means 0.

    Source: Arm IHI 0022, AMBA AXI protocol specification, part A.

    Parameters
    ----------
    data_bits, address_bits : :class:`int`
    """

    def __init__(self, data_bits, address_bits):
        self.data_bits, self.address_bits = data_bits, address_bits
        super().__init__({
            **_address_channel("ar", address_bits),
            "rid": In(_ID_BITS),
            "rdata": In(data_bits),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
        })


class AxiWrite(wiring.Signature):
    """The writing half of AXI4, as :class:`AxiRead` is the reading one.

    Parameters
    ----------
    data_bits, address_bits : :class:`int`
    """

    def __init__(self, data_bits, address_bits):
        self.data_bits, self.address_bits = data_bits, address_bits
        super().__init__({
            **_address_channel("aw", address_bits),
            "wdata": Out(data_bits),
            "wstrb": Out(data_bits // 8),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bid": In(_ID_BITS),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
        })


def flat(prefix, signature):
    """Members of an interface as single ports, which tools know by a common prefix.

    Parameters
    ----------
    prefix : :class:`str`
        Such as ``"m_axi"``.
    signature : :class:`wiring.Signature`
        As the component with these ports sees it.

    Returns a dictionary of members.
    """
    return {f"{prefix}_{name}": member for name, member in signature.members.items()}


def join_flat(m, component, prefix, inner):
    """Join the ports that :func:`flat` gave ``component`` to an interface of its inside, ``inner``."""
    for name in inner.signature.members:
        port, signal = getattr(component, f"{prefix}_{name}"), getattr(inner, name)
        outward = component.signature.members[f"{prefix}_{name}"].flow is Out
        m.d.comb += port.eq(signal) if outward else signal.eq(port)
