"""The section in MXNet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import multidrop_mxnet  # noqa: F401  # makes the next import work
import mxnet as mx
from mxnet import autograd, gluon, np
from mxnet.gluon import nn

from . import Accumulator

Batches = Iterable[tuple[mx.np.ndarray, mx.np.ndarray]]


def dropout_layer(X: mx.np.ndarray, dropout: float) -> mx.np.ndarray:
    """The section's function."""
    assert 0 <= dropout <= 1
    if dropout == 1:
        return np.zeros_like(X)
    mask = np.random.uniform(0, 1, X.shape, ctx=X.ctx) > dropout
    return mask.astype(X.dtype) * X / (1.0 - dropout)


class Formula(gluon.Block):
    """`dropout_layer` in training mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, X: mx.np.ndarray) -> mx.np.ndarray:
        return dropout_layer(X, self.p) if autograd.is_training() else X


def net(dropout: Callable[[float], gluon.Block] | None, dropout1: float, dropout2: float) -> nn.Sequential:
    """The section's net. `dropout` makes a dropout layer from a probability; None leaves dropout out."""
    net = nn.Sequential()
    net.add(nn.Dense(256, activation="relu", in_units=784))
    if dropout is not None:
        net.add(dropout(dropout1))
    net.add(nn.Dense(256, activation="relu", in_units=256))
    if dropout is not None:
        net.add(dropout(dropout2))
    net.add(nn.Dense(10, in_units=256))
    net.initialize(mx.init.Normal(sigma=0.01))
    return net


def accuracy(y_hat: mx.np.ndarray, y: mx.np.ndarray) -> float:
    """The number of correct predictions."""
    return float((y_hat.argmax(axis=1).astype(y.dtype) == y).astype(y.dtype).sum())


def evaluate_accuracy(net: gluon.Block, data_iter: Batches) -> float:
    """The accuracy of a net on a data set."""
    metric = Accumulator(2)
    for X, y in data_iter:
        metric.add(accuracy(net(X), y), y.size)
    return metric[0] / metric[1]


def train_epoch(net: gluon.Block, train_iter: Batches, loss: Any, updater: Callable[[int], None]) -> Any:
    """Trains one epoch; returns the mean loss and the training accuracy."""
    metric = Accumulator(3)
    for X, y in train_iter:
        with autograd.record():
            y_hat = net(X)
            l = loss(y_hat, y)  # noqa: E741  # the book's name
        l.backward()
        updater(X.shape[0])
        metric.add(float(l.sum()), accuracy(y_hat, y), y.size)
    return metric[0] / metric[2], metric[1] / metric[2]


def train(net: gluon.Block, train_iter: Batches, test_iter: Batches, num_epochs: int, lr: float) -> float:
    """Runs the section's training, and returns the final test accuracy."""
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    test_accuracy = 0.0
    for _ in range(num_epochs):
        train_epoch(net, train_iter, loss, trainer.step)
        test_accuracy = evaluate_accuracy(net, test_iter)
    return test_accuracy
