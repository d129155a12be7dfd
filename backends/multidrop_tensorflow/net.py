"""The section's net: from scratch, and from Keras' own layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes
from multidrop.section.state import in_order, keys_in, state_of

from . import internals
from .conversion import layers_of, numbered, own_name
from .functional import NAME, draw_key, to_numpy
from .layers import Dropout, _Random
from .member_layers import layer
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
        self.lin1, self.lin2, self.lin3 = _linear_layers(architecture.perceptron, [None] * 3)
        weights, (_, key1, key2) = architecture.perceptron.start(NAME, draw_key)
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


@takes(PerceptronArchitecture)
def perceptron(architecture: PerceptronArchitecture) -> keras.Sequential:
    """A perceptron of any depth, as a `keras.Sequential`. Errors are those of `multidrop.perceptron`."""
    weights, keys = architecture.start(NAME, draw_key)
    noise = architecture.noise_layers(keys, partial(layer, dtype=architecture.dtype))
    layers = [keras.Input(architecture.sizes[:1], dtype=architecture.dtype)]
    for linear, (before, _) in zip(_linear_layers(architecture, [own for _, own in noise]), noise, strict=True):
        layers += [linear] if before is None else [before, linear]
    net = FlatteningSequential(layers)
    _set_weights(net, weights)
    return net


@takes(Architecture)
def concise_net(architecture: Architecture) -> keras.Sequential:
    """`perceptron` with two hidden layers. Errors are those of `multidrop.concise_net`."""
    return perceptron(**vars(architecture.perceptron))


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


@keras.saving.register_keras_serializable(package="multidrop")
class DroppedDense(keras.layers.Dense):
    """A dense layer that computes with dropped weights in training mode.

    Args:
        *args: those of `Dense`.
        dropout: the layer that drops its kernel.
        **kwargs: those of `Dense`.
    """

    def __init__(self, *args: Any, dropout: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = dropout

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        return self.activation(tf.matmul(inputs, self.dropout(self.kernel, training=training)) + self.bias)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dropout": keras.saving.serialize_keras_object(self.dropout)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DroppedDense:
        """A layer with the configuration that `get_config` gave."""
        return cls(**{**config, "dropout": keras.saving.deserialize_keras_object(config["dropout"])})


def _linear_layers(architecture: PerceptronArchitecture, noise: Sequence[Any]) -> list[keras.layers.Dense]:
    """The linear layers, the hidden ones with a ReLU; built, so that they have weights before the first call.

    Args:
        architecture: their sizes.
        noise: for each, the layer that drops its weights, or None.
    """
    last = len(architecture.layers) - 1
    layers = []
    for number, ((inputs, outputs), dropout) in enumerate(zip(architecture.layers, noise, strict=True)):
        build = keras.layers.Dense if dropout is None else partial(DroppedDense, dropout=dropout)
        activation = None if number == last else "relu"
        layer = build(outputs, activation, kernel_initializer="zeros", dtype=architecture.dtype)
        layer.build((None, inputs))
        layers.append(layer)
    return layers


def _named(net: keras.layers.Layer) -> tuple[dict[str, keras.Variable], dict[str, keras.Variable]]:
    """The weights and the streams by the names that they have in a state: the common ones in a perceptron, in other
    nets the path of the layer with the name there, without the numbers that Keras appends."""
    weights: dict[str, keras.Variable] = {}
    streams: dict[str, keras.Variable] = {}
    for path, holder in layers_of(net, own_name):
        own = internals.own_variables(holder)
        for name, variable in zip(numbered([variable.name for variable in own]), own, strict=True):
            position = getattr(variable, "is_position", False)
            (streams if position else weights)[f"{path}.{name}".lstrip(".")] = variable
    common = _common(net)
    return common if common is not None and len(common[0]) == len(weights) else (weights, streams)


def _common(net: keras.layers.Layer) -> tuple[dict[str, keras.Variable], dict[str, keras.Variable]] | None:
    """Those of a perceptron, else None. Keras' dense layers store W as (inputs, outputs), as the section does."""
    if isinstance(net, Net):
        parts: Any = [net.lin1, net.lin2, net.lin3], {1: net.dropout1, 2: net.dropout2}
    else:
        others = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.ReLU)
        parts = in_order(getattr(net, "layers", ()), keras.layers.Dense, _Random, others)
    if parts is None or not all(linear.built and linear.use_bias for linear in parts[0]):
        return None
    weights = {}
    for number, linear in enumerate(parts[0], start=1):
        weights[f"W{number}"] = linear.kernel
        weights[f"b{number}"] = linear.bias
    for number, noise in parts[1].items():
        weights |= {f"{weight.name}{number}": weight for weight in noise.trainable_variables}
    streams = {f"dropout{i}": noise.stream for i, noise in parts[1].items() if noise.stream is not None}
    return weights, streams


def _set_weights(net: keras.Model, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _named(net)[0].items():
        weight.assign(state[name])


def get_state(net: keras.layers.Layer) -> State:
    """A net's weights and mask streams, copied to the host; see `multidrop.protocol.State`. A dropout layer
    without a key has no stream, and is left out."""
    weights, streams = _named(net)
    return state_of(
        {name: np.array(to_numpy(weight.value)) for name, weight in weights.items()},
        {name: key_at(stream) for name, stream in streams.items()},
    )


def set_state(net: keras.layers.Layer, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not the net's.
    """
    weights, streams = _named(net)
    keys = keys_in(state, get_state(net))
    for name, weight in weights.items():
        weight.assign(state[name])
    for name, stream in streams.items():
        stream.assign(words_of(keys[name]))
