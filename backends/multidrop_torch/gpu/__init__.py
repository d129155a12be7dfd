"""Dropout on a GPU: where the Triton kernels can run, and how they are launched.

Triton is imported at the first dropout of a tensor on a GPU.

A mask's key is a `Key`, or a position: an int64 tensor (seed, call) in two's complement on the tensor's GPU. The
kernels read it there, so that neither the host nor the GPU waits for the other. A CUDA graph that takes positions draws
new masks in each replay. See `positions`.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor

from multidrop import checks
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

from .launch import Program, program
from .positions import capturing, counted, counter, new_position, take
from .positions import drawn as drawn

KERNELS = "kernels"
BLOCKS, WARPS = 128, 2  # a program's blocks of eight elements, which reach the speed of a copy on an H200
ELEMENTS = 8 * BLOCKS
SIZE, SIZE_WARPS = 1024, 4  # a program's elements in `permuted` and `gate`, its blocks in `plane`
TILE_COLUMNS, TILE_BLOCKS, TILE_WARPS = 64, 8, 4  # what a program takes of a matrix
BY_THREAD = ("plane", "tile")  # the kernels in which each thread settles its ties, in PTX
TOGETHER = 512  # programs at most that take a position themselves, each with an atomic addition

Dimensions: TypeAlias = tuple[tuple[int, int], ...]


def fits(X: Tensor) -> bool:
    """Whether the kernels take X: a strided tensor with memory of its own on a GPU for which Triton compiles."""
    if not (X.is_cuda and X.layout is torch.strided):
        return False
    return (X.data_ptr() != 0 or X.numel() == 0) and ready(X.get_device())


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


def take_and_drop(
    X: Tensor, p: float, start: int, axes: tuple[int, ...], stream: Tensor, relu: bool = False
) -> tuple[Tensor, Mask]:
    """`drop` by the next mask of a stream on X's GPU, and that mask, by its key or its position.

    Args:
        X: as for `drop`.
        p, start, axes: the mask but for its key.
        stream: the stream, which moves on by one call.
        relu: as for `drop`.
    """
    n = X.numel()
    if axes or not n or not X.is_contiguous() or X.is_neg():
        mask = Mask(p, take(stream), start, axes)
        return drop(X, mask, relu), mask
    key: Any = counted(stream)
    if key is not None:
        mask, Y = Mask(p, key, start), torch.empty_like(X)
        _linear(X, Y, mask, relu, False, stream)
        return Y, mask
    if n + 7 > ELEMENTS * TOGETHER or capturing(X):
        mask = Mask(p, take(stream), start)
        return drop(X, mask, relu), mask
    Y, position = torch.empty_like(X), new_position(stream.device)
    mask = Mask(p, position, start)
    _linear(X, Y, mask, relu, False, stream, position)
    return Y, mask


def drop(X: Tensor, mask: Mask, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask: a new tensor, in X's layout where that is dense.

    Args:
        X: a tensor that `fits`; float16, bfloat16, float32 or float64.
        mask: the mask.
        relu: whether X first goes through ReLU.
    """
    if X.is_neg():
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
        torch.autograd.graph.increment_version(X)  # autograd looks at it, and the kernels do not move it
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
        launch = program(KERNELS, "gate", (dY.dtype,) * 3, dY.get_device(), (SIZE, double, aligned), SIZE_WARPS)
        launch(-(-n // SIZE), (dY, Y, dX), n, _numbers(p, double)[2])
    return dX


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key | Tensor, start: int, device: torch.device
) -> Tensor:
    """`multidrop.keep_mask` on a GPU that is `ready`; the key may be a position."""
    p, sizes = checks.probability("dropout", dropout), checks.shape(shape)
    key = key if isinstance(key, Tensor) else as_key(key)
    return _keep(sizes, Mask(p, key, checks.span(start, math.prod(sizes))), device)


def bits(count: int, mask: Mask, device: torch.device) -> Tensor:
    """The mask of `count` elements as a uint8 tensor, one byte for each block of eight that has one of them: bit j is 1
    where element j of the block is kept."""
    p, key, start, _ = mask
    first, skip = divmod(start, 8)
    n = -(-(skip + count) // 8)
    Y = torch.empty(n, dtype=torch.uint8, device=device)
    if n:
        high, low, _ = _numbers(p, False)
        position, seed, call, source = _named(key, Y)
        types = (torch.uint8, torch.int64)
        ties = _ties("plane", p, Y.get_device())
        launch = _either("plane", types, Y.get_device(), (SIZE,), source, (ties,), SIZE_WARPS)
        launch(-(-n // SIZE), (Y, position), n, first, seed, call, high, low)
    return Y


def normal(
    shape: Sequence[int],
    key: Key | Tensor,
    start: int,
    device: torch.device,
    dtype: torch.dtype = torch.float64,
    mean: float = 0.0,
    stddev: float = 1.0,
) -> Tensor:
    """mean + stddev·z for `multidrop.spec.masks.normals`, computed in float64 and rounded once to `dtype`, float32 or
    float64."""
    return _drawn(torch.empty(tuple(shape), dtype=dtype, device=device), key, start, mean, stddev, True)


def uniform(shape: Sequence[int], key: Key | Tensor, start: int, device: torch.device) -> Tensor:
    """`multidrop.spec.masks.open_uniforms` on a GPU, float64."""
    return _drawn(torch.empty(tuple(shape), dtype=torch.float64, device=device), key, start, 0.0, 1.0, False)


def _drawn(Y: Tensor, key: Key | Tensor, start: int, mean: float, stddev: float, normal: bool) -> Tensor:
    """Launches `numbers`, to Y."""
    n, (first, skip) = Y.numel(), divmod(start, 8)
    if n:
        position, seed, call, source = _named(key, Y)
        types, constants = (Y.dtype, torch.int64), (BLOCKS, source, normal)
        launch = program("number_kernels", "numbers", types, Y.get_device(), constants, SIZE_WARPS)
        numbers = n, skip, first, seed, call, _bits(mean), _bits(stddev)
        launch(-(-(n + skip) // ELEMENTS), (Y, position), *numbers)
    return Y


def _keep(sizes: tuple[int, ...], mask: Mask, device: torch.device) -> Tensor:
    keep = torch.empty(sizes, dtype=torch.bool, device=device)
    Y = keep.view(torch.uint8)
    _linear(Y, Y, mask, False, keep=True)
    return keep


def _linear(
    X: Tensor, Y: Tensor, mask: Mask, relu: bool, keep: bool = False, stream: Tensor | None = None, kept: Any = None
) -> None:
    """Launches `linear`: from X to Y, both contiguous, which may be one. A stream that is given moves on: past the
    mask's key; or it names the mask, and `kept` gets its position."""
    n = Y.numel()
    if not n:
        return
    p, key, start, _ = mask
    skip = start & 7
    if kept is not None:
        position, seed, call, source, done = stream, 0, 0, 2, counter(Y)
    elif stream is not None:
        position = kept = done = stream
        seed, call, source = key.seed, key.call, 3
    elif type(key) is Key:
        position = kept = done = Y
        seed, call, source = key.seed, key.call, 0
    else:
        position, seed, call, source = _named(key, Y)
        kept = done = position
    aligned = not (X.data_ptr() | Y.data_ptr() | n | skip) & 15
    launch, numbers = _plan(X.dtype, Y.get_device(), p, source, keep, relu, skip != 0, aligned)
    size = (n + skip + ELEMENTS - 1) // ELEMENTS
    launch(size, (X, Y, position, kept, done), n, skip, start >> 3, seed, call, *numbers)


@lru_cache(maxsize=4096)
def _plan(
    dtype: torch.dtype, index: int, p: float, source: int, keep: bool, relu: bool, skips: bool, aligned: bool
) -> tuple[Program, tuple[int, int, int]]:
    """A program of `linear`, and its last numbers: one look-up for all. One that takes a position comes with what does
    so while a graph is captured, in two launches, because nothing can be loaded then."""
    rest = keep, relu, dtype == torch.float64, _ties("linear", p, index), skips, aligned
    if source > 1:
        program(KERNELS, "linear", _TYPES[dtype], index, (BLOCKS, 1, *rest), WARPS)
        program("position_kernels", "take", (torch.int64,) * 2, index, (), 1)
    launch = program(KERNELS, "linear", _TYPES[dtype], index, (BLOCKS, source, *rest), WARPS)
    return launch, _numbers(p, dtype == torch.float64)


_TYPES = {
    dtype: (dtype, dtype, *[torch.int64] * 3)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8)
}


def _named(key: Key | Tensor, Y: Tensor) -> tuple[Tensor, int, int, int]:
    """A key as the kernels get it: (position, seed, call, FROM). For a `Key`, Y stands in for the position, unread."""
    if isinstance(key, Tensor):
        return key if key.get_device() == Y.get_device() else key.to(Y.device), 0, 0, 1
    return Y, key.seed, key.call, 0


def _either(
    name: str, types: tuple[torch.dtype, ...], index: int, first: tuple[Any, ...], source: int, rest: Any, warps: int
) -> Program:
    """A program by its key's source, which is among its constants. Where the host has the key, it comes with what reads
    a position: a backward pass does so while a graph is captured, when nothing can be loaded."""
    found, _ = (program(KERNELS, name, types, index, (*first, each, *rest), warps) for each in (source, 1))
    return found


def _anyhow(X: Tensor, Y: Tensor, mask: Mask, relu: bool) -> None:
    """From X to Y, which lie alike and without gaps, and may be one."""
    if not Y.numel():
        return
    dimensions = geometry(tuple(Y.shape), Y.stride(), mask.axes)
    if dimensions == ((Y.numel(), 1),):
        _linear(X, Y, mask, relu)
    elif tiled(dimensions, mask.start):
        _tile(X, Y, dimensions, mask, relu)
    else:
        count = math.prod(masks.drawn_shape(tuple(Y.shape), mask.axes))
        _permuted(X, Y, dimensions, bits(count, mask, Y.device), mask.start % 8, mask.p, relu)


def tiled(dimensions: Dimensions, start: int) -> bool:
    """Whether `tile` takes such a tensor: matrices in a row, each column of which is consecutive in the mask and begins
    a block."""
    if not 2 <= len(dimensions) <= 3 or start % 8:
        return False
    (columns, step), (rows, unit), *outer = dimensions
    return columns >= 16 and unit == 1 and rows % 8 == step % 8 == 0 < step and all(more % 8 == 0 for _, more in outer)


def _tile(X: Tensor, Y: Tensor, dimensions: Dimensions, mask: Mask, relu: bool) -> None:
    """Launches `tile`."""
    (columns, step), (rows, _), (matrices, outer) = (*dimensions, (1, 0))[:3]
    p, key, start, _ = mask
    double = X.dtype == torch.float64
    high, low, scale = _numbers(p, double)
    aligned = (X.data_ptr() | Y.data_ptr() | columns) % 16 == 0
    position, seed, call, source = _named(key, Y)
    rest = relu, double, _ties("tile", p, Y.get_device()), aligned
    types = (X.dtype, X.dtype, torch.int64)
    launch = _either("tile", types, Y.get_device(), (TILE_COLUMNS, TILE_BLOCKS), source, rest, TILE_WARPS)
    programs = -(-columns // TILE_COLUMNS) * -(-rows // (8 * TILE_BLOCKS)) * matrices
    numbers = columns, rows, step // 8, outer // 8, start // 8, seed, call, high, low, scale
    launch(programs, (X, Y, position), *numbers)


def _permuted(X: Tensor, Y: Tensor, dimensions: Dimensions, bits: Tensor, skip: int, p: float, relu: bool) -> None:
    """Launches `permuted`; of more dimensions than it takes, once for each step along the outermost one."""
    from .kernels import DIMENSIONS

    n = math.prod(size for size, _ in dimensions)
    if len(dimensions) > DIMENSIONS:
        *inner, (size, step) = dimensions
        n //= size
        for number in range(size):
            x, y = (Z.as_strided((n,), (1,), Z.storage_offset() + number * n) for Z in (X, Y))
            _permuted(x, y, tuple(inner), bits, skip + number * step, p, relu)
        return
    double = X.dtype == torch.float64
    aligned = (X.data_ptr() | Y.data_ptr() | n) % 16 == 0
    size, step = dimensions[0]
    constants = (SIZE, 1 if size % 8 else 8, len(dimensions), n >= 2**31, step == 0, relu, double, aligned)
    layout = sum(dimensions, ()) + (1, 0) * (DIMENSIONS - len(dimensions))
    types = (X.dtype, X.dtype, torch.uint8)
    launch = program(KERNELS, "permuted", types, Y.get_device(), constants, SIZE_WARPS)
    launch(-(-n // SIZE), (X, Y, bits), n, skip, _numbers(p, double)[2], *layout)


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
    return high, low, _bits(masks.scale(p, "float64" if double else "float32"))


def _ties(kernel: str, p: float, index: int) -> int:
    """Who settles a kernel's ties; see `linear`."""
    high, low, _ = _numbers(p, False)
    return 0 if low == 0 else 2 if kernel in BY_THREAD and high and index >= 0 and torch.version.hip is None else 1


def _bits(number: float) -> int:
    """The bits of a float64 as an int64."""
    (bits,) = struct.unpack("<q", struct.pack("<d", number))
    return int(bits)


def _dense(X: Tensor) -> bool:
    """Whether X's elements lie in memory without gaps, each once."""
    dense: Any = torch.ops.aten.is_non_overlapping_and_dense.default
    return bool(dense(X))
