"""What every command prints to, and the statuses with which it exits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .needs import section_extra

if TYPE_CHECKING:
    from rich.console import Console

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def complain(message: str) -> None:
    """Prints a message as one line on standard error."""
    print("multidrop:", " ".join(message.splitlines()), file=sys.stderr)


def aligned(rows: Sequence[Sequence[str]], *, texts: int = 0) -> list[str]:
    """A table as lines, which a narrow terminal wraps. A table of Rich would cut the numbers.

    Args:
        rows: the cells of each row.
        texts: the number of columns, from the first, that are aligned to the left; the others are to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        return "  ".join(f"{cell:{'<' if n < texts else '>'}{width}}" for n, (cell, width) in pairs).rstrip()

    return [line(row) for row in rows]


def plain_console(*, stderr: bool = False) -> Console:
    """Makes a console that prints text as it is.

    Rich reads `[bold]` and `:smile:` in a text as markup. A text may contain a path, a name or an error, so no text is
    read as markup here; `style=` formats a text.

    Args:
        stderr: whether to print to standard error.
    """
    with section_extra("output on a terminal"):
        from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
