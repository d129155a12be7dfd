"""A dropout as torch differentiates it: eagerly, in a program that is traced, and within `torch.func`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad

from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import device, ops
from . import pointwise as pointwise  # whose operator a program may name


def masked(X: Tensor, mask: Mask, *, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask: `dropout_layer` after its checks."""
    if mask.p == 0.0:
        return ops.rectified(X) if relu else X
    if in_trace():
        return _in_program(ops.rectified(X) if relu else X, mask._replace(key=ops.position_of(mask.key)))
    return _differentiable(X, mask, relu=relu)


def masked_next(
    X: Tensor,
    p: float,
    stream: Tensor,
    keyed: bool,
    start: int = 0,
    axes: tuple[int, ...] = (),
    *,
    inplace: bool = False,
    relu: bool = False,
    note: dict[str, Any] | None = None,
) -> Tensor:
    """X, or max(X, 0), through the next mask of a stream, or where that is not keyed, one that torch's generator
    names. `note` gets, as `last`, the mask and the shape that it was for, where Python runs this."""
    if in_trace():
        Z = ops.rectified(X) if relu else X
        if p > 0.0 and _without_gradient(Z) and Z.device.type != "cuda":
            Y = ops.next_values(Z, stream, keyed, p, ops.signed(start), axes)
        else:
            Y = _in_program(Z, Mask(p, ops.take(stream, keyed), start, axes))
        return X.copy_(Y) if inplace else Y
    if inplace:
        _check_in_place(X)
    elif keyed and p > 0.0 and stream.is_cuda and _by_kernels(X, stream):
        Y, mask = _taken(X, Mask(p, None, start, axes), stream, relu)
        if note is not None:
            note["last"] = mask, X.shape
        return Y
    mask = Mask(p, next_key(X, stream, keyed), start, axes)
    Y = (ops.rectified(X) if relu else X) if p == 0.0 else _differentiable(X, mask, True, inplace, relu)
    if note is not None:
        # Of one example to a `vmap`, whose mask may be a part of a larger one, and of a nested tensor the shape tells
        # nothing.
        transforms = torch._C._are_functorch_transforms_active()
        note["last"] = mask, None if (transforms and _batch_levels(X)) or X.is_nested else X.shape
    return Y


def _by_kernels(X: Tensor, stream: Tensor) -> bool:
    """Whether one launch on a GPU can take a mask's position and drop by it, and nothing else is to see that."""
    return (
        type(stream) is Tensor
        and X.get_device() == stream.get_device()
        and device.fits(X)
        and not X.is_nested
        and not transforms_active()
        and not ops.may_be_checkpointed()
    )


def _taken(X: Tensor, mask: Mask, stream: Tensor, relu: bool) -> tuple[Tensor, Mask]:
    """X, or max(X, 0), through the next mask of a stream on its GPU, and that mask, by its position."""
    if not (X.requires_grad and torch.is_grad_enabled()):
        return device.take_and_drop(X, mask, stream, relu)
    taken: list[Mask] = []
    return (_Rectified if relu else _Masked).apply(X, mask, stream, taken), taken[0]


def next_key(X: Tensor, stream: Tensor, keyed: bool) -> Key | Tensor:
    """The next key of a stream for X, outside of a trace; of one that is not keyed, a key that torch's generator
    draws."""
    if not keyed and device.fits(X):
        return device.drawn(X.device)
    take = ops.next_key if keyed else ops.drawn_key
    if not torch._C._are_functorch_transforms_active():
        return take(stream)
    _check_randomness(X)
    return ops.below_transforms(take, stream)


def _batch_levels(X: Tensor) -> set[int]:
    """The levels of the `vmap`s to which X is one example of a batch."""
    functorch, levels = torch._C._functorch, set()
    while functorch.is_functorch_wrapped_tensor(X):
        if functorch.is_batchedtensor(X):
            levels.add(functorch.maybe_get_level(X))
        X = functorch.get_unwrapped(X)
    return levels


