"""The loops, which draw a mask tile by tile and apply it to values of each type.

A tile of 1,024 elements is drawn at a time, so that its Philox words stay in the first-level cache, and each loop does
one operation on whole vectors. The drawing code is inlined into the loop of each type: a shared function would be
compiled only once, but takes a fifth longer when the result is written past the caches. Only plane 0 is drawn for all
elements. Ties with the high half of the threshold (1 in 65,536) are resolved with plane 1 in a separate loop, which
overwrites the lane with a final value.

For large tensors, memory limits the speed. So the values of a later tile are prefetched while the words of this one are
drawn, a few lines at a time, because more at once would stall. The result is stored past the caches, which would first
read each line that is written.

The lanes of a block are its four words read as 16-bit halves, the low half first. This holds on little-endian machines;
the package uses these loops on no others.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import numpy as np
from numba import carray

from .instructions import (
    LINE,
    add,
    call_address,
    fence,
    loop,
    pointer,
    prefetch_to_read,
    prefetch_to_write,
    scratch,
    stream_line,
)
from .philox import CHUNK, draw, words
from .values import select as _select

BLOCKS = 128
TILE = 8 * BLOCKS
FAR = 1 << 17  # elements; smaller tensors are probably in a cache already, and are not prefetched
AHEAD = 1 << 13  # bytes; the distance of prefetches

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_PLANE1 = np.uint64(1 << 63)  # bit 31 of the counter's second word, which is the highest bit of the 64-bit block

_room_for_words, _room_for_values = scratch(2 * TILE), scratch(8 * TILE + LINE)
_room_for_mask = scratch(TILE)


@loop
def drop(source, target, size, like, scale, floor, start, call, seed, threshold, streamed):
    """Writes max(x·scale, floor) for each kept element, and +0 for each dropped one.

    Args:
        source: the address of the first input value.
        target: the address of the first output value; may be `source`.
        size: the number of values.
        like: a scalar of their type: float32 or float64; uint16 for float16, int16 for bfloat16; uint8 to write the
            mask itself as bytes.
        scale, floor: float64 for float64, else float32.
        start, call, seed, threshold: uint64.
        streamed: whether to write past the caches; False if target is source.
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
                    prefetch_to_read(source + line)
                    if not streamed:
                        prefetch_to_write(target + line)
            begin = block + np.uint64(chunk)
            if begin >> _HALF == (begin + np.uint64(CHUNK - 1)) >> _HALF:
                draw(drawn + 16 * chunk, begin, call, seed)
            else:
                room_of_chunk = carray(pointer(drawn + 16 * chunk, np.uint64(0)), (CHUNK, 2))
                for i in range(CHUNK):
                    room_of_chunk[i, 0], room_of_chunk[i, 1] = words(begin + np.uint64(i), call, seed)
        limit = _settle(lanes[: 8 * blocks], block, call, seed, threshold)
        values, tile_lanes = x[first:last], lanes[first - base :]
        if streamed:  # together with the rest of the previous tile, which did not fill a line
            _select(values, room[held : held + values.size], scale, floor, tile_lanes, limit)
            held += values.size
            count = _stream(tile, held, to, like)
            held, to = held - count, to + count * x.itemsize
            for i in range(held):
                room[i] = room[count + i]
            continue
        if source == target:  # from a copy of the tile, because LLVM does not vectorise a loop with overlapping memory
            for i in range(values.size):
                room[i] = values[i]
            values = room[: values.size]
        _select(values, y[first:last], scale, floor, tile_lanes, limit)
    for i in range(held):
        y[size - held + i] = room[i]
    if streamed:
        fence()


