"""Small Gluon nets and layers, for tests of MXNet."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import multidrop as md
from multidrop import family


def small_net(seed: int | None, hybridized: bool) -> Any:
    """A net with two dropout layers and weights that are the same each time."""
    import multidrop_mxnet as backend
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    net.add(
        mx.gluon.nn.Dense(32, in_units=16),
        backend.Dropout(0.5, seed=seed),
        mx.gluon.nn.Dense(32, in_units=32),
        backend.Dropout(0.3, seed=None if seed is None else seed + 1),
        mx.gluon.nn.Dense(4, in_units=32),
    )
    net.initialize()
    for number, layer in enumerate(net):
        if hasattr(layer, "weight"):
            values = np.random.default_rng(number).normal(size=layer.weight.shape).astype(np.float32)
            layer.weight.set_data(mx.np.array(values) if mx.util.is_np_array() else mx.nd.array(values))
    if hybridized:
        net.hybridize()
    return net


def trained_step(net: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """The output of a training step and the gradient of the first weights."""
    import mxnet as mx

    with mx.autograd.record():
        Y = net(X)
        L = (Y * Y).sum()
    L.backward()
    return Y.asnumpy(), net[0].weight.grad().asnumpy()


def small_batch() -> Any:
    import mxnet as mx

    x = np.random.default_rng(5).normal(size=(8, 16)).astype(np.float32)
    return mx.np.array(x) if mx.util.is_np_array() else mx.nd.array(x)


def layers_of_all(p: float, seed: int | None = None) -> list[Any]:
    """A layer of each kind of member, at p or a deviation of p; p that is learned begins with 1/10."""
    kinds = family.MEMBERS.values()
    first = {kind: {} if kind.learns else {dataclasses.fields(kind)[0].name: p} for kind in kinds}
    with md.use_backend("mxnet"):
        layers = [md.layer(kind(**settings), seed=seed) for kind, settings in first.items()]
    for layer in layers:
        layer.initialize()
    return layers


def net_around(layer: Any) -> Any:
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    net.add(layer)
    net.hybridize()
    return net


def small_dense() -> Any:
    import mxnet as mx

    return mx.gluon.nn.Dense(3, in_units=4)
