"""Layers with a hand-written forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from multidrop import checks, kernel
from multidrop.keys import Key, Stream, layer_key
from multidrop.view import Drawing, not_a_layer

from .functional import NAME, draw_key, relu

Array = npt.NDArray


class Layer:
    """A function with a gradient. `forward` remembers what `backward` needs; `parameters` and `gradients` are
    dictionaries with the same names, updated in place."""

    def __init__(self) -> None:
        self.training = True
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}

    def forward(self, X: Array) -> Array:
        """The layer's output for a batch X of shape (n, …)."""
        raise NotImplementedError(f"{type(self).__name__}.forward")  # each layer's own

    def backward(self, dY: Array) -> Array:
        """The gradient with respect to the last input, from dY, the one with respect to the last output; fills
        `gradients`."""
        raise NotImplementedError(f"{type(self).__name__}.backward")  # each layer's own

    def children(self) -> Iterator[Layer]:
        """The layers that this one is made of."""
        return iter(())

    def train(self, mode: bool = True) -> Layer:
        """Switches the layer and its children to training mode, or to evaluation mode; gives the layer back."""
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
    """

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__()
        self.parameters = {"W": W, "b": b}

    def forward(self, X: Array) -> Array:
        self._X = X
        return X @ self.parameters["W"] + self.parameters["b"]

    def backward(self, dY: Array) -> Array:
        self.gradients = {"W": self._X.T @ dY, "b": dY.sum(axis=0)}
        return dY @ self.parameters["W"].T

    def __repr__(self) -> str:
        return "Linear({}, {})".format(*self.parameters["W"].shape)


class ReLU(Layer):
    """max(x, 0), elementwise; the gradient at 0 is 0."""

    def forward(self, X: Array) -> Array:
        self._Y = relu(X)
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


class Dropout(Layer):
    """Zeroes each element with probability p in training mode and scales the others by 1/(1 − p); passes the input on
    in evaluation mode. No mask is stored: `backward` draws it again from the key that `forward` used.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        axes: along which one decision holds for all elements, as (2, 3) for the channels of images (n, c, h, w).
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by NumPy's global generator.

    Raises:
        ValueError: for a bad probability or seed.
    """

    def __init__(self, p: float = 0.5, axes: int | Sequence[int] = (), *, seed: int | Key | None = None) -> None:
        super().__init__()
        self.p = checks.probability("p", p)
        self.axes = axes
        key = layer_key(NAME, seed)
        self.stream = None if key is None else Stream(key)
        self._key: Key | None = None  # of the last forward, where that dropped
        self._last: tuple[Key, tuple[int, ...]] | None = None  # of the last one that dropped, and its input's shape
        self._Y: Array | None = None

    def forward(self, X: Array) -> Array:
        self._Y = None
        return self._forward(X, relu=False)

    def after_relu(self, X: Array) -> Array:
        """`forward` of max(X, 0), in one pass; `backward` is then the gradient of both."""
        self._Y = self._forward(X, relu=True)
        return self._Y

    def _forward(self, X: Array, relu: bool) -> Array:
        checks.floating(X.dtype.name, 'X.astype("float32")')
        self._key = None
        if not self.training:
            return np.maximum(X, 0) if relu else X
        self._key = draw_key() if self.stream is None else self.stream.next()
        self._last = self._key, X.shape
        return self._dropout(X, self._key, relu)

    def backward(self, dY: Array) -> Array:
        if self._Y is not None:
            return kernel.relu_gradient(dY, self._Y, 0.0 if self._key is None else self.p)
        return dY if self._key is None else self._dropout(dY, self._key, relu=False)

    def _dropout(self, X: Array, key: Key, relu: bool) -> Array:
        return kernel.dropout(X, self.p, key, axes=checks.axes(self.axes, X.ndim), relu=relu)

    def __repr__(self) -> str:
        return f"Dropout(p={self.p}" + (f", axes={self.axes})" if self.axes else ")")


def drawing(layer: Layer, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a dropout layer draws; see `multidrop.view`."""
    if not isinstance(layer, Dropout):
        raise not_a_layer(layer)
    last, known = layer._last or (None, None)
    shape = known if shape is None else shape
    axes = () if shape is None else checks.axes(layer.axes, len(shape))
    return Drawing(layer.p, last, None if layer.stream is None else layer.stream.key, shape, axes)


class Sequential(Layer):
    """Layers one after the other."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
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
        return "Sequential({})".format(", ".join(map(repr, self.layers)))
