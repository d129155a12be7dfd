"""Philox4x32-10 as vector instructions."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...spec.philox import MASK32, MULTIPLIERS, ROUNDS, WEYL
from .instructions import LINE

CHUNK = 32  # blocks that are drawn together, between prefetches; more prefetches at once would stall

_WORD = ir.IntType(64)


def _philox(builder, blocks, block, call, seed):
    """Generates the four words of a block, or of each block in a vector, as two 64-bit words with the first word in the
    low half. `blocks` is the block number or a vector of them; `block` gives their common upper half.

    Within the rounds a word occupies the lower half of 64 bits, and the upper half may hold anything: vector units
    multiply the lower halves to 64-bit products in place, and all other operations are bitwise. Values that are equal
    for all blocks stay scalars, so half of the first two rounds is computed once for all blocks.
    """

    def both(operation, a, b):
        kind = a.type if isinstance(a.type, ir.VectorType) else b.type
        return operation(_spread(builder, a, kind), _spread(builder, b, kind))

    xor, half, low = partial(both, builder.xor), ir.Constant(_WORD, 32), ir.Constant(_WORD, MASK32)

    def times(x, multiplier):
        return both(builder.mul, both(builder.and_, x, low), ir.Constant(_WORD, multiplier))

    def high(word):
        return both(builder.lshr, word, half)

    def turned(product):
        return builder.or_(high(product), both(builder.shl, product, half))

    x0, x1, x2, x3 = blocks, high(block), call, high(call)
    k0, k1 = seed, high(seed)
    for _ in range(ROUNDS - 1):
        first, second = times(x0, MULTIPLIERS[0]), times(x2, MULTIPLIERS[1])
        x0, x1 = xor(high(second), xor(x1, k0)), second
        x2, x3 = xor(high(first), xor(x3, k1)), first
        k0, k1 = (builder.add(key, ir.Constant(_WORD, weyl)) for key, weyl in zip((k0, k1), WEYL, strict=True))
    # The last round uses both halves of each product; rotating by 32 bits puts them in place in one step.
    first, second = times(x0, MULTIPLIERS[0]), times(x2, MULTIPLIERS[1])
    return (
        xor(turned(second), both(builder.and_, xor(x1, k0), low)),
        xor(turned(first), both(builder.and_, xor(x3, k1), low)),
    )


def _spread(builder, value, kind):
    """Broadcasts a word to a vector."""
    if value.type == kind:
        return value
    undefined, place = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, value, ir.Constant(place, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(place, kind.count), None))


@intrinsic
def words(context, block, call, seed):
    """Generates the words of one block."""

    def code(context, builder, signature, arguments):
        block, call, seed = arguments
        return context.make_tuple(builder, signature.return_type, _philox(builder, block, block, call, seed))

    return types.UniTuple(types.uint64, 2)(block, call, seed), code


@intrinsic
def draw(context, target, block, call, seed):
    """Writes the words of a chunk of blocks from `block` on to an address that is aligned to a cache line. The block
    numbers must have the same upper half. The chunk fills several vectors, whose rounds are interleaved, so that the
    processor computes one vector while it waits for the others."""

    def code(context, builder, signature, arguments):
        target, block, call, seed = arguments
        # In each group of four blocks the middle two are swapped. Then one unpack instruction each turns a vector of
        # first words and a vector of second words of four blocks into two vectors of adjacent words.
        order = [4 * (i // 4) + (0, 2, 1, 3)[i % 4] for i in range(CHUNK)]
        kind = ir.VectorType(_WORD, CHUNK)
        blocks = builder.add(_spread(builder, block, kind), ir.Constant(kind, order))
        places = [order.index(i // 2) + CHUNK * (i % 2) for i in range(2 * CHUNK)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * CHUNK), places)
        words = builder.shuffle_vector(*_philox(builder, blocks, block, call, seed), mask)
        builder.store(words, builder.inttoptr(target, words.type.as_pointer()), align=LINE)
        return context.get_dummy_value()

    return types.void(target, block, call, seed), code
