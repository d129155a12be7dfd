"""One mask for all steps of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import ANY, MaskMember, dimensions, flag, rate


@dataclass(frozen=True)
class LockedDropout(MaskMember):
    """Drops the same features at each step of a sequence (variational dropout).

    Source: Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    NeurIPS 29 (2016), section 4.

    Args:
        p: the probability that a feature is dropped, in [0, 1].
        batch_first: whether X has the shape (n, steps, …) and not (steps, n, …).

    Raises:
        ValueError: for a bad probability, or a `batch_first` that is neither True nor False.
    """

    p: float = rate(0.5)
    batch_first: bool = flag(False)

    example_shape = (5, 3, 4)

    def axes(self, ndim: int) -> tuple[int, ...]:
        dimensions(ndim, range(3, ANY), "(steps, n, …) or (n, steps, …)")
        return (1,) if self.batch_first else (0,)

    @property
    def batch_axis(self) -> int:
        return 0 if self.batch_first else 1
