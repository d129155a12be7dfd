"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import gluon
from mxnet.gluon import nn

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes
from multidrop.section.state import in_order, keys_in, state_of

from . import internals
from .conversion import blocks_of
from .functional import NAME, Array, draw_key, tensor, to_numpy
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

    def __repr__(self) -> str:
        return f"{super().__repr__().removesuffix(')')}, {self.dropout})"


@dataclass(frozen=True)
class _Weight:
    """A weight where Gluon holds it."""

    array: Array
    turned: bool = False
    """Whether it is held transposed."""
    shape: tuple[int, ...] | None = None
    """Its common shape, if that is another."""

    def read(self) -> npt.NDArray[Any]:
        """A copy on the host, in the common layout."""
        array = to_numpy(self.array)
        array = np.array(array.T if self.turned else array, order="C")
        return array if self.shape is None else array.reshape(self.shape)

    def write(self, value: npt.NDArray[Any]) -> None:
        """Gives it the values of an array in the common layout."""
        self.array[:] = value.T if self.turned else value


def _named(net: Net | gluon.Block) -> tuple[dict[str, _Weight], dict[str, StreamParameter]]:
    """The weights and the streams by the names that they have in a state: the common ones in a perceptron, in other
    nets the path of the block with the name there."""
    if isinstance(net, Net):
        names = [f"{kind}{number}" for number in (1, 2, 3) for kind in "Wb"]
        weights = {name: _Weight(param) for name, param in zip(names, net.params, strict=True)}
        return weights, _streams({"dropout1": net.dropout1, "dropout2": net.dropout2})
    blocks = dict(blocks_of(net))
    every = {
        f"{path}.{name.removeprefix(block.prefix)}".lstrip("."): _Weight(param.data())
        for path, block in blocks.items()
        for name, param in block.params.items()
        if not isinstance(param, StreamParameter)
    }
    common = _common(net)
    if common is not None and len(common[0]) == len(every):
        return common
    return every, _streams({f"{path}.stream".lstrip("."): block for path, block in blocks.items()})


def _common(net: gluon.Block) -> tuple[dict[str, _Weight], dict[str, StreamParameter]] | None:
    """Those of a perceptron, else None. Gluon's dense layers hold W transposed, and a logit has shape (1,)."""
    parts = in_order(internals.children_of(net).values(), nn.Dense, Random, (nn.Flatten, nn.Activation))
    if parts is None or any(linear.bias is None for linear in parts[0]):
        return None
    weights = {}
    for number, linear in enumerate(parts[0], start=1):
        weights[f"W{number}"] = _Weight(linear.weight.data(), turned=True)
        weights[f"b{number}"] = _Weight(linear.bias.data())
    for number, noise in parts[1].items():
        learned = {name: param for name, param in parameters_of(noise).items() if name != "stream"}
        weights |= {f"{name}{number}": _Weight(param.data(), shape=()) for name, param in learned.items()}
    return weights, _streams({f"dropout{number}": noise for number, noise in parts[1].items()})


def _streams(blocks: Mapping[str, gluon.Block]) -> dict[str, StreamParameter]:
    return {name: block.stream for name, block in blocks.items() if isinstance(block, Random) and block.stream}


def _set_weights(net: Net | gluon.Block, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _named(net)[0].items():
        weight.write(state[name])


def get_state(net: Net | gluon.Block) -> State:
    """Copies a net's weights and mask streams to the host; see `multidrop.protocol.State`. An unkeyed dropout layer has
    no stream, and is left out."""
    weights, streams = _named(net)
    return state_of(
        {name: weight.read() for name, weight in weights.items()},
        {name: stream.key for name, stream in streams.items()},
    )


def set_state(net: Net | gluon.Block, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not the net's.
    """
    weights, streams = _named(net)
    keys = keys_in(state, get_state(net))
    for name, weight in weights.items():
        weight.write(state[name])
    for name, stream in streams.items():
        stream.key = keys[name]
