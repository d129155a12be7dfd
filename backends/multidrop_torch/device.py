"""Dropout on a GPU: where the Triton kernels can run, and how they are launched.

Triton is imported at the first dropout of a tensor on a GPU.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor

from multidrop import checks
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

BLOCKS, WARPS = 128, 2  # a program's blocks of eight elements, which reach the speed of a copy on an H200
SIZE, SIZE_WARPS = 1024, 4  # a program's elements in the other kernels

Dimensions: TypeAlias = tuple[tuple[int, int], ...]


def fits(X: Tensor) -> bool:
    """Whether the kernels take X: a strided tensor with memory of its own on a GPU for which Triton compiles."""
    if not (X.is_cuda and X.layout is torch.strided):
        return False
    return (X.data_ptr() != 0 or X.numel() == 0) and ready(X.device.index)


def draws(place: torch.device) -> bool:
    """Whether the kernels draw masks there."""
    return place.type == "cuda" and ready(torch.cuda.current_device() if place.index is None else place.index)


@cache
def ready(index: int) -> bool:
    """Whether the kernels run on a GPU, which is tried once. Where Triton is installed and fails, as without a C
    compiler or on a GPU that it does not support, it warns."""
    if find_spec("triton") is None:
        return False
    try:
        _keep((8,), Mask(0.5, Key(0)), torch.device("cuda", index))
    except Exception as error:  # of any kind: it comes from Triton, the driver or a compiler
        warnings.warn(
            f"multidrop draws the masks of GPU {index} on the host, which takes far longer: Triton failed with "
            f"{type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def drop(X: Tensor, mask: Mask, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask: a new tensor, in X's layout where that is dense.

    Args:
        X: a tensor that `fits`; float16, bfloat16, float32 or float64.
        mask: the mask.
        relu: whether X first goes through ReLU.
    """
    X = X.resolve_neg()
    if X.is_contiguous() and not mask.axes:
        Y = torch.empty_like(X)
        _linear(X, Y, mask, relu)
        return Y
    if not _dense(X):
        X = Y = torch.empty_like(X).copy_(X)
    else:
        Y = torch.empty_like(X)
    _anyhow(X, Y, mask, relu)
    return Y


def drop_(X: Tensor, mask: Mask) -> Tensor:
    """`drop` in place."""
    linear = X.is_contiguous() and not mask.axes
    if X.is_neg() or not (linear or _dense(X)):
        return X.copy_(drop(X, mask))
    if linear:
        _linear(X, X, mask, False)
    else:
        _anyhow(X, X, mask, False)
    if not X.is_inference():
        torch.autograd.graph.increment_version(X)  # which autograd looks at, and the kernels do not move
    return X


