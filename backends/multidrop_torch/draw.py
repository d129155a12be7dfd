"""The numbers of a key as torch tensors. This is the one place that chooses by device: the kernel for the CPU, those
for GPUs, or torch's operators with numbers drawn on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multidrop import host
from multidrop.family import extent
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import gpu, internals, on_host
from .on_host import NAMES
from .position import key_at, known


def drop(X: Tensor, mask: Mask, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask, without a gradient: a new tensor, in X's layout where that is dense."""
    if X.is_cuda and gpu.fits(X):
        return gpu.drop(X, mask, relu)
    if on_host.fits(X):
        return on_host.drop(X, _known(mask), relu)
    return drop_by_operators(rectified(X) if relu else X, mask)


def _known(mask: Mask) -> Mask:
    """A mask as the kernel of the CPU takes it."""
    return mask._replace(key=key_at(mask.key)) if isinstance(mask.key, Tensor) else mask


def drop_(X: Tensor, mask: Mask) -> Tensor:
    """`drop` in place."""
    if X.is_cuda and gpu.fits(X):
        return gpu.drop_(X, mask)
    if on_host.fits(X):
        return on_host.drop_(X, _known(mask))
    return X.copy_(drop(X, mask))


def relu_gradient(dY: Tensor, Y: Tensor, p: float) -> Tensor:
    """The gradient of a `drop` with ReLU whose output is Y, from dY, the one with respect to Y."""
    if not is_batched(dY):
        if dY.is_cuda and gpu.fits(dY) and gpu.fits(Y):
            return gpu.relu_gradient(dY, Y, p)
        if on_host.fits(dY) and on_host.fits(Y):
            return on_host.relu_gradient(dY, Y, p)
    return torch.where(Y == 0, torch.zeros((), dtype=dY.dtype, device=dY.device), scaled(dY, p))


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key | Tensor, start: int, place: torch.device | str
) -> Tensor:
    """`multidrop.keep_mask` as a bool tensor on a device."""
    place = torch.device(place)
    if place.type == "meta":
        return torch.empty(shape, dtype=torch.bool, device=place)
    if gpu.draws(place):
        return gpu.keep_mask(shape, dropout, key, start, place)
    key = key_at(key) if isinstance(key, Tensor) else key
    return torch.from_numpy(host.keep_mask(shape, dropout, key, start)).to(place)


def normal(X: Tensor, key: Key | Tensor, start: int, mean: float, stddev: float) -> Tensor:
    """mean + stddev·z for X's elements, in the type that X is computed in; z is of `multidrop.spec.masks.normals`."""
    compute = torch.float64 if X.dtype == torch.float64 else torch.float32
    if X.is_meta:
        return torch.empty(X.shape, dtype=compute, device=X.device)
    if gpu.draws(X.device):
        return gpu.normal(X.shape, key, start, X.device, compute, mean, stddev)
    z = torch.from_numpy(masks.normals(tuple(X.shape), known(key), start))
    return (mean + stddev * z).to(compute).to(X.device)


def uniform(shape: Sequence[int], key: Key | Tensor, start: int, place: torch.device) -> Tensor:
    """`multidrop.spec.masks.open_uniforms` as a float64 tensor on a device."""
    if place.type == "meta":
        return torch.empty(tuple(shape), dtype=torch.float64, device=place)
    if gpu.draws(place):
        return gpu.uniform(shape, key, start, place)
    key = known(key)
    return torch.from_numpy(masks.open_uniforms(tuple(shape), key, start)).to(place)


def drop_by_operators(X: Tensor, mask: Mask) -> Tensor:
    """X through a mask by torch's operators, on X's device."""
    keep = keep_mask(masks.drawn_shape(tuple(X.shape), mask.axes), mask.p, mask.key, mask.start, X.device)
    return torch.where(keep, scaled(X, mask.p), torch.zeros((), dtype=X.dtype, device=X.device))


def rectified(X: Tensor) -> Tensor:
    """max(X, 0): +0 for what is not above 0, where `torch.relu` keeps -0, and NaN for NaN."""
    return torch.nn.functional.threshold(X, 0.0, 0.0)


def is_batched(dY: Tensor) -> bool:
    """Whether a gradient stands for several, without memory of its own: `vmap` around a backward pass alone makes such
    tensors, and so does `is_grads_batched`."""
    return internals.is_wrapped(dY) or internals.is_legacy_batched(dY)


def scaled(X: Tensor, p: float) -> Tensor:
    """X/(1 − p), rounded as the specification says."""
    compute = torch.float64 if X.dtype == torch.float64 else torch.float32
    return (X.to(compute) * torch.tensor(masks.scale(p, NAMES[X.dtype]), dtype=compute, device="cpu")).to(X.dtype)


class Draw:
    """`multidrop.family.Draw` for tensors.

    Args:
        key: the key, or a position.
        start: the index of the first element.
    """

    xp = torch

    def __init__(self, key: Key | Tensor, start: int = 0) -> None:
        self.key, self.start = key, start

    def dropout(self, X: Tensor, p: float, axes: tuple[int, ...] = ()) -> Tensor:
        _, first = extent(X.shape, self.start, axes)
        return (drop_by_operators if is_batched(X) else drop)(X, Mask(p, self.key, first, axes))

    def keep(self, X: Tensor, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Tensor:
        shape, first = extent(X.shape, self.start, axes, margin)
        return keep_mask(shape, p, self.key, first, X.device)

    def normal(self, X: Tensor, mean: float, stddev: float) -> Tensor:
        return normal(X, self.key, self.start, mean, stddev)

    def uniform(self, X: Tensor) -> Tensor:
        return uniform(X.shape, self.key, self.start, X.device)

    def select(self, X: Tensor, keep: Tensor, scale: float) -> Tensor:
        scaled = self.narrow(self.wide(X, X) * scale, X)
        return torch.where(keep, scaled, torch.zeros((), dtype=X.dtype, device=X.device))

    def wide(self, values: Tensor, X: Tensor) -> Tensor:
        return values.to(torch.float64 if X.dtype == torch.float64 else torch.float32)

    def narrow(self, values: Tensor, X: Tensor) -> Tensor:
        return values.to(X.dtype)
