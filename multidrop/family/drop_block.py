"""Dropout of contiguous blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..spec import masks
from ._member import CHANNELS_FIRST, CHANNELS_LAST, Draw, Member, Tensor, images, one_of, rate, size


@dataclass(frozen=True)
class DropBlock(Member):
    """Drops blocks of neighbouring positions, of each channel by itself; exactly the share p of all elements in
    expectation, at the edges too.

    A block is placed by one decision. An element is dropped where any block that covers it is, and as many blocks can
    cover it as a block has elements, N = block_size^d in d dimensions. That holds at the edges too where blocks may
    reach beyond the map, so that the decisions are drawn for a map that is larger by block_size − 1 along each
    axis. With the probability γ of each block, independently,

        P(kept) = (1 − γ)^N = 1 − p,    so that    γ = 1 − (1 − p)^(1/N)

    The paper's γ = p/block_size²·(size of the map)/(number of places) counts blocks that overlap twice, and lets no
    block reach beyond the map, so that fewer elements are dropped than p says, and fewest at the edges.

    Kept elements are scaled by 1/(1 − p), which keeps E[y] = x for each element. The paper scales by the share that was
    kept in this batch: then an example depends on the others that it is with, a part cannot be computed by itself, and
    the expectation is kept only on average.

    Source: G. Ghiasi, T.-Y. Lin and Q. V. Le, "DropBlock: a regularization method for convolutional networks", NeurIPS
    31 (2018).

    Args:
        p: the probability that an element is dropped, in [0, 1].
        block_size: how long a block is along each axis; even, and longer than the map, too.
        data_format: "channels_first" for X of shape (n, c, …), "channels_last" for (n, …, c); one to three dimensions
            of positions.

    Raises:
        ValueError: for a bad probability, size or format.
    """

    p: float = rate(0.1)
    block_size: int = size(7)
    data_format: str = one_of(CHANNELS_FIRST, CHANNELS_LAST)

    example_shape = (2, 3, 9, 8)

    def margin(self, ndim: int) -> tuple[int, ...]:
        positions = images(ndim, self.data_format)
        return tuple(self.block_size - 1 if axis in positions else 0 for axis in range(ndim))

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        ndim = len(X.shape)
        positions = images(ndim, self.data_format)
        kept = draw.keep(X, block_rate(self.p, self.block_size ** len(positions)), (), self.margin(ndim))
        for axis in positions:
            kept = all_along(kept, self.block_size, axis)
        return draw.select(X, kept, masks.scale(self.p))


@cache
def block_rate(p: float, elements: int) -> float:
    """γ = 1 − T/2^32, where T is the integer nearest to (1 − p)^(1/elements)·2^32, found with integers alone: the same
    everywhere, and the γ of a mask's threshold T.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        elements: how many a block has.
    """
    kept, whole = (1.0 - p).as_integer_ratio()

    def below(odd: int) -> bool:
        """Whether odd/2^33 < (1 − p)^(1/elements)."""
        return odd**elements * whole < kept << 33 * elements

    low, high = 0, 2**32
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if below(2 * middle + 1) else (low, middle)
    return 1.0 - low / 2.0**32


def all_along(kept: Tensor, length: int, axis: int) -> Tensor:
    """Whether all of `length` neighbours along an axis are kept; shorter by length − 1 there."""
    done = 1
    while done < length:
        step = min(done, length - done)
        ahead = (slice(None),) * axis
        kept = kept[(*ahead, slice(None, -step))] & kept[(*ahead, slice(step, None))]
        done += step
    return kept