def relu_gradient(dY: Tensor, Y: Tensor, p: float) -> Tensor:
    """The gradient of a `drop` with ReLU whose output is Y, from dY, the one with respect to Y."""
    dY = dY.resolve_neg()
    if dY.stride() != Y.stride() or not (Y.is_contiguous() or _dense(Y)):
        dY, Y = dY.contiguous(), Y.contiguous()
    dX, n = torch.empty_like(dY), dY.numel()
    if n:
        double = dY.dtype == torch.float64
        aligned = (dY.data_ptr() | Y.data_ptr() | dX.data_ptr() | n) % 16 == 0
        program = _program("gate", dY.dtype, dY.get_device(), (SIZE, double, aligned), SIZE_WARPS)
        with _on(dY):
            program[(-(-n // SIZE), 1, 1)](dY, Y, dX, n, _numbers(p, double)[2], SIZE, double, aligned)
    return dX


def keep_mask(shape: int | Sequence[int], dropout: float, key: int | Key, start: int, device: torch.device) -> Tensor:
    """`multidrop.keep_mask` on a GPU that is `ready`."""
    p, key, sizes = checks.probability("dropout", dropout), as_key(key), checks.shape(shape)
    return _keep(sizes, Mask(p, key, checks.span(start, math.prod(sizes))), device)


def _keep(sizes: tuple[int, ...], mask: Mask, device: torch.device) -> Tensor:
    keep = torch.empty(sizes, dtype=torch.bool, device=device)
    Y = keep.view(torch.uint8)
    _linear(Y, Y, mask, False, keep=True)
    return keep


def _linear(X: Tensor, Y: Tensor, mask: Mask, relu: bool, keep: bool = False) -> None:
    """Launches `linear`: from X to Y, both contiguous, which may be one."""
    n = Y.numel()
    if not n:
        return
    p, key, start, _ = mask
    double = X.dtype == torch.float64
    high, low, scale = _numbers(p, double)
    first, skip = divmod(start, 8)
    aligned = (X.data_ptr() | Y.data_ptr() | n | skip) % 16 == 0
    constants = (BLOCKS, keep, relu, double, low != 0, skip != 0, aligned)
    program = _program("linear", X.dtype, Y.get_device(), constants, WARPS)
    grid = (-(-(n + skip) // (8 * BLOCKS)), 1, 1)
    with _on(Y):
        program[grid](X, Y, n, skip, first, key.seed, key.call, high, low, scale, *constants)


def _anyhow(X: Tensor, Y: Tensor, mask: Mask, relu: bool) -> None:
    """From X to Y, which lie alike and without gaps, and may be one."""
    if not Y.numel():
        return
    dimensions = geometry(tuple(Y.shape), Y.stride(), mask.axes)
    if dimensions == ((Y.numel(), 1),):
        _linear(X, Y, mask, relu)
    else:
        _permuted(X, Y, dimensions, mask, relu)


def _permuted(X: Tensor, Y: Tensor, dimensions: Dimensions, mask: Mask, relu: bool) -> None:
    """Launches `permuted`; of more dimensions than it takes, once for each step along the outermost one."""
    from . import triton_kernels

    n = math.prod(size for size, _ in dimensions)
    if len(dimensions) > triton_kernels.DIMENSIONS:
        *inner, (size, step) = dimensions
        n //= size
        for number in range(size):
            x, y = (Z.as_strided((n,), (1,), Z.storage_offset() + number * n) for Z in (X, Y))
            _permuted(x, y, tuple(inner), mask._replace(start=mask.start + number * step), relu)
        return
    p, key, start, _ = mask
    double = X.dtype == torch.float64
    high, low, scale = _numbers(p, double)
    aligned = (X.data_ptr() | Y.data_ptr() | n) % 16 == 0
    constants = (SIZE, len(dimensions), n >= 2**31, relu, double, low != 0, aligned)
    layout = sum(dimensions, ()) + (1, 0) * (triton_kernels.DIMENSIONS - len(dimensions))
    program = _program("permuted", X.dtype, Y.get_device(), constants, SIZE_WARPS)
    with _on(Y):
        program[(-(-n // SIZE), 1, 1)](X, Y, n, start, key.seed, key.call, high, low, scale, *layout, *constants)


@lru_cache(maxsize=1024)
def geometry(shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...]) -> Dimensions:
    """How a tensor without gaps lies in memory, from the innermost dimension on: (size, step) for each, where a step
    along it leads to the element that many later in the mask; 0 along axes that share decisions. Dimensions that can
    be counted through as one are one."""
    steps, step = [], 1
    for size in reversed(masks.drawn_shape(shape, axes)):
        steps.append(0 if size == 1 else step)
        step *= size
    dimensions: list[tuple[int, int]] = []
    for _, size, step in sorted(zip(strides, shape, reversed(steps), strict=True)):
        if size == 1:
            continue
        if dimensions:
            inner, before = dimensions[-1]
            if step == before * inner:
                dimensions[-1] = (inner * size, before)
                continue
        dimensions.append((size, step))
    return tuple(dimensions) or ((1, 1),)


@lru_cache(maxsize=256)
def _numbers(p: float, double: bool) -> tuple[int, int, int]:
    """The halves of the threshold, and the bits of the scale as a float64."""
    high, low = divmod(masks.threshold(p), 2**16)
    (bits,) = struct.unpack("<q", struct.pack("<d", masks.scale(p, "float64" if double else "float32")))
    return high, low, bits


@cache
def _program(name: str, dtype: torch.dtype, index: int, constants: tuple[Any, ...], warps: int) -> Any:
    """A kernel that is compiled for a type, a GPU and constants, as what takes `[grid](*arguments)`: in a third of the
    time of a launch that looks for what was compiled. Triton's interpreter compiles nothing, and is called as it is."""
    from . import triton_kernels

    kernel = getattr(triton_kernels, name)
    tensors = {"gate": 3}.get(name, 2)
    numbers = len(kernel.arg_names) - tensors - len(constants)
    with nullcontext() if index < 0 else torch.cuda.device(index):
        return (
            kernel.warmup(
                *[dtype] * tensors, *[0] * numbers, *constants, grid=(1,), num_warps=warps, enable_fp_fusion=False
            )
            or kernel
        )


def _on(X: Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's GPU the current one, on which Triton launches."""
    index = X.get_device()
    return nullcontext() if index < 0 or index == torch.cuda.current_device() else torch.cuda.device(index)


def _dense(X: Tensor) -> bool:
    """Whether X's elements lie in memory without gaps, each once."""
    dense: Any = torch.ops.aten.is_non_overlapping_and_dense.default
    return bool(dense(X))
