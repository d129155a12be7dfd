"""Ties settled by each thread alone, in PTX, because Triton has branches for whole programs only.

A lane of plane 0 that equals the threshold's high half is decided by plane 1: once in 65,536 elements. A branch of a
whole program has its threads wait for each other at every tile. Triton's interpreter runs no PTX; there, and where the
high half is 0, the kernels take that branch.
"""

import triton
import triton.language as tl

from multidrop.spec import philox

MULTIPLIERS = [f"0x{number:X}" for number in philox.MULTIPLIERS]
WEYL = [f"0x{number:X}" for number in philox.WEYL]


def _text() -> str:
    """The assembly: $0 to $3 are the result, $4 to $7 the words, $8 to $13 the counter and the key of plane 1, $14 and
    $15 the halves of the threshold."""
    lines = ["{", ".reg .pred p;", ".reg .b32 both, found, v, t, c0, c1, c2, c3, k0, k1, h0, l0, h1, l1;"]
    lines += [f"mov.b32 ${i}, ${i + 4};" for i in range(4)]
    lines += ["mul.lo.u32 both, $14, 0x00010001;", "mov.b32 found, 0;"]
    for i in range(4, 8):  # the test of `any_tie`
        lines += [f"xor.b32 v, ${i}, both;", "sub.u32 t, v, 0x00010001;", "not.b32 v, v;", "and.b32 t, t, v;"]
        lines += ["and.b32 t, t, 0x80008000;", "or.b32 found, found, t;"]
    lines += ["setp.eq.u32 p, found, 0;", "@p bra NONE;"]
    lines += [f"mov.b32 {name}, ${i};" for i, name in enumerate(("c0", "c1", "c2", "c3", "k0", "k1"), 8)]
    for _ in range(philox.ROUNDS):
        lines += [f"mul.{half}.u32 {half[0]}0, c0, {MULTIPLIERS[0]};" for half in ("hi", "lo")]
        lines += [f"mul.{half}.u32 {half[0]}1, c2, {MULTIPLIERS[1]};" for half in ("hi", "lo")]
        lines += ["xor.b32 c0, h1, c1;", "xor.b32 c0, c0, k0;", "mov.b32 c1, l1;"]
        lines += ["xor.b32 c2, h0, c3;", "xor.b32 c2, c2, k1;", "mov.b32 c3, l0;"]
        lines += [f"add.u32 k{i}, k{i}, {WEYL[i]};" for i in range(2)]
    for i in range(4):
        lines += [f"and.b32 t, ${i + 4}, 0xFFFF;", f"and.b32 v, c{i}, 0xFFFF;", "setp.eq.u32 p, t, $14;"]
        lines += ["setp.lt.and.u32 p, v, $15, p;", f"@p sub.u32 ${i}, ${i}, 1;"]
        lines += [f"shr.u32 t, ${i + 4}, 16;", f"shr.u32 v, c{i}, 16;", "setp.eq.u32 p, t, $14;"]
        lines += ["setp.lt.and.u32 p, v, $15, p;", f"@p sub.u32 ${i}, ${i}, 0x10000;"]
    return "\n".join([*lines, "NONE:", "}"])


TEXT = tl.constexpr(_text())
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
