"""Shows the progress of a training run in a notebook: a bar, the table of epochs and the curves, while it trains."""

from __future__ import annotations

import importlib
import sys
import time
from types import TracebackType
from typing import Any

from .history import History
from .progress import Display

BAR_SECONDS, CURVES_SECONDS = 0.2, 1.0
"""The least time between two updates of the bar, and of the curves, whose drawing takes about 0.1 s."""

NOTHING = "<span></span>"  # of an empty page a notebook shows the name of its class


def in_notebook() -> bool:
    """Whether the program runs in a kernel that shows HTML. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookDisplay(Display):
    """Updates one output of the cell that trains: a progress bar, and below it the history, as it displays itself."""

    def __init__(self) -> None:
        super().__init__()
        self._ipython: Any = importlib.import_module("IPython.display")
        self._history: History | None = None
        self._shown = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._history is not None:
            self._bar_handle.update(self._html(NOTHING))
            self._show_history()

    def run(self, history: History, num_epochs: int, train_accuracy: bool = False) -> None:
        """Shows the history so far."""
        self._history, self._epochs = history, num_epochs
        self._bar_handle = self._ipython.display(self._html(NOTHING), display_id=True)
        self._handle = self._ipython.display(history, display_id=True)

    def epoch(self, number: int, batches: Any) -> None:
        """Shows that an epoch begins."""
        self._number, self._batch = number, 0
        self._total = len(batches) if hasattr(batches, "__len__") else None
        self._show_bar()

    def batch(self) -> None:
        """Shows that a batch is done."""
        self._batch += 1
        if time.monotonic() - self._bar_shown > BAR_SECONDS:
            self._show_bar()

    def done(self, history: History) -> None:
        """Shows an epoch that is done."""
        if time.monotonic() - self._shown > CURVES_SECONDS:
            self._show_history()

    def _show_bar(self) -> None:
        known = f'value="{self._batch}" max="{self._total}"' if self._total else ""
        self._bar_handle.update(self._html(f"epoch {self._number} of {self._epochs} <progress {known}></progress>"))
        self._bar_shown = time.monotonic()

    def _show_history(self) -> None:
        self._handle.update(self._history)
        self._shown = time.monotonic()

    def _html(self, text: str) -> Any:
        return self._ipython.HTML(text)
