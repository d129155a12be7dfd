"""The folder of a run's results: which one, and what is written into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from ..dispatch import declared_backends
from . import checkpoint as checkpoints
from .curves import largest_difference
from .history import CURVES, History, plot, write_csv
from .needs import section_extra

DEFAULT = Path("multidrop-out")
HISTORY, COMPARISON = "history.json", "comparison.csv"
NAMES = (HISTORY, "history.csv", COMPARISON, "curves.png")


class Results:
    """The results of one command, which trains in one or several backends.

    Results of another run are never overwritten unasked. Without `out`, they go to the first folder among
    multidrop-out, multidrop-out-2, … that has none. A resumed run goes on in the folder of its own results.

    Args:
        out: the folder; None for the default.
        overwrite: whether to replace results of another run.
        backends: the names of the backends.
        resumed: the histories that are resumed, by backend.

    Raises:
        ValueError: if `out` has results of another run.
        OSError: if the folder cannot be made, or nothing can be written into it.
        ImportError: if Matplotlib is not installed.
    """

    def __init__(
        self, out: Path | None, overwrite: bool, backends: Sequence[str], resumed: Mapping[str, History]
    ) -> None:
        with section_extra("a plot"):
            import matplotlib  # noqa: F401  # a missing package shows before hours of training, too
        self._default, self._overwrite, self._backends, self._resumed = out is None, overwrite, backends, resumed
        self._written = False
        if out is None:
            self.folder = self._free()
        elif self._open(out):
            self.folder = out
        else:
            raise ValueError(
                f"out: expected a folder without results of another run; got {out}: choose another one, or add "
                "--overwrite"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass  # fails before hours of training, not after

    def add(self, history: History) -> Path:
        """Writes the results of one run, and returns their folder."""
        if not self._written and self._default:
            self.folder = self._free()  # another process may have used the folder meanwhile
        folder = self._of(history.settings["backend"])
        folder.mkdir(parents=True, exist_ok=True)
        if not self._written and self._overwrite:
            for path in _results(self.folder):
                if path.parent != folder or path.name == COMPARISON:  # the others are about to be replaced
                    path.unlink()
        self._written = True
        history.to_json(folder / HISTORY)
        history.to_csv(folder / "history.csv")
        plot([history], folder / "curves.png")
        return folder

    def compare(self, histories: Sequence[History]) -> None:
        """Writes the comparison of several runs."""
        write_csv(self.folder / COMPARISON, comparison(histories))
        plot(histories, self.folder / "curves.png")

    def _of(self, backend: str) -> Path:
        return self.folder / backend if len(self._backends) > 1 else self.folder

    def _free(self) -> Path:
        names = (DEFAULT.with_name(f"{DEFAULT.name}-{number}") if number > 1 else DEFAULT for number in count(1))
        return next(folder for folder in names if self._open(folder))

    def _open(self, folder: Path) -> bool:
        """Whether this run may write into a folder: it has no results, or results of this run, which is resumed."""
        if self._overwrite or not _results(folder):
            return True
        several = len(self._backends) > 1
        found = {name: folder / name / HISTORY if several else folder / HISTORY for name in self._resumed}
        return any(path.exists() for path in found.values()) and all(
            _continues(self._resumed[name], path) for name, path in found.items() if path.exists()
        )


def _results(folder: Path) -> list[Path]:
    """The results that a folder holds, of a run in one or in several backends."""
    places = (folder, *(folder / backend for backend in declared_backends()))
    return [path for place in places for name in NAMES if (path := place / name).exists()]


def _continues(resumed: History, path: Path) -> bool:
    """Whether the epochs in a file are the first of a resumed run. Their times, to the nanosecond, identify the run."""
    with suppress(ValueError, OSError):
        earlier = History.from_json(path).to_dict()["epochs"]
        return resumed.to_dict()["epochs"][: len(earlier)] == earlier
    return False


def resumed(checkpoint: Path | None) -> History | None:
    """The history in a checkpoint; None if there is no such file, or none that `train` will accept."""
    if checkpoint is None or not os.path.isfile(checkpoint):
        return None
    with suppress(checkpoints.CheckpointError, ValueError):  # which `train` reports
        return History.from_dict(checkpoints.load(checkpoint)[1].get("history") or {})
    return None


def comparison(histories: Sequence[History]) -> list[list[Any]]:
    """The rows of comparison.csv: a header, then one row per epoch with the values of each backend and the largest
    difference between two backends. Differences of the loss are relative."""
    lines: list[list[Any]] = [["epoch"]]
    for _, label in CURVES:
        lines[0] += [f"{label} {h.settings['backend']}" for h in histories] + [f"{label} difference"]
    for epochs in zip(*(h.epochs for h in histories), strict=False):  # a resumed run may have more epochs than another
        line: list[Any] = [epochs[0].epoch]
        for field, _ in CURVES:
            values = [getattr(epoch, field) for epoch in epochs]
            line += [*values, largest_difference(field, values)]
        lines.append(line)
    return lines
