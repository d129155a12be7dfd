"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy.typing as npt

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, keys_in, state_of, takes
from multidrop.streams import Stream

from .functional import NAME, draw_key
from .layers import Dropout, Flatten, Layer, Linear, ReLU, Sequential

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
        self.parameters, key1, key2 = architecture.start(NAME, draw_key)
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


@takes(Architecture)
def concise_net(architecture: Architecture) -> Sequential:
    """The same net as a `Sequential`. Errors are those of `multidrop.concise_net`."""
    w, key1, key2 = architecture.start(NAME, draw_key)
    return Sequential(
        Flatten(),
        Linear(w["W1"], w["b1"]),
        ReLU(),
        Dropout(architecture.dropout1, seed=key1),
        Linear(w["W2"], w["b2"]),
        ReLU(),
        Dropout(architecture.dropout2, seed=key2),
        Linear(w["W3"], w["b3"]),
    )


def _weights(net: Layer) -> dict[str, Array]:
    if isinstance(net, Net):
        return net.parameters
    linear = [layer.parameters for layer in net.children() if isinstance(layer, Linear)]
    return {f"{name}{i}": w[name] for i, w in enumerate(linear, start=1) for name in ("W", "b")}


def _streams(net: Layer) -> dict[str, Stream]:
    layers = [layer for layer in net.children() if isinstance(layer, Dropout)]
    return {f"dropout{i}": layer.stream for i, layer in enumerate(layers, start=1) if layer.stream is not None}


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
