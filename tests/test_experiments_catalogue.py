"""Every experiment at its tiny scale: the same numbers in each backend, and a report in both languages. Bad options."""

from __future__ import annotations

import json
import re
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import dispatch
from multidrop.section.experiments import commands, experiment, report, runs, sweep
from multidrop.section.experiments.result import Facts, Result


def computed(name: str, backend: str, seeds: int = 2) -> Result:
    """An experiment in float64, in this process. With one seed it has measurements, but no intervals."""
    each = experiment.named(name)
    data = "mini Fashion-MNIST"
    facts = Facts(seeds, data, backend, dispatch.load(backend).version, "float64", each.scales["tiny"], (6000, 1000))
    found = {(run.setting, run.seed): runs.compute(run) for run in sweep.runs_of(each, facts, "mini", "")}
    return Result(each, facts, found)


@cache
def in_numpy(name: str) -> Result:
    return computed(name, "numpy")


def numbers(result: Result) -> np.ndarray:
    """The measurements of the first seed, one after the other."""
    runs = [result.runs[setting.name, 0] for setting in result.settings]
    return np.concatenate([np.ravel(value) for run in runs for _, value in sorted(run.items())])


@pytest.mark.parametrize("name", md.experiments.names())
def test_every_backend_gives_the_same_numbers(name: str, backend: Any) -> None:
    expected = in_numpy(name)
    found = computed(name, backend.name, seeds=1)
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", md.experiments.names())
def test_its_report(name: str, tmp_path: Path) -> None:
    result = in_numpy(name)
    written = {path.name for path in report.write([result], tmp_path, ("en", "tr"))}
    assert written == {f"{name}{end}" for end in (".md", ".tr.md", ".png", ".tr.png", ".json")}
    for end in (".md", ".tr.md"):
        text = (tmp_path / f"{name}{end}").read_text(encoding="utf-8")
        assert "nan" not in text.split()
        assert "None" not in text
    assert result.answer("en") in (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert result.answer("tr") in (tmp_path / f"{name}.tr.md").read_text(encoding="utf-8")
    content = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert len(content["runs"]) == len(result.runs)
    assert 'src="data:image/png;base64,' in result._repr_html_()


def faked(result: Result, outcome: str) -> Result:
    """The result with other numbers in the place of the measured ones: all equal, without any difference between
    settings, or with large differences in either direction."""
    draw = np.random.default_rng(0)
    effects = dict(
        zip((each.name for each in result.settings), np.linspace(0.05, 0.95, len(result.settings)), strict=True)
    )
    if outcome == "last is worst":
        effects = dict(zip(effects, reversed(effects.values()), strict=True))

    def number(setting: str) -> float:
        if outcome == "equal":
            return 0.5
        return draw.uniform(0.1, 0.9) if outcome == "no difference" else effects[setting] + draw.uniform(-1e-5, 1e-5)

    def fake(setting: str, value: Any) -> Any:
        return [fake(setting, item) for item in value] if isinstance(value, list) else number(setting)

    found = {
        (setting, seed): {key: fake(setting, value) for key, value in run.items()}
        for (setting, seed), run in result.runs.items()
    }
    return Result(result.experiment, result.facts, found)


@pytest.mark.parametrize("outcome", ["equal", "no difference", "last is best", "last is worst"])
@pytest.mark.parametrize("name", md.experiments.names())
def test_an_answer_for_every_outcome(name: str, outcome: str) -> None:
    result = faked(in_numpy(name), outcome)
    if outcome != "no difference":  # of such numbers one experiment in twenty finds a difference
        assert any(test.found for test in result.tests.values()) == outcome.startswith("last")
    for language, zero in (("en", r"\b0(\.0+)? (%|points)"), ("tr", r"(?<![\d,])(%0(,0+)?\b(?!,)|0(,0+)? puan)")):
        answer = result.answer(language)
        assert not re.search(r"\b(nan|inf|None|1 pairs)\b|∞", answer)
        assert not re.search(rf"(one of|of) {zero} would|{zero} büyüklüğünde", answer)


def test_settings_differ_in_nothing_else() -> None:
    """One seed gives each setting the same images and the same weights, and another seed different ones."""
    from multidrop.section.experiments.lab import Lab

    scale = experiment.named("probabilities").scales["tiny"]
    with md.use_backend("numpy"):
        first, again, other = (Lab(seed, scale, "mini", "float32") for seed in (0, 0, 1))
        assert np.array_equal(first.train_set[0], again.train_set[0])
        assert not np.array_equal(first.train_set[0], other.train_set[0])
        weights = [md.predict(lab.net(noise), first.inputs(first.test_set[0][:2])) for lab, noise in
                   ((first, None), (again, (None, 0.5, 0.5)), (other, None))]  # fmt: skip
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


NOTEBOOKS = Path(__file__).parent.parent / "notebooks" / "source" / "dropout.md"


def test_the_notebooks_name_experiments() -> None:
    """Each exercise has a command, and each command an experiment, of that exercise."""
    named = re.findall(r"`multidrop experiment ([\w-]+)`", NOTEBOOKS.read_text(encoding="utf-8"))
    exercises = [name for name, each in experiment.catalogue().items() if each.exercise is not None]
    assert set(named) == set(exercises)


BAD = [
    ({"name": "bishops"}, "experiment: expected one of 'probabilities', "),
    ({"seeds": 1}, "seeds: expected at least 2, "),
    ({"seeds": "5"}, "seeds: expected an integer above 0; got '5'"),
    ({"dtype": "float16"}, "dtype: expected one of 'float32', 'float64'; got 'float16'"),
    ({"jobs": 0}, "jobs: expected an integer above 0; got 0"),
    ({"engine": "spark"}, "engine: expected one of 'joblib', 'dask', 'ray'; got 'spark'"),
    ({"address": "tcp://here:1"}, "address: expected the engine dask or ray with it; got the engine joblib"),
    ({"scale": "huge"}, "scale: expected one of 'full', 'mini', 'tiny'; got 'huge'"),
    ({"out": 3}, "out: expected "),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.experiments.run(**{"name": "bishop", "data": "mini", "scale": "tiny", **options})


def test_bad_names_in_a_result() -> None:
    result = in_numpy("test-time")
    for call, message in (
        (lambda: result.values("on", "loss"), "setting: expected one of 'off', 'once', 'averaged'; got 'on'"),
        (lambda: result.values("off", "los"), "measure: expected one of 'accuracy', 'loss', .*; got 'los'"),
        (lambda: result.answer("de"), "language: expected one of 'en', 'tr'; got 'de'"),
        (lambda: result.plot("de"), "language: expected one of 'en', 'tr'; got 'de'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("lost", ["a run", "a seed", "a setting"])
def test_a_result_without_some_runs_is_none(lost: str) -> None:
    content = json.loads(in_numpy("test-time").to_json())
    keep = {"a run": lambda each, i: i, "a seed": lambda each, i: each["seed"] < 1,
            "a setting": lambda each, i: each["setting"] != "once"}[lost]  # fmt: skip
    content["runs"] = [each for i, each in enumerate(content["runs"]) if keep(each, i)]
    if lost == "a seed":
        content["facts"]["seeds"] = 1
    with pytest.raises(ValueError, match="result: expected a run of each setting with each of at least 2 seeds, "):
        Result.from_dict(content)


def test_a_folder_that_cannot_be_written_is_named_before_the_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sweep.engines, "results", pytest.fail)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))) as error:
        md.experiments.run("bishop", data="mini", scale="tiny", out=tmp_path / "file")
    assert ".json" not in str(error.value)


