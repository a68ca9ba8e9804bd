"""Requests of any length as bursts that AXI4 allows."""

from operator import index

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "BEATS_BITS",
    "PAGE_BYTES",
    "BurstSplitter",
    "Fault",
    "burst_layout",
    "check_bursts",
    "fault_layout",
    "request_layout",
]

BEATS_BITS = 32
"""Bits of the number of beats in a request."""

PAGE_BYTES = 4096
"""No burst goes beyond a multiple of it: the next page may be another slave's."""

_MOST_BEATS = 256
_DATA_BITS = (32, 64, 128, 256, 512)


class Fault(enum.Enum, shape=3):
    """What went wrong with a request."""

    NONE = 0
    UNALIGNED = 1
    """Its address is no beat's."""
    EMPTY = 2
    """It has no beats."""
    BEYOND = 3
    """It ends beyond the last address that there is."""
    SLVERR = 4
    """The memory answered a burst by SLVERR."""
    DECERR = 5
    """Nothing is at a burst's address."""


def request_layout(address_bits):
    """A request: its address in bytes, and how many beats it has."""
    return data.StructLayout({"address": address_bits, "beats": BEATS_BITS})


def burst_layout(address_bits, burst_beats):
    """A burst: its address, AXI's LEN (beats but one), and whether its request ends with it."""
    return data.StructLayout({"address": address_bits, "len": range(burst_beats), "last": 1})


def fault_layout(address_bits):
    """A fault, and the address of the request or burst that has it."""
    return data.StructLayout({"kind": Fault, "address": address_bits})


def check_bursts(data_bits, address_bits, burst_beats):
    """The three as integers.

    Raises :exc:`ValueError` if beats, addresses or bursts cannot have this size.
    """
    bits, beats = index(data_bits), index(burst_beats)
    if bits not in _DATA_BITS:
        raise ValueError(
            f"Beats must have {', '.join(map(str, _DATA_BITS[:-1]))} or {_DATA_BITS[-1]} bits, "
            f"not {data_bits!r}"
        )
    if not 32 <= index(address_bits) <= 64:
        raise ValueError(f"Addresses must have 32 to 64 bits, not {address_bits!r}")
    if beats.bit_count() != 1 or not 2 <= beats <= _MOST_BEATS:
        raise ValueError(
            f"Beats of a burst must be a power of two from 2 to {_MOST_BEATS}, not {burst_beats!r}"
        )
    if (size := beats * bits // 8) > PAGE_BYTES:
        raise ValueError(
            f"A burst must not be longer than a page of {PAGE_BYTES} bytes, but has {size} "
            f"({beats} beats of {bits} bits)"
        )
    return bits, index(address_bits), beats


class BurstSplitter(wiring.Component):
    """Cut requests into bursts, each of which ends at the next multiple of ``burst_beats`` or before.

    All but the first and the last one of a request have ``burst_beats`` beats, and none crosses a page
    of 4 KB, since that is a multiple of them. A request that cannot be done is refused before any of its
    bursts: it stays, and nothing goes on until reset.

    Parameters
    ----------
    data_bits : :class:`int`
        Bits of a beat: 32, 64, 128, 256 or 512.
    address_bits : :class:`int`
        Bits of an address in bytes, 32 to 64.
    burst_beats : :class:`int`
        Beats of a burst: a power of two up to 256, at most 4 KB.

    Members
    -------
    i : :py:`In(stream.Signature(request_layout(address_bits)))`
    o : :py:`Out(stream.Signature(burst_layout(address_bits, burst_beats)))`
    fault : :py:`Out(fault_layout(address_bits))`
        Why the request that waits is refused.
    busy : :py:`Out(1)`
        A request is inside that is not refused.

    Timing
    ------
    One burst per cycle, without a pause between requests. The first one of a request is offered two
    cycles after the request was accepted.

    Raises
    ------
    ValueError
        If beats, addresses or bursts cannot have this size.
    """

    def __init__(self, data_bits, address_bits, burst_beats):
        self.data_bits, self.address_bits, self.burst_beats = check_bursts(
            data_bits, address_bits, burst_beats
        )
        super().__init__({
            "i": In(stream.Signature(request_layout(self.address_bits))),
            "o": Out(stream.Signature(burst_layout(self.address_bits, self.burst_beats))),
            "fault": Out(fault_layout(self.address_bits)),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        byte_bits = (self.data_bits // 8 - 1).bit_length()
        low_bits = (self.burst_beats - 1).bit_length()  # of a beat's address, within a burst

        # A request as it came. An adder and a decision about its result each have a cycle.
        waiting = Signal()
        address = Signal(self.address_bits, reset_less=True)
        final = Signal(BEATS_BITS, reset_less=True)  # number of its last beat
        empty = Signal(reset_less=True)
        begin = Signal()  # its bursts begin
        m.d.comb += self.i.ready.eq(~waiting | begin)
        with m.If(begin):
            m.d.sync += waiting.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                waiting.eq(1),
                address.eq(self.i.payload.address),
                final.eq(self.i.payload.beats - 1),
                empty.eq(self.i.payload.beats == 0),
            ]
        first = address[byte_bits:]
        refused, end = Signal(), Signal(max(len(first), BEATS_BITS) + 1)
        m.d.comb += [end.eq(first + final), self.fault.address.eq(address)]
        with m.If(waiting):
            m.d.comb += refused.eq(1)
            with m.If(address[:byte_bits].any()):
                m.d.comb += self.fault.kind.eq(Fault.UNALIGNED)
            with m.Elif(empty):
                m.d.comb += self.fault.kind.eq(Fault.EMPTY)
            with m.Elif(end[len(first) :].any()):
                m.d.comb += self.fault.kind.eq(Fault.BEYOND)
            with m.Else():
                m.d.comb += refused.eq(0)

        # The burst that is offered, and how many come after it.
        high = Signal(len(first) - low_bits, reset_less=True)
        low = Signal(low_bits, reset_less=True)
        left = Signal(BEATS_BITS + 1 - low_bits, reset_less=True)
        stop = Signal(low_bits, reset_less=True)  # where the last one ends
        # What decides whether a burst may go is in registers: others decide on more in the same cycle.
        size, last = Signal(low_bits, reset_less=True), Signal(reset_less=True)
        burst, taken = self.o.payload, Signal()
        within, single = Signal(BEATS_BITS + 1), Signal()
        m.d.comb += [
            burst.address.eq(Cat(Const(0, byte_bits), low, high)),
            burst.len.eq(size),
            burst.last.eq(last),
            taken.eq(self.o.valid & self.o.ready),
            begin.eq(waiting & ~refused & (~self.o.valid | taken & last)),
            within.eq(first[:low_bits] + final),
            single.eq(within[low_bits:] == 0),
            self.busy.eq(self.o.valid | waiting & ~refused),
        ]
        with m.If(taken):
            m.d.sync += [
                self.o.valid.eq(~last),
                high.eq(high + 1),
                low.eq(0),
                left.eq(left - 1),
                last.eq(left == 1),
                size.eq(Mux(left == 1, stop, self.burst_beats - 1)),
            ]
        with m.If(begin):
            m.d.sync += [
                self.o.valid.eq(1),
                Cat(low, high).eq(first),
                Cat(stop, left).eq(within),
                last.eq(single),
                size.eq(Mux(single, final, self.burst_beats - 1 - first[:low_bits])),
            ]
        return m
