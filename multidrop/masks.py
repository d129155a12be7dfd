"""The mask specification, version 1, in plain NumPy: written to be read, and the oracle for every backend.

A mask is a pure function of a key and an element's index. Element i of a tensor, counted in row-major order whatever
its memory layout, belongs to block i div 8 and has lane i mod 8 in it. One Philox call gives a block its eight 16-bit
lanes; a second one, in a plane of its own, refines each lane to 32 bits. The element is kept where its 32-bit uniform
lies below a threshold.

    counter   (block mod 2^32, block div 2^32 + plane·2^31, call mod 2^32, call div 2^32)
    lane j    word j div 2: its low half for even j, its high half for odd j
    U(i)      lane of plane 0 · 2^16 + lane of plane 1
    kept      U(i) < round_half_even((1 − p)·2^32)
    value     kept: x·s with s = 1/(1 − p);  dropped: +0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks
from .keys import Key, as_key
from .philox import philox4x32, split64

VERSION = 1  # of the specification


def _lanes(first_block: int, blocks: int, key: Key, plane: int) -> npt.NDArray[np.uint32]:
    """The 16-bit lanes of consecutive blocks in one plane, shape (8·blocks,)."""
    block = np.arange(blocks, dtype=np.uint64) + np.uint64(first_block)
    low = block & np.uint64(0xFFFFFFFF)
    high = (block >> np.uint64(32)) + np.uint64(plane << 31)
    words = np.stack(philox4x32((low, high, *split64(key.call)), key.seed), axis=1)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=2)
    return halves.reshape(-1)


def uniforms(count: int, key: int | Key, start: int = 0) -> npt.NDArray[np.uint32]:
    """U(i) for the elements start … start + count − 1.

    Args:
        count: how many.
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first one.

    Returns:
        A uint32 array of shape (count,).

    Raises:
        ValueError: for a bad key, or where an index would leave [0, 2^64).
    """
    key, start = as_key(key), checks.span(start, count)
    first, skipped = divmod(start, 8)
    blocks = -(-(skipped + count) // 8)
    coarse, fine = (_lanes(first, blocks, key, plane) for plane in (0, 1))
    return ((coarse << np.uint32(16)) | fine)[skipped : skipped + count]


def threshold(p: float) -> int:
    """The number of 32-bit uniforms, of all 2^32, that keep their element: round_half_even((1 − p)·2^32)."""
    return round((1.0 - p) * 2.0**32)


def scale(p: float, dtype: str = "float64") -> float:
    """What kept elements are multiplied by, 1/(1 − p), rounded once to the type that a tensor of `dtype` is computed
    in: float64 for float64, float32 for the others. Nothing is kept at p = 1, where it is 0."""
    exact = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return exact if dtype == "float64" else float(np.float32(exact))


def keep_mask(shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0) -> npt.NDArray[np.bool_]:
    """`multidrop.keep_mask`: a bool array of `shape`, True where an element is kept."""
    p = checks.probability("dropout", dropout)
    sizes = checks.shape(shape)
    # Compared in 64 bits, for at p = 0 the threshold is 2^32.
    kept = uniforms(math.prod(sizes), key, start).astype(np.uint64) < np.uint64(threshold(p))
    return kept.reshape(sizes)


def drawn_shape(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    """The shape that a mask is drawn for when it is shared along `axes`: 1 there."""
    shared = {axis % len(shape) for axis in axes} if axes else set()
    return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def dropout(x: npt.NDArray, p: float, key: int | Key, start: int = 0, axes: Sequence[int] = ()) -> npt.NDArray:
    """`x` through dropout with the mask of `key`: its kept elements scaled by 1/(1 − p), +0 for the others.

    The gradient is the same function: with the output's gradient for `x` and the same p, key and start, it gives the
    input's.

    Args:
        x: a floating array of any shape and layout.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first element.
        axes: along which one decision holds for all, as for all pixels of a channel. The mask is drawn for the shape
            that has 1 there, and broadcast.

    Returns:
        A new array of x's shape and type, or `x` itself where p is 0.
    """
    if p == 0.0:
        return x
    dtype = x.dtype.name
    compute = np.dtype("float64" if dtype == "float64" else "float32")
    with np.errstate(over="ignore", invalid="ignore"):  # a large x may become infinite, in silence as in a framework
        scaled = (x.astype(compute) * np.array(scale(p, dtype), compute)).astype(x.dtype)
    y = np.zeros(x.shape, x.dtype)
    np.copyto(y, scaled, where=keep_mask(drawn_shape(x.shape, axes), p, key, start))
    return y


class Mask(NamedTuple):
    """A mask by its name, as the backends hand it on: what `keep_mask` and `dropout` take one by one. In a traced
    program the key is a tensor that holds one."""

    p: float
    key: Any
    start: int = 0
    axes: tuple[int, ...] = ()


def relu(x: npt.NDArray) -> npt.NDArray:
    """max(x, 0): +0 for what is not above 0, and NaN for NaN."""
    return np.where(x <= 0, np.zeros((), x.dtype), x)


def relu_gradient(dy: npt.NDArray, y: npt.NDArray, p: float) -> npt.NDArray:
    """The gradient with respect to x of y = dropout(relu(x), p, …), from dy, the one with respect to y: dy/(1 − p)
    where y is not 0, and +0 elsewhere."""
    dtype = dy.dtype.name
    compute = np.dtype("float64" if dtype == "float64" else "float32")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (dy.astype(compute) * np.array(scale(p, dtype), compute)).astype(dy.dtype)
    return np.where(y == 0, np.zeros((), dy.dtype), scaled)
