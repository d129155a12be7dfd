"""The members of the dropout family as Gluon blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from multidrop import checks, family
from multidrop.family import Member
from multidrop.layers import OfMember
from multidrop.spec.keys import Key

from .apply import symbol, through
from .functional import Array
from .layers import Dropout, Random


class MemberLayer(OfMember, Random):
    """Runs a member of the dropout family in training mode (`autograd.record()`); passes the input on in any other.

    Args:
        member: the member, such as `multidrop.family.DropBlock(p=0.1, block_size=7)`. The attribute `member` may be
            set; a hybridized net keeps the one that it was traced with.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for what is no member or a bad seed; when called, for a shape that the member does not take.
    """

    def __init__(self, member: Member, *, seed: int | Key | None = None, **kwargs: Any) -> None:
        member = family.checked(member)
        super().__init__(seed, **kwargs)
        self.member: Any = member

    def _symbol(self, X: mx.sym.Symbol, stream: mx.sym.Symbol | None) -> mx.sym.Symbol:
        return symbol(self.member, X, stream, of_layer=True)

    def _train(self, X: Array) -> Array:
        return through(self.member, X, lambda: self._take(X))

    def __repr__(self) -> str:
        seed = "" if self.stream is None else f", seed={self.stream.key.seed}"
        return f"{type(self).__name__}({self.member}{seed})"


class ConcreteDropout(MemberLayer):
    """`multidrop.family.ConcreteDropout` whose p is learned, as the parameter `logit` = log(p/(1 − p)), of shape (1,).
    Add `regularizer` to the loss, for without it p only falls.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017).

    Args:
        p: the probability that learning begins with, in (0, 1).
        temperature: above 0; the paper's is 0.1.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability, temperature or seed.
    """

    def __init__(
        self, p: float = 0.1, temperature: float = 0.1, *, seed: int | Key | None = None, **kwargs: Any
    ) -> None:
        member = family.ConcreteDropout(p, temperature)
        begin = mx.init.Constant(member.logit)
        super().__init__(member, seed=seed, **kwargs)
        self.logit = self.params.get("logit", shape=(1,), init=begin)

    @property
    def p(self) -> float:
        """p as it is now; setting it moves the logit."""
        return float(1.0 / (1.0 + np.exp(-self.logit.data().asnumpy().item())))

    @p.setter
    def p(self, value: float) -> None:
        for array in self.logit.list_data():
            array[:] = replace(self.member, p=value).logit

    def _symbol(self, X: mx.sym.Symbol, stream: mx.sym.Symbol | None) -> mx.sym.Symbol:
        return symbol(self.member, X, stream, self.logit.var(), of_layer=True)

    def _train(self, X: Array) -> Array:
        return through(self.member, X, lambda: self._take(X), learned=self.logit.data(X.ctx))

    def regularizer(self, weight: Array, *, length_scale: float = 1.0) -> Array:
        """The part of the loss that keeps p up: the divergence of the weight's distribution from its prior, equation 3
        of the paper, length_scale²·(1 − p)/2·‖M‖² − K·H(p), where M, the weight before dropout scales, is
        weight/(1 − p). Divide it by the number of training examples, and add it to their mean loss.

        Args:
            weight: that of the layer after this one, of shape (outputs, K, …), where K is the number of features that
                are dropped.
            length_scale: the prior's, at least 0.

        Returns:
            An array of shape (1,), differentiable with respect to `logit` and `weight`.

        Raises:
            ValueError: for a bad length scale.
        """
        scale = checks.at_least_zero("length_scale", length_scale)
        F, logit = mx.np if isinstance(weight, mx.np.ndarray) else mx.nd, self.logit.data(weight.ctx)
        softplus = F.log1p(F.exp(-F.abs(logit))) + F.maximum(logit, 0.0)
        entropy = softplus - logit / (1.0 + F.exp(-logit))
        return scale**2 / 2.0 * (weight * weight).sum() * (1.0 + F.exp(logit)) - weight.shape[1] * entropy


def layer(member: Member, *, seed: int | Key | None = None) -> Random:
    """`multidrop.layer`: a Gluon block of any member; one that learns p for `ConcreteDropout`."""
    if type(member) is family.Dropout:
        return Dropout(member.p, seed=seed)
    if type(member) is family.ConcreteDropout:
        return ConcreteDropout(member.p, member.temperature, seed=seed)
    return MemberLayer(member, seed=seed)


class _WeightDropout(gluon.HybridBlock):
    """Runs a block with some of its parameters through a member of the family in training mode, each by the next key.

    A net that is hybridized before its first call must know the shapes of these parameters: give the block
    `in_units` or `in_channels`.
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
        own = tuple(getattr(layer, "_reg_params", ()))
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

    def forward(self, X: Array | mx.sym.Symbol, *args: Any) -> Any:
        params = self.layer._reg_params
        if isinstance(X, mx.sym.Symbol):
            for name in self.dropped:
                if not _known(params[name].shape):
                    raise ValueError(
                        f"layer: expected a {name} of known shape in a hybridized net; got {params[name].shape}: give "
                        "the layer in_units or in_channels, or call the net once before it is hybridized"
                    )
            values, F = {name: param.var() for name, param in params.items()}, mx.sym
        elif not mx.autograd.is_training():
            return self.layer(X, *args)
        else:
            if not all(_known(param.shape) for param in params.values()):
                with mx.autograd.pause():
                    self.layer(X, *args)  # which tells the shapes
            values, F = {name: param.data(X.ctx) for name, param in params.items()}, mx.nd
        for name in self.dropped:
            values[name] = self.dropout(values[name])
        with self.layer.name_scope():
            return self.layer.hybrid_forward(F, X, *args, **values)


def _known(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and all(size > 0 for size in shape)


class DropConnect(_WeightDropout):
    """A block whose weights are each dropped with probability p in training mode, and scaled by 1/(1 − p) where they
    stay: `multidrop.family.DropConnect`.

    Source: L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    Args:
        layer: a block with parameters of its own, such as `nn.Dense` or `nn.Conv2D`. A net that is hybridized before
            its first call must know their shapes: give it `in_units` or `in_channels`.
        p: the probability that a weight is dropped, in [0, 1].
        weights: the names of the parameters to drop; without any, those whose name ends in "weight".
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability or seed, and a layer without such parameters.
    """

    def __init__(
        self,
        layer: gluon.HybridBlock,
        p: float = 0.5,
        weights: Sequence[str] | None = None,
        *,
        seed: int | Key | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, family.DropConnect(p), weights, seed, **kwargs)


class EmbeddingDropout(_WeightDropout):
    """An embedding that loses each word with probability p in training mode, wherever it stands in the batch, the
    others scaled by 1/(1 − p): `multidrop.family.EmbeddingDropout`.

    Source: Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    NeurIPS 29 (2016), section 4.2.

    Args:
        layer: an `nn.Embedding`, with `sparse_grad=False`.
        p: the probability that a word is dropped, in [0, 1].
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability or seed, and a layer without a weight.
    """

    def __init__(
        self, layer: gluon.HybridBlock, p: float = 0.1, *, seed: int | Key | None = None, **kwargs: Any
    ) -> None:
        super().__init__(layer, family.EmbeddingDropout(p), ("weight",), seed, **kwargs)
