"""The dropout layer as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from multidrop import checks
from multidrop.keys import Key, layer_key

from . import ops
from .functional import NAME, check_floating, masked

if keras.config.backend() != "tensorflow":
    raise ImportError(
        f"multidrop_tensorflow: expected Keras to run on 'tensorflow'; got {keras.config.backend()!r}: set "
        "KERAS_BACKEND=tensorflow before Keras is first imported"
    )


@keras.saving.register_keras_serializable(package="multidrop")
class Dropout(keras.layers.Layer):
    """Zeroes each element with probability `rate` in training mode and scales the others by 1/(1 − rate); passes the
    input on in evaluation mode. Like every Keras layer it first casts floating input to its own type.

    A keyed layer keeps its position as the weight `stream`, int64 (seed, call) as two's complement, so that saved
    weights carry it and a compiled step advances it; weights saved without one, such as those of a
    `keras.layers.Dropout`, load too and leave it as it is.

    Args:
        rate: p, the probability that an element is dropped, in [0, 1].
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by `tf.random`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability or seed.
    """

    def __init__(self, rate: float = 0.5, *, seed: int | Key | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = checks.probability("rate", rate)
        self.supports_masking = True
        self._key = layer_key(NAME, seed)
        self.stream = None if self._key is None else self._add_stream(self._key)

    def _add_stream(self, key: Key) -> keras.Variable:
        def initial(shape: Any, dtype: Any) -> tf.Tensor:
            return ops.position_of(key)

        return self.add_weight(
            name="stream", shape=(2,), initializer=initial, dtype="int64", trainable=False, autocast=False
        )

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        """The output for inputs of any shape; `training` may be a bool tensor, and None is evaluation mode."""
        check_floating(inputs)
        if tf.is_tensor(training):  # in a trace, where Python cannot ask what it holds
            return tf.cond(tf.cast(training, tf.bool), lambda: self._drop(inputs), lambda: tf.identity(inputs))
        return self._drop(inputs) if training else inputs

    def _drop(self, inputs: tf.Tensor) -> tf.Tensor:
        return masked(inputs, self.rate, self._next_position())

    def _next_position(self) -> tf.Tensor:
        return ops.draw_position() if self.stream is None else ops.next_position(self.stream)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The call itself: it keeps nothing for the backward pass that recomputing would save."""
        return layer_call

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape."""
        return input_shape

    def load_own_variables(self, store: Any) -> None:
        """Takes the position from saved weights that have one."""
        if store.keys():
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds an equal layer of, its stream at the start; the position is a weight."""
        key = {} if self._key is None else {"seed": self._key.seed, "call": self._key.call}
        return {**super().get_config(), "rate": self.rate, **key}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Dropout:
        """The layer that a `get_config` describes."""
        config = dict(config)
        if config.get("seed") is not None:
            config["seed"] = Key(config["seed"], config.pop("call", 0))
        return cls(**config)
