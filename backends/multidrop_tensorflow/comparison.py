"""Runs a Keras model for a comparison: see `multidrop.comparison`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop import checks
from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point, first_tensor
from multidrop.spec.keys import Key

from .conversion import layers_of
from .functional import to_numpy
from .internals import own_variables
from .layers import _Random
from .position import key_at


class Probe:
    """Runs a model eagerly and records the inputs and outputs of its layers. At the end of the context the model is as
    before, except for its weights."""

    def __init__(self, model: keras.layers.Layer) -> None:
        self.model = model
        self._layers = dict(layers_of(model))
        formats = [layer.data_format for layer in self._layers.values() if hasattr(layer, "data_format")]
        self.channels_last = formats[0] == "channels_last" if formats else None
        self._points: list[Point] = []

    @property
    def dtype(self) -> str:
        """The name of the type that the model computes in: the coarsest among its layers with weights."""
        found = {layer.compute_dtype for layer in self._layers.values() if _weights(layer)} & set(checks.FLOATING)
        return min(found, key=checks.FLOATING.index, default=self.model.compute_dtype)

    def parts(self) -> list[Part]:
        """The layers with weights, in the order of their definition. The model must have run."""
        found = []
        for path, layer in self._layers.items():
            if variables := _weights(layer):
                axes = {name: tuple(range(variable.ndim)) for name, variable in variables.items()}
                found.append(Part(path, _kind(layer), axes, _activation(layer)))
        return found

    def dropouts(self) -> dict[str, keras.layers.Layer]:
        """The dropout layers by path, in the order of their definition."""
        return {path: layer for path, layer in self._layers.items() if isinstance(layer, _Random)}

    def key(self, path: str, key: Key | None) -> Key | None:
        """Moves a dropout layer to a key, or to Keras' generator; returns the key of its next call before."""
        layer = self._layers[path]
        before = None if layer.stream is None else key_at(layer.stream)
        layer._key_by(key)
        return before

    def __enter__(self) -> Probe:
        for path, layer in self._layers.items():
            object.__setattr__(layer, "call", self._watched(path, layer))  # bypasses Keras, which would track it
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self._layers.values():
            del layer.__dict__["call"]

    def _watched(self, path: str, layer: keras.layers.Layer) -> Callable[..., Any]:
        call, kind, last = (
            layer.call,
            parts.DROPOUT if isinstance(layer, _Random) else _kind(layer),
            _channels_last(layer),
        )

        def recorded(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            if args and tf.is_tensor(args[0]) and tf.is_tensor(outputs):
                self._points.append(Point(path, kind, to_numpy(args[0]), to_numpy(outputs), last))
            return outputs

        return recorded

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Point]]:
        """The output for a batch, and the inputs and outputs of the layers in the order in which they ran."""
        self._points.clear()
        with tf.GradientTape() as self._tape:
            self._Y = first_tensor(self.model(tf.constant(X), training=training), (tf.Tensor,))
        return to_numpy(self._Y), list(self._points)

    def backward(self, dY: npt.NDArray[Any]) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """The gradients of the weights, by path and name, from the gradient of the last output."""
        weights = {name: variable.value for name, variable in self._variables().items() if variable.trainable}
        gradients = self._tape.gradient(self._Y, weights, output_gradients=tf.cast(dY, self._Y.dtype))
        return {name: to_numpy(gradient) for name, gradient in gradients.items() if gradient is not None}

    def read(self) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """Copies of the weights, by path and name, in the model's own layout."""
        return {name: np.array(to_numpy(variable.value)) for name, variable in self._variables().items()}

    def write(self, values: Mapping[tuple[str, str], npt.NDArray[Any]]) -> None:
        """Gives weights new values."""
        variables = self._variables()
        for name, value in values.items():
            variables[name].assign(value)

    def _variables(self) -> dict[tuple[str, str], keras.Variable]:
        return {(path, name): v for path, layer in self._layers.items() for name, v in _weights(layer).items()}


_NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_KINDS: tuple[tuple[Any, str], ...] = (
    (keras.layers.Dense, parts.DENSE),
    (_CONVOLUTIONS, parts.CONVOLUTION),
    (_NORMS, parts.NORM),
    (keras.layers.Embedding, parts.EMBEDDING),
)


def _kind(layer: keras.layers.Layer) -> str:
    return next((kind for types, kind in _KINDS if isinstance(layer, types)), type(layer).__name__)


def _activation(layer: keras.layers.Layer) -> str | None:
    """The name of the activation that a layer applies to its output; None for the identity."""
    activation = getattr(layer, "activation", None) or keras.activations.linear
    name = getattr(activation, "__name__", type(activation).__name__)
    return None if name == "linear" else name


def _weights(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """A layer's own weights by their common names."""
    names = {"embeddings": parts.KERNEL, "kernel": parts.KERNEL, "bias": parts.BIAS}
    if isinstance(layer, _NORMS):
        names = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), parts.NORM_WEIGHTS, strict=True))
    stream = layer.stream if isinstance(layer, _Random) else None
    variables = [v for v in own_variables(layer) if v is not stream]
    return {names.get(variable.name, variable.name): variable for variable in variables}


def _channels_last(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis != 1
    return getattr(layer, "data_format", "channels_last") == "channels_last"
