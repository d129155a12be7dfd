"""Ranks of torch.distributed, as two processes: each program of `ranks` runs once in each, and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import multidrop as md

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


def test_bad_arguments_of_per_rank(need: Any) -> None:
    """And a layer that is asked for its place where there are no ranks: an error, and evaluation goes on."""
    need("torch")
    import torch
    from multidrop_torch import Dropout, per_rank

    for model in (torch.nn.Linear(2, 2), Dropout(0.5)):
        with pytest.raises(ValueError, match="model: expected one with keyed dropout layers"):
            per_rank(model)
    layer = Dropout(0.5, seed=3)
    for mesh in (0, [0, 1], "data"):
        with pytest.raises(TypeError, match="mesh: expected a DeviceMesh, a process group or None; got"):
            per_rank(layer, mesh)
    assert per_rank(layer) is layer
    for call in (lambda: layer(torch.ones(4)), lambda: md.mask_at(layer, 0, (4,))):
        with pytest.raises(RuntimeError, match=r"torch\.distributed: expected a process group"):
            call()
    assert layer.stream.tolist() == [3, 0]
    assert repr(layer) == "Dropout(p=0.5, inplace=False, seed=3, per_rank=True)"
    assert layer.eval()(torch.ones(4)).sum() == 4
    layer.train().ranks = None
    assert torch.equal(layer(torch.ones(4)), md.dropout_layer(torch.ones(4), 0.5, 3))


def test_places(monkeypatch: pytest.MonkeyPatch, need: Any) -> None:
    """Of a rank, and of the ranks that hold a tensor: in any product of meshes, those that share one agree, and those
    that do not differ."""
    need("torch")
    import torch.distributed as dist
    from multidrop_torch.ranks import place_among

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    places = {}
    for data in range(2):
        for part in range(3):
            rank = data * 3 + part
            monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
            assert place_among((), ()) == rank
            assert place_among((part, 3 + part), ()) == data
            holders = tuple(range(data * 3, data * 3 + 3))
            places[rank] = place_among((), holders), place_among((part, 3 + part), holders)
    assert places == {rank: (rank // 3 * 3, rank // 3) for rank in range(6)}
    with pytest.raises(RuntimeError, match=r"expected one of the ranks that per_rank got, \[0, 1\]; got rank 5"):
        place_among((0, 1), ())
