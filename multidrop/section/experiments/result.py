"""The results of one experiment: its runs, their means and intervals, and the comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ... import checks
from . import statistics
from .experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, named
from .statistics import Interval, Test
from .words import LANGUAGES, words_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Facts:
    """What all runs of an experiment have in common.

    Args:
        seeds: the number of seeds, 0 to seeds − 1.
        data: the name of the data set.
        backend: the backend's name.
        framework: the framework's version.
        dtype: "float32" or "float64".
        scale: the sizes.
        examples: the numbers of training and test images in the data set.
    """

    seeds: int
    data: str
    backend: str
    framework: str
    dtype: str
    scale: Scale
    examples: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Result:
    """The measurements of all runs of an experiment, and what follows from them. Shows itself in notebooks.

    Args:
        experiment: the experiment.
        facts: what its runs have in common.
        runs: the measurements by (setting's name, seed).
    """

    experiment: Experiment
    facts: Facts
    runs: Mapping[tuple[str, int], Measurements]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The settings, in the grid's order."""
        return tuple(self.experiment.settings(self.facts.scale))

    def values(self, setting: Setting | str, measure: Measure | str) -> npt.NDArray[np.float64]:
        """A measurement of each seed: shape (seeds,) for a number, (seeds, …) for lists.

        Raises:
            ValueError: for another setting or measurement.
        """
        name = checks.choice("setting", _name(setting), tuple(each.name for each in self.settings))
        runs = [self.runs[name, seed] for seed in range(self.facts.seeds)]
        key = checks.choice("measure", _name(measure), tuple(runs[0]))
        return np.array([run[key] for run in runs], np.float64)

    def mean(self, setting: Setting | str, measure: Measure | str) -> Interval:
        """A number's mean over seeds, with its 95 % interval."""
        return statistics.interval(self.values(setting, measure))

    def curve(self, setting: Setting | str, measure: Measure | str) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
        """Of a measurement that is a list: means over seeds, and the ends of their 95 % intervals, each of its
        length."""
        columns = [statistics.interval(column) for column in self.values(setting, measure).T]
        mean, low, high = np.array([(each.mean, each.low, each.high) for each in columns]).T
        return mean, low, high

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The comparisons that the experiment makes."""
        return tuple(self.experiment.contrasts(self))

    @cached_property
    def tests(self) -> dict[str, Test]:
        """Each comparison's outcome by its name, corrected for the number of all."""
        samples = [self.sample(contrast) for contrast in self.contrasts]
        outcomes = statistics.tests(samples, [contrast.against for contrast in self.contrasts])
        return {contrast.name: test for contrast, test in zip(self.contrasts, outcomes, strict=True)}

    def test(self, contrast: Contrast) -> Test:
        """The outcome of one of the comparisons."""
        return self.tests[contrast.name]

    def sample(self, contrast: Contrast) -> npt.NDArray[np.float64]:
        """A contrast's value for each seed, shape (seeds,). Seeds that differ by rounding errors alone are equal: to a
        t-test such a spread would look like a certain difference."""
        terms = np.array([weight * self.values(setting, measure) for weight, setting, measure in contrast.terms])
        found: npt.NDArray[np.float64] = terms.sum(axis=0)
        rounding = 4 * np.finfo(np.float64).eps * np.abs(terms).sum(axis=0).max()
        if np.ptp(found) > rounding:
            return found
        return np.full_like(found, found[0] if abs(found[0]) > rounding else 0.0)

    def answer(self, language: str = "en") -> str:
        """The answer in a paragraph, in "en" or "tr"."""
        return self.experiment.answer(self, words_of(language))

    def plot(self, language: str = "en") -> Figure:
        """The plot, a Matplotlib figure."""
        from . import plots

        return plots.figure_of(self, words_of(language))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it: facts, measurements of each run, means and comparisons."""
        measures = self.experiment.measures
        return {
            "experiment": self.experiment.name,
            "version": self.experiment.version,
            "facts": asdict(self.facts),
            "settings": {setting.name: dict(setting.values) for setting in self.settings},
            "means": {
                setting.name: {each.name: asdict(self.mean(setting, each)) for each in measures}
                for setting in self.settings
            },
            "comparisons": [
                {
                    "name": contrast.name,
                    "terms": [list(term) for term in contrast.terms],
                    **asdict(self.test(contrast)),
                    "found": self.test(contrast).found,
                }
                for contrast in self.contrasts
            ],
            "runs": [
                {"setting": setting.name, "seed": seed, "measurements": self.runs[setting.name, seed]}
                for setting in self.settings
                for seed in range(self.facts.seeds)
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Result:
        """Reads what `to_dict` gave, such as a report's JSON file.

        Raises:
            ValueError: if it is no such object, or the results of another version of the experiment.
        """
        try:
            experiment = named(content["experiment"])
            facts = Facts(**{**content["facts"], "examples": tuple(content["facts"]["examples"])})
            runs = {(each["setting"], each["seed"]): each["measurements"] for each in content["runs"]}
            version = content["version"]
            result = cls(experiment, facts, runs)
            whole = {(setting.name, seed) for setting in result.settings for seed in range(facts.seeds)}
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"result: expected what Result.to_dict gives: {error!r}; got {checks.shown(content)}"
            ) from error
        if version != experiment.version:
            raise ValueError(
                f"result: expected results of version {experiment.version} of {experiment.name}; "
                f"got {checks.shown(version)}"
            )
        if facts.seeds < 2 or runs.keys() != whole:
            raise ValueError(
                f"result: expected a run of each setting with each of at least 2 seeds, {len(whole)} runs for "
                f"{facts.seeds} seeds; got {len(runs)}, without {sorted(whole - runs.keys())}"
            )
        return result

    def __str__(self) -> str:
        return f"{self.experiment.name}: {self.answer()}"

    def __repr__(self) -> str:
        facts = self.facts
        return f"Result({self.experiment.name!r}, {len(self.runs)} runs, {facts.backend}, {facts.dtype}, {facts.data})"

    def _repr_html_(self) -> str:
        from . import report

        return report.html_of(self, LANGUAGES["en"])


def _name(value: Setting | Measure | str) -> str:
    return value if isinstance(value, str) else value.name
