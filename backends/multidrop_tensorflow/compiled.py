"""What the operator `MultidropDropout` computes, as a C function that Numba compiles: on tensors for which one thread
will do it runs without Python.

It is called with a kernel's table: words of 64 bits, in the order of the names below.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from multidrop.kernel.compiled import compiled, pointer, scratch

from .ops import SHIFT

# What is to be computed: the loop's address and which of `FLOAT`, `DOUBLE` and `BITS` its values are; the address of
# what all kernels share; the function `REST` for what is not computed here, called with `NUMBER`.
LOOP, KIND, THRESHOLD, START, SCALE, FLOOR, SHARED, REST, NUMBER = range(9)
FUNCTIONS = (  # of TensorFlow's C interface, without their prefix; their addresses follow
    *("NewStatus", "DeleteStatus", "GetCode", "GetInput", "ForwardInputOrAllocateOutput"),
    *("DeleteTensor", "TensorData", "TensorElementCount", "NumDims", "Dim"),
)
NEW_STATUS, DELETE_STATUS, CODE, INPUT, OUTPUT, DELETE_TENSOR, DATA, COUNT, RANK, LENGTH = range(9, 9 + len(FUNCTIONS))
WORDS = 9 + len(FUNCTIONS)

# What kernels share: below how many elements a tensor is computed here, and how many are with `REST` for their size.
LIMIT, AT_REST = range(2)

FLOAT, DOUBLE, BITS = range(3)
MAX_RANK = 254  # TensorFlow's own

_INT = np.int64(0xFFFFFFFF)  # of what is returned as a C int
_room = scratch(8 * (MAX_RANK + 5))


@intrinsic
def _call(context, address, arguments):
    """Calls the C function at an address. Its integers and pointers are words of 64 bits, as they lie in registers."""

    def code(context, builder, signature, values):
        given = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(ir.IntType(64), [value.type for value in given])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), given)

    return types.int64(address, arguments), code


@intrinsic
def _add(context, address, number):
    """Adds to the word at an address, in one step for all threads."""

    def code(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.atomic_rmw("add", place, arguments[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


def _compute(kernel, context):
    """TensorFlow's call for a run of a node: `kernel` is the address of the table, `context` TensorFlow's own."""
    table = carray(pointer(kernel, np.int64(0)), (WORDS,))
    shared = carray(pointer(table[SHARED], np.int64(0)), (2,))
    room = _room()
    words = carray(pointer(room, np.int64(0)), (MAX_RANK + 5,))
    words[:5] = 0  # x, its position and y; the one input that y may be written over, number 0; whether it was
    status = _call(table[NEW_STATUS], ())
    for number in range(2):
        _call(table[INPUT], (context, number, room + 8 * number, status))
    done = large = False
    if not _call(table[CODE], (status,)) & _INT:
        size, rank = _call(table[COUNT], (words[0],)), _call(table[RANK], (words[0],)) & _INT
        large = size >= shared[LIMIT]
        if large:
            _add(table[SHARED] + 8 * AT_REST, 1)
        # Asked again, once it is counted: whoever raises the limit waits for what had gone by the old one.
        if size < shared[LIMIT] and rank <= MAX_RANK and _call(table[COUNT], (words[1],)) == 3:
            for axis in range(rank):
                words[5 + axis] = _call(table[LENGTH], (words[0], axis))
            words[2] = _call(table[OUTPUT], (context, room + 24, 1, 0, room + 40, rank, room + 32, status))
            done = not _call(table[CODE], (status,)) & _INT
            if done and size:
                _drop(table, carray(pointer(kernel, np.float64(0)), (WORDS,)), words[0], words[1], words[2], size)
    for tensor in words[:3]:
        if tensor:
            _call(table[DELETE_TENSOR], (tensor,))
    _call(table[DELETE_STATUS], (status,))
    if not done:
        _call(table[REST], (table[NUMBER], context))
    if large:
        _add(table[SHARED] + 8 * AT_REST, -1)


@compiled
def _drop(table, numbers, x, position, y, size):
    source, target = _call(table[DATA], (x,)), _call(table[DATA], (y,))  # type: ignore[var-annotated]  # Numba infers
    low, high, seed = carray(pointer(_call(table[DATA], (position,)), np.uint64(0)), (3,))
    call = high << np.uint64(64 - SHIFT) | low >> np.uint64(SHIFT)
    scale, floor = numbers[SCALE], numbers[FLOOR]
    mask = (table[START], call, seed, table[THRESHOLD], 0)
    if table[KIND] == DOUBLE:
        _call(table[LOOP], (source, target, size, 0.0, scale, floor, *mask))
    elif table[KIND] == FLOAT:
        _call(table[LOOP], (source, target, size, np.float32(0), np.float32(scale), np.float32(floor), *mask))
    else:
        _call(table[LOOP], (source, target, size, 0, np.float32(scale), np.float32(floor), *mask))


compute = compiled(_compute, partial(cfunc, types.void(types.int64, types.int64)))
