"""Asserts that noise preserves the expectation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks
from ..family import Member
from ..functional import apply
from ..spec.keys import Key
from .bits import on_host

Z = 5.0
"""The bound on the mean, in its standard deviations. A right implementation exceeds it once in 1.7 million runs."""
POWER = 3.09
"""`deviation` lies this many standard deviations beyond the bound, so that it is found with probability 0.999."""
PILOT = 64
"""The number of draws from which the standard deviation of one draw is estimated."""


def assert_expectation_preserved(
    layer_or_member: Member | Callable[[Any], Any], X: Any, *, deviation: float = 0.01, seed: int = 0,
    most: int = 20_000,
) -> None:  # fmt: skip
    """Asserts that E[output] = X, up to a factor.

    Each draw k gives r_k = Σ y·x/Σ x², whose expectation is 1 where E[y] = x. The draws are independent, even where
    elements share decisions, so the mean of n has the standard deviation s = σ/√n, with σ as estimated from the draws.
    The test asks for |mean − 1| ≤ 5 s + u, where u is the rounding of X's type.

    Power. There are n = ((5 + 3.09)·σ/deviation)² draws, σ estimated from the first 64, and at least 64. An
    expectation that is off by the factor 1 ± `deviation` or more fails with a probability of 0.999; a right one fails
    once in 1.7 million seeds. Not found: a smaller factor, and errors that cancel over the elements of X. The failure
    tells n, the mean, and the bound.

    Args:
        layer_or_member: a member of `multidrop.family`, which draws with keys that `seed` gives; or a callable that
            draws anew at each call, such as a layer in training mode (`lambda X: layer(X, training=True)` in Keras).
        X: a tensor of any framework, or host data; not all zero, and finite.
        deviation: the smallest relative deviation that is to be found; above 0.
        seed: of a member's keys.
        most: how many draws there may be.

    Raises:
        AssertionError: where the mean is further off.
        ValueError: for an X that is all zero or not finite, a deviation that is no number above 0, a bad seed, or more
            draws than `most`: give more elements or a larger deviation.
    """
    deviation = checks.at_least_zero("deviation", deviation)
    if deviation == 0.0:
        raise ValueError("deviation: expected a finite number above 0; got 0")
    most, key = checks.positive("most", most), Key(seed)
    host = on_host(X)
    x = host.astype(np.float64)
    norm = float((x * x).sum())
    if not (math.isfinite(norm) and norm > 0.0):
        raise ValueError(f"X: expected finite numbers that are not all 0; got {checks.shown(X)}")
    if isinstance(layer_or_member, Member):
        member = layer_or_member

        def output(number: int) -> Any:
            return apply(member, X, Key(key.seed, number))
    else:
        layer = layer_or_member

        def output(number: int) -> Any:
            return layer(X)

    def ratio(number: int) -> float:
        y = on_host(output(number), "output").astype(np.float64)
        if y.shape != x.shape:
            raise AssertionError(f"expected an output of X's shape, {x.shape}; got {y.shape}")
        return float((y * x).sum()) / norm

    ratios = [ratio(number) for number in range(PILOT)]
    count = max(PILOT, math.ceil(((Z + POWER) * float(np.std(ratios, ddof=1)) / deviation) ** 2))
    if count > most:
        raise ValueError(
            f"most: expected at least {count} draws, to find a deviation of {deviation:g} in X; got {most}: give more "
            "elements or a larger deviation"
        )
    ratios += [ratio(number) for number in range(PILOT, count)]
    mean, error = float(np.mean(ratios)), float(np.std(ratios, ddof=1)) / math.sqrt(count)
    precision = {2: 2.0**-8, 4: 2.0**-23}.get(host.dtype.itemsize, 2.0**-40)
    if not abs(mean - 1.0) <= Z * error + precision:
        raise AssertionError(
            f"the expectation is not preserved: {count} draws have the mean {mean:.6g}·X, which is "
            f"{abs(mean - 1.0):.3g} off, where {Z:g} standard deviations are {Z * error:.3g}. (As many draws find a "
            f"deviation of {deviation:g} with a probability of 0.999, and a right expectation fails once in 1.7 "
            "million seeds.)"
        )
