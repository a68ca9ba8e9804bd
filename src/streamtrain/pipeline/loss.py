"""The loss, where the forward stream turns round: what is the same for every loss.

A loss collects a sample's scores, multiplies something with each of them, rounds, and sends that
back as their errors. One multiplier makes the learning rate's mantissa a factor of all errors.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.host.device import Op
from streamtrain.network import CrossEntropy, MSELoss, SquaredHinge
from streamtrain.numeric import Chain, Lfsr, Round, lane_bits, link, requantize
from streamtrain.pipeline.layouts import loss_token_layout, result_layout
from streamtrain.pipeline.softmax import SoftmaxCrossEntropy
from streamtrain.pipeline.squares import MeanOfSquares

__all__ = ["ScoreLoss"]

_RULES = {
    CrossEntropy: SoftmaxCrossEntropy,
    MSELoss: MeanOfSquares,
    SquaredHinge: MeanOfSquares,
}


class ScoreLoss(wiring.Component):
    """Loss, predicted class, and the errors of the class scores.

    The scores, the multiplier, the rounding and the order of work are here. What is multiplied, and
    what the loss is, is up to a rule: a component with the members of
    :func:`~streamtrain.pipeline.rule.rule_members`.

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
    The first error follows the last score 3 cycles after the rule is ``ready``, then one each cycle;
    then the result, as soon as the rule is not ``busy``.
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

    def elaborate(self, platform):
        m = Module()
        m.submodules.rule = rule = _RULES[type(self.plan.network.loss)](self.plan)
        token = self.token.payload

        # Scores turn like a wheel: the first one is that of the class whose turn it is.
        number = Signal(range(self.classes))
        last = number == self.classes - 1
        turn = Signal()
        scores = [Signal(self.scores, name=f"score{n}") for n in range(self.classes)]
        score = Mux(self.i.ready, self.i.payload[0], scores[0])
        with m.If(turn):
            m.d.sync += number.eq(Mux(last, 0, number + 1))
            m.d.sync += [to.eq(by) for to, by in zip(scores, [*scores[1:], score], strict=True)]
        largest, predicted = Signal(self.scores), Signal(range(self.classes))
        loss = Signal(32)
        with m.If(rule.loss_valid):
            m.d.sync += loss.eq(rule.loss)
        m.d.comb += [
            rule.token.eq(token),
            rule.score.eq(score),
            rule.own.eq(number == token.label),
            rule.last.eq(last),
            rule.turn.eq(turn),
            rule.largest.eq(largest),
            self.result.payload.loss.eq(loss),
            self.result.payload.predicted.eq(predicted),
            *(self.result.payload.scores[n].eq(scores[n]) for n in range(self.classes)),
        ]

        # The one multiplier, and what follows it: a register each.
        go = Signal(init=1)
        a, b = Signal.like(rule.a, reset_less=True), Signal.like(rule.b, reset_less=True)
        product = Signal.like(rule.product, reset_less=True)
        own = [Signal(name=f"own{n}", reset_less=True) for n in range(2)]
        sending = [Signal(name=f"sending{n}") for n in range(3)]
        error, clipped = self._rounded(m, rule, go & sending[1])
        m.d.comb += [
            rule.product.eq(product),
            rule.product_own.eq(own[1]),
            self.o.valid.eq(sending[2]),
        ]
        with m.If(go):
            m.d.sync += [
                a.eq(rule.a),
                b.eq(rule.b),
                product.eq(a * b),
                own[0].eq(rule.own),
                own[1].eq(own[0]),
            ]

        saturates = Signal()  # what is sent
        m.d.sync += [
            saturates.eq(go & sending[1] & clipped),
            self.saturated.eq(self.saturated + saturates),
        ]
        emitted = Signal()  # all classes are on their way
        with m.FSM():
            with m.State("collect"):
                arrives = self.i.valid & self.token.valid
                m.d.comb += [
                    self.idle.eq(~self.token.valid),
                    self.i.ready.eq(self.token.valid),
                    turn.eq(arrives),
                    rule.collect.eq(1),
                ]
                m.d.sync += [emitted.eq(0), loss.eq(0)]
                with m.If(arrives):
                    with m.If((number == 0) | (self.i.payload[0] > largest)):
                        m.d.sync += [largest.eq(self.i.payload[0]), predicted.eq(number)]
                    with m.If(last):
                        m.next = "prepare"
                        with m.If(token.op == Op.INFER):
                            m.next = "result"
            with m.State("prepare"):
                m.d.comb += [rule.prepare.eq(1), turn.eq(rule.next)]
                with m.If(rule.ready):
                    m.next = "errors"
                    with m.If(token.op == Op.EVALUATE):
                        m.next = "result"
            with m.State("errors"):
                m.d.comb += [go.eq(~self.o.valid | self.o.ready), turn.eq(go & ~emitted)]
                with m.If(go):
                    m.d.sync += [
                        sending[0].eq(~emitted),
                        sending[1].eq(sending[0]),
                        sending[2].eq(sending[1]),
                        self.o.payload[0].eq(error),
                    ]
                    with m.If(last):
                        m.d.sync += emitted.eq(1)
                    with m.If(emitted & ~Cat(sending[:2]).any()):
                        m.next = "result"
            with m.State("result"):
                m.d.comb += self.result.valid.eq(~rule.busy)
                with m.If(self.result.valid & self.result.ready):
                    m.d.comb += self.token.ready.eq(1)
                    m.next = "collect"
        return m

    def _rounded(self, m, rule, moves):
        """The error that the rule makes of the product, and whether it saturates."""
        last, drop = self.plan.stages[-1], rule.frac - self.errors.frac
        random = None
        if last.round_errors is Round.STOCHASTIC and drop > 0:
            m.submodules.lfsr = lfsr = Lfsr(self.plan.random_seed(last, "errors"))
            m.d.comb += lfsr.advance.eq(moves)
            link(m, self.random, [lfsr.chain])
            random = lane_bits(lfsr.state, 0, drop)
        return requantize(m, rule.difference, drop, self.errors, last.round_errors, random)
