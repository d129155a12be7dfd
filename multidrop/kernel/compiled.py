"""The loops that Numba compiles: a mask drawn tile by tile, and what it does to values of each type.

A tile of 1,024 elements is drawn at a time, so that its Philox words stay in the first-level cache, and each loop does
one thing over whole vectors. The lanes drawn are those of plane 0. Where one equals the high half of the threshold,
once in 65,536 elements, plane 1 decides, in a loop of its own, which writes a lane that needs no plane 1.

What a large tensor takes is the time of memory. So the values of a later tile are asked for while the words of this
one are drawn, some lines at a time, for more at once would be waited for; and the result goes past the caches, which
would first read each line that is written.

The lanes of a block are its four words read as 16-bit halves, the low one first: on a little-endian machine, and the
package uses these loops on no other.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ..philox import MASK32, MULTIPLIERS, ROUNDS, WEYL

BLOCKS = 128
TILE = 8 * BLOCKS
CHUNK = 32  # blocks that are drawn together, before which memory is asked for: more of that would be waited for
FAR = 1 << 17  # elements: fewer are likely to lie in a cache
AHEAD = 1 << 13  # bytes
LINE = 64  # bytes that come from memory together

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_PLANE1 = np.uint64(1 << 63)  # plane 1 is bit 31 of the counter's second word: of the 64-bit block, the highest


_for_python = partial(njit, nogil=True)


def compiled(function: Callable[..., Any], compiler: Callable[..., Any] = _for_python) -> Any:
    """`function`, compiled, which then runs without the GIL. The machine code is kept on disk where there is a place
    for it."""
    try:
        return compiler(cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder can be written nor the user's folder for caches
        return compiler(error_model="numpy")(function)


_inlined = njit(inline="always")  # into a loop, which is vectorised only where it calls nothing


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


_room_for_words, _room_for_values = scratch(2 * 8 * BLOCKS), scratch(8 * TILE + LINE)


@intrinsic
def call_address(context, address, arguments):
    """Calls the C function at an address. Its integers and pointers are words of 64 bits, as they lie in registers."""

    def code(context, builder, signature, values):
        given = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(ir.IntType(64), [value.type for value in given])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), given)

    return types.int64(address, arguments), code


def _prefetch(write):
    """A loop's wish for the cache line at an address: asked for before it is needed, and not waited for."""

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


_prefetch_to_read, _prefetch_to_write = _prefetch(0), _prefetch(1)


