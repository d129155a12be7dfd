"""The position of a stream in a framework's memory: two words of 64 bits, the seed and the call of its next mask."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from .compiled import compiled, pointer


@intrinsic
def _add(context, address, number):
    """Adds to the word at an address, which no other thread can come between; gives what it was."""

    def code(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", word, arguments[1], "monotonic")

    return types.uint64(types.int64, types.uint64), code


def _take(address):
    """(seed, call) at an address, of which the call moves on by one."""
    seed = carray(pointer(address, np.uint64(0)), (1,))[0]
    return seed, _add(address + 8, np.uint64(1))


# With the GIL, which to let go of and to get back takes longer than this.
take = compiled(_take, partial(njit, types.UniTuple(types.uint64, 2)(types.int64)))
