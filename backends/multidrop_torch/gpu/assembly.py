"""Parts of a mask in PTX, the assembly of NVIDIA's GPUs, where each thread branches for itself.

Triton has branches for whole programs only, in which the threads of a program wait for each other. Each function here
gives the text for `tl.inline_asm_elementwise`. Registers and labels are local to a text.
"""

from __future__ import annotations

from functools import cache

from multidrop.spec import philox

TOGETHER = 8
"""The elements that a thread hands to `bytes_text` at once: a block's, where they lie side by side."""

_COUNTER, _KEY, _PRODUCTS = ("c0", "c1", "c2", "c3"), ("k0", "k1"), ("h0", "l0", "h1", "l1")


def _philox() -> list[str]:
    """Replaces the counter by Philox's four words. The key is changed."""
    lines = []
    for _ in range(philox.ROUNDS):
        for i, multiplier in enumerate(philox.MULTIPLIERS):
            lines += [f"mul.{half}.u32 {half[0]}{i}, c{2 * i}, 0x{multiplier:X};" for half in ("hi", "lo")]
        lines += ["xor.b32 c0, h1, c1;", "xor.b32 c0, c0, k0;", "mov.b32 c1, l1;"]
        lines += ["xor.b32 c2, h0, c3;", "xor.b32 c2, c2, k1;", "mov.b32 c3, l0;"]
        lines += [f"add.u32 k{i}, k{i}, 0x{step:X};" for i, step in enumerate(philox.WEYL)]
    return lines


def _unless_tied(words: list[str], high: str, label: str) -> list[str]:
    """Goes to a label where no half of four words equals the threshold's high half: SWAR's test for a zero, which holds
    for a few others too."""
    lines = [f"mul.lo.u32 both, {high}, 0x00010001;", "mov.b32 found, 0;"]
    for word in words:
        lines += [f"xor.b32 v, {word}, both;", "sub.u32 t, v, 0x00010001;", "not.b32 v, v;", "and.b32 t, t, v;"]
        lines += ["and.b32 t, t, 0x80008000;", "or.b32 found, found, t;"]
    return [*lines, "setp.eq.u32 p, found, 0;", f"@p bra {label};"]


def _won(words: list[str], high: str, low: str, then: list[list[str]]) -> list[str]:
    """For each half of four words: what to do, by a predicate p, where it equals the threshold's high half, and that of
    plane 1, in the counter's registers, is below the low."""
    lines = []
    for i, word in enumerate(words):
        for j, half in enumerate(("and.b32 {}, {}, 0xFFFF;", "shr.u32 {}, {}, 16;")):
            lines += [half.format("t", word), half.format("v", f"c{i}"), f"setp.eq.u32 p, t, {high};"]
            lines += [f"setp.lt.and.u32 p, v, {low}, p;", *then[2 * i + j]]
    return lines


@cache
def settled_text() -> str:
    """Settles the ties of four words: $0 to $3 are the result, $4 to $7 the words, $8 to $13 the counter and the key of
    plane 1, $14 and $15 the halves of the threshold, the high one above 0."""
    words = [f"${i}" for i in range(4, 8)]
    registers = ", ".join([*_COUNTER, *_KEY, *_PRODUCTS, "both", "found", "v", "t"])
    lines = ["{", ".reg .pred p;", f".reg .b32 {registers};"]
    lines += [f"mov.b32 ${i}, {word};" for i, word in enumerate(words)]
    lines += _unless_tied(words, "$14", "NONE")
    lines += [f"mov.b32 {name}, ${i};" for i, name in enumerate((*_COUNTER, *_KEY), 8)]
    lines += _philox()
    less = [[f"@p sub.u32 ${i}, ${i}, {number};"] for i in range(4) for number in ("1", "0x10000")]
    return " ".join([*lines, *_won(words, "$14", "$15", less), "NONE:", "}"])


