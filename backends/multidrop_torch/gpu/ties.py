"""Ties settled by each thread alone, in PTX, because Triton has branches for whole programs only.

A lane of plane 0 that equals the threshold's high half is decided by plane 1: once in 65,536 elements. A branch of a
whole program has its threads wait for each other at every tile. Triton's interpreter runs no PTX; there, and where the
high half is 0, the kernels take that branch.
"""

import triton
import triton.language as tl

from .assembly import settled_text

TEXT = tl.constexpr(settled_text())
REGISTERS = tl.constexpr(",".join(["=&r"] * 4 + ["r"] * 12))


@triton.jit
def settled(w0, w1, w2, w3, block, seed, call, high, low):
    """The words of plane 0 of each block (uint64), with tied lanes one less where plane 1 keeps them, so that a lane
    below the high half is a kept element. The high half is above 0."""
    each = tl.zeros_like(w0)
    call_low, call_high = call.to(tl.uint32) + each, (call >> 32).to(tl.uint32) + each
    seed_low, seed_high = seed.to(tl.uint32) + each, (seed >> 32).to(tl.uint32) + each
    counter = block.to(tl.uint32), (block >> 32).to(tl.uint32) + (1 << 31)
    return tl.inline_asm_elementwise(
        TEXT,
        REGISTERS,
        [
            w0,
            w1,
            w2,
            w3,
            counter[0],
            counter[1],
            call_low,
            call_high,
            seed_low,
            seed_high,
            high.to(tl.uint32) + each,
            low.to(tl.uint32) + each,
        ],
        dtype=(tl.uint32, tl.uint32, tl.uint32, tl.uint32),
        is_pure=True,
        pack=1,
    )
