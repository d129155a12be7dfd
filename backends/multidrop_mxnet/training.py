"""One step of minibatch SGD, and the evaluation of a batch."""

from __future__ import annotations

import mxnet as mx
from mxnet import gluon

from . import internals
from .conversion import blocks_of
from .functional import Array
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
        blocks = [] if isinstance(net, Net) else [block for _, block in blocks_of(net)]
        self.compiles = any(isinstance(block, gluon.HybridBlock) and internals.is_active(block) for block in blocks)

    def step(self, X: Array, y: Array) -> tuple[Array, Array]:
        """Updates the net from a batch. Returns the sum of the losses and the number of correct predictions, from
        before the update."""
        X, y = self._near(X), self._near(y)
        with mx.autograd.record():
            logits = self.net(X).as_np_ndarray()
            losses = _losses(logits, y)
        losses.backward(mx.np.full_like(losses, 1 / len(y)))  # a mean is a scalar, which needs `npx.set_np`
        self._update()
        return _sum(losses), _correct(logits, y)

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

    def evaluate(self, X: Array, y: Array) -> tuple[Array, Array]:
        """The sum of the losses of a batch and the number of correct predictions, in evaluation mode."""
        X, y = self._near(X), self._near(y)
        with mx.autograd.pause():
            logits = self.net(X).as_np_ndarray()
            return _sum(_losses(logits, y)), _correct(logits, y)

    def _near(self, X: Array) -> Array:
        """A batch in a context of the net: where it is, if the net is there too."""
        contexts = [w.ctx for w, _ in self._weights()]
        return X if not contexts or X.ctx in contexts else X.copyto(contexts[0])


def _losses(logits: Array, y: Array) -> Array:
    return -mx.npx.pick(mx.npx.log_softmax(logits), y.as_np_ndarray())


# The two below return arrays of shape (1,), because a scalar needs `npx.set_np`, and NumPy-style ones, because classic
# ones do not convert to numbers.


def _sum(losses: Array) -> mx.np.ndarray:
    return losses.as_nd_ndarray().astype("float64").sum().as_np_ndarray()


def _correct(logits: Array, y: Array) -> mx.np.ndarray:
    predicted = logits.as_nd_ndarray().argmax(axis=1).astype("int64")
    return (predicted == y.as_nd_ndarray().astype("int64")).sum().as_np_ndarray()
