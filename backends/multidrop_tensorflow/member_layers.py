"""Keras layers of the members of the dropout family: `MemberLayer` for any member, and named layers for those that
Keras lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import keras
import tensorflow as tf

from multidrop import checks, family
from multidrop.family import Member
from multidrop.layers import OfMember, OfSettings, from_table, settings
from multidrop.spec.keys import Key

from .apply import through
from .functional import check_floating, tensor
from .layers import Dropout, _Random


class _OfMember(OfMember, _Random):
    """Base class of the layers that hold a member and run it."""

    def __init__(self, member: Member, seed: int | Key | None, **kwargs: Any) -> None:
        super().__init__(seed, kwargs, member=family.checked(member))

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        return through(self.member, inputs, lambda: self._next_position(inputs))

    @property
    def _idle(self) -> bool:
        return self.member.idle


@keras.saving.register_keras_serializable(package="multidrop")
class MemberLayer(_OfMember):
    """Runs any member of the dropout family in training mode; returns the input in evaluation mode.

    Args:
        member: the member, such as `multidrop.family.DropBlock(p=0.1, block_size=7)`. The attribute `member` may be
            changed; a compiled step keeps the one that it was traced with.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for what is no member or a bad seed; when called, for a shape that the member does not accept.
    """

    def __init__(self, member: Member, seed: int | Key | None = None, **kwargs: Any) -> None:
        super().__init__(member, seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "member": self.member.text}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _Random:
        """A layer with the configuration that `get_config` gave; the member's package must be imported."""
        return super().from_config({**config, "member": family.of_text(config["member"])})


class _OfSettings(OfSettings, _OfMember):
    """Base class of the layers of one kind of member, built from its settings, which are the configuration; p has
    Keras' name, `rate`."""

    layers: ClassVar[dict[type[Member], Any]] = {Member: MemberLayer, family.Dropout: Dropout}
    name_of_p: ClassVar[str] = "rate"
    more: ClassVar[str] = "    **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`."
    chosen: ClassVar[Mapping[str, Callable[[], Any]]] = {
        "data_format": keras.config.image_data_format,
        "batch_first": lambda: True,
    }

    def __init_subclass__(cls, kind: type[Member] | None = None) -> None:
        super().__init_subclass__(kind)
        if kind is not None:
            keras.saving.register_keras_serializable(package="multidrop")(cls)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **settings(self.member, self.name_of_p)}


class DropPath(_OfSettings, kind=family.DropPath): ...


class DropBlock(_OfSettings, kind=family.DropBlock):
    """Drops blocks of neighbouring positions of sequences, images or volumes in training mode:
    `multidrop.family.DropBlock`.

    Args:
        rate: p, the probability that an element is dropped, in [0, 1].
        block_size: the length of a block along each axis.
        data_format: "channels_first" or "channels_last"; by default that of Keras' configuration.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, size, format or seed; when called, for another number of dimensions.
    """


class SpatialDropout(_OfSettings, kind=family.SpatialDropout):
    """Drops whole channels of sequences, images or volumes in training mode: `multidrop.family.SpatialDropout`.
    `SpatialDropout1D` to `SpatialDropout3D` have Keras' names, and take one number of dimensions each.

    Args:
        rate: p, the probability that a channel is dropped, in [0, 1].
        data_format: "channels_first" or "channels_last"; by default that of Keras' configuration.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, format or seed; when called, for another number of dimensions.
    """


class FeatureAlphaDropout(_OfSettings, kind=family.FeatureAlphaDropout):
    """`AlphaDropout` of whole channels: `multidrop.family.FeatureAlphaDropout`. Args and errors are those of
    `SpatialDropout`."""


class LockedDropout(_OfSettings, kind=family.LockedDropout):
    """Drops the same features at each step of a sequence in training mode: `multidrop.family.LockedDropout`.

    Args:
        rate: p, the probability that a feature is dropped, in [0, 1].
        batch_first: whether the input's shape is (n, steps, …), as for Keras' recurrent layers and by default, rather
            than (steps, n, …).
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, flag or seed; when called, for fewer than three dimensions.
    """


