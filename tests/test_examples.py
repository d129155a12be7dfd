"""Each script in examples/ runs, says what it needs in its first line, and is short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from modes import MODES

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
NEEDS = "# Needs: "


def test_there_are_examples() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs(script: Path, need: Any, tmp_path: Path) -> None:
    """Its own assertions hold, and it leaves no file."""
    first, *rest = script.read_text(encoding="utf-8").splitlines()
    assert first.startswith(NEEDS)
    assert len(rest) < 60
    frameworks = first.removeprefix(NEEDS).split(", ")
    assert set(frameworks) <= set(MODES)
    for name in frameworks:
        need(name)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not any(tmp_path.iterdir())
