"""Shows the progress of a sweep: runs done, and the time left."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ..needs import section_extra
from .runs import Run


class Progress:
    """A progress bar on standard error if that is a terminal, else nothing.

    Args:
        total: the number of runs.
        kept: how many of them were done before.
    """

    def __init__(self, total: int, kept: int) -> None:
        self._bar: Any = None
        if not sys.stderr.isatty():
            return
        with section_extra("the progress of a sweep"):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

        columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(f"{kept} kept from before" if kept else "", total=total, completed=kept)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def done(self, run: Run) -> None:
        """Announces that a run is done."""
        if self._bar:
            self._bar.update(self._task, advance=1, description=str(run))
