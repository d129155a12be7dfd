"""Plots of experiments: what they share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..curves import COLORS
from ..needs import section_extra
from .experiment import Measure, Setting
from .words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .result import Result

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_DPI = 130


def figure_of(result: Result, words: Words) -> Figure:
    """An experiment's plot."""
    with section_extra("a plot"):
        from matplotlib import rc_context

        from ..picture import Figure

    with rc_context(_STYLE):  # type: ignore[arg-type]  # whose keys are literals
        figure = Figure(figsize=result.experiment.figsize, layout="constrained", facecolor="white")
        result.experiment.plot(figure, result, words)
        for panel in figure.axes:
            _numbers_in(panel, words)
    return figure


def png_of(figure: Figure) -> bytes:
    """A figure as PNG: the same bytes for the same figure, without the time or the program's version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, and has the Turkish letters
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.framealpha": 0.9,
}


def curves(
    panel: Axes,
    result: Result,
    settings: Sequence[Setting],
    measure: str,
    words: Words,
    x: npt.ArrayLike | None = None,
) -> None:
    """Draws a measurement that is a list, as a line for each setting: the mean over seeds, in the band of its 95 %
    interval. x: the numbers on the horizontal axis, from 1 if None."""
    for i, setting in enumerate(settings):
        mean, low, high = result.curve(setting, measure)
        at = np.arange(1, len(mean) + 1) if x is None else np.asarray(x)
        color = COLORS[i % len(COLORS)]
        panel.plot(at, mean, linestyle=LINES[i % len(LINES)], color=color, label=words(setting.label))
        panel.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)


def dots(panel: Axes, result: Result, settings: Sequence[Setting], measures: Sequence[Measure], words: Words) -> None:
    """Draws the numbers of each setting in a row: each seed as a dot, and the mean with its 95 % interval."""
    rows = np.arange(len(settings))[::-1]
    for i, measure in enumerate(measures):
        shift = 0.3 * (i - (len(measures) - 1) / 2) / max(1, len(measures) - 1)
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        for row, setting in zip(rows, settings, strict=True):
            values, mean = result.values(setting, measure), result.mean(setting, measure)
            at = row - shift
            panel.plot(values, np.full(len(values), at), ".", color=color, alpha=0.4, markersize=5)
            label = words(measure.label) if row == rows[0] else None
            panel.errorbar(mean.mean, at, xerr=mean.half, fmt=marker, color=color, capsize=3, markersize=5, label=label)
    panel.set_yticks(rows, [words(setting.label) for setting in settings])
    panel.set_ylim(-0.6, len(settings) - 0.4)
    panel.grid(axis="y", visible=False)
    if len(measures) > 1:  # above the panel, where no dot can lie
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(2, len(measures)), frameon=False)
    else:
        panel.set_xlabel(words(measures[0].label))


def _numbers_in(panel: Axes, words: Words) -> None:
    """Writes the numbers of linear axes with the language's decimal sign."""
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    if words.language == "en":
        return
    for axis in (panel.xaxis, panel.yaxis):
        formatter = axis.get_major_formatter()
        if type(formatter) is ScalarFormatter:
            plain = formatter

            def with_comma(value: float, position: int | None = None, plain: Any = plain) -> str:
                return str(plain(value, position)).replace(".", ",")

            replacement = FuncFormatter(with_comma)
            # A FuncFormatter does not pass on the ticks' places, from which the number of decimals follows.
            replacement.set_locs = plain.set_locs  # type: ignore[method-assign]
            axis.set_major_formatter(replacement)
