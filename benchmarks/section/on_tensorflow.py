"""The section in TensorFlow. The book runs its loop eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from . import Accumulator

Batches = Iterable[tuple[tf.Tensor, tf.Tensor]]


def dropout_layer(X: tf.Tensor, dropout: float) -> tf.Tensor:
    """The section's function."""
    assert 0 <= dropout <= 1
    if dropout == 1:
        return tf.zeros_like(X)
    mask = tf.random.uniform(shape=tf.shape(X), minval=0, maxval=1) < 1 - dropout
    return tf.cast(mask, dtype=X.dtype) * X / (1.0 - dropout)


class Formula(keras.layers.Layer):
    """`dropout_layer` in training mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return dropout_layer(inputs, self.p) if training else inputs


class Net(keras.Model):
    """The section's net.

    Args:
        dropout: makes a dropout layer from a probability; None for no dropout at all.
        dropout1, dropout2: the probabilities.
    """

    def __init__(self, dropout: Callable[[float], keras.layers.Layer] | None, dropout1: float, dropout2: float) -> None:
        super().__init__()
        normal = keras.initializers.RandomNormal(stddev=0.01)
        self.flatten = keras.layers.Flatten()
        self.hidden1 = keras.layers.Dense(256, activation="relu", kernel_initializer=normal)
        self.hidden2 = keras.layers.Dense(256, activation="relu", kernel_initializer=normal)
        self.out = keras.layers.Dense(10, kernel_initializer=normal)
        self.dropout1 = dropout and dropout(dropout1)
        self.dropout2 = dropout and dropout(dropout2)
        self(tf.zeros((1, 1, 28, 28)))  # builds the net

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        x = self.hidden1(self.flatten(inputs))
        if self.dropout1 is not None:
            x = self.dropout1(x, training=training)
        x = self.hidden2(x)
        if self.dropout2 is not None:
            x = self.dropout2(x, training=training)
        return self.out(x)


def accuracy(y_hat: tf.Tensor, y: tf.Tensor) -> float:
    """The number of correct predictions."""
    cmp = tf.cast(tf.argmax(y_hat, axis=1), y.dtype) == y
    return float(tf.reduce_sum(tf.cast(cmp, y.dtype)))


def evaluate_accuracy(net: keras.Model, data_iter: Batches) -> float:
    """The accuracy of a net on a data set."""
    metric = Accumulator(2)
    for X, y in data_iter:
        metric.add(accuracy(net(X), y), int(tf.size(y)))
    return metric[0] / metric[1]


def train_epoch(net: keras.Model, train_iter: Batches, loss: Any, updater: Any) -> tuple[float, float]:
    """Trains one epoch; returns the mean loss and the training accuracy."""
    metric = Accumulator(3)
    for X, y in train_iter:
        with tf.GradientTape() as tape:
            y_hat = net(X, training=True)
            l = loss(y, y_hat)  # noqa: E741  # the book's name
        params = net.trainable_variables
        grads = tape.gradient(l, params)
        updater.apply_gradients(zip(grads, params, strict=True))
        metric.add(float(l * float(tf.size(y))), accuracy(y_hat, y), int(tf.size(y)))
    return metric[0] / metric[2], metric[1] / metric[2]


def train(net: keras.Model, train_iter: Batches, test_iter: Batches, num_epochs: int, lr: float) -> float:
    """Runs the section's training, and returns the final test accuracy."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer = keras.optimizers.SGD(learning_rate=lr)
    test_accuracy = 0.0
    for _ in range(num_epochs):
        train_epoch(net, train_iter, loss, trainer)
        test_accuracy = evaluate_accuracy(net, test_iter)
    return test_accuracy
