"""What the command `multidrop experiment` does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from ... import checks
from ..needs import section_extra
from ..terminal import plain_console
from . import report
from .experiment import catalogue
from .sweep import run_all
from .words import LANGUAGES

console = plain_console()


def show() -> None:
    """Prints the names of the experiments and what they ask."""
    table = Table("experiment", "exercise", "question", show_lines=True)
    for each in catalogue().values():
        table.add_row(each.name, str(each.exercise or "–"), each.question.en)
    console.print(table)


def run(name: str, options: Mapping[str, Any], out: Path, language: str) -> None:
    """Runs one experiment or all, writes the report, and prints the answers."""
    language = checks.choice("lang", language, (*LANGUAGES, "both"))
    languages = tuple(LANGUAGES) if language == "both" else (language,)
    if name != "all":
        checks.choice("experiment", name, (*catalogue(), "all", "list"))
    with section_extra("an experiment"):  # said now, and not after the runs
        import joblib  # noqa: F401
        import markdown_it  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # At once, because a sweep may take an hour: that it runs on the mini data, for example.
        warnings.showwarning = _show
        results = run_all(tuple(catalogue()) if name == "all" else (name,), out=out, **options)
    for result in results:
        console.print(f"\n{LANGUAGES[languages[0]](result.experiment.title)}", style="bold", soft_wrap=True)
        console.print(result.answer(languages[0]), soft_wrap=True)
    report.write(results, out, languages)
    console.print(f"\nreport in {out}", soft_wrap=True)


def _show(message: Warning | str, *_: object, **__: object) -> None:
    console.print(f"warning: {message}", style="yellow", soft_wrap=True)
