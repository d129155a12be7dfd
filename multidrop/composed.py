"""Dropout by a backend's `apply`, for backends without a `dropout_layer` or `relu_dropout` of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import checks
from .family import Draw, Member
from .family.dropout import DropoutAlong
from .protocol import Backend
from .spec import masks
from .spec.keys import Key

# Neither `DropoutAlong` nor this member is listed, because each serves one call. A compiled program that finds a member
# by its text cannot run them; a backend with such programs has a `dropout_layer` and a `relu_dropout` of its own.


class _ReLUDropout(Member, listed=False):
    """Dropout of max(X, 0).

    It is not linear: the gradient depends on where X was above 0. An object serves one call and stores that, one bool
    an element.
    """

    def __init__(self, p: float) -> None:
        self.p = checks.probability("dropout", p)
        self._negative: Any = None

    @property
    def idle(self) -> bool:
        return False  # at p = 0 it is still a ReLU

    def __call__(self, X: Any, draw: Draw) -> Any:
        self._negative = X <= 0  # False for NaN, which stays
        return self._of(X, draw)

    def gradient(self, dY: Any, draw: Draw) -> Any:
        return self._of(dY, draw)

    def _of(self, values: Any, draw: Draw) -> Any:
        return draw.select(values, draw.keep(values, self.p) & ~self._negative, masks.scale(self.p))


def dropout_layer(
    backend: Backend, X: Any, dropout: float, key: int | Key | None, start: int, axes: int | Sequence[int]
) -> Any:
    """`multidrop.dropout_layer` by `backend.apply`; args, result and errors are those."""
    p = checks.probability("dropout", dropout)
    shared = checks.axis_numbers(axes)
    if shared and checks.word64("start", start):
        # There it counts decisions, and for a member elements: with an unknown shape, neither gives the other.
        raise ValueError(f"start: expected 0 with axes, in a backend without dropout_layer; got {checks.shown(start)}")
    return backend.apply(DropoutAlong(p, shared), X, key, start=start)


def relu_dropout(backend: Backend, X: Any, dropout: float, key: int | Key | None, start: int) -> Any:
    """`multidrop.relu_dropout` by `backend.apply`; args, result and errors are those."""
    return backend.apply(_ReLUDropout(dropout), X, key, start=start)
