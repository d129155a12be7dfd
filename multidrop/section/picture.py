"""The figures that plots return. This module imports Matplotlib; others import it where they draw."""

from __future__ import annotations

import io

from .needs import section_extra

with section_extra("a plot"):
    from matplotlib import figure


class Figure(figure.Figure):
    """A Matplotlib figure that shows itself in a notebook, also where `matplotlib.pyplot` was not imported: that import
    alone registers the display of figures."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", facecolor="white")  # legible on a dark page too
        return content.getvalue()
