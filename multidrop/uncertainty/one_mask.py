"""One mask for all examples of a batch, for any member of the family."""

from __future__ import annotations

from typing import Any

from ..family import Draw, MaskMember, Member
from ..family.dropout import DropoutAlong

Tensor = Any


def one_mask(member: Member, ndim: int) -> Member:
    """The member that draws its numbers for an X with 1 along the axis of examples, and uses them for all examples.

    Args:
        member: any member.
        ndim: how many dimensions X has.
    """
    if isinstance(member, MaskMember):  # which the frameworks compute by their kernels
        return DropoutAlong(member.p, tuple(sorted({*member.axes(ndim), member.batch_axis})))
    return _OneMask(member)


class _OneMask(Member, listed=False):
    """Any member with the numbers of the first example for all examples. Not listed: no program runs it."""

    def __init__(self, member: Member) -> None:
        self.member, self.learns = member, member.learns  # type: ignore[misc]  # a class variable of plain members

    def __call__(self, X: Tensor, draw: Draw, *learned: Tensor) -> Tensor:
        return self.member(X, _First(draw, self.member.batch_axis), *learned)

    def gradient(self, dY: Tensor, draw: Draw) -> Tensor:
        return self.member.gradient(dY, _First(draw, self.member.batch_axis))

    def learned_gradient(self, dY: Tensor, X: Tensor, draw: Draw, learned: Tensor) -> Tensor:
        """As the member's."""
        member: Any = self.member
        return member.learned_gradient(dY, X, _First(draw, self.member.batch_axis), learned)

    def axes(self, ndim: int) -> tuple[int, ...]:
        return self.member.axes(ndim)

    def margin(self, ndim: int) -> tuple[int, ...]:
        return self.member.margin(ndim)

    @property
    def idle(self) -> bool:
        return self.member.idle


class _First:
    """A `Draw` whose numbers are drawn for the first example alone, and broadcast."""

    def __init__(self, draw: Draw, axis: int) -> None:
        self._draw, self._axis = draw, axis
        self.xp, self.select, self.wide, self.narrow = draw.xp, draw.select, draw.wide, draw.narrow

    def _first(self, X: Tensor) -> Tensor:
        return X[(*(slice(None),) * self._axis, slice(0, 1))]

    def dropout(self, X: Tensor, p: float, axes: tuple[int, ...] = ()) -> Tensor:
        return self._draw.dropout(X, p, tuple(sorted({*axes, self._axis})))

    def keep(self, X: Tensor, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Tensor:
        return self._draw.keep(self._first(X), p, axes, margin)

    def normal(self, X: Tensor, mean: float, stddev: float) -> Tensor:
        return self._draw.normal(self._first(X), mean, stddev)

    def uniform(self, X: Tensor) -> Tensor:
        return self._draw.uniform(self._first(X))
