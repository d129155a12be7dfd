"""The committed results of the experiments are those of this code, and no number in their pages was typed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import multidrop as md
from multidrop.section.experiments import experiment, report
from multidrop.section.experiments.result import Result
from multidrop.section.experiments.words import LANGUAGES

FOLDER = Path(__file__).parent.parent / "docs" / "experiments"
ENDS = {"en": ".md", "tr": ".tr.md"}


def committed(name: str) -> Result:
    return Result.from_dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", md.experiments.names())
def test_the_pages_follow_from_the_runs(name: str) -> None:
    result = committed(name)
    assert json.loads(json.dumps(result.facts.scale)) == experiment.named(name).scales["full"]
    assert result.facts.seeds >= 5
    assert result.facts.data == "Fashion-MNIST"
    assert result.to_json() == (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    for language, end in ENDS.items():
        assert report.page(result, LANGUAGES[language]) == (FOLDER / f"{name}{end}").read_text(encoding="utf-8")
        assert (FOLDER / report.picture(result.experiment, LANGUAGES[language])).stat().st_size > 10_000


@pytest.mark.parametrize("language", ENDS)
def test_the_index_has_every_answer(language: str) -> None:
    index = (FOLDER / f"index{ENDS[language]}").read_text(encoding="utf-8")
    for name in md.experiments.names():
        assert committed(name).answer(language) in index


def test_the_report_is_one_file_with_its_pictures() -> None:
    html = (FOLDER / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 2 * len(md.experiments.names())
    assert 'src="http' not in html


def test_results_of_another_version_are_refused() -> None:
    content = json.loads((FOLDER / "bishop.json").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="result: expected results of version"):
        Result.from_dict({**content, "version": 0})
    with pytest.raises(ValueError, match=r"result: expected what Result\.to_dict gives"):
        Result.from_dict({"experiment": "bishop"})
