"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

import mxnet as mx
from mxnet import gluon

from .functional import Array, to_numpy
from .net import Net


class Trainer:
    """Trains a net by minibatch SGD on softmax cross-entropy: w ← w − lr·(mean gradient + weight_decay·w), without
    decay for biases and learned probabilities.

    Args:
        net: a `Net` or an initialized block that maps (n, …) to logits (n, classes).
        lr: the learning rate.
        weight_decay: λ of the penalty λ/2·‖w‖².
    """

    def __init__(self, net: Net | gluon.Block, lr: float, weight_decay: float = 0.0) -> None:
        self.net, self.lr, self.weight_decay = net, lr, weight_decay

    def step(self, X: Array, y: Array) -> tuple[float, int]:
        """Updates the net from a batch. Returns the sum of the losses and the number of correct predictions, from
        before the update."""
        with mx.autograd.record():
            logits = self.net(X).as_np_ndarray()
            losses = -mx.npx.pick(mx.npx.log_softmax(logits), y.as_np_ndarray())
        losses.backward(mx.np.full_like(losses, 1 / len(y)))  # a mean is a scalar, which needs `npx.set_np`
        self._update()
        return float(to_numpy(losses).sum()), _correct(logits, y)

    def _update(self) -> None:
        # By hand: the learning rate of `gluon.Trainer` and its `sgd_update` is float32, whatever the weights are.
        for w, gradient in self._weights():
            decay = 0.0 if w.ndim < 2 else self.weight_decay
            w -= self.lr * (gradient + decay * w)

    def _weights(self) -> list[tuple[Array, Array]]:
        """Each weight with its gradient."""
        if isinstance(self.net, Net):
            return [(w, w.grad) for w in self.net.params]
        params = [param for param in self.net.collect_params().values() if param.grad_req != "null"]
        return [pair for param in params for pair in zip(param.list_data(), param.list_grad(), strict=True)]

    def evaluate(self, X: Array, y: Array) -> int:
        """The number of correct predictions for a batch, in evaluation mode."""
        with mx.autograd.pause():
            return _correct(self.net(X), y)


def _correct(logits: Array, y: Array) -> int:
    return int((to_numpy(logits).argmax(axis=1) == to_numpy(y)).sum())
