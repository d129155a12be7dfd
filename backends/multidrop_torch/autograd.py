"""Differentiates a dropout: eagerly, in traced programs, and within `torch.func`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import draw, gpu, internals, programs, subclasses
from .position import calls, known, position_of, signed
from .ranks import at_place, holders, place_among
from .recomputation import next_key as next_of
from .recomputation import watched


def masked(X: Tensor, mask: Mask, *, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask: `dropout_layer` after its checks."""
    if mask.axes:
        _check_axes(X)
    if mask.p == 0.0:
        return draw.rectified(X) if relu else X
    if programs.tracing():
        return programs.drop(draw.rectified(X) if relu else X, position_of(mask.key), mask)
    return _differentiable(X, mask, relu=relu)


def masked_next(
    X: Tensor,
    p: float,
    stream: Tensor | None,
    start: int = 0,
    axes: tuple[int, ...] = (),
    *,
    inplace: bool = False,
    relu: bool = False,
    note: dict[str, Any] | None = None,
    ranks: tuple[int, ...] | None = None,
) -> Tensor:
    """X, or max(X, 0), through the next mask of a stream; without a stream, through one that torch's generator names,
    which draws nothing at p = 0. `note` gets what `noted` writes, where Python runs this. `ranks` is that of a
    layer, as `distributed.per_rank` sets it."""
    if axes:
        _check_axes(X)
    if programs.tracing():
        Z = draw.rectified(X) if relu else X
        if p == 0.0 and stream is None:
            return Z
        # Not on a GPU, where a dropout fuses with its neighbours if its position is taken by another operator.
        at_once = p > 0.0 and ranks is None and type(Z) is Tensor and Z.device.type != "cuda"
        if at_once and programs.without_gradient(Z):
            Y = programs.drop_next(Z, stream, p, start, axes)
        else:
            position = programs.take(stream, Z, ranks)
            Y = Z
            if p > 0.0:
                Y = programs.unless_evaluated(Z, programs.drop(Z, position, Mask(p, Key(0), start, axes)))
        return X.copy_(Y) if inplace else Y
    if inplace:
        _check_in_place(X)
    elif stream is not None and p > 0.0 and stream.is_cuda and ranks is None and _by_kernels(X, stream):
        if X.requires_grad and torch.is_grad_enabled():
            Y = (_Rectified if relu else _Masked).apply(X, Mask(p, None, start, axes), stream)
            mask = Y.grad_fn.mask
        else:
            Y, mask = gpu.take_and_drop(X, p, start, axes, stream, relu)
        if note is not None:  # as `noted` does: nothing hides the shape from the kernels
            note["last"] = mask, X.shape, calls.drawn_in_programs
        return Y
    if p == 0.0:
        key = Key(0) if stream is None else next_key(X, stream, ranks, note)  # any key names the mask that keeps all
        mask, Y = Mask(p, key, start, axes), draw.rectified(X) if relu else X
    else:
        mask = Mask(p, next_key(X, stream, ranks, note), start, axes)
        Y = _differentiable(X, mask, True, inplace, relu)
    if note is not None:
        noted(note, X, mask)
    return Y


def _check_axes(X: Tensor) -> None:
    """TypeError for a nested tensor, whose values have other axes than it."""
    if X.is_nested:
        raise TypeError(
            "X: expected a tensor that is not nested, where elements share a decision; got a nested one: convert it "
            "with torch.nested.to_padded_tensor(X, 0.0)"
        )


def noted(note: dict[str, Any], X: Tensor, mask: Mask) -> None:
    """Writes, as `last`, the mask that a layer used, the shape that it was for, and how many keys programs had drawn
    by then. The shape is None where X does not tell it: one example of a `vmap`, whose mask may be a part of a larger
    one, or a nested tensor."""
    hidden = (internals.transforms() and _batch_levels(X)) or X.is_nested
    note["last"] = mask, None if hidden else X.shape, calls.drawn_in_programs


def _by_kernels(X: Tensor, stream: Tensor) -> bool:
    """Whether one launch on a GPU can take a mask's position and drop by it, and nothing else is to see that."""
    return (
        type(X) in subclasses.PLAIN
        and X.get_device() == stream.get_device()
        and not (internals.dispatch_modes() or watched() or transforms_active() or X.is_nested)
        and gpu.fits(X)
    )


