"""Layers that drop weights of another block: single ones, or words of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx
from mxnet import gluon

from multidrop import checks, family
from multidrop.family import Member
from multidrop.spec.keys import Key

from .functional import Array
from .layers import parameters_of
from .member_layers import MemberLayer


class _WeightDropout(gluon.HybridBlock):
    """Applies a member to some parameters of a block in training mode, each by the next key, and runs the block.

    A net that is hybridized before its first call must know the shapes of these parameters: give the block `in_units`
    or `in_channels`.
    """

    def __init__(
        self,
        layer: gluon.HybridBlock,
        member: Member,
        names: Sequence[str] | None,
        seed: int | Key | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        own = tuple(parameters_of(layer))
        chosen = tuple(name for name in own if name.endswith("weight")) if names is None else tuple(names)
        plain = isinstance(layer, gluon.HybridBlock) and type(layer).forward is gluon.HybridBlock.forward
        if not plain or not chosen or set(chosen) - set(own):
            expected = "a HybridBlock with a hybrid_forward and " + (
                "a weight" if names is None else f"the parameters {', '.join(chosen)}"
            )
            had = f", with {', '.join(own)}" if own else ""
            raise ValueError(f"layer: expected {expected}; got {type(layer).__name__}{had}")
        self.dropped = chosen
        with self.name_scope():
            self.layer, self.dropout = layer, MemberLayer(member, seed=seed, prefix="dropout_")
        self.dropout.drops_weights = True

    watched = False
    """Whether the weights pass through `dropout` in evaluation mode too, where a watcher may replace its output."""

    def forward(self, X: Array | mx.sym.Symbol, *args: Any) -> Any:
        params = parameters_of(self.layer)
        if isinstance(X, mx.sym.Symbol):
            for name in self.dropped:
                if not _known(params[name].shape):
                    raise ValueError(
                        f"layer: expected a {name} of known shape in a hybridized net; got {params[name].shape}: give "
                        "the layer in_units or in_channels, or call the net once before it is hybridized"
                    )
            values, F = {name: param.var() for name, param in params.items()}, mx.sym
        elif not (mx.autograd.is_training() or self.watched):
            return self.layer(X, *args)
        else:
            if not all(_known(param.shape) for param in params.values()):
                with mx.autograd.pause():
                    self.layer(X, *args)  # infers the shapes
            values, F = {name: param.data(X.ctx) for name, param in params.items()}, mx.nd
        for name in self.dropped:
            values[name] = self.dropout(values[name])
        with self.layer.name_scope():
            return self.layer.hybrid_forward(F, X, *args, **values)


def _known(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and all(size > 0 for size in shape)


class DropConnect(_WeightDropout):
    """Drops each weight of a block with probability `rate` in training mode, and scales the others by 1/(1 − rate):
    `multidrop.family.DropConnect`.

    Source: L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    Args:
        layer: a block with parameters of its own, such as `nn.Dense` or `nn.Conv2D`. A net that is hybridized before
            its first call must know their shapes: give it `in_units` or `in_channels`.
        rate: the probability that a weight is dropped, in [0, 1].
        weights: the names of the parameters to drop; without any, those whose name ends in "weight".
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability or seed, and a layer without such parameters.
    """

    def __init__(
        self,
        layer: gluon.HybridBlock,
        rate: float = 0.5,
        weights: Sequence[str] | None = None,
        *,
        seed: int | Key | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, family.DropConnect(checks.probability("rate", rate)), weights, seed, **kwargs)


class EmbeddingDropout(_WeightDropout):
    """Drops each word of an embedding with probability `rate` in training mode, wherever it stands in the batch, and
    scales the others by 1/(1 − rate): `multidrop.family.EmbeddingDropout`.

    Source: Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    NeurIPS 29 (2016), section 4.2.

    Args:
        layer: an `nn.Embedding`, with `sparse_grad=False`.
        rate: the probability that a word is dropped, in [0, 1].
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability or seed, and a layer without a weight.
    """

    def __init__(
        self, layer: gluon.HybridBlock, rate: float = 0.1, *, seed: int | Key | None = None, **kwargs: Any
    ) -> None:
        member = family.EmbeddingDropout(checks.probability("rate", rate))
        super().__init__(layer, member, ("weight",), seed, **kwargs)
