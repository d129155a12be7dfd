"""The public functions called with good, odd and bad arguments, in a process of their own, which a crash would end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def fuzz(name: str, calls: int, log: Path, *, script: str = "fuzzed.py") -> str:
    """What the calls print; fails with the last one where there was an error, or the interpreter died."""
    path = Path(__file__).with_name(script)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", path, name, str(calls), log], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = log.read_text() if log.exists() else "none"
        pytest.fail(f"{name}: exit {done.returncode} at the call\n{last}\n{done.stdout}{done.stderr[-5000:]}")
    return done.stdout


def test_calls(backend: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Give the oracle's bits, or an error of the one form and no mask less."""
    calls = pytestconfig.getoption("--rounds")
    assert fuzz(backend.name, calls, tmp_path / "call").strip() == f"{backend.name}: {calls} groups of calls"


def test_a_crash_is_a_failure(tmp_path: Path) -> None:
    """And names the call that did it."""
    with pytest.raises(pytest.fail.Exception, match=r"(?s)numpy: exit -\d+ at the call\nos\.abort\(\)"):
        fuzz("numpy", 1, tmp_path / "call", script="aborting.py")
