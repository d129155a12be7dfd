"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import MaskMember, along, rate, some_axes


@dataclass(frozen=True)
class Dropout(MaskMember):
    """Drops each element by itself: x/(1 − p) where kept, 0 where dropped.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014),
    section 4, scaled in training (section 10).

    Args:
        p: the probability that an element is dropped, in [0, 1].

    Raises:
        ValueError: for a bad probability.
    """

    p: float = rate(0.5)


@dataclass(frozen=True)
class DropoutAlong(MaskMember, listed=False):
    """`Dropout` whose elements share decisions along some axes, which may be negative."""

    p: float = rate(0.5)
    shared: tuple[int, ...] = some_axes()

    axes = along