@cache
def bytes_text(high: int, low: int, first: int = 0, wide: bool = False) -> str:
    """The masks of the blocks of eight elements, a byte in each of $0 to $7: bit j is 1 where element j of the block is
    kept. $8 to $15 are the elements' indices, $16 and $24 seed and call, of 64 bits.

    Elements of one block share its words, which are drawn once for each block that the thread meets.

    Args:
        high, low: the halves of the threshold.
        first: the block of index 0.
        wide: whether indices have 64 bits, and not 32.
    """
    indices = [f"${i}" for i in range(TOGETHER, 2 * TOGETHER)]
    seed, call = f"${2 * TOGETHER}", f"${3 * TOGETHER}"
    bits = 64 if wide else 32
    words = [f"w{i}" for i in range(4)]
    registers = ", ".join([*_COUNTER, *_KEY, *_PRODUCTS, *words, "kept", "left", "both", "found", "v", "t", "no"])
    lines = ["{", ".reg .pred p;", f".reg .b32 {registers};", f".reg .b{bits} at, d;", ".reg .b64 block;"]
    lines += [f"mov.b{bits} at, {indices[0]};", f"mov.b32 left, {2**TOGETHER - 1};"]
    for i in range(1, TOGETHER):  # what fills up for a thread that has fewer elements has no seed, and needs no mask
        lines += [f"setp.ne.u64 p, ${2 * TOGETHER + i}, {seed};", f"@p and.b32 left, left, {255 - (1 << i)};"]
    lines += ["NEXT:"]

    def draw(plane: int) -> list[str]:
        # `no` is 0, which the assembler does not see: it would keep the 20 words of all rounds' keys in registers.
        return [
            *(["shr.u64 block, at, 3;"] if wide else ["shr.u32 t, at, 3;", "cvt.u64.u32 block, t;"]),
            *([f"add.u64 block, block, {first};"] if first else []),
            "mov.b64 {c0, c1}, block;",
            f"mov.b64 {{c2, c3}}, {call};",
            f"mov.b64 {{k0, k1}}, {seed};",
            f"shr.u32 no, {'kept' if plane else 'left'}, 8;",
            "add.u32 k0, k0, no;",
            "add.u32 k1, k1, no;",
            *(["add.u32 c1, c1, 0x80000000;"] if plane else []),
            *_philox(),
        ]

    lines += [*draw(0), *(f"mov.b32 {word}, {name};" for word, name in zip(words, _COUNTER, strict=True))]
    lines += ["mov.b32 kept, 0;"]
    for i, word in enumerate(words):
        for j, half in enumerate((f"and.b32 t, {word}, 0xFFFF;", f"shr.u32 t, {word}, 16;")):
            lines += [half, f"setp.lt.u32 p, t, {high};", f"@p or.b32 kept, kept, {1 << (2 * i + j)};"]
    if low:
        lines += [*_unless_tied(words, str(high), "NONE"), *draw(1)]
        lines += _won(words, str(high), str(low), [[f"@p or.b32 kept, kept, {1 << j};"] for j in range(8)])
        lines += ["NONE:"]
    for i, index in enumerate(indices):
        lines += [f"xor.b{bits} d, {index}, at;", f"setp.lt.u{bits} p, d, 8;"]
        lines += [f"@p mov.b32 ${i}, kept;", f"@p and.b32 left, left, {255 - (1 << i)};"]
    lines += ["setp.eq.u32 p, left, 0;", "@p bra DONE;"]
    for i, index in reversed(list(enumerate(indices))):
        lines += [f"and.b32 t, left, {1 << i};", "setp.ne.u32 p, t, 0;", f"@p mov.b{bits} at, {index};"]
    return " ".join([*lines, "bra NEXT;", "DONE:", "}"])


def bytes_registers(wide: bool = False) -> str:
    """The constraints of `bytes_text`: its operands."""
    return ",".join(["=&r"] * TOGETHER + ["l" if wide else "r"] * TOGETHER + ["l"] * (2 * TOGETHER))
