"""The loss, where the forward stream turns round: what is the same for every loss.

A loss collects a sample's scores, multiplies something with each of them, rounds, and sends that
back as their errors. One multiplier makes the learning rate's mantissa a factor of all errors.
"""

from types import SimpleNamespace
from typing import ClassVar

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.host.device import Op
from streamtrain.numeric import Chain, Lfsr, Round, lane_bits, link, requantize
from streamtrain.pipeline.layouts import loss_token_layout, result_layout

__all__ = ["ScoreLoss", "times_constant"]


def times_constant(value, constant):
    """Product with a constant, as few shifted sums: a multiplier is not worth it."""
    total, place = None, 0
    while constant:
        digit = 0
        if constant & 1:  # the next two bits decide between adding and subtracting
            digit = 2 - (constant & 3)
            constant -= digit
            term = (value << place) if digit > 0 else -(value << place)
            total = term if total is None else total + term
        constant >>= 1
        place += 1
    return total


class ScoreLoss(wiring.Component):
    """Loss, predicted class, and the errors of the class scores: base of the losses.

    An error is the product of a factor and an operand of its class, less what :meth:`_difference`
    says, rounded. A loss says what these are and computes itself; its scores, its multiplier, and
    the order of work are here.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    token : :py:`In(stream.Signature(loss_token_layout(plan)))`
        What to do with a sample: ``INFER`` gives scores, ``EVALUATE`` also the loss, ``TRAIN`` also the
        errors, times ``mantissa / 128``.
    i : :py:`In(stream.Signature(ArrayLayout(output format, 1)))`
        Class scores.
    o : :py:`Out(stream.Signature(ArrayLayout(errors format, 1)))`
        Errors of the class scores, in order.
    result : :py:`Out(stream.Signature(result_layout(plan)))`
    saturated : :py:`Out(32)`
        Errors saturated since reset.
    idle : :py:`Out(1)`
        No token is inside.
    random : :py:`In(Chain())`
        State of the random bits, if errors are rounded stochastically.

    Timing
    ------
    Errors come one each cycle; then the result. When they begin is the loss's own.
    """

    def __init__(self, plan):
        self.plan = plan
        self.scores, self.errors = plan.stages[-1].output, plan.stages[-1].errors
        self.classes = plan.network.classes
        members = {
            "token": In(stream.Signature(loss_token_layout(plan))),
            "i": In(stream.Signature(data.ArrayLayout(self.scores, 1))),
            "o": Out(stream.Signature(data.ArrayLayout(self.errors, 1))),
            "result": Out(stream.Signature(result_layout(plan))),
            "saturated": Out(32),
            "idle": Out(1),
        }
        if any(owner == len(plan.stages) for owner, _, _ in plan.random_sites):
            members["random"] = In(Chain())
        super().__init__(members)

    # What a loss says of itself. `s` has the signals that are shared with this class.

    #: State after "collect".
    begins: ClassVar[str] = "scale"

    def _lines(self, s):
        """Shift registers beside that of the scores: (turn, registers, new last one)."""
        return []

    def _compute(self, m, s):
        """Drive ``s.loss``, and set

        - ``s.factor``: what the mantissa is multiplied with,
        - ``s.operand``: what this product is multiplied with for the class that is next,
        - ``s.turn``: what makes the next class's operand follow,
        - ``s.frac``: fractional bits of a difference,
        - ``s.done``: whether the loss is there when the errors are, or None if it always is.
        """
        raise NotImplementedError

    def _difference(self, m, s):
        """The error of the class whose ``s.product`` is there; ``s.hits[1]`` if it is the label's."""
        raise NotImplementedError

    def _states(self, m, s):
        """States between "collect" and "scale"."""

    def _during(self, m, s, state):
        """What else happens in "collect" and in "scale"."""

    def elaborate(self, platform):
        m = Module()
        classes = self.classes
        s = SimpleNamespace()
        s.token = token = self.token.payload
        s.number = number = Signal(range(classes), name="number")
        s.last = last = number == classes - 1
        s.scores = scores = [Signal(self.scores, name=f"score{n}") for n in range(classes)]
        s.turn_scores, next_score = (Signal(), Signal(self.scores))
        for turn, line, new in ((s.turn_scores, scores, next_score), *self._lines(s)):
            with m.If(turn):
                m.d.sync += [to.eq(value) for to, value in zip(line, [*line[1:], new], strict=True)]

        s.largest, predicted = Signal(self.scores), Signal(range(classes), name="predicted")
        s.loss = loss = Signal(32)
        m.d.comb += [
            next_score.eq(Mux(self.i.ready, self.i.payload[0], scores[0])),
            self.result.payload.loss.eq(loss),
            self.result.payload.predicted.eq(predicted),
            *(self.result.payload.scores[n].eq(scores[n]) for n in range(classes)),
        ]
        s.step = step = Signal()
        with m.If(step):
            m.d.sync += number.eq(Mux(last, 0, number + 1))

        # The one multiplier: three cycles from operands to product.
        s.a, s.b = Signal(25), Signal(18, name="b")
        s.product = Signal(signed(43), name="product", reset_less=True)
        s.go = go = Signal()
        s.onehot = Signal()
        self._compute(m, s)
        a_held, b_held = Signal(signed(25), reset_less=True), Signal(signed(18), reset_less=True)
        with m.If(go):
            m.d.sync += [a_held.eq(s.a), b_held.eq(s.b), s.product.eq(a_held * b_held)]
        s.scaled = Signal(24, name="scaled_norm")
        drop = s.frac - self.errors.frac
        sending = [Signal(name=f"sending{n}") for n in range(3)]
        s.hits = hits = [Signal(name=f"hit{n}", reset_less=True) for n in range(2)]
        difference = Signal(signed(44))
        m.d.comb += [
            s.onehot.eq(number == token.label),
            difference.eq(self._difference(m, s)),
        ]
        mode = self.plan.stages[-1].round_errors
        random = None
        if mode is Round.STOCHASTIC and drop > 0:
            m.submodules.lfsr = lfsr = Lfsr(self.plan.random_seed(self.plan.stages[-1], "errors"))
            m.d.comb += lfsr.advance.eq(go & sending[1])
            link(m, self.random, [lfsr.chain])
            random = lane_bits(lfsr.state, 0, drop)
        error, clipped = requantize(m, difference, drop, self.errors, mode, random)
        m.d.comb += self.o.valid.eq(sending[2])

        m.d.comb += [self.idle.eq(0), go.eq(1)]
        s.wait = wait = Signal(range(4))
        s.emitted = emitted = Signal()  # all classes are on their way
        with m.FSM():
            with m.State("collect"):
                m.d.comb += [
                    self.idle.eq(~self.token.valid),
                    self.i.ready.eq(self.token.valid),
                ]
                self._during(m, s, "collect")
                with m.If(self.i.valid & self.i.ready):
                    m.d.comb += [step.eq(1), s.turn_scores.eq(1)]
                    with m.If((number == 0) | (self.i.payload[0] > s.largest)):
                        m.d.sync += [s.largest.eq(self.i.payload[0]), predicted.eq(number)]
                    with m.If(last):
                        m.next = self.begins
                        with m.If(token.op == Op.INFER):
                            m.d.sync += loss.eq(0)
                            m.next = "result"
            self._states(m, s)
            with m.State("scale"):
                m.d.comb += [s.a.eq(s.factor), s.b.eq(token.mantissa)]
                m.d.sync += [wait.eq(wait + 1), s.scaled.eq(s.product), emitted.eq(0)]
                with m.If(wait == 2):
                    m.next = "errors"
                self._during(m, s, "scale")
            with m.State("errors"):
                m.d.comb += [
                    s.a.eq(s.scaled),
                    s.b.eq(s.operand),
                    go.eq(~self.o.valid | self.o.ready),
                ]
                with m.If(go):
                    m.d.comb += [step.eq(~emitted), s.turn.eq(~emitted)]
                    m.d.sync += [
                        sending[0].eq(~emitted),
                        sending[1].eq(sending[0]),
                        sending[2].eq(sending[1]),
                        hits[0].eq(s.onehot),
                        hits[1].eq(hits[0]),
                        self.o.payload[0].eq(error),
                        self.saturated.eq(self.saturated + (clipped & sending[1])),
                    ]
                    with m.If(last):
                        m.d.sync += emitted.eq(1)
                    sent = emitted & ~Cat(sending[:2]).any()
                    with m.If(sent if s.done is None else sent & s.done):
                        m.next = "result"
            with m.State("result"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.d.comb += self.token.ready.eq(1)
                    m.next = "collect"
        return m
