"""Dropout on a tensor's own memory, by the fused kernel for the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from multidrop import checks, host
from multidrop.host import memory
from multidrop.spec.masks import Mask

NAMES = {getattr(torch, name): name for name in checks.FLOATING}


def fits(X: Tensor) -> bool:
    """Whether X has memory of its own: a zero that autograd made up has none, nor a tensor that is made of others."""
    return X.is_cpu and (X.data_ptr() != 0 or X.numel() == 0)


def drop(X: Tensor, mask: Mask, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask: a new tensor, in X's layout where that is dense.

    Args:
        X: a tensor that `fits`; float16, bfloat16, float32 or float64.
        mask: the mask.
        relu: whether X first goes through ReLU.
    """
    if X.is_neg():
        X = X.resolve_neg()
    (p, key, start, axes), name = mask, NAMES[X.dtype]
    if X.is_contiguous() and not axes:
        Y = _empty_like(X)
        host.drop(X.data_ptr(), Y.data_ptr(), X.numel(), name, p, key, start, relu=relu)
        return Y
    if not torch.ops.aten.is_non_overlapping_and_dense.default(X):
        X = torch.empty_like(X).copy_(X)  # in the layout that the result is to have
    bits = (X.view(torch.int16) if X.dtype == torch.bfloat16 else X).numpy()
    return torch.from_numpy(host.dropout(bits, p, key, start, axes=axes, dtype=name, relu=relu)).view(X.dtype)


def drop_(X: Tensor, mask: Mask) -> Tensor:
    """`drop` in place."""
    if not X.is_contiguous() or X.is_neg() or mask.axes:
        return X.copy_(drop(X, mask))
    address = X.data_ptr()
    host.drop(address, address, X.numel(), NAMES[X.dtype], mask.p, mask.key, mask.start)
    if not X.is_inference():
        torch.autograd.graph.increment_version(X)  # autograd checks it, and the kernel does not count its writing
    return X


def relu_gradient(dY: Tensor, Y: Tensor, p: float) -> Tensor:
    """The gradient of a `drop` with ReLU whose output is Y, from dY, the one with respect to Y."""
    dY, Y = dY.resolve_neg().contiguous(), Y.contiguous()
    dX = _empty_like(dY)
    host.gate(dY.data_ptr(), dX.data_ptr(), dY.numel(), NAMES[dY.dtype], p, Y.data_ptr())
    return dX


def _empty_like(X: Tensor) -> Tensor:
    size = X.nbytes
    if size < memory.LARGE:
        return torch.empty_like(X)
    return torch.from_numpy(memory.empty((size,), np.uint8)).view(X.dtype).view(X.shape)
