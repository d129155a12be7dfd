"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Trainer:
    """Trains a module by minibatch SGD on softmax cross-entropy: w ← w − lr·(mean gradient + weight_decay·w), without
    decay for biases and learned probabilities.

    Args:
        net: a module that maps (n, …) to logits (n, classes).
        lr: the learning rate.
        weight_decay: λ of the penalty λ/2·‖w‖².
    """

    def __init__(self, net: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        self.net = net
        biases = [p for p in net.parameters() if p.ndim < 2]
        weights = [p for p in net.parameters() if p.ndim >= 2]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": weight_decay}, {"params": biases}]
        self.optimizer = torch.optim.SGD(groups, lr=lr)

    def step(self, X: Tensor, y: Tensor) -> tuple[float, int]:
        """Makes one update from a batch; returns the sum of its losses, and how many were classified correctly, before
        the update."""
        self.net.train()
        logits = self.net(X)
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()
        return float(losses.detach().sum()), int((logits.argmax(dim=1) == y).sum())

    @torch.no_grad()
    def evaluate(self, X: Tensor, y: Tensor) -> int:
        """How many of a batch are classified correctly in evaluation mode."""
        self.net.eval()
        return int((self.net(X).argmax(dim=1) == y).sum())
