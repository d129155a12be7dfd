"""The statistics of experiments, against SciPy, published values and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from multidrop.section.experiments import statistics


def test_an_interval_is_scipys() -> None:
    values = np.random.default_rng(0).normal(size=7)
    found = statistics.interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.deviation, found.n) == (
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1)),
        7,
    )


def test_p_values_are_scipys() -> None:
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(2, 5))
    (test,) = statistics.tests([a - b], [0.0])
    assert test.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    (test,) = statistics.tests([a], [0.7])
    assert test.p == pytest.approx(stats.ttest_1samp(a, 0.7).pvalue)


def test_holm() -> None:
    """By hand: 4·0.005, 3·0.01 and 2·0.03, none below the one before, and 1 at most."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("n", "level"), [(2, 0.05), (5, 0.05), (5, 0.05 / 20), (20, 0.05)])
def test_the_detectable_difference_has_the_power(n: int, level: float) -> None:
    """Computed in a different way: over the distribution of the measured deviation."""
    size = statistics.detectable(1.0, n, level)
    critical, freedom = stats.t.ppf(1 - level / 2, n - 1), n - 1

    def found(s: float) -> float:
        return float(
            stats.norm.sf(critical * s - size * n**0.5) * 2 * freedom * s * stats.chi2.pdf(freedom * s * s, freedom)
        )

    assert integrate.quad(found, 0, np.inf)[0] == pytest.approx(0.8, abs=1e-4)


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    n, count = 5, 20_000
    size = statistics.detectable(1.0, n, 0.05)
    samples = np.random.default_rng(2).normal(size, 1.0, (count, n))
    power = (stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean()
    assert abs(power - 0.8) < 4 * (0.8 * 0.2 / count) ** 0.5


def test_few_experiments_find_what_is_not_there() -> None:
    """Where no contrast differs, at least one of ten is found in 5 % of the experiments at most."""
    draw, count = np.random.default_rng(3), 400
    wrong = sum(
        any(test.found for test in statistics.tests(draw.normal(size=(10, 5)), [0.0] * 10)) for _ in range(count)
    )
    assert wrong / count < 0.05 + 4 * (0.05 * 0.95 / count) ** 0.5
    uncorrected = stats.ttest_1samp(draw.normal(size=(count, 10, 5)), 0.0, axis=2).pvalue < 0.05
    assert uncorrected.any(axis=1).mean() > 0.3  # so that the check above can fail


def test_without_spread_nothing_is_found() -> None:
    (same,) = statistics.tests([np.full(5, 0.25)], [0.0])
    assert (same.found, same.p, same.detectable) == (False, 1.0, 0.0)


@pytest.mark.parametrize("values", [[0.1], [], [0.1, np.nan], [0.1, np.inf], [[0.1, 0.2], [0.3, 0.4]]])
def test_an_interval_of_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values: expected at least two finite numbers; got "):
        statistics.interval(values)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
def test_equal_numbers_have_no_spread(value: float) -> None:
    """Not even that of rounding errors: three times 0.1 is not 0.3."""
    for n in range(2, 12):
        found = statistics.interval([value] * n)
        assert (found.mean, found.low, found.high, found.deviation) == (value, value, value, 0.0)
