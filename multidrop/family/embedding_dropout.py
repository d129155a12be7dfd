"""Dropout of words."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import ANY, MaskMember, dimensions, rate


@dataclass(frozen=True)
class EmbeddingDropout(MaskMember):
    """Drops whole rows of an embedding matrix, so that a word is dropped wherever it stands in a batch.

    Source: Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    NeurIPS 29 (2016), section 4.2.

    Args:
        p: the probability that a word is dropped, in [0, 1].

    Raises:
        ValueError: for a bad probability.
    """

    p: float = rate(0.1)

    example_shape = (11, 3)
    of_weights = True

    def axes(self, ndim: int) -> tuple[int, ...]:
        dimensions(ndim, range(2, ANY), "(words, …)")
        return tuple(range(1, ndim))
