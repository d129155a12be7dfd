"""Shows the progress of a sweep: runs done, and the time left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

from ..needs import section_extra
from ..terminal import plain_console
from .runs import Run

LINES = 20  # at most, where there is no bar


class Progress:
    """A progress bar on standard error if that is a terminal, else some lines there.

    Args:
        total: the number of runs.
        kept: how many of them were done before.
    """

    def __init__(self, total: int, kept: int) -> None:
        self._total, self._kept, self._done = total, kept, kept
        self._start = time.monotonic()
        self._bar: Any = None
        if not sys.stderr.isatty():
            return
        with section_extra("the progress of a sweep"):
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

        columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=plain_console(stderr=True), transient=True)
        self._task = self._bar.add_task(f"{kept} kept from before" if kept else "", total=total, completed=kept)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        else:
            self._print("done")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def done(self, run: Run) -> None:
        """Announces that a run is done."""
        self._done += 1
        if self._bar:
            self._bar.update(self._task, advance=1, description=str(run))
        elif LINES * self._done // self._total > LINES * (self._done - 1) // self._total:
            seconds = (time.monotonic() - self._start) / (self._done - self._kept) * (self._total - self._done)
            self._print(f"done, {timedelta(seconds=round(seconds))} left")

    def _print(self, state: str) -> None:
        print(f"multidrop: {self._done:,} of {self._total:,} runs {state}", file=sys.stderr, flush=True)
