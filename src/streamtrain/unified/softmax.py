# amaranth: UnusedElaboratable=no
# Units are made to be asked for their latency only.

"""Errors of scores: softmax less the target, in gates. :mod:`streamtrain.golden.softmax` is the same in NumPy."""

from operator import index
from typing import NamedTuple

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.golden.softmax import LOG2_E, POWERS, PROBABILITY_BITS, SCORE, SLOPES
from streamtrain.numeric import Fixed, FloatArithmetic, Round, requantize
from streamtrain.numeric.between import FixedToFloat, FloatToFixed

__all__ = ["SoftmaxErrors", "softmax_cycles"]

_ERROR = Fixed(PROBABILITY_BITS + 2, PROBABILITY_BITS)  # -1 to 1
_FARTHEST = 30  # as many places as a power is shifted at most
_POWER_STEPS = 5  # cycles for a power


class _Kept(NamedTuple):
    """Ports of a memory with a word for each class."""

    read: Value
    new: Value
    write: Value


def softmax_cycles(arithmetic, lanes, classes):
    """Cycles that :class:`SoftmaxErrors` takes for the scores of a sample."""
    if isinstance(arithmetic, FloatArithmetic):
        score = FloatToFixed(arithmetic.operand, SCORE).latency
        error = FixedToFloat(_ERROR, arithmetic.operand).latency
    else:
        score = error = 0
    divide = 1 + PROBABILITY_BITS + 1
    return classes * (score + 1 + _POWER_STEPS + 1 + divide + error + 1) + -(-classes // lanes)


class SoftmaxErrors(wiring.Component):
    """The scores of one sample after the other become the errors that cross-entropy gives them.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes, classes : :class:`int`
        Scores come in as many vectors as they need; what the last one has besides is not looked at, and its
        errors are zero.

    Members
    -------
    i : :py:`In(stream.Signature(...))`
        ``scores``: a vector of operands; ``target``: a bit for each lane, set for the sample's class.
    o : :py:`Out(stream.Signature(unsigned(...)))`
        A vector of operands.

    Timing
    ------
    About 35 cycles for each class: a sample's scores come once in a training step.

    Source: the gradient of cross-entropy after softmax is p - onehot(y) (e.g. Bishop, "Pattern
    recognition and machine learning", 2006, equation 4.109).
    """

    def __init__(self, arithmetic, lanes, classes):
        self.arithmetic = arithmetic
        self.lanes, self.classes = index(lanes), index(classes)
        if self.classes < 1:
            raise ValueError(f"Classes must be at least 1, not {classes!r}")
        vector = unsigned(self.lanes * arithmetic.operand.width)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"scores": vector, "target": self.lanes}))),
            "o": Out(stream.Signature(vector)),
        })

    def elaborate(self, platform):
        m = Module()
        fmt, classes = self.arithmetic.operand, self.classes
        number, lane, step = Signal(range(classes)), Signal(range(self.lanes)), Signal(range(64))
        last = number == classes - 1
        vector_ends = last | (lane == self.lanes - 1)
        target, largest = Signal(range(classes)), Signal(SCORE.as_shape())
        total = Signal(PROBABILITY_BITS + 1 + classes.bit_length())
        errors = Array(Signal(fmt.width, name=f"error{n}") for n in range(self.lanes))
        operands, given = self.i.payload.scores, self.i.payload.target

        scores, powers = (
            self._memory(m, name, shape, number)
            for name, shape in (("scores", SCORE.as_shape()), ("parts", PROBABILITY_BITS + 1))
        )
        score, score_latency = self._score(m, fmt(operands.word_select(lane, fmt.width)))
        power = self._power(m, largest, scores.read, step)
        remainder, quotient = Signal(len(total) + 1), Signal(PROBABILITY_BITS + 1)
        fits = remainder >= total
        rest = Mux(fits, remainder - total, remainder)
        difference = Signal(_ERROR.as_shape())
        m.d.comb += [
            scores.new.eq(score),
            powers.new.eq(power),
            difference.eq(quotient - ((number == target) << PROBABILITY_BITS)),
        ]
        error, error_latency = self._error(m, difference)
        bits = PROBABILITY_BITS + 1

        def following():
            """Go on with the next class, behind the last one with the first."""
            m.d.sync += [
                step.eq(0), number.eq(Mux(last, 0, number + 1)),
                lane.eq(Mux(vector_ends, 0, lane + 1)),
            ]  # fmt: skip

        with m.FSM():
            with m.State("scores"):
                with m.If(self.i.valid):
                    m.d.sync += step.eq(step + 1)
                    with m.If(step == score_latency):
                        m.d.comb += [scores.write.eq(1), self.i.ready.eq(vector_ends)]
                        with m.If((number == 0) | (score > largest)):
                            m.d.sync += largest.eq(score)
                        with m.If(given.bit_select(lane, 1)):
                            m.d.sync += target.eq(number)
                        following()
                        with m.If(last):
                            m.next = "powers"
                m.d.sync += total.eq(0)
            with m.State("powers"):
                m.d.sync += step.eq(step + 1)
                with m.If(step == _POWER_STEPS):
                    m.d.comb += powers.write.eq(1)
                    m.d.sync += total.eq(total + power)
                    following()
                    with m.If(last):
                        m.next = "begin"
            with m.State("begin"):
                m.d.sync += remainder.eq(powers.read)
                m.next = "divide"
            with m.State("divide"):
                m.d.sync += [
                    remainder.eq(rest << 1),
                    quotient.eq(Cat(fits, quotient)),
                    step.eq(step + 1),
                ]
                with m.If(step == bits - 1):
                    m.d.sync += step.eq(0)
                    m.next = "error"
            with m.State("error"):
                m.d.sync += step.eq(step + 1)
                with m.If(step == error_latency):
                    m.d.sync += errors[lane].eq(error)
                    m.next = "begin"
                    with m.If(vector_ends):
                        m.next = "send"
                    with m.Else():
                        following()
            with m.State("send"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += (each.eq(0) for each in errors)
                    following()
                    m.next = "begin"
                    with m.If(last):
                        m.next = "scores"
        m.d.comb += self.o.payload.eq(Cat(*errors))
        return m

    def _memory(self, m, name, shape, number):
        """What is kept of each class: the one that is worked on is read, and may be written."""
        m.submodules[name] = memory = Memory(shape=shape, depth=self.classes, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.d.comb += [read.addr.eq(number), write.addr.eq(number)]
        return _Kept(read.data, write.data, write.en)

    def _score(self, m, operand):
        """An operand as a code of a score, and after how many cycles."""
        if isinstance(self.arithmetic, FloatArithmetic):
            m.submodules.score = unit = FloatToFixed(self.arithmetic.operand, SCORE)
            m.d.comb += [unit.i.eq(operand), unit.enable.eq(1)]
            return unit.o, unit.latency
        drop = self.arithmetic.operand.frac - SCORE.frac
        return requantize(m, operand, drop, SCORE, Round.NEAREST_EVEN)[0], 0

    def _power(self, m, largest, score, step):
        """``2**(score - largest)`` to the base e, ``_POWER_STEPS`` cycles after ``step`` is 0."""
        tables = []
        for name, table in (("powers", POWERS), ("slopes", SLOPES)):
            memory = m.submodules[name] = Memory(
                shape=unsigned(PROBABILITY_BITS + 1), depth=len(table), init=table.tolist()
            )
            tables.append(memory.read_port())
        rest_bits = PROBABILITY_BITS - (len(POWERS) - 1).bit_length()
        below, product = Signal(SCORE.width), Signal(SCORE.width + int(LOG2_E).bit_length())
        exponent = product[SCORE.frac :]
        part, whole = exponent[:PROBABILITY_BITS], exponent[PROBABILITY_BITS:]
        rest, falls = Signal(signed(rest_bits)), Signal(signed(PROBABILITY_BITS + 1 + rest_bits))
        power, shifted = Signal(PROBABILITY_BITS + 1), Signal(PROBABILITY_BITS + 1)
        for port in tables:
            m.d.comb += port.addr.eq(part[rest_bits:])
        m.d.sync += [
            below.eq(largest - score),
            product.eq(below * int(LOG2_E)),
            rest.eq(part[:rest_bits] - (1 << rest_bits - 1)),
            falls.eq(tables[1].data * rest),
            power.eq(tables[0].data - (falls >> PROBABILITY_BITS)),
        ]
        places = Mux(whole > _FARTHEST, _FARTHEST, whole)[: _FARTHEST.bit_length()]
        m.d.comb += shifted.eq(power >> places)
        return shifted

    def _error(self, m, code):
        """A code of an error as an operand, and after how many cycles."""
        if isinstance(self.arithmetic, FloatArithmetic):
            m.submodules.error = unit = FixedToFloat(_ERROR, self.arithmetic.operand)
            m.d.comb += [unit.i.eq(code), unit.enable.eq(1)]
            return unit.o, unit.latency
        fmt = self.arithmetic.operand
        return requantize(m, code, PROBABILITY_BITS - fmt.frac, fmt, Round.NEAREST)[0], 0
