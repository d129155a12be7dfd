"""Showing a training run while it goes: a line for each epoch, and a bar below them on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .history import Epoch, History, row
from .needs import section_extra

if TYPE_CHECKING:
    from rich.console import Console


class Display:
    """The table of epochs as it grows, and a progress bar where the console is a terminal.

    Args:
        console: where to show them; None shows nothing.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._bar: Any = None
        if console is not None and console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, transient=True)

    @classmethod
    def on_terminal(cls) -> Display:
        """On standard error where that is a terminal, otherwise nowhere."""
        if not sys.stderr.isatty():
            return cls()
        with section_extra("the display of a training run"):
            from rich.console import Console

        return cls(Console(stderr=True, highlight=False))

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def run(self, history: History, num_epochs: int) -> None:
        """A run begins, or goes on after the epochs in its history."""
        self._print(str(history))
        if self._bar:
            self._epochs = num_epochs
            self._task = self._bar.add_task("", total=None)

    def epoch(self, number: int, batches: Any) -> None:
        """An epoch begins."""
        if self._bar:
            total = len(batches) if hasattr(batches, "__len__") else None
            self._bar.reset(self._task, total=total, description=f"epoch {number} of {self._epochs}")

    def batch(self) -> None:
        """A batch is done."""
        if self._bar:
            self._bar.advance(self._task)

    def done(self, epoch: Epoch) -> None:
        """An epoch is done."""
        self._print(row(epoch))

    def _print(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, soft_wrap=True)
