"""Dropout of contiguous blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..spec import masks
from ._member import CHANNELS_FIRST, CHANNELS_LAST, Draw, Member, Tensor, images, one_of, rate, size


@dataclass(frozen=True)
class DropBlock(Member):
    """Drops blocks of neighbouring positions, in each channel separately. The expected share of dropped elements is
    exactly p, at the edges too.

    One decision places a block. An element is dropped if any of the N blocks that cover it is placed, where
    N = block_size^d in d dimensions. This holds at the edges too, because blocks may reach beyond the map: decisions
    are drawn for a map that is larger by block_size − 1 along each axis. If each block is placed with probability γ,
    independently,

        P(kept) = (1 − γ)^N = 1 − p,    so that    γ = 1 − (1 − p)^(1/N)

    The paper's γ = p/block_size²·(size of the map)/(number of places) counts elements twice where blocks overlap, and
    its blocks stay within the map. It drops fewer elements than p says, and fewest at the edges.

    Kept elements are scaled by 1/(1 − p), so that E[y] = x for each element. The paper scales by the share that was
    kept in this batch. An example then depends on the rest of its batch, a part cannot be computed alone, and the
    expectation holds only on average.

    Source: G. Ghiasi, T.-Y. Lin and Q. V. Le, "DropBlock: a regularization method for convolutional networks", NeurIPS
    31 (2018).

    Args:
        p: the probability that an element is dropped, in [0, 1].
        block_size: the length of a block along each axis. It may be even, and greater than the map.
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
    """γ = 1 − T/2^32, where T is the integer nearest to (1 − p)^(1/elements)·2^32. T is found by integer arithmetic, so
    that it is the same on every machine; it is the threshold of the blocks' mask.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        elements: the number of elements of a block.
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
    """ANDs `length` neighbours along an axis. The result is shorter by length − 1 there."""
    done = 1
    while done < length:
        step = min(done, length - done)
        ahead = (slice(None),) * axis
        kept = kept[(*ahead, slice(None, -step))] & kept[(*ahead, slice(step, None))]
        done += step
    return kept
