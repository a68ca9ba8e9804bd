"""Packets from outside: only whole samples get in."""

from amaranth import Const, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import AxiStream

__all__ = ["PACKET_BITS", "SampleReceiver"]

PACKET_BITS = 16
"""Bits of the number of samples in a packet."""


class SampleReceiver(wiring.Component):
    """Check samples as they arrive, and say of each at its end whether it counts.

    A packet is some samples, each of which begins on a word; TLAST is 1 on the last word of the last one
    and nowhere else. TKEEP is all ones, save that the last word of a sample needs only the bytes that the
    sample has there. A sample in which that is broken, or whose label is no class, is discarded; so is the
    rest of its packet. Samples in front of it in the same packet count.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Members
    -------
    axis : :py:`In(AxiStream(fmt.size))`
    words : :py:`Out(stream.Signature(unsigned(8 * fmt.size)))`
        Pixels, before it is known whether their sample counts.
    commit, discard : :py:`Out(1)`
        The sample whose words have gone out, the one of this cycle the last of them, counts; or not.
    label : :py:`Out(range(classes))`
        Of the sample that counts.
    last : :py:`Out(1)`
        It is the last one of its packet.
    more, cut : :py:`Out(1)`
        The sample that counted before, if it was not the last one of its packet: another one of the packet
        has counted; or none will, so that it was the last one after all.
    open : :py:`In(1)`
        Packets may begin.
    room : :py:`In(1)`
        A sample may begin: when it counts, there is room to say so.
    count : :py:`In(16)`
        Samples in a packet, at least 1.
    labelled : :py:`In(1)`
        Labels matter.
    abort : :py:`In(1)`
        Forget the packet that is under way, and what follows of it.
    receiving : :py:`Out(1)`
        A packet is under way.
    short, long, keep, class_unknown : :py:`Out(1)`
        Why a sample is discarded: TLAST too early, TLAST missing, TKEEP, its label.
    dropped : :py:`Out(1)`
        A packet is dropped, in whole or in part.

    Timing
    ------
    Combinational; a word per cycle.
    """

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({
            "axis": In(AxiStream(fmt.size)),
            "words": Out(stream.Signature(unsigned(8 * fmt.size))),
            "commit": Out(1),
            "discard": Out(1),
            "label": Out(range(fmt.plan.network.classes)),
            "last": Out(1),
            "more": Out(1),
            "cut": Out(1),
            "open": In(1),
            "room": In(1),
            "count": In(PACKET_BITS),
            "labelled": In(1),
            "abort": In(1),
            "receiving": Out(1),
            "short": Out(1),
            "long": Out(1),
            "keep": Out(1),
            "class_unknown": Out(1),
            "dropped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        axis, fmt = self.axis, self.fmt
        word = Signal(range(fmt.payload_words + 1))  # behind the label
        sample, inside = Signal(PACKET_BITS), Signal()  # of the packet; it is not the first
        draining = Signal()  # the rest of a packet that is dropped
        head = Signal(init=1)  # it is the label
        tail = Signal()  # it is the sample's last, or the label
        end = tail & ~head
        taken, wrong = Signal(), Signal()
        m.d.comb += [
            self.receiving.eq(~head | inside | draining),
            taken.eq(axis.tvalid & axis.tready & ~draining),
            self.words.payload.eq(axis.tdata),
            self.words.valid.eq(axis.tvalid & ~draining & ~head & ~self.abort),
        ]
        with m.If(draining):
            m.d.comb += axis.tready.eq(~self.abort)
        with m.Elif(head):
            m.d.comb += axis.tready.eq(self.room & (self.open | inside) & ~self.abort)
        with m.Else():
            m.d.comb += axis.tready.eq(self.words.ready & ~self.abort)

        # Known before the second word of a sample, which is the first one that may be its last.
        m.d.sync += self.last.eq(sample + 1 == self.count)
        label, kept = Signal(fmt.label_bits), Signal(fmt.label_bits)
        whole = Const((1 << fmt.size) - 1, fmt.size)
        remaining = fmt.payload_bytes - (fmt.payload_words - 1) * fmt.size
        needed = Const((1 << remaining) - 1, fmt.size)
        m.d.comb += [
            label.eq(Mux(head, axis.tdata[: fmt.label_bits], kept)),
            self.label.eq(label),
        ]
        with m.If(taken):
            m.d.comb += [
                self.short.eq(axis.tlast & ~(end & self.last)),
                self.long.eq(~axis.tlast & end & self.last),
                self.keep.eq(((axis.tkeep & needed) != needed) | ~end & (axis.tkeep != whole)),
                # With each word: labels may begin to matter in mid-sample.
                self.class_unknown.eq(self.labelled & (label >= fmt.plan.network.classes)),
                wrong.eq(self.short | self.long | self.keep | self.class_unknown),
                self.discard.eq(wrong),
                self.commit.eq(end & ~wrong),
            ]
            with m.If(head):
                m.d.sync += kept.eq(label)
            # Whether a sample ends here is known late in a cycle: only `head` says so.
            m.d.sync += [
                word.eq(Mux(head, 1, word + 1)),
                head.eq(0),
                tail.eq(Mux(head, fmt.payload_words == 1, word == fmt.payload_words - 1)),
            ]
            with m.If(self.commit):
                m.d.sync += [head.eq(1), sample.eq(sample + 1)]
                m.d.sync += inside.eq(~self.last)
                with m.If(self.last):
                    m.d.sync += sample.eq(0)
            with m.If(wrong):
                m.d.sync += [head.eq(1), sample.eq(0), inside.eq(0), draining.eq(~axis.tlast)]
        with m.If(draining & axis.tvalid & axis.tready & axis.tlast):
            m.d.sync += draining.eq(0)
        with m.If(self.abort & self.receiving):
            m.d.sync += [head.eq(1), sample.eq(0), inside.eq(0), draining.eq(1)]
        m.d.comb += [
            self.dropped.eq(wrong | self.abort & self.receiving & ~draining),
            self.more.eq(inside & self.commit),
            self.cut.eq(inside & self.discard),
        ]
        return m
