"""The command line of the benchmarks leaves the committed results alone, and says how long it took."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)


def test_results_go_to_the_current_folder(tmp_path: Path) -> None:
    committed = {path: path.read_bytes() for path in (ROOT / "benchmarks" / "results").iterdir()}
    done = run("relu", "--quick", "--framework", "numpy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in (ROOT / "benchmarks" / "results").iterdir()} == committed
    (result,) = tmp_path.glob("benchmark-results/*.json")
    seconds = json.loads(result.read_text())["duration"]
    assert seconds > 0
    assert re.search(r"^relu: a quick check\s*$", done.stderr, re.MULTILINE)
    assert re.search(r"relu: took [\d smin]+; written to benchmark-results/relu\.json", done.stderr)
    assert (tmp_path / "benchmark-results" / "report.md").exists()


def test_a_wrong_framework_is_named(tmp_path: Path) -> None:
    done = run("relu", "--quick", "--framework", "pytorch", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'torch'?" in " ".join(re.sub("[│╭╮╰╯─]", "", done.stderr).split())


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.6, "8 s"), (125, "2 min 5 s"), (3720, "1 h 2 min"), (59.7, "1 min 0 s")]
)
def test_duration(seconds: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import report

    assert report.duration(seconds) == text


def test_the_expected_time_is_that_of_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import run as command

    last: dict[str, Any] = {"sizes": {"duration": 754.0, "machine": {"processor": "a processor"}}}
    monkeypatch.setattr(command.report, "read", lambda folder: last)
    assert command._expected("sizes", False, 2) == "2 of 4 frameworks; all took 12 min 34 s on a processor"
    assert "not known" in command._expected("relu", False, 4)
