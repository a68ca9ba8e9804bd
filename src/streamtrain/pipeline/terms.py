"""What an optimiser adds to gradients, among the operations of a stage's weight update."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["WordOperations"]


class WordOperations(wiring.Component):
    """Which operation of a weight word is the next one, in a stage whose optimiser adds terms.

    ===========  ======================================  =================================
    operations   what the array multiplies               if
    ===========  ======================================  =================================
    terms        a coefficient with what biases have     the word has biases, and the
                                                         sample updates the weights
    pixels       errors with inputs                      always
    terms        a coefficient with what weights have    the sample updates the weights
    ===========  ======================================  =================================

    What weights have is added in the accumulators in which their gradients are. What biases have comes
    first, because it is added elsewhere: where their errors are summed up.

    Parameters
    ----------
    terms : :class:`~streamtrain.pipeline.optimizer.UpdateTerms`
    bias : :class:`bool`
        Whether the stage has biases.
    apart : :class:`bool`
        Whether what weights have is summed apart from their gradients: those are clipped first.

    Members
    -------
    step : :py:`In(1)`
        The operation is issued.
    last_pixel : :py:`In(1)`
        The next pixel is the last one.
    update, biased : :py:`In(1)`
        The sample updates the weights; the word has biases.
    now : :py:`Out(WordOperations.LAYOUT)`
        The operation. ``term``: it is the optimiser's, and ``velocity``: momentum's, ``bias``: for biases,
        ``end``: the last one of these. For a pixel's, ``sum``: the last one; ``based``: the first one
        behind terms of biases.
    pixel, first, last : :py:`Out(1)`
        It is a pixel's; it begins a sum; it ends the word.

    Timing
    ------
    One operation per cycle.
    """

    LAYOUT = data.StructLayout({
        "term": 1,
        "velocity": 1,
        "bias": 1,
        "end": 1,
        "sum": 1,
        "based": 1,
    })

    step: In(1)
    last_pixel: In(1)
    update: In(1)
    biased: In(1)
    now: Out(LAYOUT)
    pixel: Out(1)
    first: Out(1)
    last: Out(1)

    def __init__(self, terms, *, bias, apart):
        self.terms = terms
        self.bias = bias
        self.apart = apart
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        count, now = self.terms.count, self.now
        pixels = count if self.bias else 0  # number of the pixels' part; terms are on both sides
        part = Signal(range(pixels + count + 1))
        follows = Signal.like(part)
        inside = Signal()  # the word
        summing = Signal()  # its pixels
        begin = Mux(self.update & self.biased, 0, pixels) if self.bias else pixels
        m.d.comb += [
            part.eq(Mux(inside, follows, begin)),
            self.pixel.eq(part == pixels),
            self.last.eq(Mux(self.update, part == pixels + count, self.pixel & self.last_pixel)),
            now.term.eq(~self.pixel),
            now.bias.eq(part < pixels),
            now.end.eq((part == pixels - 1) | (part == pixels + count)),
            now.sum.eq(self.pixel & self.last_pixel),
            now.based.eq(self.pixel & ~summing & self.update & self.biased & bool(pixels)),
            self.first.eq(Mux(self.pixel, ~summing, (part == pixels + 1) & self.apart)),
        ]
        if self.terms.velocity is not None:  # momentum is the first one
            m.d.comb += now.velocity.eq((part == pixels + 1) | now.bias & (part == 0))
        with m.If(now.bias & (part == 0)):
            m.d.comb += self.first.eq(1)
        with m.If(self.step):
            m.d.sync += [
                inside.eq(~self.last),
                follows.eq(Mux(self.pixel & ~self.last_pixel, pixels, part + 1)),
                summing.eq(self.pixel & ~self.last_pixel),
            ]
        return m
