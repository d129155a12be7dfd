"""The R-Drop loss of NumPy arrays, and its gradients."""

from __future__ import annotations

import numpy.typing as npt

from multidrop import checks, loss

from .functional import Array, floating, tensor


def r_drop(logits1: npt.ArrayLike, logits2: npt.ArrayLike, labels: npt.ArrayLike, alpha: float = 1.0) -> Array:
    """`multidrop.r_drop` of arrays: an array without dimensions. Args and errors are those."""
    return loss.r_drop_on_host(*_checked(logits1, logits2, labels, alpha))


def r_drop_gradients(
    logits1: npt.ArrayLike, logits2: npt.ArrayLike, labels: npt.ArrayLike, alpha: float = 1.0
) -> tuple[Array, Array]:
    """The gradients of `r_drop` with respect to both logits, of their shape and type. Args and errors are those."""
    return loss.r_drop_gradients(*_checked(logits1, logits2, labels, alpha))


def _checked(
    logits1: npt.ArrayLike, logits2: npt.ArrayLike, labels: npt.ArrayLike, alpha: float
) -> tuple[Array, Array, Array, float]:
    first, second = (floating(tensor(X, name=name), name) for name, X in (("logits1", logits1), ("logits2", logits2)))
    y = tensor(labels, name="labels")
    checks.same_type(first.dtype.name, second.dtype.name, "logits2", f'logits2.astype("{first.dtype.name}")')
    checks.integers(y.dtype.name, 'labels.astype("int64")', "labels")
    alpha = loss.check(first.shape, second.shape, y.shape, alpha)
    checks.labels(y, first.shape[-1])
    return first, second, y, alpha
