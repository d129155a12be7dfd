"""Ranks of torch.distributed, as two processes: each program of `ranks` runs once in each, and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = (
    "replicated",
    "unseeded",
    "alone",
    "fully_sharded",
    "fully_sharded_of_old",
    "per_rank_otherwise",
    "per_rank_of_meshes",
    "shared",
    "sequence_parallel",
)


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What each rank wrote. A rank that waits for one that does not come is ended."""
    from multidrop.testing.plugin import loaded

    loaded(request.config, "torch")
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    processes = [subprocess.Popen([sys.executable, script, str(rank), folder]) for rank in range(2)]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(2))
    return first, second


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(found: tuple[Any, Any], program: str) -> None:
    """Holds what it claims, in both ranks."""
    for rank in found:
        assert [name for name, holds in rank[program].items() if holds is False] == []
    assert found[0][program]


def test_all_programs_are_looked_at(found: tuple[Any, Any]) -> None:
    assert tuple(found[0]) == tuple(found[1]) == PROGRAMS


def test_states_and_weights_are_the_same_on_all_ranks(found: tuple[Any, Any]) -> None:
    """And the masks of unseeded layers are not: each rank seeds its generator for itself."""
    first, second = found
    assert first["replicated"]["saved"] == second["replicated"]["saved"] == [5, 2]
    for program in ("replicated", "unseeded"):
        assert first[program]["total"] == second[program]["total"]
    assert first["unseeded"]["mask"] != second["unseeded"]["mask"]
