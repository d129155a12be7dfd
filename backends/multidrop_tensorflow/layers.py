"""Keras layers, each a replacement for the Keras layer of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from multidrop import checks, family
from multidrop.family import Member
from multidrop.family.alpha_dropout import AlphaDropoutAlong
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask
from multidrop.streams import layer_key
from multidrop.view import Drawing, Drawn, before, not_a_layer

from . import internals
from .apply import applied
from .autograd import masked
from .functional import NAME, axes_of, check_floating, not_dense
from .position import NOTHING, generator_key, key_at, next_of_generator, next_position, position_of, words_of

internals.keep_out_of_legacy_files(lambda weight: getattr(weight, "is_position", False))


class _Random(Drawn, keras.layers.Layer):
    """Base class of the dropout layers: active in training mode, where each call takes the next key. Like every Keras
    layer they first cast floating input to their own type.

    The position of a keyed layer is the weight `stream`, int64 of shape (3,) as in `position`: it is saved with the
    weights, and compiled steps advance it. Weights that were saved without one load too.

    A layer without a key has a `keras.random.SeedGenerator`, as Keras' own layers do. Its state (seed, counter) names
    the mask of the next call, `Key(seed, counter)`; `keras.utils.set_random_seed` determines the seeds of the layers
    built after it. A layer that drops nothing has none.
    """

    def __init__(self, seed: int | Key | None, options: dict[str, Any], **settings: Any) -> None:
        super().__init__(**options)
        for name, value in settings.items():
            setattr(self, name, value)
        self.supports_masking = True
        self._key_by(layer_key(NAME, seed))
        self.seed = None if self._key is None else self._key.seed
        internals.build_at_once(self)

    stream: keras.Variable | None = None
    seed_generator: keras.random.SeedGenerator | None = None

    def _key_by(self, key: Key | None, generator: keras.random.SeedGenerator | None = None) -> None:
        """Moves the layer's stream to `key`. None: the layer follows the given Keras generator, or else its own."""
        if self.stream is not None and key is not None:
            self.stream.assign(words_of(key))
            return
        self._key = key
        with internals.unlocked(self):
            if self.stream is not None:
                internals.untrack(self, self.stream)
                self.__dict__.pop("stream")  # `del` would collect garbage
            if self.seed_generator is not None and (key is not None or generator is not None):
                internals.untrack_generator(self, self.seed_generator)
                del self.seed_generator
            if key is not None:
                self.stream = self.add_weight(
                    name="stream",
                    shape=(3,),
                    initializer=lambda shape, dtype: position_of(key),
                    dtype="int64",
                    trainable=False,
                    autocast=False,
                )
                self.stream.is_position = True
            elif generator is not None:
                self.seed_generator = generator
        if key is None and not self._idle:
            self._generator()

    def _generator(self) -> keras.random.SeedGenerator:
        """The generator of a layer without a key; created here if the rate was 0 before."""
        if self.seed_generator is None:
            with tf.init_scope(), internals.unlocked(self):
                self.seed_generator = keras.random.SeedGenerator()
        return self.seed_generator

    @property
    def _idle(self) -> bool:
        """Whether the layer returns its input in training mode too."""
        raise NotImplementedError(f"{type(self).__name__}._idle")  # each layer defines it

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        """The output for inputs of any shape; `training` may be a bool tensor, and None means evaluation mode."""
        if isinstance(inputs, tf.Variable | keras.Variable):
            inputs = tf.convert_to_tensor(inputs)
        if not isinstance(inputs, tf.Tensor):  # but ragged, sparse, or a list
            raise not_dense(inputs)
        check_floating(inputs)
        if tf.is_tensor(training):  # in a trace its value is not known
            return tf.cond(tf.cast(training, tf.bool), lambda: self._train(inputs), lambda: tf.identity(inputs))
        return self._train(inputs) if training else inputs

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        """The output in training mode."""
        raise NotImplementedError(f"{type(self).__name__}._train")  # each layer defines it

    def _next_position(self, inputs: tf.Tensor) -> Key | tf.Tensor:
        """The position of this call, on these inputs; advances the layer by one call. A layer without a key that drops
        nothing changes no state, and its position is not used."""
        if self.stream is not None:
            position = next_position(self.stream)
        else:
            position = NOTHING if self._idle else next_of_generator(self._generator())
        # For `multidrop.last_mask`. Bypasses Keras, which inspects each attribute that is set.
        self.__dict__["_last"] = position if tf.executing_eagerly() else None, inputs.shape, self._p
        return position

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The call itself: recomputing it would save nothing, since the backward pass keeps only the position."""
        return layer_call

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def load_own_variables(self, store: Any) -> None:
        """Loads the position, if the layer is keyed and the saved weights contain one."""
        if self.stream is not None and "0" in store and tuple(store["0"].shape) == (3,):
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """The configuration for `from_config`, whose stream begins at the seed; the position is a weight."""
        key = {"seed": None} if self._key is None else {"seed": self._key.seed, "call": self._key.call}
        return {**super().get_config(), **key}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _Random:
        """A layer with the configuration that `get_config` gave."""
        config = dict(config)
        if config.get("seed") is not None:
            config["seed"] = Key(config["seed"], config.pop("call", 0))
        return cls(**config)


class _OfRate(_Random):
    """Base class of the layers with a rate."""

    def __init__(self, rate: float, seed: int | Key | None = None, **kwargs: Any) -> None:
        super().__init__(seed, kwargs, rate=checks.probability("rate", rate))

    @property
    def _idle(self) -> bool:
        return checks.probability("rate", self.rate) == 0.0  # users may change it

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


class _Dropout(_OfRate):
    """Base class of the layers that drop by a mask."""

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        return masked(inputs, self._next_mask(inputs))

    def _next_mask(self, inputs: tf.Tensor) -> Mask:
        p, axes = self._p, axes_of(inputs, self._axes(inputs))  # checked before a position is taken
        return Mask(p, self._next_position(inputs), 0, axes)

    @property
    def _p(self) -> float:
        return checks.probability("rate", self.rate)

    def _axes(self, inputs: tf.Tensor) -> tuple[int, ...]:
        """The axes along which all elements share one decision."""
        return ()

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return () if shape is None else axes_of(tf.TensorSpec(shape), self._axes(tf.TensorSpec(shape)))


@keras.saving.register_keras_serializable(package="multidrop")
class Dropout(_Dropout):
    """Zeroes each element with probability `rate` in training mode and scales the others by 1/(1 − rate); returns the
    input in evaluation mode.

    Args:
        rate: p, the probability that an element is dropped, in [0, 1].
        noise_shape: the shape of the mask before it is broadcast to the input's. It has the input's number of
            dimensions, each of size 1 (all elements along it share one decision) or None or the input's own size.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, shape or seed.
    """

    def __init__(
        self,
        rate: float = 0.5,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | Key | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed, **kwargs)
        self.noise_shape = None if noise_shape is None else checks.dimensions("noise_shape", noise_shape)

    def _axes(self, inputs: tf.Tensor) -> tuple[int, ...]:
        if self.noise_shape is None:
            return ()
        fits = inputs.shape.rank == len(self.noise_shape) and all(
            noise in (None, 1, size) or size is None
            for noise, size in zip(self.noise_shape, inputs.shape.as_list(), strict=True)
        )
        if not fits:
            raise ValueError(
                f"noise_shape: expected 1, None or the size of each dimension of the input, {tuple(inputs.shape)}; "
                f"got {self.noise_shape}"
            )
        return tuple(axis for axis, size in enumerate(self.noise_shape) if size == 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise_shape": self.noise_shape}


@keras.saving.register_keras_serializable(package="multidrop")
class AlphaDropout(Dropout):
    """Dropout for SELU networks: sets dropped elements to SELU's lower limit, then scales and shifts all so that a mean
    of 0 and a variance of 1 are preserved: `multidrop.family.AlphaDropout`, with one decision along the axes where
    `noise_shape` is 1. Args and errors are those of `Dropout`. Source: G. Klambauer et al., "Self-normalizing neural
    networks", NeurIPS 30 (2017), section 2."""

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        mask = self._next_mask(inputs)
        return applied(_alpha_dropout(mask.p, mask.axes), inputs, mask.key)

    def _noise(self, shape: tuple[int, ...]) -> Member:
        return _alpha_dropout(self._p, self._axes_for(shape))


