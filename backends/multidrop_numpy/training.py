"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

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

    def __init__(self, net: Layer, lr: float, weight_decay: float = 0.0) -> None:
        self.net, self.lr, self.weight_decay = net, lr, weight_decay

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

    def evaluate(self, X: Array, y: Array) -> int:
        """The number of correct predictions for a batch, in evaluation mode."""
        self.net.eval()
        return int((self.net(X).argmax(axis=1) == y).sum())
