"""Which primitives a memory becomes on a Xilinx 7-series part.

Yosys weighs the ways of building a memory against each other: by the price of the primitives, and of
the gates around them where a memory is deeper than its primitives. This is the same arithmetic, so it
gives the same numbers of primitives, not nearly the same.

Source: Yosys, ``passes/memory/memory_libmap.cc`` (the weighing) and ``techlibs/xilinx``,
``brams_xc4v.txt`` and ``lutrams_xc5v.txt`` (the primitives and their prices), version 0.70.
"""

from dataclasses import dataclass
from functools import lru_cache
from operator import index

from streamtrain.pipeline.plan import ceil_log2

__all__ = ["Mapping", "map_memory"]

_MUX, _DEMUX = 0.5, 0.5  # price of one input of a multiplexer, of one output of a decoder


@dataclass(frozen=True)
class _Primitive:
    """One way of using a kind of memory.

    Parameters
    ----------
    name : :class:`str`
        Of the cell in a netlist.
    width, depth : :class:`int`
        Of its words, as it is used here.
    price : :class:`int`
        What one of them counts.
    by_bit : :class:`int`
        The part of ``price`` that counts only for the bits in use.
    byte : :class:`int`
        A memory's width is rounded up to a multiple of it.
    bram18, lut : :class:`int`
        Halves of a block RAM, or LUTs, that one takes.
    single : :class:`bool`
        Each bit is a cell of its own, so that bits that are not in use take nothing.
    """

    name: str
    width: int
    depth: int
    price: int
    by_bit: int = 0
    byte: int = 1
    bram18: int = 0
    lut: int = 0
    single: bool = False


