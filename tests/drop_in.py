"""What tests of layers in the place of a framework's own share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

IMAGES = (4, 6, 5, 5)  # (n, c, h, w)


def images(shape: tuple[int, ...] = IMAGES) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def takes_the_calls_of(ours: Callable[..., Any], theirs: Callable[..., Any]) -> bool:
    """Whether ours has the arguments of theirs, at the same places, with the same names and defaults; what it has
    besides comes after those, or by keyword alone, and has a default."""
    own, others = ([*inspect.signature(function).parameters.values()] for function in (ours, theirs))
    others = [other for other in others if other.kind not in (other.VAR_POSITIONAL, other.VAR_KEYWORD)]
    taken = all(
        (mine.name, mine.kind) == (other.name, other.kind) and other.default in (other.empty, mine.default)
        for mine, other in zip(own, others, strict=False)
    )
    rest = [mine for mine in own[len(others) :] if mine.kind is not mine.VAR_KEYWORD]
    return taken and len(own) >= len(others) and all(mine.default is not mine.empty for mine in rest)
