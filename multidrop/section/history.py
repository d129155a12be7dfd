"""What a training run measured, epoch by epoch: as a table, JSON, CSV and curves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checks, files
from .needs import section_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    with section_extra("a plot"):
        from matplotlib.figure import Figure


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    `train_loss` (mean softmax cross-entropy, in nats) and `train_accuracy` are taken over the epoch's batches as they
    are trained on, in training mode; `test_accuracy` at its end, in evaluation mode; `seconds` is the time of the
    training steps, without the test.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float
    examples_per_second: float


# The table's columns: heading, and the format of a value, which decides the width.
COLUMNS = (
    ("epoch", "5d"),
    ("train loss", "10.4f"),
    ("train acc", "9.4f"),
    ("test acc", "8.4f"),
    ("seconds", "7.2f"),
    ("examples/s", "10,.0f"),
)
CURVES = (("train_loss", "train loss"), ("train_accuracy", "train accuracy"), ("test_accuracy", "test accuracy"))


def header() -> str:
    """The table's first line."""
    return "  ".join(title.rjust(int(form.split(".")[0].rstrip("d,"))) for title, form in COLUMNS)


def row(epoch: Epoch) -> str:
    """An epoch's line of the table."""
    return "  ".join(format(value, form) for value, (_, form) in zip(astuple(epoch), COLUMNS, strict=True))


@dataclass
class History:
    """The epochs of one run, and the settings that it was made with (backend, version, data, dtype, lr, …)."""

    settings: dict[str, Any] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([header(), *map(row, self.epochs)])

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: a value that is not finite, which JSON cannot hold, becomes None.

        Raises:
            ValueError: where JSON cannot hold the settings.
        """
        epochs = [checks.json_object("epoch", asdict(epoch)) for epoch in self.epochs]
        return {"settings": checks.json_object("settings", self.settings), "epochs": epochs}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> History:
        """The history that `to_dict` wrote.

        Raises:
            ValueError: naming what is missing in `content` or is of another type.
        """
        if not isinstance(content, Mapping) or not content.keys() >= {"settings", "epochs"}:
            raise ValueError(f"history: expected an object with settings and epochs; got {checks.shown(content)}")
        if not isinstance(content["epochs"], list):
            raise ValueError(f"epochs: expected a list; got {checks.shown(content['epochs'])}")
        settings = checks.json_object("settings", content["settings"])
        return cls(settings, [_epoch(number, row) for number, row in enumerate(content["epochs"], start=1)])

    def to_json(self, path: str | Path) -> None:
        """Settings and epochs, to a JSON file, which is replaced as a whole.

        Raises:
            ValueError: where `path` is none, or JSON cannot hold the settings.
            OSError: where it cannot be written; the file before it is untouched.
        """
        content = json.dumps(self.to_dict(), indent=2) + "\n"
        files.write(checks.path("path", path), content.encode())

    @classmethod
    def from_json(cls, path: str | Path) -> History:
        """The history that `to_json` wrote.

        Raises:
            ValueError: naming the file, where it is none.
            OSError: where it cannot be read.
        """
        path = checks.path("path", path)
        content = path.read_bytes()
        try:
            return cls.from_dict(json.loads(content))
        except (ValueError, RecursionError) as error:  # the errors of JSON and of UTF-8 are ValueErrors
            raise ValueError(f"{path}: expected a history that to_json wrote: {error}") from error

    def to_csv(self, path: str | Path) -> None:
        """The epochs, to a CSV file with a line of names, which is replaced as a whole.

        Raises:
            ValueError: where `path` is none.
            OSError: where it cannot be written; the file before it is untouched.
        """
        write_csv(path, [[column.name for column in fields(Epoch)], *map(astuple, self.epochs)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Training loss, training accuracy and test accuracy over the epochs, as a Matplotlib figure.

        Args:
            path: where to write it as well; the ending decides the format.

        Raises:
            ValueError: where the path is none, or Matplotlib writes no such format.
            OSError: where it cannot be written; the file before it is untouched.
        """
        return plot([self], path)


def write_csv(path: str | Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    files.write(checks.path("path", path), text.getvalue().encode())


def write_figure(path: str | Path, figure: Figure) -> None:
    """Writes a Matplotlib figure in the format of the path's ending; without one, in Matplotlib's own, whose ending is
    then added.

    Raises:
        ValueError: where the path is none, or Matplotlib writes no such format.
        OSError: where it cannot be written; the file before it is untouched.
    """
    path = checks.path("path", path)
    if not path.suffix:
        path = path.with_name(f"{path.name.rstrip('.')}.{figure.canvas.get_default_filetype()}")
    form = path.suffix[1:].lower()
    endings = sorted(figure.canvas.get_supported_filetypes())
    if form not in endings:
        raise ValueError(f"path: expected an ending among {', '.join(endings)}; got {checks.shown(path.name)}")
    files.write(path, lambda file: figure.savefig(file, format=form, dpi=150))


def plot(histories: Sequence[History], path: str | Path | None = None) -> Figure:
    """The curves of one or several runs side by side, each under its backend's name, as a Matplotlib figure.

    Args:
        histories: the runs.
        path: where to write it as well; the ending decides the format.
    """
    with section_extra("a plot"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 4.3 * len(histories), 3.6), layout="constrained")
    panels = figure.subplots(1, len(histories), sharey=True, squeeze=False)[0]
    for panel, history in zip(panels, histories, strict=True):
        _draw_curves(panel, history)
    panels[0].legend()
    source = histories[0].settings.get("data")
    if source:
        figure.supxlabel(source, fontsize="small", color="0.4")
    if path is not None:
        write_figure(path, figure)
    return figure


def _draw_curves(panel: Axes, history: History) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch.epoch for epoch in history.epochs]
    for (name, label), style in zip(CURVES, ("-", "--", "-."), strict=True):
        # A marker as well, for a run of one epoch has no line.
        panel.plot(numbers, [getattr(e, name) for e in history.epochs], style, marker=".", label=label)
    panel.set_title(history.settings.get("backend", ""))
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)


def _epoch(number: int, row: Any) -> Epoch:
    names = [column.name for column in fields(Epoch)]
    if not isinstance(row, Mapping) or set(row) != set(names):
        raise ValueError(f"epoch {number}: expected an object with {', '.join(names)}; got {checks.shown(row)}")
    if checks.positive("epoch", row["epoch"]) != number:
        raise ValueError(f"epochs: expected the numbers 1, 2, … in order; got {row['epoch']} in the place of {number}")
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in row.items()}
    for name, value in values.items():
        if type(value) not in (int, float):
            raise ValueError(f"epoch {number}: {name}: expected a number; got {checks.shown(value)}")
    return Epoch(**values)
