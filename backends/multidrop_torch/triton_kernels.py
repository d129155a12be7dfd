"""The mask specification as Triton kernels: mask, scale and selection in one pass over a GPU's memory.

They give the bits of `multidrop.spec.masks`. Importing this module imports Triton.

Nothing is specialised by the values of arguments: what the code depends on are constants, so that a compiled kernel can
be launched again without Triton looking at its arguments. Plain numbers have fixed types for the same reason. `scale`
holds the bits of a float64, since Triton passes Python floats as float32.

Triton reads the annotations, so this module has no `from __future__ import annotations`.
"""

import triton
import triton.language as tl

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
def lane(index, seed, call, PLANE: tl.constexpr):
    """The 16-bit lane of each element (uint64), by a Philox call of its own."""
    w0, w1, w2, w3 = words(index >> 3, seed, call, PLANE)
    j = (index & 7).to(tl.uint32)
    w = tl.where(j < 4, tl.where(j < 2, w0, w1), tl.where(j < 6, w2, w3))
    return (w >> ((j & 1) * 16)) & 0xFFFF


@triton.jit
def equal_half(w, both):
    """Not 0 where a half of w equals the threshold's high half, of which `both` holds two: SWAR's test for a zero."""
    v = w ^ both
    return tl.sub(v, 0x00010001, sanitize_overflow=False) & (v ^ 0xFFFFFFFF) & 0x80008000


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


@triton.jit(do_not_specialize=["X", "Y", *NUMBERS])
def linear(
    X,
    Y,
    n: tl.int64,
    skip: tl.int32,
    start: tl.uint64,
    seed: tl.uint64,
    call: tl.uint64,
    high: tl.int32,
    low: tl.int32,
    scale: tl.int64,
    BLOCKS: tl.constexpr,
    KEEP: tl.constexpr,
    RELU: tl.constexpr,
    DOUBLE: tl.constexpr,
    TIES: tl.constexpr,
    SKIPS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Elements that lie in memory in their logical order.

    Args:
        X: the input; where KEEP, it is not read.
        Y: the output, which may be X; where KEEP, the mask as uint8.
        n: how many elements.
        skip: how many elements of the first block come before the first element.
        start: the first block.
        high, low: the halves of the threshold.
        BLOCKS: a program's blocks of eight elements.
        TIES: whether `low` is not 0, so that plane 1 can matter.
        SKIPS: whether `skip` is not 0.
        ALIGNED: whether both addresses and n are multiples of 16, and nothing is skipped.
    """
    program = tl.program_id(0).to(tl.int64)  # a product in 32 bits would wrap past 2^31 elements
    block = start.to(tl.uint64) + (program * BLOCKS + tl.arange(0, BLOCKS)).to(tl.uint64)
    seed, call = seed.to(tl.uint64), call.to(tl.uint64)
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
    u = lanes(w0, w1, w2, w3, BLOCKS)
    tl.store(place(Y, at, ALIGNED), tl.where(u < high, z, 0), mask=inside)
    if TIES:
        both = high.to(tl.uint32) * 0x10001
        found = equal_half(w0, both) | equal_half(w1, both) | equal_half(w2, both) | equal_half(w3, both)
        if tl.max((found != 0).to(tl.int32), 0) != 0:
            tl.debug_barrier()  # another thread may have stored the 0 that is overwritten here
            f0, f1, f2, f3 = words(block, seed, call, 1)
            won = (u == high) & (lanes(f0, f1, f2, f3, BLOCKS) < low)
            tl.store(place(Y, at, ALIGNED), z, mask=inside & won)


@triton.jit(do_not_specialize=["X", "Y", *NUMBERS, *LAYOUT])
def permuted(
    X,
    Y,
    n: tl.int64,
    start: tl.uint64,
    seed: tl.uint64,
    call: tl.uint64,
    high: tl.int32,
    low: tl.int32,
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
    DIMS: tl.constexpr,
    WIDE: tl.constexpr,
    RELU: tl.constexpr,
    DOUBLE: tl.constexpr,
    TIES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Elements that lie in memory in another order than the mask's, or share decisions.

    Dimension 0 is the innermost one in memory; a step along dimension d moves `step{d}` elements on in the mask, or 0
    where the decision is shared.

    Args:
        X: the input, without gaps.
        Y: the output, which lies as X does and may be X.
        n: how many elements.
        start: the index of the first element.
        SIZE: a program's elements.
        DIMS: how many dimensions there are.
        WIDE: whether n needs 64 bits.
        The others are those of `linear`.
    """
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = within(at, n, ALIGNED)
    rest = at.to(tl.uint64)
    if not WIDE:
        rest = at.to(tl.uint32)  # whose divisions take a fraction of the time
    index = start.to(tl.uint64) + coordinate(rest, size0, step0)
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
    seed, call = seed.to(tl.uint64), call.to(tl.uint64)
    z = scaled(tl.load(place(X, at, ALIGNED), mask=inside), scale, RELU, DOUBLE)
    u = lane(index, seed, call, 0)
    tl.store(place(Y, at, ALIGNED), tl.where(u < high, z, 0), mask=inside)
    if TIES:
        tied = u == high
        if tl.max(tied.to(tl.int32), 0) != 0:
            tl.debug_barrier()
            tl.store(place(Y, at, ALIGNED), z, mask=inside & tied & (lane(index, seed, call, 1) < low))


@triton.jit
def coordinate(rest, size, step):
    """How far into the mask a dimension leads, from the index in memory that is left of it."""
    return (rest % size.to(rest.dtype)).to(tl.uint64) * step.to(tl.uint64)


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
