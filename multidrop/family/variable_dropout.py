"""Dropout whose p is a tensor, which a compiled program reads in each run."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import Draw, Member, Tensor, rate


@dataclass(frozen=True)
class VariableDropout(Member, listed=False):
    """`Dropout` with the same bits, whose p is given with each call, as `learned`: a floating tensor of shape (), a
    buffer or a variable. A schedule can change it, and no program is compiled anew.

    Its numbers are computed with operators of the framework, which takes longer than the kernel of `Dropout`. The
    gradient with respect to p is that of the scale alone, since whether an element is kept has none.

    Source: as `Dropout`.

    Args:
        p: the probability that an element is dropped, in [0, 1], where no tensor is given. That of a tensor is not
            checked: below 0 nothing is dropped, above 1 everything.

    Raises:
        ValueError: for a bad probability.
    """

    p: float = rate(0.5)

    learns = True

    def __call__(self, X: Tensor, draw: Draw, learned: Tensor | None = None) -> Tensor:
        if learned is None:
            return draw.dropout(X, self.p)
        keep, scale = self._mask(X, draw, learned)
        scaled = draw.narrow(draw.wide(X, X) * draw.wide(scale, X), X)
        return draw.select(scaled, keep, 1.0)

    def learned_gradient(self, dY: Tensor, X: Tensor, draw: Draw, learned: Tensor) -> Tensor:
        """The gradient with respect to p, before it is summed; in float64."""
        keep, scale = self._mask(X, draw, learned)
        return draw.select(draw.wide(X, scale) * draw.wide(dY, scale) * scale * scale, keep, 1.0)

    def _mask(self, X: Tensor, draw: Draw, learned: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept, and 1/(1 − p) in float64."""
        u = draw.uniform(X)  # (U + 1/2)/2^32, so that U < T where this is below T/2^32
        p = draw.wide(learned, u)
        keep = u < draw.xp.round((1.0 - p) * 2.0**32) * 2.0**-32
        return keep, 1.0 / ((1.0 - p) + draw.wide(p == 1.0, u))  # no division by 0, where nothing is kept
