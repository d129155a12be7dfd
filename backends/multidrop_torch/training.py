"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import internals


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
        self.compiles = internals.is_compiled(net)
        biases = [p for p in net.parameters() if p.ndim < 2]
        weights = [p for p in net.parameters() if p.ndim >= 2]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": weight_decay}, {"params": biases}]
        self.optimizer = torch.optim.SGD(groups, lr=lr)

    def step(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Makes one update from a batch; returns the sum of its losses, and how many were classified correctly, before
        the update."""
        self.net.train()
        logits = self.net(X)
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()
        return losses.detach().sum(), _correct(logits.detach(), y)

    @torch.no_grad()
    def evaluate(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses of a batch, and how many are classified correctly, in evaluation mode."""
        self.net.eval()
        logits = self.net(X)
        return nn.functional.cross_entropy(logits, y, reduction="sum"), _correct(logits, y)


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == y).sum()
