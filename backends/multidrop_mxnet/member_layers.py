"""The members of the dropout family as Gluon blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

import mxnet as mx
import numpy as np
from mxnet import gluon

from multidrop import checks, family
from multidrop.family import Member
from multidrop.layers import OfMember, OfSettings, settings
from multidrop.spec.keys import Key

from . import internals
from .apply import symbol, through
from .functional import Array
from .layers import Dropout, Random, parameters_of


class MemberLayer(OfMember, Random):
    """Applies a member of the dropout family in training mode (`autograd.record()`); passes the input on
    in evaluation mode.

    Attributes:
        member: the member. To change a setting, as a schedule does, set another member; `p` sets the member's p. A
            hybridized net keeps the member that it was traced with.

    Args:
        member: such as `multidrop.family.DropBlock(p=0.1)`.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for what is no member, or a bad seed; when called, for a shape that the member does not take.
    """

    def __init__(self, member: Member, *, seed: int | Key | None = None, **kwargs: Any) -> None:
        member = family.checked(member)
        super().__init__(seed, **kwargs)
        self.member = member

    def _symbol(self, X: mx.sym.Symbol, stream: mx.sym.Symbol | None) -> mx.sym.Symbol:
        return symbol(self.member, X, stream, of_layer=True)

    def _train(self, X: Array) -> Array:
        return through(self.member, X, lambda idle: self._take(X, idle))

    def __repr__(self) -> str:
        return self._shown(type(self.member).__name__, settings(self.member))

    @property
    def rate(self) -> Any:
        """`p`, by Gluon's name."""
        return self.p

    @rate.setter
    def rate(self, value: float) -> None:
        self.p = value


class _OfSettings(OfSettings, MemberLayer):
    """Base class of the layers of one kind of member, built from its settings; p has Gluon's name, `rate`."""

    layers: ClassVar[dict[type[Member], type]] = {}
    name_of_p: ClassVar[str] = "rate"
    more: ClassVar[str] = "    **kwargs: `prefix` and `params` of `gluon.Block`."

    def __repr__(self) -> str:
        return self._shown(type(self).__name__, settings(self.member, self.name_of_p))


class DropPath(_OfSettings, kind=family.DropPath): ...


class DropBlock(_OfSettings, kind=family.DropBlock): ...


class SpatialDropout(_OfSettings, kind=family.SpatialDropout): ...


class LockedDropout(_OfSettings, kind=family.LockedDropout): ...


class GaussianDropout(_OfSettings, kind=family.GaussianDropout): ...


class GaussianNoise(_OfSettings, kind=family.GaussianNoise): ...


class AlphaDropout(_OfSettings, kind=family.AlphaDropout): ...


class FeatureAlphaDropout(_OfSettings, kind=family.FeatureAlphaDropout): ...


class ConcreteDropout(_OfSettings, kind=family.ConcreteDropout):
    """Applies `multidrop.family.ConcreteDropout` and learns its p, as the parameter `logit` = log(p/(1 − p)) of shape
    (1,). Add `regularizer` to the loss; without it p only falls.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017).

    Args:
        rate: p at the start, in (0, 1).
        temperature: above 0; the paper's is 0.1.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability, temperature or seed.
    """

    def __init__(self, *settings: Any, seed: int | Key | None = None, **named: Any) -> None:
        super().__init__(*settings, seed=seed, **named)
        self.logit = self.params.get("logit", shape=(1,), init=mx.init.Constant(self.member.logit))

    @property
    def p(self) -> float:
        """p as it is now; setting it moves the logit."""
        if not internals.initialized(self.logit):
            return self.member.p
        return float(1.0 / (1.0 + np.exp(-self.logit.data().asnumpy().item())))

    @p.setter
    def p(self, value: float) -> None:
        for array in self.logit.list_data():
            array[:] = replace(self.member, p=value).logit

    def _symbol(self, X: mx.sym.Symbol, stream: mx.sym.Symbol | None) -> mx.sym.Symbol:
        return symbol(self.member, X, stream, self.logit.var(), of_layer=True)

    def _train(self, X: Array) -> Array:
        return through(self.member, X, lambda idle: self._take(X, idle), learned=self.logit.data(X.ctx))

    def regularizer(self, weight: Any, *, length_scale: float = 1.0) -> Any:
        """The term of the loss that keeps p up: `multidrop.family.ConcreteDropout.regularizer`. Divide it by the number
        of training examples and add it to their mean loss.

        Args:
            weight: the weight of the layer after this one, of shape (outputs, K, …), where K is the number of features
                that are dropped; in `hybrid_forward`, its symbol.
            length_scale: the prior's, at least 0.

        Returns:
            An array of shape (1,) of the weight's kind, or a symbol; differentiable with respect to `logit` and
            `weight`.

        Raises:
            ValueError: for a bad length scale.
        """
        plain = weight.as_nd_ndarray()
        symbolic = isinstance(weight, mx.sym.Symbol)
        F, logit = (mx.sym, self.logit.var()) if symbolic else (mx.nd, self.logit.data(weight.ctx))
        squares = F.reshape(F.sum(F.square(plain)), shape=(1,))
        features = F.reshape(F.max(F.sum(F.ones_like(plain), axis=1)), shape=(1,))  # a symbol has no shape to ask
        found = self.member.regularizer(F, logit.as_nd_ndarray(), squares, features, length_scale)
        return found if plain is weight else found.as_np_ndarray()

    def __repr__(self) -> str:
        return self._shown(type(self).__name__, f"rate={self.p:.4g}", f"temperature={self.member.temperature}")


def layer(member: Member, *, seed: int | Key | None = None) -> Random:
    """`multidrop.layer`: an instance of the class of the member's name, or else of `MemberLayer`."""
    if type(member) is family.Dropout:
        return Dropout(member.p, seed=seed)
    kind = _OfSettings.layers.get(type(member))
    if kind is None:
        return MemberLayer(member, seed=seed)
    return kind(*(getattr(member, each.name) for each in fields(member)), seed=seed)


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
        elif not mx.autograd.is_training():
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
