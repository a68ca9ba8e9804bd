"""Masters of AXI4: streams of beats out of memory, and into it."""

from operator import index

from amaranth import Const, Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import DECERR, AxiRead, AxiWrite
from streamtrain.bus.bursts import (
    BurstSplitter,
    Fault,
    check_bursts,
    fault_layout,
    request_layout,
)
from streamtrain.stream import Queue, connect

__all__ = ["BURST", "DONE_BITS", "OUTSTANDING", "MemoryReader", "MemoryWriter", "beat_layout"]

BURST = 64
"""Beats of a burst, if nothing else is said."""

OUTSTANDING = 4
"""Bursts that are outstanding, if nothing else is said."""

DONE_BITS = 32
"""Bits of the number of requests that a writer has done."""

_INCR = 1  # BURST: each beat at the next address
# CACHE: interconnects may change a burst's shape on its way, to a wider bus for one. It is not
# bufferable: a write is answered by the memory itself, so that whoever hears of it can read it.
_CACHE = 0b0010
_PROT = 0b000  # data, secure, not privileged: as DMA engines have it
_MOST_OUTSTANDING = 64  # what is known of them is in LUT RAM


def beat_layout(data_bits):
    """A beat, and whether it is the last one of its request."""
    return data.StructLayout({"data": data_bits, "last": 1})


def _check_outstanding(outstanding):
    if not 1 <= index(outstanding) <= _MOST_OUTSTANDING:
        raise ValueError(
            f"Outstanding bursts must be 1 to {_MOST_OUTSTANDING}, not {outstanding!r}"
        )
    return index(outstanding)


