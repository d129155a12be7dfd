"""The pages of docs/ name tests beside their claims, in comments of their source. Each test that is named exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def named_tests(page: str) -> list[str]:
    """The ids of the tests that a page names, such as "tests/test_keys.py::test_a_stream_counts"."""
    return re.findall(r"<!-- (tests/\S+) -->", (ROOT / "docs" / page).read_text(encoding="utf-8"))


def collected(file: Path) -> set[str]:
    """The tests in a file, those of a class as "Class::test"."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_exist(page: str) -> None:
    for test in dict.fromkeys(named_tests(page)):
        file, _, name = test.partition("::")
        if (ROOT / file).exists() and name in collected(ROOT / file):
            continue
        same_name = name.rpartition("::")[2]
        homes = [
            f"tests/{other.name}::{found}"
            for other in sorted((ROOT / "tests").glob("test_*.py"))
            for found in sorted(collected(other))
            if found.rpartition("::")[2] == same_name
        ]
        pytest.fail(f"docs/{page} names {test}, which does not exist; tests of this name: {homes}")


@pytest.mark.parametrize("page", ["drop-in.md", "processes.md"])
def test_lists_name_their_tests(page: str) -> None:
    """Each item of a list says which tests hold it, or that there is none."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    items = re.findall(r"^- .*(?:\n {2}.*)*", text, re.MULTILINE)
    assert items
    assert [item for item in items if not re.search(r"<!-- (tests/\S+|untested) -->", item)] == []
