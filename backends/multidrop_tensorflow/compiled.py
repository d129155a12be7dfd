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
from numba.extending import intrinsic

from multidrop.kernel.compiled import call_address, compiled, pointer, run, scratch

from .ops import SHIFT

# What is to be computed: the loop and its kind, the mask's threshold and start, the scale and the floor, as `run` takes
# them; the address of what all kernels share; the function `REST` for what is not computed here, called with `NUMBER`.
LOOP, KIND, THRESHOLD, START, SCALE, FLOOR, SHARED, REST, NUMBER = range(9)
FUNCTIONS = (  # of TensorFlow's C interface, without their prefix; their addresses follow
    *("NewStatus", "DeleteStatus", "GetCode", "GetInput", "ForwardInputOrAllocateOutput"),
    *("DeleteTensor", "TensorData", "TensorElementCount", "NumDims", "Dim"),
)
NEW_STATUS, DELETE_STATUS, CODE, INPUT, OUTPUT, DELETE_TENSOR, DATA, COUNT, RANK, LENGTH = range(9, 9 + len(FUNCTIONS))
WORDS = 9 + len(FUNCTIONS)

# What kernels share: below how many elements a tensor is computed here, and how many are with `REST` for their size.
LIMIT, AT_REST = range(2)

MAX_RANK = 254  # TensorFlow's own

_INT = np.int64(0xFFFFFFFF)  # of what is returned as a C int
_room = scratch(8 * (MAX_RANK + 5))


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
    status = call_address(table[NEW_STATUS], ())
    for number in range(2):
        call_address(table[INPUT], (context, number, room + 8 * number, status))
    done = large = False
    if not call_address(table[CODE], (status,)) & _INT:
        size, rank = call_address(table[COUNT], (words[0],)), call_address(table[RANK], (words[0],)) & _INT
        large = size >= shared[LIMIT]
        if large:
            _add(table[SHARED] + 8 * AT_REST, 1)
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
        _add(table[SHARED] + 8 * AT_REST, -1)


@compiled
def _drop(table, numbers, x, position, y, size):
    source, target = call_address(table[DATA], (x,)), call_address(table[DATA], (y,))  # type: ignore[var-annotated]  # Numba infers
    low, high, seed = carray(pointer(call_address(table[DATA], (position,)), np.uint64(0)), (3,))
    call = high << np.uint64(64 - SHIFT) | low >> np.uint64(SHIFT)
    fixed = table[LOOP], table[KIND], numbers[SCALE], numbers[FLOOR], np.uint64(table[THRESHOLD])
    run(*fixed, source, target, size, np.uint64(table[START]), call, seed, False)


compute = compiled(_compute, partial(cfunc, types.void(types.int64, types.int64)))
