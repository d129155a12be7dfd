"""What CHANGELOG.md and CITATION.cff say of the project is what the package says."""

from __future__ import annotations

import re
from pathlib import Path

import multidrop as md

ROOT = Path(__file__).parent.parent


def test_the_changelog_ends_at_this_version() -> None:
    """The newest numbered version is the package's; above it there may be what is not released."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    unreleased, *_ = headings
    versions = headings[1:] if unreleased == "Unreleased" else headings
    numbers = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+)( - \d{4}-\d\d-\d\d)?", version) for version in versions]
    assert all(numbers), versions
    ordered = [tuple(map(int, number.groups()[:3])) for number in numbers if number]
    assert ordered == sorted(set(ordered), reverse=True)
    assert ".".join(map(str, ordered[0])) == md.__version__


def test_each_part_of_the_changelog_is_of_a_known_kind() -> None:
    kinds = re.findall(r"^### (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_complete() -> None:
    """It has the keys that the Citation File Format 1.2.0 requires, in the plain part of YAML that this reads."""
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[a-z-]+:( \S.*)?|  - \S.*|    [a-z-]+: \S.*", line) for line in lines), lines
    top = dict(re.fullmatch(r"([a-z-]+): ?(.*)", line).groups() for line in lines if line[0] != " ")  # type: ignore[union-attr]
    assert top["cff-version"] == "1.2.0"
    assert top["message"]
    assert "multidrop" in top["title"]
    assert lines[lines.index("authors:") + 1] == "  - name: multidrop maintainers"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{top["license"]}"' in project
    for value in top.values():  # a colon within plain text would begin a mapping
        assert ": " not in value or value[0] == value[-1] == '"'