def next_key(
    X: Tensor, stream: Tensor | None, ranks: tuple[int, ...] | None = None, note: dict[str, Any] | None = None
) -> Key | Tensor:
    """The next key of a stream for X, outside of a trace; without a stream, one that torch's generator draws. Within
    `torch.func` it is taken once for all: `vmap` would draw a number for each example. With `ranks`, it is the key of
    this rank's place among them, which `note` gets."""
    if ranks is not None and stream is not None:
        place = place_among(ranks, holders(X))
        if note is not None:
            note["place"] = place
        return at_place(known(next_key(X, stream)), place)
    if not internals.transforms():
        return _next_near(X, stream)
    _check_randomness(X)
    with internals.without_transforms():
        return _next_near(X, stream)


def _next_near(X: Tensor, stream: Tensor | None) -> Key | Tensor:
    """The next key of a stream; without one, that which torch's generator of X's device draws.

    Raises:
        RuntimeError: while a CUDA graph is captured, for a stream on the CPU: each replay would repeat the mask.
    """
    if X.is_cuda and gpu.draws(X.device):
        if stream is None:
            return gpu.drawn(X.device)
        if stream.is_cpu and gpu.capturing(X):
            raise RuntimeError(
                "stream: expected one on the GPU while a CUDA graph is captured; got one on the CPU, so that each "
                "replay would repeat its mask: move the layer with layer.to(X.device) before, or leave it unseeded"
            )
    return next_of(stream)


def _batch_levels(X: Tensor) -> set[int]:
    """The levels of the `vmap`s to which X is one example of a batch."""
    levels = set()
    while internals.is_wrapped(X):
        if internals.is_batched(X):
            levels.add(internals.level_of(X))
        X = internals.unwrapped(X)
    return levels


def _check_in_place(X: Tensor) -> None:
    """RuntimeError, before anything is written or a mask is taken, where torch would raise one when it is too late."""
    reason = None
    if X.is_inference() and not torch.is_inference_mode_enabled():
        reason = "an inference tensor outside of inference mode"
    elif any(stride == 0 and size > 1 for stride, size in zip(X.stride(), X.shape, strict=True)):
        reason = "an expanded tensor, several of whose elements share memory,"
    elif X.requires_grad and torch.is_grad_enabled():
        if X.is_leaf:
            reason = "a leaf Variable that requires grad"
        elif (base := internals.base_of(X)) is not None:
            if base.is_leaf and base.requires_grad:
                reason = "a view of a leaf Variable that requires grad"
            elif internals.is_one_of_several(X):
                reason = "a view that is one of several, or was made without gradients,"
    if reason:
        raise RuntimeError(
            f"{reason} is being used in an in-place operation: expected inplace=False, or an input that may be written "
            "to; got one that may not, which is left as it was"
        )


def _check_randomness(X: Tensor) -> None:
    """RuntimeError where a `vmap` that X is batched by allows nothing random."""
    levels = _batch_levels(X)
    for transform in internals.interpreters():
        if transform.level() in levels and transform.randomness() == "error":
            raise RuntimeError(
                "vmap: expected randomness='different' or 'same' for a dropout that takes the next mask; got 'error', "
                "the default: pass vmap one of them, or dropout_layer a key"
            )


def transforms_active() -> bool:
    """Whether `torch.func` or forward-mode differentiation is active."""
    return internals.transforms() or internals.forward_mode()


def offsets_of(X: Tensor, mask: Mask, random: bool) -> Tensor:
    """The index in a mask at which X begins: see `_Offsets`."""
    return _Offsets.apply(X.detach(), mask, random)


def _drop(X: Tensor, mask: Mask, relu: bool = False) -> Tensor:
    """`draw.drop`, as an operator where X is of a subclass or a dispatch mode watches, so that they see what runs."""
    if type(X) in subclasses.PLAIN and not internals.dispatch_modes():
        return draw.drop(X, mask, relu)
    subclasses.ready(type(X))
    Z = draw.rectified(X) if relu else X
    position = mask.key if isinstance(mask.key, Tensor) else position_of(mask.key)
    return programs.drop_values(Z, position, mask.p, signed(mask.start), mask.axes)


def _drop_(X: Tensor, mask: Mask) -> Tensor:
    """`_drop` in place."""
    return draw.drop_(X, mask) if type(X) in subclasses.PLAIN else X.copy_(_drop(X, mask))


def _differentiable(X: Tensor, mask: Mask, random: bool = False, inplace: bool = False, relu: bool = False) -> Tensor:
    """X through a mask, by the cheapest function that serves the caller. Autograd functions that support transforms
    take five times as long as plain ones, and those as long as a small dropout itself."""
    if transforms_active():
        Z = draw.rectified(X) if relu else X
        if internals.functionalizes():  # which knows no autograd function
            Y = programs.drop(Z, position_of(mask.key), mask)
        else:
            Y = _Transformed.apply(Z, offsets_of(X, mask, random), mask)
        return X.copy_(Y) if inplace else Y
    if X.requires_grad and torch.is_grad_enabled():
        if relu:
            return _Rectified.apply(X, mask)
        return (_MaskedInPlace if inplace else _Masked).apply(X, mask)
    return _drop_(X, mask) if inplace else _drop(X, mask, relu)


