"""The fused loops on contiguous memory, given by addresses. Large sizes are shared between threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial

import numpy as np
import numpy.typing as npt

from ..spec import masks
from ..spec.keys import Key
from .compiled import layout
from .memory import address_of, prefer_large_pages
from .objects import library
from .pool import share, workers

GRAIN = 1 << 18  # elements per part; a second thread pays from two parts on
STREAMED = 1 << 24  # bytes; larger results leave the cache before they are used, so they are written past it
CACHED = 1 << 16  # elements whose mask stays in the cache until it is used
SHORT = 16  # for rows with fewer values, materialising the mask is faster than a call per row

WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "mask": 1}  # bytes per value


def drop(
    source: int, target: int, size: int, dtype: str, p: float, key: Key, start: int = 0, *, relu: bool = False
) -> None:
    """Applies dropout to contiguous values.

    Args:
        source: the address of the first input value.
        target: the address of the first output value; may be `source`.
        size: the number of values.
        dtype: the name of their type, or "mask" to write the mask itself as bytes.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key.
        start: the index of the first element.
        relu: whether to apply ReLU first.
    """
    call, seed = key.call, key.seed
    if size < 2 * GRAIN:
        _drop_loop(p, dtype, relu)(source, target, size, start, call, seed, False)
        return
    width = WIDTHS[dtype]
    streamed = width * size >= STREAMED and source != target and target % width == 0
    if streamed:
        prefer_large_pages(target, width * size)
    fixed = drop_entry(dtype), masks.scale(p, dtype), _floor(relu), masks.threshold(p)
    share("drop", layout.DROP.pack(*fixed, source, target, width, start, call, seed, streamed), size, GRAIN)


def drop_transposed(
    source: int, target: int, matrices: tuple[int, int, int], dtype: str, p: float, key: Key, start: int, relu: bool
) -> None:
    """`drop` for values that are stored as transposed matrices; `matrices` is (count, rows, columns)."""
    count, rows, columns = matrices
    grain = max(CACHED // (rows * columns), 1)
    room = np.empty((workers(), 2 * min(grain, count) * rows * columns), np.uint8)  # for each thread, two masks
    address = library().address
    arguments = layout.TRANSPOSED.pack(
        *(drop_entry("mask"), masks.threshold(p), start, key.call, key.seed),
        *(address("negated"), rows, columns),
        *(address(f"select_{dtype}"), masks.scale(p, dtype), _floor(relu), source, target, WIDTHS[dtype]),
        *(address_of(room), room.shape[1]),
    )
    share("transposed", arguments, count, grain)


def drop_masked(
    source: int, target: int, size: int, dtype: str, p: float, dropped: npt.NDArray[np.bool_], relu: bool
) -> None:
    """`drop` with a given mask: `dropped` has the shape of the values, in memory order, and is True where a value is
    dropped. Its stride is 0 along axes that share decisions."""
    inner, shared = _run(dropped)
    fixed = masks.scale(p, dtype), _floor(relu), source, target, WIDTHS[dtype]
    if inner < SHORT:
        dropped = np.ascontiguousarray(dropped)
        entry = library().address(f"select_{dtype}")
        share("select", layout.SELECT.pack(entry, *fixed, address_of(dropped)), size, GRAIN)
        return
    entries = library().address("select_rows"), library().address(f"select_{dtype}")
    offsets = _offsets(dropped, size // inner)
    arguments = layout.ROWS.pack(*entries, *fixed, inner, address_of(dropped), address_of(offsets), shared)
    share("rows", arguments, len(offsets), max(GRAIN // inner, 1))


def _run(mask: npt.NDArray[np.bool_]) -> tuple[int, bool]:
    """The length of a mask's innermost runs, and whether the values of a run share one decision (their stride is 0) or
    have a decision each (they are contiguous)."""
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


def _offsets(mask: npt.NDArray[np.bool_], rows: int) -> npt.NDArray[np.int64]:
    """The offset of each row of a mask from the first, in bytes."""
    offsets = np.zeros(1, np.int64)
    for length, stride in zip(mask.shape, mask.strides, strict=True):
        if len(offsets) == rows:
            break
        offsets = np.add.outer(offsets, stride * np.arange(length)).reshape(-1)
    return offsets


def gate(source: int, target: int, size: int, dtype: str, p: float, output: int) -> None:
    """Computes the gradient of a `drop` with ReLU. It needs no mask: the output is above 0, or NaN, exactly where an
    element was kept and passed the ReLU.

    Args:
        source: the address of the gradient with respect to the output.
        target: the address for the gradient with respect to the input; not `source`.
        size: the number of values.
        dtype: the name of their type.
        p: the probability that an element was dropped.
        output: the address of the output.
    """
    scale = masks.scale(p, dtype)
    if size < 2 * GRAIN:
        library().function(f"gate_{dtype}")(scale, source, target, size, output)
        return
    entry = library().address(f"gate_{dtype}")
    share("gate", layout.GATE.pack(entry, scale, source, target, WIDTHS[dtype], output), size, GRAIN)


def take(address: int) -> Key:
    """Returns the current key of a stream in memory, and advances the stream by one call, atomically. `address` points
    to its position, uint64 (seed, call). Faster than reading the two numbers through NumPy or a framework."""
    return Key.of_words(*_take()(address))


@cache
def _take() -> Callable[[int], tuple[int, int]]:
    return library().function("take")


@lru_cache(1024)
def _drop_loop(p: float, dtype: str, relu: bool) -> Callable[..., object]:
    """The compiled loop of `drop` for a p and a type; takes (source, target, size, start, call, seed, streamed)."""
    return partial(library().function(f"drop_{dtype}"), masks.scale(p, dtype), _floor(relu), masks.threshold(p))


def _floor(relu: bool) -> float:
    """The lower bound of kept values: 0 with ReLU."""
    return 0.0 if relu else -math.inf


def drop_entry(dtype: str) -> int:
    """The address of the C function of `drop` for a type; `compiled.entries` defines its arguments."""
    return library().address(f"drop_{dtype}")
