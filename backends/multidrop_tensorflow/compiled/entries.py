"""What the operator `MultidropDropout` computes, as a C function that Numba compiles: on tensors for which one thread
will do it runs without Python.

It is called with a kernel's table: words of 64 bits, in the order of `layout`.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import numpy as np
from numba import carray

from multidrop.host.compiled.entries import Entry
from multidrop.host.compiled.instructions import add, call_address, loop, pointer, scratch

from .layout import (
    AT_REST,
    CODE,
    COUNT,
    DATA,
    DELETE_STATUS,
    DELETE_TENSOR,
    FLOOR,
    INPUT,
    LENGTH,
    LIMIT,
    LOOP,
    MAX_RANK,
    NEW_STATUS,
    NUMBER,
    OUTPUT,
    RANK,
    REST,
    SCALE,
    SHARED,
    SHIFT,
    START,
    THRESHOLD,
    WORDS,
)

_INT = np.int64(0xFFFFFFFF)  # of what is returned as a C int
_room = scratch(8 * (MAX_RANK + 5))


def _compute(kernel, context):
    """TensorFlow's call for a run of a node: `kernel` is the address of the table, `context` TensorFlow's own."""
    table = carray(pointer(kernel, np.int64(0)), (WORDS,))
    shared = carray(pointer(table[SHARED], np.int64(0)), (2,))
    room = _room()
    words = carray(pointer(room, np.int64(0)), (MAX_RANK + 5,))
    words[:5] = 0  # x, its position and y; the one input that y may be written over, number 0; whether it was
    status = call_address(table[NEW_STATUS], ())
    for number in range(2):
        call_address(table[INPUT], (context, number, room + 8 * number, status))
    done = large = False
    if not call_address(table[CODE], (status,)) & _INT:
        size, rank = call_address(table[COUNT], (words[0],)), call_address(table[RANK], (words[0],)) & _INT
        large = size >= shared[LIMIT]
        if large:
            add(table[SHARED] + 8 * AT_REST, np.uint64(1))
        # Asked again, once it is counted: whoever raises the limit waits for what had gone by the old one.
        if size < shared[LIMIT] and rank <= MAX_RANK and call_address(table[COUNT], (words[1],)) == 3:
            for axis in range(rank):
                words[5 + axis] = call_address(table[LENGTH], (words[0], axis))
            words[2] = call_address(table[OUTPUT], (context, room + 24, 1, 0, room + 40, rank, room + 32, status))
            done = not call_address(table[CODE], (status,)) & _INT
            if done and size:
                _drop(table, carray(pointer(kernel, np.float64(0)), (WORDS,)), words[0], words[1], words[2], size)
    for tensor in words[:3]:
        if tensor:
            call_address(table[DELETE_TENSOR], (tensor,))
    call_address(table[DELETE_STATUS], (status,))
    if not done:
        call_address(table[REST], (table[NUMBER], context))
    if large:
        add(table[SHARED] + 8 * AT_REST, np.uint64(2**64 - 1))


@loop
def _drop(table, numbers, x, position, y, size):
    source, target = call_address(table[DATA], (x,)), call_address(table[DATA], (y,))  # type: ignore[var-annotated]  # Numba infers
    low, high, seed = carray(pointer(call_address(table[DATA], (position,)), np.uint64(0)), (3,))
    call = high << np.uint64(64 - SHIFT) | low >> np.uint64(SHIFT)
    fixed = numbers[SCALE], numbers[FLOOR], table[THRESHOLD]
    call_address(table[LOOP], (*fixed, source, target, size, table[START], call, seed, np.int64(0)))


ENTRIES = {"compute": Entry(_compute, "ii")}
