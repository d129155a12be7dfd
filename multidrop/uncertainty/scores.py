"""Judges probabilities and uncertainties, as NumPy arrays, by what was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import checks

Array = npt.NDArray[np.float64]


def calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """The expected calibration error: how far confidence and accuracy are apart. Examples are sorted into bins of equal
    width by their largest probability, ((i − 1)/bins, i/bins]; the result is the mean of |accuracy − mean confidence|
    over the bins, weighted by their numbers of examples.

    Source: C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017,
    equation 3.

    Args:
        probabilities: (n, classes).
        labels: the right classes, integers of shape (n,).
        bins: how many bins.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: for shapes that do not fit, no examples, probabilities or labels out of range, or a bad `bins`.
        TypeError: for labels that are not integers.
    """
    p, y = _classified(probabilities, labels)
    bins = checks.positive("bins", bins)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    places = np.searchsorted(np.arange(1, bins) / bins, confidence)
    apart = np.bincount(places, right.astype(np.float64) - confidence, bins)
    return float(np.abs(apart).sum() / len(y))


def negative_log_likelihood(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The mean of −log p(label), in nats: infinite if a label has probability 0.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 6.

    Args:
        probabilities: (n, classes).
        labels: the right classes, integers of shape (n,).

    Raises:
        ValueError, TypeError: as `calibration_error`.
    """
    p, y = _classified(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.log(p[np.arange(len(y)), y]).mean())


def auroc(negatives: npt.ArrayLike, positives: npt.ArrayLike) -> float:
    """The area under the receiver operating characteristic of a score: the probability that a positive has a higher
    score than a negative, where a tie counts one half. Computed from ranks (the U statistic of Mann and Whitney).

    Source: J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a receiver operating characteristic
    (ROC) curve", Radiology 143 (1982).

    Args:
        negatives: the scores of one set, such as the entropies of familiar images, (n,).
        positives: the scores of the other, such as the entropies of foreign images, (m,).

    Returns:
        A number in [0, 1]: 1 if all positives are above all negatives, 1/2 if the score tells nothing.

    Raises:
        ValueError: for an empty set, another shape, or NaN.
    """
    low, high = _scores("negatives", negatives), _scores("positives", positives)
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left").sum()
    ties = np.searchsorted(ordered, high, "right").sum() - below
    return float((below + 0.5 * ties) / (len(low) * len(high)))


@dataclass(frozen=True, eq=False)
class Rejection:
    """The accuracy on the examples that are kept, as more and more of the most uncertain are rejected.

    Attributes:
        kept: the fraction that is kept, (n,): 1/n, 2/n, …, 1.
        accuracy: the accuracy on that fraction, (n,); the last is that on all examples.
    """

    kept: Array
    accuracy: Array

    @property
    def area(self) -> float:
        """The mean of the accuracies over all kept fractions."""
        return float(self.accuracy.mean())


def rejection_curve(probabilities: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike) -> Rejection:
    """The accuracy on the kept fraction, if the examples with the largest uncertainty are rejected first. Among
    examples with equal uncertainty, the expectation over their orders counts.

    Source: M. S. A. Nadeem, J.-D. Zucker and B. Hanczar, "Accuracy-rejection curves (ARCs) for comparing classification
    methods with a reject option", MLSB 2010.

    Args:
        probabilities: (n, classes).
        labels: the right classes, integers of shape (n,).
        uncertainty: a score, (n,), such as `Prediction.mutual_information`.

    Raises:
        ValueError, TypeError: as `calibration_error`.
    """
    p, y = _classified(probabilities, labels)
    score = _scores("uncertainty", uncertainty)
    if len(score) != len(y):
        raise ValueError(f"uncertainty: expected the shape {y.shape}; got {score.shape}")
    _, groups, sizes = np.unique(score, return_inverse=True, return_counts=True)
    shares = np.bincount(groups, p.argmax(axis=1) == y) / sizes  # of right answers among equal scores
    counts = np.arange(1, len(y) + 1)
    return Rejection(counts / len(y), np.cumsum(np.repeat(shares, sizes)) / counts)


def _classified(probabilities: Any, labels: Any) -> tuple[Array, npt.NDArray[np.int64]]:
    """Probabilities (n, classes) and labels (n,), checked."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probabilities: expected the shape (n, classes), of at least one example; got {p.shape}")
    if not ((p >= 0.0) & (p <= 1.0 + 1e-6)).all():
        raise ValueError("probabilities: expected numbers in [0, 1]; got others (logits, or NaN?)")
    if y.shape != p.shape[:1]:  # before the type: an empty list is of floats
        raise ValueError(f"labels: expected the shape {p.shape[:1]}; got {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integers; got an array of type {y.dtype}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels: expected classes from 0 to {p.shape[1] - 1}; got {y.min()} to {y.max()}")
    return p, y.astype(np.int64)


def _scores(name: str, values: Any) -> Array:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
        found = f"the shape {scores.shape}" if scores.ndim != 1 or not len(scores) else "NaN"
        raise ValueError(f"{name}: expected numbers of shape (n,), at least one; got {found}")
    return scores
