"""The scores of uncertainty, against their definitions by loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import multidrop as md

few = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # so that ties are frequent
scores = st.lists(few | st.floats(-10, 10), min_size=1, max_size=12)


@st.composite
def classified(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of some examples, often equal, and their labels."""
    n, classes = draw(st.integers(1, 10)), draw(st.integers(2, 4))
    rows = draw(st.lists(st.lists(st.integers(1, 5), min_size=classes, max_size=classes), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    p = np.array(rows, dtype=float)
    return p / p.sum(axis=1, keepdims=True), np.array(labels)


@given(scores, scores)
def test_auroc_counts_pairs(negatives: list[float], positives: list[float]) -> None:
    pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a in negatives for b in positives]
    assert md.auroc(negatives, positives) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert md.auroc(positives, negatives) == pytest.approx(1.0 - md.auroc(negatives, positives), abs=1e-12)


@given(classified(), st.integers(1, 20))
def test_calibration_error_by_bins(examples: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    p, labels = examples
    total = 0.0
    for number in range(bins):
        within = [i for i in range(len(p)) if number / bins < p[i].max() <= (number + 1) / bins]
        if within:
            accuracy = np.mean([p[i].argmax() == labels[i] for i in within])
            total += len(within) / len(p) * abs(accuracy - np.mean([p[i].max() for i in within]))
    assert md.calibration_error(p, labels, bins) == pytest.approx(total, abs=1e-12)


def test_calibration_error_of_examples_by_hand() -> None:
    """Confidence 0.8 in a bin of its own, right in half of the cases: 0.3 apart. And 1.0, right: calibrated."""
    p = np.array([[0.8, 0.2], [0.8, 0.2], [1.0, 0.0], [0.0, 1.0]])
    assert md.calibration_error(p, [0, 1, 0, 1], bins=10) == pytest.approx(0.15)
    assert md.calibration_error(p[2:], [0, 1]) == 0.0


def test_a_confidence_at_the_end_of_a_bin_is_in_it() -> None:
    """0.55 is the end of the 55th of 100 bins, though 0.55·100 is rounded to more than 55. With 0.545 it is right in
    half of the cases."""
    p = np.array([[0.55, 0.45], [0.545, 0.455]])
    assert 0.55 * 100 > 55.0
    assert md.calibration_error(p, [0, 1], bins=100) == pytest.approx((0.55 + 0.545) / 2 - 0.5)


@given(classified())
def test_negative_log_likelihood(examples: tuple[np.ndarray, np.ndarray]) -> None:
    p, labels = examples
    expected = -sum(math.log(row[label]) for row, label in zip(p, labels, strict=True)) / len(p)
    assert md.negative_log_likelihood(p, labels) == pytest.approx(expected, abs=1e-12)


def test_a_label_of_probability_zero_is_infinitely_unlikely() -> None:
    assert md.negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf


@given(classified(), st.data())
def test_rejection_keeps_the_most_certain(examples: tuple[np.ndarray, np.ndarray], data: Any) -> None:
    """The mean over all orders of equal scores, by the share of right answers among them."""
    p, labels = examples
    score = np.array(data.draw(st.lists(few, min_size=len(p), max_size=len(p))))
    right = p.argmax(axis=1) == labels
    curve = md.rejection_curve(p, labels, score)
    for kept in range(1, len(p) + 1):
        border = np.sort(score)[kept - 1]
        sure, tied = right[score < border], right[score == border]
        expected = sure.sum() + (kept - len(sure)) * tied.mean()
        assert curve.accuracy[kept - 1] == pytest.approx(expected / kept, abs=1e-12)
    assert curve.kept[-1] == 1.0
    assert curve.accuracy[-1] == pytest.approx(right.mean())
    assert curve.area == pytest.approx(curve.accuracy.mean())


P = [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: md.auroc([], [1.0]),
            r"negatives: expected numbers of shape \(n,\), at least one; got the shape \(0,\)",
        ),
        (lambda: md.auroc([1.0], [[1.0]]), r"positives: .* got the shape \(1, 1\)"),
        (lambda: md.auroc([1.0], [math.nan]), "positives: .* got NaN"),
        (lambda: md.calibration_error([0.5], [0]), r"probabilities: expected the shape \(n, classes\).* got \(1,\)"),
        (lambda: md.calibration_error([[1.5, -0.5]], [0]), r"probabilities: expected numbers in \[0, 1\]"),
        (lambda: md.calibration_error([[math.nan, 0.5]], [0]), r"probabilities: expected numbers in \[0, 1\]"),
        (lambda: md.calibration_error(P, [2]), "labels: expected classes from 0 to 1; got 2 to 2"),
        (lambda: md.calibration_error(P, [-1]), "labels: expected classes from 0 to 1; got -1 to -1"),
        (lambda: md.calibration_error(P, [0, 1]), r"labels: expected the shape \(1,\); got \(2,\)"),
        (lambda: md.calibration_error(P, []), r"labels: expected the shape \(1,\); got \(0,\)"),
        (lambda: md.calibration_error(P, [0], bins=0), "bins: "),
        (lambda: md.negative_log_likelihood(np.empty((0, 2)), []), "probabilities: expected the shape"),
        (lambda: md.rejection_curve(P, [0], [0.1, 0.2]), r"uncertainty: expected the shape \(1,\); got \(2,\)"),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_labels_that_are_no_integers() -> None:
    with pytest.raises(TypeError, match=r"^labels: expected integers; got an array of type float64"):
        md.negative_log_likelihood(P, [0.0])