class _Requests:
    """What reader and writer have in common: bursts that wait, and those whose answers are to come."""

    def __init__(self, m, master, name):
        self.master = master
        bursts = BurstSplitter(master.data_bits, master.address_bits, master.burst_beats)
        m.submodules.bursts = ResetInserter(master.abort)(bursts)
        m.submodules.under_way = under_way = Queue(
            data.StructLayout({"address": master.address_bits, "last": 1}), master.outstanding
        )
        connect(m, wiring.flipped(master.request), bursts.i)
        self.bursts, self.under_way = bursts, under_way
        self.waiting = bursts.o.payload

        axi = master.axi
        valid, ready = getattr(axi, f"{name}valid"), getattr(axi, f"{name}ready")
        self.can_issue = bursts.o.valid & under_way.i.ready & (~valid | ready)
        self.issue = issue = Signal()  # a burst's address goes out
        m.d.comb += [
            getattr(axi, f"{name}size").eq((master.data_bits // 8 - 1).bit_length()),
            getattr(axi, f"{name}burst").eq(_INCR),
            getattr(axi, f"{name}cache").eq(_CACHE),
            getattr(axi, f"{name}prot").eq(_PROT),
            bursts.o.ready.eq(issue),
            under_way.i.valid.eq(issue),
            under_way.i.payload.address.eq(self.waiting.address),
            under_way.i.payload.last.eq(self.waiting.last),
        ]
        with m.If(ready):
            m.d.sync += valid.eq(0)
        with m.If(issue):
            m.d.sync += [
                valid.eq(1),
                getattr(axi, f"{name}addr").eq(self.waiting.address),
                getattr(axi, f"{name}len").eq(self.waiting.len),
            ]

    def keep_fault(self, m, answered, response):
        """Keep the first fault: of a request, or of the answer to the oldest burst."""
        error, fault = self.master.error, self.bursts.fault
        with m.If(error.kind == Fault.NONE):
            with m.If(answered & response[1]):
                m.d.sync += [
                    error.kind.eq(Mux(response == DECERR, Fault.DECERR, Fault.SLVERR)),
                    error.address.eq(self.under_way.o.payload.address),
                ]
            with m.Elif(fault.kind != Fault.NONE):
                m.d.sync += error.eq(fault)
        with m.If(self.master.abort):
            m.d.sync += error.kind.eq(Fault.NONE)


class MemoryReader(wiring.Component):
    """Read what requests ask for, in order, as a stream of beats.

    Requests become bursts as long as ``burst_beats`` allows, several of which are outstanding. Only what
    there is room for is asked: RREADY is always high, so a consumer that stalls holds up nobody else's
    traffic.

    An error, the first one, is kept. A request that cannot be done (its address is no beat's, it has no
    beats, or ends beyond the last address) is refused, and so are all behind it until ``abort``; those
    in front of it are finished. After an error response beats go on coming, whatever is in them.

    Parameters
    ----------
    data_bits : :class:`int`
        Bits of a beat: 32, 64, 128, 256 or 512.
    address_bits : :class:`int`
        Bits of an address in bytes, 32 to 64.
    outstanding : :class:`int`
        Bursts that have been asked for and have not come, at most: 1 to 64.
    burst_beats : :class:`int`
        Beats of a burst: a power of two up to 256, at most 4 KB. There is room for ``outstanding`` such
        bursts.

    Members
    -------
    axi : :py:`Out(AxiRead(data_bits, address_bits))`
    request : :py:`In(stream.Signature(request_layout(address_bits)))`
        Address in bytes, a multiple of a beat's; number of beats.
    o : :py:`Out(stream.Signature(beat_layout(data_bits)))`
    error : :py:`Out(fault_layout(address_bits))`
        What went wrong first, and the address of the request or burst that it happened to.
    busy : :py:`Out(1)`
        There are requests or beats inside, or bursts outstanding.
    abort : :py:`In(1)`
        Forget all of it, and the error. It must stay until ``busy`` is low: bursts that have begun end by
        the rules, and their beats are dropped.

    Timing
    ------
    A beat per cycle, without a pause between bursts or requests, if the memory keeps up. From the cycle
    in which the first request is accepted to the one in which the last beat is taken, N requests of L
    beats take ``N * L + latency + 4`` cycles, one more if more than 64 beats have room, and as many
    more as the consumer pauses. ``latency`` is the memory's, from an address to its first beat. That is
    so while any ``outstanding - 1`` bursts in a row have at least ``latency + 3`` beats. Bursts have
    ``min(L, burst_beats)``, but for what is left over at a request's ends.
    """

    def __init__(self, data_bits, address_bits=32, *, outstanding=OUTSTANDING, burst_beats=BURST):
        self.data_bits, self.address_bits, self.burst_beats = check_bursts(
            data_bits, address_bits, burst_beats
        )
        self.outstanding = _check_outstanding(outstanding)
        super().__init__({
            "axi": Out(AxiRead(self.data_bits, self.address_bits)),
            "request": In(stream.Signature(request_layout(self.address_bits))),
            "o": Out(stream.Signature(beat_layout(self.data_bits))),
            "error": Out(fault_layout(self.address_bits)),
            "busy": Out(1),
            "abort": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        axi, depth = self.axi, self.outstanding * self.burst_beats
        requests = _Requests(m, self, "ar")
        under_way = requests.under_way
        beats = Queue(beat_layout(self.data_bits), depth)
        m.submodules.beats = ResetInserter(self.abort)(beats)
        connect(m, beats.o, wiring.flipped(self.o))

        room = Signal(range(depth + 1), init=depth)  # for beats that nobody has asked for
        asked = Signal(range(depth + 1))
        m.d.comb += requests.issue.eq(requests.can_issue & (room > requests.waiting.len))
        with m.If(requests.issue):
            m.d.comb += asked.eq(requests.waiting.len + 1)
        m.d.sync += room.eq(room - asked + (self.o.valid & self.o.ready))
        with m.If(self.abort):
            m.d.sync += room.eq(depth)

        m.d.comb += [
            axi.rready.eq(1),
            beats.i.valid.eq(axi.rvalid),
            beats.i.payload.data.eq(axi.rdata),
            beats.i.payload.last.eq(axi.rlast & under_way.o.payload.last),
            under_way.o.ready.eq(axi.rvalid & axi.rlast),
            self.busy.eq(requests.bursts.busy | (under_way.level != 0) | (beats.level != 0)),
        ]
        requests.keep_fault(m, axi.rvalid, axi.rresp)
        return m


class MemoryWriter(wiring.Component):
    """Write a stream of beats to where requests say, in order.

    A burst's address goes out when all its beats are inside, so W never keeps an interconnect waiting. A
    request is done when all its bursts have been answered; whoever reads after that gets what it wrote.

    An error, the first one, is kept. A request that cannot be done (its address is no beat's, it has no
    beats, or ends beyond the last address) is refused, and so are all behind it until ``abort``; those
    in front of it are finished. An error response changes nothing for later bursts.

    Parameters
    ----------
    data_bits : :class:`int`
        Bits of a beat: 32, 64, 128, 256 or 512.
    address_bits : :class:`int`
        Bits of an address in bytes, 32 to 64.
    outstanding : :class:`int`
        Bursts that have begun and have not been answered, at most: 1 to 64.
    burst_beats : :class:`int`
        Beats of a burst: a power of two up to 256, at most 4 KB. There is room for two such bursts, or for 8
        beats if that is more.

    Members
    -------
    axi : :py:`Out(AxiWrite(data_bits, address_bits))`
    request : :py:`In(stream.Signature(request_layout(address_bits)))`
        Address in bytes, a multiple of a beat's; number of beats.
    i : :py:`In(stream.Signature(unsigned(data_bits)))`
        The requests' beats, which may come before them.
    done : :py:`Out(32)`
        Requests done since reset or ``abort``, modulo 2**32.
    error : :py:`Out(fault_layout(address_bits))`
        What went wrong first, and the address of the request or burst that it happened to.
    busy : :py:`Out(1)`
        There are requests or beats inside, or bursts that are not answered.
    abort : :py:`In(1)`
        Forget all of it, ``done`` and the error. It must stay until ``busy`` is low: bursts that have begun
        end by the rules; other beats are dropped, as are those that come meanwhile.

    Timing
    ------
    A beat per cycle, without a pause between bursts or requests, if the memory keeps up. From the cycle
    in which the first beat is accepted to the one in which ``done`` counts the last request, N requests
    of L beats take ``N * L + b + latency + 3`` cycles, where b is the size of the longest burst, and
    ``latency`` the memory's, from a burst's last beat to its answer. That is so while any
    ``outstanding - 1`` bursts in a row have at least ``latency + 3`` beats, and requests come a cycle
    before the last beats of their first bursts.
    """

    def __init__(self, data_bits, address_bits=32, *, outstanding=OUTSTANDING, burst_beats=BURST):
        self.data_bits, self.address_bits, self.burst_beats = check_bursts(
            data_bits, address_bits, burst_beats
        )
        self.outstanding = _check_outstanding(outstanding)
        super().__init__({
            "axi": Out(AxiWrite(self.data_bits, self.address_bits)),
            "request": In(stream.Signature(request_layout(self.address_bits))),
            "i": In(stream.Signature(unsigned(self.data_bits))),
            "done": Out(DONE_BITS),
            "error": Out(fault_layout(self.address_bits)),
            "busy": Out(1),
            "abort": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        # A burst goes out while the next one comes; a beat is inside for three cycles besides.
        axi, depth = self.axi, max(2 * self.burst_beats, 8)
        requests = _Requests(m, self, "aw")
        under_way, issue = requests.under_way, requests.issue
        m.submodules.begun = begun = Queue(range(self.burst_beats), self.outstanding)
        beats = Queue(unsigned(self.data_bits), depth)
        # Beats of bursts that have begun are at the front, and must go out in any case.
        m.submodules.beats = ResetInserter(self.abort & (begun.level == 0))(beats)
        m.d.comb += [
            beats.i.payload.eq(self.i.payload),
            beats.i.valid.eq(self.i.valid & ~self.abort),
            self.i.ready.eq(beats.i.ready | self.abort),
        ]

        held = Signal(range(depth + 2))  # beats inside whose bursts have not begun
        leaving = Signal.like(held)
        m.d.comb += [
            issue.eq(
                requests.can_issue & begun.i.ready & (held > requests.waiting.len) & ~self.abort
            ),
            begun.i.valid.eq(issue),
            begun.i.payload.eq(requests.waiting.len),
        ]
        with m.If(issue):
            m.d.comb += leaving.eq(requests.waiting.len + 1)
        m.d.sync += held.eq(held - leaving + (beats.i.valid & beats.i.ready))
        with m.If(self.abort):
            m.d.sync += held.eq(0)

        position = Signal(range(self.burst_beats))  # in the burst
        moved = Signal()
        m.d.comb += [
            axi.wvalid.eq(begun.o.valid & beats.o.valid),
            axi.wdata.eq(beats.o.payload),
            axi.wstrb.eq(Const(1).replicate(self.data_bits // 8)),
            axi.wlast.eq(position == begun.o.payload),
            moved.eq(axi.wvalid & axi.wready),
            beats.o.ready.eq(begun.o.valid & axi.wready),
            begun.o.ready.eq(moved & axi.wlast),
        ]
        with m.If(moved):
            m.d.sync += position.eq(Mux(axi.wlast, 0, position + 1))

        m.d.comb += [
            axi.bready.eq(1),
            under_way.o.ready.eq(axi.bvalid),
            self.busy.eq(requests.bursts.busy | (under_way.level != 0) | (beats.level != 0)),
        ]
        m.d.sync += self.done.eq(self.done + (axi.bvalid & under_way.o.payload.last))
        with m.If(self.abort):
            m.d.sync += self.done.eq(0)
        requests.keep_fault(m, axi.bvalid, axi.bresp)
        return m
