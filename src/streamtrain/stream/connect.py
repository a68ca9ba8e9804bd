"""Join streams that carry the same format."""

from amaranth.lib import wiring

__all__ = ["connect"]


def connect(m, source, sink):
    """Connect ``source`` to ``sink`` if they carry the same payload shape.

    :func:`wiring.connect` compares only widths, so it accepts streams whose bits mean different
    things. Ports of the enclosing component are passed through :func:`wiring.flipped`, as there.

    Raises
    ------
    ConnectionError
        :exc:`wiring.ConnectionError`, if the shapes differ.
    """
    sent = source.signature.members["payload"].shape
    expected = sink.signature.members["payload"].shape
    if sent != expected:
        raise wiring.ConnectionError(f"Stream of {sent!r} cannot feed a stream of {expected!r}")
    wiring.connect(m, source, sink)
