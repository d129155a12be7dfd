"""Dropout leaves the expectation unchanged, E[h'] = h, and that of the gradient.

Size and power. For h = 1 an output is 1/(1 − p) with probability 1 − p, else 0: mean 1, variance p/(1 − p). The mean
of N of them has the deviation s = sqrt(p/((1 − p)·N)). The test asks for |mean − 1| < 5·s; for random masks a right
implementation would fail it once in 1.7 million keys (2·Q(5)), and the keys here are fixed, so that it passes always
or never. With N = 2^22 and p = 0.5 the bound is 0.0024: an implementation whose expectation is off by twice that,
0.5 %, fails with the probability 1 − Q(5) > 0.999999. Kernels that quantise p to 8 bits but scale by the exact p are
off by up to 0.4 % at p = 0.5 and by up to 1.6 % at p = 0.9, where the bound is 0.0073.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from modes import Mode

import multidrop as md

N = 2**22
Z = 5.0
KEY = md.Key(2014, 15)  # any; fixed before the first run


def bound(p: float) -> float:
    return Z * math.sqrt(p / (1.0 - p) / N)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_expectation(mode: Mode, p: float) -> None:
    ones = np.ones(N, np.float32)
    assert abs(mode.dropout(ones, p, KEY, 0).mean(dtype=np.float64) - 1.0) < bound(p)
    assert abs(mode.gradient(ones, ones, p, KEY, 0).mean(dtype=np.float64) - 1.0) < bound(p)


def test_the_bound_finds_a_biased_scale() -> None:
    """The test above can fail: p in 256ths, scaled by the exact p, as some kernels do it."""
    p = 0.9
    quantised = round(p * 256 - 0.5) / 256
    biased = md.keep_mask(N, quantised, KEY) / (1.0 - p)
    assert abs(biased.mean() - 1.0) > bound(p)


def test_expectation_of_each_element_over_calls() -> None:
    """The same for one element over many calls: the mean over calls of each of 1,000 positions."""
    p, calls = 0.5, 2000
    kept = sum(md.keep_mask(1000, p, md.Key(1, call)).astype(int) for call in range(calls))
    # 1,000 positions at once: 6 deviations make a right implementation fail for one key in 500,000.
    assert np.abs(kept / calls - (1 - p)).max() < 6 * math.sqrt(p * (1 - p) / calls)