def _check_in_place(X: Tensor) -> None:
    """RuntimeError, before anything is written or a mask is taken, where torch would raise one when it is too late."""
    reason = None
    if X.is_inference() and not torch.is_inference_mode_enabled():
        reason = "an inference tensor outside of inference mode"
    elif any(stride == 0 and size > 1 for stride, size in zip(X.stride(), X.shape, strict=True)):
        reason = "an expanded tensor, of whose elements several are one in memory"
    elif X.requires_grad and torch.is_grad_enabled():
        if X.is_leaf:
            reason = "a leaf Variable that requires grad"
        elif (base := X._base) is not None:
            if base.is_leaf and base.requires_grad:
                reason = "a view of a leaf Variable that requires grad"
            elif torch._C._autograd._get_creation_meta(X) != torch._C._autograd.CreationMeta.DEFAULT:
                reason = "a view that is one of several, or was made without gradients,"
    if reason:
        raise RuntimeError(
            f"{reason} is being used in an in-place operation: expected inplace=False, or an input that may be written "
            "to; got one that may not, which is left as it was"
        )


def _check_randomness(X: Tensor) -> None:
    """RuntimeError where a `vmap` that X is batched by allows nothing random."""
    levels = _batch_levels(X)
    transforms: list[Any] = retrieve_all_functorch_interpreters()
    for transform in transforms:
        if transform.level() in levels and transform.randomness() == "error":
            raise RuntimeError(
                "vmap: expected randomness='different' or 'same' for a dropout that takes the next mask; got 'error', "
                "the default: pass vmap one of them, or dropout_layer a key"
            )


def transforms_active() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def offsets_of(X: Tensor, mask: Mask, random: bool) -> Tensor:
    """Where in a mask X begins; see `_Offsets`."""
    return _Offsets.apply(X.detach(), mask, random)


def in_trace() -> bool:
    """Whether what runs is written down, or looked at by a dispatch mode, whose tensors may have no memory."""
    return torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0


def _in_program(X: Tensor, mask: Mask) -> Tensor:
    """By the operator, in a program that is traced; the mask has a position for its key."""
    if mask.p == 0.0:
        return X
    drop = ops.drop_values if _without_gradient(X) else ops.dropout
    return drop(X, mask.key, mask.p, ops.signed(mask.start), mask.axes)


def _without_gradient(X: Tensor) -> bool:
    """Whether a program can do without the gradient of what X goes through: `torch.compile` compiles anew where one
    comes to be wanted, a program that is exported may be trained later, and within `torch.func` a tensor does not
    tell."""
    wanted = X.requires_grad and torch.is_grad_enabled()
    compiled = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    return compiled and not wanted and not torch._C._are_functorch_transforms_active()


def _differentiable(X: Tensor, mask: Mask, random: bool = False, inplace: bool = False, relu: bool = False) -> Tensor:
    """X through a mask, by what costs least where it is called: torch's own functions for transforms take five times as
    long as those for a plain backward pass, and these as long as a small dropout itself."""
    if transforms_active():
        Y = _Transformed.apply(ops.rectified(X) if relu else X, offsets_of(X, mask, random), mask)
        return X.copy_(Y) if inplace else Y
    if X.requires_grad and torch.is_grad_enabled():
        if relu:
            return _Rectified.apply(X, mask)
        return (_MaskedInPlace if inplace else _Masked).apply(X, mask)
    return ops.drop_(X, mask) if inplace else ops.drop(X, mask, relu)


def _dropped(X: Tensor, mask: Mask, relu: bool, stream: Tensor | None, taken: Any) -> tuple[Tensor, Mask]:
    """X through a mask, or through the next of a stream on its GPU, which the list `taken` gets; and that mask."""
    if stream is None:
        return ops.drop(X, mask, relu), mask
    Y, mask = device.take_and_drop(X, mask, stream, relu)
    taken.append(mask)
    return Y, mask


class _Masked(torch.autograd.Function):
    """The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps the mask's name
    and nothing else, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask, stream: Tensor | None = None, taken: Any = None) -> Tensor:
        Y, ctx.mask = _dropped(X, mask, False, stream, taken)
        return Y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        return (ops.drop_by_operators if ops.is_batched(dY) else _differentiable)(dY, ctx.mask), None, None, None


class _MaskedInPlace(_Masked):
    """The same, over its input."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask, *_: Any) -> Tensor:
        ctx.mark_dirty(X)
        ctx.mask = mask
        return ops.drop_(X, mask)


