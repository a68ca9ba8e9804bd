"""From the words of checked samples to what the first layer takes."""

from amaranth import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Round, requantize
from streamtrain.stream import Gearbox, PacketQueue, connect

__all__ = ["SampleSupply"]

_SAMPLES = 2  # one arrives while the one before it is used


class SampleSupply(wiring.Component):
    """Keep the words of two samples, and give the elements of those that count.

    Numbers that the input's format has no code for saturate.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Members
    -------
    words : :py:`In(stream.Signature(unsigned(8 * fmt.size)))`
    commit, discard : :py:`In(1)`
        As :class:`~streamtrain.stream.PacketQueue` has them.
    o : :py:`Out(stream.Signature(ArrayLayout(input format, Pn of the first stage)))`

    Timing
    ------
    A word in and a payload out per cycle. The first payload is offered two cycles after its sample was
    committed, and one for each word that it takes.
    """

    def __init__(self, fmt):
        self.fmt = fmt
        first = fmt.plan.stages[0]
        super().__init__({
            "words": In(stream.Signature(unsigned(8 * fmt.size))),
            "commit": In(1),
            "discard": In(1),
            "o": Out(stream.Signature(data.ArrayLayout(first.input, first.folding[1]))),
        })

    def elaborate(self, platform):
        m = Module()
        fmt, plan = self.fmt, self.fmt.plan
        lanes = plan.stages[0].folding[1]
        m.submodules.queue = queue = PacketQueue(
            unsigned(8 * fmt.size), _SAMPLES * fmt.payload_words, lutram_depth=plan.lutram_depth
        )
        unit = min(fmt.size, fmt.pixel_bytes)
        m.submodules.gearbox = gearbox = Gearbox(
            8 * unit,
            fmt.size // unit,
            lanes * fmt.pixel_bytes // unit,
            fmt.payload_bytes // unit,
        )
        connect(m, wiring.flipped(self.words), queue.i)
        connect(m, queue.o, gearbox.i)
        m.d.comb += [
            queue.commit.eq(self.commit),
            queue.discard.eq(self.discard),
            self.o.valid.eq(gearbox.o.valid),
            gearbox.o.ready.eq(self.o.ready),
        ]
        bits = 8 * fmt.pixel_bytes
        for lane in range(lanes):
            number = gearbox.o.payload.word_select(lane, bits).as_signed()
            code, _ = requantize(m, number, 0, plan.stages[0].input, Round.NEAREST_EVEN)
            m.d.comb += self.o.payload[lane].eq(code)
        return m
