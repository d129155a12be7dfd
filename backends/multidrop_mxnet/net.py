"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import gluon
from mxnet.gluon import nn

from multidrop import checks
from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes
from multidrop.section.state import in_order, keys_in, state_of

from . import internals
from .functional import NAME, Array, draw_key, tensor
from .layers import Dropout, Random, parameters_of
from .member_layers import layer
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
        weights, (_, key1, key2) = architecture.perceptron.start(NAME, draw_key)
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


@takes(PerceptronArchitecture)
def perceptron(architecture: PerceptronArchitecture) -> Sequential:
    """A perceptron of any depth, as a `Sequential`, initialized. Errors are those of `multidrop.perceptron`."""
    weights, keys = architecture.start(NAME, draw_key)
    net, last = Sequential(), len(architecture.layers) - 1
    pairs = zip(architecture.layers, architecture.noise_layers(keys, layer), strict=True)
    for number, ((inputs, outputs), (before, within)) in enumerate(pairs):
        if before is not None:  # a Dense flattens its input, and noise does not
            net.add(*(() if number else (nn.Flatten(),)), before)
        build = nn.Dense if within is None else partial(DroppedDense, within)
        activation = None if number == last else "relu"
        net.add(build(outputs, activation=activation, in_units=inputs, dtype=architecture.dtype))
    net.cast(architecture.dtype)  # what the noise learns, too
    net.initialize(mx.init.Zero())  # draws nothing from MXNet's generator
    _set_weights(net, weights)
    return net


@takes(Architecture)
def concise_net(architecture: Architecture) -> Sequential:
    """`perceptron` with two hidden layers. Errors are those of `multidrop.concise_net`."""
    return perceptron(**vars(architecture.perceptron))


class DroppedDense(nn.Dense):
    """A dense layer that computes with dropped weights in training mode. The mask is drawn for W of shape (inputs,
    outputs), as in every framework; Gluon holds W transposed.

    Args:
        dropout: the layer that drops them.
        *args: those of `nn.Dense`.
        **kwargs: those of `nn.Dense`.
    """

    def __init__(self, dropout: gluon.HybridBlock, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = dropout

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        return super().hybrid_forward(F, x, self.dropout(weight.T).T, bias)


def _parts(net: Net | gluon.Block) -> tuple[list[Any], dict[int, Any]]:
    """The linear layers, and the layers of noise by number."""
    if isinstance(net, Net):
        return [], {1: net.dropout1, 2: net.dropout2}
    found = in_order(internals.children_of(net).values(), nn.Dense, Random, (nn.Flatten, nn.Activation))
    if found is None:
        raise ValueError(f"net: expected Net, or a sequence of linear layers, ReLU and noise; got {checks.shown(net)}")
    return found


def _weights(net: Net | gluon.Block) -> dict[str, Array]:
    """The weights by their common names; Gluon's dense layers hold W transposed."""
    linear, noise = _parts(net)
    if isinstance(net, Net):
        weights = net.params
    else:
        weights = [param.data() for layer in linear for param in (layer.weight, layer.bias)]
    found = {f"{'Wb'[i % 2]}{i // 2 + 1}": weight for i, weight in enumerate(weights)}
    for number, each in noise.items():
        found |= {f"{name}{number}": param.data() for name, param in parameters_of(each).items() if name != "stream"}
    return found


def _oriented(net: Net | gluon.Block, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turns a weight from the net's layout to the common one, or back."""
    return weight if isinstance(net, Net) else weight.T


def _host(net: Net | gluon.Block, name: str, weight: Array) -> npt.NDArray[Any]:
    """A copy of a weight on the host. Gluon's logit has shape (1,), the common one ()."""
    array = np.array(_oriented(net, weight.asnumpy()), order="C")
    return array.reshape(()) if name.startswith("logit") else array


def _set_weights(net: Net | gluon.Block, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _weights(net).items():
        weight[:] = _oriented(net, state[name])


def _streams(net: Net | gluon.Block) -> dict[str, StreamParameter]:
    return {f"dropout{i}": layer.stream for i, layer in _parts(net)[1].items() if layer.stream is not None}


def get_state(net: Net | gluon.Block) -> State:
    """Copies a net's weights and mask streams to the host; see `multidrop.protocol.State`. An unkeyed dropout layer has
    no stream, and is left out."""
    return state_of(
        {name: _host(net, name, w) for name, w in _weights(net).items()},
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