class _Rectified(torch.autograd.Function):
    """ReLU then dropout. The backward pass keeps the output, which what follows mostly keeps anyway."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask, stream: Tensor | None = None, taken: Any = None) -> Tensor:
        Y, _ = _dropped(X, mask, True, stream, taken)
        ctx.save_for_backward(Y)
        ctx.p = mask.p
        return Y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        (Y,) = ctx.saved_tensors
        return _gated(dY, Y.detach(), ctx.p), None, None, None


def _gated(dY: Tensor, Y: Tensor, p: float) -> Tensor:
    """The gradient of `_Rectified` whose output is Y."""
    if dY.requires_grad and torch.is_grad_enabled():
        return _Gated.apply(dY, Y, p)
    return ops.relu_gradient(dY, Y, p)


class _Gated(torch.autograd.Function):
    """It is linear in dY, and so its own gradient."""

    @staticmethod
    def forward(ctx: Any, dY: Tensor, Y: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(Y)
        ctx.p = p
        return ops.relu_gradient(dY, Y, p)

    @staticmethod
    def backward(ctx: Any, ddX: Tensor) -> tuple[Tensor, None, None]:
        (Y,) = ctx.saved_tensors
        return _gated(ddX, Y, ctx.p), None, None


class _Offsets(torch.autograd.Function):
    """Where in a mask X begins: at 0, or in `vmap` with randomness="different", where the examples that come before it
    end. It is a tensor, so that a backward pass, where other tensors are batched than were in the forward, goes by what
    held there."""

    @staticmethod
    def forward(X: Tensor, mask: Mask, random: bool) -> Tensor:
        return torch.zeros((), dtype=torch.int64, device="cpu")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], X: Tensor, mask: Mask, random: bool) -> tuple[Tensor, int | None]:
        """A key that is given names one mask, which each example of the batch gets. One that is taken from a stream is
        random to `vmap`, whose `randomness` decides: one mask for each, or one over the whole batch."""
        X = X.movedim(in_dims[0], 0)
        if not random or info.randomness == "same":
            example = X[:0].sum(0)  # whose values do not matter; a batch may be empty
            return _Offsets.apply(example, mask, random), None
        batched = mask._replace(axes=tuple(axis + 1 for axis in mask.axes))
        count = math.prod(masks.drawn_shape(tuple(X.shape[1:]), mask.axes))
        return _Offsets.apply(X, batched, random) + count * torch.arange(len(X), device="cpu"), 0


class _Transformed(torch.autograd.Function):
    """`_Masked` for `torch.func`, `torch.vmap` and forward-mode differentiation. `offsets` has the dimensions of X that
    are batched, which come first; the mask is that of an example."""

    @staticmethod
    def forward(X: Tensor, offsets: Tensor, mask: Mask) -> Tensor:
        if offsets.ndim == 0:
            return ops.drop(X, mask._replace(start=mask.start + int(offsets)))
        if X.numel() == 0:
            return torch.empty_like(X)
        examples = X.flatten(0, offsets.ndim - 1)
        starts = [mask.start + offset for offset in offsets.flatten().tolist()]
        count = math.prod(masks.drawn_shape(tuple(examples.shape[1:]), mask.axes))
        if starts == [starts[0] + count * number for number in range(len(starts))]:
            axes = tuple(axis + 1 for axis in mask.axes)
            return ops.drop(examples, mask._replace(start=starts[0], axes=axes)).reshape(X.shape)
        dropped = [ops.drop(x, mask._replace(start=start)) for x, start in zip(examples, starts, strict=True)]
        return torch.stack(dropped).reshape(X.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, offsets, ctx.mask = inputs
        ctx.save_for_backward(offsets)
        ctx.save_for_forward(offsets)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor, None, None]:
        return _Transformed.apply(dY, *ctx.saved_tensors, ctx.mask), None, None

    @staticmethod
    def jvp(ctx: Any, dX: Tensor, *_: None) -> Tensor:
        return _Transformed.apply(dX, *ctx.saved_tensors, ctx.mask)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], X: Tensor, offsets: Tensor, mask: Mask) -> tuple[Tensor, int]:
        X, offsets = (
            x.expand(info.batch_size, *x.shape) if axis is None else x.movedim(axis, 0)
            for x, axis in zip((X, offsets), in_dims, strict=False)
        )
        return _Transformed.apply(X, offsets, mask), 0
