"""Functions on torch tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad

from multidrop import checks, kernel, masks
from multidrop.keys import Key, as_key, on_manual_seed
from multidrop.masks import Mask

from . import ops
from .ops import draw_key as draw_key

NAME = "torch"

Drop: TypeAlias = Callable[[Tensor, tuple[int, ...], bool], Tensor]
"""What draws a mask and drops by it: (X, axes that share a decision, in place)."""


def tensor(data: Any, dtype: str | None = None) -> Tensor:
    """A tensor of host data: of `dtype`, or else of the type that `torch.as_tensor` gives it (which shares the memory
    of a NumPy array)."""
    if dtype is None:
        return data if isinstance(data, Tensor) else torch.as_tensor(data)
    return torch.as_tensor(data, dtype=getattr(torch, dtype))


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def dropout_layer(
    X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> Tensor:
    """`multidrop.dropout_layer` for tensors, differentiable any number of times.

    Args:
        X: tensor of any shape, layout and device; float16, bfloat16, float32 or float64.
        dropout: p, in [0, 1].
        key: what names the mask; without one, the next after `multidrop.manual_seed`, or one from torch's generator.
        start: the index of X's first element.
        axes: along which one decision holds for all elements.

    Returns:
        A tensor of X's shape, type and device; X itself at p = 0.

    Raises:
        ValueError: for a bad probability, key, start or axes.
        TypeError: for a tensor that is not floating.
        RuntimeError: without a key, in a backward pass after `multidrop.manual_seed`.
    """
    return _dropout(X, dropout, key, start, axes, relu=False)


def relu_dropout(X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Tensor:
    """`multidrop.relu_dropout` for tensors; args, result and errors are those of `dropout_layer`. In a compiled
    program, and for `torch.func`, it is a ReLU and a dropout."""
    return _dropout(X, dropout, key, start, (), relu=True)


def _dropout(
    X: Tensor, dropout: float, key: int | Key | None, start: int, axes: int | Sequence[int], relu: bool
) -> Tensor:
    X = tensor(X)
    check_floating(X)
    p, count = checks.probability("dropout", dropout), X.numel()
    axes = checks.axes(axes, X.ndim)
    if axes:
        count = math.prod(masks.drawn_shape(X.shape, axes))
    start = checks.span(start, count)
    if key is None:
        return masked_next(X, p, _calls.stream, _calls.keyed, start, axes, relu=relu)
    return masked(X, Mask(p, as_key(key), start, axes), relu=relu)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout`.

    Args:
        input: tensor of any shape; float16, bfloat16, float32 or float64.
        p: the probability that an element is dropped, in [0, 1].
        training: whether anything is dropped.
        inplace: whether the result is written over `input`.
        drop: what draws the mask, a function of (input, axes, inplace); without one, the next mask after
            `multidrop.manual_seed`, or by torch's generator.

    Returns:
        A tensor of the input's shape and type; the input itself outside of training.

    Raises:
        ValueError: for a bad probability.
        TypeError: for a tensor that is not floating.
    """
    check_floating(input)
    p = checks.probability("p", p)
    return (drop or _drop_by(p))(input, (), inplace) if training else input


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout1d`: drops whole channels of (n, c, l) or (c, l). Args and result are
    those of `dropout`.

    Raises:
        RuntimeError: for another number of dimensions.
    """
    check_floating(input)
    axes1d(input.ndim)  # whose error torch's raises outside of training too
    return _feature_dropout(input, p, training, inplace, drop, axes1d)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout2d`: drops whole channels of (n, c, h, w). Args and result are those
    of `dropout`. It warns, as torch's does, of another number of dimensions; three are taken for (n, c, l)."""
    check_floating(input)
    if input.ndim == 3:
        warnings.warn(
            "dropout2d: Received a 3-D input to dropout2d, assuming that channel-wise 1D dropout behavior is desired, "
            "as torch does: it is taken for (n, c, l). Use dropout1d for that, and unsqueeze(0) for (c, h, w)",
            stacklevel=2,
        )
    elif input.ndim != 4:
        _warn_of("dropout2d", input.ndim, "3D or 4D")
    return _feature_dropout(input, p, training, inplace, drop, spatial_axes)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout3d`: drops whole channels of (n, c, d, h, w) or (c, d, h, w). Args
    and result are those of `dropout`. It warns, as torch's does, of another number of dimensions."""
    check_floating(input)
    if input.ndim not in (4, 5):
        _warn_of("dropout3d", input.ndim, "4D or 5D")
    return _feature_dropout(input, p, training, inplace, drop, axes3d)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.alpha_dropout`. Args and result are those of `dropout`."""
    check_floating(input)
    return _alpha_dropout(input, p, training, inplace, drop, ())


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.feature_alpha_dropout`: the same for whole channels, of (n, c, …)."""
    check_floating(input)
    return _alpha_dropout(input, p, training, inplace, drop, spatial_axes(input.ndim))