def _dropped(X: Tensor, mask: Mask, relu: bool, stream: Tensor | None) -> tuple[Tensor, Mask]:
    """X through a mask, or through the next of a stream on its GPU; and that mask."""
    if stream is None:
        return _drop(X, mask, relu), mask
    return gpu.take_and_drop(X, mask.p, mask.start, mask.axes, stream, relu)


class _Masked(torch.autograd.Function):
    """Keeps only the mask's key for the backward pass: the gradient of a dropout is the same dropout of the gradient.
    It can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask, stream: Tensor | None = None) -> Tensor:
        Y, ctx.mask = _dropped(X, mask, False, stream)
        return Y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        return (draw.drop_by_operators if draw.is_batched(dY) else _differentiable)(dY, ctx.mask), None, None


class _MaskedInPlace(_Masked):
    """`_Masked` in place."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask, *_: Any) -> Tensor:
        ctx.mark_dirty(X)
        ctx.mask = mask
        return _drop_(X, mask)


class _Rectified(torch.autograd.Function):
    """ReLU, then dropout. The backward pass keeps the output, which the next layer mostly keeps anyway."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask, stream: Tensor | None = None) -> Tensor:
        Y, ctx.mask = _dropped(X, mask, True, stream)
        ctx.save_for_backward(Y)
        return Y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        (Y,) = ctx.saved_tensors
        return _gated(dY, Y.detach(), ctx.mask.p), None, None


def _gated(dY: Tensor, Y: Tensor, p: float) -> Tensor:
    """The gradient of a `_Rectified` whose output is Y, differentiable where dY is."""
    if dY.requires_grad and torch.is_grad_enabled():
        return _Gated.apply(dY, Y, p)
    return draw.relu_gradient(dY, Y, p)


class _Gated(torch.autograd.Function):
    """The gradient of `_Rectified`: it is linear in dY, and so its own gradient."""

    @staticmethod
    def forward(ctx: Any, dY: Tensor, Y: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(Y)
        ctx.p = p
        return draw.relu_gradient(dY, Y, p)

    @staticmethod
    def backward(ctx: Any, ddX: Tensor) -> tuple[Tensor, None, None]:
        (Y,) = ctx.saved_tensors
        return _gated(ddX, Y, ctx.p), None, None


class _Offsets(torch.autograd.Function):
    """The index in a mask at which X begins: 0, or in a `vmap` with randomness="different" the number of elements of
    the examples before it. It is a tensor that the backward pass keeps, because other tensors are batched there."""

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
        """A given key names one mask, which every example gets. A key from a stream is random to `vmap`, and its
        `randomness` decides: one mask for all examples, or one over the whole batch."""
        X = X.movedim(in_dims[0], 0)
        if not random or info.randomness == "same":
            example = X[:0].sum(0)  # whose values do not matter; a batch may be empty
            return _Offsets.apply(example, mask, random), None
        batched = mask._replace(axes=tuple(axis + 1 for axis in mask.axes))
        count = math.prod(masks.drawn_shape(tuple(X.shape[1:]), mask.axes))
        return _Offsets.apply(X, batched, random) + count * torch.arange(len(X), device="cpu"), 0


class _Transformed(torch.autograd.Function):
    """`_Masked` for `torch.func`, `torch.vmap` and forward-mode differentiation. The batched dimensions come first in
    X, and `offsets` has one number for each example; the mask is that of one example."""

    @staticmethod
    def forward(X: Tensor, offsets: Tensor, mask: Mask) -> Tensor:
        if offsets.ndim == 0:
            return _drop(X, mask._replace(start=mask.start + int(offsets)))
        if X.numel() == 0:
            return torch.empty_like(X)
        examples = X.flatten(0, offsets.ndim - 1)
        starts = [mask.start + offset for offset in offsets.flatten().tolist()]
        count = math.prod(masks.drawn_shape(tuple(examples.shape[1:]), mask.axes))
        if starts == [starts[0] + count * number for number in range(len(starts))]:
            axes = tuple(axis + 1 for axis in mask.axes)
            return _drop(examples, mask._replace(start=starts[0], axes=axes)).reshape(X.shape)
        dropped = [_drop(x, mask._replace(start=start)) for x, start in zip(examples, starts, strict=True)]
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
