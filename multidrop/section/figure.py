"""The section's figure: a multilayer perceptron before and after dropout, with the hidden units that a mask drops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..spec.keys import Key
from ..spec.masks import keep_mask
from .history import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INPUTS, HIDDEN, OUTPUTS = 4, 5, 3
SEED = 3
"""The smallest seed whose mask drops the second and the fifth hidden unit at p = 0.5, as the section's figure does."""


def draw_dropout(path: str | Path | None = None, seed: int = SEED, p: float = 0.5) -> Figure:
    """Draws a net of four inputs, five hidden units and three outputs, before and after the mask of `Key(seed)`.

    Args:
        path: the file to write, if any; its extension decides the format.
        seed: the mask's seed.
        p: the probability that a hidden unit is dropped.

    Raises:
        ValueError: for a bad path, an extension that Matplotlib does not support, or a bad seed or probability.
        OSError: if the file cannot be written; the previous file is unchanged.
    """
    from .picture import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    before, after = figure.subplots(1, 2)
    keep = keep_mask(HIDDEN, p, Key(seed))
    _draw_net(before, np.ones(HIDDEN, bool))
    before.set_title("before dropout")
    _draw_net(after, keep)
    after.set_title(f"after dropout: keep_mask({HIDDEN}, {p}, Key({seed}))")
    if path is not None:
        write_figure(path, figure)
    return figure


def _draw_net(panel: Axes, keep: Sequence[bool] | np.ndarray) -> None:
    """Draws one net. Dropped units are empty circles without connections."""
    layers = [_row(INPUTS, "x", 0.0), _row(HIDDEN, "h", 1.0), _row(OUTPUTS, "o", 2.0)]
    alive = [np.ones(INPUTS, bool), keep, np.ones(OUTPUTS, bool)]
    for (lower, lower_alive), (upper, upper_alive) in pairwise(zip(layers, alive, strict=True)):
        for (x0, y0, _), kept0 in zip(lower, lower_alive, strict=True):
            for (x1, y1, _), kept1 in zip(upper, upper_alive, strict=True):
                if kept0 and kept1:
                    panel.plot([x0, x1], [y0, y1], color="0.6", linewidth=0.8, zorder=1)
    colors = ("tab:green", "tab:blue", "tab:orange")
    for units, units_alive, color in zip(layers, alive, colors, strict=True):
        for (x, y, name), kept in zip(units, units_alive, strict=True):
            face, edge, style = (color, color, "-") if kept else ("white", "0.6", "--")
            panel.scatter(x, y, s=520, facecolor=face, edgecolor=edge, linestyle=style, zorder=2)
            panel.annotate(name, (x, y), color="white" if kept else "0.5", ha="center", va="center", zorder=3)
    panel.set_xlim(-2.6, 2.6)
    panel.set_ylim(-0.35, 2.35)
    panel.set_axis_off()


def _row(count: int, name: str, height: float) -> list[tuple[float, float, str]]:
    """(x, y, label) of the units of a layer."""
    return [(i - (count - 1) / 2, height, f"${name}_{i + 1}$") for i in range(count)]
