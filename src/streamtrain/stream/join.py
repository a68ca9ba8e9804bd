"""Take payloads of several streams together."""

__all__ = ["join"]


def join(m, o, first, second, *, done=None):
    """Offer something at ``o`` whenever both input streams have a payload.

    Drives ``valid`` of ``o`` and ``ready`` of the inputs; the payload is the caller's to drive.

    Parameters
    ----------
    m : :class:`Module`
    o, first, second : streams
    done : value, optional
        With this transfer at ``o`` the inputs are used up, and before it they wait. Without it,
        each transfer uses them up.
    """
    m.d.comb += o.valid.eq(first.valid & second.valid)
    for port, other in ((first, second), (second, first)):
        taken = o.ready & other.valid
        m.d.comb += port.ready.eq(taken if done is None else taken & done)
