"""Mean squared error and squared hinge, in gates.

Both are a mean of squares of distances from a target, 1 for the sample's class and 0 or -1 for the
others; the hinge's distances are 0 beyond the target. So an error is 2/n * (z - t) times the learning
rate's mantissa: the shared multiplier makes 2/n a part of the mantissa once for a sample. The squares
are multiplied as the scores arrive, and their sum becomes a mean while the errors leave.

Source: Tang, "Deep learning using linear support vector machines", ICML 2013 workshop, equations
5 and 11, for the hinge.
"""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring

from streamtrain.host.device import LOSS_FRAC, Op
from streamtrain.network import SquaredHinge
from streamtrain.pipeline.gates import delayed
from streamtrain.pipeline.numbers import DSP_WIDTHS
from streamtrain.pipeline.plan import MEAN_BITS, ceil_log2
from streamtrain.pipeline.rule import rule_members

__all__ = ["MeanOfSquares", "square_sum_width"]


def _spare(scores):
    """Bits by which a distance is too wide for the multiplier's narrow side."""
    return max(0, scores.width + 1 - DSP_WIDTHS[1])


def square_sum_width(scores, classes):
    """Bits that hold the sum of all classes' squared distances, for any scores of that format."""
    most = (1 << scores.width - 1) + (1 << scores.frac)
    return (classes * most * ((most >> _spare(scores)) + 1)).bit_length()


class MeanOfSquares(wiring.Component):
    """Mean squared error or squared hinge, as a rule of :class:`~streamtrain.pipeline.loss.ScoreLoss`.

    A loss that is larger than 32 bits hold is the largest that they hold.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    Those of :func:`~streamtrain.pipeline.rule.rule_members`.

    Timing
    ------
    ``prepare`` takes 3 cycles, so that the first error follows the last score by 7; the loss is there
    in the 21st cycle after the last score.
    """

    def __init__(self, plan):
        self.plan = plan
        self.scores = plan.stages[-1].output
        self.classes = plan.network.classes
        self.mean, self.mean_frac = plan.mean_factor
        self.frac = 7 + self.mean_frac + self.scores.frac
        super().__init__(rule_members(plan))

    def elaborate(self, platform):
        m = Module()
        frac, spare = self.scores.frac, _spare(self.scores)
        factor, wait = Signal(24), Signal(range(3))  # 2/n times the mantissa

        # Squares, as the scores arrive. The multiplier's narrow side lacks the spare bits.
        distance = Signal(signed(self.scores.width + 1))
        m.d.comb += distance.eq(self._distance(m, self.score, self.own, 1 << frac))
        with m.If(self.collect):
            m.d.comb += [self.a.eq(distance), self.b.eq(distance[spare:].as_signed())]
        with m.Elif(self.prepare):
            m.d.comb += [self.a.eq(self.mean), self.b.eq(self.token.mantissa)]
        with m.Else():
            m.d.comb += [self.a.eq(factor), self.b.eq(self.score)]
        accepted = self.collect & self.turn & (self.token.op != Op.INFER)
        arrived = delayed(m, accepted, 2, "accepted")
        squares = Signal(square_sum_width(self.scores, self.classes))
        with m.If(arrived[2]):
            m.d.sync += squares.eq(squares + self.product[: len(squares)])

        # Their sum times 2/n, from the lowest bit of 2/n to its highest: what falls off is final.
        drop = self.mean_frac + 1 + 2 * frac - spare - LOSS_FRAC
        low = max(0, MEAN_BITS - drop)
        place = Signal(range(MEAN_BITS + 2), init=MEAN_BITS + 1)
        total = Signal(len(squares) + low)
        digit = Const(self.mean, MEAN_BITS).bit_select(place[: ceil_log2(MEAN_BITS)], 1)
        loss, most = total[drop + low - MEAN_BITS :], 2 ** len(self.loss) - 1
        m.d.comb += [
            self.busy.eq(place != MEAN_BITS + 1),
            self.loss.eq(Mux(loss[len(self.loss) :].any(), most, loss)),
            self.loss_valid.eq(place == MEAN_BITS),
        ]
        with m.If(self.busy):
            m.d.sync += [
                total.eq((total + Mux(digit, Cat(Const(0, low), squares), 0)) >> 1),
                place.eq(place + 1),
            ]
        with m.If(self.loss_valid):
            m.d.sync += [total.eq(0), squares.eq(0)]

        with m.If(self.prepare):
            m.d.sync += [wait.eq(wait + 1), factor.eq(self.product)]
            with m.If(wait == 2):
                m.d.comb += self.ready.eq(1)
                m.d.sync += [wait.eq(0), place.eq(0)]
        one = Cat(Const(0, frac), factor, Const(0, 1)).as_signed()
        m.d.comb += self.difference.eq(self._distance(m, self.product, self.product_own, one))
        return m

    def _distance(self, m, score, own, one):
        """``score`` less its target; 0 if that is beyond the margin."""
        if not isinstance(self.plan.network.loss, SquaredHinge):
            return score - Mux(own, one, 0)
        distance = score - Mux(own, one, -one)
        away = Signal(distance.shape())
        m.d.comb += away.eq(distance)
        return Mux(own ^ away[-1], 0, away)
