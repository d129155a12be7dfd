"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from multidrop.protocol import Pass

from . import internals
from .functional import tensor


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
        self._first = next(net.parameters(), None)

    def step(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Makes one update from a batch; returns the sum of its losses, and how many were classified correctly, before
        the update. On a GPU it waits for nothing."""
        self.net.train()
        logits = self.net(self._near(X))
        y = _at(logits.device, y)
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()
        return losses.detach().sum(), _correct(logits.detach(), y)

    @torch.no_grad()
    def evaluate(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses of a batch, and how many are classified correctly, in evaluation mode."""
        self.net.eval()
        logits = self.net(self._near(X))
        y = _at(logits.device, y)
        return nn.functional.cross_entropy(logits, y, reduction="sum"), _correct(logits, y)

    def resident(self, X: npt.NDArray[Any], y: npt.NDArray[Any], values: npt.NDArray[Any] | None) -> Pass | None:
        """A copy of a data set on the net's device; see `multidrop.protocol.Resident`. None for a net on the CPU, to
        which batches of the host are as near."""
        if self._first is None or self._first.device.type == "cpu":
            return None
        return kept_on(self._first.device, X, y, values)

    def _near(self, X: Tensor) -> Tensor:
        """A batch on the device of the net's first weight."""
        return X if self._first is None else _at(self._first.device, X)


def kept_on(place: torch.device, X: npt.NDArray[Any], y: npt.NDArray[Any], values: npt.NDArray[Any] | None) -> Pass:
    """A copy of a data set on a device; see `multidrop.protocol.Resident`."""
    kept, labels = tensor(X).to(place), tensor(y).to(place)
    table = None if values is None else tensor(values).to(place)

    def batches(order: npt.NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in _at(place, tensor(order)).split(size):
            X = kept.index_select(0, chosen)
            # Looked up, not divided: on a GPU torch divides by a number as a product with its inverse.
            yield X if table is None else table[X.long()], labels.index_select(0, chosen)

    return batches


def _at(place: torch.device, X: Tensor) -> Tensor:
    """A tensor on a device. The host does not wait for a GPU; other devices may read memory that the host writes to
    again before they are done."""
    return X if X.device == place else X.to(place, non_blocking=place.type == "cuda" and X.is_cpu)


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == y).sum()
