"""Dropout on host memory: mask, scaling and selection fused into one pass.

The results equal those of `multidrop.spec.masks` bit for bit, for arrays of any size, address and layout. The machine
code is loaded at the first call (see `objects`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import checks
from ..spec import masks
from ..spec.keys import Key, as_key
from . import memory
from .addresses import GRAIN as GRAIN
from .addresses import STREAMED as STREAMED
from .addresses import drop as drop
from .addresses import drop_entry as drop_entry
from .addresses import drop_masked, drop_transposed
from .addresses import gate as gate
from .addresses import take as take
from .memory import address_of
from .memory import release_memory as release_memory

Array = npt.NDArray[Any]


def keep_mask(shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0) -> npt.NDArray[np.bool_]:
    """Computes a mask: True where an element is kept.

    Args:
        shape: the tensor's shape.
        dropout: p, the probability that an element is dropped, in [0, 1].
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first element in a larger tensor, if this is a part of one.

    Returns:
        A bool array of that shape.

    Raises:
        ValueError: for a probability outside [0, 1], a bad key, an impossible shape or an index outside [0, 2^64).
    """
    p, key, sizes = checks.probability("dropout", dropout), as_key(key), checks.shape(shape)
    start = checks.span(start, math.prod(sizes))
    if not _NATIVE:
        return masks.keep_mask(sizes, p, key, start)
    keep = np.empty(sizes, np.bool_)
    drop(address_of(keep), address_of(keep), keep.size, "mask", p, key, start)
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
    """Applies dropout to `x` with the mask of `key`: `multidrop.spec.masks.dropout`, fused.

    Args:
        x: an array of any shape and layout, float16, bfloat16, float32 or float64.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key.
        start: the index of the first element.
        out: the array to write to, of x's shape and type; may be x itself. The default is a new array with x's order of
            axes in memory, without gaps.
        axes: axes along which elements share one decision. The mask is drawn for the shape that has 1 along them.
        dtype: the name of x's type, if x holds the bits of a type that NumPy lacks.
        relu: whether to apply ReLU first: values not above 0 become +0, and NaN stays NaN.

    Returns:
        `out`, or the new array; `x` itself if p is 0 and there is neither `out` nor ReLU.

    Raises:
        ValueError: if `out` has a different shape or type, or is read-only, or if an index leaves [0, 2^64).
    """
    start = check(x, start, out, axes)
    if p == 0.0 and not relu:
        result = x
    elif _NATIVE and x.dtype.isnative:
        result = _fused(x, p, key, start, out, tuple(axes), dtype or name_of(x.dtype), relu)
    else:
        result = masks.dropout(masks.relu(x) if relu else x, p, key, start, axes)
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out


def check(x: Array, start: int, out: Array | None, axes: Sequence[int]) -> int:
    """Checks arguments of `dropout`, and returns `start` as an int.

    Raises:
        ValueError: as `dropout` does.
    """
    start = checks.span(start, math.prod(masks.drawn_shape(x.shape, axes)))
    if out is not None:
        if (out.shape, out.dtype) != (x.shape, x.dtype):
            raise ValueError(f"out: expected shape {x.shape} and type {x.dtype}; got {out.shape} and {out.dtype}")
        if not out.flags.writeable:
            raise ValueError(f"out: expected a writable array; got a read-only one: {checks.shown(out)}")
        if not out.flags.c_contiguous and any(
            stride == 0 and size > 1 for stride, size in zip(out.strides, out.shape, strict=True)
        ):
            raise ValueError(f"out: expected separate memory for each element; got overlapping strides {out.strides}")
    return start


_NATIVE = sys.byteorder == "little"  # the loops read a word as two halves, the low one first


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """Caches `dtype.name`: NumPy builds the string at each access, which takes as long as a small dropout."""
    return dtype.name


def _fused(
    x: Array, p: float, key: Key, start: int, out: Array | None, axes: tuple[int, ...], dtype: str, relu: bool
) -> Array:
    """Computes the result in `out` if its memory layout is x's, else in a new array."""
    if x.flags.c_contiguous and x.flags.aligned and not axes:
        target = out if out is not None and _takes(out, x, None) else _empty(x.shape, x.dtype)
        drop(address_of(x), address_of(target), x.size, dtype, p, key, start, relu=relu)
        return target
    order = _memory_order(x)
    if order is None:
        return _fused(np.array(x, order="K"), p, key, start, None, axes, dtype, relu)
    if out is not None and _takes(out, x, order):
        target = out
    else:
        target = _empty(tuple(x.shape[axis] for axis in order), x.dtype).transpose(tuple(np.argsort(order)))
    # A mask follows the logical order of the elements. It is drawn in that order, then transposed to the memory order.
    matrices = None if axes else _matrices(x.shape, order)
    if matrices:
        drop_transposed(address_of(x), address_of(target), matrices, dtype, p, key, start, relu)
        return target
    drawn = ~keep_mask(masks.drawn_shape(x.shape, axes), p, key, start)
    dropped = np.broadcast_to(drawn, x.shape).transpose(order)
    drop_masked(address_of(x), address_of(target), x.size, dtype, p, dropped, relu)
    return target


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    small = math.prod(shape) * dtype.itemsize < memory.LARGE
    return np.empty(shape, dtype) if small else memory.empty(shape, dtype)


def _memory_order(x: Array) -> tuple[int, ...] | None:
    """The axes of an array from the outermost in memory to the innermost; None if the array has gaps or is not
    aligned."""
    order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return order if x.flags.aligned and x.transpose(order).flags.c_contiguous else None


def _matrices(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The (count, rows, columns) of an array that is stored as a sequence of transposed matrices, such as the
    (channels, pixels) of channels-last images; None for any other order."""
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


def _takes(out: Array, x: Array, order: tuple[int, ...] | None) -> bool:
    """Whether the loop may write into `out`: it has the same order of axes in memory as x, and is x itself or does not
    overlap it."""
    flags = out.flags if order is None else out.transpose(order).flags
    return flags.carray and (_same(x, out) or not np.may_share_memory(x, out))


def _same(a: Array, b: Array) -> bool:
    return a is b or (address_of(a) == address_of(b) and a.strides == b.strides)


def relu_gradient(dy: Array, y: Array, p: float) -> Array:
    """Computes the gradient of `dropout(…, relu=True)` with respect to its input.

    Args:
        dy: the gradient with respect to the output.
        y: the output.
        p: the probability that an element was dropped.

    Returns:
        A new array of dy's shape and type.

    Raises:
        ValueError: if dy and y have different shapes.
    """
    if dy.shape != y.shape:
        raise ValueError(f"dy: expected the output's shape {y.shape}; got {dy.shape}")
    dtype = name_of(dy.dtype)
    if not (_NATIVE and dy.dtype.isnative and dy.dtype == y.dtype):
        return masks.relu_gradient(dy, y, p)
    dy, y = np.ascontiguousarray(dy), np.ascontiguousarray(y)
    dx = _empty(dy.shape, dy.dtype)
    gate(address_of(dy), address_of(dx), dy.size, dtype, p, address_of(y))
    return dx
