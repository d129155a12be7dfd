"""The example of docs/porting.md, and the tables that it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "porting.md").read_text(encoding="utf-8")
PARTS = re.findall(r"```(python|text)\n(.*?)```", PAGE, re.DOTALL)
NUMBER = re.compile(r"\d\.\d+e[+-]\d+")
ROUNDING = 1e-5


@pytest.fixture
def printed(need: Any, capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """What the page's programs print."""
    need("torch")
    need("tensorflow")
    namespace: dict[str, Any] = {}
    outputs = []
    for kind, code in PARTS:
        if kind == "python":
            exec(compile(code, "porting.md", "exec"), namespace)
            outputs.append(capsys.readouterr().out)
    yield outputs


def test_the_tables_are_what_the_programs_print(printed: list[str]) -> None:
    """Word by word, with equal numbers. Those of rounding depend on the processor: they agree within a factor of 10."""
    tables = [text for kind, text in PARTS if kind == "text"]
    assert len(tables) == len(printed) == 2
    for table, output in zip(tables, printed, strict=True):
        assert re.sub(r" +", " ", NUMBER.sub("#", output)) == re.sub(r" +", " ", NUMBER.sub("#", table))
        for shown, found in zip(map(float, NUMBER.findall(table)), map(float, NUMBER.findall(output)), strict=True):
            within = 10.0 if max(shown, found) < ROUNDING else 1.03
            assert shown / within <= found <= shown * within, (shown, found, output)
