"""Tables in HTML, as notebooks show them. They set no colours, so that they are read in light and dark themes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

ROWS = 20
"""The most rows of a table that is shown in full; longer ones scroll."""


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "", texts: int = 1) -> str:
    """A table.

    Args:
        headings: the headings of the columns.
        rows: the cells of each row.
        caption: a line above the table, if any.
        texts: the number of columns, from the first, that are text, and so aligned to the left.
    """
    sides = ["left" if number < texts else "right" for number in range(len(headings))]

    def line(tag: str, cells: Sequence[object]) -> str:
        pairs = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="text-align:{side}">{escape(str(cell))}</{tag}>' for cell, side in pairs)

    body = [f"<tr>{line('td', row)}</tr>" for row in rows]
    head = f"<thead><tr>{line('th', headings)}</tr></thead>"
    above = f'<caption style="caption-side:top;text-align:left">{escape(caption)}</caption>' if caption else ""
    found = f"<table>{above}{head}<tbody>{''.join(body)}</tbody></table>"
    return f'<div style="max-height:30em;overflow-y:auto">{found}</div>' if len(body) > ROWS else found


def lines(texts: Iterable[str]) -> str:
    """A paragraph for each text."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)