def test_an_experiment_that_is_named_twice_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def results(runs: Any, *_: Any) -> Any:
        asked.extend(runs)
        return ((run, {"distance": 0.5}) for run in runs)

    monkeypatch.setattr(sweep.engines, "results", results)
    first, second = md.experiments.run_all(["bishop", "bishop"], data="mini", seeds=2, scale="tiny", backend="numpy")
    assert len(asked) == len(first.runs) == len(second.runs) == 2


def test_a_warning_is_shown_before_the_runs_are_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_all(*_: Any, **__: Any) -> Any:
        warnings.warn("the mini edition", stacklevel=1)
        assert "warning: the mini edition" in capsys.readouterr().out
        raise md.experiments.RunError("ends here")

    monkeypatch.setattr(commands, "run_all", run_all)
    monkeypatch.setattr(commands, "console", commands.plain_console())
    with pytest.raises(md.experiments.RunError, match="ends here"):
        commands.run("bishop", {}, tmp_path, "en")


@pytest.mark.parametrize("package", ["joblib", "markdown_it", "matplotlib", "scipy"])
def test_a_missing_package_is_named_before_the_runs(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(commands, "run_all", pytest.fail)
    with pytest.raises(ImportError, match=rf"an experiment needs {package}, .*multidrop\[section\]"):
        commands.run("bishop", {"data": "mini"}, tmp_path, "en")


def test_a_failing_run_names_its_setting_and_seed() -> None:
    each = experiment.named("bishop")
    facts = Facts(2, "", "numpy", "", "float64", {**each.scales["tiny"], "replicas": -1})
    run = sweep.runs_of(each, facts, "mini", "")[1]
    with pytest.raises(md.experiments.RunError, match=r"bishop, 0\.5, seed 1: ValueError: "):
        runs.compute(run)


def test_a_damaged_run_is_computed_again(tmp_path: Path) -> None:
    each = experiment.named("bishop")
    run, other = sweep.runs_of(each, Facts(2, "", "numpy", "", "float64", each.scales["tiny"]), "mini", "")
    shelf = runs.Shelf(tmp_path)
    assert shelf.get(run) is None
    shelf.put(run, {"distance": 0.5})
    assert shelf.get(run) == {"distance": 0.5}
    assert shelf.get(other) is None
    for damage in (b"", b"{", b"[]", shelf.path(run).read_bytes().replace(b"float64", b"float32")):
        shelf.path(run).write_bytes(damage)
        assert shelf.get(run) is None
