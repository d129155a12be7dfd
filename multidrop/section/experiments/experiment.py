"""An experiment as data: its question, its grid of settings, one run, the comparisons, a plot and an answer."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from ... import checks
from .words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .lab import Lab
    from .result import Result

Scale = Mapping[str, Any]  # sizes that JSON can hold: images, epochs, hidden, … as the experiment names them
Measurements = Mapping[str, Any]  # numbers, and (nested) lists of numbers, by name
SCALES = ("full", "mini", "tiny")


@dataclass(frozen=True)
class Setting:
    """One cell of an experiment's grid.

    Args:
        name: identifies the setting within the experiment, such as "dropout".
        label: how tables and plots show it.
        values: what `run` reads. JSON must be able to hold it.
    """

    name: str
    label: Text
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


@dataclass(frozen=True)
class Measure:
    """A number that each run measures, and a column of the table.

    Args:
        name: its name among the measurements.
        label: the heading of its column.
        digits: decimals to show.
        percent: whether to show it in percent.
    """

    name: str
    label: Text
    digits: int = 3
    percent: bool = False


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of measurements that is computed for each seed, and compared with a fixed value: in most cases the
    difference of two settings, and 0. Runs of one seed have equal data, weights, batches and masks, so that their
    difference has less spread than either.

    Args:
        name: identifies the contrast within the experiment.
        label: how the table shows it.
        terms: (weight, setting's name, measure's name) of each term.
        against: the value that the sum is compared with.
        digits: decimals to show.
        percent: whether to show it in percent; for a difference, in percentage points.
    """

    name: str
    label: Text
    terms: Sequence[tuple[float, str, str]]
    against: float = 0.0
    digits: int = 3
    percent: bool = False


def difference(measure: Measure, a: Setting, b: Setting) -> Contrast:
    """The contrast a − b of one measure."""
    (a_en, a_tr), (b_en, b_tr) = (map(_in_a_sum, each.label) for each in (a, b))
    label = Text(f"{measure.label.en}: {a_en} − {b_en}", f"{measure.label.tr}: {a_tr} − {b_tr}")
    return Contrast(
        f"{measure.name}: {a.name} - {b.name}",
        label,
        ((1.0, a.name, measure.name), (-1.0, b.name, measure.name)),
        digits=measure.digits,
        percent=measure.percent,
    )


def _in_a_sum(label: str) -> str:
    """A label beside a minus: "(p1 = 0, p2 = 0.5)", in parentheses if it has a comma of its own."""
    return f"({label})" if ", " in label else label


@dataclass(frozen=True)
class Experiment:
    """One claim or exercise of the section, as an experiment. Each stands in a file of `catalogue`.

    Args:
        name: the name of the command, such as "random-labels".
        exercise: the number of the section's exercise; None for a claim of its text.
        title: a heading.
        question: what is asked, in a sentence or two.
        scales: the sizes of each scale: "full" and "mini" by the edition of the data, and "tiny" for tests. The runner
            reads `images`, the number of training images, and `tests`, that of test images; all others are the
            experiment's own.
        settings: the grid at a scale.
        run: measures one setting with one seed. It must be a pure function of them, and take the same course in every
            backend.
        measures: the columns of the table.
        contrasts: the comparisons, given the results. Their p-values are corrected for their number.
        plot: draws the results into an empty figure.
        answer: answers the question, with numbers from the results.
        version: to be raised when `run` changes, so that earlier runs are computed again.
        figsize: width and height of the plot in inches.
    """

    name: str
    exercise: int | None
    title: Text
    question: Text
    scales: Mapping[str, Scale]
    settings: Callable[[Scale], Sequence[Setting]]
    run: Callable[[Setting, Lab], Measurements]
    measures: Sequence[Measure]
    contrasts: Callable[[Result], Sequence[Contrast]]
    plot: Callable[[Figure, Result, Words], None]
    answer: Callable[[Result, Words], str]
    version: int = 1
    figsize: tuple[float, float] = field(default=(7.0, 4.0))


@cache
def catalogue() -> Mapping[str, Experiment]:
    """All experiments by name: the exercises in their order, then the claims of the text by name. A file in the folder
    `catalogue` is all that an experiment needs."""
    from . import catalogue as folder

    modules = [module.name for module in pkgutil.iter_modules(folder.__path__)]
    found = [importlib.import_module(f"{folder.__name__}.{name}").EXPERIMENT for name in modules]
    found.sort(key=lambda each: (each.exercise is None, each.exercise, each.name))
    return {each.name: each for each in found}


def named(name: Any) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: if there is none.
    """
    return catalogue()[checks.choice("experiment", name, tuple(catalogue()))]
