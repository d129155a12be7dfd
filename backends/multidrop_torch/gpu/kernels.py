"""The mask specification as Triton kernels: mask, scale and selection in one pass over a GPU's memory.

They give the bits of `multidrop.spec.masks`. Importing this module imports Triton.

Triton specialises nothing by the values of arguments: whatever the code depends on is a `constexpr`. So a compiled
kernel can be launched again without inspecting its arguments. For the same reason every number has a fixed type.
`scale` holds the bits of a float64, because Triton passes Python floats as float32.

Triton reads the annotations, so this module has no `from __future__ import annotations`.
"""

import triton
import triton.language as tl

from .position_kernels import count_on, key_of, move_on
from .ties import settled

POINTERS = ("X", "Y", "position", "kept", "done")
NUMBERS = ("n", "skip", "start", "seed", "call", "high", "low", "scale")
LAYOUT = tuple(f"{name}{dimension}" for dimension in range(5) for name in ("size", "step"))
DIMENSIONS = len(LAYOUT) // 2  # that `permuted` takes


@triton.jit
def words(block, seed, call, PLANE: tl.constexpr):
    """The four Philox words of each block (uint64) in a plane."""
    low, high = block.to(tl.uint32), (block >> 32).to(tl.uint32) + (PLANE << 31)
    call_low, call_high = call.to(tl.uint32) + tl.zeros_like(low), (call >> 32).to(tl.uint32) + tl.zeros_like(low)
    return tl.philox_impl(low, high, call_low, call_high, seed.to(tl.uint32), (seed >> 32).to(tl.uint32), 10)


@triton.jit
def lanes(w0, w1, w2, w3, BLOCKS: tl.constexpr):
    """The 16-bit lanes of consecutive blocks, in order."""
    w = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (BLOCKS, 4))
    return tl.reshape(tl.join(w & 0xFFFF, w >> 16), (BLOCKS * 8,))


@triton.jit
def equal_half(w, both):
    """Not 0 where a half of w equals the threshold's high half, of which `both` holds two. No sum leaves its half."""
    v = w ^ both
    return ((((v & 0x7FFF7FFF) + 0x7FFF7FFF) | v) & 0x80008000) ^ 0x80008000


@triton.jit
def any_tie(w0, w1, w2, w3, high):
    """Whether a half of any word equals the threshold's high half."""
    both = high.to(tl.uint32) * 0x10001
    found = equal_half(w0, both) | equal_half(w1, both) | equal_half(w2, both) | equal_half(w3, both)
    return tl.max((found != 0).to(tl.int32), 0) != 0


@triton.jit
def place(X, at, ALIGNED: tl.constexpr):
    """The addresses of consecutive elements; where ALIGNED, Triton is told so and loads 16 bytes at once."""
    addresses = X + at
    if ALIGNED:
        addresses = tl.multiple_of(addresses, 16)
    return addresses


@triton.jit
def within(at, n, ALIGNED: tl.constexpr):
    """Which indices are below n; where ALIGNED, so that Triton sees that 16 in a row are or are not."""
    if ALIGNED:
        n = n // 16 * 16
    return at < n


@triton.jit
def scaled(v, scale, RELU: tl.constexpr, DOUBLE: tl.constexpr):
    """v, or max(v, 0), times the scale, multiplied in float64 or else in float32 and rounded once."""
    s = scale.to(tl.int64).to(tl.float64, bitcast=True)
    if DOUBLE:
        wide = v
    else:
        wide = v.to(tl.float32)
        s = s.to(tl.float32)
    if RELU:
        wide = tl.where(wide <= 0.0, 0.0, wide)
    return (wide * s).to(v.dtype)


