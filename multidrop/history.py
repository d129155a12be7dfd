"""What a training run measured, epoch by epoch: as a table, JSON, CSV and curves."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
        """As JSON has it: a value that is not finite, which JSON cannot hold, becomes None."""
        rows = [asdict(epoch) for epoch in self.epochs]
        return {"settings": self.settings, "epochs": [{k: _finite(v) for k, v in row.items()} for row in rows]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> History:
        """The history that `to_dict` wrote."""
        rows: list[dict[str, Any]] = [
            {k: math.nan if v is None else v for k, v in row.items()} for row in content["epochs"]
        ]
        return cls(dict(content["settings"]), [Epoch(**row) for row in rows])

    def to_json(self, path: str | Path) -> None:
        """Settings and epochs, to a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def from_json(cls, path: str | Path) -> History:
        """The history that `to_json` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text()))

    def to_csv(self, path: str | Path) -> None:
        """The epochs, to a CSV file with a line of names."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(column.name for column in fields(Epoch))
            writer.writerows(map(astuple, self.epochs))

    def plot(self, path: str | Path | None = None) -> Figure:
        """Training loss, training accuracy and test accuracy over the epochs, as a Matplotlib figure.

        Args:
            path: where to write it as well; the ending decides the format.
        """
        return plot([self], path)


def plot(histories: Sequence[History], path: str | Path | None = None) -> Figure:
    """The curves of one or several runs side by side, each under its backend's name, as a Matplotlib figure.

    Args:
        histories: the runs.
        path: where to write it as well; the ending decides the format.
    """
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
        figure.savefig(path, dpi=150)
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
