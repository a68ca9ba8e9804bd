"""Results on their way out."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import AxiStream
from streamtrain.pipeline.layouts import result_layout

__all__ = ["ResultSender", "labelled_result"]


def labelled_result(plan):
    """A result, with the label of its sample and whether that was the last one of its packet."""
    return data.StructLayout({
        "result": result_layout(plan),
        "label": range(plan.network.classes),
        "last": 1,
    })


class ResultSender(wiring.Component):
    """Send results as :class:`~streamtrain.bus.packets.PacketFormat` lays them out.

    TLAST is on the last word of a result whose sample was the last one of its packet: packets of
    results have as many as packets of samples.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Members
    -------
    i : :py:`In(stream.Signature(labelled_result(plan)))`
    axis : :py:`Out(AxiStream(fmt.size))`

    Timing
    ------
    A word per cycle, and one cycle between results.
    """

    def __init__(self, fmt):
        self.fmt = fmt
        super().__init__({
            "i": In(stream.Signature(labelled_result(fmt.plan))),
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
        last = Signal()
        m.d.comb += [
            self.i.ready.eq(left == 0),
            axis.tvalid.eq(left != 0),
            axis.tdata.eq(words),
            axis.tkeep.eq((1 << fmt.size) - 1),
            axis.tlast.eq(last & (left == 1)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [words.eq(packed), last.eq(sent.last), left.eq(fmt.result_words)]
        with m.If(axis.tvalid & axis.tready):
            m.d.sync += [words.eq(words >> 8 * fmt.size), left.eq(left - 1)]
        return m


def _widened(value, bits):
    """A value with its sign, or zeros, above."""
    value = value.as_value() if hasattr(value, "as_value") else value
    signed = value.shape().signed
    return Cat(value, (value[-1] if signed else Const(0, 1)).replicate(bits - len(value)))
