"""What a loss says of itself to :class:`~streamtrain.pipeline.loss.ScoreLoss`."""

from amaranth import signed
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.layouts import loss_token_layout
from streamtrain.pipeline.numbers import DSP_WIDTHS

__all__ = ["rule_members"]


def rule_members(plan):
    """Members of a rule, which turns scores into a loss and errors.

    A rule also says ``frac``, the fractional bits of ``difference``.

    Members
    -------
    token : :py:`In(loss_token_layout(plan))`
        What to do with the sample.
    collect, prepare : :py:`In(1)`
        Scores arrive; all are there, but the rule is not ``ready``. Afterwards errors are sent.
    score : :py:`In(output format)`
        Of the class whose turn it is: in ``collect``, the one that arrives.
    own, last : :py:`In(1)`
        It is the label's class; it is the last class.
    turn : :py:`In(1)`
        It is the next class's turn from the next cycle on. After the last comes the first.
    largest : :py:`In(output format)`
        The largest score, once all are there.
    next : :py:`Out(1)`
        Of ``prepare``: ``turn``, please.
    ready : :py:`Out(1)`
        Of ``prepare``: errors may be sent from the next cycle on.
    a, b : :py:`Out(signed(...))`
        What is multiplied; to send errors, what makes the error of the class whose turn it is.
    product : :py:`In(signed(...))`
        Of what ``a`` and ``b`` were two cycles ago; of errors, the one of two that moved.
    product_own : :py:`In(1)`
        It is the label's class.
    difference : :py:`Out(signed(...))`
        The error that ``product`` makes, not rounded yet.
    loss, loss_valid : :py:`Out(32)`, :py:`Out(1)`
        The loss so far: the last one that is valid counts.
    busy : :py:`Out(1)`
        After ``prepare``: the loss is not there yet.
    """
    score = plan.stages[-1].output
    wide, narrow = DSP_WIDTHS
    return {
        "token": In(loss_token_layout(plan)),
        "collect": In(1),
        "prepare": In(1),
        "score": In(score),
        "own": In(1),
        "last": In(1),
        "turn": In(1),
        "largest": In(score),
        "next": Out(1),
        "ready": Out(1),
        "a": Out(signed(wide)),
        "b": Out(signed(narrow)),
        "product": In(signed(wide + narrow)),
        "product_own": In(1),
        "difference": Out(signed(wide + narrow + 1)),
        "loss": Out(32),
        "loss_valid": Out(1),
        "busy": Out(1),
    }
