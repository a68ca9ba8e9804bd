"""Results on their way out."""

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import AxiStream
from streamtrain.pipeline.layouts import result_layout

__all__ = ["ResultSender", "labelled_result"]


def labelled_result(plan):
    """A result, with the label of its sample and whether that was to be the last one of its packet."""
    return data.StructLayout({
        "result": result_layout(plan),
        "label": range(plan.network.classes),
        "last": 1,
    })


class ResultSender(wiring.Component):
    """Send results as :class:`~streamtrain.bus.packets.PacketFormat` lays them out.

    TLAST is on the last word of a result whose sample was the last one of its packet that counted: there
    is a packet of results for each packet of samples of which something counted. Whether a packet was cut
    behind a sample is known once the next one has come, or has not; until then the last word waits.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Members
    -------
    i : :py:`In(stream.Signature(labelled_result(plan)))`
    fate : :py:`In(stream.Signature(1))`
        Of each result whose ``last`` is 0: whether it is the last one after all.
    abort : :py:`In(1)`
        All that is known of packets is void: no result comes behind this one.
    axis : :py:`Out(AxiStream(fmt.size))`

    Timing
    ------
    A word per cycle, and one cycle between results. The last word waits for ``fate``.
    """

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({
            "i": In(stream.Signature(labelled_result(fmt.plan))),
            "fate": In(stream.Signature(unsigned(1))),
            "abort": In(1),
            "axis": Out(AxiStream(fmt.size)),
        })

    def elaborate(self, platform):
        m = Module()
        fmt, axis = self.fmt, self.axis
        sent, result = self.i.payload, self.i.payload.result
        score = 8 * fmt.score_bytes
        packed = Cat(
            _widened(result.predicted, 16),
            _widened(sent.label, 16),
            result.loss,
            *(_widened(result.scores[n], score) for n in range(fmt.plan.network.classes)),
        )
        words = Signal(8 * fmt.result_bytes)
        left = Signal(range(fmt.result_words + 1))
        free = Signal(init=1)  # none left
        last, known = Signal(), Signal()  # what `last` says is so
        decided = Signal()
        m.d.comb += [
            decided.eq(known | self.fate.valid),
            self.i.ready.eq(free),
            self.fate.ready.eq((left != 0) & ~known),
            axis.tvalid.eq((left > 1) | (left == 1) & decided),
            axis.tdata.eq(words),
            axis.tkeep.eq((1 << fmt.size) - 1),
            axis.tlast.eq((left == 1) & Mux(known, last, self.fate.payload)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [words.eq(packed), left.eq(fmt.result_words), free.eq(0)]
            m.d.sync += [last.eq(sent.last), known.eq(sent.last)]
        with m.If(self.fate.valid & self.fate.ready):
            m.d.sync += [last.eq(self.fate.payload), known.eq(1)]
        with m.If(self.abort & ~((left == 1) & decided)):  # which is offered, and stays as it is
            m.d.sync += [last.eq(1), known.eq(1)]
        with m.If(axis.tvalid & axis.tready):
            m.d.sync += [words.eq(words >> 8 * fmt.size), left.eq(left - 1), free.eq(left == 1)]
        return m


def _widened(value, bits):
    """A value with its sign, or zeros, above."""
    value = value.as_value() if hasattr(value, "as_value") else value
    signed = value.shape().signed
    return Cat(value, (value[-1] if signed else Const(0, 1)).replicate(bits - len(value)))
