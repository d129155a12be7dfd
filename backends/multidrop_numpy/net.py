"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes
from multidrop.section.state import in_order, keys_in, state_of
from multidrop.streams import Stream

from .functional import NAME, draw_key
from .layers import Dropout, Flatten, Layer, Linear, Random, ReLU, Sequential, named_layers
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
        for noise in (before, within):
            if noise is not None and noise.parameters:  # of float64, whatever the net's type is
                noise.parameters = {name: w[f"{name}{number - 1}"] for name in noise.parameters}
        if before is not None:
            layers.append(before)
        layers.append(Linear(w[f"W{number}"], w[f"b{number}"], within))
    return Sequential(*layers)


@takes(Architecture)
def concise_net(architecture: Architecture) -> Sequential:
    """`perceptron` with two hidden layers. Errors are those of `multidrop.concise_net`."""
    return perceptron(**vars(architecture.perceptron))


def _named(net: Layer) -> tuple[dict[str, Array], dict[str, Stream]]:
    """The weights and the streams by the names that they have in a state: the common ones in a perceptron, in other
    nets the path of the layer with the name there."""
    if isinstance(net, Net):
        return net.parameters, _streams({"dropout1": net.dropout1, "dropout2": net.dropout2})
    layers = dict(named_layers(net))
    every = {f"{path}.{name}".lstrip("."): w for path, layer in layers.items() for name, w in layer.parameters.items()}
    parts = in_order(net.children(), Linear, Random, (Flatten, ReLU))
    if parts is not None:
        linear, noise = parts
        weights = {f"{name}{i}": each.parameters[name] for i, each in enumerate(linear, start=1) for name in ("W", "b")}
        weights |= {f"{name}{i}": w for i, each in noise.items() for name, w in each.parameters.items()}
        if len(weights) == len(every):
            return weights, _streams({f"dropout{i}": each for i, each in noise.items()})
    return every, _streams({f"{path}.stream".lstrip("."): each for path, each in layers.items()})


def _streams(layers: Mapping[str, Layer]) -> dict[str, Stream]:
    return {name: layer.stream for name, layer in layers.items() if isinstance(layer, Random) and layer.stream}


def get_state(net: Layer) -> State:
    """Copies a net's weights and mask streams; see `multidrop.protocol.State`. An unkeyed dropout layer has no stream,
    and is left out."""
    weights, streams = _named(net)
    return state_of(
        {name: w.copy() for name, w in weights.items()},
        {name: stream.key for name, stream in streams.items()},
    )


def set_state(net: Layer, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not the net's.
    """
    weights, streams = _named(net)
    keys = keys_in(state, get_state(net))
    for name, w in weights.items():
        w[...] = state[name]
    for name, stream in streams.items():
        stream.key = keys[name]
