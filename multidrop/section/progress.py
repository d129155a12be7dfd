"""Shows the progress of a training run: one line per epoch, and on a terminal a progress bar below them."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import checks
from .history import History, header, row
from .terminal import plain_console

if TYPE_CHECKING:
    from rich.console import Console


class Display:
    """Prints the table of epochs line by line, with a progress bar if the console is a terminal.

    Args:
        console: the console to print to; None prints nothing.
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
        """A display on standard error if that is a terminal, else one that prints nothing."""
        if not sys.stderr.isatty():
            return cls()
        return cls(plain_console(stderr=True))

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @classmethod
    def chosen(cls, display: Display | bool | None) -> Display:
        """The display that an argument asks for: itself, for True and None that for where the program runs, and for
        False one that shows nothing.

        Raises:
            ValueError: for anything else.
        """
        if isinstance(display, Display):
            return display
        if display is None:
            with suppress(ImportError):  # without Rich, a run that nobody asked to show trains unseen
                return cls.automatic()
            return cls()
        return cls.automatic() if checks.flag("display", display) else cls()

    @classmethod
    def automatic(cls) -> Display:
        """The display for where the program runs: a notebook, or else a terminal, if there is one."""
        from .notebook import NotebookDisplay, in_notebook  # which needs this module

        return NotebookDisplay() if in_notebook() else cls.on_terminal()

    def run(self, history: History, num_epochs: int, train_accuracy: bool = False) -> None:
        """Announces a run that begins, or continues after the epochs in its history.

        Args:
            history: the history, to which the run adds its epochs.
            num_epochs: the number of the last epoch.
            train_accuracy: whether the training data are evaluated.
        """
        self._train_accuracy = train_accuracy
        self._print("\n".join([*history.notes, header(train_accuracy)]))
        for epoch in history.epochs:
            self._print(row(epoch, train_accuracy))
        if self._bar:
            self._epochs = num_epochs
            self._task = self._bar.add_task("", total=None)

    def epoch(self, number: int, batches: Any) -> None:
        """Announces that an epoch begins."""
        if self._bar:
            total = len(batches) if hasattr(batches, "__len__") else None
            self._bar.reset(self._task, total=total, description=f"epoch {number} of {self._epochs}")

    def batch(self) -> None:
        """Announces that a batch is done."""
        if self._bar:
            self._bar.advance(self._task)

    def done(self, history: History) -> None:
        """Announces that an epoch is done, the last of the history."""
        self._print(row(history.epochs[-1], self._train_accuracy))

    def _print(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, soft_wrap=True)
