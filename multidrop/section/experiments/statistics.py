"""Means with intervals over seeds, and paired comparisons corrected for their number.

Sources: W. S. Gosset, "The probable error of a mean", Biometrika 6 (1908), for t; S. Holm, "A simple sequentially
rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979), for the correction; J. Cohen,
"Statistical power analysis for the behavioral sciences" (1988), chapter 2, for power by the noncentral t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..needs import section_extra

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % t-interval, and the standard deviation over seeds."""

    mean: float
    low: float
    high: float
    deviation: float
    n: int

    @property
    def half(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Test:
    """A contrast's mean over seeds against a value, by a t-test on the contrasts of each seed.

    `interval` holds with probability 95 % for this contrast alone; `p` is corrected by Holm's method for all contrasts
    of the experiment; `found` says whether it is below 0.05. `detectable` is the smallest difference that such a test
    finds with probability 80 %, given this spread and number of seeds, at the level that the correction asks of the
    smallest p-value.
    """

    interval: Interval
    against: float
    p: float
    detectable: float

    @property
    def found(self) -> bool:
        return self.p < LEVEL


def interval(values: Sequence[float] | npt.NDArray) -> Interval:
    """The mean of values of independent runs, with its t-interval.

    Args:
        values: at least two finite numbers. Equal numbers have the deviation 0, without a rounding error.

    Raises:
        ValueError: for fewer numbers, another shape, or numbers that are not finite.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise ValueError(f"values: expected at least two finite numbers; got {array.tolist()}")
    n, equal = len(array), np.ptp(array) == 0.0
    mean, deviation = (float(array[0]), 0.0) if equal else (float(array.mean()), float(array.std(ddof=1)))
    half = float(_scipy().t.ppf(1 - LEVEL / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, deviation, n)


def tests(samples: Sequence[Sequence[float] | npt.NDArray], against: Sequence[float]) -> list[Test]:
    """Tests each sample's mean against a value, two-sided, with p-values corrected for the number of samples."""
    intervals = [interval(sample) for sample in samples]
    raw = [_p(each, value) for each, value in zip(intervals, against, strict=True)]
    level = LEVEL / max(1, len(samples))
    return [
        Test(each, value, p, detectable(each.deviation, each.n, level))
        for each, value, p in zip(intervals, against, holm(raw), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order of `p`."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def detectable(deviation: float, n: int, level: float) -> float:
    """The smallest true difference that a two-sided t-test of n differences with that standard deviation finds with
    probability 0.8."""
    stats = _scipy()
    from scipy.optimize import brentq

    critical = float(stats.t.ppf(1 - level / 2, n - 1))

    def lacking(noncentrality: float) -> float:
        # Without the chance of finding a difference of the wrong sign, which is below 1e-3 where the power is 0.8.
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - POWER

    high = critical + 1.0
    while lacking(high) < 0:
        high *= 2
    return float(brentq(lacking, 0.0, high, xtol=1e-10)) * deviation / math.sqrt(n)


def _p(each: Interval, against: float) -> float:
    """The two-sided p-value. Without any spread there is no t-test, and nothing counts as found: accuracies are
    multiples of 1/n, so that a few seeds may agree by chance."""
    if each.deviation == 0.0:
        return 1.0
    t = (each.mean - against) / (each.deviation / math.sqrt(each.n))
    return 2 * float(_scipy().t.sf(abs(t), each.n - 1))


def _scipy():  # type: ignore[no-untyped-def]  # SciPy's stubs are not installed everywhere
    with section_extra("an experiment"):
        from scipy import stats
    return stats
