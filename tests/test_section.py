"""The section's programs with this library's parts in the place of its own.

The harness below is written to the protocol of the book's `train_ch3(net, train_iter, test_iter, loss, num_epochs,
updater)` in each framework: what it calls on a net, a loss and an updater, and in which mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import multidrop as md

LR, BATCH = 0.5, 256


def torch_ch3(net: Any, train_iter: Any, test_iter: Any, epochs: int) -> float:
    import torch

    loss = torch.nn.CrossEntropyLoss(reduction="none")
    updater = torch.optim.SGD(net.parameters(), lr=LR)
    for _ in range(epochs):
        net.train()
        for X, y in train_iter:
            losses = loss(net(X), y)
            updater.zero_grad()
            losses.mean().backward()
            updater.step()
    net.eval()
    with torch.no_grad():
        hits = [(net(X).argmax(axis=1).type(y.dtype) == y).type(y.dtype).sum().item() for X, y in test_iter]
    return sum(hits) / len(test_iter.labels)


def tensorflow_ch3(net: Any, train_iter: Any, test_iter: Any, epochs: int) -> float:
    import tensorflow as tf

    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    updater = tf.keras.optimizers.SGD(learning_rate=LR)
    for _ in range(epochs):
        for X, y in train_iter:
            with tf.GradientTape() as tape:
                value = loss(y, net(X, training=True))
            variables = net.trainable_variables
            updater.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
    hits = [int(tf.reduce_sum(tf.cast(tf.argmax(net(X), 1) == tf.cast(y, tf.int64), tf.int64))) for X, y in test_iter]
    return sum(hits) / len(test_iter.labels)


def mxnet_ch3(net: Any, train_iter: Any, test_iter: Any, epochs: int) -> float:
    from mxnet import autograd, gluon, npx

    npx.set_np()  # as the section's first lines do
    try:
        loss = gluon.loss.SoftmaxCrossEntropyLoss()
        if isinstance(net, gluon.Block):
            trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": LR})
            updater: Callable[[int], None] = trainer.step
        else:

            def updater(batch_size: int) -> None:
                for param in net.params:
                    param[:] = param - LR * param.grad / batch_size

        for _ in range(epochs):
            for X, y in train_iter:
                with autograd.record():
                    losses = loss(net(X), y)
                losses.backward()
                updater(X.shape[0])
        hits = [int((net(X).argmax(axis=1).astype(y.dtype) == y).astype(y.dtype).sum()) for X, y in test_iter]
        return sum(hits) / len(test_iter.labels)
    finally:
        npx.reset_np()


def numpy_ch3(net: Any, train_iter: Any, test_iter: Any, epochs: int) -> float:
    """The section has no NumPy; this is how its loop reads where the gradients are written by hand."""
    from multidrop.loss import softmax_cross_entropy

    def layers(layer: Any) -> list[Any]:
        return [layer, *(inner for child in layer.children() for inner in layers(child))]

    for _ in range(epochs):
        net.train()
        for X, y in train_iter:
            _, gradient = softmax_cross_entropy(net(X), y)
            net.backward(gradient / len(y))
            for layer in layers(net):
                for name, param in layer.parameters.items():
                    param -= LR * layer.gradients[name]
    net.eval()
    return sum((net(X).argmax(axis=1) == y).sum() for X, y in test_iter) / len(test_iter.labels)


HARNESS = {"numpy": numpy_ch3, "torch": torch_ch3, "tensorflow": tensorflow_ch3, "mxnet": mxnet_ch3}


@pytest.mark.parametrize("build", [md.Net, md.concise_net], ids=["from-scratch", "concise"])
def test_train_ch3(backend: Any, build: Callable[..., Any]) -> None:
    """With the section's harness and its names, a net learns as it does with `md.train`."""
    num_inputs, num_outputs, num_hiddens1, num_hiddens2 = 784, 10, 256, 256
    epochs = 6
    accuracies = []
    for harness in (HARNESS[backend.name], lambda net, a, b, n: md.train(net, a, b, n).epochs[-1].test_accuracy):
        md.manual_seed(0)
        train_iter, test_iter = md.load_data_fashion_mnist(BATCH, "mini")
        net = build(num_inputs, num_outputs, num_hiddens1, num_hiddens2)
        accuracies.append(harness(net, train_iter, test_iter, epochs))
    # Ten classes: chance is 0.1. Rounding separates two float32 runs, whose accuracies then differ a little.
    assert min(accuracies) > 0.3
    assert abs(accuracies[0] - accuracies[1]) < 0.1


def test_the_printed_examples(backend: Any) -> None:
    """`X = arange(16).reshape(2, 8)` through p = 0, 0.5 and 1."""
    X = backend.tensor(np.arange(16, dtype=np.float32).reshape(2, 8))
    md.manual_seed(0)
    all_kept, half, none = (backend.to_numpy(md.dropout_layer(X, p)) for p in (0, 0.5, 1))
    assert np.array_equal(all_kept, np.arange(16).reshape(2, 8))
    assert not none.any()
    assert set(np.unique(half / np.maximum(np.arange(16), 1).reshape(2, 8))) == {0.0, 2.0}
    assert 0 < (half != 0).sum() < 15
    assert "30" in str(md.dropout_layer(X, 0.0)) or "15" in str(md.dropout_layer(X, 0.0))


def test_dropout_layer_in_a_model_of_the_users_own(backend: Any) -> None:
    """The section's from-scratch net calls the function, without a key, wherever its framework runs it: eagerly or
    traced, two calls draw two masks."""
    X = backend.tensor(np.ones((64, 64), np.float32))

    def net(X: Any) -> Any:
        return md.dropout_layer(X, 0.5)

    runs = [net]
    if backend.name == "tensorflow":
        import tensorflow as tf

        runs += [tf.function(net), tf.function(net, jit_compile=True)]
    for seed in (None, 3):
        for run in runs:
            md.manual_seed(seed)
            first, second = backend.to_numpy(run(X)), backend.to_numpy(run(X))
            assert not np.array_equal(first, second)
            if seed is not None:
                md.manual_seed(seed)
                assert np.array_equal(backend.to_numpy(run(X)), first)
