"""A small dropout layer for tests of torch, and programs compiled from it."""

from __future__ import annotations

from typing import Any

import multidrop as md

KEY = md.Key(2**63 + 5, 2**64 - 1)


def layer(seed: int | None = 3, p: float = 0.5) -> Any:
    return md.Dropout(p, seed=seed)


def compiled(module: Any) -> Any:
    import torch

    return torch.compile(module, fullgraph=True)
