"""Dropout whose rate is learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .. import checks
from ._member import Draw, Member, Tensor, setting


def _temperature(name: str, value: object) -> float:
    number = checks.at_least_zero(name, value)
    if number == 0.0:
        raise ValueError(f"{name}: expected a finite number above 0; got {checks.shown(value)}")
    return number


@dataclass(frozen=True)
class ConcreteDropout(Member):
    """Multiplies each element by (1 − z)/(1 − p), a relaxed keep mask that is differentiable with respect to p:

        z = sigmoid((log(p/(1 − p)) + log(u/(1 − u)))/temperature)

    for a uniform u. The lower the temperature, the nearer z is to 0 or 1. E[z] = p holds at p = 1/2 alone.

    To learn p, pass its logit, log(p/(1 − p)), as `learned`: a floating tensor of a shape that can be broadcast to
    X's.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017), equation 5.

    Args:
        p: the probability that an element is dropped, in [0, 1), if it is not learned.
        temperature: above 0; the paper's is 0.1.

    Raises:
        ValueError: for a bad probability or temperature.
    """

    p: float = setting(0.1, checks.probability_below_one)
    temperature: float = setting(0.1, _temperature)

    unbiased = False
    learns = True

    def __call__(self, X: Tensor, draw: Draw, learned: Tensor | None = None) -> Tensor:
        if learned is None:
            kept, scale = 1.0 - self._dropped(X, draw, self.logit), 1.0 / (1.0 - self.p)
        else:
            u = draw.uniform(X)
            logit = draw.wide(learned, u)
            kept, scale = 1.0 - self._dropped(X, draw, logit), 1.0 + draw.xp.exp(logit)
        return draw.wide(X, X) * draw.wide(kept * scale, X)

    @property
    def logit(self) -> float:
        """log(p/(1 − p)), the initial value of the logit.

        Raises:
            ValueError: at p = 0, where it is infinite.
        """
        if self.p == 0.0:
            raise ValueError(f"p: expected a probability above 0, to be learned; got {checks.shown(self.p)}")
        return math.log(self.p / (1.0 - self.p))

    def _dropped(self, X: Tensor, draw: Draw, logit: Tensor | float) -> Tensor:
        """z, in float64."""
        u = draw.uniform(X)
        return _sigmoid(draw, (draw.xp.log(u) - draw.xp.log(1.0 - u) + logit) / self.temperature)

    def learned_gradient(self, dY: Tensor, X: Tensor, draw: Draw, learned: Tensor) -> Tensor:
        """The gradient with respect to the logit, before it is summed to the logit's shape; in float64."""
        u = draw.uniform(X)
        logit = draw.wide(learned, u)
        z, p = self._dropped(X, draw, logit), _sigmoid(draw, logit)
        slope = (1.0 - z) * (p - z / self.temperature) * (1.0 + draw.xp.exp(logit))
        return draw.wide(X, u) * draw.wide(dY, u) * slope

    @staticmethod
    def regularizer(xp: Any, logit: Tensor, squares: Tensor, features: Any, length_scale: float) -> Tensor:
        """The part of the loss that keeps p up: the divergence of a weight's distribution from its prior, equation 3 of
        the paper, length_scale²·(1 − p)/2·‖M‖² − K·H(p). There M is the weight before dropout scales: as this dropout
        scales by 1/(1 − p), it is weight/(1 − p).

        Args:
            xp: the namespace of the framework's elementwise functions.
            logit: log(p/(1 − p)).
            squares: the sum of the squares of the weight that takes what is dropped.
            features: K, how many features are dropped.
            length_scale: the prior's, at least 0.

        Raises:
            ValueError: for a bad length scale.
        """
        scale = checks.at_least_zero("length_scale", length_scale)
        softplus = xp.log1p(xp.exp(-abs(logit))) + 0.5 * (logit + abs(logit))
        entropy = softplus - logit / (1.0 + xp.exp(-logit))
        return scale**2 / 2.0 * squares * (1.0 + xp.exp(logit)) - features * entropy


def _sigmoid(draw: Draw, x: Tensor) -> Tensor:
    """1/(1 + e^-x), without overflow."""
    return 0.5 + 0.5 * draw.xp.tanh(0.5 * x)
