"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from multidrop.loss import softmax_cross_entropy

from .layers import Layer

Array = npt.NDArray


class Trainer:
    """Trains a net by minibatch SGD on softmax cross-entropy: w ← w − lr·(mean gradient + weight_decay·w), without
    decay for biases and learned probabilities.

    Args:
        net: a `Layer` that maps (n, …) to logits (n, classes).
        lr: the learning rate.
        weight_decay: λ of the penalty λ/2·‖w‖².
    """

    compiles = False  # the kernel is compiled once, and kept on disk

    def __init__(self, net: Layer, lr: float, weight_decay: float = 0.0) -> None:
        self.net, self.lr, self.weight_decay = net, lr, weight_decay

    @np.errstate(over="ignore", invalid="ignore")  # the loss says it, as in the other frameworks
    def step(self, X: Array, y: Array) -> tuple[float, int]:
        """Updates the net from a batch. Returns the sum of the losses and the number of correct predictions, from
        before the update."""
        self.net.train()
        logits = self.net(X)
        losses, gradients = softmax_cross_entropy(logits, y)
        self.net.backward(gradients / len(y))
        self._update(self.net)
        return float(losses.sum()), int((logits.argmax(axis=1) == y).sum())

    def _update(self, layer: Layer) -> None:
        for name, w in layer.parameters.items():
            decay = 0.0 if w.ndim < 2 else self.weight_decay
            w -= self.lr * (layer.gradients[name] + decay * w)
        for child in layer.children():
            self._update(child)

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self, X: Array, y: Array) -> tuple[float, int]:
        """The sum of the losses of a batch and the number of correct predictions, in evaluation mode."""
        self.net.eval()
        logits = self.net(X)
        losses, _ = softmax_cross_entropy(logits, y)
        return float(losses.sum()), int((logits.argmax(axis=1) == y).sum())