def axes1d(ndim: int) -> tuple[int, ...]:
    """Along which `dropout1d` shares decisions."""
    if ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {ndim}D input; it takes (c, l) and (n, c, l)"
        )
    return spatial_axes(ndim, 2 if ndim == 3 else 1)


def axes3d(ndim: int) -> tuple[int, ...]:
    """Along which `dropout3d` shares decisions."""
    return spatial_axes(ndim, 1 if ndim == 4 else 2)


def spatial_axes(ndim: int, first: int = 2) -> tuple[int, ...]:
    """The axes after those of the batch and the channels."""
    if ndim < first:
        raise RuntimeError(f"X: expected a batch and channels, at least {first} dimensions; got {ndim}")
    return tuple(range(first, ndim))


def _feature_dropout(
    X: Tensor, p: float, training: bool, inplace: bool, drop: Drop | None, axes: Callable[[int], tuple[int, ...]]
) -> Tensor:
    p = checks.probability("p", p)
    return (drop or _drop_by(p))(X, axes(X.ndim), inplace) if training else X


def _alpha_dropout(
    X: Tensor, p: float, training: bool, inplace: bool, drop: Drop | None, axes: tuple[int, ...]
) -> Tensor:
    """a·x + a·α·p where kept and a·α·(p − 1) where dropped: a dropout of x + α, scaled and moved."""
    p = checks.probability("p", p)
    if not training:
        return X
    drop = drop or _drop_by(p)
    if p == 0.0:
        return drop(X, axes, inplace)  # which takes a call, and is X
    scale, shift = masks.alpha_affine(p)
    Y = drop(X + masks.ALPHA, axes, False) * scale + shift
    return X.copy_(Y) if inplace else Y


def _drop_by(p: float) -> Drop:
    """What draws the masks of calls without a key."""

    def drop(X: Tensor, axes: tuple[int, ...], inplace: bool) -> Tensor:
        return masked_next(X, p, _calls.stream, _calls.keyed, 0, axes, inplace=inplace)

    return drop


def _warn_of(name: str, ndim: int, expected: str) -> None:
    text = f"{name}: Received a {ndim}-D input to {name}, which torch means to give up; expected {expected}"
    warnings.warn(text, stacklevel=3)


def check_floating(X: Tensor) -> None:
    """TypeError where X is no tensor of a floating type, with torch's remedy."""
    try:
        known = X.dtype in ops.NAMES
    except AttributeError:  # as of a list; to ask first what it is would cost every call
        known = False
    if not known:
        if not isinstance(X, Tensor):
            raise checks.not_floating(checks.shown(X), "torch.as_tensor(X)")
        checks.floating(str(X.dtype).removeprefix("torch."), "X.float()")


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """`multidrop.keep_mask` as a bool tensor on `device`."""
    return torch.from_numpy(kernel.keep_mask(shape, dropout, key, start)).to(device)


