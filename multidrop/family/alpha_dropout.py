"""Dropout for SELU networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..spec import masks
from ._member import Draw, Member, Tensor, rate


@dataclass(frozen=True)
class AlphaDropout(Member):
    """Sets dropped elements to SELU's lower limit, −α, then scales and shifts all elements, which preserves a mean of 0
    and a variance of 1: a·x + a·α·p where kept, a·α·(p − 1) where dropped, with a = 1/sqrt((1 − p)·(1 + p·α²)).

    It is computed as dropout(x + α)·scale + shift. At p = 1 all elements are 0.

    Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 30 (2017), section 2.

    Args:
        p: the probability that an element is dropped, in [0, 1].

    Raises:
        ValueError: for a bad probability.
    """

    p: float = rate(0.5)

    unbiased = False

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        axes = self.axes(len(X.shape))
        return lifted(draw.wide(X, X), self.p, lambda Z: draw.dropout(Z, self.p, axes))

    def gradient(self, dY: Tensor, draw: Draw) -> Tensor:
        scale, _ = masks.alpha_affine(self.p)
        return draw.dropout(draw.wide(dY, dY), self.p, self.axes(len(dY.shape))) * scale


def lifted(X: Tensor, p: float, dropout: Callable[[Tensor], Tensor]) -> Tensor:
    """Alpha dropout of X by a dropout of the same p: dropout(X + α)·a + b."""
    scale, shift = masks.alpha_affine(p)
    return dropout(X + masks.ALPHA) * scale + shift
