"""The numbers of a key as torch tensors, for members of the dropout family. Masks are drawn on the
tensor's device where that has a kernel; the other numbers by the host, which brings them there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multidrop.family import extent
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import device, ops


class Draw:
    """`multidrop.family.Draw` for tensors.

    Args:
        key: the key; in a program that is traced, a position.
        start: the index of the first element.
    """

    xp = torch

    def __init__(self, key: Key | Tensor, start: int = 0) -> None:
        self.key, self.start = key, start

    def dropout(self, X: Tensor, p: float, axes: tuple[int, ...] = ()) -> Tensor:
        _, first = extent(X.shape, self.start, axes)
        mask = Mask(p, self.key, first, axes)
        return (ops.drop_by_operators if ops.is_batched(X) else ops.drop)(X, mask)

    def keep(self, X: Tensor, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Tensor:
        shape, first = extent(X.shape, self.start, axes, margin)
        return ops.keep_mask(shape, p, self.key, first, X.device)

    def normal(self, X: Tensor, mean: float, stddev: float) -> Tensor:
        if device.draws(X.device):
            dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
            return device.normal(X.shape, self.key, self.start, X.device, dtype, mean, stddev)
        z = torch.from_numpy(masks.normals(tuple(X.shape), ops.known(self.key), self.start))
        return self.wide(mean + stddev * z, X).to(X.device)

    def uniform(self, X: Tensor) -> Tensor:
        if isinstance(self.key, Tensor):
            return uniform(X, self.key, self.start)
        return _uniform(X, self.key, self.start)

    def select(self, X: Tensor, keep: Tensor, scale: float) -> Tensor:
        scaled = self.narrow(self.wide(X, X) * scale, X)
        return torch.where(keep, scaled, torch.zeros((), dtype=X.dtype, device=X.device))

    def wide(self, values: Tensor, X: Tensor) -> Tensor:
        return values.to(torch.float64 if X.dtype == torch.float64 else torch.float32)

    def narrow(self, values: Tensor, X: Tensor) -> Tensor:
        return values.to(X.dtype)


def _uniform(X: Tensor, key: Key | Tensor, start: int) -> Tensor:
    if device.draws(X.device):
        return device.uniform(X.shape, key, start, X.device)
    return torch.from_numpy(masks.open_uniforms(tuple(X.shape), ops.known(key), start)).to(X.device)


@ops.operator("uniform(Tensor X, Tensor position, SymInt start) -> Tensor")
def _uniform_at(X: Tensor, position: Tensor, start: int) -> Tensor:
    return _uniform(X, ops.by_kernels(position), start % 2**64)


@torch.library.register_fake("multidrop::uniform")
def _(X: Tensor, position: Tensor, start: int) -> Tensor:
    return torch.empty(X.shape, dtype=torch.float64, device=X.device)


def uniform(X: Tensor, position: Tensor, start: int) -> Tensor:
    """`Draw.uniform` in a program that is traced."""
    operator: Any = torch.ops.multidrop.uniform.default
    return operator(X.detach(), position, ops.signed(start))
