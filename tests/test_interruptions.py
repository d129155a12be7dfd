"""A signal handler that raises ends a large call as a whole: no thread goes on writing into memory that is freed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["numpy", "torch", "tensorflow", "mxnet"])
def test_interrupted_calls(need: Any, name: str, pytestconfig: pytest.Config) -> None:
    need(name)
    count = pytestconfig.getoption("--interruptions")
    assert ended("interrupted.py", name, str(count)) == count


def test_an_exception_at_each_step_of_the_pool() -> None:
    """The next call is right, does not wait, and has all its threads."""
    assert ended("stepped.py") > 100


def ended(script: str, *arguments: str) -> int:
    """How many calls a script says that it ended."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return int(done.stdout)


def test_calls_that_fail_write_nothing() -> None:
    """An index that leaves its range is found before a thread begins."""
    for _ in range(100):
        with pytest.raises(ValueError, match="start: expected"):
            md.keep_mask(2**20, 0.3, 1, 2**64 - 5)
    start = np.int32(2**31 - 5)
    assert np.array_equal(md.keep_mask(2**20, 0.3, 1, start), md.keep_mask(2**20, 0.3, 1, int(start)))
