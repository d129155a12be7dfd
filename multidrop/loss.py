"""Losses of a classifier: cross-entropy with its gradient by hand, and R-Drop's."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import checks
from .dispatch import backend_of, part
from .protocol import Loss

Array = npt.NDArray[Any]


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The loss −log softmax(logits)[label] of each example, and its gradient with respect to the logits.

    Args:
        logits: shape (n, classes), floating.
        labels: shape (n,), integers in [0, classes).

    Returns:
        Losses of shape (n,), and gradients softmax(logits) − onehot(labels) of shape (n, classes).

    Raises:
        ValueError: for a label outside [0, classes).
    """
    checks.labels(labels, logits.shape[1])
    shifted = logits - logits.max(axis=1, keepdims=True)  # the exponentials stay at most 1
    exponentials = np.exp(shifted)
    totals = exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    losses = np.log(totals[:, 0]) - shifted[rows, labels]
    gradients = exponentials / totals
    gradients[rows, labels] -= 1
    return losses, gradients


def r_drop(logits1: Any, logits2: Any, labels: Any, alpha: float = 1.0) -> Any:
    """The R-Drop loss of a classifier that was run twice on one batch, with two masks:

        −log P1(label) − log P2(label) + alpha/2·(KL(P1‖P2) + KL(P2‖P1))

    of each example, where P1 and P2 are the softmax of the logits; the mean over the examples. It is differentiable
    where the framework differentiates, with respect to both logits. Computed in float32, or for float64 in float64.

    Source: L. Wu et al., "R-Drop: regularized dropout for neural networks", NeurIPS 34 (2021), equations 2 to 4.
    Frequent implementations halve the two first terms, as the authors' code does: their loss is half of this one with
    twice their alpha.

    Args:
        logits1: those of the first run, a floating tensor of shape (…, classes). Its framework computes the loss.
        logits2: those of the second run, of the same shape and type.
        labels: integers in [0, classes), of shape (…). For sequences with padding, pass the rest alone:
            `logits1[real], logits2[real], labels[real]`.
        alpha: the weight of the divergence, at least 0. The paper takes from 0.25 to 5.

    Returns:
        A scalar of the framework, float64 for float64 logits and float32 for others. Where a compiled program gets a
        label outside [0, classes), it is NaN, or an error of the framework.

    Raises:
        ValueError: for shapes that do not fit, a bad alpha, and a label outside [0, classes).
        TypeError: for logits that are not floating or differ in type, and labels that are not integers.
        BackendError: where the backend does not have that part.
    """
    return part(backend_of(logits1, "logits1"), Loss, "r_drop").r_drop(logits1, logits2, labels, alpha)


def check(
    logits1: Sequence[int | None], logits2: Sequence[int | None], labels: Sequence[int | None], alpha: object
) -> float:
    """Checks the shapes that `r_drop` is given; None stands for a size that is not known.

    Returns:
        alpha as a float.

    Raises:
        ValueError: where they do not fit, or for a bad alpha.
    """
    if len(logits1) == 0 or 0 in logits1:
        raise ValueError(f"logits1: expected a shape (…, classes) without zeros; got {tuple(logits1)}")
    for name, shape, expected in (("logits2", logits2, logits1), ("labels", labels, logits1[:-1])):
        fits = len(shape) == len(expected) and all(
            None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True)
        )
        if not fits:
            raise ValueError(f"{name}: expected the shape {tuple(expected)}; got {tuple(shape)}")
    return checks.at_least_zero("alpha", alpha)


def r_drop_of(xp: Any, logits1: Any, logits2: Any, labels: Any, alpha: float) -> Any:
    """`r_drop` after its checks, of logits in the type to compute in.

    Args:
        xp: the framework's functions: `exp(X)`, `where(condition, X, Y)`, `sum(X, axis)`, `mean(X)`,
            `log_softmax(X, axis)`, and `pick(X, labels)`, which gives X[i, labels[i]] for each example i.
    """
    log_p, log_q = xp.log_softmax(logits1, -1), xp.log_softmax(logits2, -1)
    p, q = xp.exp(log_p), xp.exp(log_q)
    # A class that both rule out has −inf − (−inf) here, and adds nothing.
    ratio = xp.where(p + q > 0.0, log_p - log_q, 0.0)
    divergence = xp.sum((p - q) * ratio, -1)  # KL(P1‖P2) + KL(P2‖P1)
    return xp.mean(0.5 * alpha * divergence - xp.pick(log_p, labels) - xp.pick(log_q, labels))


def log_softmax(X: Array, axis: int) -> Array:
    """The logarithm of the softmax of an array along an axis."""
    shifted = X - X.max(axis, keepdims=True)  # the exponentials stay at most 1
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def _pick(X: Array, labels: Array) -> Array:
    return np.take_along_axis(X, labels[..., None], -1)[..., 0]


_numpy = SimpleNamespace(
    exp=np.exp, where=np.where, sum=np.sum, mean=np.mean, log_softmax=log_softmax, pick=_pick
)  # fmt: skip


def r_drop_on_host(logits1: Array, logits2: Array, labels: Array, alpha: float) -> Array:
    """`r_drop` of NumPy arrays, after its checks: an array without dimensions."""
    with np.errstate(invalid="ignore"):  # of a class that is ruled out
        return np.asarray(r_drop_of(_numpy, _wide(logits1), _wide(logits2), labels.astype(np.int64), alpha))


def r_drop_gradients(logits1: Array, logits2: Array, labels: Array, alpha: float) -> tuple[Array, Array]:
    """The gradients of `r_drop_on_host` with respect to both logits, of their shape and type.

    With r = log P1 − log P2 the first is, for each of n examples,
    (P1 − onehot(label) + alpha/2·(P1·(r − Σ P1·r) + P1 − P2))/n.
    """
    with np.errstate(invalid="ignore"):
        log_p, log_q = (log_softmax(_wide(X), -1) for X in (logits1, logits2))
        ratio = np.where(np.exp(log_p) + np.exp(log_q) > 0.0, log_p - log_q, 0.0)
        picked = np.arange(logits1.shape[-1]) == labels[..., None]
        first = _gradient(np.exp(log_p), np.exp(log_q), ratio, picked, alpha)
        second = _gradient(np.exp(log_q), np.exp(log_p), -ratio, picked, alpha)
    return first.astype(logits1.dtype), second.astype(logits2.dtype)


def _gradient(own: Array, other: Array, ratio: Array, picked: Array, alpha: float) -> Array:
    centred = ratio - np.sum(own * ratio, -1, keepdims=True)
    total: Array = own - picked + 0.5 * alpha * (own * centred + own - other)
    return total / (picked.size // picked.shape[-1])


def _wide(X: Array) -> Array:
    return X.astype(np.float64 if X.dtype == np.float64 else np.float32, copy=False)