def _block(name, kbit, widths, price, bram18):
    """Block RAM of some Kbit without parity; one of 9 bits and its multiples has parity, too."""
    return tuple(
        _Primitive(name, width, kbit * 1024 // 2**n, price, byte=min(width, 9), bram18=bram18)
        for n, width in widths
    )


_WIDTHS = tuple(enumerate((1, 2, 4, 9, 18, 36, 72)))

# Groups in the order in which Yosys tries them; the first of equals is taken.
_BLOCK = (
    _block("RAMB18E1", 16, _WIDTHS[:5], 129, 1),
    _block("RAMB36E1", 32, _WIDTHS[:6], 257, 2),
    _block("RAMB36E1 pair", 64, _WIDTHS[:1], 513, 4),
    _block("RAMB18E1", 16, _WIDTHS[5:6], 129, 1),
    _block("RAMB36E1", 32, _WIDTHS[6:7], 257, 2),
)
# Another read address than the one that is written at.
_DISTRIBUTED = (
    (_Primitive("RAM128X1D", 1, 128, 8, by_bit=8, lut=4),),
    (_Primitive("RAM32M", 6, 32, 8, by_bit=7, byte=6, lut=4),),
    (_Primitive("RAM64M", 3, 64, 8, by_bit=7, byte=3, lut=4),),
)
# Read where it is written.
_SINGLE_PORT = (
    (_Primitive("RAM32M", 8, 32, 8, by_bit=8, lut=4),),
    (_Primitive("RAM64X1S", 4, 64, 8, by_bit=8, lut=1, single=True),),
    (_Primitive("RAM128X1S", 2, 128, 8, by_bit=8, lut=2, single=True),),
    (_Primitive("RAM256X1S", 1, 256, 8, by_bit=8, lut=4, single=True),),
)


@dataclass(frozen=True)
class Mapping:
    """What a memory is made of.

    Parameters
    ----------
    primitive : :class:`str`
        Name of the cell; ``"FF"`` for a memory of one word, which is a register.
    count : :class:`int`
        Cells.
    bram18 : :class:`int`
        Halves of a block RAM.
    lut : :class:`int`
        LUTs used as memory.
    ff : :class:`int`
        Flip-flops: one word if that is all, and what a read port holds outside of block RAM.
    ways : :class:`int`
        Cells that a bit is chosen from, if the memory is deeper than one cell.
    """

    primitive: str
    count: int
    bram18: int = 0
    lut: int = 0
    ff: int = 0
    ways: int = 1


@lru_cache(maxsize=1 << 16)
def map_memory(width, depth, *, block, lanes=1, ports=None, single_port=False, held=True):
    """Map a memory with one write port.

    Parameters
    ----------
    width, depth : :class:`int`
        Bits of a lane, and words.
    block : :class:`bool` or None
        Whether its ``ram_style`` is ``"block"``, else ``"distributed"``; None if it has none, and the cheaper
        one is taken.
    lanes : :class:`int`
        Equal parts of a word.
    ports : tuple of (low, high), optional
        For each read port, the bits of a lane that are used. Without it, one port reads all.
    single_port : :class:`bool`
        Whether it is read where it is written, in the same cycle. Only in distributed memory.
    held : :class:`bool`
        Whether registers hold what is read, without ``single_port``. In block RAM they always do.

    Returns
    -------
    :class:`Mapping`

    Raises
    ------
    ValueError
        If there are no bits, words or read ports, or what is read where it is written is not
        distributed or has several ports.
    """
    for what, value in (("width", width), ("depth", depth), ("lanes", lanes)):
        if index(value) < 1:
            raise ValueError(f"A memory's {what} must be at least 1, not {value!r}")
    ports = ((0, width),) if ports is None else ports
    if not ports or not all(0 <= low < high <= width for low, high in ports):
        raise ValueError(f"Read ports must use some of a lane's {width} bits, not {ports!r}")
    if single_port and (block or len(ports) > 1):
        raise ValueError("What is read where it is written must be distributed, with one read port")
    registers = lanes * sum(high - low for low, high in ports) if held and not single_port else 0
    if depth == 1:
        return Mapping("FF", lanes * width, ff=lanes * width + registers)
    groups = _SINGLE_PORT if single_port else _BLOCK if block else _DISTRIBUTED
    if block is None:
        groups = (*_DISTRIBUTED, *_BLOCK)
    _, primitive, ways = min(
        (_cheapest(group, lanes * width, depth, len(ports)) for group in groups),
        key=lambda choice: choice[0],
    )
    cells = sum(_cells(primitive, ways, width, lanes, port) for port in ports)
    return Mapping(
        primitive.name,
        cells,
        bram18=primitive.bram18 * cells,
        lut=primitive.lut * cells,
        ff=ceil_log2(ways) if primitive.bram18 else registers,
        ways=ways,
    )


def _padded(primitive, width):
    return -(-width // primitive.byte) * primitive.byte


def _cheapest(group, width, depth, reads):
    """(price, primitive, ways) of the cheapest use of a primitive."""
    best = None
    for primitive in group:
        ways = -(-depth // primitive.depth)
        count = -(-ways * _padded(primitive, width) // primitive.width)
        price = (
            (primitive.price - primitive.by_bit) * count * reads
            + primitive.by_bit * ways * width / primitive.width * reads
            + _MUX * (ways - 1) * width * reads
            + _DEMUX * (ways if ways > 1 else 0)
        )
        if best is None or price < int(best[0]):  # Yosys compares with whole prices
            best = (price, primitive, ways)
    return best


def _cells(primitive, ways, width, lanes, port):
    """Cells that a read port needs: one that holds none of its bits is left out."""
    low, high = port
    word = lanes * width
    if primitive.single:
        return ways * lanes * (high - low)
    padded = _padded(primitive, word)
    if high - low == width:
        return -(-ways * padded // primitive.width)
    cells, highest = 0, -1
    for way in range(ways):
        for lane in range(lanes):
            start = way * padded + lane * width
            first, last = (start + low) // primitive.width, (start + high - 1) // primitive.width
            cells += last - max(first - 1, highest)
            highest = last
    return cells
