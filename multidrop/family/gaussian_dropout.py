"""Multiplication by normal noise."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..spec import masks
from ._member import Draw, Member, Tensor, setting


@dataclass(frozen=True)
class GaussianDropout(Member):
    """Multiplies each element by normal noise of mean 1 and standard deviation sqrt(p/(1 − p)), that of dropout.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014),
    section 10.

    Args:
        p: the rate of the dropout with the same deviation, in [0, 1).

    Raises:
        ValueError: for a bad probability, 1 included, where the deviation is infinite.
    """

    p: float = setting(0.5, checks.probability_below_one)

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        return draw.wide(X, X) * draw.normal(X, 1.0, masks.gaussian_stddev("p", self.p))
