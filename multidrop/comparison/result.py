"""The result of a comparison, as values and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import html
from ..conversion import shown_path

INPUT, MASK, OUTPUT, GRADIENT, WEIGHT = "input", "mask", "output", "gradient", "weight"
COLUMNS = (INPUT, MASK, OUTPUT, GRADIENT, WEIGHT)
LOSS = "loss"


@dataclass(frozen=True)
class Difference:
    """The difference of one quantity between the two models in one step.

    Attributes:
        step: the number of the batch, from 0.
        what: "input", "mask" or "output" of a layer, "gradient" of a weight, "weight" after the step; "output" of the
            model or "loss".
        layers: the paths of the layer in both models; None for the model as a whole.
        value: the largest absolute difference divided by the largest absolute value of both; for gradients and weights,
            by at least a thousandth of the step's largest value of that kind. For masks, the share of elements that one
            keeps and the other drops.
        name: the weight's name, for a gradient or a weight.
        note: the cause, if known.
    """

    step: int
    what: str
    layers: tuple[str, str] | None
    value: float
    note: str = ""
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.name} after the step" if self.what == WEIGHT else self.what
        what = f"gradient of {self.name}" if self.what == GRADIENT else what
        note = f" ({self.note})" if self.note else ""
        return f"step {self.step}, {_shown(self.layers)}: {what}: {_number(self.value)}{note}"


@dataclass(frozen=True)
class Comparison:
    """The result of `multidrop.compare`. Printing shows a table by layer and the first difference beyond the tolerance.

    Attributes:
        models: the two models, such as "torch Net".
        steps: the number of batches that were run. The run ends with the first batch that has a difference beyond the
            tolerance.
        rtol: the tolerance for `Difference.value`; masks must be equal.
        layers: the kind of each layer by its paths in both models, in the order in which the layers run.
        differences: all measured differences, in the order in which a step computes them.
        unreached: dropout in either model that could not be keyed, and so differs; where something differs, also what
            `multidrop.audit` finds to be random.
    """

    models: tuple[str, str]
    steps: int
    rtol: float
    layers: Mapping[tuple[str, str], str]
    differences: tuple[Difference, ...]
    unreached: tuple[str, ...] = ()

    @property
    def first(self) -> Difference | None:
        """The first difference beyond the tolerance; None if there is none."""
        return next((d for d in self.differences if self.is_beyond(d)), None)

    @property
    def equal(self) -> bool:
        """Whether no difference is beyond the tolerance."""
        return self.first is None

    def is_beyond(self, difference: Difference) -> bool:
        """Whether a difference is beyond the tolerance."""
        return difference.value > (0.0 if difference.what == MASK else self.rtol)

    def largest(self, what: str, layers: tuple[str, str] | None = None) -> float | None:
        """The largest difference of one kind over all steps, of a layer or of the whole model; None if it was not
        measured."""
        values = [d.value for d in self.differences if (d.what, d.layers) == (what, layers)]
        return max(values, default=None)

    def _rows(self) -> list[list[str]]:
        """The cells of the table: for each layer its paths, its kind, and the largest differences."""
        return [
            [_shown(paths), kind, *(_number(self.largest(what, paths)) for what in COLUMNS)]
            for paths, kind in self.layers.items()
        ]

    def _above(self) -> str:
        return f"{self.models[0]} and {self.models[1]}, steps: {self.steps}; the largest differences:"

    def _below(self) -> list[str]:
        """The lines below the table."""
        whole = [f"{what} {_number(self.largest(what))}" for what in (OUTPUT, LOSS) if self.largest(what) is not None]
        lines = ["the model: " + ", ".join(whole), *(f"not keyed: {what}" for what in self.unreached)]
        first = self.first
        if first is None:
            return [*lines, f"No difference beyond {self.rtol:g}."]
        return [*lines, f"First difference beyond {self.rtol:g}: {first}"]

    def __str__(self) -> str:
        rows = [["layer", "kind", *COLUMNS], *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [self._above()]
        for row in rows:
            texts, numbers = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
            cells = [cell.ljust(width) for cell, width in texts] + [cell.rjust(width) for cell, width in numbers]
            lines.append("  ".join(cells))
        return "\n".join([*lines, *self._below()])

    def _repr_html_(self) -> str:
        """The table, as notebooks show it."""
        table = html.table(["layer", "kind", *COLUMNS], self._rows(), caption=self._above(), texts=2)
        return table + html.lines(self._below())


def _shown(layers: tuple[str, str] | None) -> str:
    return "the model" if layers is None else " · ".join(dict.fromkeys(shown_path(path) for path in layers))


def _number(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0.0 else f"{value:.1e}"
