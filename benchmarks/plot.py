"""Plots the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .frameworks import COPY, OURS, OWN, SECTION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    OURS: ("multidrop", "tab:blue", "o"),
    OWN: ("the framework's own", "tab:orange", "s"),
    SECTION: ("the section's formula", "tab:green", "^"),
    COPY: ("a plain copy", "0.5", "d"),
}

COLUMNS = 4  # panels per row
TICKS = range(4, 27, 4)  # powers of two


def sizes(result: Mapping[str, Any], path: Path, way: str = "") -> None:
    """Plots nanoseconds per element against size, with a panel for each framework and mode.

    Args:
        result: the experiment's result.
        path: the file to write.
        way: "" for forward, or `BACKWARD`.
    """
    from matplotlib.figure import Figure

    groups: dict[tuple[str, str], list[Any]] = {}
    for record in result["records"]:
        groups.setdefault((record["framework"], record["case"]["mode"]), []).append(record)
    if not groups:
        return
    rows = -(-len(groups) // COLUMNS)
    columns = min(len(groups), COLUMNS)
    figure = Figure(figsize=(2.7 * columns + 0.8, 2.5 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, ((framework, mode), records) in zip(panels.flat, groups.items(), strict=False):
        for who in LOOKS:
            points = [(r["case"]["size"], r["seconds"][who + way]) for r in records if who + way in r["seconds"]]
            _line(panel, who, [(x, {key: 1e9 * value / x for key, value in y.items()}) for x, y in points])
        panel.set_yscale("log")
        panel.set_xscale("log", base=2)
        panel.set_xticks([2**exponent for exponent in TICKS])
        panel.set_title(f"{framework}, {mode}", fontsize=10)
        panel.grid(alpha=0.3)
    for panel in panels.flat[len(groups) :]:
        panel.set_axis_off()
    for panel in panels[-1]:
        panel.set_xlabel("elements")
    figure.supylabel(f"forward{way}: ns an element", fontsize=10)
    _legend(figure, panels.flat)
    figure.savefig(path, dpi=120)


def probabilities(result: Mapping[str, Any], path: Path) -> None:
    """Plots nanoseconds per element against p, with a panel for each framework."""
    from matplotlib.figure import Figure

    records = [record for record in result["records"] if record["question"] == "p"]
    names = list(dict.fromkeys(record["framework"] for record in records))
    if not names:
        return
    figure = Figure(figsize=(3.2 * len(names) + 0.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        for who in LOOKS:
            points = [
                (r["case"]["p"], {key: 1e9 * value / r["case"]["size"] for key, value in r["seconds"][who].items()})
                for r in records
                if r["framework"] == name and who in r["seconds"]
            ]
            _line(panel, who, points)
        panel.set(title=name, xlabel="p", yscale="log")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("forward: ns an element")
    _legend(figure, panels)
    figure.savefig(path, dpi=120)


def _line(panel: Axes, who: str, points: Sequence[tuple[float, Mapping[str, float]]]) -> None:
    """Draws the medians, with a band between the quartiles."""
    if points:
        label, color, marker = LOOKS[who]
        x = [point for point, _ in points]
        panel.plot(x, [y["median"] for _, y in points], color=color, marker=marker, markersize=4, label=label)
        panel.fill_between(x, [y["low"] for _, y in points], [y["high"] for _, y in points], color=color, alpha=0.2)


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Draws one legend for all panels, in the order of `LOOKS`, because not every panel has every line."""
    lines = {line.get_label(): line for panel in panels for line in panel.get_lines()}
    labels = [label for label, _, _ in LOOKS.values() if label in lines]
    handles = [lines[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(LOOKS), frameon=False)
