"""Wrappers of Keras layers that drop their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from multidrop import checks, family
from multidrop.family import Member
from multidrop.spec.keys import Key

from .member_layers import MemberLayer


class _WeightDropout(keras.layers.Wrapper):
    """Runs a layer; in training mode it applies a member of the family to some weights, each with the next key."""

    def __init__(
        self, layer: Any, member: Member, names: Sequence[str] | None, seed: int | Key | None, **kwargs: Any
    ) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = True
        self.dropped = None if names is None else (names,) if isinstance(names, str) else tuple(names)
        # Weights are dropped in their own type, whatever the layer computes in.
        self.dropout = MemberLayer(member, seed, autocast=False, name="dropout")
        self.dropout.drops_weights = True

    watched = False
    """Whether the weights pass through `dropout` in evaluation mode too, where a watcher may replace its output."""

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer, and checks that it has the weights to drop."""
        super().build(input_shape)
        self._dropped_weights()

    def _dropped_weights(self) -> list[keras.Variable]:
        """The weights to drop, in the order of `layer.weights`."""
        weights = self.layer.weights
        names = {weight.name for weight in weights}
        wanted = {name for name in names if name.endswith("kernel")} if self.dropped is None else set(self.dropped)
        if not wanted or wanted - names:
            expected = "a kernel" if self.dropped is None else "the weights " + ", ".join(self.dropped)
            had = ", ".join(sorted(names)) or "none"
            raise ValueError(f"layer: expected one that has {expected}; got {type(self.layer).__name__}, with {had}")
        return [weight for weight in weights if weight.name in wanted]

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """The layer's output. It runs in a `keras.StatelessScope` that holds the dropped weights in place of its own;
        state that it assigns there and losses that it adds are copied out of the scope."""
        if (training is None or training is False) and not self.watched:
            return self.layer(inputs, **kwargs)
        values = {id(variable): variable.value for variable in self.layer.variables}
        for weight in self._dropped_weights():
            values[id(weight)] = self.dropout(weight.value, training=training)
        given = [(variable, values[id(variable)]) for variable in self.layer.variables]
        with keras.StatelessScope(given, collect_losses=True) as scope:
            begun = dict(scope.state_mapping)
            outputs = self.layer(inputs, **kwargs)
        for variable in self.layer.non_trainable_variables:
            value = scope.get_current_value(variable)
            if value is not begun[id(variable)]:
                variable.assign(value)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """That of the wrapped layer."""
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the wrapped layer."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        key = self.dropout.get_config()
        return {
            **super().get_config(),
            "rate": self.dropout._p,
            **{name: key[name] for name in ("seed", "call") if name in key},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The layer that a `get_config` describes."""
        config = dict(config)
        if config.get("seed") is not None:
            config["seed"] = Key(config["seed"], config.pop("call", 0))
        return super().from_config(config, custom_objects)


@keras.saving.register_keras_serializable(package="multidrop")
class DropConnect(_WeightDropout):
    """Drops each weight of a layer's kernels with probability `rate` in training mode and scales the others by
    1/(1 − rate): `multidrop.family.DropConnect`. Around a recurrent layer, one mask holds for all steps.

    Source: L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013; S. Merity, N. S. Keskar and
    R. Socher, "Regularizing and optimizing LSTM language models", ICLR 2018, for `weights=["recurrent_kernel"]`.

    Args:
        layer: the Keras layer, such as `Dense`, `Conv2D` or `LSTM`.
        rate: p, the probability that a weight is dropped, in [0, 1].
        weights: the names of the weights to drop; by default those whose name ends in "kernel".
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability or seed; when built, where the layer has no such weights.
    """

    def __init__(
        self,
        layer: Any,
        rate: float = 0.5,
        weights: Sequence[str] | None = None,
        seed: int | Key | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, family.DropConnect(checks.probability("rate", rate)), weights, seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weights": self.dropped}


@keras.saving.register_keras_serializable(package="multidrop")
class EmbeddingDropout(_WeightDropout):
    """Drops each word of an embedding with probability `rate` in training mode, wherever it occurs in the batch, and
    scales the others by 1/(1 − rate): `multidrop.family.EmbeddingDropout`.

    Source: Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    NeurIPS 29 (2016), section 4.2.

    Args:
        layer: a `keras.layers.Embedding`.
        rate: p, the probability that a word is dropped, in [0, 1].
        seed: an integer or a `Key`; by default `multidrop.manual_seed` keys the layer, else a Keras `SeedGenerator`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: for a bad probability or seed; when built, where the layer has no embeddings.
    """

    def __init__(self, layer: Any, rate: float = 0.1, seed: int | Key | None = None, **kwargs: Any) -> None:
        member = family.EmbeddingDropout(checks.probability("rate", rate))
        super().__init__(layer, member, ("embeddings",), seed, **kwargs)