@intrinsic
def _stream_line(context, source, target):
    """Copies a cache line to an address that is a multiple of its size, past the caches."""

    def code(context, builder, signature, arguments):
        line = ir.VectorType(ir.IntType(8), LINE).as_pointer()
        source, target = (builder.inttoptr(address, line) for address in arguments)
        store = builder.store(builder.load(source, align=1), target, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def _fence(context):
    """Has what was written past the caches be seen before what is written afterwards."""

    def code(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


def _philox(builder, blocks, block, call, seed):
    """The words of a block, two in 64 bits, the first one low; or of each of a vector of blocks, of whose numbers the
    upper half is that of `block`.

    Within the rounds a word is in the lower half of 64 bits, whose upper half may hold anything: a vector unit
    multiplies lower halves to 64 bits as they lie, and all else is done bit by bit. What is the same for all blocks
    stays a single word, so that of two rounds a half is computed once for all of them.
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
    # Of the last round both words of a product stay, which changing the halves' places does at once.
    first, second = times(x0, MULTIPLIERS[0]), times(x2, MULTIPLIERS[1])
    return (
        xor(turned(second), both(builder.and_, xor(x1, k0), low)),
        xor(turned(first), both(builder.and_, xor(x3, k1), low)),
    )


_WORD = ir.IntType(64)


def _spread(builder, value, kind):
    """A word as a vector that has it everywhere."""
    if value.type == kind:
        return value
    undefined, place = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, value, ir.Constant(place, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(place, kind.count), None))


@intrinsic
def _words(context, block, call, seed):
    """The words of a block."""

    def code(context, builder, signature, arguments):
        block, call, seed = arguments
        return context.make_tuple(builder, signature.return_type, _philox(builder, block, block, call, seed))

    return types.UniTuple(types.uint64, 2)(block, call, seed), code


@intrinsic
def _draw(context, target, block, call, seed):
    """Writes the words of a chunk of blocks from `block` on, whose numbers have one upper half, to an address that is a
    multiple of a cache line's size. They fill several vectors, whose rounds take turns: a processor computes some while
    it waits for the others."""

    def code(context, builder, signature, arguments):
        target, block, call, seed = arguments
        # Of each four, the middle two change places: a vector of first words and one of second words, of four blocks
        # each, then become two of neighbours by an instruction each, which takes the words of either turn about.
        order = [4 * (i // 4) + (0, 2, 1, 3)[i % 4] for i in range(CHUNK)]
        kind = ir.VectorType(_WORD, CHUNK)
        blocks = builder.add(_spread(builder, block, kind), ir.Constant(kind, order))
        places = [order.index(i // 2) + CHUNK * (i % 2) for i in range(2 * CHUNK)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * CHUNK), places)
        words = builder.shuffle_vector(*_philox(builder, blocks, block, call, seed), mask)
        builder.store(words, builder.inttoptr(target, words.type.as_pointer()), align=LINE)
        return context.get_dummy_value()

    return types.void(target, block, call, seed), code


def drop_for(like, scale):
    """`drop` as a C function, for values of the type of `like` and a scale of that of `scale`, which `run` calls."""
    address, word, number = types.int64, types.uint64, typeof(scale)
    signature = types.void(
        address, address, address, typeof(like), number, number, word, word, word, word, types.boolean
    )
    return compiled(drop, partial(cfunc, signature))


FLOAT, DOUBLE, BITS = range(3)  # which C type `like`, scale and floor are of: float, double; or an integer, and float


def _run(loop, kind, scale, floor, threshold, source, target, size, start, call, seed, streamed):
    """Calls the C function of a `drop` at the address `loop`, whose types are of that kind."""
    mask = (start, call, seed, threshold, np.int64(streamed))
    if kind == DOUBLE:
        call_address(loop, (source, target, size, 0.0, scale, floor, *mask))
    elif kind == FLOAT:
        call_address(loop, (source, target, size, np.float32(0), np.float32(scale), np.float32(floor), *mask))
    else:
        call_address(loop, (source, target, size, 0, np.float32(scale), np.float32(floor), *mask))


# With its types, for Numba to look for them by those of each call's arguments takes longer than the call itself.
_arguments = (
    *(types.int64, types.int64, types.float64, types.float64, types.uint64),
    *(types.int64, types.int64, types.int64, types.uint64, types.uint64, types.uint64, types.boolean),
)
run = compiled(_run, partial(njit, types.void(*_arguments), nogil=True))


def drop(source, target, size, like, scale, floor, start, call, seed, threshold, streamed):
    """Writes max(x·scale, floor) where the mask keeps an element, else +0.

    Args:
        source: the address of the first element.
        target: where the first one is to go; may be `source`.
        size: how many there are.
        like: a scalar of their type: float32 or float64; uint16 for float16, int16 for bfloat16; uint8 for bytes that
            are to hold the mask itself.
        scale, floor: float64 for float64, else float32.
        start, call, seed, threshold: uint64.
        streamed: whether the result goes past the caches; not where target is source.
    """
    x, y = carray(pointer(source, like), (size,)), carray(pointer(target, like), (size,))
    drawn, tile = _room_for_words(), _room_for_values()
    lanes = carray(pointer(drawn, np.uint16(0)), (TILE,))
    room, held, to = carray(pointer(tile, like), (TILE + LINE,)), 0, target
    skipped = np.int64(start % np.uint64(8))
    for base in range(-skipped, size, TILE):
        first, last = max(base, 0), min(base + TILE, size)
        block, blocks = start // np.uint64(8) + np.uint64((base + skipped) // 8), (last - base + 7) // 8
        for chunk in range(0, blocks, CHUNK):
            if size >= FAR:
                at = (base + 8 * chunk) * x.itemsize + AHEAD
                for line in range(at, at + 8 * CHUNK * x.itemsize, LINE):
                    _prefetch_to_read(source + line)
                    if not streamed:
                        _prefetch_to_write(target + line)
            begin = block + np.uint64(chunk)
            if begin >> _HALF == (begin + np.uint64(CHUNK - 1)) >> _HALF:
                _draw(drawn + 16 * chunk, begin, call, seed)
            else:
                words = carray(pointer(drawn + 16 * chunk, np.uint64(0)), (CHUNK, 2))
                for i in range(CHUNK):
                    words[i, 0], words[i, 1] = _words(begin + np.uint64(i), call, seed)
        limit = _settle(lanes[: 8 * blocks], block, call, seed, threshold)
        values, tile_lanes = x[first:last], lanes[first - base :]
        if streamed:  # with what the tile before left, which fills no line
            _select(values, room[held : held + values.size], scale, floor, tile_lanes, limit)
            held += values.size
            count = _stream(tile, held, to, like)
            held, to = held - count, to + count * x.itemsize
            for i in range(held):
                room[i] = room[count + i]
            continue
        if source == target:  # from a copy of the tile: a loop whose ends overlap would run element by element
            for i in range(values.size):
                room[i] = values[i]
            values = room[: values.size]
        _select(values, y[first:last], scale, floor, tile_lanes, limit)
    for i in range(held):
        y[size - held + i] = room[i]
    if streamed:
        _fence()


@compiled
def _stream(tile, size, target, like):
    """Copies values past the caches, as many as fill lines; those before the first line go through them.

    Returns:
        How many.
    """
    values, y = carray(pointer(tile, like), (size,)), carray(pointer(target, like), (size,))
    width = y.itemsize
    head = min(-target % LINE // width, size)
    for i in range(head):
        y[i] = values[i]
    end = head * width + (size - head) * width // LINE * LINE
    for offset in range(head * width, end, LINE):
        _stream_line(tile + offset, target + offset)
    return end // width


@compiled
def select(source, target, size, like, scale, floor, dropped):
    """`drop` with a mask that is there already: `dropped` is the address of bytes that are 0 where an element is kept
    and 1 where it is not."""
    x, y = carray(pointer(source, like), (size,)), carray(pointer(target, like), (size,))
    _select(x, y, scale, floor, carray(pointer(dropped, np.uint8(0)), (size,)), np.uint8(1))


@compiled
def select_rows(source, target, inner, like, scale, floor, dropped, offsets, shared):
    """`select` for rows of `inner` values, one after the other, whose masks lie apart: `offsets`, int64, is where in
    `dropped` each row's begins. Where they are `shared`, a row has but that one byte."""
    size = inner * offsets.size
    x, y = carray(pointer(source, like), (size,)), carray(pointer(target, like), (size,))
    room, kept = np.empty(TILE, x.dtype), np.zeros(TILE, np.uint8)
    for row in range(offsets.size):
        mask = carray(pointer(dropped + offsets[row], np.uint8(0)), (1 if shared else inner,))
        for start in range(0, inner, TILE):
            first, count = row * inner + start, min(TILE, inner - start)
            if shared and mask[0]:
                y[first : first + count] = 0
                continue
            values = x[first : first + count]
            if source == target:
                for i in range(count):
                    room[i] = values[i]
                values = room[:count]
            lanes = kept[:count] if shared else mask[start : start + count]
            _select(values, y[first : first + count], scale, floor, lanes, np.uint8(1))


@compiled
def gate(source, target, size, like, scale, floor, output, bits):
    """Writes x·scale where an output is not 0, else +0: `output` is the address of values of the same width as x, and
    `bits` a scalar of the unsigned type of that width."""
    x, y = carray(pointer(source, like), (size,)), carray(pointer(target, like), (size,))
    outputs, room = carray(pointer(output, bits), (size,)), np.empty(TILE, np.uint8)
    for first in range(0, size, TILE):
        last = min(first + TILE, size)
        tile, dropped = outputs[first:last], room[: last - first]
        for i in range(tile.size):
            dropped[i] = tile[i] == 0
        _select(x[first:last], y[first:last], scale, floor, dropped, np.uint8(1))


@compiled
def _settle(lanes, block, call, seed, threshold):
    """Settles the ties among the lanes of consecutive blocks from `block` on.

    Returns:
        The limit, uint16: an element is kept where its lane is below it.
    """
    limit, low = np.uint16(threshold >> np.uint64(16)), np.uint16(threshold & np.uint64(0xFFFF))
    if threshold > _LOW:  # a threshold of 2^32 keeps all
        lanes[:] = 0
        return np.uint16(1)
    if low:
        least = np.uint16(0xFFFF)
        for i in range(lanes.size):
            least = min(least, np.uint16(lanes[i] ^ limit))
        if not least:
            _settle_ties(lanes, limit, low, block, call, seed)
            return max(limit, np.uint16(1))
    return limit


@compiled
def _settle_ties(lanes, limit, low, block, call, seed):
    """Puts 0 in place of a lane that ties and is kept, and the highest one in place of one that is dropped."""
    i = -1
    while True:
        i += 1
        while i < lanes.size and lanes[i] != limit:  # a loop of its own, or plane 1 is drawn for all, as a vector
            i += 1
        if i == lanes.size:
            return
        at = (block + np.uint64(i // 8)) | _PLANE1
        first, second = _words(at, call, seed)
        half = np.uint16((second if i % 8 >= 4 else first) >> np.uint64(16 * (i % 4)))
        lanes[i] = 0 if half < low else 0xFFFF


def _select(x, y, scale, floor, lanes, limit):
    """y = max(x·scale, floor), or NaN, where the lane is below the limit, else +0, by the type of x."""
    raise NotImplementedError("runs compiled only")  # a stand-in: `_select_by_type` gives the code


@overload(_select)
def _select_by_type(x, y, scale, floor, lanes, limit):
    return {
        types.float32: _select_floats,
        types.float64: _select_floats,
        types.uint16: _select_halves,
        types.int16: _select_bfloats,
        types.uint8: _select_mask,
    }[x.dtype]


def _select_floats(x, y, scale, floor, lanes, limit):
    zero = x.dtype.type(0)
    if floor < zero:  # apart, for the floor takes a tenth of the time
        for i in range(x.size):
            value = x[i] * scale  # in any case: to load but what is kept would take longer
            y[i] = value if lanes[i] < limit else zero
    else:
        for i in range(x.size):
            value = x[i] * scale
            y[i] = (floor if value <= floor else value) if lanes[i] < limit else zero


def _select_halves(x, y, scale, floor, lanes, limit):
    for i in range(x.size):
        value = _float_of_half(x[i]) * scale
        y[i] = _half_of_float(floor if value <= floor else value) if lanes[i] < limit else np.uint16(0)


def _select_bfloats(x, y, scale, floor, lanes, limit):
    for i in range(x.size):
        value = _float_of_bfloat(x[i]) * scale
        y[i] = _bfloat_of_float(floor if value <= floor else value) if lanes[i] < limit else np.int16(0)


def _select_mask(x, y, scale, floor, lanes, limit):
    for i in range(x.size):
        y[i] = lanes[i] < limit


# float16 and bfloat16 are converted by integer arithmetic, for Numba has neither on a CPU. Rounding is to nearest, ties
# to even.


@_inlined
def _float_of_half(h):
    bits = np.uint32(h & np.uint16(0x7FFF))
    magnitude = np.uint32(
        np.uint32(bits << np.uint32(13)) + np.uint32(112 << 23)
    )  # the exponents' biases differ by 112
    if bits < np.uint32(0x400):  # subnormal; from an integer, for a caller may have set the processor to flush those
        magnitude = np.uint32(np.float32(np.float32(np.int32(bits)) * np.float32(2.0**-24)).view(np.uint32))
    if bits >= np.uint32(0x7C00):  # infinity or NaN
        magnitude = np.uint32(np.uint32(bits << np.uint32(13)) | np.uint32(0x7F800000))
    sign = np.uint32(np.uint32(h & np.uint16(0x8000)) << np.uint32(16))
    return np.uint32(magnitude | sign).view(np.float32)


@_inlined
def _half_of_float(f):
    bits = np.float32(f).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    # The bias moved by 112 (as 2^32 − 112·2^23), and half of the last place kept added, less one where that is even.
    result = np.uint32(np.uint32(magnitude + np.uint32(2**32 - (112 << 23) + 0xFFF) + odd) >> np.uint32(13))
    if magnitude < np.uint32(113 << 23):  # below 2^-14: added to 1/2, whose last place is a subnormal's
        added = np.float32(np.uint32(magnitude).view(np.float32) + np.float32(0.5))
        result = np.uint32(np.float32(added).view(np.uint32) - np.uint32(126 << 23))
    if magnitude >= np.uint32(143 << 23):  # 2^16 and above, infinity, NaN
        result = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else np.uint32(0x7C00)
    return np.uint16(result | np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000)))


@_inlined
def _float_of_bfloat(b):
    return np.uint32(np.uint32(np.uint16(b)) << np.uint32(16)).view(np.float32)


@_inlined
def _bfloat_of_float(f):
    bits = np.float32(f).view(np.uint32)
    odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    result = np.uint32(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    if np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):  # NaN, which rounding could make infinite
        result = np.uint32(np.uint32(bits >> np.uint32(16)) | np.uint32(0x40))
    return np.int16(np.uint16(result))