def masked(X: Tensor, mask: Mask, *, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask: `dropout_layer` after its checks."""
    if mask.p == 0.0:
        return torch.relu(X) if relu else X
    if _in_trace():
        return _in_program(torch.relu(X) if relu else X, mask._replace(key=ops.position_of(mask.key)))
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
) -> Tensor:
    """X, or max(X, 0), through the next mask of a stream, or where that is not keyed, one that torch's generator
    names."""
    if _in_trace():
        Z = torch.relu(X) if relu else X
        if p > 0.0 and _without_gradient(Z):
            Y = ops.next_values(Z, stream, keyed, p, start, axes)
        else:
            Y = _in_program(Z, Mask(p, ops.take(stream, keyed), start, axes))
        return X.copy_(Y) if inplace else Y
    if inplace and X.requires_grad and X.is_leaf and torch.is_grad_enabled():  # torch would say so when it is too late
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation: expected inplace=False, or an "
            "input that is computed; got a leaf, which is left as it was"
        )
    take = ops.next_key if keyed else ops.drawn_key
    key = ops.below_transforms(take, stream) if torch._C._are_functorch_transforms_active() else take(stream)
    if p == 0.0:
        return torch.relu(X) if relu else X
    return _differentiable(X, Mask(p, key, start, axes), True, inplace, relu)


def _in_trace() -> bool:
    """Whether what runs is written down, or looked at by a dispatch mode, whose tensors may have no memory."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack() > 0


def _in_program(X: Tensor, mask: Mask) -> Tensor:
    """By the operator, in a program that is traced; the mask has a position for its key."""
    if mask.p == 0.0:
        return X
    return (ops.drop_values if _without_gradient(X) else ops.dropout)(X, mask.key, mask.p, mask.start, mask.axes)


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
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        Y = _Transformed.apply(torch.relu(X) if relu else X, _Offsets.apply(X.detach(), mask, random), mask)
        return X.copy_(Y) if inplace else Y
    if X.requires_grad and torch.is_grad_enabled():
        if relu:
            return _Rectified.apply(X, mask)
        return (_MaskedInPlace if inplace else _Masked).apply(X, mask)
    return ops.drop_(X, mask) if inplace else ops.drop(X, mask, relu)


class _Masked(torch.autograd.Function):
    """The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps the mask's name
    and nothing else, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return ops.drop(X, mask)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor, None]:
        return (ops.drop_by_operators if ops.is_batched(dY) else _differentiable)(dY, ctx.mask), None


class _MaskedInPlace(_Masked):
    """The same, over its input."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask) -> Tensor:
        ctx.mark_dirty(X)
        ctx.mask = mask
        return ops.drop_(X, mask)


class _Rectified(torch.autograd.Function):
    """ReLU then dropout. The backward pass keeps the output, which what follows mostly keeps anyway."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: Mask) -> Tensor:
        Y = ops.drop(X, mask, relu=True)
        ctx.save_for_backward(Y)
        ctx.p = mask.p
        return Y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor, None]:
        (Y,) = ctx.saved_tensors
        return _gated(dY, Y.detach(), ctx.p), None


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
        return torch.zeros((), dtype=torch.int64)

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
        if random and info.randomness == "error":
            raise RuntimeError(
                "vmap: expected randomness='different' or 'same' for a dropout that takes the next mask; got 'error', "
                "the default: pass vmap one of them, or dropout_layer a key"
            )
        X = X.movedim(in_dims[0], 0)
        if not random or info.randomness == "same":
            example = X[:0].sum(0)  # whose values do not matter; a batch may be empty
            return _Offsets.apply(example, mask, random), None
        batched = mask._replace(axes=tuple(axis + 1 for axis in mask.axes))
        count = math.prod(masks.drawn_shape(tuple(X.shape[1:]), mask.axes))
        return _Offsets.apply(X, batched, random) + count * torch.arange(len(X)), 0


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


class _Calls:
    """The stream of calls without a key, keyed while `manual_seed` is in force. A tensor, so that a traced program goes
    on with it."""

    def __init__(self) -> None:
        self.stream, self.keyed = torch.zeros(2, dtype=torch.int64), False
        on_manual_seed(self.restart)

    def restart(self, root: Key | None) -> None:
        """Go on from where `manual_seed` with that root key begins; None: from torch's generator."""
        self.keyed = root is not None
        if root is not None:
            self.stream.copy_(ops.position_of(root.fold_in("calls")))


_calls = _Calls()
