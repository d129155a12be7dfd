"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from multidrop import checks
from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes
from multidrop.section.state import in_order, keys_in, state_of
from multidrop.streams import Stream

from .functional import NAME, draw_key
from .layers import Dropout, Flatten, Layer, Linear, Random, ReLU, Sequential
from .member_layers import layer

Array = npt.NDArray


class Net(Layer):
    """Two hidden layers with ReLU and dropout, every gradient by hand.

    `net(X)` maps X of shape (n, …), num_inputs elements an example, to logits of shape (n, num_outputs);
    `net.backward(dY)` fills `net.gradients` under the names of `net.parameters`: W1, b1, W2, b2, W3, b3. The hidden
    activations of the last call, after dropout, are `net.H1` and `net.H2`, of shape (n, num_hiddens1) and
    (n, num_hiddens2).

    Args and errors are those of `multidrop.Net`; `is_training` is the mode at the start, `train()` and `eval()`
    switch it.
    """

    @takes(NetArchitecture)
    def __init__(self, architecture: NetArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.parameters, (_, key1, key2) = architecture.perceptron.start(NAME, draw_key)
        self.dropout1 = Dropout(self.architecture.dropout1, seed=key1)
        self.dropout2 = Dropout(self.architecture.dropout2, seed=key2)
        self.train(architecture.is_training)

    def children(self) -> Iterator[Layer]:
        return iter((self.dropout1, self.dropout2))

    def forward(self, X: Array) -> Array:
        w = self.parameters
        self._X = X.reshape(-1, self.architecture.num_inputs)
        self.H1 = self.dropout1.after_relu(self._X @ w["W1"] + w["b1"])
        self.H2 = self.dropout2.after_relu(self.H1 @ w["W2"] + w["b2"])
        return self.H2 @ w["W3"] + w["b3"]

    def backward(self, dY: Array) -> Array:
        w = self.parameters
        dH2 = self.dropout2.backward(dY @ w["W3"].T)
        dH1 = self.dropout1.backward(dH2 @ w["W2"].T)
        self.gradients = {
            "W1": self._X.T @ dH1,
            "b1": dH1.sum(axis=0),
            "W2": self.H1.T @ dH2,
            "b2": dH2.sum(axis=0),
            "W3": self.H2.T @ dY,
            "b3": dY.sum(axis=0),
        }
        return dH1 @ w["W1"].T

    def __repr__(self) -> str:
        w = self.parameters
        sizes = " -> ".join(map(str, (len(w["W1"]), *(len(w[b]) for b in ("b1", "b2", "b3")))))
        rates = f"dropout1={self.dropout1.p}, dropout2={self.dropout2.p}"
        return f"Net({sizes}, {rates}, training={self.training})"


@takes(PerceptronArchitecture)
def perceptron(architecture: PerceptronArchitecture) -> Sequential:
    """A perceptron of any depth, as a `Sequential`. Errors are those of `multidrop.perceptron`."""
    w, keys = architecture.start(NAME, draw_key)
    layers: list[Layer] = [Flatten()]
    for number, (before, within) in enumerate(architecture.noise_layers(keys, layer), start=1):
        if number > 1:
            layers.append(ReLU())
        if before is not None:
            layers.append(before)
        layers.append(Linear(w[f"W{number}"], w[f"b{number}"], within))
    net = Sequential(*layers)
    for number, noise in _parts(net)[1].items():
        if noise.parameters:  # of float64, whatever the net's type is
            noise.parameters = {"logit": w[f"logit{number}"]}
    return net


@takes(Architecture)
def concise_net(architecture: Architecture) -> Sequential:
    """`perceptron` with two hidden layers. Errors are those of `multidrop.concise_net`."""
    return perceptron(**vars(architecture.perceptron))


def _parts(net: Layer) -> tuple[list[Any], dict[int, Any]]:
    """The linear layers, and the layers of noise by number."""
    if isinstance(net, Net):
        return [], {1: net.dropout1, 2: net.dropout2}
    found = in_order(net.children(), Linear, Random, (Flatten, ReLU))
    if found is None:
        raise ValueError(f"net: expected Net, or a sequence of linear layers, ReLU and noise; got {checks.shown(net)}")
    return found


def _weights(net: Layer) -> dict[str, Array]:
    if isinstance(net, Net):
        return net.parameters
    linear, noise = _parts(net)
    weights = {f"{name}{i}": layer.parameters[name] for i, layer in enumerate(linear, start=1) for name in ("W", "b")}
    learned = {f"{name}{i}": w for i, layer in noise.items() for name, w in layer.parameters.items()}
    return weights | learned


def _streams(net: Layer) -> dict[str, Stream]:
    return {f"dropout{i}": layer.stream for i, layer in _parts(net)[1].items() if layer.stream is not None}


def get_state(net: Layer) -> State:
    """Copies a net's weights and mask streams; see `multidrop.protocol.State`. An unkeyed dropout layer has no stream,
    and is left out."""
    return state_of(
        {name: w.copy() for name, w in _weights(net).items()},
        {name: stream.key for name, stream in _streams(net).items()},
    )


def set_state(net: Layer, state: Mapping[str, Array]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not those of the net.
    """
    keys = keys_in(state, get_state(net))
    for name, w in _weights(net).items():
        w[...] = state[name]
    for name, stream in _streams(net).items():
        stream.key = keys[name]
