"""The section's net: from scratch, and from Keras' own layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, keys_in, state_of, takes

from .functional import NAME, draw_key
from .layers import Dropout
from .position import key_at, words_of


@keras.saving.register_keras_serializable(package="multidrop")
class Net(keras.Model):
    """Two hidden layers with ReLU and dropout. Maps X of shape (n, …), with num_inputs elements per example, to logits
    of shape (n, num_outputs).

    Args and errors are those of `multidrop.Net`. In Keras the call sets the mode, `net(X, training=True)`; a net
    whose `is_training` is False never drops.
    """

    @takes(NetArchitecture)
    def __init__(self, architecture: NetArchitecture) -> None:
        super().__init__(dtype=architecture.dtype)
        self.architecture = architecture
        self.num_inputs = architecture.num_inputs
        self.is_training = architecture.is_training
        self.lin1, self.lin2, self.lin3 = _linear_layers(architecture)
        weights, key1, key2 = architecture.start(NAME, draw_key)
        self.dropout1 = Dropout(architecture.dropout1, seed=key1, dtype=architecture.dtype, name="dropout1")
        self.dropout2 = Dropout(architecture.dropout2, seed=key2, dtype=architecture.dtype, name="dropout2")
        _set_weights(self, weights)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The sizes and settings for `from_config`; parameters and streams are weights."""
        seed = None if self.dropout1.stream is None else 0  # so that the net has streams to load into
        return {**vars(self.architecture), "is_training": self.is_training, "seed": seed}

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        training = training if self.is_training else False
        H1 = self.dropout1(self.lin1(tf.reshape(inputs, (-1, self.num_inputs))), training=training)
        H2 = self.dropout2(self.lin2(H1), training=training)
        return self.lin3(H2)


@takes(Architecture)
def concise_net(architecture: Architecture) -> keras.Sequential:
    """The same net as a `keras.Sequential`. Errors are those of `multidrop.concise_net`."""
    weights, key1, key2 = architecture.start(NAME, draw_key)
    lin1, lin2, lin3 = _linear_layers(architecture)
    net = FlatteningSequential(
        [
            keras.Input((architecture.num_inputs,), dtype=architecture.dtype),
            lin1,
            Dropout(architecture.dropout1, seed=key1, dtype=architecture.dtype),
            lin2,
            Dropout(architecture.dropout2, seed=key2, dtype=architecture.dtype),
            lin3,
        ]
    )
    _set_weights(net, weights)
    return net


@keras.saving.register_keras_serializable(package="multidrop")
class FlatteningSequential(keras.Sequential):
    """A `Sequential` that flattens (n, 1, 28, 28) and (n, 784) alike to its `Input`.

    A Keras `Sequential` with a `Flatten` layer would be bound to the rank of its first input, and before that have
    nothing for `tf.train.Checkpoint` to save.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocast = (
            False  # which would cast to float32 whatever type the layers have; the `Input` casts to its own type
        )

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None, mask: Any = None) -> tf.Tensor:
        return super().call(tf.reshape(inputs, (-1, *self.input_shape[1:])), training=training, mask=mask)


def _linear_layers(architecture: Architecture) -> list[keras.layers.Dense]:
    """The linear layers, the hidden ones with a ReLU; built, so that they have weights before the first call."""
    last = len(architecture.layers) - 1
    layers = []
    for number, (inputs, outputs) in enumerate(architecture.layers):
        activation = None if number == last else "relu"
        layer = keras.layers.Dense(outputs, activation, kernel_initializer="zeros", dtype=architecture.dtype)
        layer.build((None, inputs))
        layers.append(layer)
    return layers


def _weights(net: keras.Model) -> dict[str, keras.Variable]:
    """The weights by their common names. Keras' dense layers store W as (inputs, outputs), as the section does."""
    linear = [layer for layer in net.layers if isinstance(layer, keras.layers.Dense)]
    weights = {}
    for number, layer in enumerate(linear, start=1):
        weights[f"W{number}"] = layer.kernel
        weights[f"b{number}"] = layer.bias
    return weights


def _set_weights(net: keras.Model, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _weights(net).items():
        weight.assign(state[name])


def _streams(net: keras.Model) -> dict[str, keras.Variable]:
    layers = [layer for layer in net.layers if isinstance(layer, Dropout)]
    return {f"dropout{i}": layer.stream for i, layer in enumerate(layers, start=1) if layer.stream is not None}


def get_state(net: keras.Model) -> State:
    """A net's weights and mask streams, copied to the host; see `multidrop.protocol.State`. A dropout layer
    without a key has no stream, and is left out."""
    return state_of(
        {name: np.array(weight.numpy()) for name, weight in _weights(net).items()},
        {name: key_at(stream) for name, stream in _streams(net).items()},
    )


def set_state(net: keras.Model, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not the net's.
    """
    keys = keys_in(state, get_state(net))
    _set_weights(net, state)
    for name, stream in _streams(net).items():
        stream.assign(words_of(keys[name]))
