"""Layers with a hand-written forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy.typing as npt

from multidrop import checks, host
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.streams import Stream, layer_key
from multidrop.view import Drawing, Drawn, not_a_layer

from .functional import NAME, draw_key, floating

Array = npt.NDArray


class Layer:
    """A function with a gradient. `forward` keeps what `backward` needs, for the last call only. `parameters` and
    `gradients` are dictionaries with the same names; a training step updates parameters in place."""

    def __init__(self) -> None:
        self.training = True
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}

    def forward(self, X: Array) -> Array:
        """The layer's output for a batch X of shape (n, …)."""
        raise NotImplementedError(f"{type(self).__name__}.forward")  # each layer's own

    def backward(self, dY: Array) -> Array:
        """Computes the gradient with respect to the last input from dY, the gradient with respect to the last output.
        Fills `gradients`."""
        raise NotImplementedError(f"{type(self).__name__}.backward")  # each layer's own

    def children(self) -> Iterator[Layer]:
        """The layers within this one."""
        return iter(())

    def train(self, mode: bool = True) -> Layer:
        """Switches the layer and its children to training or evaluation mode. Returns the layer."""
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Layer:
        """`train(False)`."""
        return self.train(False)

    def __call__(self, X: Array) -> Array:
        return self.forward(X)


class Linear(Layer):
    """Y = X·W + b.

    Args:
        W: weights of shape (inputs, outputs), floating.
        b: biases of shape (outputs,).
        dropout: a layer that disturbs W in training, such as `DropConnect`; without one, W stays as it is.
    """

    def __init__(self, W: Array, b: Array, dropout: Layer | None = None) -> None:
        super().__init__()
        self.parameters, self.dropout = {"W": W, "b": b}, dropout
        if isinstance(dropout, Drawn):
            dropout.drops_weights = True

    def children(self) -> Iterator[Layer]:
        return iter(() if self.dropout is None else (self.dropout,))

    def forward(self, X: Array) -> Array:
        W = self.parameters["W"]
        self._X, self._W = X, W if self.dropout is None else self.dropout(W)
        return X @ self._W + self.parameters["b"]

    def backward(self, dY: Array) -> Array:
        dW = self._X.T @ dY
        self.gradients = {"W": dW if self.dropout is None else self.dropout.backward(dW), "b": dY.sum(axis=0)}
        return dY @ self._W.T

    def __repr__(self) -> str:
        dropout = "" if self.dropout is None else f", {self.dropout}"
        return "Linear({}, {}{})".format(*self.parameters["W"].shape, dropout)


class ReLU(Layer):
    """max(x, 0), elementwise; the gradient at 0 is 0."""

    def forward(self, X: Array) -> Array:
        self._Y = masks.relu(X)
        return self._Y

    def backward(self, dY: Array) -> Array:
        return dY * (self._Y > 0)

    def __repr__(self) -> str:
        return "ReLU()"


class Flatten(Layer):
    """(n, …) to (n, product of the rest)."""

    def forward(self, X: Array) -> Array:
        self._shape = X.shape
        return X.reshape(len(X), -1)

    def backward(self, dY: Array) -> Array:
        return dY.reshape(self._shape)

    def __repr__(self) -> str:
        return "Flatten()"


class Random(Drawn, Layer):
    """Base class of the layers that draw. In training mode each call takes the next key. No mask is stored: `backward`
    draws it again from the key of `forward`."""

    def __init__(self, seed: int | Key | None) -> None:
        super().__init__()
        self._last: tuple[Key, tuple[int, ...], float] | None = None  # of the last mask: key, shape, p
        self._key_by(layer_key(NAME, seed))
        self._key: Key | None = None  # of the last forward, where that took one
        self._shape: tuple[int, ...] | None = None  # of its input

    def _key_by(self, key: Key | None) -> None:
        """Has the layer's stream go on from `key`; None has the layer follow NumPy's generator."""
        self.stream = None if key is None else Stream(key)

    def _next_key(self, X: Array, idle: bool) -> Key | None:
        """The key of this call; None in evaluation mode. In training mode a keyed layer moves on by one call. An
        unkeyed layer draws none for an `idle` call or an empty array, since nothing is dropped."""
        self._key, self._shape = None, X.shape
        if self.training and self.stream is not None:
            self._key = self.stream.next()
        elif self.training and not idle and X.size:
            self._key = draw_key()
        return self._key

    def _checked_gradient(self, dY: Array) -> Array:
        dY = floating(dY, "dY")
        if dY.shape != self._shape:
            raise ValueError(f"dY: expected the shape of the last output, {self._shape}; got {dY.shape}")
        return dY


