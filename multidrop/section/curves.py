"""Plots training runs: their curves overlaid, and their differences."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import checks, files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .history import History

LOSS, ACCURACY = "loss (nats)", "accuracy"
# The curves of each panel: the field of an epoch, the label, the style of the line.
PANELS = {
    LOSS: (
        ("train_loss", "training, while it learns", "--"),
        ("eval_train_loss", "training data, evaluated", ":"),
        ("test_loss", "test", "-"),
    ),
    ACCURACY: (
        ("train_accuracy", "training, while it learns", "--"),
        ("eval_train_accuracy", "training data, evaluated", ":"),
        ("test_accuracy", "test", "-"),
    ),
}
# Distinguishable with any colour vision. M. Okabe, K. Ito, "Color universal design" (2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RANGE, DEVIATION = "range", "deviation"
SPREADS = {RANGE: "smallest to largest", DEVIATION: "mean ± standard deviation"}
EQUAL = 1e-18
"""Where a difference of 0 is drawn on a logarithmic axis."""

Values: TypeAlias = dict[int, list[float]]
"""The finite values of a curve, of one or several runs, by epoch."""


def plot_histories(
    histories: History | Sequence[History],
    path: str | Path | None = None,
    *,
    spread: str = RANGE,
    difference: bool | None = None,
) -> Figure:
    """Plots the loss and the accuracy of one or several runs over the epochs, overlaid in one panel each.

    Runs with the same label are drawn as their mean with a band around it, each label in a colour of its own. A line
    connects the epochs that were measured, which have a dot.

    Args:
        histories: a run, or several.
        path: the file to write, if any; its extension decides the format.
        spread: what the bands show: "range", from the smallest to the largest value, or "deviation", one standard
            deviation (with n − 1) below and above the mean.
        difference: whether a third panel shows the largest difference between the labels' means in each epoch, relative
            to the largest value for losses. By default it does for runs that differ only in backend.

    Raises:
        ValueError: if there is no run, for a bad path, or an extension that Matplotlib does not support.
        TypeError: for anything but histories.
        OSError: if the file cannot be written; the previous file is unchanged.
    """
    runs = _runs("histories", histories)
    spread = checks.choice("spread", spread, (RANGE, DEVIATION))
    groups = _grouped(runs)
    if difference is None:
        difference = len(groups) == len(runs) > 1 and all(_equal_but_backend(runs[0], run) for run in runs)
    with _figure(3 if checks.flag("difference", difference) else 2) as (figure, panels):
        stacked = difference and _coincide(groups)
        for panel, (title, curves) in zip(panels, PANELS.items(), strict=False):
            _set_axes(panel, title)
            for number, (label, group) in enumerate(groups.items()):
                # Equal curves cover each other: the first is the widest, so that all are seen.
                width = 1.5 + 1.5 * (len(groups) - 1 - number) if stacked else 1.5
                for place, (name, what, style) in enumerate(curves):
                    color = COLORS[(number if len(groups) > 1 else (1, 2, 0)[place]) % len(COLORS)]
                    legend = what if len(groups) == 1 else f"{label}, {what}"
                    _draw(panel, _values(group, name), spread, color=color, linestyle=style, lw=width, label=legend)
        if difference:
            _draw_largest(panels[2], groups)
        _legend(figure, panels, groups)
        repeated = max(map(len, groups.values()))
        band = f"lines: means of {repeated} runs; bands: {SPREADS[spread]}" if repeated > 1 else ""
        _caption(figure, runs, band)
        return _written(figure, path)


def plot_difference(
    a: History | Sequence[History],
    b: History | Sequence[History],
    path: str | Path | None = None,
    *,
    spread: str = RANGE,
) -> Figure:
    """Plots how loss and accuracy of `b` differ from those of `a` in each epoch: b − a.

    Of several runs, each one of `b` is paired with the one of `a` that has the same `seed` in its settings, or the same
    place if no settings have a seed. The line is the mean of the differences, with a band around it.

    Args:
        a: a run, or several.
        b: a run, or as many.
        path: the file to write, if any; its extension decides the format.
        spread: what the bands show, as for `plot_histories`.

    Raises:
        ValueError: if the runs cannot be paired, for a bad path, or an extension that Matplotlib does not support.
        TypeError: for anything but histories.
        OSError: if the file cannot be written; the previous file is unchanged.
    """
    pairs = _paired(_runs("a", a), _runs("b", b))
    spread = checks.choice("spread", spread, (RANGE, DEVIATION))
    names = " − ".join(dict.fromkeys(run.label for run in pairs[0][::-1]))
    with _figure(2) as (figure, panels):
        for panel, (title, curves) in zip(panels, PANELS.items(), strict=True):
            _set_axes(panel, f"difference in {title}")
            panel.set_title(names, fontsize="medium", parse_math=False)
            panel.axhline(0, color="0.4", lw=1)
            for place, (name, what, style) in enumerate(curves):
                values: Values = {}
                for first, second in pairs:
                    of_a, of_b = (_values([run], name) for run in (first, second))
                    for epoch in of_a.keys() & of_b.keys():
                        values.setdefault(epoch, []).append(of_b[epoch][0] - of_a[epoch][0])
                _draw(panel, values, spread, color=COLORS[(1, 2, 0)[place]], linestyle=style, lw=1.5, label=what)
        _legend(figure, panels, {})
        band = f"lines: means of {len(pairs)} pairs; bands: {SPREADS[spread]}" if len(pairs) > 1 else ""
        _caption(figure, pairs[0], band)
        return _written(figure, path)


def _runs(name: str, value: History | Sequence[History]) -> list[History]:
    from .history import History  # which needs this module

    runs = [value] if isinstance(value, History) else value
    if not (isinstance(runs, Sequence) and all(isinstance(run, History) for run in runs)):
        raise TypeError(f"{name}: expected a History or a list of them; got {checks.shown(value)}")
    if not runs:
        raise ValueError(f"{name}: expected at least one History; got none")
    return list(runs)


def _grouped(runs: Sequence[History]) -> dict[str, list[History]]:
    groups: dict[str, list[History]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    return groups


def _paired(a: Sequence[History], b: Sequence[History]) -> list[tuple[History, History]]:
    if len(a) != len(b):
        raise ValueError(f"b: expected as many runs as a has, {len(a)}; got {len(b)}")
    of_a, of_b = ([run.settings.get("seed") for run in runs] for runs in (a, b))
    if all(seed is None for seed in (*of_a, *of_b)):
        return list(zip(a, b, strict=True))
    if any(seeds.count(seed) != 1 for seeds in (of_a, of_b) for seed in of_a):
        raise ValueError(f"b: expected runs with the seeds of a, each once, {of_a}; got {of_b}")
    return [(run, b[of_b.index(seed)]) for run, seed in zip(a, of_a, strict=True)]


def _equal_but_backend(a: History, b: History) -> bool:
    of_a, of_b = ({**run.settings, "backend": "", "version": ""} for run in (a, b))
    return of_a == of_b


def _values(runs: Sequence[History], name: str) -> Values:
    found: Values = {}
    for run in runs:
        for epoch in run.epochs:
            if math.isfinite(value := getattr(epoch, name)):
                found.setdefault(epoch.epoch, []).append(value)
    return dict(sorted(found.items()))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _band(values: Sequence[float], spread: str) -> tuple[float, float]:
    if spread == RANGE or len(values) < 2:
        return min(values), max(values)
    mean = _mean(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean - deviation, mean + deviation


def _draw(panel: Axes, values: Values, spread: str, **style: Any) -> None:
    if not values:
        return
    epochs = sorted(values)
    # With markers, because a run of one epoch has no line.
    panel.plot(epochs, [_mean(values[epoch]) for epoch in epochs], marker=".", markersize=4 + style["lw"], **style)
    if max(map(len, values.values())) > 1:
        lower, upper = zip(*(_band(values[epoch], spread) for epoch in epochs), strict=True)
        panel.fill_between(
            epochs, lower, upper, color=style["color"], alpha=0.2 if style["linestyle"] == "-" else 0.08, lw=0
        )


def is_relative(name: str) -> bool:
    """Whether differences of a curve, given by the field of an epoch, are relative to its values."""
    return name.endswith("loss")


def largest_difference(name: str, values: Sequence[float]) -> float:
    """The largest difference between two values of a curve; of a loss, relative to the largest value."""
    scale = max(map(abs, values)) if is_relative(name) else 1.0
    return (max(values) - min(values)) / (scale or 1.0)


def _largest(groups: Mapping[str, Sequence[History]], name: str) -> dict[int, float]:
    """The largest difference between the means of any two groups, by epoch; relative for a loss."""
    means = [{epoch: _mean(v) for epoch, v in _values(group, name).items()} for group in groups.values()]
    epochs = sorted(set.intersection(*(set(of_group) for of_group in means)))
    return {epoch: largest_difference(name, [of_group[epoch] for of_group in means]) for epoch in epochs}


def _coincide(groups: Mapping[str, Sequence[History]]) -> bool:
    names = [name for curves in PANELS.values() for name, _, _ in curves]
    return all(value < 0.01 for name in names for value in _largest(groups, name).values())


def _draw_largest(panel: Axes, groups: Mapping[str, Sequence[History]]) -> None:
    _set_axes(panel, "largest difference")
    top = 0.0
    curves = (("train_loss", "training loss", 0), ("test_loss", "test loss", 1), ("test_accuracy", "test accuracy", 2))
    for name, label, number in curves:
        if found := _largest(groups, name):
            relative = f"{label}, relative" if is_relative(name) else label
            heights = [value or EQUAL for value in found.values()]
            marker, top = "o^s"[number], max(top, *heights)
            panel.plot(
                list(found), heights, marker=marker, markersize=5, lw=1, color=COLORS[2 + number], label=relative
            )
    panel.set_yscale("log")
    panel.set_ylim(EQUAL / 10, max(10 * top, 1e-6))
    ticks = [10.0**power for power in range(-15, 3, 3) if 10.0**power <= max(10 * top, 1e-6)]
    panel.set_yticks([EQUAL, *ticks], ["0", *(f"$10^{{{round(math.log10(tick))}}}$" for tick in ticks)])
    panel.minorticks_off()
    if top:  # there is an epoch that all runs have
        panel.legend(fontsize="small")


@contextmanager
def _figure(count: int) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a number of panels, on white in any notebook and with any style in force."""
    from .picture import Figure  # first: it says what to install if Matplotlib is missing

    from matplotlib import style  # isort: skip

    with style.context(["default", {"lines.scale_dashes": False}]):  # so that the dashes of equal curves coincide
        figure = Figure(figsize=(1.2 + 4.2 * count, 4.2), layout="constrained", facecolor="white")
        yield figure, list(figure.subplots(1, count, squeeze=False)[0])


