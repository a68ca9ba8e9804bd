"""Join streams that carry the same format."""

from amaranth.lib import data, wiring

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
    if not _same(sent, expected):
        raise wiring.ConnectionError(f"Stream of {sent!r} cannot feed a stream of {expected!r}")
    wiring.connect(m, source, sink)


def _same(sent, expected):
    """Whether shapes are equal, formats of members included (layouts compare only their widths)."""
    if not (isinstance(sent, data.Layout) and isinstance(expected, data.Layout)):
        return sent == expected
    sent, expected = dict(sent), dict(expected)
    return sent.keys() == expected.keys() and all(
        field.offset == expected[key].offset and _same(field.shape, expected[key].shape)
        for key, field in sent.items()
    )