_alpha_dropout = cache(AlphaDropoutAlong)


@keras.saving.register_keras_serializable(package="multidrop")
class GaussianDropout(_OfRate):
    """Multiplies each element by normal noise of mean 1 in training mode, with the standard deviation of a dropout of
    that rate, sqrt(rate/(1 − rate)); returns the input in evaluation mode.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014),
    section 10.

    Args:
        rate: p of that dropout, in [0, 1]; at 1 the deviation is infinite, and a training-mode call is an error.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability or seed.
    """

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        member = self._noise(())  # checked before a position is taken
        return applied(member, inputs, self._next_position(inputs))

    def _noise(self, shape: tuple[int, ...]) -> Member:
        return family.GaussianDropout(checks.probability_below_one("rate", self.rate))


@keras.saving.register_keras_serializable(package="multidrop")
class GaussianNoise(_Random):
    """Adds normal noise of mean 0 to each element in training mode; returns the input in evaluation mode.

    Args:
        stddev: the noise's standard deviation, in [0, 1].
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad deviation or seed.
    """

    def __init__(self, stddev: float, seed: int | Key | None = None, **kwargs: Any) -> None:
        super().__init__(seed, kwargs, stddev=masks.noise_stddev("stddev", stddev))

    @property
    def _idle(self) -> bool:
        return masks.noise_stddev("stddev", self.stddev) == 0.0

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        member = self._noise(())  # checked before a position is taken
        return applied(member, inputs, self._next_position(inputs))

    def _noise(self, shape: tuple[int, ...]) -> Member:
        return family.GaussianNoise(masks.noise_stddev("stddev", self.stddev))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev}


