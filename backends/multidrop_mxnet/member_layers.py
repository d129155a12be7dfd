"""The members of the dropout family as Gluon blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import mxnet as mx
import numpy as np

from multidrop import family
from multidrop.family import Member
from multidrop.layers import OfMember, OfSettings, from_table, shown_settings
from multidrop.spec.keys import Key

from . import internals
from .apply import symbol, through
from .functional import Array
from .layers import Dropout, Random


class MemberLayer(OfMember, Random):
    """Applies a member of the dropout family in training mode (`autograd.record()`); passes the input on in evaluation
    mode.

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
        return through(self.member, X, lambda idle: self._next_key(X, idle))

    def __repr__(self) -> str:
        return self._shown(type(self.member).__name__, shown_settings(self.member))

    @property
    def rate(self) -> Any:
        """`p`, by Gluon's name."""
        return self.p

    @rate.setter
    def rate(self, value: float) -> None:
        self.p = value


class _OfSettings(OfSettings, MemberLayer):
    """Base class of the layers of one kind of member, built from its settings; p has Gluon's name, `rate`."""

    layers: ClassVar[dict[type[Member], Any]] = {Member: MemberLayer, family.Dropout: Dropout}
    name_of_p: ClassVar[str] = "rate"
    more: ClassVar[str] = "    **kwargs: `prefix` and `params` of `gluon.Block`."

    def __repr__(self) -> str:
        return self._shown(type(self).__name__, shown_settings(self.member, self.name_of_p))


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
    def _learned(self) -> Array:
        return self.logit.data()

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
        return through(self.member, X, lambda idle: self._next_key(X, idle), learned=self.logit.data(X.ctx))

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
    return from_table(_OfSettings.layers, member, seed)
