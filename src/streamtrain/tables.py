"""Tables for people: the same rows in a terminal and in a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape

__all__ = ["Shown", "html_table", "text_table"]


class Shown(ABC):
    """What shows itself as a table with a sentence below it, in a terminal and in a notebook.

    Classes have ``table()``, and ``_summary()`` if there is something to say.
    """

    @abstractmethod
    def table(self) -> tuple[Sequence, Sequence]:
        """Header and rows, as :func:`text_table` takes them."""

    def _summary(self):
        return ""

    def __str__(self):
        return "\n".join(filter(None, (text_table(*self.table()), self._summary())))

    def _repr_html_(self):
        summary = self._summary()
        return html_table(*self.table()) + (f"<p>{escape(summary, quote=False)}</p>" if summary else "")


def _cell(value):
    if isinstance(value, float):
        if (2 * value).is_integer() and abs(value) < 1000:  # halves, as of block RAMs, are exact
            return f"{value:g}"
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(value):
    return isinstance(value, (int, float))


def text_table(header, rows):
    """Rows as aligned text, numbers to the right."""
    cells = [[str(name) for name in header]] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [any(_is_number(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for row in cells:
        line = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(line).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def html_table(header, rows):
    """Rows as an HTML table, numbers to the right."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in header)
    body = []
    for row in rows:
        cells = "".join(
            f'<td style="text-align:{"right" if _is_number(value) else "left"}">'
            f"{escape(_cell(value))}</td>"
            for value in row
        )
        body.append(f"<tr>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