class Dropout(Random):
    """Zeroes each element with probability p in training mode and scales the others by 1/(1 − p); passes the input on
    in evaluation mode.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        axes: the axes along which all elements share one decision, as (2, 3) to drop channels of images (n, c, h, w).
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by NumPy's global generator.

    Raises:
        ValueError: for a bad probability, axes or seed.
    """

    def __init__(self, p: float = 0.5, axes: int | Sequence[int] = (), *, seed: int | Key | None = None) -> None:
        self.p, self.axes = checks.probability("p", p), checks.axis_numbers(axes)
        super().__init__(seed)
        self._Y: Array | None = None

    def forward(self, X: Array) -> Array:
        self._Y = None
        return self._forward(X, relu=False)

    def after_relu(self, X: Array) -> Array:
        """`forward` of max(X, 0), in one pass; `backward` is then the gradient of both."""
        self._Y = self._forward(X, relu=True)
        return self._Y

    def _forward(self, X: Array, relu: bool) -> Array:
        X = floating(X)
        p, axes = self._p, self._axes_for(X.shape)  # before a key is taken
        key = self._next_key(X, p == 0.0)
        if key is None:
            return masks.relu(X) if relu else X
        self._last = key, X.shape, p
        return host.dropout(X, p, key, axes=axes, relu=relu)

    def backward(self, dY: Array) -> Array:
        dY = self._checked_gradient(dY)
        *_, p = self._last if self._key and self._last else (None, 0.0)  # of the forward: p may have changed
        if self._Y is not None:
            return host.relu_gradient(dY, self._Y, p)
        return dY if self._key is None else host.dropout(dY, p, self._key, axes=self._axes_for(dY.shape))

    @property
    def _p(self) -> float:
        return checks.probability("p", self.p)  # may have been changed

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return () if shape is None else checks.axes(self.axes, len(shape))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p}" + (f", axes={self.axes})" if self.axes else ")")


def drawing(layer: Layer, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a dropout layer draws; see `multidrop.view`."""
    if not isinstance(layer, Random):
        raise not_a_layer(layer)
    last, known, last_p = layer._last or (None, None, None)
    shape = known if shape is None else shape
    axes = layer._axes_for(shape)  # raises if the layer has no mask
    return Drawing(layer._p, last, None if layer.stream is None else layer.stream.key, shape, axes, last_p)


class Sequential(Layer):
    """Layers one after the other.

    Raises:
        ValueError: for a layer that comes twice, since it keeps its last call only.
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        if len(set(map(id, layers))) < len(layers):
            raise ValueError(f"layers: expected each layer once; got {', '.join(map(repr, layers))}")
        self.layers = layers

    def children(self) -> Iterator[Layer]:
        return iter(self.layers)

    def forward(self, X: Array) -> Array:
        for layer in self.layers:
            X = layer(X)
        return X

    def backward(self, dY: Array) -> Array:
        for layer in reversed(self.layers):
            dY = layer.backward(dY)
        return dY

    def __repr__(self) -> str:
        lines = [f"({number}): {layer}" for number, layer in enumerate(self.layers)]
        return "\n  ".join(["Sequential(", *lines, f"training={self.training}"]) + "\n)"


def named_layers(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """A layer and all within it by the names, or numbers, along the way."""
    yield path, layer
    names = {id(child): name for name, child in vars(layer).items()}
    for number, child in enumerate(layer.children()):
        name = names.get(id(child), str(number))
        yield from named_layers(child, f"{path}.{name}" if path else name)
