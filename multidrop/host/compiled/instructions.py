"""Instructions that Numba has no functions for: pointers, memory on the stack, prefetches, stores past the caches,
atomic additions, and calls of C functions."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import os

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64  # bytes that come from memory together

loop = njit(error_model="numpy")
inlined = njit(inline="always")  # into a loop, which is vectorised only where it calls nothing


@intrinsic
def pointer(context, address, like):
    """An address as a pointer to values of the type of `like`."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), code


def scratch(size):
    """A loop's room of its own for so many bytes, on the stack: its address, a multiple of that of a cache line."""

    @intrinsic
    def room(context):
        def code(context, builder, signature, arguments):
            room = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), size))
            room.align = LINE
            return builder.ptrtoint(room, context.get_value_type(signature.return_type))

        return types.int64(), code

    return room


@intrinsic
def call_address(context, address, arguments):
    """Calls the C function at an address. Its integers and pointers are words of 64 bits, as they lie in registers."""

    def code(context, builder, signature, values):
        given = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(ir.IntType(64), [value.type for value in given])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), given)

    return types.int64(address, arguments), code


def _prefetch(write):
    """Prefetches the cache line at an address."""

    @intrinsic
    def prefetch(context, address):
        def code(context, builder, signature, arguments):
            number = ir.IntType(32)
            place = ir.IntType(8).as_pointer()
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [place, number, number, number]), "llvm.prefetch.p0"
            )
            # To be written or not; to stay in all caches; data.
            hints = [ir.Constant(number, hint) for hint in (write, 3, 1)]
            builder.call(function, [builder.inttoptr(arguments[0], place), *hints])
            return context.get_dummy_value()

        return types.void(types.int64), code

    return prefetch


prefetch_to_read, prefetch_to_write = _prefetch(0), _prefetch(1)


@intrinsic
def stream_line(context, source, target):
    """Copies a cache line to an address that is a multiple of its size, past the caches."""

    def code(context, builder, signature, arguments):
        line = ir.VectorType(ir.IntType(8), LINE).as_pointer()
        source, target = (builder.inttoptr(address, line) for address in arguments)
        store = builder.store(builder.load(source, align=1), target, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def fence(context):
    """Has what was written past the caches be seen before what is written afterwards."""

    def code(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def add(context, address, number):
    """Adds to the word at an address, atomically; returns what it was."""

    def code(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", word, arguments[1], "seq_cst")

    return types.uint64(types.int64, types.uint64), code


@intrinsic
def give_way(context):
    """Lets another thread have the core, where the system has a function for that."""

    def code(context, builder, signature, arguments):
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), code