class _SpatialDropout(_Dropout):
    """Drops whole channels in training mode.

    Args:
        rate: p, the probability that a channel is dropped, in [0, 1].
        data_format: "channels_first" or "channels_last"; by default that of Keras' configuration.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        name, dtype, **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: for a bad probability, format or seed, and for an input of another number of dimensions.
    """

    spatial: int  # the number of dimensions besides batch and channels

    def __init__(
        self,
        rate: float = 0.5,
        data_format: str | None = None,
        seed: int | Key | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed, name=name, dtype=dtype, **kwargs)
        chosen = data_format or keras.config.image_data_format()
        self.data_format = checks.choice("data_format", chosen, ("channels_first", "channels_last"))
        self.input_spec = keras.layers.InputSpec(ndim=self.spatial + 2)

    def _axes(self, inputs: tf.Tensor) -> tuple[int, ...]:
        first = 2 if self.data_format == "channels_first" else 1
        return tuple(range(first, first + self.spatial))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


@keras.saving.register_keras_serializable(package="multidrop")
class SpatialDropout1D(_SpatialDropout):
    __doc__, spatial = _SpatialDropout.__doc__, 1
    data_format = "channels_last"  # a class attribute: Keras' layer, and so a converted one, has none

    def __init__(
        self,
        rate: float = 0.5,
        seed: int | Key | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, self.data_format, seed, name, dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "data_format"}


@keras.saving.register_keras_serializable(package="multidrop")
class SpatialDropout2D(_SpatialDropout):
    __doc__, spatial = _SpatialDropout.__doc__, 2


@keras.saving.register_keras_serializable(package="multidrop")
class SpatialDropout3D(_SpatialDropout):
    __doc__, spatial = _SpatialDropout.__doc__, 3


def drawing(layer: keras.layers.Layer, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a layer draws its masks; see `multidrop.view`."""
    if not isinstance(layer, _Random):
        raise not_a_layer(layer)
    position, known, last_rate = vars(layer).get("_last", (None, None, None))
    last = None if position is None else key_at(position)
    following, current = None, None
    if layer.stream is not None:
        following = current = key_at(layer.stream)
    elif layer.seed_generator is not None and not layer._idle:
        current = generator_key(layer.seed_generator)
    if current is not None and (following is not None or current.call):
        if last not in (None, before(current)):  # a traced program called the layer since
            known, last_rate = None, None
        last = before(current)
    if shape is None and known is not None and known.is_fully_defined():
        shape = tuple(known)
    axes = layer._axes_for(shape)
    return Drawing(layer._p, last, following, shape, axes, last_rate)
