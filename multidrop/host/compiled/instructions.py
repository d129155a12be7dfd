"""Instructions for which Numba has no functions: pointers, memory on the stack, prefetches, stores past the caches,
atomic additions, and calls of C functions."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import os

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64  # bytes in a cache line

loop = njit(error_model="numpy")
inlined = njit(inline="always")  # LLVM vectorises a loop only if it contains no calls


@intrinsic
def pointer(context, address, like):
    """Converts an address to a pointer to values of the type of `like`."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), code


def scratch(size):
    """Makes a function that allocates `size` bytes on the stack, aligned to a cache line, and returns their address."""

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
    """Calls the C function at an address. Integers and pointers are passed as 64-bit words, as in registers."""

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
    """Copies a cache line past the caches, to an address that is aligned to a cache line."""

    def code(context, builder, signature, arguments):
        line = ir.VectorType(ir.IntType(8), LINE).as_pointer()
        source, target = (builder.inttoptr(address, line) for address in arguments)
        store = builder.store(builder.load(source, align=1), target, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def fence(context):
    """Makes earlier stores past the caches visible before any later store."""

    def code(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def add(context, address, number):
    """Adds to the word at an address, atomically, and returns its previous value."""

    def code(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", word, arguments[1], "seq_cst")

    return types.uint64(types.int64, types.uint64), code


@intrinsic
def give_way(context):
    """Yields the core to another thread, on systems with `sched_yield`."""

    def code(context, builder, signature, arguments):
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), code
