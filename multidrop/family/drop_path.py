"""Dropout of whole branches."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import ANY, MaskMember, dimensions, one_of, rate

EXAMPLE, BATCH = "example", "batch"


@dataclass(frozen=True)
class DropPath(MaskMember):
    """Drops the output of a residual branch whole (stochastic depth), and scales it by 1/(1 − p) where it stays.

    Source: G. Huang et al., "Deep networks with stochastic depth", ECCV 2016, section 3, which decides once for a
    batch; G. Larsson et al., "FractalNet: ultra-deep neural networks without residuals", ICLR 2017, for the name.

    Args:
        p: the probability that the branch is dropped, in [0, 1].
        mode: "example" to decide for each example, X[i], by itself, "batch" to decide once for all.

    Raises:
        ValueError: for a bad probability or mode.
    """

    p: float = rate(0.1)
    mode: str = one_of(EXAMPLE, BATCH)

    def axes(self, ndim: int) -> tuple[int, ...]:
        dimensions(ndim, range(1, ANY), "(n, …)")
        return tuple(range(1 if self.mode == EXAMPLE else 0, ndim))
