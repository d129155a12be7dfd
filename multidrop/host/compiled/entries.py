"""The C functions of the kernel: each loop for each type of values."""
# mypy: disable-error-code="no-untyped-def"
# The types of a compiled function's arguments are those of its entry.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import loops, parts
from .transposition import negated


@dataclass(frozen=True)
class Entry:
    """A C function that Python can call too.

    Args:
        function: the function that Numba compiles.
        arguments: the types of its arguments, one letter each: i for int64, w for uint64, d for double.
        words: the number of uint64 words that it returns, to Python as a tuple. Calls of functions that return nothing
            release the GIL.
    """

    function: Callable[..., Any]
    arguments: str
    words: int = 0


# For each type: a scalar of the type in the loops (the bits of a type that Numba does not know), the compute type, and
# the unsigned type of the same width.
_TYPES: dict[str, tuple[np.generic, type[np.floating[Any]], np.generic]] = {
    "float16": (np.uint16(0), np.float32, np.uint16(0)),
    "bfloat16": (np.int16(0), np.float32, np.uint16(0)),
    "float32": (np.float32(0), np.float32, np.uint32(0)),
    "float64": (np.float64(0), np.float64, np.uint64(0)),
}
_MASK = np.uint8(0), np.float32, np.uint8(0)


def _drop(like, number, bits):
    def drop(scale, floor, threshold, source, target, size, start, call, seed, streamed):
        loops.drop(
            source, target, size, like, number(scale), number(floor), start, call, seed, threshold, streamed != 0
        )

    return Entry(drop, "ddwiiiwwwi")


def _select(like, number, bits):
    def select(scale, floor, source, target, size, dropped):
        loops.select(source, target, size, like, number(scale), number(floor), dropped)

    return Entry(select, "ddiiii")


def _gate(like, number, bits):
    def gate(scale, source, target, size, output):
        loops.gate(source, target, size, like, number(scale), number(-np.inf), output, bits)

    return Entry(gate, "diiii")


ENTRIES: dict[str, Entry] = {
    **{
        f"{name}_{dtype}": make(*kind)
        for name, make in (("drop", _drop), ("select", _select), ("gate", _gate))
        for dtype, kind in _TYPES.items()
    },
    "drop_mask": _drop(*_MASK),
    "negated": Entry(
        lambda source, target, count, rows, columns: negated(source, target, count, rows, columns), "iiiii"
    ),
    "select_rows": Entry(
        lambda select, scale, floor, source, target, width, inner, dropped, offsets, rows, shared: loops.select_rows(
            select, scale, floor, source, target, width, inner, dropped, offsets, rows, shared != 0
        ),
        "iddiiiiiiii",
    ),
    "share": Entry(parts.share, "i"),
    "help": Entry(parts.help_with, "i"),
    **{
        f"{name}_part": Entry(getattr(parts, f"{name}_part"), "iiii")
        for name in ("drop", "select", "rows", "gate", "transposed")
    },
    "take": Entry(lambda address: loops.take(address), "i", words=2),
}
