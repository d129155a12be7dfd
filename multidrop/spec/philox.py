"""Philox4x32-10, the counter-based generator of all masks and derived keys.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11,
section 3.3, and its reference library Random123; the tests compare this file with its known-answer vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the two key words in each round

MASK32 = 0xFFFFFFFF


def split64(number: int) -> tuple[int, int]:
    """Splits a 64-bit number into its low and its high 32-bit word."""
    return number & MASK32, number >> 32


def philox4x32(counter: Sequence[npt.ArrayLike], seed: int) -> tuple[Words, Words, Words, Words]:
    """Generates four random 32-bit words for each counter.

    Args:
        counter: four words, each an integer or an array of integers in [0, 2^32); they broadcast to one shape.
        seed: the 64-bit key; its low word is the first key word.

    Returns:
        Four uint32 arrays of the broadcast shape (at least one-dimensional).
    """
    # Computed in 64 bits, which hold a product of two 32-bit words, so that nothing overflows.
    x0, x1, x2, x3 = np.broadcast_arrays(*(np.atleast_1d(np.asarray(word, np.uint64)) for word in counter))
    low, shift = np.uint64(MASK32), np.uint64(32)
    k0, k1 = split64(seed)
    for _ in range(ROUNDS):
        first = x0 * np.uint64(MULTIPLIERS[0])
        second = x2 * np.uint64(MULTIPLIERS[1])
        x0, x1 = (second >> shift) ^ x1 ^ np.uint64(k0), second & low
        x2, x3 = (first >> shift) ^ x3 ^ np.uint64(k1), first & low
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return x0.astype(np.uint32), x1.astype(np.uint32), x2.astype(np.uint32), x3.astype(np.uint32)
