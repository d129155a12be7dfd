"""The specification's uniform and normal numbers as Triton kernels, in float64.

They give the bits of `multidrop.spec.masks`, but for normal numbers of the tails, where the GPU's logarithm differs
from NumPy's in its last place. Importing this module imports Triton.

Triton reads the annotations, so this module has no `from __future__ import annotations`.
"""

import triton
import triton.language as tl

from multidrop.spec import masks

from .kernels import lanes, words
from .position_kernels import key_of

NEAR_ABOVE, NEAR_BELOW = (tl.constexpr(row) for row in masks.NEAR)
FAR_ABOVE, FAR_BELOW = (tl.constexpr(row) for row in masks.FAR)


@triton.jit
def polynomial(x, ROW: tl.constexpr):
    """A polynomial of x (float64), whose coefficients come with the highest power first."""
    total = x * 0.0 + ROW[0]
    for i in tl.static_range(1, 8):
        total = total * x + ROW[i]
    return total


@triton.jit
def normal_quantile(u):
    """`masks.normal_quantile` for float64."""
    q = u - 0.5
    near = tl.abs(q) <= 0.425
    x = tl.where(near, 0.180625 - q * q, 0.0)
    middle = q * (polynomial(x, NEAR_ABOVE) / polynomial(x, NEAR_BELOW))
    x = tl.sqrt(-tl.log(tl.minimum(u, 1.0 - u))) - 1.6
    tail = polynomial(x, FAR_ABOVE) / polynomial(x, FAR_BELOW)
    return tl.where(near, middle, tl.where(q < 0.0, -tail, tail))


@triton.jit(do_not_specialize=["Y", "position", "n", "skip", "start", "seed", "call", "mean", "stddev"])
def numbers(
    Y,
    position,
    n: tl.int64,
    skip: tl.int32,
    start: tl.uint64,
    seed: tl.uint64,
    call: tl.uint64,
    mean: tl.int64,
    stddev: tl.int64,
    BLOCKS: tl.constexpr,
    FROM: tl.constexpr,
    NORMAL: tl.constexpr,
):
    """Uniform numbers in (0, 1), or normal ones, in logical order.

    Args:
        Y: the output, float32 or float64.
        FROM, position: where the key comes from; see `position_kernels`.
        n, skip, start: as for `linear`.
        mean, stddev: of the normal numbers, the bits of float64 numbers.
        BLOCKS: the number of blocks of eight that a program takes.
        NORMAL: whether the numbers are normal.
    """
    program = tl.program_id(0).to(tl.int64)
    block = start.to(tl.uint64) + (program * BLOCKS + tl.arange(0, BLOCKS)).to(tl.uint64)
    seed, call = key_of(position, seed, call, FROM)
    at = program * (BLOCKS * 8) + tl.arange(0, BLOCKS * 8) - skip
    w0, w1, w2, w3 = words(block, seed, call, 0)
    f0, f1, f2, f3 = words(block, seed, call, 1)
    U = (lanes(w0, w1, w2, w3, BLOCKS) << 16) | lanes(f0, f1, f2, f3, BLOCKS)
    y = (U.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32
    if NORMAL:
        m, s = mean.to(tl.int64).to(tl.float64, bitcast=True), stddev.to(tl.int64).to(tl.float64, bitcast=True)
        y = m + s * normal_quantile(y)
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=(at >= 0) & (at < n))
