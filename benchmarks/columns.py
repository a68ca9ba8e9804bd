"""Tables of figures that are text already."""

__all__ = ["columns"]


def columns(header, rows):
    """Rows as aligned text: the first column to the left, all others to the right.

    Parameters
    ----------
    header : sequence of :class:`str`
        A name may have several lines, separated by ``\\n``.
    rows : sequence of sequences of :class:`str`
    """
    names = [name.split("\n") for name in header]
    height = max(map(len, names))
    padded = [name + [""] * (height - len(name)) for name in names]
    heads = list(zip(*padded, strict=True))
    widths = [max(map(len, column)) for column in zip(*heads, *rows, strict=True)]

    def line(cells):
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*map(line, heads), rule, *map(line, rows)])
