"""Transposes the bytes of a mask to the memory order of a tensor, such as channels last."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from .instructions import LINE, inlined, loop, pointer

SIDE = 8  # bytes; squares of this side are transposed at once, with each row in a 64-bit word
_ONES = np.uint64(0x0101010101010101)


@intrinsic
def _load(context, address):
    """Loads eight bytes from any address."""

    def code(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.int64), code


@intrinsic
def _store(context, address, word):
    """Stores eight bytes at any address."""

    def code(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), code


@inlined
def _exchange(first, second, bits, low):
    """Swaps the upper half of each group of bytes in `first` with the lower half of the same group in `second`."""
    both = ((first >> bits) ^ second) & low
    return first ^ (both << bits), second ^ both


@loop
def negated(source, target, count, rows, columns):
    """Transposes and negates boolean matrices.

    Args:
        source: the address of `count` matrices of (rows, columns) bytes, each 0 or 1.
        target: the address for the transposes, of (columns, rows); must not overlap the source.
    """
    size, whole_rows, whole_columns = rows * columns, rows // SIDE * SIDE, columns // SIDE * SIDE
    by1, by2, by4 = np.uint64(8), np.uint64(16), np.uint64(32)
    low1, low2, low4 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)
    for number in range(count):
        x, y = source + number * size, target + number * size
        for first in range(0, whole_columns, LINE):  # a cache line of columns at a time
            for row in range(0, whole_rows, SIDE):
                for column in range(first, min(first + LINE, whole_columns), SIDE):
                    at = x + row * columns + column
                    a, b, c, d = _load(at), _load(at + columns), _load(at + 2 * columns), _load(at + 3 * columns)
                    at += 4 * columns
                    e, f, g, h = _load(at), _load(at + columns), _load(at + 2 * columns), _load(at + 3 * columns)
                    a, b = _exchange(a, b, by1, low1)
                    c, d = _exchange(c, d, by1, low1)
                    e, f = _exchange(e, f, by1, low1)
                    g, h = _exchange(g, h, by1, low1)
                    a, c = _exchange(a, c, by2, low2)
                    b, d = _exchange(b, d, by2, low2)
                    e, g = _exchange(e, g, by2, low2)
                    f, h = _exchange(f, h, by2, low2)
                    a, e = _exchange(a, e, by4, low4)
                    b, f = _exchange(b, f, by4, low4)
                    c, g = _exchange(c, g, by4, low4)
                    d, h = _exchange(d, h, by4, low4)
                    at = y + column * rows + row
                    for word in (a, b, c, d, e, f, g, h):
                        _store(at, word ^ _ONES)
                        at += rows
        matrix = carray(pointer(x, np.uint8(0)), (rows, columns))
        turned = carray(pointer(y, np.uint8(0)), (columns, rows))
        for row in range(rows):  # the rest, which fills no square
            for column in range(whole_columns if row < whole_rows else 0, columns):
                turned[column, row] = 1 - matrix[row, column]