@triton.jit(do_not_specialize=[*POINTERS, *NUMBERS])
def linear(
    X,
    Y,
    position,
    kept,
    done,
    n: tl.int64,
    skip: tl.int32,
    start: tl.uint64,
    seed: tl.uint64,
    call: tl.uint64,
    high: tl.int32,
    low: tl.int32,
    scale: tl.int64,
    BLOCKS: tl.constexpr,
    FROM: tl.constexpr,
    KEEP: tl.constexpr,
    RELU: tl.constexpr,
    DOUBLE: tl.constexpr,
    TIES: tl.constexpr,
    SKIPS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Dropout of elements that lie in memory in their logical order.

    Args:
        X: the input; not read where KEEP.
        Y: the output, which may be X; the mask as uint8 where KEEP.
        FROM, position, kept, done: where the key comes from; see `position_kernels`.
        n: the number of elements.
        skip: the number of elements of the first block that come before the first element.
        start: the first block.
        high, low: the halves of the threshold.
        BLOCKS: the number of blocks of eight elements that a program takes.
        TIES: 0 where `low` is 0, so that plane 1 cannot matter; else who settles ties, 1: the program, 2: each thread.
        SKIPS: whether `skip` is not 0.
        ALIGNED: whether both addresses and n are multiples of 16, and nothing is skipped.
    """
    program = tl.program_id(0).to(tl.int64)  # a product in 32 bits would wrap past 2^31 elements
    block = start.to(tl.uint64) + (program * BLOCKS + tl.arange(0, BLOCKS)).to(tl.uint64)
    seed, call = key_of(position, seed, call, FROM)
    at = program * (BLOCKS * 8) + tl.arange(0, BLOCKS * 8)
    if SKIPS:
        at = at - skip
        inside = (at >= 0) & (at < n)
    else:
        inside = within(at, n, ALIGNED)
    if KEEP:
        z = tl.full((BLOCKS * 8,), 1, tl.uint8)
    else:
        z = scaled(tl.load(place(X, at, ALIGNED), mask=inside), scale, RELU, DOUBLE)
    w0, w1, w2, w3 = words(block, seed, call, 0)
    if TIES == 2:
        w0, w1, w2, w3 = settled(w0, w1, w2, w3, block, seed, call, high, low)
    u = lanes(w0, w1, w2, w3, BLOCKS)
    tl.store(place(Y, at, ALIGNED), tl.where(u < high, z, 0), mask=inside)
    if TIES == 1:
        found = any_tie(w0, w1, w2, w3, high)
        if found:
            tl.debug_barrier()  # another thread may have stored the 0 that is overwritten here
            f0, f1, f2, f3 = words(block, seed, call, 1)
            won = (u == high) & (lanes(f0, f1, f2, f3, BLOCKS) < low)
            tl.store(place(Y, at, ALIGNED), z, mask=inside & won)
    if FROM == 2:
        move_on(position, kept, done, seed, call)
    if FROM == 3:
        count_on(position, seed, call)


@triton.jit(do_not_specialize=[*POINTERS, *NUMBERS])
def plane(
    Y,
    position,
    n: tl.int64,
    start: tl.uint64,
    seed: tl.uint64,
    call: tl.uint64,
    high: tl.int32,
    low: tl.int32,
    BLOCKS: tl.constexpr,
    FROM: tl.constexpr,
    TIES: tl.constexpr,
):
    """The mask of n consecutive blocks, a byte for each: bit j is 1 where element j is kept."""
    program = tl.program_id(0).to(tl.int64)
    at = program * BLOCKS + tl.arange(0, BLOCKS)
    seed, call = key_of(position, seed, call, FROM)
    tl.store(Y + at, byte(start.to(tl.uint64) + at.to(tl.uint64), seed, call, high, low, TIES), mask=at < n)


@triton.jit
def byte(block, seed, call, high, low, TIES: tl.constexpr):
    """The mask of each block (uint64), its eight bits as uint8."""
    w0, w1, w2, w3 = words(block, seed, call, 0)
    if TIES == 2:
        w0, w1, w2, w3 = settled(w0, w1, w2, w3, block, seed, call, high, low)
    kept = below(w0, high, 0) | below(w1, high, 2) | below(w2, high, 4) | below(w3, high, 6)
    if TIES == 1:
        found = any_tie(tl.ravel(w0), tl.ravel(w1), tl.ravel(w2), tl.ravel(w3), high)
        if found:
            f0, f1, f2, f3 = words(block, seed, call, 1)
            kept |= tied(w0, f0, high, low, 0) | tied(w1, f1, high, low, 2)
            kept |= tied(w2, f2, high, low, 4) | tied(w3, f3, high, low, 6)
    return kept.to(tl.uint8)


@triton.jit
def below(w, high, J: tl.constexpr):
    """Bits J and J + 1: whether the halves of w are below the threshold's high half."""
    return ((w & 0xFFFF) < high).to(tl.uint32) << J | ((w >> 16) < high).to(tl.uint32) << (J + 1)


@triton.jit
def tied(w, f, high, low, J: tl.constexpr):
    """Bits J and J + 1: whether the halves of w equal the threshold's high half and those of f are below the low."""
    first = ((w & 0xFFFF) == high) & ((f & 0xFFFF) < low)
    second = ((w >> 16) == high) & ((f >> 16) < low)
    return first.to(tl.uint32) << J | second.to(tl.uint32) << (J + 1)


@triton.jit(do_not_specialize=[*POINTERS, *NUMBERS, *LAYOUT, "bits"])
def permuted(
    X,
    Y,
    bits,
    n: tl.int64,
    skip: tl.int64,
    scale: tl.int64,
    size0: tl.int64,
    step0: tl.int64,
    size1: tl.int64,
    step1: tl.int64,
    size2: tl.int64,
    step2: tl.int64,
    size3: tl.int64,
    step3: tl.int64,
    size4: tl.int64,
    step4: tl.int64,
    SIZE: tl.constexpr,
    ROW: tl.constexpr,
    DIMS: tl.constexpr,
    WIDE: tl.constexpr,
    SHARED: tl.constexpr,
    RELU: tl.constexpr,
    DOUBLE: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Dropout of elements that lie in memory in another order than the mask's, or share decisions.

    Dimension 0 is the innermost one in memory; a step along dimension d moves `step{d}` elements on in the mask, or 0
    where the decision is shared.

    Args:
        X: the input, without gaps.
        Y: the output, which lies as X does and may be X.
        bits: the mask, as `plane` writes it.
        n: the number of elements.
        skip: the bit of the first element.
        SIZE: the number of elements that a program takes.
        ROW: a number that divides size0 and SIZE: coordinates are computed once for so many elements.
        DIMS: the number of dimensions.
        WIDE: whether n needs 64 bits.
        SHARED: whether step0 is 0.
        The others are those of `linear`.
    """
    row = tl.program_id(0).to(tl.int64) * (SIZE // ROW) + tl.arange(0, SIZE // ROW)
    at = row[:, None] * ROW + tl.arange(0, ROW)[None, :]
    inside = within(at, n, ALIGNED)
    rest = (row * ROW).to(tl.uint64)
    if not WIDE:
        rest = rest.to(tl.uint32)  # whose divisions take a fraction of the time
    index = skip + coordinate(rest, size0, step0)
    if DIMS > 1:
        rest = rest // size0.to(rest.dtype)
        index += coordinate(rest, size1, step1)
    if DIMS > 2:
        rest = rest // size1.to(rest.dtype)
        index += coordinate(rest, size2, step2)
    if DIMS > 3:
        rest = rest // size2.to(rest.dtype)
        index += coordinate(rest, size3, step3)
    if DIMS > 4:
        rest = rest // size3.to(rest.dtype)
        index += coordinate(rest, size4, step4)
    index = index[:, None]
    some = row[:, None] * ROW < n
    if not SHARED:
        index = index + tl.arange(0, ROW)[None, :] * step0
        some = inside
    kept = tl.load(bits + (index >> 3), mask=some, other=0).to(tl.int32) >> (index & 7).to(tl.int32) & 1
    source, target = X + at, Y + at
    if ALIGNED:
        source = tl.multiple_of(source, (16, 1) if ROW == 1 else (1, 16))
        target = tl.multiple_of(target, (16, 1) if ROW == 1 else (1, 16))
    z = scaled(tl.load(source, mask=inside), scale, RELU, DOUBLE)
    tl.store(target, tl.where(kept != 0, z, 0), mask=inside)


@triton.jit
def coordinate(rest, size, step):
    """How far into the mask a dimension leads, from the index in memory that is left of it."""
    return (rest % size.to(rest.dtype)).to(tl.int64) * step


@triton.jit(do_not_specialize=[*POINTERS, *NUMBERS, "columns", "rows", "step", "outer"])
def tile(
    X,
    Y,
    position,
    columns: tl.int64,
    rows: tl.int64,
    step: tl.int64,
    outer: tl.int64,
    start: tl.uint64,
    seed: tl.uint64,
    call: tl.uint64,
    high: tl.int32,
    low: tl.int32,
    scale: tl.int64,
    COLUMNS: tl.constexpr,
    BLOCKS: tl.constexpr,
    FROM: tl.constexpr,
    RELU: tl.constexpr,
    DOUBLE: tl.constexpr,
    TIES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Dropout of matrices that lie one after the other in memory, row by row, as channels-last images do: in the mask,
    the elements of a column follow each other, so that a thread draws a block for eight rows.

    Args:
        columns, rows: a matrix' shape; rows is a multiple of 8.
        step: how many blocks apart the columns are in the mask.
        outer: how many blocks apart the matrices are.
        start: the first block; the first element begins it.
        COLUMNS, BLOCKS: a program's columns, and its blocks of eight rows.
        ALIGNED: whether both addresses and `columns` are multiples of 16.
        The others are those of `linear`.
    """
    across = tl.cdiv(columns, COLUMNS)
    program = tl.program_id(0).to(tl.int64)
    column = program % across * COLUMNS + tl.arange(0, COLUMNS)
    program = program // across
    down = tl.cdiv(rows, BLOCKS * 8)
    first = program % down * BLOCKS
    matrix = program // down
    block = start.to(tl.uint64) + (matrix * outer + first).to(tl.uint64)
    block = block + (column[None, :] * step + tl.arange(0, BLOCKS)[:, None]).to(tl.uint64)
    seed, call = key_of(position, seed, call, FROM)
    row = first + tl.arange(0, BLOCKS)
    inside = (row * 8 < rows)[:, None] & within(column, columns, ALIGNED)[None, :]
    at = (matrix * rows + row[:, None] * 8) * columns + column[None, :]
    z = ()
    for j in tl.static_range(8):  # each eighth row in a tensor of its own, whose threads lie as those of the blocks do
        v = tl.load(apart(X + at, j * columns, ALIGNED), mask=inside)
        z += (scaled(v, scale, RELU, DOUBLE),)  # type: ignore[assignment]  # Triton unrolls it
    kept = byte(block, seed, call, high, low, TIES)
    for j in tl.static_range(8):
        tl.store(apart(Y + at, j * columns, ALIGNED), tl.where((kept >> j) & 1 != 0, z[j], 0), mask=inside)


@triton.jit
def apart(addresses, distance, ALIGNED: tl.constexpr):
    """The addresses of a tile that lies so many elements further on; `place` for two dimensions."""
    addresses = addresses + distance
    if ALIGNED:
        addresses = tl.multiple_of(addresses, (1, 16))
    return addresses


@triton.jit(do_not_specialize=["dY", "Y", "dX", "n", "scale"])
def gate(
    dY,
    Y,
    dX,
    n: tl.int64,
    scale: tl.int64,
    SIZE: tl.constexpr,
    DOUBLE: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The gradient of ReLU then dropout: dY times the scale where the output Y is not 0, and +0 elsewhere."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = within(at, n, ALIGNED)
    z = scaled(tl.load(place(dY, at, ALIGNED), mask=inside), scale, False, DOUBLE)
    y = tl.load(place(Y, at, ALIGNED), mask=inside)
    tl.store(place(dX, at, ALIGNED), tl.where(y == 0, 0, z), mask=inside)
