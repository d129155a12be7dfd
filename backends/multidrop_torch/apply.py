"""Runs and differentiates members of the dropout family: eagerly, in traced programs, and within `torch.func`.

A member that is a mask takes the path of `dropout_layer`. For the others a program holds the member as text, and an
operator runs it on real tensors, as an eager call does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multidrop import checks, family
from multidrop.family import MaskMember, Member, extent
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

from . import autograd, internals, programs
from .draw import Draw
from .functional import check_floating, tensor
from .internals import is_legacy_batched
from .position import calls, position_of
from .subclasses import PLAIN


def apply(member: Member, X: Tensor, key: int | Key | None = None, *, start: int = 0, learned: Any = None) -> Tensor:
    """`multidrop.apply` for tensors, differentiable any number of times.

    Args:
        member: the member.
        X: strided tensor of any layout and device; float16, bfloat16, float32 or float64. Members that are masks take
            jagged tensors too.
        key: names the numbers; without one, the next key after `multidrop.manual_seed`, or one from torch's generator.
        start: the index of X's first element.
        learned: the tensor that the member learns, or host data.

    Returns:
        A tensor of X's shape, type and device; X itself where the member is idle.

    Raises:
        ValueError: for an object that is no member, a shape that the member does not take, or a bad key, start or
            `learned`.
        TypeError: for a tensor, or a `learned`, that is not floating.
        RuntimeError: without a key, in a backward pass after `multidrop.manual_seed`.
    """
    X = tensor(X)
    if learned is not None:
        learned = tensor(learned, name="learned")
    if key is None:
        return apply_next(member, X, calls.stream, start, learned=learned)
    member, start = _checked(member, X, start, learned)
    if isinstance(member, MaskMember):
        return autograd.masked(X, Mask(member.p, as_key(key), start, member.axes(X.ndim)))
    key = as_key(key)
    return _run(member, X, position_of(key) if programs.tracing() else key, start, learned, False)


def apply_next(
    member: Member,
    X: Tensor,
    stream: Tensor | None,
    start: int = 0,
    *,
    learned: Tensor | None = None,
    note: dict[str, Any] | None = None,
    ranks: tuple[int, ...] | None = None,
) -> Tensor:
    """`apply` with the next key of a stream; without a stream, with one that torch's generator draws, if the member
    needs any. `note` gets what `autograd.noted` writes, for a member that is a mask."""
    member, start = _checked(member, X, start, learned)
    if isinstance(member, MaskMember):
        return autograd.masked_next(X, member.p, stream, start, member.axes(X.ndim), note=note, ranks=ranks)
    if stream is None and learned is None and member.idle:
        at: Key | Tensor = Key(0)
    else:
        at = programs.take(stream, X, ranks) if programs.tracing() else autograd.next_key(X, stream, ranks, note)
    return programs.unless_evaluated(X, _run(member, X, at, start, learned, True))


def _checked(member: Member, X: Tensor, start: int, learned: Tensor | None) -> tuple[Member, int]:
    """Checks the arguments, before a key is taken. Returns the member, and the index of X's first element among the
    numbers drawn."""
    check_floating(X)
    if learned is not None:
        check_floating(learned, "learned")
    if X.is_nested and (X.layout is torch.strided or not isinstance(member, MaskMember)):
        raise TypeError(
            f"X: expected a tensor that is not nested for {type(member).__name__}; got a nested one: convert it with "
            "torch.nested.to_padded_tensor(X, 0.0)"
        )
    start = checks.word64("start", start)
    member = family.checked(member, learned, X.shape)
    if isinstance(member, MaskMember):
        axes = member.axes(X.ndim)
        return member, extent(X.shape, start, axes)[1] if start else 0
    return member, member.check(X.shape, start)


def _run(member: Member, X: Tensor, at: Key | Tensor, start: int, learned: Tensor | None, random: bool) -> Tensor:
    """X through a member that is no mask, by a key, or in a program by a position. `random` is whether `vmap` decides
    what its examples share: see `autograd.offsets_of`."""
    apart = type(X) not in PLAIN or internals.functionalizes()  # which knows no autograd function
    if apart and isinstance(at, Key):
        at = position_of(at)  # a subclass sees an operator
    by_operator = isinstance(at, Tensor) and (apart or programs.tracing())
    if learned is not None:
        numbers = programs.Draw(at, start) if by_operator else Draw(at, start)  # type: ignore[arg-type]  # `at` is a position
        return family.run(member, X, numbers, learned=learned)
    if member.idle:
        return X
    if by_operator:
        return programs.apply(member, X, at, start)  # type: ignore[arg-type]  # `at` is a position
    if not autograd.transforms_active() and not (X.requires_grad and torch.is_grad_enabled()):
        return family.run(member, X, Draw(at, start))
    return _Applied.apply(X, autograd.offsets_of(X, Mask(0.0, at, start), random), member, at, start, False)


class _Applied(torch.autograd.Function):
    """Applies a member. Its Jacobian is diagonal, so `Member.gradient` serves every derivative, and the backward pass
    keeps only the key. `offsets` is as in `multidrop_torch.autograd`: batched dimensions come first in X, and the
    member is applied to each example."""

    @staticmethod
    def forward(X: Tensor, offsets: Tensor, member: Member, key: Any, start: int, gradient: bool) -> Tensor:
        if offsets.ndim == 0:
            return _fresh(family.run(member, X, Draw(key, start + int(offsets)), gradient), X)
        if X.numel() == 0:
            return torch.empty_like(X)
        examples = zip(X.flatten(0, offsets.ndim - 1), offsets.flatten().tolist(), strict=True)
        each = [family.run(member, x, Draw(key, start + offset), gradient) for x, offset in examples]
        return torch.stack(each).reshape(X.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, offsets, *ctx.rest, _ = inputs
        ctx.save_for_backward(offsets)
        ctx.save_for_forward(offsets)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        (offsets,) = ctx.saved_tensors
        if is_legacy_batched(dY):
            member, key, start = ctx.rest
            return family.run(member, dY, Draw(key, start), True), None, None, None, None, None
        return _Applied.apply(dY, offsets, *ctx.rest, True), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dX: Tensor, *_: None) -> Tensor:
        return _Applied.apply(dX, *ctx.saved_tensors, *ctx.rest, True)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], X: Tensor, offsets: Tensor, *rest: Any) -> tuple[Tensor, int]:
        X, offsets = (
            x.expand(info.batch_size, *x.shape) if axis is None else x.movedim(axis, 0)
            for x, axis in zip((X, offsets), in_dims, strict=False)
        )
        return _Applied.apply(X, offsets, *rest), 0


def _fresh(Y: Tensor, X: Tensor) -> Tensor:
    """Y, or a copy where it is X itself, which an autograd function may not return."""
    return Y.clone() if Y is X else Y
