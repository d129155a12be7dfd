# Needs: mxnet
"""A hybridized Gluon net: each run of the compiled program takes the next mask, as eager calls do."""

# multidrop comes before MXNet: it restores the NumPy names that MXNet 1.9.1 looks up and new versions lack.
from multidrop_mxnet import Dropout  # isort: skip

import mxnet as mx
from mxnet import autograd, gluon
from mxnet.gluon import nn

mx.npx.set_np()


def build(hybridize):
    mx.random.seed(0)  # the initial weights
    net = nn.HybridSequential()
    net.add(nn.Dense(32, activation="relu"), Dropout(0.5, seed=1), nn.Dense(2))
    net.initialize(mx.init.Xavier())
    if hybridize:
        net.hybridize()
    return net


def train(net, steps=5):
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    X, y = mx.np.sin(mx.np.arange(640).reshape(64, 10)), mx.np.arange(64) % 2
    losses = []
    for _ in range(steps):
        with autograd.record():
            loss = loss_of(net(X), y).mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss))
    return losses


eager, hybridized = train(build(hybridize=False)), train(build(hybridize=True))
print("eager:     ", eager)
print("hybridized:", hybridized)
assert all(abs(a - b) < 1e-5 for a, b in zip(eager, hybridized, strict=True))  # equal masks; sums may round differently