def _set_axes(panel: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel("epoch")
    panel.set_ylabel(label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)


def _legend(figure: Figure, panels: Sequence[Axes], groups: Mapping[str, Any]) -> None:
    """One legend for the first two panels, above them: of colours for the labels, and of styles for the curves."""
    from matplotlib.lines import Line2D

    lines = [line for panel in panels[:2] for line in panel.get_lines()]
    named = {label: line for line in lines if not (label := str(line.get_label())).startswith("_")}
    if len(groups) > 1:
        drawn = {line.get_linestyle() for line in lines}
        colors = zip(groups, COLORS * (1 + len(groups) // len(COLORS)), strict=False)
        named = {label: Line2D([], [], color=color, lw=3) for label, color in colors}
        styles = [(what, style) for _, what, style in PANELS[LOSS] if style in drawn]
        named |= {what: Line2D([], [], color="0.3", linestyle=style) for what, style in styles}
    columns = min(len(named), 4)
    legend = figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a label is shown as it is, dollar signs too


def _caption(figure: Figure, runs: Sequence[History], text: str) -> None:
    source = str(runs[0].settings.get("data") or "")  # of another class of batches, it may be anything
    figure.supxlabel("\n".join(filter(None, (text, source))), fontsize="small", color="0.3", parse_math=False)


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        write_figure(path, figure)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the contents of a PNG file, of 80 dots an inch, for a page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80, transparent=False)
    return file.getvalue()


def write_figure(path: str | Path, figure: Figure) -> None:
    """Writes a Matplotlib figure in the format of the path's extension. A path without one gets the extension of
    Matplotlib's default format.

    Raises:
        ValueError: for a bad path, or an extension that Matplotlib does not support.
        OSError: if the file cannot be written; the previous file is unchanged.
    """
    path = checks.file_path("path", path)
    if not path.suffix:
        path = path.with_name(f"{path.name.rstrip('.')}.{figure.canvas.get_default_filetype()}")
    form = path.suffix[1:].lower()
    supported = sorted(figure.canvas.get_supported_filetypes())
    if form not in supported:
        raise ValueError(f"path: expected an extension among {', '.join(supported)}; got {checks.shown(path.name)}")
    files.write(path, lambda file: figure.savefig(file, format=form, dpi=150, transparent=False))
