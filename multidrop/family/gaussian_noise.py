"""Addition of normal noise."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ._member import Draw, Member, Tensor, setting


@dataclass(frozen=True)
class GaussianNoise(Member):
    """Adds a normal number of mean 0 to each element.

    Source: C. M. Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7 (1995).

    Args:
        stddev: the standard deviation of the noise, at least 0.

    Raises:
        ValueError: for a bad deviation.
    """

    stddev: float = setting(0.1, checks.at_least_zero)

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        return draw.wide(X, X) + draw.normal(X, 0.0, self.stddev)

    def gradient(self, dY: Tensor, draw: Draw) -> Tensor:
        return dY

    @property
    def idle(self) -> bool:
        return self.stddev == 0.0
