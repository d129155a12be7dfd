"""Functions on torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from multidrop import checks, kernel, masks
from multidrop.keys import Key, as_key, call_key

NAME = "torch"

_NAMES = {getattr(torch, name): name for name in checks.FLOATING}


def tensor(data: Any, dtype: str | None = None) -> Tensor:
    """A tensor of host data: of `dtype`, or else of the type that `torch.as_tensor` gives it (which shares the memory
    of a NumPy array)."""
    return torch.as_tensor(data, dtype=None if dtype is None else getattr(torch, dtype))


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def draw_key() -> Key:
    """A key from torch's default generator, the one that `torch.manual_seed` seeds and `fork_rng` restores."""
    return Key(int(torch.randint(-(2**63), 2**63 - 1, ())) % 2**64)


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
    """
    X = tensor(X)
    check_floating(X)
    p = checks.probability("dropout", dropout)
    key = (call_key(NAME) or draw_key()) if key is None else as_key(key)
    return masked(X, p, key, checks.span(start, X.numel()))


def check_floating(X: Tensor) -> None:
    """TypeError where X is not of a floating type, with torch's remedy."""
    if X.dtype not in _NAMES:
        checks.floating(str(X.dtype).removeprefix("torch."), "X.float()")


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """`multidrop.keep_mask` as a bool tensor on `device`."""
    return torch.from_numpy(kernel.keep_mask(shape, dropout, key, start)).to(device)


def masked(X: Tensor, p: float, key: Key, start: int = 0) -> Tensor:
    """X through the mask of `key`: `dropout_layer` after its checks."""
    return X if p == 0.0 else _Masked.apply(X, p, key, start)


class _Masked(torch.autograd.Function):
    """The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps p and the key
    and nothing else, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, p: float, key: Key, start: int) -> Tensor:
        ctx.arguments = p, key, start
        return _drop_on_host(X, p, key, start) if X.device.type == "cpu" else _drop_on_device(X, p, key, start)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor, None, None, None]:
        return masked(dY, *ctx.arguments), None, None, None


def _drop_on_host(X: Tensor, p: float, key: Key, start: int) -> Tensor:
    """The fused kernel on the tensor's own memory."""
    X, name = X.resolve_neg(), _NAMES[X.dtype]
    if X.is_contiguous():
        Y = _empty_like(X)
        kernel.drop(X.data_ptr(), Y.data_ptr(), X.numel(), name, p, key, start)
        return Y
    bits = X.view(torch.int16) if X.dtype == torch.bfloat16 else X
    return torch.from_numpy(kernel.dropout(bits.numpy(), p, key, start, dtype=name)).view(X.dtype)


def _drop_on_device(X: Tensor, p: float, key: Key, start: int) -> Tensor:
    """The host's mask, brought to the tensor's device."""
    compute = torch.float64 if X.dtype == torch.float64 else torch.float32
    scaled = X.to(compute) * torch.tensor(masks.scale(p, _NAMES[X.dtype]), dtype=compute)
    zero = torch.zeros((), dtype=X.dtype, device=X.device)
    return torch.where(keep_mask(X.shape, p, key, start, X.device), scaled.to(X.dtype), zero)


def _empty_like(X: Tensor) -> Tensor:
    """A contiguous tensor of X's shape and type."""
    size = X.numel() * X.element_size()
    if size < kernel.LARGE:
        return torch.empty_like(X, memory_format=torch.contiguous_format)
    return torch.from_numpy(np.empty(size, np.uint8)).view(X.dtype).view(X.shape)
