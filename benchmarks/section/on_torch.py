"""The section in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from . import Accumulator

Batches = Iterable[tuple[Tensor, Tensor]]


def dropout_layer(X: Tensor, dropout: float) -> Tensor:
    """The section's function."""
    assert 0 <= dropout <= 1
    if dropout == 1:
        return torch.zeros_like(X)
    mask = (torch.rand(X.shape, device=X.device) > dropout).to(X.dtype)
    return mask * X / (1.0 - dropout)


class Formula(nn.Module):
    """`dropout_layer` in training mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, X: Tensor) -> Tensor:
        return dropout_layer(X, self.p) if self.training else X


class Net(nn.Module):
    """The section's net.

    Args:
        dropout: makes a dropout layer from a probability.
        dropout1, dropout2: the probabilities.
    """

    def __init__(self, dropout: Callable[[float], nn.Module], dropout1: float, dropout2: float) -> None:
        super().__init__()
        self.lin1, self.lin2, self.lin3 = nn.Linear(784, 256), nn.Linear(256, 256), nn.Linear(256, 10)
        self.relu = nn.ReLU()
        self.dropout1, self.dropout2 = dropout(dropout1), dropout(dropout2)
        for layer in (self.lin1, self.lin2, self.lin3):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, X: Tensor) -> Tensor:
        H1 = self.dropout1(self.relu(self.lin1(X.reshape((-1, 784)))))
        H2 = self.dropout2(self.relu(self.lin2(H1)))
        return self.lin3(H2)


def accuracy(y_hat: Tensor, y: Tensor) -> float:
    """The number of correct predictions."""
    return float((y_hat.argmax(dim=1).type(y.dtype) == y).type(y.dtype).sum())


def evaluate_accuracy(net: nn.Module, data_iter: Batches) -> float:
    """The accuracy of a net on a data set."""
    net.eval()
    metric = Accumulator(2)
    with torch.no_grad():
        for X, y in data_iter:
            metric.add(accuracy(net(X), y), y.numel())
    return metric[0] / metric[1]


def train_epoch(net: nn.Module, train_iter: Batches, loss: nn.Module, updater: torch.optim.Optimizer) -> Any:
    """Trains one epoch; returns the mean loss and the training accuracy."""
    net.train()
    metric = Accumulator(3)
    for X, y in train_iter:
        y_hat = net(X)
        l = loss(y_hat, y)  # noqa: E741  # the book's name
        updater.zero_grad()
        l.mean().backward()
        updater.step()
        metric.add(float(l.sum()), accuracy(y_hat, y), y.numel())
    return metric[0] / metric[2], metric[1] / metric[2]


def train(net: nn.Module, train_iter: Batches, test_iter: Batches, num_epochs: int, lr: float) -> float:
    """Runs the section's training, and returns the final test accuracy."""
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = torch.optim.SGD(net.parameters(), lr=lr)
    test_accuracy = 0.0
    for _ in range(num_epochs):
        train_epoch(net, train_iter, loss, trainer)
        test_accuracy = evaluate_accuracy(net, test_iter)
    return test_accuracy
