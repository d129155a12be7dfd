"""Dropout by a mask, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from multidrop.spec.masks import Mask

from . import internals, native, on_host
from .draw import drop, fuses_relu, rectified


def masked(X: tf.Tensor, mask: Mask, relu: bool = False) -> tf.Tensor:
    """X, or max(X, 0), through a mask: `dropout_layer` after its checks.

    The gradient of a dropout is the same dropout of the gradient, so the backward pass keeps only the position, and can
    be differentiated again. With ReLU it keeps the output, which the next operation mostly keeps anyway.
    """
    if relu and mask.p != 0.0 and fuses_relu(X):
        Y = on_host.drop(X, mask, relu=True)
        return with_gradient(X, lambda X: Y, lambda dY: _gated(dY, Y, mask.p))
    if relu:
        X = rectified(X)
    if mask.p == 0.0:
        return X
    return with_gradient(X, lambda X: drop(X, mask), lambda dY: masked(dY, mask))


def _gated(dY: tf.Tensor, Y: tf.Tensor, p: float) -> tf.Tensor:
    """The gradient of `masked` with ReLU for its output Y. It is linear in dY, and so its own gradient."""
    return with_gradient(dY, lambda dY: on_host.relu_gradient(dY, Y, p), lambda ddX: _gated(ddX, Y, p))


def with_gradient(X: tf.Tensor, function: Callable[..., tf.Tensor], gradient: Callable[..., tf.Tensor]) -> tf.Tensor:
    """`function(X)`, with `gradient` as its gradient."""
    if internals.record_operation is None:
        return tf.custom_gradient(lambda X: (function(X), gradient))(X)
    Y = function(X)
    internals.record_operation(native.OP, [Y], [X], lambda dY: [gradient(dY)])
    return Y
