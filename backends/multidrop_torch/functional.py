"""Functions on torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad

from multidrop import checks, kernel
from multidrop.keys import Key, as_key, on_manual_seed

from . import ops
from .ops import draw_key as draw_key

NAME = "torch"


def tensor(data: Any, dtype: str | None = None) -> Tensor:
    """A tensor of host data: of `dtype`, or else of the type that `torch.as_tensor` gives it (which shares the memory
    of a NumPy array)."""
    return torch.as_tensor(data, dtype=None if dtype is None else getattr(torch, dtype))


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def dropout_layer(X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Tensor:
    """`multidrop.dropout_layer` for tensors, differentiable any number of times.

    Args:
        X: tensor of any shape, layout and device; float16, bfloat16, float32 or float64.
        dropout: p, in [0, 1].
        key: what names the mask; without one, the next after `multidrop.manual_seed`, or one from torch's generator.
        start: the index of X's first element.

    Returns:
        A tensor of X's shape, type and device; X itself at p = 0.

    Raises:
        ValueError: for a bad probability, key or start.
        TypeError: for a tensor that is not floating.
        RuntimeError: without a key, in a backward pass after `multidrop.manual_seed`.
    """
    return _dropout(X, dropout, key, start, relu=False)


def relu_dropout(X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Tensor:
    """`multidrop.relu_dropout` for tensors; args, result and errors are those of `dropout_layer`. In a compiled
    program, and for `torch.func`, it is a ReLU and a dropout."""
    return _dropout(X, dropout, key, start, relu=True)


def _dropout(X: Tensor, dropout: float, key: int | Key | None, start: int, relu: bool) -> Tensor:
    X = tensor(X)
    check_floating(X)
    p = checks.probability("dropout", dropout)
    start = checks.span(start, X.numel())
    if key is None:
        return masked_next(X, p, _calls.stream, _calls.keyed, start, relu=relu)
    return masked(X, p, as_key(key), start, relu=relu)


def check_floating(X: Tensor) -> None:
    """TypeError where X is not of a floating type, with torch's remedy."""
    if X.dtype not in ops.NAMES:
        checks.floating(str(X.dtype).removeprefix("torch."), "X.float()")


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """`multidrop.keep_mask` as a bool tensor on `device`."""
    return torch.from_numpy(kernel.keep_mask(shape, dropout, key, start)).to(device)


def masked(X: Tensor, p: float, key: Key, start: int = 0, *, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through the mask of `key`: `dropout_layer` after its checks."""
    if p == 0.0:
        return torch.relu(X) if relu else X
    if torch.compiler.is_compiling():
        return ops.dropout(torch.relu(X) if relu else X, ops.position_of(key), p, start)
    return _differentiable(X, p, key, start, False, relu=relu)


def masked_next(
    X: Tensor, p: float, stream: Tensor, keyed: bool, start: int = 0, *, inplace: bool = False, relu: bool = False
) -> Tensor:
    """X, or max(X, 0), through the next mask of a stream, or where that is not keyed, one that torch's generator
    names."""
    if torch.compiler.is_compiling():
        position = ops.take(stream, keyed)
        X = torch.relu(X) if relu else X
        Y = X if p == 0.0 else ops.dropout(X, position, p, start)
        return X.copy_(Y) if inplace else Y
    key = ops.next_key(stream) if keyed else draw_key()
    if p == 0.0:
        return torch.relu(X) if relu else X
    return _differentiable(X, p, key, start, True, inplace, relu)


def _differentiable(
    X: Tensor, p: float, key: Key, start: int, random: bool, inplace: bool = False, relu: bool = False
) -> Tensor:
    """X through the mask of `key`, by what costs least where it is called: torch's own functions for transforms take
    five times as long as those for a plain backward pass, and these as long as a small dropout itself."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        Y = _Transformed.apply(torch.relu(X) if relu else X, p, key, start, random)
        return X.copy_(Y) if inplace else Y
    if X.requires_grad and torch.is_grad_enabled():
        if relu:
            return _Rectified.apply(X, p, key, start)
        return (_MaskedInPlace if inplace else _Masked).apply(X, p, key, start, random)
    return ops.drop_(X, p, key, start) if inplace else ops.drop(X, p, key, start, relu)


class _Masked(torch.autograd.Function):
    """The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps p and the key
    and nothing else, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, *arguments: Any) -> Tensor:
        ctx.arguments = arguments
        return ops.drop(X, *arguments[:3])

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _differentiable(dY, *ctx.arguments), None, None, None, None


class _MaskedInPlace(_Masked):
    """The same, over its input."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, *arguments: Any) -> Tensor:
        ctx.mark_dirty(X)
        ctx.arguments = arguments
        return ops.drop_(X, *arguments[:3])


class _Rectified(torch.autograd.Function):
    """ReLU then dropout. The backward pass keeps the output, which what follows mostly keeps anyway."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, p: float, key: Key, start: int) -> Tensor:
        Y = ops.drop(X, p, key, start, relu=True)
        ctx.save_for_backward(Y)
        ctx.p = p
        return Y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor, None, None, None]:
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


class _Transformed(_Masked):
    """The same for `torch.func`, `torch.vmap` and forward-mode differentiation."""

    @staticmethod
    def forward(X: Tensor, p: float, key: Key, start: int, random: bool) -> Tensor:  # type: ignore[override]  # torch's
        return ops.drop(X, p, key, start)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, *ctx.arguments = inputs

    @staticmethod
    def jvp(ctx: Any, dX: Tensor, *_: None) -> Tensor:
        return _differentiable(dX, *ctx.arguments)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, ...], X: Tensor, p: float, key: Key, start: int, random: bool
    ) -> tuple[Tensor, int]:
        """A key that is given names one mask, which each example of the batch gets. One that is taken from a stream is
        random to `vmap`, whose `randomness` decides."""
        if random and info.randomness == "error":
            raise RuntimeError(
                "vmap: expected randomness='different' or 'same' for a dropout that takes the next mask; got 'error', "
                "the default: pass vmap one of them, or dropout_layer a key"
            )
        X = X.movedim(in_dims[0], 0)
        if random and info.randomness == "different":
            return _Transformed.apply(X, p, key, start, random), 0  # one mask over the whole batch
        return torch.stack([_Transformed.apply(x, p, key, start, random) for x in X]), 0


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
