"""The loss of a classifier and its gradient, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
    classes = logits.shape[1]
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"labels: expected integers in [0, {classes}); got {outside[0]}")
    shifted = logits - logits.max(axis=1, keepdims=True)  # the exponentials stay at most 1
    exponentials = np.exp(shifted)
    totals = exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    losses = np.log(totals[:, 0]) - shifted[rows, labels]
    gradients = exponentials / totals
    gradients[rows, labels] -= 1
    return losses, gradients
