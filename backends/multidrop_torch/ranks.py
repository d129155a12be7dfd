"""The place of a rank of `torch.distributed` among others, and the key that it drops by there."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch.distributed as dist
from torch import Tensor

from multidrop.spec.keys import Key

from . import internals


def mesh_ranks(mesh: Any) -> tuple[int, ...]:
    """The global ranks of a mesh, row by row."""
    with internals.without_modes():  # under one that traces, the mesh's own tensor would be traced
        return tuple(mesh.mesh.flatten().tolist())


def holders(X: Tensor) -> tuple[int, ...]:
    """The global ranks that hold a part of X; () where this rank alone does."""
    mesh = getattr(X, "device_mesh", None)
    return () if mesh is None else mesh_ranks(mesh)


def place_among(ranks: Iterable[int], holders: Iterable[int]) -> int:
    """Where this rank stands in `ranks`, or of a tensor that several ranks hold, the first of its holders there.

    Raises:
        RuntimeError: where `torch.distributed` is not initialized, or this rank is none of `ranks`.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "torch.distributed: expected a process group, which tells per_rank's layers their place; got none: call "
            "torch.distributed.init_process_group, or set ranks = None on each layer"
        )
    ranks, own = list(ranks), dist.get_rank()
    found = [ranks.index(rank) if ranks else rank for rank in holders or (own,) if not ranks or rank in ranks]
    if not found:
        raise RuntimeError(f"torch.distributed: expected one of the ranks that per_rank got, {ranks}; got rank {own}")
    return min(found)


def at_place(key: Key, place: int) -> Key:
    """The key by which the rank at a place drops."""
    return Key.of_words(_seed(key.seed, place), key.call)


@lru_cache(maxsize=4096)
def _seed(seed: int, place: int) -> int:
    return Key(seed).fold_in("rank").fold_in(place).seed
