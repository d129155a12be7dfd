"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import gluon
from mxnet.gluon import nn

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, keys_in, state_of, takes

from .functional import NAME, Array, draw_key, tensor
from .layers import Dropout
from .position import StreamParameter


@mx.util.use_np_shape  # for a batch of no examples
class Net:
    """Two hidden layers with ReLU and dropout; maps X of shape (n, …), num_inputs elements an example, to logits of
    shape (n, num_outputs).

    `net.params` are the weights W1, b1, W2, b2, W3, b3, with gradients attached. `net.dropout1` and `net.dropout2` are
    Gluon blocks: their forward hooks (`register_forward_hook`) see the hidden activations before and after dropout.

    Args and errors are those of `multidrop.Net`. The net drops inside `autograd.record()`, unless `is_training` is
    False.
    """

    @takes(NetArchitecture)
    def __init__(self, architecture: NetArchitecture) -> None:
        self.num_inputs = architecture.num_inputs
        self.is_training = architecture.is_training
        weights, key1, key2 = architecture.start(NAME, draw_key)
        self.dropout1 = Dropout(architecture.dropout1, seed=key1)
        self.dropout2 = Dropout(architecture.dropout2, seed=key2)
        self.params = [tensor(weight) for weight in weights.values()]
        for param in self.params:
            param.attach_grad()

    def __call__(self, X: Array) -> mx.np.ndarray:
        return self.forward(X)

    def forward(self, X: Array) -> mx.np.ndarray:
        """The logits for X."""
        W1, b1, W2, b2, W3, b3 = self.params
        X = X.as_np_ndarray().reshape(-1, self.num_inputs)
        with nullcontext() if self.is_training else mx.autograd.predict_mode():
            H1 = self.dropout1.after_relu(_linear(X, W1, b1))
            H2 = self.dropout2.after_relu(_linear(H1, W2, b2))
            return _linear(H2, W3, b3)

    def __repr__(self) -> str:
        sizes = " -> ".join(map(str, (self.num_inputs, *map(len, self.params[1::2]))))
        rates = f"dropout1={self.dropout1.rate}, dropout2={self.dropout2.rate}"
        return f"Net({sizes}, {rates}, is_training={self.is_training})"


def _linear(X: Array, W: Array, b: Array) -> Array:
    """X·W + b, in half the time of `mx.np.dot` and a sum, gradients included."""
    return mx.npx.fully_connected(X, W.T, b, num_hidden=len(b), flatten=False)


@mx.util.use_np
class Sequential(nn.Sequential):
    """Gluon's `Sequential` with NumPy arrays for parameters and output, whether or not `npx.set_np()` was called; the
    input may be of either kind."""

    def forward(self, X: Array) -> mx.np.ndarray:
        return super().forward(X.as_np_ndarray())


@takes(Architecture)
def concise_net(architecture: Architecture) -> Sequential:
    """The same net as a `Sequential`, initialized. Errors are those of `multidrop.concise_net`."""
    weights, key1, key2 = architecture.start(NAME, draw_key)
    (in1, out1), (in2, out2), (in3, out3) = architecture.layers
    net = Sequential()
    net.add(
        nn.Dense(out1, activation="relu", in_units=in1, dtype=architecture.dtype),
        Dropout(architecture.dropout1, seed=key1),
        nn.Dense(out2, activation="relu", in_units=in2, dtype=architecture.dtype),
        Dropout(architecture.dropout2, seed=key2),
        nn.Dense(out3, in_units=in3, dtype=architecture.dtype),
    )
    net.initialize(mx.init.Zero())  # draws nothing from MXNet's generator
    _set_weights(net, weights)
    return net


def _layers(net: Net | gluon.Block, kind: type) -> list[Any]:
    """The net's layers of one kind, in order."""
    if isinstance(net, Net):
        return [layer for layer in (net.dropout1, net.dropout2) if isinstance(layer, kind)]
    layers: list[gluon.Block] = []
    net.apply(layers.append)
    return [layer for layer in layers if isinstance(layer, kind)]


def _weights(net: Net | gluon.Block) -> dict[str, Array]:
    """The weights by their common names; Gluon's dense layers hold W transposed."""
    if isinstance(net, Net):
        weights = net.params
    else:
        weights = [param.data() for layer in _layers(net, nn.Dense) for param in (layer.weight, layer.bias)]
    return {f"{'Wb'[i % 2]}{i // 2 + 1}": weight for i, weight in enumerate(weights)}


def _oriented(net: Net | gluon.Block, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turns a weight from the net's layout to the common one, or back."""
    return weight if isinstance(net, Net) else weight.T


def _set_weights(net: Net | gluon.Block, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _weights(net).items():
        weight[:] = _oriented(net, state[name])


def _streams(net: Net | gluon.Block) -> dict[str, StreamParameter]:
    layers = _layers(net, Dropout)
    return {f"dropout{i}": layer.stream for i, layer in enumerate(layers, start=1) if layer.stream is not None}


def get_state(net: Net | gluon.Block) -> State:
    """Copies a net's weights and mask streams to the host; see `multidrop.protocol.State`. An unkeyed dropout layer has
    no stream, and is left out."""
    return state_of(
        {name: np.array(_oriented(net, w.asnumpy()), order="C") for name, w in _weights(net).items()},
        {name: stream.key for name, stream in _streams(net).items()},
    )


def set_state(net: Net | gluon.Block, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not those of the net.
    """
    keys = keys_in(state, get_state(net))
    _set_weights(net, state)
    for name, stream in _streams(net).items():
        stream.key = keys[name]
