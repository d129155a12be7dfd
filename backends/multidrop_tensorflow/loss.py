"""The R-Drop loss of TensorFlow tensors."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from multidrop import checks, loss

from .functional import check_floating, tensor


@tf.autograph.experimental.do_not_convert
def r_drop(logits1: Any, logits2: Any, labels: Any, alpha: float = 1.0) -> tf.Tensor:
    """`multidrop.r_drop` of tensors, differentiable any number of times; eager, in a `tf.function` or under XLA. In a
    trace, sizes may be unknown, and a label that names no class makes the loss NaN. Args and errors are those."""
    first, second, y = (
        tensor(X, name=name) for name, X in (("logits1", logits1), ("logits2", logits2), ("labels", labels))
    )
    check_floating(first, "logits1")
    check_floating(second, "logits2")
    checks.same_type(first.dtype.name, second.dtype.name, "logits2", f"tf.cast(logits2, tf.{first.dtype.name})")
    checks.integers(y.dtype.name, "tf.cast(labels, tf.int64)", "labels")
    if None not in (first.shape.rank, second.shape.rank, y.shape.rank):
        alpha = loss.check(first.shape, second.shape, y.shape, alpha)
    else:
        alpha = checks.at_least_zero("alpha", alpha)
    if tf.executing_eagerly():
        checks.labels(y.numpy(), first.shape[-1])
    compute = tf.float64 if first.dtype == tf.float64 else tf.float32
    return loss.r_drop_of(_tensorflow, tf.cast(first, compute), tf.cast(second, compute), tf.cast(y, tf.int64), alpha)


def _pick(X: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    classes = tf.shape(X, tf.int64)[-1]
    picked = tf.reduce_sum(tf.where(tf.one_hot(labels, tf.cast(classes, tf.int32), True, False), X, 0.0), -1)
    return tf.where((labels >= 0) & (labels < classes), picked, math.nan)


_tensorflow = SimpleNamespace(
    exp=tf.exp, where=tf.where, sum=tf.reduce_sum, mean=tf.reduce_mean, log_softmax=tf.nn.log_softmax, pick=_pick
)
