"""What tests of normal noise share: numbers, the oracle's results, and how far others may be from them."""

from __future__ import annotations

from typing import Any

import numpy as np

import multidrop as md
from multidrop.family import oracle
from multidrop.spec.keys import as_key

KEY = md.Key(7, 3)
ULPS = 16
SHAPE = (6, 35)  # no multiple of 8
BAD_PROBABILITIES = (1.5, -0.1, float("nan"), None)


def ulps(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units in the last place of b."""
    return float((np.abs(a - b) / np.spacing(np.abs(b))).max())


def close(a: Any, b: np.ndarray) -> bool:
    """Equal but for one rounding more or less to float32: numbers that differ in float64's last places seldom round
    apart."""
    return np.allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=2.0**-22, atol=1e-12)


def values(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def gaussian_dropout(x: np.ndarray, stddev: float, key: int | md.Key) -> np.ndarray:
    """Gaussian dropout whose noise has that deviation."""
    return oracle.apply(md.family.GaussianDropout(stddev**2 / (1.0 + stddev**2)), x, as_key(key))


def gaussian_noise(x: np.ndarray, stddev: float, key: int | md.Key) -> np.ndarray:
    return oracle.apply(md.family.GaussianNoise(stddev), x, as_key(key))
