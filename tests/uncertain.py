"""Nets of three frameworks, for tests of uncertainty, as users write them and with equal weights: a dense layer, batch
norm, ReLU, dropout and a dense layer."""

from __future__ import annotations

from typing import Any

import numpy as np

import multidrop as md

rng = np.random.default_rng(3)
X = rng.normal(size=(7, 6))
W1, b1, W2, b2 = rng.normal(size=(6, 8)), rng.normal(size=8), rng.normal(size=(8, 3)), rng.normal(size=3)
MEAN, VARIANCE = rng.normal(size=8), rng.uniform(0.5, 2.0, size=8)
P = 0.5


def samples(seed: int, count: int) -> np.ndarray:
    """The logits of the nets' samples, by the definition."""
    hidden = np.maximum((X @ W1 + b1 - MEAN) / np.sqrt(VARIANCE + 1e-5), 0.0)
    first = md.Key(seed).fold_in(0).seed
    keep = [md.keep_mask((1, 8), P, md.Key(first, number)) for number in range(count)]
    return np.stack([hidden * each / (1.0 - P) @ W2 + b2 for each in keep])


def torch_net() -> Any:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(P), nn.Linear(8, 3)).double()
    values = {"0.weight": W1.T, "0.bias": b1, "4.weight": W2.T, "4.bias": b2}
    values |= {"1.running_mean": MEAN, "1.running_var": VARIANCE}
    net.load_state_dict({name: torch.tensor(value) for name, value in values.items()}, strict=False)
    return net


def keras_net() -> Any:
    from keras import Input, Sequential, layers

    dtype = "float64"
    norm = layers.BatchNormalization(epsilon=1e-5, dtype=dtype)
    first, last = layers.Dense(8, dtype=dtype), layers.Dense(3, dtype=dtype)
    rest = [norm, layers.ReLU(dtype=dtype), layers.Dropout(P, dtype=dtype), last]
    net = Sequential([Input((6,), dtype=dtype), first, *rest])
    first.set_weights([W1, b1])
    last.set_weights([W2, b2])
    norm.set_weights([np.ones(8), np.zeros(8), MEAN, VARIANCE])
    return net


def gluon_net() -> Any:
    import mxnet as mx
    from mxnet.gluon import nn

    net = nn.HybridSequential()
    first, norm, last = nn.Dense(8, in_units=6), nn.BatchNorm(in_channels=8, epsilon=1e-5), nn.Dense(3, in_units=8)
    net.add(first, norm, nn.Activation("relu"), nn.Dropout(P), last)
    net.cast("float64")
    net.initialize()
    values = {first.weight: W1.T, first.bias: b1, last.weight: W2.T, last.bias: b2}
    values |= {norm.running_mean: MEAN, norm.running_var: VARIANCE}
    for parameter, value in values.items():
        parameter.set_data(mx.nd.array(value, dtype="float64"))
    return net


NETS = {"torch": torch_net, "tensorflow": keras_net, "mxnet": gluon_net}


def numpy_net(p: float = 0.5) -> Any:
    import multidrop_numpy as backend

    return backend.Sequential(
        backend.Linear(W1, b1),
        backend.ReLU(),
        backend.Dropout(p, seed=0),
        backend.Linear(W2, b2),
    )