@loop
def _stream(tile, size, target, like):
    """Copies as many values past the caches as fill whole lines. Values before the first line are stored normally.

    Returns:
        The number of values copied.
    """
    values, y = carray(pointer(tile, like), (size,)), carray(pointer(target, like), (size,))
    width = y.itemsize
    head = min(-target % LINE // width, size)
    for i in range(head):
        y[i] = values[i]
    end = head * width + (size - head) * width // LINE * LINE
    for offset in range(head * width, end, LINE):
        stream_line(tile + offset, target + offset)
    return end // width


@loop
def select(source, target, size, like, scale, floor, dropped):
    """`drop` with a given mask: `dropped` is the address of bytes that are 0 for kept and 1 for dropped elements."""
    x, y = carray(pointer(source, like), (size,)), carray(pointer(target, like), (size,))
    mask = carray(pointer(dropped, np.uint8(0)), (size,))
    if source != target:
        _select(x, y, scale, floor, mask, np.uint8(1))
        return
    room = carray(pointer(_room_for_values(), like), (TILE,))
    for first in range(0, size, TILE):
        last = min(first + TILE, size)
        values = room[: last - first]
        for i in range(values.size):
            values[i] = x[first + i]
        _select(values, y[first:last], scale, floor, mask[first:last], np.uint8(1))


@loop
def select_rows(select, scale, floor, source, target, width, inner, dropped, offsets, rows, shared):
    """`select` for `rows` contiguous rows of `inner` values of `width` bytes, with the mask of each row at an offset.

    Args:
        select: the address of the C function of `select` for the values' type.
        dropped, offsets: the address of the masks, and the address of int64 words with the offset of each row's mask.
        shared: whether a row's mask is a single byte for all its values.
    """
    begins = carray(pointer(offsets, np.int64(0)), (rows,))
    kept = _room_for_mask()
    carray(pointer(kept, np.uint8(0)), (TILE,))[:] = 0
    for row in range(rows):
        mask, at = dropped + begins[row], row * inner * width
        if not shared:
            call_address(select, (scale, floor, source + at, target + at, inner, mask))
        elif carray(pointer(mask, np.uint8(0)), (1,))[0]:
            carray(pointer(target + at, np.uint8(0)), (inner * width,))[:] = 0
        else:
            for first in range(0, inner, TILE):
                to = at + first * width
                call_address(select, (scale, floor, source + to, target + to, min(TILE, inner - first), kept))


@loop
def gate(source, target, size, like, scale, floor, output, bits):
    """Writes x·scale where the output is not 0, else +0. `output` is the address of values of the same width as x, and
    `bits` a scalar of the unsigned type of that width."""
    x, y = carray(pointer(source, like), (size,)), carray(pointer(target, like), (size,))
    outputs = carray(pointer(output, bits), (size,))
    room = carray(pointer(_room_for_mask(), np.uint8(0)), (TILE,))
    for first in range(0, size, TILE):
        last = min(first + TILE, size)
        tile, dropped = outputs[first:last], room[: last - first]
        for i in range(tile.size):
            dropped[i] = tile[i] == 0
        _select(x[first:last], y[first:last], scale, floor, dropped, np.uint8(1))


@loop
def _settle(lanes, block, call, seed, threshold):
    """Resolves the ties among the lanes of consecutive blocks from `block` on.

    Returns:
        The limit, uint16: an element is kept if its lane is below the limit.
    """
    limit, low = np.uint16(threshold >> np.uint64(16)), np.uint16(threshold & np.uint64(0xFFFF))
    if threshold > _LOW:  # a threshold of 2^32 keeps every element
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


@loop
def _settle_ties(lanes, limit, low, block, call, seed):
    """Overwrites each lane that ties: with 0 if its element is kept, with the largest value if it is dropped."""
    i = -1
    while True:
        i += 1
        while i < lanes.size and lanes[i] != limit:  # a separate loop: LLVM would vectorise plane 1 for all elements
            i += 1
        if i == lanes.size:
            return
        at = (block + np.uint64(i // 8)) | _PLANE1
        first, second = words(at, call, seed)
        half = np.uint16((second if i % 8 >= 4 else first) >> np.uint64(16 * (i % 4)))
        lanes[i] = 0 if half < low else 0xFFFF


@loop
def take(address):
    """Returns (seed, call) of the stream position at an address, and advances the call by one, atomically."""
    seed = carray(pointer(address, np.uint64(0)), (1,))[0]
    return seed, add(address + 8, np.uint64(1))