class ConcreteDropout(_OfSettings, kind=family.ConcreteDropout):
    """`multidrop.family.ConcreteDropout` whose p is learned, as the weight `logit` = log(p/(1 − p)).

    The paper's regulariser keeps p from 0. Its entropy term, regularizer·d·(p·log p + (1 − p)·log(1 − p)) for the d
    features that are dropped, is among the layer's `losses`, like the regulariser of any weight. Its other term needs
    the weight of the layer that follows: to have both, build this layer with `regularizer=0` and add what the method
    `regularizer` gives to the loss.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017), equations 4 and 5.

    Args:
        rate: the initial p, in (0, 1).
        temperature: above 0; the paper's is 0.1.
        regularizer: by name; the factor of the entropy term, at least 0: 1/N for the mean of the losses of N examples.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, temperature, factor or seed; when built, for an input whose last axis has a
            size that is not known.
    """

    def __init__(self, *settings: Any, regularizer: float = 1e-5, seed: int | Key | None = None, **named: Any) -> None:
        regularizer = checks.at_least_zero("regularizer", regularizer)
        super().__init__(*settings, seed=seed, **named)
        self.factor, self.features = regularizer, 0
        self.logit = self.add_weight(
            name="logit",
            shape=(),
            initializer=keras.initializers.Constant(self.member.logit),
            regularizer=self._entropy_term,
            autocast=False,
        )

    def build(self, input_shape: Any) -> None:
        """Stores d, the size of the last axis."""
        self.features = input_shape[-1]
        if self.features is None:
            raise ValueError(f"inputs: expected a last axis of known size; got the shape {tuple(input_shape)}")

    def _entropy_term(self, logit: tf.Tensor) -> tf.Tensor:
        logit, features = tf.convert_to_tensor(logit), float(self.features)
        return self.factor * self.member.regularizer(tf.math, logit, 0.0, features, 0.0)

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        return through(self.member, inputs, lambda: self._next_position(inputs), learned=self.logit)

    def regularizer(self, weight: Any, *, length_scale: float = 1.0) -> tf.Tensor:
        """The part of the loss that keeps p up: `multidrop.family.ConcreteDropout.regularizer`. Divide it by the number
        of training examples, and add it to their mean loss.

        Args:
            weight: the kernel of the layer after this one, of shape (…, K, outputs), where K is the number of features
                that are dropped.
            length_scale: the prior's, at least 0.

        Returns:
            A tensor of shape (), differentiable with respect to `logit` and `weight`.

        Raises:
            ValueError: for a bad length scale.
            TypeError: for a weight that is not floating.
        """
        weight = tensor(weight, name="weight")
        check_floating(weight, "weight")
        logit, squares = tf.cast(tf.convert_to_tensor(self.logit), weight.dtype), tf.reduce_sum(tf.square(weight))
        return self.member.regularizer(tf.math, logit, squares, float(weight.shape[-2]), length_scale)

    @property
    def _idle(self) -> bool:
        return False

    @property
    def _learned(self) -> keras.Variable:
        return self.logit

    @property
    def p(self) -> float:
        """The current p; setting it changes the logit."""
        return float(tf.sigmoid(tf.convert_to_tensor(self.logit)))

    @p.setter
    def p(self, value: float) -> None:
        self.logit.assign(replace(self.member, p=value).logit)

    def load_own_variables(self, store: Any) -> None:
        """Loads the logit, and the position if the layer is keyed and the saved weights contain one."""
        self.logit.assign(store["0"])
        if self.stream is not None and "1" in store:
            self.stream.assign(store["1"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "regularizer": self.factor}


def layer(member: Member, *, seed: int | Key | None = None, **kwargs: Any) -> _Random:
    """`multidrop.layer`: an instance of the class of the member's name, or else of `MemberLayer`. `kwargs` are those of
    `keras.layers.Layer`, such as `name` and `dtype`."""
    return from_table(_OfSettings.layers, member, seed, **kwargs)
