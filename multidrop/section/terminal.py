"""The console that every command prints to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .needs import section_extra

if TYPE_CHECKING:
    from rich.console import Console


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
