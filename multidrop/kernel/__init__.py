"""The mask specification fused with scaling and selection, in one pass over host memory.

It gives the bits of `multidrop.masks`, for arrays of any size, address and layout. Numba is imported, and compiles its
loops or loads them from disk, at the first call.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import checks, garbage, masks
from ..keys import Key, as_key
from . import memory
from .memory import release_memory as release_memory
from .pool import share

Array = npt.NDArray[Any]

GRAIN = 1 << 18  # elements; from twice that on a second thread pays
STREAMED = 1 << 24  # bytes; a result of as many is not kept in a cache until it is used


class _Type:
    """How the values of a type go into the compiled loops: as themselves, or as the bits of a type that Numba does not
    know."""

    def __init__(self, like: np.generic, compute: type[np.floating[Any]], bits: np.generic) -> None:
        self.like, self.compute, self.bits = like, compute, bits
        self.zero, self.lowest = compute(0), compute(-np.inf)


_TYPES = {
    "float16": _Type(np.uint16(0), np.float32, np.uint16(0)),
    "bfloat16": _Type(np.int16(0), np.float32, np.uint16(0)),
    "float32": _Type(np.float32(0), np.float32, np.uint32(0)),
    "float64": _Type(np.float64(0), np.float64, np.uint64(0)),
    "mask": _Type(np.uint8(0), np.float32, np.uint8(0)),
}


def keep_mask(shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0) -> npt.NDArray[np.bool_]:
    """The mask itself: True where an element is kept.

    Args:
        shape: the tensor's shape.
        dropout: p, the probability that an element is dropped, in [0, 1].
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first element, where this is a part of a larger tensor.

    Returns:
        A bool array of that shape.

    Raises:
        ValueError: for a probability outside [0, 1], a bad key, a negative dimension or an index outside [0, 2^64).
    """
    p, key, sizes = checks.probability("dropout", dropout), as_key(key), checks.shape(shape)
    checks.span(start, math.prod(sizes))
    if not _NATIVE:
        return masks.keep_mask(sizes, p, key, start)
    keep = np.empty(sizes, np.bool_)
    drop(_address(keep), _address(keep), keep.size, "mask", p, key, start)
    return keep


def dropout(
    x: Array,
    p: float,
    key: Key,
    start: int = 0,
    out: Array | None = None,
    *,
    axes: Sequence[int] = (),
    dtype: str | None = None,
    relu: bool = False,
) -> Array:
    """`multidrop.masks.dropout`, fused: `x` through the mask of `key`.

    Args:
        x: an array of any shape and layout, float16, bfloat16, float32 or float64.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key.
        start: the index of the first element.
        out: where to write the result, of x's shape and type; may be x itself. Without it a new array is made, which
            lies in memory as x does, but without gaps.
        axes: along which one decision holds for all; the mask is drawn for the shape that has 1 there.
        dtype: the name of x's type, where x holds the bits of one that NumPy lacks.
        relu: whether x first goes through ReLU: what is not above 0 becomes +0, and a NaN stays one.

    Returns:
        `out`, or the new array; `x` itself where p is 0 and there is neither `out` nor ReLU.

    Raises:
        ValueError: where `out` is not of x's shape and type, or an index would leave [0, 2^64).
    """
    start = check(x, start, out, axes)
    if p == 0.0 and not relu:
        result = x
    elif _NATIVE and x.dtype.isnative:
        result = _fused(x, p, key, start, out, tuple(axes), dtype or _name(x.dtype), relu)
    else:
        result = masks.dropout(masks.relu(x) if relu else x, p, key, start, axes)
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out


def check(x: Array, start: int, out: Array | None, axes: Sequence[int]) -> int:
    """The index of the first element, where `dropout` can be called with these; ValueError where it cannot."""
    start = checks.span(start, math.prod(masks.drawn_shape(x.shape, axes)))
    if out is not None and (out.shape, out.dtype) != (x.shape, x.dtype):
        raise ValueError(f"out: expected shape {x.shape} and type {x.dtype}; got {out.shape} and {out.dtype}")
    return start


_NATIVE = sys.byteorder == "little"  # the loops read a word as its halves, the low one first


@cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # which NumPy puts together anew each time, in as long as a small dropout takes


def _fused(
    x: Array, p: float, key: Key, start: int, out: Array | None, axes: tuple[int, ...], dtype: str, relu: bool
) -> Array:
    """The result, in `out` where that lies in memory as x does, else in a new array."""
    if x.flags.c_contiguous and x.flags.aligned and not axes:
        target = out if out is not None and _takes(out, x, None) else _empty(x.shape, x.dtype)
        drop(_address(x), _address(target), x.size, dtype, p, key, start, relu=relu)
        return target
    order = _memory_order(x)
    if order is None:
        return _fused(np.array(x, order="K"), p, key, start, None, axes, dtype, relu)
    if out is not None and _takes(out, x, order):
        target = out
    else:
        target = _empty(tuple(x.shape[axis] for axis in order), x.dtype).transpose(tuple(np.argsort(order)))
    # The mask goes by the logical order of the elements: it is drawn in that, and then laid as the memory is.
    matrices = None if axes else _matrices(x.shape, order)
    if matrices:
        _drop_transposed(_address(x), _address(target), matrices, dtype, p, key, start, relu)
        return target
    drawn = ~keep_mask(masks.drawn_shape(x.shape, axes), p, key, start)
    dropped = np.broadcast_to(drawn, x.shape).transpose(order)
    _select(_address(x), _address(target), x.size, dtype, p, dropped, relu)
    return target


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    small = math.prod(shape) * dtype.itemsize < memory.LARGE
    return np.empty(shape, dtype) if small else memory.empty(shape, dtype)


def _memory_order(x: Array) -> tuple[int, ...] | None:
    """The axes of a dense array from the outermost in memory to the innermost; None where it is not dense, or its
    elements do not lie on addresses of their type."""
    order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return order if x.flags.aligned and x.transpose(order).flags.c_contiguous else None


def _takes(out: Array, x: Array, order: tuple[int, ...] | None) -> bool:
    """Whether the loop may write into `out`: it lies in memory as x does, in that order of axes, and is x itself or
    apart from it."""
    flags = out.flags if order is None else out.transpose(order).flags
    return flags.carray and (_same(x, out) or not np.may_share_memory(x, out))


def _same(a: Array, b: Array) -> bool:
    return a is b or (_address(a) == _address(b) and a.strides == b.strides)


def _address(x: Array) -> int:
    return x.__array_interface__["data"][0]


def drop(
    source: int, target: int, size: int, dtype: str, p: float, key: Key, start: int = 0, *, relu: bool = False
) -> None:
    """The fused loop from address to address, for values that lie one after the other, in as many threads as their
    number pays for.

    Args:
        source: the address of the first element.
        target: where it is to go; may be `source`.
        size: how many there are.
        dtype: the name of their type, or "mask" to write the mask itself as bytes.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key.
        start: the index of the first element.
        relu: whether they first go through ReLU.
    """
    loop, kind, arguments, threshold = _drop_loop(p, dtype, relu)
    width, seed, call = kind.like.itemsize, key.seed, key.call
    streamed = width * size >= STREAMED and source != target and target % width == 0
    if size < 2 * GRAIN:
        loop(source, target, size, *arguments, start, call, seed, threshold, streamed)
        return

    def part(a: int, b: int) -> None:
        offset = width * a
        loop(source + offset, target + offset, b - a, *arguments, start + a, call, seed, threshold, streamed)

    share(part, size, GRAIN)


def _matrices(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, int, int] | None:
    """How many matrices of how many rows and columns a dense array is in the order of its elements, where in memory
    they lie transposed one after the other, as the (channels, pixels) of images whose channels come last do; None where
    it is not so."""
    logical = [axis for axis, size in enumerate(shape) if size != 1]
    lying = [axis for axis in order if shape[axis] != 1]
    outer = 0
    while outer < len(lying) and lying[outer] == logical[outer]:
        outer += 1
    turn = logical.index(lying[outer]) if outer < len(lying) else outer
    parts = logical[:outer], logical[outer:turn], logical[turn:]
    if lying != [*parts[0], *parts[2], *parts[1]]:
        return None
    count, rows, columns = (math.prod(shape[axis] for axis in part) for part in parts)
    return count, rows, columns


def _drop_transposed(
    source: int,
    target: int,
    matrices: tuple[int, int, int],
    dtype: str,
    p: float,
    key: Key,
    start: int,
    relu: bool,
) -> None:
    """`drop` for values that lie as the transposes of so many matrices of (rows, columns)."""
    count, rows, columns = matrices
    kind, scale, _ = _constants(p, dtype)
    like, width, floor = kind.like, kind.like.itemsize, kind.zero if relu else kind.lowest
    select, negated = _loops().select, _transposition().negated

    def part(first: int, last: int) -> None:
        size, offset = (last - first) * rows * columns, first * rows * columns
        keep, dropped = np.empty((2, size), np.uint8)
        drop(_address(keep), _address(keep), size, "mask", p, key, start + offset)
        negated(_address(keep), _address(dropped), last - first, rows, columns)
        at = width * offset
        select(source + at, target + at, size, like, scale, floor, _address(dropped))

    share(part, count, max(CACHED // (rows * columns), 1))


CACHED = 1 << 16  # elements whose mask stays in a cache until it is used


def _select(source: int, target: int, size: int, dtype: str, p: float, dropped: Array, relu: bool) -> None:
    """`drop` with a mask that is there already: bools of the values' shape, in their order in memory, True where they
    are dropped. Along an axis that is shared their stride is 0."""
    kind, scale, _ = _constants(p, dtype)
    like, width, floor = kind.like, kind.like.itemsize, kind.zero if relu else kind.lowest
    inner, shared = _run(dropped)
    if inner < SHORT:
        loop = _loops().select
        dropped = np.ascontiguousarray(dropped)
        mask = _address(dropped)

        def part(a: int, b: int) -> None:
            loop(source + width * a, target + width * a, b - a, like, scale, floor, mask + a)

        share(part, size, GRAIN)
        return
    rows_loop = _loops().select_rows
    mask, offsets = _address(dropped), _offsets(dropped, size // inner)

    def rows(a: int, b: int) -> None:
        first = width * inner * a
        rows_loop(source + first, target + first, inner, like, scale, floor, mask, offsets[a:b], shared)

    share(rows, len(offsets), max(GRAIN // inner, 1))


SHORT = 16  # values in a row, below which it is quicker to write the mask out


def _run(mask: Array) -> tuple[int, bool]:
    """How many values at the end of a mask lie in a row, and whether they share one."""
    inner, shared = 1, False
    for length, stride in zip(reversed(mask.shape), reversed(mask.strides), strict=True):
        if length == 1:
            continue
        if inner == 1:
            shared = stride == 0
        if stride != (0 if shared else inner):
            break
        inner *= length
    return inner, shared


def _offsets(mask: Array, rows: int) -> npt.NDArray[np.int64]:
    """Where each row of a mask begins, in bytes from the first."""
    offsets = np.zeros(1, np.int64)
    for length, stride in zip(mask.shape, mask.strides, strict=True):
        if len(offsets) == rows:
            break
        offsets = np.add.outer(offsets, stride * np.arange(length)).reshape(-1)
    return offsets


def gate(source: int, target: int, size: int, dtype: str, p: float, output: int) -> None:
    """The gradient of a `drop` with ReLU, from address to address. No mask is drawn for it: the output is above 0, or
    NaN, where an element was kept and above 0, and +0 elsewhere.

    Args:
        source: the address of the gradient with respect to the output.
        target: where the one with respect to the input is to go; not `source`.
        size: how many there are of each.
        dtype: the name of their type.
        p: the probability that an element was dropped.
        output: the address of the output.
    """
    loop = _loops().gate
    kind, scale, _ = _constants(p, dtype)
    like, width, bits = kind.like, kind.like.itemsize, kind.bits

    def part(a: int, b: int) -> None:
        loop(source + width * a, target + width * a, b - a, like, scale, kind.lowest, output + width * a, bits)

    share(part, size, GRAIN)


def relu_gradient(dy: Array, y: Array, p: float) -> Array:
    """`gate` for arrays: the gradient with respect to the input of a `dropout(…, relu=True)`.

    Args:
        dy: the gradient with respect to its output.
        y: its output.
        p: the probability that an element was dropped.

    Returns:
        A new array of dy's shape and type.
    """
    dtype = _name(dy.dtype)
    if not (_NATIVE and dy.dtype.isnative):
        return masks.relu_gradient(dy, y, p)
    dy, y = np.ascontiguousarray(dy), np.ascontiguousarray(y)
    dx = _empty(dy.shape, dy.dtype)
    gate(_address(dy), _address(dx), dy.size, dtype, p, _address(y))
    return dx


@lru_cache(1024)
def _drop_loop(p: float, dtype: str, relu: bool) -> tuple[Callable[..., None], _Type, tuple[float, ...], int]:
    """The loop of `drop` for a type, the type, the arguments that follow from both and p, and the threshold."""
    kind, scale, threshold = _constants(p, dtype)
    floor = kind.zero if relu else kind.lowest
    return drop_entry(dtype).ctypes, kind, (kind.like.item(), scale.item(), floor.item()), int(threshold)


@cache
@garbage.put_off()
def drop_entry(dtype: str) -> Any:
    """The loop of `drop` for a type as a C function, loaded or compiled; see `compiled.drop`. A Numba `CFunc`, of which
    `address` is where it is, and `ctypes` what Python calls."""
    kind = _TYPES[dtype]
    return _loops().drop_for(kind.like, kind.zero)


@cache
def _loops() -> ModuleType:
    from . import compiled

    return compiled


@cache
def _transposition() -> ModuleType:
    from . import transposition

    return transposition


@lru_cache(1024)
def _constants(p: float, dtype: str) -> tuple[_Type, np.generic, np.uint64]:
    """How values of the type go into the loops, the scale and the threshold."""
    kind = _TYPES[dtype]
    return kind, kind.compute(masks.scale(p, dtype)), np.uint64(masks.threshold(p))
