"""Give one payload to several streams."""

from amaranth import Signal

__all__ = ["fork"]


def fork(m, valid, branches):
    """Offer what is valid to several output streams at once, each of which takes it when it can.

    Drives ``valid`` of each branch; the payloads are the caller's to drive.

    Parameters
    ----------
    m : :class:`Module`
    valid : value
        There is something to offer.
    branches : sequence of (stream, wanted)
        A branch that is not ``wanted`` is left out this time.

    Returns a value: all branches have taken it, or do so in this cycle.
    """
    done = []
    for number, (port, wanted) in enumerate(branches):
        taken = Signal(name=f"fork{number}_taken")
        finished = Signal(name=f"fork{number}_finished")
        m.d.comb += [
            port.valid.eq(valid & wanted & ~taken),
            finished.eq(taken | port.ready | ~wanted),
        ]
        done.append((taken, finished))
    everywhere = Signal(name="fork_done")
    m.d.comb += everywhere.eq(1)
    for taken, finished in done:
        with m.If(~finished):
            m.d.comb += everywhere.eq(0)
        m.d.sync += taken.eq(valid & finished & ~everywhere)
    return everywhere
