"""Keras layers of the members of the dropout family: `MemberLayer` for any member, and named layers for those that
Keras lacks."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import keras
import tensorflow as tf

from multidrop import checks, family
from multidrop.family import Member
from multidrop.layers import OfMember
from multidrop.spec.keys import Key

from .apply import through
from .functional import check_floating, tensor
from .layers import Dropout, _Random


class _OfMember(OfMember, _Random):
    """Base class of the layers that hold a member and run it."""

    def __init__(self, member: Member, seed: int | Key | None, **kwargs: Any) -> None:
        super().__init__(seed, kwargs, member=family.checked(member))

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        return through(self.member, inputs, lambda: self._take(inputs))

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


class _Named(_OfMember):
    """Base class of the layers of one class of members, whose settings are the configuration, with p as `rate`."""

    def get_config(self) -> dict[str, Any]:
        settings = {each.name: getattr(self.member, each.name) for each in fields(self.member)}
        return {**super().get_config(), "rate": settings.pop("p"), **settings}


@keras.saving.register_keras_serializable(package="multidrop")
class DropPath(_Named):
    """`multidrop.family.DropPath`: drops whole residual branches in training mode (stochastic depth).

    Args:
        rate: p, the probability that the branch is dropped, in [0, 1].
        mode: "example" decides for each example separately, "batch" once for all.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, mode or seed.
    """

    def __init__(self, rate: float = 0.1, mode: str = "example", seed: int | Key | None = None, **kwargs: Any) -> None:
        super().__init__(family.DropPath(checks.probability("rate", rate), mode), seed, **kwargs)


@keras.saving.register_keras_serializable(package="multidrop")
class DropBlock(_Named):
    """`multidrop.family.DropBlock`: drops blocks of neighbouring positions of sequences, images or volumes in training
    mode.

    Args:
        rate: p, the probability that an element is dropped, in [0, 1].
        block_size: the size of a block along each axis of positions.
        data_format: "channels_first" or "channels_last"; by default that of Keras' configuration.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, size, format or seed; when called, for another number of dimensions.
    """

    def __init__(
        self,
        rate: float = 0.1,
        block_size: int = 7,
        data_format: str | None = None,
        seed: int | Key | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = keras.config.image_data_format() if data_format is None else data_format
        super().__init__(family.DropBlock(checks.probability("rate", rate), block_size, chosen), seed, **kwargs)


@keras.saving.register_keras_serializable(package="multidrop")
class LockedDropout(_Named):
    """`multidrop.family.LockedDropout`: drops the same features at each step of a sequence in training mode.

    Args:
        rate: p, the probability that a feature is dropped, in [0, 1].
        batch_first: whether the input's shape is (n, steps, …), as for Keras' recurrent layers, rather than
            (steps, n, …).
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, flag or seed; when called, for fewer than three dimensions.
    """

    def __init__(
        self, rate: float = 0.5, batch_first: bool = True, seed: int | Key | None = None, **kwargs: Any
    ) -> None:
        super().__init__(family.LockedDropout(checks.probability("rate", rate), batch_first), seed, **kwargs)


@keras.saving.register_keras_serializable(package="multidrop")
class ConcreteDropout(_Named):
    """`multidrop.family.ConcreteDropout` whose p is learned, as the weight `logit` = log(p/(1 − p)).

    The paper's regulariser keeps p from 0. Its entropy term, regularizer·d·(p·log p + (1 − p)·log(1 − p)) for the d
    features that are dropped, is among the layer's `losses`, like the regulariser of any weight. Its other term needs
    the weight of the layer that follows: to have both, build this layer with `regularizer=0` and add what the method
    `regularizer` gives to the loss.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017), equations 4 and 5.

    Args:
        rate: the initial p, in (0, 1).
        temperature: above 0; the paper's is 0.1.
        regularizer: the factor of the entropy term, at least 0: 1/N for the mean of the losses of N examples.
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability, temperature, factor or seed; when built, for an input whose last axis has a
            size that is not known.
    """

    def __init__(
        self,
        rate: float = 0.1,
        temperature: float = 0.1,
        regularizer: float = 1e-5,
        seed: int | Key | None = None,
        **kwargs: Any,
    ) -> None:
        member = family.ConcreteDropout(checks.probability_below_one("rate", rate), temperature)
        begin, regularizer = member.logit, checks.at_least_zero("regularizer", regularizer)
        super().__init__(member, seed, **kwargs)
        self.factor, self.features = regularizer, 0
        self.logit = self.add_weight(
            name="logit",
            shape=(),
            initializer=keras.initializers.Constant(begin),
            regularizer=lambda logit: self.factor * self.features * negative_entropy(tf.convert_to_tensor(logit)),
            autocast=False,
        )

    def build(self, input_shape: Any) -> None:
        """Stores d, the size of the last axis."""
        self.features = input_shape[-1]
        if self.features is None:
            raise ValueError(f"inputs: expected a last axis of known size; got the shape {tuple(input_shape)}")

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        return through(self.member, inputs, lambda: self._take(inputs), learned=self.logit)

    def regularizer(self, weight: Any, *, length_scale: float = 1.0) -> tf.Tensor:
        """The part of the loss that keeps p away from 0: the divergence of the weight's distribution from its prior,
        length_scale²·(1 − p)/2·‖M‖² − K·H(p), equation 3 of the paper, where M, the weight before dropout scales, is
        weight/(1 − p). Divide it by the number of training examples, and add it to their mean loss.

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
        scale, weight = checks.at_least_zero("length_scale", length_scale), tensor(weight, name="weight")
        check_floating(weight, "weight")
        logit = tf.cast(tf.convert_to_tensor(self.logit), weight.dtype)
        squares = tf.reduce_sum(tf.square(weight)) * (1.0 + tf.exp(logit))
        return scale**2 / 2.0 * squares + float(weight.shape[-2]) * negative_entropy(logit)

    @property
    def _idle(self) -> bool:
        return False

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


def negative_entropy(logit: tf.Tensor) -> tf.Tensor:
    """p·log p + (1 − p)·log(1 − p) for p = sigmoid(logit), without overflow."""
    return tf.sigmoid(logit) * logit - tf.nn.softplus(logit)


_NAMED: dict[type[Member], Any] = {
    family.ConcreteDropout: ConcreteDropout,
    family.DropBlock: DropBlock,
    family.DropPath: DropPath,
    family.Dropout: Dropout,
    family.LockedDropout: LockedDropout,
}


def layer(member: Member, *, seed: int | Key | None = None) -> _Random:
    """`multidrop.layer`: a Keras layer of any member; a named one where there is one."""
    named = _NAMED.get(type(member))
    if named is None:
        return MemberLayer(member, seed)
    return named(*(getattr(member, each.name) for each in fields(member)), seed=seed)
