"""Members of the dropout family as torch runs and differentiates them: eagerly, in a program that is traced, and within
`torch.func`.

A member that is a mask goes where `dropout_layer` goes. For the others, a program holds the member as text, which an
operator runs on real tensors, as an eager call does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multidrop import checks, family
from multidrop.family import MaskMember, Member, extent
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

from . import autograd, ops
from .draw import Draw
from .functional import _calls, check_floating, tensor


def apply(
    member: Member, X: Tensor, key: int | Key | None = None, *, start: int = 0, learned: Tensor | None = None
) -> Tensor:
    """`multidrop.apply` for tensors, differentiable any number of times.

    Args:
        member: the member.
        X: strided tensor of any layout and device; float16, bfloat16, float32 or float64. Of a jagged tensor, masks
            alone are defined.
        key: what names the numbers; without one, the next after `multidrop.manual_seed`, or one from torch's generator.
        start: the index of X's first element.
        learned: the tensor that the member learns.

    Returns:
        A tensor of X's shape, type and device; X itself where the member is idle.

    Raises:
        ValueError: for what is no member, a shape that it does not take, or a bad key, start or `learned`.
        TypeError: for a tensor that is not floating.
        RuntimeError: without a key, in a backward pass after `multidrop.manual_seed`.
    """
    X = tensor(X)
    if key is None:
        return apply_next(member, X, _calls.stream, _calls.keyed, start, learned=learned)
    member, start = _checked(member, X, start, learned)
    if isinstance(member, MaskMember):
        return autograd.masked(X, Mask(member.p, as_key(key), start, member.axes(X.ndim)))
    key = as_key(key)
    return _run(member, X, ops.position_of(key) if autograd.in_trace() else key, start, learned, False)


def apply_next(
    member: Member,
    X: Tensor,
    stream: Tensor,
    keyed: bool,
    start: int = 0,
    *,
    learned: Tensor | None = None,
    note: dict[str, Any] | None = None,
) -> Tensor:
    """`apply` with the next key of a stream, or where that is not keyed, one that torch's generator draws. `note` gets
    what `autograd.masked_next` notes of a mask."""
    member, start = _checked(member, X, start, learned)
    if isinstance(member, MaskMember):
        return autograd.masked_next(X, member.p, stream, keyed, start, member.axes(X.ndim), note=note)
    at = ops.take(stream, keyed) if autograd.in_trace() else autograd.next_key(X, stream, keyed)
    return _run(member, X, at, start, learned, True)


def _checked(member: Member, X: Tensor, start: int, learned: Tensor | None) -> tuple[Member, int]:
    """The member, and where X begins among the numbers that are drawn; before a key is taken."""
    check_floating(X)
    if learned is not None:
        check_floating(learned, "learned")
    start = checks.word64("start", start)
    member = family.checked(member, learned, X.shape)
    if isinstance(member, MaskMember):
        axes = member.axes(X.ndim)
        return member, extent(X.shape, start, axes)[1] if start else 0
    if X.layout is not torch.strided:
        raise TypeError(
            f"X: expected a tensor of strided layout for {type(member).__name__}; got {X.layout}: convert it with "
            "torch.nested.to_padded_tensor(X, 0.0)"
        )
    return member, member.check(X.shape, start)


def _run(member: Member, X: Tensor, at: Key | Tensor, start: int, learned: Tensor | None, random: bool) -> Tensor:
    """X through a member that is no mask, by a key, or in a program a position; `random` as in
    `autograd.offsets_of`."""
    if learned is not None:
        return family.run(member, X, Draw(at, start), learned=learned)
    if member.idle:
        return X
    if autograd.in_trace():
        operator: Any = torch.ops.multidrop.member.default
        return operator(X, at, member.text, ops.signed(start), False)
    if not autograd.transforms_active() and not (X.requires_grad and torch.is_grad_enabled()):
        return family.run(member, X, Draw(at, start))
    return _Applied.apply(X, autograd.offsets_of(X, Mask(0.0, at, start), random), member, at, start, False)


class _Applied(torch.autograd.Function):
    """A member, whose Jacobian is diagonal: `Member.gradient` is what each derivative of it needs. The backward pass
    keeps the key alone. `offsets` is that of `multidrop_torch.autograd`: the dimensions of X that `vmap` batches come
    first, and the member is that of an example."""

    @staticmethod
    def forward(X: Tensor, offsets: Tensor, member: Member, key: Key, start: int, gradient: bool) -> Tensor:
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
        if ops.is_legacy_batched(dY):
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
    """Y, where it is not X itself, which an operator may not give back, nor the output of one that adds."""
    return Y.clone() if Y is X else Y


@ops.operator("member_values(Tensor X, Tensor position, str member, SymInt start, bool gradient) -> Tensor")
def _values(X: Tensor, position: Tensor, member: str, start: int, gradient: bool) -> Tensor:
    """A member's output or its gradient, by its text, in X's layout."""
    Y = family.run(family.of_text(member), X, Draw(ops.by_kernels(position), start % 2**64), gradient)
    return torch.empty_like(X).copy_(Y)


@torch.library.register_fake("multidrop::member_values")
def _(X: Tensor, position: Tensor, member: str, start: int, gradient: bool) -> Tensor:
    return torch.empty_like(X)


class _InProgram(torch.autograd.Function):
    """The operator, whose gradient keeps the position, 16 bytes."""

    @staticmethod
    def forward(X: Tensor, position: Tensor, *rest: Any) -> Tensor:
        values: Any = torch.ops.multidrop.member_values.default
        return values(X, position, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, position, *ctx.rest, _ = inputs
        ctx.save_for_backward(position)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        (position,) = ctx.saved_tensors
        operator: Any = torch.ops.multidrop.member.default
        return operator(dY, position, *ctx.rest, True), None, None, None, None


@ops.operator("member(Tensor X, Tensor position, str member, SymInt start, bool gradient) -> Tensor", composed=True)
def _member(X: Tensor, *arguments: Any) -> Tensor:
    """`member_values` with a gradient."""
    if X.requires_grad and torch.is_grad_enabled():
        return _InProgram.apply(X, *arguments)
    values: Any = torch.ops.multidrop.member_values.default
    return values(X, *arguments)
