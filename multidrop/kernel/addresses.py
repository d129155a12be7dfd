"""The fused loops from address to address, for values that lie one after the other, in as many threads as their number
pays for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import garbage, masks
from ..keys import Key
from .memory import address_of, prefer_large_pages
from .pool import share

GRAIN = 1 << 18  # elements; from twice that on a second thread pays
STREAMED = 1 << 24  # bytes; a result of as many is not kept in a cache until it is used
CACHED = 1 << 16  # elements whose mask stays in a cache until it is used
SHORT = 16  # values in a row, below which it is quicker to write the mask out


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
    loop, width = _drop_loop(p, dtype, relu)
    call, seed = key.call, key.seed
    if size < 2 * GRAIN:
        loop(source, target, size, start, call, seed, False)
        return
    streamed = width * size >= STREAMED and source != target and target % width == 0
    if streamed:
        prefer_large_pages(target, width * size)

    def part(a: int, b: int) -> None:
        loop(source + width * a, target + width * a, b - a, start + a, call, seed, streamed)

    share(part, size, GRAIN)


def drop_transposed(
    source: int, target: int, matrices: tuple[int, int, int], dtype: str, p: float, key: Key, start: int, relu: bool
) -> None:
    """`drop` for values that lie as the transposes of so many matrices of (rows, columns)."""
    count, rows, columns = matrices
    kind, scale, _ = _constants(p, dtype)
    like, width, floor = kind.like, kind.like.itemsize, kind.zero if relu else kind.lowest
    select, negated = _loops().select, _transposition().negated

    def part(first: int, last: int) -> None:
        size, offset = (last - first) * rows * columns, first * rows * columns
        keep, dropped = np.empty((2, size), np.uint8)
        drop(address_of(keep), address_of(keep), size, "mask", p, key, start + offset)
        negated(address_of(keep), address_of(dropped), last - first, rows, columns)
        at = width * offset
        select(source + at, target + at, size, like, scale, floor, address_of(dropped))

    share(part, count, max(CACHED // (rows * columns), 1))


def drop_masked(
    source: int, target: int, size: int, dtype: str, p: float, dropped: npt.NDArray[np.bool_], relu: bool
) -> None:
    """`drop` with a mask that is there already: bools of the values' shape, in their order in memory, True where they
    are dropped. Along an axis that is shared their stride is 0."""
    kind, scale, _ = _constants(p, dtype)
    like, width, floor = kind.like, kind.like.itemsize, kind.zero if relu else kind.lowest
    inner, shared = _run(dropped)
    if inner < SHORT:
        loop = _loops().select
        dropped = np.ascontiguousarray(dropped)
        mask = address_of(dropped)

        def part(a: int, b: int) -> None:
            loop(source + width * a, target + width * a, b - a, like, scale, floor, mask + a)

        share(part, size, GRAIN)
        return
    rows_loop = _loops().select_rows
    mask, offsets = address_of(dropped), _offsets(dropped, size // inner)

    def rows(a: int, b: int) -> None:
        first = width * inner * a
        rows_loop(source + first, target + first, inner, like, scale, floor, mask, offsets[a:b], shared)

    share(rows, len(offsets), max(GRAIN // inner, 1))


def _run(mask: npt.NDArray[np.bool_]) -> tuple[int, bool]:
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


def _offsets(mask: npt.NDArray[np.bool_], rows: int) -> npt.NDArray[np.int64]:
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


def take(address: int) -> Key:
    """The key of the stream whose position, uint64 (seed, call), lies at an address, and which moves on by one call.
    Safe to call from any number of threads, and sooner done than NumPy or a framework reads two numbers."""
    return Key.of_words(*_position().take(address))


@lru_cache(1024)
def _drop_loop(p: float, dtype: str, relu: bool) -> tuple[Callable[..., None], int]:
    """The loop of `drop` for what a tensor's type and p decide, which is still to be called with (source, target, size,
    start, call, seed, streamed); and the bytes of a value."""
    kind, scale, threshold = _constants(p, dtype)
    floor = kind.zero if relu else kind.lowest
    address, number = drop_entry(dtype)
    fixed = address, number, scale.item(), floor.item(), int(threshold)
    return partial(_loops().run, *fixed), kind.like.itemsize


@cache
@garbage.put_off()
def drop_entry(dtype: str) -> tuple[int, int]:
    """The address of the C function of `drop` for a type, loaded or compiled, and which kind it is of; for
    `compiled.run`."""
    kind, loops = _TYPES[dtype], _loops()
    loop = loops.drop_for(kind.like, kind.zero)
    _kept.append(loop)
    return loop.address, {"float32": loops.FLOAT, "float64": loops.DOUBLE}.get(dtype, loops.BITS)


_kept: list[Any] = []  # whose machine code goes when Python lets go of them


@cache
def _loops() -> ModuleType:
    from . import compiled

    return compiled


@cache
def _transposition() -> ModuleType:
    from . import transposition

    return transposition


@cache
@garbage.put_off()
def _position() -> ModuleType:
    from . import position

    return position


@lru_cache(1024)
def _constants(p: float, dtype: str) -> tuple[_Type, np.generic, np.uint64]:
    """How values of the type go into the loops, the scale and the threshold."""
    kind = _TYPES[dtype]
    return kind, kind.compute(masks.scale(p, dtype)), np.uint64(masks.threshold(p))
