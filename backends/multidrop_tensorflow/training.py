"""Minibatch SGD: one step, and the evaluation of a batch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from .functional import tensor


class Trainer:
    """Trains a Keras model by minibatch SGD on softmax cross-entropy: w ← w − lr·(mean gradient + weight_decay·w),
    without decay for biases.

    Both programs are traced once for the first shape of batch and once for batches of any size.

    Args:
        net: a model that maps (n, …) to logits (n, classes).
        lr: the learning rate; like the decay, a constant of the traced step.
        weight_decay: λ of the penalty λ/2·‖w‖².
    """

    compiles = True

    def __init__(self, net: keras.Model, lr: float, weight_decay: float = 0.0) -> None:
        self.net, self._lr, self._weight_decay = net, lr, weight_decay

    def step(self, X: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates the weights from a batch; returns the sum of its losses and the number of correct predictions, both
        from before the update."""
        with self._place():
            loss, right = self._step(tensor(X), tensor(y))
        return loss, right

    @tf.function(reduce_retracing=True)
    def _step(self, X: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self.net(X, training=True)
            losses = _losses(logits, y)
            mean = tf.reduce_mean(losses)
        weights = [weight.value for weight in self.net.trainable_variables]
        # Not by a Keras optimizer: those hold the learning rate as float32, which would limit float64 training.
        for w, gradient in zip(weights, tape.gradient(mean, weights), strict=True):
            decay = 0.0 if w.shape.rank < 2 else self._weight_decay
            w.assign_sub(self._lr * (gradient + decay * w))
        return tf.reduce_sum(losses), _correct(logits, y)

    def evaluate(self, X: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of the losses of a batch and the number of correct predictions, in evaluation mode."""
        with self._place():
            loss, right = self._evaluate(tensor(X), tensor(y))
        return loss, right

    @tf.function(reduce_retracing=True)
    def _evaluate(self, X: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.net(X, training=False)
        return tf.reduce_sum(_losses(logits, y)), _correct(logits, y)

    def _place(self) -> AbstractContextManager[Any]:
        """Where the net's weights are: else TensorFlow runs on the first GPU what it finds no place for."""
        weights = self.net.trainable_variables
        if not weights or not tf.config.list_logical_devices("GPU"):
            return nullcontext()
        return tf.device(weights[0].value.device)


def _losses(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, tf.int64), logits)


def _correct(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(tf.argmax(logits, axis=1) == tf.cast(y, tf.int64))
