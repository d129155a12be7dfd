"""The section's net, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, check_state
from multidrop.spec.keys import Key
from multidrop.streams import Stream, seeds_for

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

    def __init__(
        self,
        num_inputs: int = 784,
        num_outputs: int = 10,
        num_hiddens1: int = 256,
        num_hiddens2: int = 256,
        *,
        dropout1: float = 0.2,
        dropout2: float = 0.5,
        is_training: bool = True,
        seed: int | Key | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.architecture = Architecture(num_inputs, num_outputs, num_hiddens1, num_hiddens2, dropout1, dropout2, dtype)
        seeds = seeds_for(NAME, seed)
        self.parameters = self.architecture.initial_weights(seeds.next("weights") or draw_key())
        self.dropout1 = Dropout(self.architecture.dropout1, seed=seeds.next("dropout"))
        self.dropout2 = Dropout(self.architecture.dropout2, seed=seeds.next("dropout"))
        self.train(is_training)

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


def concise_net(
    num_inputs: int = 784,
    num_outputs: int = 10,
    num_hiddens1: int = 256,
    num_hiddens2: int = 256,
    *,
    dropout1: float = 0.2,
    dropout2: float = 0.5,
    seed: int | Key | None = None,
    dtype: str = "float32",
) -> Sequential:
    """The same net as a `Sequential`. Args and errors are those of `multidrop.concise_net`."""
    architecture = Architecture(num_inputs, num_outputs, num_hiddens1, num_hiddens2, dropout1, dropout2, dtype)
    seeds = seeds_for(NAME, seed)
    w = architecture.initial_weights(seeds.next("weights") or draw_key())
    return Sequential(
        Flatten(),
        Linear(w["W1"], w["b1"]),
        ReLU(),
        Dropout(architecture.dropout1, seed=seeds.next("dropout")),
        Linear(w["W2"], w["b2"]),
        ReLU(),
        Dropout(architecture.dropout2, seed=seeds.next("dropout")),
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
    streams = {name: stream.key for name, stream in _streams(net).items()}
    state = {name: w.copy() for name, w in _weights(net).items()}
    return state | {name: np.array([key.seed, key.call], np.uint64) for name, key in streams.items()}


def set_state(net: Layer, state: Mapping[str, Array]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not those of the net.
    """
    weights, streams = _weights(net), _streams(net)
    check_state(state, {name: w.shape for name, w in weights.items()} | dict.fromkeys(streams, (2,)))
    for name, w in weights.items():
        w[...] = state[name]
    for name, stream in streams.items():
        stream.key = Key(*map(int, state[name]))
