"""Mean squared error and squared hinge, in gates.

Both are a mean of squares of distances from a target, 1 for the sample's class and 0 or -1 for the
others; the hinge's distances are 0 beyond the target. So an error is 2/n * (z - t) times the learning
rate's mantissa: the shared multiplier makes 2/n a part of the mantissa once for a sample. The squares
are multiplied as the scores arrive, and their sum becomes a mean while the errors leave.

Source: Tang, "Deep learning using linear support vector machines", ICML 2013 workshop, equations
5 and 11, for the hinge.
"""

from amaranth import Cat, Const, Mux, Signal, signed

from streamtrain.host.device import LOSS_FRAC, Op
from streamtrain.network import SquaredHinge
from streamtrain.pipeline.gates import delayed
from streamtrain.pipeline.loss import ScoreLoss
from streamtrain.pipeline.numbers import DSP_WIDTHS
from streamtrain.pipeline.plan import MEAN_BITS, ceil_log2

__all__ = ["MeanOfSquares", "square_sum_width"]


def _spare(scores):
    """Bits by which a distance is too wide for the multiplier's narrow side."""
    return max(0, scores.width + 1 - DSP_WIDTHS[1])


def square_sum_width(scores, classes):
    """Bits that hold the sum of all classes' squared distances, for any scores of that format."""
    most = (1 << scores.width - 1) + (1 << scores.frac)
    return (classes * most * ((most >> _spare(scores)) + 1)).bit_length()


class MeanOfSquares(ScoreLoss):
    """Mean squared error or squared hinge: its loss, predicted class, and the errors of the scores.

    Parameters and members are those of :class:`~streamtrain.pipeline.loss.ScoreLoss`. A loss that is
    larger than 32 bits hold is the largest that they hold.

    Timing
    ------
    The first error follows the last score by 7 cycles, one more each cycle; then the result, but not
    before the 22nd cycle after the last score.
    """

    def _compute(self, m, s):
        mean, mean_frac = self.plan.mean_factor
        frac, spare = self.scores.frac, _spare(self.scores)

        # Squares, as the scores arrive. The multiplier's narrow side lacks the spare bits.
        s.distance = Signal(signed(self.scores.width + 1))
        m.d.comb += s.distance.eq(self._distance(m, self.i.payload[0], s.onehot, 1 << frac))
        s.narrow = s.distance[spare:].as_signed()
        accepted = Signal()
        m.d.comb += accepted.eq(self.i.valid & self.i.ready & (s.token.op != Op.INFER))
        arrived = delayed(m, accepted, 2, "accepted")
        squares = Signal(square_sum_width(self.scores, self.classes))
        with m.If(arrived[2]):
            m.d.sync += squares.eq(squares + s.product[: len(squares)])

        # Their sum times 2/n, from the lowest bit of 2/n to its highest: what falls off is final.
        drop = mean_frac + 1 + 2 * frac - spare - LOSS_FRAC
        low = max(0, MEAN_BITS - drop)
        s.place = place = Signal(range(MEAN_BITS + 2), init=MEAN_BITS + 1)
        total = Signal(len(squares) + low)
        digit = Const(mean, MEAN_BITS).bit_select(place[: ceil_log2(MEAN_BITS)], 1)
        loss = total[drop + low - MEAN_BITS :]
        with m.If(place < MEAN_BITS):
            m.d.sync += [
                total.eq((total + Mux(digit, Cat(Const(0, low), squares), 0)) >> 1),
                place.eq(place + 1),
            ]
        with m.Elif(place == MEAN_BITS):
            m.d.sync += [
                s.loss.eq(Mux(loss[len(s.loss) :].any(), 2 ** len(s.loss) - 1, loss)),
                total.eq(0),
                squares.eq(0),
                place.eq(place + 1),
            ]

        s.factor, s.operand, s.turn = mean, s.scores[0], s.turn_scores
        s.frac = 7 + mean_frac + frac
        s.done = place == MEAN_BITS + 1

    def _distance(self, m, score, onehot, one):
        """``score`` less its target; 0 if that is beyond the margin."""
        if not isinstance(self.plan.network.loss, SquaredHinge):
            return score - Mux(onehot, one, 0)
        distance = score - Mux(onehot, one, -one)
        away = Signal(distance.shape())
        m.d.comb += away.eq(distance)
        return Mux(onehot ^ away[-1], 0, away)

    def _difference(self, m, s):
        one = Cat(Const(0, self.scores.frac), s.scaled, Const(0, 1)).as_signed()
        return self._distance(m, s.product, s.hits[1], one)

    def _during(self, m, s, state):
        if state == "collect":
            m.d.comb += [s.a.eq(s.distance), s.b.eq(s.narrow)]
            m.d.sync += s.wait.eq(0)
        else:
            with m.If(s.wait == 2):
                m.d.sync += [s.place.eq(0), s.emitted.eq(s.token.op == Op.EVALUATE)]
