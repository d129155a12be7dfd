"""The measurements of a training run by epoch, as a table, JSON, CSV and curves."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, astuple, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checks, files, html
from .curves import plot_histories, png, write_figure

__all__ = ["CURVES", "Epoch", "History", "columns", "header", "plot", "row", "write_csv", "write_figure"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Epoch:
    """The measurements of one epoch.

    `train_loss` (mean softmax cross-entropy, in nats) and `train_accuracy` are averages over the epoch's batches, each
    measured in training mode before its step. `test_loss` and `test_accuracy` are measured after the epoch, in
    evaluation mode; both are NaN for an epoch that was not tested. So are `eval_train_loss` and `eval_train_accuracy`,
    of the whole training data, if they were asked for. `seconds` is the time of the training steps, without the test.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float
    examples_per_second: float
    test_loss: float = math.nan
    eval_train_loss: float = math.nan
    eval_train_accuracy: float = math.nan

    @property
    def tested(self) -> bool:
        """Whether the net was tested after this epoch."""
        return not math.isnan(self.test_accuracy)


# The table's columns: the field, the heading, and the format of its values, which sets the width.
COLUMNS = (
    ("epoch", "epoch", "5d"),
    ("train_loss", "train loss", "10.4f"),
    ("train_accuracy", "train acc", "9.4f"),
    ("eval_train_loss", "eval train loss", "15.4f"),
    ("eval_train_accuracy", "eval train acc", "14.4f"),
    ("test_loss", "test loss", "9.4f"),
    ("test_accuracy", "test acc", "8.4f"),
    ("seconds", "seconds", "7.2f"),
    ("examples_per_second", "examples/s", "10,.0f"),
)
CURVES = (
    ("train_loss", "train loss"),
    ("train_accuracy", "train accuracy"),
    ("test_loss", "test loss"),
    ("test_accuracy", "test accuracy"),
)


def columns(train_accuracy: bool = False) -> tuple[tuple[str, str, str], ...]:
    """The columns of a table, with or without those of the training data in evaluation mode."""
    return COLUMNS if train_accuracy else tuple(each for each in COLUMNS if not each[0].startswith("eval_"))


def header(train_accuracy: bool = False) -> str:
    """The heading of the table."""
    return "  ".join(title.rjust(_width(form)) for _, title, form in columns(train_accuracy))


def row(epoch: Epoch, train_accuracy: bool = False) -> str:
    """The line of one epoch in the table."""
    return "  ".join(cell(getattr(epoch, field), form) for field, _, form in columns(train_accuracy))


def cell(value: float, form: str) -> str:
    """A value of the table; one that was not measured is a dash."""
    return "–".rjust(_width(form)) if math.isnan(value) else format(value, form)


def _width(form: str) -> int:
    return int(form.split(".")[0].rstrip("d,"))


@dataclass
class History:
    """The epochs of one run. Prints as a table.

    Attributes:
        settings: the run's settings (backend, version, data, dtype, lr, …).
        epochs: an `Epoch` for each pass over the training data.
        label: the run's name in plots; by default the backend's name.
        notes: what a reader of the numbers must know, such as that the speed of epoch 1 includes compiling.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    label: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.label = self.label or str(self.settings.get("backend") or "")

    def __str__(self) -> str:
        train_accuracy = self.train_accuracy
        lines = [row(epoch, train_accuracy) for epoch in self.epochs]
        return "\n".join([header(train_accuracy), *lines, *self.notes])

    def _repr_html_(self) -> str:
        """The table and the curves, as notebooks show them."""
        shown = columns(self.train_accuracy)
        rows = [[cell(getattr(epoch, name), form).strip() for name, _, form in shown] for epoch in self.epochs]
        found = html.table([title for _, title, _ in shown], rows, caption=self.label, texts=0) + html.lines(self.notes)
        if self.epochs:
            with suppress(ImportError):  # without Matplotlib, the table alone
                picture = base64.b64encode(png(self.plot())).decode()
                found += f'<img alt="curves of {escape(self.label)}" src="data:image/png;base64,{picture}">'
        return found

    @property
    def train_accuracy(self) -> bool:
        """Whether the training data were evaluated."""
        return any(not math.isnan(epoch.eval_train_loss) for epoch in self.epochs)

    def note(self, text: str) -> None:
        """Adds a note, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def to_dict(self) -> dict[str, Any]:
        """Converts to what JSON can represent. Values that are not finite become None.

        Raises:
            ValueError: if JSON cannot represent the settings.
        """
        epochs = [checks.json_object("epoch", asdict(epoch)) for epoch in self.epochs]
        settings = checks.json_object("settings", self.settings)
        return {"settings": settings, "epochs": epochs, "label": self.label, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> History:
        """Reads the result of `to_dict`, also of a version without label, notes and test losses.

        Raises:
            ValueError: if an entry is missing or has the wrong type; the message names it.
        """
        if not isinstance(content, Mapping) or not content.keys() >= {"settings", "epochs"}:
            raise ValueError(f"history: expected an object with settings and epochs; got {checks.shown(content)}")
        if not isinstance(content["epochs"], list):
            raise ValueError(f"epochs: expected a list; got {checks.shown(content['epochs'])}")
        settings = checks.json_object("settings", content["settings"])
        epochs = [_epoch(number, row) for number, row in enumerate(content["epochs"], start=1)]
        label, notes = content.get("label", ""), content.get("notes", [])
        if not isinstance(label, str):
            raise ValueError(f"history: label: expected a string; got {checks.shown(label)}")
        if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
            raise ValueError(f"history: notes: expected a list of strings; got {checks.shown(notes)}")
        return cls(settings, epochs, label, list(notes))

    def to_json(self, path: str | Path) -> None:
        """Writes settings and epochs to a JSON file, atomically.

        Raises:
            ValueError: for a bad path, or if JSON cannot represent the settings.
            OSError: if the file cannot be written; the previous file is unchanged.
        """
        content = json.dumps(self.to_dict(), indent=2) + "\n"
        files.write(checks.file_path("path", path), content.encode())

    @classmethod
    def from_json(cls, path: str | Path) -> History:
        """Reads a file that `to_json` wrote.

        Raises:
            ValueError: if the file is not such a history; the message names the file.
            OSError: if it cannot be read.
        """
        path = checks.file_path("path", path)
        content = path.read_bytes()
        try:
            return cls.from_dict(json.loads(content))
        except (ValueError, RecursionError) as error:  # the errors of JSON and of UTF-8 are ValueErrors
            raise ValueError(f"{path}: expected a history that to_json wrote: {error}") from error

    def to_csv(self, path: str | Path) -> None:
        """Writes the epochs to a CSV file with a header line, atomically.

        Raises:
            ValueError: for a bad path.
            OSError: if the file cannot be written; the previous file is unchanged.
        """
        write_csv(path, [[column.name for column in fields(Epoch)], *map(astuple, self.epochs)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plots losses and accuracies over the epochs, as a Matplotlib figure: see `multidrop.plot_histories`.

        Args:
            path: the file to write, if any; its extension decides the format.

        Raises:
            ValueError: for a bad path, or an extension that Matplotlib does not support.
            OSError: if the file cannot be written; the previous file is unchanged.
        """
        return plot_histories(self, path)


plot = plot_histories  # its former name


def write_csv(path: str | Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a CSV file, atomically."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    files.write(checks.file_path("path", path), text.getvalue().encode())


def _epoch(number: int, row: Any) -> Epoch:
    names = [column.name for column in fields(Epoch)]
    former = [column.name for column in fields(Epoch) if column.default is MISSING]
    if not isinstance(row, Mapping) or not set(former) <= set(row) <= set(names):
        raise ValueError(f"epoch {number}: expected an object with {', '.join(names)}; got {checks.shown(row)}")
    if checks.positive("epoch", row["epoch"]) != number:
        raise ValueError(f"epochs: expected the numbers 1, 2, … in order; got {row['epoch']} instead of {number}")
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in row.items()}
    for name, value in values.items():
        if type(value) not in (int, float):
            raise ValueError(f"epoch {number}: {name}: expected a number; got {checks.shown(value)}")
    return Epoch(**values)
